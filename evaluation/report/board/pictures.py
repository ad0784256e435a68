"""Pictures of the Images tab, which is also the first thing of the Time Series tab: what TensorBoard's own charts cannot say.

* *1 over ε*: what the model is worth and each attack, with no privacy behind a break, intervals, chance and what is permitted
* *2 closer*: of each attack the ROC of all budgets over each other on logarithmic axes, where the PR tab has linear ones alone,
  with the 95% intervals of the true positive rates that were measured and what each plan permits, dotted; of each inversion the
  same classes under each ε side by side; of audits the ε that is claimed, that was shown, and the most that could have been

TensorBoard opens the first two groups of a tab, and shows the pictures of each by name: hence the numbers.
"""

import math
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from evaluation.report import figures, wording
from evaluation.report.board.events import Events
from evaluation.report.sections import is_of_no_member
from evaluation.result import ComparisonResult, Kind, RunResult

CELL, GAP = 52, 6
"""Of one reconstruction and between two, in pixels."""
DPI = 110
OVER, CLOSER = "1 over ε", "2 closer"
RATE = "tpr_at_fpr_"
BESIDE = 1.05
"""Bars at one rate stand side by side: each this much further right, on an axis where ten times as much is a decade."""


def draw(events: Events, result: ComparisonResult, root: Path) -> None:
    """All pictures of a comparison."""
    for place, names in enumerate((wording.utility_names(result), wording.headlines(result).values()), start=1):
        for name in (name for name in names if _has(result, name)):
            pixels = figures.as_pixels(figures.tradeoff(result, name))
            events.image(f"{OVER}/{place} {_tag(wording.measure_name(name))}", pixels, about=_said(result, name))
    calibration = figures.calibration(result)
    if calibration is not None:
        events.image(f"{OVER}/1 calibration", figures.as_pixels(calibration))
    for attack in wording.attacks(result):
        overlay = roc(result, attack)
        if overlay is not None:
            about = "Bars: 95% intervals of what was measured at fixed rates. Dotted: the most that each plan permits."
            events.image(f"{CLOSER}/1 ROC: {_tag(wording.attack_name(attack))}", figures.as_pixels(overlay), about=about)
        _reconstructions(events, result, root, attack)
    shown_audits = audits(result)
    if shown_audits is not None:
        events.image(f"{CLOSER}/3 audits", figures.as_pixels(shown_audits))


def _has(result: ComparisonResult, name: str) -> bool:
    measures = (wording.find(item, name) for item in result.summary)
    return wording.is_rate(name) and any(measure is not None and measure.value is not None for measure in measures)


def _tag(name: str) -> str:
    return name.replace("/", "_")


def _said(result: ComparisonResult, name: str) -> str:
    """The picture in words."""
    rows = [(wording.row_name(item), wording.interval(wording.find(item, name))) for item in result.summary]
    return "; ".join(f"{row}: {value}" for row, value in rows)


# -- ROC --------------------------------------------------------------------------------------------------------------


def roc(result: ComparisonResult, attack: str) -> Figure | None:
    """The ROC of every budget's first seed on logarithmic axes, with the interval of each rate that was measured by itself."""
    figure = figures.roc(result, attack)
    if figure is None:
        return None
    axes = figure.axes[0]
    colours = {str(line.get_label()): line.get_color() for line in axes.get_lines()}
    for place, run in enumerate(firsts(result).values()):
        colour = next((colours[label] for label in colours if label.split(", seed")[0] == wording.row_name(run)), None)
        for found in (found for found in run.attacks if found.name == attack and colour is not None):
            bars = [item for item in found.metrics if item.name.startswith(RATE) and item.value and item.low is not None]
            for bar in bars:
                at = float(bar.name.removeprefix(RATE)) * BESIDE**place
                low, high = max(bar.low or 0.0, axes.get_ylim()[0]), bar.high or bar.value or 0.0
                axes.plot([at, at], [low, high], color=colour, linewidth=2.5, alpha=0.5, solid_capstyle="butt")
    return figure


def firsts(result: ComparisonResult) -> dict[Kind, RunResult]:
    """The first seed of every budget and baseline."""
    found: dict[Kind, RunResult] = {}
    for run in result.runs:
        found.setdefault(run.kind, run)
    return found


# -- reconstructions --------------------------------------------------------------------------------------------------


def _reconstructions(events: Events, result: ComparisonResult, root: Path, attack: str) -> None:
    columns: list[tuple[str, dict[str, np.ndarray]]] = []
    for run in _in_order(result):
        for found in (found for found in run.attacks if found.name == attack and found.figures):
            arrays = figures.load_pictures(root, run, found)
            if arrays is None:
                events.text(f"Reconstructions/{attack}, {wording.row_name(run)}", "The picture file is missing.")
            else:
                columns.append((_column_name(run), {label: row for label, row in arrays.items() if is_of_no_member(label)}))
    if columns:
        about = f"{wording.attack_name(attack)}, first seed. {_verdicts(result, attack)}"
        pixels = figures.as_pixels(grid(columns, [str(name) for name in result.data.get("classes", [])]), DPI)
        events.image(f"{CLOSER}/2 by ε: {_tag(wording.attack_name(attack))}", pixels, about=about)


def _in_order(result: ComparisonResult) -> list[RunResult]:
    """Budgets from the smallest on, then what has none."""
    runs = list(firsts(result).values())
    return sorted(runs, key=lambda run: (run.variant != "dp", run.epsilon if run.variant == "dp" else 0.0))


