"""The drawings of a result: matplotlib figures, for the page as SVG and for TensorBoard as pixels.

Budgets stand evenly spaced, in order; training without privacy stands behind a break at the right end, marked ∞.
"""

import base64
import io
import re
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from evaluation.report import wording
from evaluation.result import AttackResult, ComparisonResult, Front, Kind, Measure, RunResult, Summary

# Okabe and Ito's palette: told apart with any kind of colour vision, and as grey values.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Of = Callable[[Summary], Measure | None]
"""What a panel shows of a summary."""
LEVELS = ("#E69F00", "#56B4E9", "#8B5A2B")
"""Of those who have no model: neither a variant's colour nor the black of what is permitted."""
LINES = ("-", "--", "-.")
"""With seven colours and three kinds of line, curves are told apart by more than their colour, and 21 of them differ."""
MARKERS = {"dp": "o", "non_private": "s", "clip_only": "^", "regularized": "D"}
ALONE = ("D", "v", "P", "X", "p", "<", "h", ">", "*", "d", "8")
"""Of regularizers that stand alone; with six colours, 66 of them differ."""
LETTER, LINE, ROW = 0.062, 0.45, 0.17
"""Of a legend, in inches: how wide a letter is, a line with its margins, and how high a row is."""
MOST_CLASSES = 12
TILE = 64
"""Pixels of a picture's longer side on the page, at most."""
LONGEST_NAME = 10
TITLE = 46
"""Letters of a title that fit on a line."""
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "svg.fonttype": "path",
    "text.parse_math": False,  # a class or an attack may be called "$x^{2"
}


def tradeoff(result: ComparisonResult, name: str) -> Figure:
    """What the model is worth, or one ``<attack>/<metric>``, over ε, with intervals, chance and what the plan permits."""
    allowed = {item.epsilon: item.permitted[name] for item in result.summary if name in item.permitted}
    title = wording.measure_name(name)
    title = textwrap.fill(title[0].upper() + title[1:], TITLE)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.7), layout="constrained")
        axes = figure.subplots()
        chance = wording.chances(result).get(name)
        _panel(axes, result, title, lambda item: wording.find(item, name), chance, allowed)
        for index, (beside, height) in enumerate(wording.levels(result, name).items()):
            colour, line = LEVELS[index % len(LEVELS)], LINES[1 + index % 2]
            axes.axhline(height, color=colour, linestyle=line, linewidth=1.2, label=beside)
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            _legend(figure, handles, [str(label) for label in labels])
        return figure


