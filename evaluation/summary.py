"""All runs of a comparison together: controls that need another run, and means over seeds.

The positive control of a private model is its non-private twin: same seed, same split, same number of updates, same
attack. An attack that finds nothing on the twin either has not shown that there is nothing to find.
"""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.metrics import Subjects, difference, over_seeds
from evaluation.result import AttackResult, Exposure, GuardedSummary, Kind, Measure, RunResult, Summary, read_run
from evaluation.utility import as_measures
from evaluation.verdicts import above_plan, of_attribute, of_links, of_words

NO_TWIN = "no non-private twin ran to show what the attack can find, so this shows little"
NOTHING_ON_TWIN = "it finds nothing on the non-private twin either, so this shows little"
LEAST = {
    "train_minus_held_out": -1.0,
    "held_out_minus_imputation": -1.0,
    "members_minus_non_members": -1.0,
    "accuracy_by_the_graph": -1.0,
    "similarity_to_private_mean": -1.0,
    "distance_held_out_less_member": -math.inf,
}
"""The least that a figure can be, where that is below 0."""
ORDER = {"non_private": 0, "clip_only": 1, "regularized": 2, "dp": 3}


def read_results(folders: Iterable[Path]) -> tuple[tuple[RunResult, ...], tuple[RunResult, ...]]:
    """Results of the finished models below the run folders, and those of earlier checkpoints."""
    last: list[RunResult] = []
    earlier: list[RunResult] = []
    for folder in folders:
        found = [read_run(path) for path in sorted((folder / "evaluation").glob("step=*/result.json"))]
        last += [run for run in found if run.step == run.steps]
        earlier += [run for run in found if run.step != run.steps]
    return tuple(last), tuple(earlier)


def with_twins(runs: tuple[RunResult, ...]) -> tuple[RunResult, ...]:
    """Each run with its non-private twin's figure as the positive control of every attack."""
    twins = {run.seed: run for run in runs if run.variant == "non_private"}
    return tuple(_with_twin(run, twins.get(run.seed)) for run in runs)


def _with_twin(run: RunResult, twin: RunResult | None) -> RunResult:
    if run.variant == "non_private":
        return run
    figures = {attack.name: attack for attack in twin.attacks} if twin is not None else {}
    return dataclasses.replace(run, attacks=tuple(_controlled(attack, figures.get(attack.name)) for attack in run.attacks))


def _controlled(attack: AttackResult, twin: AttackResult | None) -> AttackResult:
    kept = tuple(control for control in attack.controls if control.name != "non_private_twin")
    reason = attack.reason
    if twin is None or twin.status != "ok":
        doubt = NO_TWIN
    else:
        kept += (Measure(name="non_private_twin", value=twin.value, low=twin.low, high=twin.high),)
        doubt = NOTHING_ON_TWIN if twin.verdict == "found nothing" else ""
    if attack.verdict == "found nothing" and doubt and doubt not in reason:
        reason = f"{reason}; {doubt}"
    return dataclasses.replace(attack, controls=kept if attack.status == "ok" else attack.controls, reason=reason)


def summarize(runs: tuple[RunResult, ...]) -> tuple[Summary, ...]:
    """One summary a budget or baseline: non-private, clip-only, regularized, then budgets from large to small."""
    return tuple(_summary(members) for members in by_kind(runs).values())


def by_kind(runs: Iterable[RunResult]) -> dict[Kind, list[RunResult]]:
    """The seeds of each budget or baseline, in the order of :func:`summarize`; regularizers keep the order of the runs."""
    groups: dict[Kind, list[RunResult]] = {}
    for run in runs:
        groups.setdefault(run.kind, []).append(run)
    return dict(sorted(groups.items(), key=lambda item: (ORDER[item[0][0]], -item[0][1])))


def _summary(runs: list[RunResult]) -> Summary:
    found = _of_attacks([run.attacks for run in runs])
    worth = [
        over_seeds(list(same), same[0].name, LEAST.get(same[0].name, 0.0), math.inf, "the same")
        for same in zip(*map(utilities_of, runs), strict=True)
    ]
    return Summary(
        variant=runs[0].variant,
        epsilon=runs[0].epsilon,
        regularizer=runs[0].regularizer,
        seeds=tuple(run.seed for run in runs),
        utility=over_seeds([utility_of(run) for run in runs], worth[0].name, subjects="the same"),
        further_utility=tuple(worth[1:]),
        measures=found.measures,
        beside=found.beside,
        permitted=found.permitted,
        verdicts=found.verdicts,
        exposure=_exposure([run.exposure for run in runs if run.exposure is not None]),
        guarded=tuple(_through(name, runs) for name in dict.fromkeys(item.guard for run in runs for item in run.guarded)),
    )