def _column_name(run: RunResult) -> str:
    return f"ε = {wording.budget(run.epsilon)}" if run.variant == "dp" else wording.variant_name(run)


def _verdicts(result: ComparisonResult, attack: str) -> str:
    found = [(wording.row_name(item), item.verdicts[attack]) for item in result.summary if attack in item.verdicts]
    return "Verdicts: " + "; ".join(f"{row}: {verdict}" for row, verdict in found) + "."


def grid(columns: list[tuple[str, dict[str, np.ndarray]]], classes: list[str]) -> Figure:
    """A row a class, and a column a budget. What is the same for all budgets (members as they are, what is public) stands once,
    at the left.

    Args:
        columns: the budget's name, and its pictures ``[classes, height, width]`` or ``[..., channels]`` by what they are.
    """
    labels = list(dict.fromkeys(label for _, arrays in columns for label in arrays))
    fixed = [label for label in labels if len(columns) > 1 and _alike([arrays.get(label) for _, arrays in columns])]
    varying = [label for label in labels if label not in fixed]
    drawn = [(_one_line(label), columns[0][1][label]) for label in fixed]
    for name, arrays in columns:
        drawn += [
            (name if len(varying) == 1 else f"{name}: {_one_line(label)}", arrays[label])
            for label in varying
            if label in arrays
        ]
    rows = min(figures.MOST_CLASSES, *(len(array) for _, array in drawn))
    return _mosaic(drawn, [*classes, *(str(index) for index in range(len(classes), rows))][:rows], len(fixed))


def _one_line(label: str) -> str:
    return label.replace("-\n", "").replace("\n", " ")


def _alike(arrays: list[np.ndarray | None]) -> bool:
    first = arrays[0]
    return first is not None and all(
        array is not None and array.shape == first.shape and np.allclose(array, first, atol=1e-6) for array in arrays
    )


def _mosaic(columns: list[tuple[str, np.ndarray]], rows: list[str], fixed: int) -> Figure:
    """All pictures as one, so that it is drawn at once; a wider gap behind what is the same for all."""
    across = [GAP + index * (CELL + GAP) + (3 * GAP if index >= fixed > 0 else 0) for index in range(len(columns))]
    down = [GAP + index * (CELL + GAP) for index in range(len(rows))]
    canvas = np.ones((down[-1] + CELL + GAP, across[-1] + CELL + GAP, 3))
    for x, (_, pictures) in zip(across, columns, strict=True):
        for y, picture in zip(down, pictures, strict=False):
            cell = _resized(picture)
            top, left = y + (CELL - cell.shape[0]) // 2, x + (CELL - cell.shape[1]) // 2
            canvas[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    with matplotlib.rc_context({**figures.STYLE, "axes.grid": False}):
        left, top, right = 80, 95, 60  # for names of classes and budgets
        high, wide = canvas.shape[0] + top, canvas.shape[1] + left + right
        figure = Figure(figsize=(wide / DPI, high / DPI))
        axes = figure.add_axes((left / wide, 0, canvas.shape[1] / wide, canvas.shape[0] / high))
        axes.imshow(np.clip(canvas, 0, 1), interpolation="nearest", aspect="auto")
        names = [textwrap.fill(name, 14) for name, _ in columns]
        axes.set_xticks([x + CELL / 2 for x in across], names, rotation=50, ha="left", rotation_mode="anchor", fontsize=8)
        axes.set_yticks([y + CELL / 2 for y in down], [name[: figures.LONGEST_NAME] for name in rows], fontsize=8)
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.spines[:].set_visible(False)
    return figure


def _resized(picture: np.ndarray) -> np.ndarray:
    """``[height, width, 3]`` with the longer side as long as a cell; no pixel is smoothed."""
    colour = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture[..., :3]
    height, width = colour.shape[:2]
    longest = max(height, width)
    rows = np.arange(max(1, CELL * height // longest)) * longest // CELL
    columns = np.arange(max(1, CELL * width // longest)) * longest // CELL
    return colour[np.minimum(rows, height - 1)][:, np.minimum(columns, width - 1)]


# -- audits -----------------------------------------------------------------------------------------------------------


def audits(result: ComparisonResult) -> Figure | None:
    """For each audited claim what is claimed, what was shown and the most that could have been, by game."""
    rows = [
        (f"{wording.audit_name(found, result)}\n{found.how}", found, bound)
        for found in sorted(result.audits, key=lambda found: found.budget or math.inf)
        for bound in found.bounds
        if bound.is_bound
    ]
    if not rows:
        return None
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(5.2, 1.3 + 0.45 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, (_, found, bound) in enumerate(rows):
            if bound.ceiling is not None:
                axes.plot([0, bound.ceiling], [place, place], color="#bbbbbb", linewidth=7, solid_capstyle="butt",
                          label="could have been shown" if place == 0 else None)  # fmt: skip
            axes.plot([0, bound.epsilon], [place, place], color=figures.COLOURS[0], linewidth=7, solid_capstyle="butt",
                      label="shown" if place == 0 else None)  # fmt: skip
            colour = "#000000" if found.ok else figures.COLOURS[1]
            axes.plot([found.epsilon], [place], marker="|", markersize=22, markeredgewidth=2.5, color=colour, linestyle="",
                      label="claimed" if place == 0 else None)  # fmt: skip
        axes.set_yticks(range(len(rows)), [f"{name}" + ("" if found.ok else "\nCONTRADICTED") for name, found, _ in rows])
        axes.set_xlim(left=0)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel("ε")
        axes.set_title("Audits: lower bounds on ε", loc="left", fontsize=10, fontweight="bold")
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure
