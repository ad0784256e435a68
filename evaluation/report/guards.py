"""What guards leave to attackers, as the views say it: one table a family of attacks, and sentences of the answer.

The figures are those of :mod:`evaluation.guard_costs` and of each row's summary; nothing is computed here.
"""

from dataclasses import dataclass

from dptrain.rounding import up
from evaluation.guard_costs import BY_MODEL
from evaluation.report import wording
from evaluation.report.bought import signed
from evaluation.result import ComparisonResult, GuardCost, GuardedSummary, Measure, Summary
from evaluation.through_guards import ADAPTED

TITLE = "What each guard leaves to attackers"
SAME = "Each guard stood before the same models."
SHADOWED = "Shadow models stood behind guards of their own, so that the membership attacks that learn from them know the guard."
NOT_SHADOWED = (
    "No membership attack adapted to a guard: none that ran had shadow models, so that what is left to one who has some is not "
    "known; give evaluation.attacks membership.answers."
)
SEARCHED = "Class inversions that need no more than what a guard shows: {}."
ABOUT = (
    "Each row takes the attack that is strongest there on the models without privacy, where there are any, of those on what is "
    "shown and those on what can be made of it: who sees scores can round them, and who sees five classes has the first. "
    "Beyond the label: its figure less that of the strongest attack through label_only, on the same models. Not shown: the "
    "interval of that difference contains 0, or lies below it though the label is shown too; neither makes the two equal. A "
    "guard is no privacy guarantee, and takes nothing from the plan's: what the plan permits holds through every guard but "
    "those that were fitted on members, which say so below."
)
WORTH = (
    "On held-out examples. Distance: how far what is shown is from the model's own scores, summed over classes, from 0 to 2. "
    "Brier score: the squared error of what is shown as probabilities, less is better."
)
FAMILIES = {
    "membership": "Membership",
    "inversion": "Class inversion",
    "attribute": "Attribute inference",
    "link": "Links",
    "node": "Hidden words of nodes",
}
UTILITY = {
    "answered_right": "answered and right",
    "refused": "refused",
    "distance_of_scores": "distance of scores",
    "brier_score": "Brier score",
}
WHAT = {
    "membership": "of AUC to the strongest membership attack",
    "inversion": "of recognised classes to the strongest class inversion",
}
UNGUARDED = "no guard"
ESTIMATED, SEARCH = "inversion.estimated_gradient", "inversion.scores"
RESULT = {
    "costs more than the label": "",
    "costs less than the label": "less than the label",
    "not shown to cost more than the label": "not shown",
    "is the label": "the label",
    "not compared": "",
}


@dataclass(frozen=True)
class Cell:
    """A figure, what of it goes beyond the label, and what it must be read with."""

    value: str
    beyond: str = ""
    attack: str = ""
    permitted: str = ""

    @property
    def line(self) -> str:
        """The figure and what goes beyond the label, where there is room for one line."""
        return f"{self.value} ({self.beyond})" if self.beyond else self.value