@dataclass(frozen=True)
class _Figures:
    measures: tuple[Measure, ...]
    beside: tuple[Measure, ...]
    permitted: dict[str, float]
    verdicts: dict[str, str]


def _of_attacks(each: list[tuple[AttackResult, ...]]) -> _Figures:
    """Of the same attacks on each seed's model."""
    attacks: dict[str, list[AttackResult]] = {}
    for attack in (attack for found in each for attack in found):
        attacks.setdefault(attack.name, []).append(attack)
    measures: list[Measure] = []
    beside: list[Measure] = []
    permitted: dict[str, float] = {}
    for name, results in attacks.items():
        good = [result for result in results if result.status == "ok"]
        if not good:
            continue
        label = f"{name}/{good[0].metric}"
        measures.append(_mean_of([headline(result) for result in good], label))
        if good[0].permitted is not None:
            permitted[label] = good[0].permitted
        for further in good[0].metrics:
            same = [item for result in good for item in result.metrics if item.name == further.name]
            measures.append(_mean_of(same, f"{name}/{further.name}"))
            if further.name in good[0].permitted_metrics:
                permitted[f"{name}/{further.name}"] = good[0].permitted_metrics[further.name]
        found: dict[str, list[Measure]] = {}
        for item in (item for result in good for item in _beside(result)):
            found.setdefault(item.name, []).append(item)
        beside += [_mean_of(same, f"{name}/{item}", good[0].metric) for item, same in found.items()]
    verdicts = {name: _verdict(results, name, measures, beside, permitted) for name, results in attacks.items()}
    return _Figures(tuple(measures), tuple(beside), permitted, verdicts)


def _through(guard: str, runs: list[RunResult]) -> GuardedSummary:
    """All seeds behind one guard."""
    each = [item for run in runs for item in run.guarded if item.guard == guard]
    found = _of_attacks([item.attacks for item in each])
    made = next((item for item in each if not item.reason), each[0])
    worth = {measure.name: [other for item in each for other in item.utility if other.name == measure.name]
             for measure in made.utility}  # fmt: skip
    return GuardedSummary(
        guard=guard,
        access=made.access,
        statement=made.statement,
        utility=tuple(over_seeds(same, name, most=math.inf, subjects="the same") for name, same in worth.items()),
        measures=found.measures,
        permitted=found.permitted,
        verdicts=found.verdicts,
        beside=found.beside,
        reason="; ".join(dict.fromkeys(item.reason for item in each if item.reason)),
    )


def _beside(result: AttackResult) -> tuple[Measure, ...]:
    return (*result.judges, *result.baselines, *result.likeness_without_model, *result.controls)


def subjects_of(label: str) -> Subjects:
    """Whether ``<attack>/<metric>`` is of members and others whom each seed deals out anew, or of the same classes, people or
    mechanism in all of them."""
    return (
        "dealt anew"
        if label.startswith(("membership.", "extraction.")) or label.endswith("/train_minus_held_out")
        else "the same"
    )


def _mean_of(same: list[Measure], label: str, beside: str = "") -> Measure:
    """Over seeds.

    Args:
        beside: the headline that a baseline or control is of the kind of.
    """
    metric = label.rpartition("/")[2]
    most = math.inf if metric.startswith(("distance_", "error_of_")) or in_bits(metric) or in_bits(beside) else 1.0
    least = -1.0 if metric.startswith(("ssim_of_", "auc_above_")) else LEAST.get(metric, 0.0)
    return over_seeds(same, label, least, most, subjects_of(label))


def _exposure(found: list[Exposure]) -> Exposure | None:
    """How the leak is spread, as the mean over seeds. Counts at other levels, of another version, are not mixed."""
    found = [one for one in found if one.levels == found[0].levels]
    if not found:
        return None
    return dataclasses.replace(
        found[0],
        examples=sum(one.examples for one in found),
        models=min(one.models for one in found),
        flagged=over_seeds([one.flagged for one in found], found[0].flagged.name, subjects="the same"),
        striking=over_seeds([one.striking for one in found], found[0].striking.name, subjects="the same"),
        striking_by_chance=float(np.mean([one.striking_by_chance for one in found])),
        share_above=_mean([one.share_above for one in found]),
        share_by_chance=_mean([one.share_by_chance for one in found]),
        largest_by_chance=float(np.mean([one.largest_by_chance for one in found])),
    )


