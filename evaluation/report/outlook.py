"""A budget before anything is trained (:mod:`evaluation.budget`), as text for a terminal and as a page that stands alone.

print(text(look_ahead(plan)))
page(look_ahead(plan), Path("budget.html"))
"""

import textwrap
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dptrain.files import write_file
from dptrain.rounding import up
from evaluation.budget import Outlook, Point
from evaluation.report import figures, html

TEMPLATE = "outlook.html.jinja"
BAR = 40
"""Letters of the longest bar."""
COLUMNS = ("batch", "steps", "epochs", "σ", "noise of the mean", "signal to noise", "of full batches", "cost", "")


def text(outlook: Outlook, width: int = 110) -> str:
    """The plan, what it promises, curves as bars, the table of batch sizes, and what an attacker gains at most."""
    blocks = [
        headline(outlook),
        _wrapped(outlook.guarantee.statement, width),
        _bars("ε after other numbers of steps, at this noise", "steps", outlook.over_steps, outlook.plan.steps, "{:,.0f}"),
        _bars("ε with other noise, at these steps", "σ", outlook.over_noise, outlook.plan.noise_multiplier, "{:.3g}"),
        f"(counted by {outlook.counted_by})",
    ]
    if outlook.choices:
        table = _aligned([COLUMNS, *choices(outlook)])
        about = "Noise of the mean gradient in clipping norms, an update; signal to noise of all updates together; cost in "
        blocks += ["Batch sizes and steps under the same ε", table, _wrapped(f"{about}examples read.", width)]
        blocks += [_wrapped(" ".join(outlook.advice), width)]
    blocks += ["What an attacker gains at most", _aligned([("", "by guessing", "at most"), *gains(outlook)])]
    if outlook.households:
        rows = [(f"{one.people} people together", f"ε = {up(one.epsilon)}") for one in outlook.households]
        blocks += [f"Of a household, at δ = {outlook.plan.delta:g} (PLD; Ganesh 2024)", _aligned(rows)]
    blocks += [_wrapped(note, width) for note in outlook.notes]
    blocks += ["Into a recipe", toml(outlook), "Or as flags", flags(outlook), "Or in a script", python(outlook)]
    return "\n\n".join(blocks)


def headline(outlook: Outlook) -> str:
    """The plan in a line."""
    plan, found = outlook.plan, outlook.guarantee
    return (
        f"ε = {up(found.epsilon, 3)} at δ = {plan.delta:g}, σ = {plan.noise_multiplier:.4g}, {plan.steps:,} steps, "
        f"q = {plan.sampling_rate:.4g}, expected batch size {plan.expected_batch_size:,.6g}"
    )


def choices(outlook: Outlook) -> list[tuple[str, ...]]:
    """The rows of the table of batch sizes, below :data:`COLUMNS`."""
    return [
        (
            f"{one.expected_batch_size:,.6g}",
            f"{one.steps:,}",
            f"{one.epochs:.3g}",
            f"{one.noise_multiplier:.3f}",
            f"{one.noise_of_mean:.2e}",
            f"{one.signal_to_noise:,.0f}",
            f"{100 * one.share:.0f}%",
            f"{one.cost:.3g}×",
            one.planned,
        )
        for one in outlook.choices
    ]


def gains(outlook: Outlook) -> list[tuple[str, str, str]]:
    """What, by guessing, at most."""
    return [(gain.what, f"{gain.guessing:.3g}", up(gain.permitted, 3)) for gain in outlook.gains]


def toml(outlook: Outlook) -> str:
    """The plan as a recipe states it; the noise is calibrated again from ε when it runs."""
    plan = outlook.plan
    lines = [f"epsilons = [{_number(outlook.guarantee.epsilon)}]", "", "[privacy]"]
    lines += [f"{name} = {_toml(value)}" for name, value in _fields(outlook).items()]
    return "\n".join([*lines, "", "[training]", f"steps = {plan.steps}"])


def flags(outlook: Outlook) -> str:
    """The same behind a recipe's name."""
    given = [f"--privacy.{name.replace('_', '-')} {value}" for name, value in _fields(outlook).items()]
    parts = ["dptrain run RECIPE", f"--epsilons {_number(outlook.guarantee.epsilon)}", *given]
    return " \\\n    ".join([*parts, f"--training.steps {outlook.plan.steps}"])


def python(outlook: Outlook) -> str:
    """The same for a script, with its noise."""
    plan = outlook.plan
    given = {**_fields(outlook), "steps": plan.steps, "noise_multiplier": plan.noise_multiplier}
    lines = [f"    {name}={value!r}," for name, value in given.items()]
    return "\n".join(["from dptrain import PrivacyPlan", "", "plan = PrivacyPlan(", *lines, ")"])


