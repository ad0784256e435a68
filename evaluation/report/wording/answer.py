"""The result in at most four sentences, the first of which answers the question: which ε keeps how much, and what is still got.

The figures are those of :mod:`evaluation.headline`; here are their words. An AUC is said as what it is: how often an attack
that is given one of each kind tells which is which.
"""

from dptrain.rounding import up
from evaluation.report.wording.names import attack_name, budget, metric_name, row_name
from evaluation.report.wording.troubles import contradicted
from evaluation.result import ComparisonResult, Headline, Measure, Standing, Strongest

RIGHT = {
    "next_character": "right about the next character at",
    "next_token": "right about the next token at",
    "within_20_percent": "within 20% of the true value on",
    "within_a_tenth_of_the_range": "within a tenth of the value's public range on",
}
"""What a model is where it is right, by the headline of what it is worth."""
OF = {"next_character": "places", "next_token": "places"}
WORTH = {
    "test_accuracy": "accuracy",
    "next_character": "next characters that it gets right",
    "next_token": "next tokens that it gets right",
    "within_20_percent": "predictions within 20%",
    "within_a_tenth_of_the_range": "predictions within a tenth of the range",
}
NO_MODEL = {
    "majority_class": "always naming the most frequent class",
    "most_frequent_character": "always naming the most frequent character",
    "most_frequent_token": "always naming the most frequent token",
    "median_within_20_percent": "always naming the median",
    "median_within_a_tenth_of_the_range": "always naming the median",
}
NOT_COMPUTED = "This result was made before the answer was computed; type `dptrain report RUN --format html` to make it again."
NOTHING = "No model was trained; what failed is said below."
FOUND = ("above the plan", "leak", "within the plan")
GUESSED = {
    "membership": "tells which of two examples was trained on",
    "link": "tells which of two pairs of nodes is linked",
    "node": "tells which of two nodes has a hidden word",
}
"""What an AUC is of, by family."""


def answer(result: ComparisonResult) -> list[str]:
    """At most four sentences; where a guarantee is refuted, that comes first."""
    found = result.headline
    if found is None:
        return [NOT_COMPUTED] if result.summary else [NOTHING]
    if found.chosen is None:
        return [*_refuted(found, result), NOTHING]
    said = [*_refuted(found, result), first(found), _worth(found), _smallest(found)]
    return [sentence for sentence in said if sentence][:4]


def opening(result: ComparisonResult) -> list[str]:
    """The first sentence, behind what is refuted."""
    found = result.headline
    if found is None or found.chosen is None:
        return answer(result)
    return [*_refuted(found, result), first(found)]


def first(found: Headline) -> str:
    """Which ε keeps how much, and what the strongest attack still gets there."""
    chosen = found.chosen
    assert chosen is not None
    return f"{_keeps(found, chosen)}, and {whom(chosen, found)}."


def _keeps(found: Headline, chosen: Standing) -> str:
    if found.choice == "no budget":
        only = "No model of this comparison is private: the one without privacy"
        head = (
            only if chosen.variant == "non_private" else f"No model of this comparison is private: that of {row_name(chosen)}"
        )
        return f"{head} is {_right(chosen)}{_doubt(chosen)}"
    where = f"ε = {budget(chosen.epsilon)}"
    if chosen.kept is None or chosen.kept.value is None:
        beside = "" if found.choice == "the only budget" else ", the smallest budget,"
        lost = "no model without privacy was trained beside it, so what privacy costs is not known"
        return f"At {where}{beside} the model is {_right(chosen)} ({lost}){_doubt(chosen)}"
    worth = WORTH.get(chosen.utility.name, metric_name(chosen.utility.name))
    kept = f"keeps {percent(chosen.kept)} of the {worth} that it has without privacy{_doubt(chosen)}"
    if found.choice == "keeps most" and chosen.kept.value < found.enough:
        enough = f"{100 * found.enough:g}%"
        return f"No budget of this comparison keeps {enough} by its mean: at {where}, where it is worth most, the model {kept}"
    return f"At {where} the model {kept}"


def _doubt(chosen: Standing) -> str:
    beside = chosen.above_no_model
    if beside is None or (beside.low is not None and beside.low > 0):
        return ""
    return f", which is not shown to be more than {NO_MODEL.get(chosen.no_model, metric_name(chosen.no_model))} is worth"


def whom(chosen: Standing, found: Headline) -> str:
    """What the strongest attack gets from a row, beside chance and what the plan permits."""
    best = chosen.strongest
    if best is None:
        if found.failed:
            return f"no attack gave a figure on it: {', '.join(map(attack_name, found.failed))} failed"
        return "no attack gave a figure on it, so that what it gives away was not measured"
    many = f"the strongest of {best.of} attacks that ran" if best.of > 1 else "the one attack that ran"
    got = f"{many} ({attack_name(best.attack)}) {_gets(best)}: {_beside(best, chosen)}"
    if best.verdict.startswith("above the plan"):
        return f"{got}, which it is shown to pass"
    if best.verdict.startswith(FOUND):
        return got
    if best.verdict.startswith("found nothing"):
        shown = best.on_non_private
        blind = shown is not None and best.chance is not None and (shown.low is None or shown.low <= best.chance)
        blind = blind and not best.verdict_on_non_private.startswith(FOUND)
        little = "; without privacy it is not shown to get anything either, so that this shows little" if blind else ""
        return f"no attack is shown to get anything of its members: {got}{little}"
    return f"no attack is shown to get anything of its members: {got} ({best.verdict})"