def _legend(figure: Figure, handles: list[Any], labels: list[str]) -> None:
    """Below the axes, in as many columns as fit; of more than three rows the figure becomes taller, not the axes smaller."""
    width, height = figure.get_size_inches()
    columns = next((count for count in (3, 2) if _width(labels, count) <= width), 1)
    figure.set_size_inches(width, height + ROW * max(0, -(-len(labels) // columns) - 3))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def _width(labels: list[str], columns: int) -> float:
    """In inches; a column is as wide as its longest label."""
    parts = (part.tolist() for part in np.array_split(np.array(labels), columns) if len(part))
    return sum(LETTER * max(map(len, part)) + LINE for part in parts)


def _panel(axes: Axes, result: ComparisonResult, title: str, of: Of, chance: float | None, allowed: dict[float, float]) -> None:
    budgets = sorted({item.epsilon for item in result.summary if item.variant == "dp"})
    place = {epsilon: index for index, epsilon in enumerate(budgets)}
    apart = [item for item in result.summary if item.variant != "dp"]
    private = sorted((item for item in result.summary if item.variant == "dp"), key=lambda item: item.epsilon)
    _series(axes, [place[item.epsilon] for item in private], private, of, COLOURS[0], "DP", "o")
    # The break: everything without a guarantee stands behind it, side by side.
    start = len(budgets) + 0.25
    for offset, item in enumerate(apart):
        colour = COLOURS[1 + offset % 6]
        marker = MARKERS[item.variant] if not item.regularizer else ALONE[offset % len(ALONE)]
        name = wording.variant_name(item) + ("" if item.regularizer else " (ε = ∞)")
        _series(axes, [start + 0.5 * offset], [item], of, colour, name, marker)
    if apart and budgets:
        axes.axvline(len(budgets) - 0.4, color="#888888", linestyle=(0, (1, 2)), linewidth=1)
    if chance is not None:
        axes.axhline(chance, color="#555555", linestyle=":", linewidth=1.2, label="chance")
    if allowed:
        places = [place[epsilon] for epsilon in sorted(allowed)]
        heights = [allowed[epsilon] for epsilon in sorted(allowed)]
        axes.plot(
            places,
            heights,
            color="#000000",
            linestyle="--",
            marker="_",
            markersize=14,
            linewidth=1.2,
            label="permitted by the plan",
        )
    middle = start + 0.25 * max(len(apart) - 1, 0)
    ticks, labels = list(range(len(budgets))), [f"{epsilon:g}" for epsilon in budgets]
    axes.set_xticks([*ticks, middle] if apart else ticks, [*labels, "∞"] if apart else labels)
    axes.set_xlim(-0.5, start + 0.5 * len(apart) if apart else max(len(budgets), 1) - 0.5)
    axes.set_xlabel("ε (smaller is more private)")
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")


def _series(axes: Axes, places: list[float], items: list[Summary], of: Of, colour: str, name: str, marker: str) -> None:
    found = [(place, of(item)) for place, item in zip(places, items, strict=True)]
    known = [(place, measure) for place, measure in found if measure is not None and measure.value is not None]
    if not known:
        return
    xs, values = [place for place, _ in known], [measure.value or 0.0 for _, measure in known]
    lows = [measure.low if measure.low is not None else value for (_, measure), value in zip(known, values, strict=True)]
    highs = [measure.high if measure.high is not None else value for (_, measure), value in zip(known, values, strict=True)]
    below, above = np.array(values) - np.array(lows), np.array(highs) - np.array(values)
    axes.errorbar(
        xs, values, yerr=np.maximum([below, above], 0), color=colour, marker=marker, markersize=5, linewidth=1.6,
        capsize=3, elinewidth=1, label=name,
    )  # fmt: skip
    if len(xs) > 1:
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.12, linewidth=0)


def roc(result: ComparisonResult, attack: str) -> Figure | None:
    """The ROC of the first seed of every budget, on logarithmic axes, beside what its plan permits; None where the attack has
    none."""
    curves: list[tuple[RunResult, AttackResult]] = []
    seen: set[Kind] = set()
    for run in result.runs:
        for found in run.attacks:
            if found.name == attack and found.curve is not None and run.kind not in seen:
                seen.add(run.kind)
                curves.append((run, found))
    if not curves:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.4), layout="constrained")
        axes = figure.subplots()
        least, seed = 1e-3, min(run.seed for run, _ in curves)
        permitted: str | None = "permitted by the plan"
        for index, (run, found) in enumerate(curves):
            assert found.curve is not None
            name = wording.row_name(run)
            false = np.maximum(found.curve.false_positive_rate, least)
            true = np.maximum(found.curve.true_positive_rate, least)
            name += "" if run.seed == seed else f", seed {run.seed}"
            colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
            axes.step(false, true, where="post", color=colour, linestyle=line, linewidth=1.4, label=name)
            if found.permitted_curve is not None:
                bound = np.array([found.permitted_curve.false_positive_rate, found.permitted_curve.true_positive_rate])
                axes.plot(*bound[:, bound[0] >= least], color=colour, linestyle=(0, (1, 1.2)), linewidth=1.0, label=permitted)
                permitted = None  # one line of the legend stands for all: each has its model's colour
        axes.plot([least, 1], [least, 1], color="#555555", linestyle=":", linewidth=1.2, label="chance")
        axes.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1))
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.set_title(f"{wording.attack_name(attack)}, seed {seed}", loc="left", fontsize=10, fontweight="bold")
        _legend(figure, *axes.get_legend_handles_labels())
        return figure