def _fields(outlook: Outlook) -> dict[str, Any]:
    """What a recipe's privacy must state: what has no default there, and what differs from it."""
    from dptrain.recipe import PrivacyConfig

    plan, default = outlook.plan, PrivacyConfig()
    always = ("delta", "sampling_rate", "expected_batch_size", "clipping_norm")
    names = [*always, *(name for name in vars(default) if hasattr(plan, name) and name not in always)]
    if plan.unit == "edge":
        names.remove("clipping_norm")  # updates are not clipped, which a recipe does not state
    return {name: getattr(plan, name) for name in names if name in always or getattr(plan, name) != getattr(default, name)}


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _number(epsilon: float) -> str:
    """ε rounded up, so that the plan it is calibrated for again spends no less than this one was said to."""
    return f"{-(-epsilon * 1000 // 1) / 1000:g}"


# -- terminal ---------------------------------------------------------------------------------------------------------


def _bars(title: str, name: str, points: tuple[Point, ...], own: float, style: str) -> str:
    """A curve as bars, with the plan's own point marked."""
    most = max(point.epsilon for point in points)
    labels = [f"{name} {style.format(point.at)}" for point in points]
    wide = max(map(len, labels))
    lines = [
        f"  {label:>{wide}}  {'█' * max(1, round(BAR * point.epsilon / most)):<{BAR}}  ε = {up(point.epsilon)}"
        + ("  ← this plan" if point.at == own else "")
        for label, point in zip(labels, points, strict=True)
    ]
    return "\n".join([title, *lines])


def _aligned(rows: list[tuple[str, ...]] | list[Any]) -> str:
    """Columns side by side, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{row[0]:<{widths[0]}}", *(f"{cell:>{wide}}" for cell, wide in zip(row[1:], widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def _wrapped(line: str, width: int) -> str:
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


# -- page -------------------------------------------------------------------------------------------------------------


def page(outlook: Outlook, path: Path) -> None:
    """Writes the page; a name that ends in ``.svg`` gets the drawing alone."""
    if path.suffix == ".svg":
        drawing = figures.as_svg(curves(outlook), "budget")
        write_file(path, f'<?xml version="1.0" encoding="utf-8"?>\n{drawing}'.encode())
        return
    filled = html.fill(
        TEMPLATE,
        outlook=outlook,
        headline=headline(outlook),
        over_steps=html.as_markup(curve(outlook, "steps"), "steps"),
        over_noise=html.as_markup(curve(outlook, "noise"), "noise"),
        attacker=html.as_markup(attacker(outlook), "attacker"),
        columns=COLUMNS,
        choices=choices(outlook),
        gains=gains(outlook),
        toml=toml(outlook),
        flags=flags(outlook),
        python=python(outlook),
    )
    write_file(path, filled.encode())


def curves(outlook: Outlook) -> Figure:
    """ε over steps and over noise, each with the plan's own point, side by side."""
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        for axes, which in zip(figure.subplots(1, 2), ("steps", "noise"), strict=True):
            _draw(axes, outlook, which)
        return figure


def curve(outlook: Outlook, which: Literal["steps", "noise"]) -> Figure:
    """One of the two."""
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        _draw(figure.subplots(), outlook, which)
        return figure


def _draw(axes: Axes, outlook: Outlook, which: str) -> None:
    plan = outlook.plan
    name, points, own = {
        "steps": ("optimizer steps, at this noise", outlook.over_steps, plan.steps),
        "noise": ("noise multiplier σ, at these steps", outlook.over_noise, plan.noise_multiplier),
    }[which]
    xs, ys = [point.at for point in points], [point.epsilon for point in points]
    axes.plot(xs, ys, color=figures.COLOURS[0], marker="o", markersize=4, linewidth=1.6)
    reported = outlook.guarantee.epsilon
    axes.plot([own], [reported], color=figures.COLOURS[1], marker="D", linestyle="", label="this plan")
    axes.set(xscale="log", xlabel=name, ylabel=f"ε at δ = {plan.delta:g}")
    axes.set_xticks(xs, [f"{x:.3g}" if x < 1000 else f"{x:,.0f}" for x in xs], rotation=35, ha="right", fontsize=8)
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)


def attacker(outlook: Outlook) -> Figure:
    """The largest true positive rate at each false positive rate, on logarithmic axes, above what guessing gets."""
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(5.2, 3.9), layout="constrained")
        axes = figure.subplots()
        false, true = zip(*outlook.curve, strict=True)
        axes.plot(false, true, color="#000000", linestyle="--", linewidth=1.4, label="at most, for any attack")
        axes.plot(false, false, color="#555555", linestyle=":", linewidth=1.2, label="by guessing")
        axes.fill_between(false, false, true, color=figures.COLOURS[0], alpha=0.1, linewidth=0)
        axes.set(xscale="log", yscale="log", xlim=(min(false), 1), ylim=(min(false), 1))
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.legend(frameon=False, fontsize=8)
        return figure
