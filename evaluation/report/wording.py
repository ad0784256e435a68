"""What the views call things, so that one thing has one name in all of them."""

import math

from evaluation.result import ComparisonResult, Measure, Summary

ATTACK_NAMES = {
    "membership.threshold": "Membership, loss threshold",
    "membership.lira": "Membership, LiRA",
    "inversion.class": "Class inversion",
}
METRIC_NAMES = {"auc": "AUC", "identified_top1": "identified", "test_accuracy": "test accuracy"}
VARIANT_NAMES = {"non_private": "non-private", "clip_only": "clip only", "regularized": "regularized", "dp": "DP"}

COMPUTED_FROM_MEMBERS = (
    "The figures and pictures here are computed from members without noise: ε does not cover them. Do not publish them as "
    "they are where the membership or the examples are secret."
)


def attack_name(name: str) -> str:
    return ATTACK_NAMES.get(name, name)


def metric_name(name: str) -> str:
    if name.startswith("tpr_at_fpr_"):
        return f"TPR at {100 * float(name.removeprefix('tpr_at_fpr_')):g}% FPR"
    return METRIC_NAMES.get(name, name.replace("_", " "))


def measure_name(name: str) -> str:
    """``membership.lira/auc`` in words."""
    attack, _, metric = name.partition("/")
    return f"{attack_name(attack)}: {metric_name(metric)}"


def short_name(name: str) -> str:
    """``membership.lira/tpr_at_fpr_0.01`` as ``lira TPR 1%``: axes of a parallel-coordinates view have little room."""
    attack, _, metric = name.partition("/")
    if not metric:
        return metric_name(name)
    rate = f"TPR {100 * float(metric.removeprefix('tpr_at_fpr_')):g}%" if metric.startswith("tpr_at_fpr_") else None
    return f"{attack.split('.')[-1]} {rate or {'auc': 'AUC', 'identified_top1': 'top-1'}.get(metric, metric)}"


def is_rate(name: str) -> bool:
    """Whether a measure is a share between 0 and 1; distances between inputs are not."""
    return not name.split("/")[-1].startswith("distance_")


def budget(epsilon: float) -> str:
    return "∞" if math.isinf(epsilon) else f"{epsilon:g}"


def row_name(summary: Summary) -> str:
    """Of a row or a series: ``DP, ε = 8`` or ``clip only``."""
    name = VARIANT_NAMES[summary.variant]
    return f"{name}, ε = {budget(summary.epsilon)}" if summary.variant == "dp" else name


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def interval(measure: Measure | None) -> str:
    """``0.585 [0.556, 0.613]``; a dash where nothing was measured."""
    if measure is None or measure.value is None:
        return "–"
    if measure.low is None or measure.high is None:
        return number(measure.value)
    return f"{number(measure.value)} [{number(measure.low)}, {number(measure.high)}]"


def find(summary: Summary, name: str) -> Measure | None:
    return next((measure for measure in summary.measures if measure.name == name), None)


def measure_names(result: ComparisonResult) -> list[str]:
    """Every ``<attack>/<metric>`` that occurs, in order of first sight."""
    return list(dict.fromkeys(measure.name for summary in result.summary for measure in summary.measures))


def headlines(result: ComparisonResult) -> dict[str, str]:
    """Attack to the ``<attack>/<metric>`` that it is judged by."""
    found: dict[str, str] = {}
    for run in result.runs:
        for attack in run.attacks:
            if attack.status == "ok":
                found.setdefault(attack.name, f"{attack.name}/{attack.metric}")
    return found


def attacks(result: ComparisonResult) -> list[str]:
    """Every attack that occurs, also where it failed."""
    return list(dict.fromkeys(attack.name for run in result.runs for attack in run.attacks))


def chances(result: ComparisonResult) -> dict[str, float]:
    """``<attack>/<metric>`` to what an attack without any signal gets."""
    return {
        f"{attack.name}/{attack.metric}": attack.chance
        for run in result.runs
        for attack in run.attacks
        if attack.status == "ok" and attack.chance is not None
    }


def broken(result: ComparisonResult) -> list[str]:
    """What failed or did not apply, one sentence each."""
    lines = [f"FAILED: {failure}" for failure in result.failures]
    unfinished = [(run, attack) for run in result.runs for attack in run.attacks if attack.status != "ok"]
    return lines + [
        f"{attack.status.replace('_', ' ').upper()}: {attack.name} on {run.label}: {attack.reason}"
        for run, attack in unfinished
    ]


def answer(result: ComparisonResult) -> list[str]:
    """The result in sentences: what each end of the budgets keeps, and what the strongest attack still gets."""
    non_private = next((item for item in result.summary if item.variant == "non_private"), None)
    private = [item for item in result.summary if item.variant == "dp"]
    sentences: list[str] = []
    if non_private is not None:
        right = _percent(non_private.utility)
        sentences.append(f"Without privacy the model is right on {right} of held-out examples{_strongest(non_private)}.")
    ends = [private[0], private[-1]] if len(private) > 1 else private
    return sentences + [f"At ε = {budget(item.epsilon)} it keeps {_percent(item.utility)}{_strongest(item)}." for item in ends]


def _percent(measure: Measure) -> str:
    return "an unknown share" if measure.value is None else f"{100 * measure.value:.1f}%"


def _strongest(summary: Summary) -> str:
    """The membership attack with the largest AUC."""
    rated = [item for item in summary.measures if item.name.endswith("/auc") and item.value is not None]
    if not rated:
        return ""
    best = max(rated, key=lambda item: item.value or 0.0)
    attack = best.name.split("/")[0]
    allowed = summary.permitted.get(best.name)
    limit = f", of at most {allowed:.3f} that the plan permits" if allowed is not None else ""
    verdict = summary.verdicts.get(attack, "")
    return f", and the strongest membership attack ({attack_name(attack)}) reaches an AUC of {interval(best)}{limit}: {verdict}"