def calibration(result: ComparisonResult) -> Figure | None:
    """True values over predicted ones, of the first seed of every row; None where no value is predicted."""
    drawn: dict[Kind, RunResult] = {}
    for run in result.runs:
        if run.calibration is not None:
            drawn.setdefault(run.kind, run)
    if not drawn:
        return None
    value = result.data.get("value") or {"name": "value", "unit": ""}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.2), layout="constrained")
        axes = figure.subplots()
        ends: list[float] = []
        for index, run in enumerate(drawn.values()):
            found = run.calibration
            assert found is not None
            true = np.array(found.true)
            below, above = true - np.array(found.low), np.array(found.high) - true
            colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
            axes.errorbar(
                found.predicted, true, yerr=[below, above], color=colour, linestyle=line, marker="o", markersize=3,
                linewidth=1.2, elinewidth=0.8, label=wording.row_name(run),
            )  # fmt: skip
            ends += [*found.predicted, *found.true]
        axes.plot(
            [min(ends), max(ends)], [min(ends), max(ends)], color="#555555", linestyle=":", linewidth=1.2, label="as predicted"
        )
        axes.set(xlabel=f"predicted {value['name']}, {value['unit']}", ylabel=f"true {value['name']}, mean and 95% interval")
        axes.set_title("Calibration on held-out examples", loc="left", fontsize=10, fontweight="bold")
        _legend(figure, *axes.get_legend_handles_labels())
        return figure


HOLLOW = {"on the front": "full", "behind it by the means alone": "bottom", "shown to be worse": "none"}
"""How much of a point is filled, by its place; half of it where intervals do not settle it."""


def front(front: Front) -> Figure:
    """Each row between what it is worth (to the right is more) and what is got from it (down is less), with intervals; those on
    the front are filled and joined."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.1), layout="constrained")
        axes = figure.subplots()
        for index, point in enumerate(front.points):
            colour = COLOURS[0] if point.variant == "dp" else COLOURS[1 + index % 6]
            marker = MARKERS[point.variant] if not point.regularizer else ALONE[index % len(ALONE)]
            worth, leak = point.utility.value or 0.0, point.leak.value or 0.0
            axes.errorbar(
                worth, leak, xerr=_arms(point.utility), yerr=_arms(point.leak), color=colour, marker=marker, markersize=7,
                fillstyle=HOLLOW[point.place], capsize=2, elinewidth=0.8, linestyle="none",
            )  # fmt: skip
        _name_points(axes, front)
        joined = sorted(
            (point.utility.value or 0.0, point.leak.value or 0.0) for point in front.points if point.place == "on the front"
        )
        axes.plot(*zip(*joined, strict=True), color="#888888", linewidth=1, linestyle="--", zorder=0)
        if front.chance is not None:
            axes.axhline(front.chance, color="#555555", linestyle=":", linewidth=1.2)
        axes.set_xlabel(f"{wording.metric_name(front.points[0].utility.name)} (to the right is worth more)")
        axes.set_ylabel(textwrap.fill(f"{wording.metric_name(front.metric)} of the strongest attack (lower is safer)", 48))
        return figure


def _name_points(axes: Axes, front: Front) -> None:
    """A name beside each point; of points that lie together one below the other."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    named: list[tuple[float, float]] = []
    for point in front.points:
        at = point.utility.value or 0.0, point.leak.value or 0.0
        near = sum(abs(at[0] - x) < 0.15 * (right - left) and abs(at[1] - y) < 0.05 * (high - low) for x, y in named)
        named.append(at)
        name = wording.variant_name(point) if point.variant != "dp" else f"ε = {wording.budget(point.epsilon)}"
        place = (6, 6) if near == 0 else (8, 6 - 10 * near)
        axes.annotate(name, at, xytext=place, textcoords="offset points", fontsize=8, color="#222222")


