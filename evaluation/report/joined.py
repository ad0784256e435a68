"""Several comparisons as one page, and as one table for a terminal.

    write(joined([("runs/a", a), ("runs/b", b)]), Path("runs/joined.html"))
    print(table(joined(...)))

The answer of each comparison first; then, of each data set, one chart of what models are worth and one of what the strongest
attack gets, with a curve a comparison, all rows in one table, and what the data have spent, once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dptrain.files import write_file
from dptrain.rounding import up
from evaluation.joined import Group, Joined
from evaluation.report import figures, html, terminal, wording
from evaluation.result import ComparisonResult, Front, FrontPoint, Measure, Summary

SPLITS = {
    "the same": "Models of one seed have the same members and test examples in all comparisons on these data.",
    "not the same": (
        "Models of one seed do not have the same members in all comparisons on these data: a part of every difference between "
        "them is one of the examples, not of the models. Compare curves by their intervals, and no single models."
    ),
    "no seed in common": (
        "These comparisons have no seed in common, so that none of their models share members: compare curves by their "
        "intervals."
    ),
}
COLUMNS = ("", "model", "worth", "strongest attack", "gets", "permitted", "verdict")


def write(found: Joined, path: Path, not_read: Sequence[str] = ()) -> None:
    """Writes the page so that a reader sees the old one or this one, never a part."""
    write_file(path, render(found, not_read).encode())


def render(found: Joined, not_read: Sequence[str] = ()) -> str:
    return html.fill(
        "joined.html.jinja",
        title=" and ".join(dict.fromkeys(group.data for group in found.groups)),
        count=sum(len(group.members) for group in found.groups),
        groups=[_group(group, index) for index, group in enumerate(found.groups)],
        not_read=not_read,
    )


def _group(group: Group, index: int) -> dict[str, Any]:
    charts = []
    for place, (title, of) in enumerate(_charts(group)):
        curves = [(member.name, member.result.summary, of(member.result)) for member in group.members]
        if any(points for _, _, points in curves):
            text = "; ".join(f"{name}, {row}: {wording.interval(one)}" for name, row, one in _told(curves))
            charts.append(
                {"svg": html.as_markup(figures.joined(title, curves), f"joined{index}{place}"), "text": f"{title}. {text}."}
            )
    return {
        "data": group.data,
        "place": f"data-{index}",
        "splits": SPLITS[group.splits] if len(group.members) > 1 else "",
        "answers": [(member.name, member.folder, wording.answer(member.result)) for member in group.members],
        "charts": charts,
        "rows": [row for member in group.members for row in _rows(member.name, member.result)],
        "spending": wording.spending(_with_ledger(group)),
    }


def _with_ledger(group: Group) -> ComparisonResult:
    """A comparison of the group whose account is the group's; all are empty where that is."""
    return next(member.result for member in group.members if member.result.ledger == group.ledger)


def _charts(group: Group) -> list[tuple[str, Any]]:
    first = group.members[0].result.summary
    worth = wording.metric_name(first[0].utility.name) if first else "what models are worth"

    def of_worth(result: ComparisonResult) -> dict[Any, Measure]:
        return {item.kind: item.utility for item in result.summary if item.utility.value is not None}

    def of_leak(result: ComparisonResult) -> dict[Any, Measure]:
        front = _front(result, group.family)
        return {} if front is None else {point.kind: point.leak for point in front.points}

    charts: list[tuple[str, Any]] = [(f"{worth[0].upper()}{worth[1:]}", of_worth)]
    front = next((found for member in group.members if (found := _front(member.result, group.family)) is not None), None)
    if front is not None:
        charts.append((f"Strongest attack, {group.family}: {wording.metric_name(front.metric)}", of_leak))
    return charts


def _front(result: ComparisonResult, family: str) -> Front | None:
    return next((front for front in result.fronts if front.family == family), None)


def _told(curves: list[tuple[str, tuple[Summary, ...], dict[Any, Measure]]]) -> list[tuple[str, str, Measure]]:
    return [
        (name, wording.row_name(item), points[item.kind])
        for name, summary, points in curves
        for item in summary
        if item.kind in points
    ]


def _rows(name: str, result: ComparisonResult) -> list[dict[str, Any]]:
    """One a row of the summary: what it is worth, and the strongest attack of the first front."""
    front = result.fronts[0] if result.fronts else None
    points: dict[Any, FrontPoint] = {} if front is None else {point.kind: point for point in front.points}
    rows = []
    for item in result.summary:
        point = points.get(item.kind)
        rows.append(
            {
                "comparison": name,
                "model": wording.row_name(item),
                "worth": wording.interval(item.utility),
                "worth_key": "" if item.utility.value is None else item.utility.value,
                "attack": "–" if point is None else wording.attack_name(point.attack),
                "metric": "" if front is None else wording.metric_name(front.metric),
                "gets": "–" if point is None else wording.interval(point.leak),
                "gets_key": "" if point is None or point.leak.value is None else point.leak.value,
                "permitted": "–" if point is None or point.permitted is None else up(point.permitted, 3),
                "verdict": "–" if point is None else item.verdicts.get(point.attack, "–"),
            }
        )
    return rows


def table(found: Joined, width: int | None = None) -> str:
    """The answers and rows of all comparisons, for a terminal."""
    blocks = []
    for group in found.groups:
        rows: list[list[str]] = [[*COLUMNS]]
        lines = []
        for number, member in enumerate(group.members, 1):
            lines += [f"{number}. {member.name} ({member.folder}): {' '.join(wording.opening(member.result))}"]
            for row in _rows(str(number), member.result):
                keys = ("comparison", "model", "worth", "attack", "gets", "permitted", "verdict")
                rows.append([str(row[key]) for key in keys])
        said = [SPLITS[group.splits]] if len(group.members) > 1 else []
        spending = wording.spending(_with_ledger(group))
        blocks.append(
            terminal.block([f"Data: {group.data}", *lines], rows, [*said, *spending, wording.COMPUTED_FROM_MEMBERS], width)
        )
    return "\n\n".join(blocks)
