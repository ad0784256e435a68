"""The result as plain text for a terminal.

print(render(result))
"""

import shutil
import textwrap

from dptrain.rounding import up
from evaluation.report import bought, guards, wording
from evaluation.result import AuditResult, ComparisonResult, Exchange

NARROW = 80


def block(before: list[str], rows: list[list[str]], after: list[str], width: int | None = None) -> str:
    """Sentences, a table and sentences, as wide as the terminal allows."""
    width = _room(width)
    text = "\n".join(
        [*_wrapped(before, width), "", *(line.rstrip() for line in _table(rows, width)), "", *_wrapped(after, width)]
    )
    return _printable(text)


def _room(width: int | None) -> int:
    return max(NARROW, min(width or shutil.get_terminal_size((100, 24)).columns, 120))


def _printable(text: str) -> str:
    """A class name or an error's text may hold what a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def render(result: ComparisonResult, width: int | None = None) -> str:
    """The trade-off table, what stands beside it, and what its words mean.

    Args:
        width: in characters; left out, that of the terminal, at most 120.
    """
    width = _room(width)
    blocks = [_wrapped([result.title], width), _wrapped(wording.opening(result), width), _utility(result, width)]
    blocks += [_attack(result, attack, width) for attack in wording.applicable(result)]
    blocks.append(_said(result, width))
    blocks += [_exchange(exchange, width) for exchange in result.exchanges[:1]]
    blocks += _guards(result, width)
    blocks.append(_audits(result, width))
    words = [f"{word}: {meaning}" for word, meaning in wording.verdict_words(result).items()]
    blocks += [
        _wrapped(lines, width)
        for lines in ([*wording.broken(result), *guards.failures(result)], words, [wording.COMPUTED_FROM_MEMBERS])
    ]
    return _printable("\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks if block))


def audit(found: AuditResult) -> str:
    """One audit: its bounds, each with its ceiling, and what was seen of the mechanism."""
    where = f", step {found.step} of {found.steps}" if found.step != found.steps else ""
    lines = [f"{found.about}, claimed ε = {up(found.epsilon, 3)} at δ = {found.delta:g}{where}"]
    lines += [f"  {bound.text}" for bound in found.bounds]
    lines += [f"  {check.name}: {check.what}; {wording.seen(check)}" for check in found.checks]
    return "\n".join(lines)


def _audits(result: ComparisonResult, width: int) -> list[str]:
    """What audits of this comparison showed of each claim, in a line a bound."""
    if not result.audits:
        return []
    rows = [["", "game", "claimed ε", "shown", "ceiling", "holds for", ""]]
    for found in result.audits:
        for bound in found.bounds:
            if bound.is_bound:
                claim = [wording.audit_name(found, result), found.how, wording.number(found.epsilon)]
                shown = [wording.number(bound.epsilon), wording.number(bound.ceiling), bound.holds_for]
                rows.append([*claim, *shown, wording.audit_verdict(found)])
    return [*_wrapped(["Audits (lower bounds on ε)"], width), *_table(rows, width)]


def _utility(result: ComparisonResult, width: int) -> list[str]:
    worth = wording.utility_names(result)
    rows = [["", "ε", "δ", "seeds", *map(wording.metric_name, worth)]]
    for summary in result.summary:
        delta = next((run.delta for run in result.runs if run.variant == summary.variant and run.delta is not None), None)
        rows.append(
            [
                wording.variant_name(summary),
                wording.budget(summary.epsilon),
                "–" if delta is None else f"{delta:g}",
                str(len(summary.seeds)),
                *(wording.interval(wording.find(summary, name)) for name in worth),
            ]
        )
    units = sorted({run.guarantee.unit for run in result.runs if run.guarantee is not None and run.variant == "dp"})
    notes = [f"The unit of privacy is one {' or one '.join(units)}."] if units else []
    several = any(len(summary.seeds) > 1 for summary in result.summary)
    notes.append(f"Intervals are 95%, {'over seeds' if several else 'of one model each'}.")
    notes += wording.unit_of_value(result)
    notes += [f"{wording.metric_name(item.name)}: {wording.interval(item)}" for item in result.baselines]
    return [*_table(rows, width), *_wrapped(notes, width)]


def _attack(result: ComparisonResult, attack: str, width: int) -> list[str]:
    """One attack over all budgets: its figures, what the plan permits, and the verdict."""
    names = [name for name in wording.measure_names(result) if name.startswith(f"{attack}/")]
    permitted = any(name in summary.permitted for summary in result.summary for name in names)
    chances, headline = wording.chances(result), wording.headlines(result).get(attack, "")
    header = [""]
    for name in (name for name in names if wording.is_rate(name)):
        own = chances.get(name) if chances.get(name) != chances.get(headline) else None
        header.append(wording.metric_name(name.split("/")[1]) + ("" if own is None else f" (chance {own:.3g})"))
    rows = [[*header, *(["permitted"] if permitted else []), "verdict"]]
    for summary in result.summary:
        cells = [wording.interval(wording.find(summary, name)) for name in names if wording.is_rate(name)]
        if permitted:
            most = [summary.permitted.get(name) for name in names if wording.is_rate(name)]
            cells.append(" / ".join("–" if value is None else up(value, 3) for value in most))
        rows.append([wording.row_name(summary), *cells, summary.verdicts.get(attack, "–")])
    chance = chances.get(headline)
    title = wording.attack_name(attack) + (f" (chance {chance:.3g})" if chance is not None else "")
    return [
        *_wrapped([title], width),
        *_table(rows, width),
        *_wrapped([*_unmeasured(result, names), *_beside(result, attack)], width),
    ]


def _said(result: ComparisonResult, width: int) -> list[str]:
    """One inserted secret and one control of every row, those with the most insertions; the page has more of them."""
    rows = [["", "before it", "the secret", "the model says", "trained on", "bits"]]
    for name, texts in wording.secrets_said(result):
        for inserted in (True, False):
            for text in [text for text in texts if text.inserted == inserted][:1]:
                shown = [name, text.before.strip(), text.secret, wording.visible(text.said)]
                rows.append([*shown, wording.insertions(text), wording.number(text.exposure, 1)])
    return [*_wrapped(["What the models say in place of made-up secrets"], width), *_table(rows, width)] if rows[1:] else []


def _exchange(exchange: Exchange, width: int) -> list[str]:
    """What each row buys under the attack that gets most from the non-private models; the page has the others."""
    rows = [["", *bought.columns(exchange)]]
    rows += [[wording.row_name(row), *(cell.line for cell in bought.cells(exchange, row))] for row in exchange.rows]
    return [*_wrapped([bought.TITLE], width), *_table(rows, width), *_wrapped([bought.about(exchange), bought.ABOUT], width)]


def _guards(result: ComparisonResult, width: int) -> list[list[str]]:
    """The strongest attack of each family through each guard, with what of it goes beyond the label."""
    if not guards.compared(result):
        return []
    blocks = [_wrapped([guards.TITLE, *guards.answer(result)], width)]
    for table in guards.tables(result):
        rows = [["", "shows", *table.columns]]
        rows += [[row.guard, row.access, *(cell.line for cell in row.cells)] for row in table.rows]
        blocks.append([*_wrapped([table.name], width), *_table(rows, width)])
    return [*blocks, _wrapped([guards.about(result)], width)]


def _unmeasured(result: ComparisonResult, names: list[str]) -> list[str]:
    """Why a figure is a dash."""
    found = [item for summary in result.summary for item in summary.measures if item.name in names and item.value is None]
    return list(dict.fromkeys(f"{wording.metric_name(item.name.split('/')[1])}: {item.note}" for item in found if item.note))


def _beside(result: ComparisonResult, attack: str) -> list[str]:
    """Baselines and controls: their range over all runs."""
    lines: list[str] = []
    for kind in ("judges", "baselines", "controls"):
        ranges: dict[str, list[float]] = {}
        for run in result.runs:
            for found in run.attacks:
                for measure in getattr(found, kind) if found.name == attack else ():
                    if measure.value is not None:
                        ranges.setdefault(measure.name, []).append(measure.value)
        shown = [f"{name.replace('_', ' ')} {min(values):.2f}–{max(values):.2f}" for name, values in ranges.items()]
        if shown:
            lines.append(f"{kind} (lowest–highest run): " + ", ".join(shown))
    return lines


def _table(rows: list[list[str]], width: int) -> list[str]:
    """Columns side by side; those for which there is no room follow in a further table with the first column again."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    parts: list[list[int]] = [[0]]
    for column in range(1, len(widths)):
        if len(parts[-1]) > 1 and sum(widths[at] + 2 for at in parts[-1]) + widths[column] > width:
            parts.append([0])
        parts[-1].append(column)
    lines: list[str] = []
    for part in parts:
        drawn = ["  ".join(row[column].ljust(widths[column]) for column in part) for row in rows]
        lines += [drawn[0], "─" * max(len(line.rstrip()) for line in drawn), *drawn[1:]]
    return lines


def _wrapped(lines: list[str], width: int) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="  ")]