@dataclass(frozen=True)
class Row:
    """One guard, or none."""

    guard: str
    access: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """One family of attacks, or one attack, over guards and budgets."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def about(result: ComparisonResult) -> str:
    """What the figures are, as far as attacks ran."""
    ran = [attack.name for run in result.runs for item in run.guarded for attack in item.attacks if attack.status == "ok"]
    said = [SAME]
    if any(name.startswith("membership.") for name in ran):
        said.append(SHADOWED if set(ran) & set(ADAPTED["membership"]) else NOT_SHADOWED)
    searches = [wording.attack_name(name) for name in ADAPTED["inversion"] if name in ran]
    if searches:
        said.append(SEARCHED.format("; ".join(searches)))
    return " ".join([*said, ABOUT])


def compared(result: ComparisonResult) -> bool:
    return any(summary.guarded for summary in result.summary)


def tables(result: ComparisonResult) -> list[Table]:
    """The strongest attack of each family through each guard, for every row of the summary."""
    columns = tuple(wording.row_name(item) for item in result.summary)
    found = []
    for family in dict.fromkeys(cost.family for cost in result.guard_costs):
        costs = [cost for cost in result.guard_costs if cost.family == family]
        rows = []
        for guard, access in dict.fromkeys((cost.guard, cost.access) for cost in costs):
            own = {cost.kind: cost for cost in costs if (cost.guard, cost.access) == (guard, access)}
            cells = tuple(_cell(own.get(item.kind)) for item in result.summary)
            rows.append(Row(guard or UNGUARDED, access, cells))
        metric = next((cost.metric for cost in costs if cost.metric), "")
        found.append(Table(f"{FAMILIES.get(family, family)}, {wording.metric_name(metric)}", columns, tuple(rows)))
    return found


def _cell(cost: GuardCost | None) -> Cell:
    if cost is None or cost.value.value is None:
        return Cell("–")
    said = RESULT[cost.change]
    beyond = said if cost.change == "is the label" or not _known(cost.beyond_label) else signed(cost.beyond_label)
    if said and beyond != said:
        beyond = f"{said}: {beyond}"
    permitted = "" if cost.permitted is None else up(cost.permitted, 3)
    attack = wording.attack_name(cost.attack)
    return Cell(
        wording.interval(cost.value), beyond, f"{attack}, on what {cost.behind} shows" if cost.behind else attack, permitted
    )


def _known(measure: Measure) -> bool:
    return measure.value is not None


def every(result: ComparisonResult) -> list[Table]:
    """Each attack that ran through guards: what it gets through each, for every row of the summary."""
    columns = tuple(wording.row_name(item) for item in result.summary)
    names = [
        measure.name
        for summary in result.summary
        for guarded in summary.guarded
        for measure in guarded.measures
        if wording.is_rate(measure.name)
    ]
    found = []
    for name in dict.fromkeys(names):
        rows = [Row(UNGUARDED, "", tuple(_own(item, name) for item in result.summary))]
        for guard, access in _guards(result).items():
            cells = tuple(_through(_guarded(item, guard), name) for item in result.summary)
            rows.append(Row(guard, access, cells))
        found.append(Table(wording.measure_name(name), columns, tuple(rows)))
    return found


def _own(summary: Summary, name: str) -> Cell:
    attack = name.partition("/")[0]
    found = wording.find(summary, name)
    return Cell("–") if found is None else Cell(wording.interval(found), summary.verdicts.get(attack, ""))


def _through(guarded: GuardedSummary | None, name: str) -> Cell:
    if guarded is None:
        return Cell("–")
    found = next((measure for measure in guarded.measures if measure.name == name), None)
    if found is None:
        return Cell("–", guarded.verdicts.get(name.partition("/")[0], ""))
    return Cell(wording.interval(found), guarded.verdicts.get(name.partition("/")[0], ""))


def _guards(result: ComparisonResult) -> dict[str, str]:
    """Guard to what it shows, in the order in which they were asked for."""
    found: dict[str, str] = {}
    for item in (item for summary in result.summary for item in summary.guarded):
        found[item.guard] = found.get(item.guard) or item.access
    return found


def _guarded(summary: Summary, guard: str) -> GuardedSummary | None:
    return next((item for item in summary.guarded if item.guard == guard), None)


def worth(result: ComparisonResult) -> list[Table]:
    """What answers behind each guard are worth, for every row of the summary: a table a measure that some guard changes."""
    columns = tuple(wording.row_name(item) for item in result.summary)
    found = []
    for name, words in UTILITY.items():
        rows = []
        for guard, access in _guards(result).items():
            own = [next((m for m in _worth(item, guard) if m.name == name), None) for item in result.summary]
            rows.append(Row(guard, access, tuple(Cell(wording.interval(measure)) for measure in own)))
        if name != "refused" or any(_is_above_zero(item, guard) for item in result.summary for guard in _guards(result)):
            found.append(Table(words[0].upper() + words[1:], columns, tuple(rows)))
    return found


def _worth(summary: Summary, guard: str) -> tuple[Measure, ...]:
    found = _guarded(summary, guard)
    return () if found is None else found.utility


def _is_above_zero(summary: Summary, guard: str) -> bool:
    return any(measure.name == "refused" and measure.value for measure in _worth(summary, guard))


def statements(result: ComparisonResult) -> dict[str, str]:
    """Guard to what it says of itself, or to why it could not be made."""
    found: dict[str, str] = {}
    for item in (item for summary in result.summary for item in summary.guarded):
        if item.statement or item.reason:
            found[item.guard] = item.statement or f"Could not be made: {item.reason}."
    return found


def answer(result: ComparisonResult) -> list[str]:
    """What showing more than the label costs, a sentence a family: of the first guard that shows scores of the best classes, or
    else of the first one that shows more than the label."""
    sentences = []
    for family in dict.fromkeys(cost.family for cost in result.guard_costs):
        costs = [cost for cost in result.guard_costs if cost.family == family and cost.guard and cost.access != BY_MODEL]
        costs = [
            cost for cost in costs if cost.change != "is the label" and cost.access != "label" and _known(cost.beyond_label)
        ]
        first = next((cost for cost in costs if cost.access.startswith("top") and "scores" in cost.access), None)
        first = first or next(iter(costs), None)
        if first is not None:
            sentences.append(_sentence(family, [cost for cost in costs if cost.guard == first.guard], result))
    return [*sentences, *_rounding(result)]


def _rounding(result: ComparisonResult) -> list[str]:
    """What rounding takes from inversion by estimated gradients, and from the search without, on the first row with both."""
    for item in result.summary:
        for guarded in item.guarded:
            if not any(part.startswith("rounded") for part in guarded.guard.split("-")):
                continue
            bare = wording.find(item, f"{ESTIMATED}/identified_top1")
            through = [_through_of(guarded, name) for name in (ESTIMATED, SEARCH)]
            if all(measure is not None for measure in (bare, *through)):
                estimated, search = (wording.interval(measure) for measure in through)
                return [
                    f"Rounding ({guarded.guard}; {wording.row_name(item)}) leaves inversion by estimated gradients {estimated} "
                    f"of the classes, of {wording.interval(bare)} without it, the differences being taken over as wide a "
                    f"distance as what is shown asks for; the search without gradients gets {search} through the same guard."
                ]
    return []


def _through_of(guarded: GuardedSummary, attack: str) -> Measure | None:
    return next((measure for measure in guarded.measures if measure.name == f"{attack}/identified_top1"), None)


def _sentence(family: str, costs: list[GuardCost], result: ComparisonResult) -> str:
    guard, access = costs[0].guard, costs[0].access
    rows = {item.kind: wording.row_name(item) for item in result.summary}
    shown = [cost for cost in costs if cost.change != "not shown to cost more than the label"]
    told = [f"{signed(cost.beyond_label)} ({rows[cost.kind]})" for cost in shown]
    silent = [rows[cost.kind] for cost in costs if cost not in shown]
    what = WHAT.get(family, f"to the strongest attack ({FAMILIES.get(family, family).lower()})")
    head = f"Showing {access} ({guard}) instead of the label alone"
    if not told:
        return f"{head} is not shown to give more {what}, in any row ({', '.join(silent)})."
    rest = f"; not shown for {', '.join(silent)}" if silent else ""
    return f"{head} gives {', '.join(told)} {what}{rest}."


def failures(result: ComparisonResult) -> list[str]:
    """What failed or did not apply through guards, one sentence a reason."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for run in result.runs:
        for item in run.guarded:
            for attack in item.attacks:
                if attack.status != "ok":
                    found.setdefault((attack.status, item.guard, attack.reason), []).append(attack.name)
    return [
        f"{status.replace('_', ' ').upper()}: {', '.join(dict.fromkeys(names))} through {guard}: {reason}"
        for (status, guard, reason), names in found.items()
    ]
