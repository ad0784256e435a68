"""Verdicts that hold for one model as for the mean over several: a word of ``evaluation.result.VERDICTS``, and why.

A figure is *above the plan* where its interval at the gate's confidence is. That says that a guarantee is broken, and is asked
of every attack, guard, checkpoint and seed of a comparison: at 95% one honest plan in twenty such questions would be accused,
where the figure comes as near as the plan permits. A mean over few seeds is widened as Student's distribution is.
"""

from evaluation.baselines import GATE
from evaluation.metrics import widened
from evaluation.result import AttackResult, Measure, Verdict


def above_plan(measure: Measure | None, permitted: float | None) -> float | None:
    """The lower end of the figure's interval at the gate's confidence, where it lies above what the plan permits."""
    if measure is None or permitted is None:
        return None
    low = widened(measure, GATE).low
    return low if low is not None and low > permitted else None


def of_attribute(beyond: Measure, imputation: Measure, leaked: Measure, permitted: float | None = None) -> tuple[Verdict, str]:
    """Of an attribute inference.

    Args:
        beyond: by how much more often it guesses the hidden value of people who were not trained on than imputation does,
            which has no model, of the same people.
        imputation: the share that imputation guesses.
        leaked: how much more often members are guessed.
        permitted: the most that the plan permits ``leaked`` to be; None without a guarantee.
    """
    if above_plan(leaked, permitted) is not None:
        return "above the plan", f"members are guessed more often by {leaked.value:.3f}, and the plan permits {permitted:.3f}"
    if leaked.low is not None and leaked.low > 0:
        return ("leak" if permitted is None else "within the plan"), "members are guessed more often than held-out people"
    if beyond.low is not None and beyond.low > 0:
        return "of the population", "as often on held-out people, beyond imputation: what the model learned of everyone"
    return "nothing beyond public", f"imputation, without the model, guesses {imputation.value or 0.0:.2f}"


IN_GRAPH = "auc_in_graph"
DIFFERENCE = "members_minus_non_members"
ABOVE_LABEL, ABOVE_WITHOUT_GRAPH = "auc_above_label", "auc_above_without_graph"


def misled(control: Measure, against: str) -> str | None:
    """Why nothing is concluded where a control at the gate's confidence is not at chance; None where it is."""
    if control.low is None or control.high is None or control.low <= 0.5 <= control.high:
        return None
    return f"against {against} the AUC is {control.value:.3f}, which chance does not explain"


def of_links(result: AttackResult) -> tuple[Verdict, str]:
    """Of the figures alone, of one model or as means over seeds, whose control is at chance; see the module."""
    figures = {measure.name: measure for measure in result.metrics}
    in_graph, permitted = figures.get(IN_GRAPH), result.permitted_metrics.get(IN_GRAPH)
    broken = above_plan(in_graph, permitted)
    if in_graph is not None and broken is not None:
        return "above the plan", (
            f"edges of the graph are told from edges held out with an AUC of {in_graph.value:.3f}, at least {broken:.3f} at "
            f"{GATE:.1%} confidence, and the plan permits {permitted:.3f}"
        )
    told = in_graph is not None and in_graph.low is not None and in_graph.low > 0.5
    found = result.low is not None and result.low > 0.5
    others = [item for item in result.baselines if f"auc_above_{item.name}" in figures]
    below = [item.name for item in others if (figures[f"auc_above_{item.name}"].low or 0.0) <= 0]
    if told or (found and not below):
        word: Verdict = "leak" if permitted is None else "within the plan"
        reasons = []
        if found and not below:
            reasons.append(f"linked nodes are told beyond {' and '.join(_WORDS[item.name] for item in others)}")
        if told and in_graph is not None:
            reasons.append(f"edges of the graph are told from edges held out, AUC {in_graph.value:.3f}")
        return word, "; ".join(reasons)
    if not found:
        return "found nothing", "the interval contains 0.5, or lies below it"
    values = {item.name: item.value or 0.0 for item in others}
    without = " and ".join(f"{_WORDS[name]} ({values[name]:.3f})" for name in below)
    return "nothing beyond public", f"its AUC is not shown to be above that of {without}"


_WORDS = {"features": "the features alone", "without_graph": "a model without the graph"}


def of_words(result: AttackResult) -> tuple[Verdict, str]:
    """Of the figures alone, of one model or as means over seeds, whose control is at chance; see the module."""
    figures = {measure.name: measure for measure in (*result.metrics, *result.baselines)}
    if result.low is None or result.low <= 0.5:
        return "found nothing", "the interval contains 0.5, or lies below it"
    reasons, label = [], figures["label"].value or 0.0
    if _is_above(figures[ABOVE_LABEL]):
        reasons.append(f"words are guessed beyond what the label tells ({label:.3f})")
        if ABOVE_WITHOUT_GRAPH in figures:
            more = _is_above(figures[ABOVE_WITHOUT_GRAPH])
            reasons.append(f"the graph {'adds to' if more else 'is not shown to add to'} what a model without it shows")
    if DIFFERENCE in figures and _is_above(figures[DIFFERENCE]):
        reasons.append("members are guessed better than others")
    if reasons:
        return "leak", "; ".join(reasons)
    return "nothing beyond public", f"the label alone, without a model, has an AUC of {label:.3f}"


def _is_above(difference: Measure) -> bool:
    return difference.low is not None and difference.low > 0