def joined(title: str, curves: list[tuple[str, tuple[Summary, ...], dict[Kind, Measure]]]) -> Figure:
    """One figure of several comparisons over ε: a curve each, and what has no guarantee behind the break.

    Args:
        curves: name, rows, and the figure of each row.
    """
    budgets = sorted({item.epsilon for _, summary, _ in curves for item in summary if item.variant == "dp"})
    place = {epsilon: index for index, epsilon in enumerate(budgets)}
    start = len(budgets) + 0.25
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.0), layout="constrained")
        axes = figure.subplots()
        behind = 0
        for index, (name, summary, points) in enumerate(curves):
            colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
            private = sorted(
                (item for item in summary if item.variant == "dp" and item.kind in points), key=lambda i: i.epsilon
            )
            short = textwrap.shorten(name, 48, placeholder="…")
            xs = [place[item.epsilon] + 0.06 * index for item in private]
            _bars(axes, xs, [points[item.kind] for item in private], colour, "o", line, short)
            for item in (item for item in summary if item.variant != "dp" and item.kind in points):
                label = "" if private else short
                _bars(axes, [start + 0.3 * behind], [points[item.kind]], colour, MARKERS[item.variant], "none", label)
                behind += 1
        if behind and budgets:
            axes.axvline(len(budgets) - 0.4, color="#888888", linestyle=(0, (1, 2)), linewidth=1)
        ticks, labels = list(range(len(budgets))), [f"{epsilon:g}" for epsilon in budgets]
        middle = start + 0.15 * max(behind - 1, 0)
        axes.set_xticks([*ticks, middle] if behind else ticks, [*labels, "∞"] if behind else labels)
        axes.set_xlim(-0.5, start + 0.3 * behind if behind else max(len(budgets), 1) - 0.5)
        axes.set_xlabel("ε (smaller is more private)")
        axes.set_title(textwrap.fill(title, TITLE), loc="left", fontsize=10, fontweight="bold")
        handles, names = axes.get_legend_handles_labels()
        if handles:
            _legend(figure, handles, [str(name) for name in names])
        return figure


def _bars(axes: Axes, xs: list[float], found: list[Measure], colour: str, marker: str, line: str, label: str) -> None:
    if not xs:
        return
    arms = np.hstack([_arms(measure) for measure in found])
    axes.errorbar(
        xs, [measure.value or 0.0 for measure in found], yerr=arms, color=colour, marker=marker, markersize=5, linestyle=line,
        linewidth=1.4, capsize=2, elinewidth=0.9, label=label or None,
    )  # fmt: skip


def _arms(measure: Measure) -> list[list[float]]:
    value = measure.value or 0.0
    ends = (value if measure.low is None else measure.low, value if measure.high is None else measure.high)
    return [[max(0.0, value - ends[0])], [max(0.0, ends[1] - value)]]