def _mean(shares: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(np.mean(shares, axis=0).tolist())


def in_bits(metric: str) -> bool:
    """Whether a metric is an exposure, which may be above 1, and no share."""
    return metric.startswith(("exposure", "median_exposure"))


def headline(result: AttackResult) -> Measure:
    """What an attack is judged by, with its interval."""
    return Measure(name=result.metric, value=result.value, low=result.low, high=result.high)


def utilities_of(run: RunResult) -> tuple[Measure, ...]:
    """What the model is worth, with intervals, the headline first."""
    return as_measures(run.utility)


def utility_of(run: RunResult) -> Measure:
    """The headline of what the model is worth: a share, of which more is better."""
    return utilities_of(run)[0]


def _verdict(
    results: list[AttackResult], name: str, measures: list[Measure], beside: list[Measure], permitted: dict[str, float]
) -> str:
    """The verdict over all seeds, worst first: none hides another. Where no seed has one to keep, the mean decides."""
    kept: list[str] = []
    by_mean = name.startswith(("attribute.", "link.", "node."))
    # A seed that shows nothing beyond what needs no model hides no leak: of the same people and edges the mean says it.
    for word in ("above the plan", "withheld", "no signal", *(() if by_mean else ("nothing beyond public",))):
        count = sum(result.verdict == word for result in results)
        if count:
            kept.append(word if count == len(results) else f"{word} ({count} of {len(results)} seeds)")
            break
    for status in ("failed", "not_applicable"):
        count = sum(result.status == status for result in results)
        if count:
            kept.append(f"{count} of {len(results)} {status.replace('_', ' ')}")
    if kept:
        return "; ".join(kept)
    if name.startswith(("link.", "node.")):
        return _graph_verdict(results[0], name, measures, beside)
    if name.startswith("attribute."):
        return _attribute_verdict(results, name, measures, permitted)
    if name.startswith("extraction."):
        return _secrets_verdict(results)
    label = f"{name}/{results[0].metric}"
    measure = next(item for item in measures if item.name == label)
    chance = results[0].chance
    if measure.low is None or chance is None or measure.low <= chance:
        # The mean's AUC shows nothing; what every single seed shows at a low false positive rate still stands.
        shared = {result.verdict for result in results}
        return shared.pop() if len(shared) == 1 else "found nothing"
    if label in permitted:
        return "within the plan" if above_plan(measure, permitted[label]) is None else "above the plan"
    return "leak"


def _secrets_verdict(results: list[AttackResult]) -> str:
    """What a seed found stands, whatever the others found: each has secrets of its own that were inserted."""
    for word in ("leak", "within the plan"):
        count = sum(result.verdict == word for result in results)
        if count:
            return word if count == len(results) else f"{word} ({count} of {len(results)} seeds)"
    return "found nothing"


def _graph_verdict(one: AttackResult, name: str, measures: list[Measure], beside: list[Measure]) -> str:
    """By the means of every figure, as those of one model are judged."""

    def of(found: list[Measure]) -> dict[str, Measure]:
        return {
            item.name.removeprefix(f"{name}/"): dataclasses.replace(item, name=item.name.removeprefix(f"{name}/"))
            for item in found
            if item.name.startswith(f"{name}/")
        }

    figures, without = of(measures), of(beside)
    mean = figures.pop(one.metric)
    judged = dataclasses.replace(
        one,
        value=mean.value,
        low=mean.low,
        high=mean.high,
        metrics=tuple(figures.values()),
        baselines=tuple(without[item.name] for item in one.baselines),
    )
    return (of_links if name.startswith("link.") else of_words)(judged)[0]


def _attribute_verdict(results: list[AttackResult], name: str, measures: list[Measure], permitted: dict[str, float]) -> str:
    over = {item.name.removeprefix(f"{name}/"): item for item in measures if item.name.startswith(f"{name}/")}
    imputed = [item for result in results for item in result.baselines if item.name == "imputation"]
    imputation = over_seeds(imputed, "imputation", subjects="the same")
    beyond = over.get("held_out_minus_imputation")
    if beyond is None:  # a result of before they were paired
        beyond = difference(over["guessed_held_out"], imputation, "held_out_minus_imputation")
    leaked = over["train_minus_held_out"]
    verdict, _ = of_attribute(beyond, imputation, leaked, permitted.get(f"{name}/train_minus_held_out"))
    return verdict
