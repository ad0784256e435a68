"""Sentences on what only some comparisons have: class inversion, hidden columns, made-up secrets, graphs, single examples.

The figures are those of the result's summary.
"""

from evaluation.report.wording.names import attack_name, interval, number, row_name
from evaluation.report.wording.parts import beside, find
from evaluation.report.wording.said import secrets_said
from evaluation.result import ComparisonResult, Measure, Summary


def findings(result: ComparisonResult) -> list[str]:
    """Sentences on what this comparison has beside accuracy and membership."""
    return [*_inversions(result), *_attributes(result), *_secrets(result), *_graph(result)]


def exposure_in_words(result: ComparisonResult) -> str:
    """The drawing of how the leak is spread, for who cannot see it."""
    told = [
        f"{row_name(item)}: {interval(item.exposure.striking)}, by chance {number(item.exposure.striking_by_chance, 4)}"
        for item in result.summary
        if item.exposure is not None
    ]
    return "Share of examples whose own TPR at 1% FPR lies above 10%. " + "; ".join(told) + "."


def _areas(summary: Summary, family: str) -> list[Measure]:
    return [item for item in summary.measures if item.name.startswith(family) and item.name.endswith("/auc")]


def _ends(result: ComparisonResult) -> list[Summary]:
    """The non-private row, and the private ones at both ends of the budgets."""
    private = [item for item in result.summary if item.variant == "dp"]
    shown = [item for item in result.summary if item.variant == "non_private"]
    return [*shown, *([private[0], private[-1]] if private[1:] else private)]


def _graph(result: ComparisonResult) -> list[str]:
    """What a graph adds to a model, and how well the attack that finds most edges tells them."""
    rows, sentences = _ends(result), list[str]()
    gained = [(item, found) for item in rows if (found := find(item, "accuracy_by_the_graph")) and found.value is not None]
    if gained:
        told = ", ".join(f"{100 * (found.value or 0.0):+.1f} points ({row_name(item)})" for item, found in gained)
        vain = [row_name(item) for item, found in gained if found.low is None or found.low <= 0]
        worth = f" It is not shown to be worth anything at {' and '.join(vain)}." if vain else ""
        sentences.append(f"Than a model that ignores all edges it is more accurate by {told}.{worth}")
    rated = [item for item in _areas(rows[0], "link.") if item.value is not None] if rows else []
    if rated:
        best = max(rated, key=lambda item: item.value or 0.0)
        attack = best.name.split("/")[0]
        each = [(item, find(item, best.name), item.verdicts.get(attack, "none")) for item in rows]
        told = ", ".join(
            f"{number(found.value)} ({row_name(item)}; {word})"
            for item, found, word in each
            if found and found.value is not None
        )
        features = beside(rows[0], attack, "features")
        alone = "" if features is None else f"; features alone, without a model, have {number(features)}"
        name = attack_name(attack)
        sentences.append(f"{name[0].upper()}{name[1:]}, tell linked nodes from others with an AUC of {told}{alone}.")
    return sentences


def _secrets(result: ComparisonResult) -> list[str]:
    """How far made-up secrets are narrowed down by the non-private model, and by the private ones at both ends."""
    label = "extraction.exposure/exposure"
    rated = [(item, found) for item in result.summary if (found := find(item, label)) is not None and found.value is not None]
    ends = _ends(result)
    shown = [pair for pair in rated if pair[0] in ends]
    if not shown:
        return []
    count = max((text.insertions for _, texts in secrets_said(result) for text in texts), default=0)
    verdicts = [item.verdicts.get("extraction.exposure", "none") for item, _ in shown]
    told = [
        f"{found.value:.1f} bits ({row_name(item)}; {verdict})" for (item, found), verdict in zip(shown, verdicts, strict=True)
    ]
    never = find(shown[0][0], f"{label}_never_inserted")
    beside = f"; of one that it was not trained on, {never.value:.1f}" if never is not None and never.value is not None else ""
    return [f"Of a made-up secret that stands in {count} examples the model gives away {', '.join(told)}{beside}."]


WHOSE = {
    "of the population": "the model gives away what holds of the population, and no more of its members that was shown",
    "leak": "the model gives away its own members",
    "within the plan": "the model gives away its own members, within what the plan permits",
    "above the plan": "the model gives away its own members, beyond what the plan permits",
    "nothing beyond public": "whoever has no model guesses as well",
}
"""What a verdict on an attribute inference says, in a sentence about the model."""


def _attributes(result: ComparisonResult) -> list[str]:
    """What follows from the attribute inference that guesses most: whose secret it is, and what a tree would give away."""
    means: dict[str, float] = {}
    for item in result.summary[:1]:
        for measure in item.measures:
            attack, _, metric = measure.name.partition("/")
            if attack.startswith("attribute.") and metric == "guessed" and measure.value is not None:
                means[attack] = measure.value
    if not means:
        return []
    attack, first = max(means, key=lambda name: means[name]), result.summary[0]
    held_out, imputation = find(first, f"{attack}/guessed_held_out"), beside(first, attack, "imputation")
    others = _percent(held_out) if held_out else "an unknown share"
    outcome = beside(first, attack, "imputation_with_outcome")
    with_it = "" if outcome is None else f", and with the true outcome {100 * outcome:.0f}%"
    imputed, whose = 100 * (imputation or 0.0), WHOSE.get(first.verdicts.get(attack, ""), "see below")
    said = (
        f"The hidden column is guessed for {100 * means[attack]:.0f}% of the members of the first row ({row_name(first)}) and "
        f"for {others} of people who were not trained on, where imputation without a model guesses {imputed:.0f}%{with_it}: "
        f"{whose}."
    )
    own, apart = (beside(first, attack, name) for name in ("grown_tree", "grown_tree_held_out"))
    if own is None or apart is None:
        return [said]
    shares = f"{100 * own:.0f}% of them against {100 * apart:.0f}% of others"
    return [said, f"A fully grown tree of the same members gives them away: {shares}."]


def _percent(measure: Measure) -> str:
    return "an unknown share" if measure.value is None else f"{100 * measure.value:.1f}%"


def _inversions(result: ComparisonResult) -> list[str]:
    """The class inversion of whose pictures most are recognised, on the non-private models and at both ends of the budgets."""
    told: list[str] = []
    for item in _ends(result):
        rated = [one for one in item.measures if one.name.endswith("/identified_top1") and one.value is not None]
        if rated:
            best = max(rated, key=lambda one: one.value or 0.0)
            attack = best.name.split("/")[0]
            name = attack_name(attack)
            of = f", the best of {len(rated)} inversions," if len(rated) > 1 else ""
            verdict = item.verdicts.get(attack, "none")
            told.append(f"{interval(best)} as {name[0].lower()}{name[1:]}{of} draws them ({row_name(item)}; {verdict})")
    return [f"Of the classes a judge recognises {'; '.join(told)}."] if told else []