def exposure(result: ComparisonResult) -> Figure:
    """Share of examples whose own true positive rate lies above a level, on logarithmic axes; dotted, what chance gives."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.2), layout="constrained")
        axes = figure.subplots()
        drawn = [(wording.row_name(item), item.exposure) for item in result.summary if item.exposure is not None]
        for index, (name, found) in enumerate(drawn):
            above = np.where(np.array(found.share_above) > 0, found.share_above, np.nan)
            colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
            axes.plot(found.levels, above, color=colour, linestyle=line, linewidth=1.4, label=name)
        for index, (_, found) in enumerate(drawn):  # they lie close together: one line of the legend stands for all
            above = np.where(np.array(found.share_by_chance) > 0, found.share_by_chance, np.nan)
            axes.plot(found.levels, above, "k:", linewidth=1.2, alpha=0.6, label=None if index else "by chance")
        axes.set(xscale="log", yscale="log", xlim=(0.01, 1), ylim=(1e-4, 1))
        axes.set(xlabel="own TPR at 1% FPR", ylabel="share of examples above it")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.set_title("How the leak is spread over examples", loc="left", fontsize=10, fontweight="bold")
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        return figure


def pictures(rows: dict[str, np.ndarray], classes: list[str]) -> Figure:
    """A column a class (the first ``MOST_CLASSES``), and a row for each label and its ``[classes, height, width]``."""
    count = min(len(next(iter(rows.values()))), MOST_CLASSES)
    names = [*classes, *(str(index) for index in range(len(classes), count))]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(0.95 + 0.72 * count, 0.85 * len(rows) * _tall(rows)), layout="constrained")
        grid = figure.subplots(len(rows), count, squeeze=False)
        for row, (label, array) in enumerate(rows.items()):
            for column in range(count):
                axes = grid[row, column]
                axes.imshow(array[column], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
                if row == 0:
                    axes.set_title(names[column][:LONGEST_NAME], fontsize=8)
                if column == 0:
                    axes.set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center")
        return figure


def _tall(rows: dict[str, np.ndarray]) -> float:
    """Height of a picture over its width."""
    shape = next(iter(rows.values())).shape
    return shape[1] / shape[2]


def load_pictures(root: Path, run: RunResult, attack: AttackResult) -> dict[str, np.ndarray] | None:
    """The rows that an inversion kept, by their labels; None where it kept none or the file is gone."""
    for name in (name for name in attack.figures if name.endswith(".npz")):
        path = root / run.label / "evaluation" / f"step={run.step:06d}" / name
        try:
            with np.load(path, allow_pickle=False) as stored:
                labels = [str(label) for label in stored["labels"]]
                rows = {label: np.asarray(stored[f"row{at}"], dtype=float) for at, label in enumerate(labels)}
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            continue
        if rows and len({array.shape for array in rows.values()}) == 1:
            first = next(iter(rows.values()))
            if first.ndim in (3, 4) and len(first):
                return rows
    return None


def as_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element whose ids begin with ``name``, so that several can stand in one page. Its words are text,
    which can be read aloud and found; its coordinates have two decimals."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        _lay_out(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]+", "font-family: 'DejaVu Sans', Verdana, sans-serif", text)
    text = re.sub(r'(?<=[ "MLCQ,(-])(\d+\.\d{2})\d+', r"\1", text)
    text = re.sub(r"\n\s*", "\n", text)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    return re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)


def _lay_out(figure: Figure) -> None:
    """Finds the places of a figure's parts for SVG. Left to ``savefig``, all is drawn once more, and thrown away."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    engine = figure.get_layout_engine()
    if engine is not None:
        FigureCanvasSVG(figure)
        figure.set_dpi(72)  # as it is drawn
        engine.execute(figure)
        figure.set_layout_engine(None)


def strip_uri(pictures: Float[np.ndarray, "classes height width *channels"]) -> str:
    """The first ``MOST_CLASSES`` pictures of a row, of values from 0 to 1, side by side as a PNG inside a ``data:`` address;
    each is made smaller where a side is longer than ``TILE`` pixels."""
    pixels = (255 * np.clip(np.nan_to_num(pictures[:MOST_CLASSES]), 0, 1)).round().astype(np.uint8)
    tiles = [Image.fromarray(tile[..., 0] if tile.ndim == 3 and tile.shape[2] == 1 else tile) for tile in pixels]
    for tile in tiles:
        tile.thumbnail((TILE, TILE), Image.Resampling.BOX)
    width, height = tiles[0].size
    strip = Image.new(tiles[0].mode, (width * len(tiles), height))
    for place, tile in enumerate(tiles):
        strip.paste(tile, (place * width, 0))
    if strip.mode == "RGB":
        strip = strip.quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    strip.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture_uri(pixels: UInt8[np.ndarray, "height width channels"], side: int) -> str:
    """One picture as a PNG inside a ``data:`` address, made smaller where a side is longer than ``side`` pixels."""
    grey = pixels.shape[2] == 1
    picture = Image.fromarray(pixels[..., 0] if grey else pixels)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def as_pixels(figure: Figure, dpi: int = 110) -> np.ndarray:
    """The figure as ``[height, width, 3]`` bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
