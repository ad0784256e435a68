"""What regularizers and budgets buy, as the views say it: one table an attack, and a sentence where a leak is raised.

The figures are those of :mod:`evaluation.exchange`, which says how they are made.
"""

from dataclasses import dataclass

from evaluation.report import wording
from evaluation.result import Bought, ComparisonResult, Exchange, Measure

TITLE = "What each regularizer and each budget buys"
ABOUT = (
    "Against the non-private models of the same seeds. Accuracy given up is in points (per cent). What is taken of AUC and TPR "
    "is below 0 where the attack gets more. AUC per point is there only where an accuracy given up is shown. At equal "
    "accuracy: the AUC under DP on the line between the two budgets around the row's accuracy."
)


@dataclass(frozen=True)
class Cell:
    """A figure, what it must be read with, and the row's own figure behind a difference, for which only the page has room."""

    text: str
    note: str = ""
    own: str = ""

    @property
    def line(self) -> str:
        """Both, where there is room for one line."""
        if self.text == "–" and self.note:
            return self.note
        return f"{self.text} ({self.note})" if self.note else self.text


def about(exchange: Exchange) -> str:
    """Of which attack the table is, and what it is held against."""
    return (
        f"{wording.attack_name(exchange.attack)}: AUC {wording.interval(exchange.auc)} on the non-private models, whose "
        f"{_worth(exchange.accuracy)} is {wording.interval(exchange.accuracy)}."
    )


def _worth(measure: Measure) -> str:
    """The headline of what a model is worth, in words; of a predicted value it stands in the place of accuracy."""
    name = wording.metric_name(measure.name)
    return name if "accuracy" in name else f"share {name}"


def columns(exchange: Exchange) -> list[str]:
    """Heads of the columns behind the row's name."""
    rate = [f"{wording.metric_name(exchange.rate)} taken"] if exchange.rate else []
    return ["in words", "points given up", "AUC taken", *rate, "AUC per point", "DP's AUC at equal accuracy"]


def cells(exchange: Exchange, row: Bought) -> list[Cell]:
    """One for each of :func:`columns`."""
    return [
        Cell(f"{row.leak}, {row.cost}" + (f"; {wording.attack_name(row.stronger)} gets more" if row.stronger else "")),
        Cell(signed(row.accuracy_given_up, 1), own=f"accuracy {wording.interval(row.accuracy)}"),
        Cell(signed(row.auc_taken), own=f"AUC {wording.interval(row.auc)}"),
        *([Cell(signed(row.rate_taken))] if exchange.rate else []),
        Cell(signed(row.auc_per_point)),
        _at_equal_accuracy(row.dp_at_equal_accuracy),
    ]


def _at_equal_accuracy(measure: Measure | None) -> Cell:
    return Cell("–") if measure is None else Cell(wording.interval(measure), measure.note)


def signed(measure: Measure, digits: int = 3) -> str:
    """``−0.039 [−0.056, −0.022]``: a difference with its interval."""
    if measure.value is None:
        return "–"
    value, low, high = (_number(end, digits) for end in (measure.value, measure.low, measure.high))
    return value if measure.low is None else f"{value} [{low}, {high}]"


def _number(value: float | None, digits: int) -> str:
    text = wording.number(value, digits)
    return text.removeprefix("-") if not text.strip("-0.") else text.replace("-", "−")


def first(result: ComparisonResult) -> str:
    """Regularization alone against DP at equal accuracy, in a sentence: of the regularized row that keeps most accuracy."""
    if not result.exchanges:
        return ""
    exchange = result.exchanges[0]
    found = [row for row in exchange.rows if row.variant == "regularized"]
    if not found:
        return "No model was trained with regularization alone, so that it cannot be held against DP at equal accuracy."
    row = max(found, key=lambda item: item.accuracy.value or 0.0)
    name, attack = wording.row_name(row) if row.regularizer else "regularization alone", wording.attack_name(exchange.attack)
    worth = f"{_worth(row.accuracy)} {wording.interval(row.accuracy)}"
    own = f"With {name} ({worth}) {attack} has an AUC of {wording.interval(row.auc)}"
    same = row.dp_at_equal_accuracy
    if same is None or same.value is None:
        why = "no budget was run" if same is None else same.note
        return f"{own}; under DP at an equal accuracy it is not known: {why}."
    where = f" ({same.note})" if same.note else ""
    return f"{own}; under DP at an equal accuracy{where} it has {wording.interval(same)}, and a guarantee beside it."


def raised(result: ComparisonResult) -> list[str]:
    """A sentence of the answer, where a regularizer is shown to raise what the strongest attack gets."""
    if not result.exchanges:
        return []
    first = result.exchanges[0]
    found = [row for row in first.rows if row.variant == "regularized" and row.leak == "raises the leak"]
    if not found:
        return []
    names = [wording.row_name(row) if row.regularizer else "regularizers together" for row in found]
    worse = ", ".join(f"{name} (AUC {wording.interval(row.auc)})" for name, row in zip(names, found, strict=True))
    without, attack = wording.interval(first.auc), wording.attack_name(first.attack)
    return [f"More leaks with {worse} than without any regularizer (AUC {without}; {attack})."]


def markdown(exchange: Exchange) -> str:
    """The table as Markdown."""
    rows = [["", *columns(exchange)], ["---"] * (1 + len(columns(exchange)))]
    rows += [[wording.row_name(row), *(cell.line for cell in cells(exchange, row))] for row in exchange.rows]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{about(exchange)} {ABOUT}\n\n{table}"