def _gets(best: Strongest) -> str:
    family = best.attack.split(".")[0]
    if best.metric == "auc" and family in GUESSED:
        return f"{GUESSED[family]} in {percent(best.value)} of cases"
    if best.metric == "auc_in_graph":
        return f"tells which of two edges stood in the graph that was trained on in {percent(best.value)} of cases"
    if best.metric == "train_minus_held_out":
        return f"guesses the hidden column of members more often than of others, by {percent(best.value)} of them"
    if best.metric.startswith("exposure"):
        return f"narrows a made-up secret that was trained on down by {plain(best.value)} bits"
    if best.metric == "recovered":
        return f"names {percent(best.value)} of the made-up secrets that were trained on"
    if best.metric == "named":
        return f"names the one example that it does not know, among candidates, in {percent(best.value)} of cases"
    if best.metric == "identified_top1":
        return f"draws {percent(best.value)} of the classes so that a judge recognises them"
    return f"has {metric_name(best.metric)} {plain(best.value)}"


def _beside(best: Strongest, item: Standing) -> str:
    """Chance, and what the plan permits, in the unit of the figure."""
    if best.metric.startswith("exposure"):
        chance = "" if best.chance is None else f"one that was never seen has {best.chance:.1f}"
        permitted = None if best.permitted is None else up(best.permitted, 1)
    elif best.metric == "train_minus_held_out":
        chance, permitted = "0 would be no leak", None if best.permitted is None else f"{up(100 * best.permitted, 1)}%"
    else:
        chance = "" if best.chance is None else f"guessing gets {100 * best.chance:.3g}%"
        permitted = None if best.permitted is None else f"{up(100 * best.permitted, 1)}%"
    hides = f", which hides one {item.unit}," if item.unit else ""
    none = f"no limit of the plan{hides} on it is known" if item.variant == "dp" else "no guarantee limits it"
    limit = none if permitted is None else f"the plan permits at most {permitted}"
    return f"{chance}, and {limit}" if chance else limit


def _right(item: Standing) -> str:
    name = item.utility.name
    return f"{RIGHT.get(name, 'right on')} {percent(item.utility)} of held-out {OF.get(name, 'examples')}"


def _worth(found: Headline) -> str:
    """What stands behind the first sentence: the model itself, and the non-private one."""
    chosen, beside = found.chosen, found.non_private
    if chosen is None or beside is None or chosen.kind == beside.kind:
        return ""
    said = f"It is {_right(chosen)}, and without privacy on {percent(beside.utility)}"
    best = chosen.strongest
    if best is not None and best.on_non_private is not None:
        same = plain(best.on_non_private) if best.metric.startswith("exposure") else percent(best.on_non_private)
        said += f", where the same attack gets {same}"
    return f"{said}.{_few(best)}"


def _few(best: Strongest | None) -> str:
    """An average says little of the few who leak most: what is found of members at few false alarms."""
    if best is None or best.at_rate is None or best.rate is None or best.at_rate.value is None:
        return ""
    limit = "" if best.rate_permitted is None else f", of at most {up(100 * best.rate_permitted, 1)}% that the plan permits"
    return f" With false alarms for {100 * best.rate:g}% of others it finds {percent(best.at_rate)} of members{limit}."


def _smallest(found: Headline) -> str:
    item = found.smallest
    if item is None:
        return ""
    kept = f"keeps {percent(item.kept)}" if item.kept is not None else f"is {_right(item)}"
    best = item.strongest
    if best is None:
        got = "no attack gave a figure"
    elif best.verdict.startswith(FOUND):
        got = f"the strongest attack ({attack_name(best.attack)}) {_gets(best)}; {_beside(best, item)}"
    else:
        got = f"no attack is shown to get anything; {attack_name(best.attack)} {_gets(best)}, and {_beside(best, item)}"
    return f"At ε = {budget(item.epsilon)}, the smallest budget, it {kept}{_doubt(item)}, and {got}."


def _refuted(found: Headline, result: ComparisonResult) -> list[str]:
    said = []
    if found.refuted:
        which = "; ".join(contradicted(result))
        said.append(f"Do not rely on what is promised below: {which}.")
    if found.above_plan:
        models = ", ".join(found.above_plan[:3]) + (" and others" if found.above_plan[3:] else "")
        said.append(
            f"Do not release these models: from {models} an attack gets more than the plan permits, so that the guarantee or "
            "the measurement is broken."
        )
    return said


def choice(result: ComparisonResult) -> str:
    """Why the first sentence speaks of that budget; empty where there was nothing to choose."""
    found = result.headline
    if found is None or found.chosen is None:
        return ""
    look = "To choose a budget by such figures is a look at private data of its own, which no ε here counts."
    if found.choice == "the smallest that keeps enough":
        return f"Of the budgets that keep at least {100 * found.enough:g}% by their means this is the smallest. {look}"
    if found.choice == "keeps most":
        return f"This is the budget that is worth most. {look}"
    return ""


def percent(measure: Measure | None) -> str:
    """``96.7% [93.9, 99.5]``."""
    if measure is None or measure.value is None:
        return "an unknown share"
    if measure.low is None or measure.high is None:
        return f"{100 * measure.value:.1f}%"
    return f"{100 * measure.value:.1f}% [{100 * measure.low:.1f}, {100 * measure.high:.1f}]"


def plain(measure: Measure) -> str:
    """``12.3 [10.1, 14.0]``."""
    value = "–" if measure.value is None else f"{measure.value:.1f}"
    return value if measure.low is None or measure.high is None else f"{value} [{measure.low:.1f}, {measure.high:.1f}]"
