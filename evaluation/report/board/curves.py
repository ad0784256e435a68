"""Measures over ε as charts of the Custom Scalars tab.

Of each measure two charts, as far as it has them:

* *measured*: the mean over seeds and its 95% interval as a band
* *what the plan permits*: the same line, and as a band everything from what an attack without any signal gets up to the most
  that the plan permits

The axis is TensorBoard's integer step, 1000·ε: it reads 1k where ε is 1. Training without privacy has no place on it (a line
to a made-up ε would be read as measured): its figure stands in the chart's title, and the pictures of the Images tab show it
behind a break. Below a Margin chart of two series TensorBoard 2.21 says "Missing Tags" for every run that has neither, though
nothing is missing; so each has one.
"""

from evaluation.report import wording
from evaluation.report.board.events import Events
from evaluation.report.guards import FAMILIES as GUARDED
from evaluation.result import ComparisonResult, Summary

AXIS = "ε (1k is ε = 1)"
FAMILIES = {**GUARDED, "extraction": "Secrets"}
"""Of attacks, by the first word of their names: each is a group of charts."""
Charts = dict[str, dict[str, list]]


def step_of(epsilon: float) -> int:
    """The step at which a finite budget is drawn."""
    return round(1000 * epsilon)


def draw(events: Events, result: ComparisonResult) -> None:
    """Curves of utility, attacks, audits and guards, and the layout that shows them."""
    private = sorted((item for item in result.summary if item.variant == "dp"), key=lambda item: item.epsilon)
    charts: Charts = {"Utility": {}}
    worth = wording.utility_names(result)
    for name in (*worth, *wording.measure_names(result)):
        own = _measured(events, result, private, name)
        if own and (name in worth or wording.is_rate(name)):
            family = "" if name in worth else name.split(".")[0]
            group = FAMILIES.get(family, family) if family else "Utility"
            charts.setdefault(group, {}).update(own)
    charts["Audits"] = _audits(events, result)
    charts["Guards"] = _guards(events, result)
    events.layout(charts)


def _measured(events: Events, result: ComparisonResult, private: list[Summary], name: str) -> dict[str, list]:
    tag, title = f"tradeoff/{name.replace('/', '_')}", wording.measure_name(name)
    found = [(item, measure) for item in private if (measure := wording.find(item, name)) and measure.value is not None]
    if not found:
        return {}
    for item, measure in found:
        for suffix, value in (("", measure.value), ("_lo", measure.low), ("_hi", measure.high)):
            _point(events, f"{tag}{suffix}", (measure.value or 0.0) if value is None else value, item.epsilon)
    alone = f"; at ε = {found[0][0].epsilon:g} {wording.interval(found[0][1])}" if len(found) == 1 else ""  # it has no band
    charts = {f"{title} over {AXIS}{alone}{_without(result, name)}": ["Margin", [tag, f"{tag}_lo", f"{tag}_hi"]]}
    limited = [(item, measure) for item, measure in found if name in item.permitted]
    chance = wording.chances(result).get(name, 0.0)
    line = tag if len(limited) == len(found) else f"{tag} where limited"  # the three series of a chart need the same steps
    for item, measure in limited:
        if line != tag:
            _point(events, line, measure.value or 0.0, item.epsilon)
        _point(events, f"{tag} permitted", item.permitted[name], item.epsilon)
        _point(events, f"{tag} chance", chance, item.epsilon)
    if limited:
        about = f"{title} over {AXIS}; band: from {chance:g} (chance) up to what the plan permits"
        charts[about] = ["Margin", [line, f"{tag} chance", f"{tag} permitted"]]
    return charts


def _without(result: ComparisonResult, name: str) -> str:
    """What the same measure is without privacy, for the title."""
    item = next((item for item in result.summary if item.variant == "non_private"), None)
    measure = None if item is None else wording.find(item, name)
    return "" if measure is None or measure.value is None else f"; without privacy {wording.interval(measure)}"


def _point(events: Events, tag: str, value: float, epsilon: float) -> None:
    events.scalar(tag, value, step_of(epsilon))


def _guards(events: Events, result: ComparisonResult) -> dict[str, list]:
    """What the strongest attack of each family gets through each guard, with its interval."""
    charts: dict[str, list] = {}
    for cost in sorted((cost for cost in result.guard_costs if cost.variant == "dp"), key=lambda cost: cost.epsilon):
        value = cost.value.value
        if value is None:
            continue
        guard = cost.guard or f"no guard, {cost.access}"
        tag = f"guards, {cost.family}/{guard.replace('/', '_')}"
        for suffix, end in (("", value), ("_lo", cost.value.low), ("_hi", cost.value.high)):
            _point(events, f"{tag}{suffix}", value if end is None else end, cost.epsilon)
        family, metric = FAMILIES.get(cost.family, cost.family), wording.metric_name(cost.metric)
        charts[f"{family}, {metric} through {guard} over {AXIS}"] = ["Margin", [tag, f"{tag}_lo", f"{tag}_hi"]]
    return charts


def _audits(events: Events, result: ComparisonResult) -> dict[str, list]:
    """Claimed, shown and ceiling over the budgets, by game and by the mechanisms that the bound holds for. A chart has the
    claim as its line, in a band from what was shown to the most that could have been; a bound without a ceiling is in no chart.

    Charts of several lines would be smoothed: of two budgets the second claim was drawn a third too low.
    """
    bounds: dict[str, list[tuple[float, float, float, float | None]]] = {}
    for found in sorted(result.audits, key=lambda found: found.budget or 0.0):
        for bound in found.bounds if found.step == found.steps else ():
            if bound.is_bound and found.budget is not None:
                parts = found.budget, found.epsilon, bound.epsilon, bound.ceiling
                bounds.setdefault(f"{found.how}, {bound.holds_for}", []).append(parts)
    charts: dict[str, list] = {}
    for name, rows in bounds.items():
        for budget, claimed, shown, ceiling in rows:
            for part, value in (("claimed", claimed), ("shown", shown), ("ceiling", ceiling)):
                if value is not None:
                    _point(events, f"audit/{name} {part}", value, budget)
        if all(ceiling is not None for *_, ceiling in rows):
            title = f"Claimed ε ({name}) over {AXIS}; band: from the ε that was shown up to the most that could have been"
            charts[title] = ["Margin", [f"audit/{name} {part}" for part in ("claimed", "shown", "ceiling")]]
    return charts
