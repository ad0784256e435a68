"""The result as one HTML page that stands alone: no network, figures as SVG, pictures inline.

    write(result, Path("runs/digits"), Path("runs/digits/report.html"))

The answer comes first, then the curve, the tables, what each row buys, controls, ROC, pictures, the plan and its assumptions,
what is not covered, and how to get it again. The same result gives the same page, byte for byte.
"""

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dptrain.files import write_file
from evaluation.report import bought, figures, guards, wording
from evaluation.result import ComparisonResult, Kind, Measure

TEMPLATE = Path(__file__).with_name("report.html.jinja")
STYLE = Path(__file__).with_name("page.css")
PRIVATE = Path("private") / "vulnerable.html"
"""Of the page with members' examples, in the comparison's folder; ``evaluation.report.private`` writes it."""


def write(result: ComparisonResult, root: Path, path: Path) -> None:
    """Writes the page so that a reader sees the old one or this one, never a part.

    Args:
        root: the comparison's folder, where pictures of attacks are found.
    """
    write_file(path, render(result, root).encode())


def render(result: ComparisonResult, root: Path) -> str:
    names = wording.measured_names(result)
    return fill(
        TEMPLATE,
        result=result,
        answer=[*wording.answer(result), *bought.raised(result), *guards.answer(result)],
        tradeoffs=[
            {"svg": as_markup(figures.tradeoff(result, name), f"tradeoff{index}"), "text": _in_words(result, name)}
            for index, name in enumerate([*wording.utility_names(result), *names])
        ],
        rocs=_rocs(result),
        worth=_worth(result),
        bought=bought,
        exchanges=result.exchanges,
        tables=[_table(result, attack) for attack in wording.applicable(result)],
        guards=guards,
        guarded=guards.compared(result),
        controls=_beside(result),
        exposed=_exposed(result, root),
        pictures=_pictures(result, root),
        said=wording.secrets_said(result),
        audits=_audits(result),
        guarantees=_guarantees(result),
        verdicts=wording.verdict_words(result),
        broken=[*wording.broken(result), *guards.failures(result)],
        notes=sorted({f"{run.label}: {note}" for run in result.runs for note in run.notes}),
    )


def fill(template: Path, **given: Any) -> str:
    """A page from its template: the style that all pages share, and no text that is taken for markup."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"interval": wording.interval, "number": wording.number, "budget": wording.budget}
    style = Markup(STYLE.read_text(encoding="utf-8"))
    return environment.from_string(template.read_text(encoding="utf-8")).render(wording=wording, style=style, **given) + "\n"


def as_markup(figure: Any, name: str) -> Markup:
    """A drawing to stand in a page; ids in it begin with ``name``."""
    return Markup(figures.as_svg(figure, name))


def _in_words(result: ComparisonResult, name: str) -> str:
    """A panel in words, for who cannot see it."""
    of = [(item, wording.find(item, name)) for item in result.summary]
    return (
        f"{wording.measure_name(name)}. "
        + "; ".join(f"{wording.row_name(item)}: {wording.interval(found)}" for item, found in of)
        + "."
    )


def _worth(result: ComparisonResult) -> dict[str, Any]:
    """What the models are worth; a table of its own where that takes more than one figure."""
    names, drawn = wording.utility_names(result), figures.calibration(result)
    return {
        "columns": [wording.metric_name(name) for name in names] or ["test accuracy"],
        "rows": [
            (wording.row_name(item), [wording.interval(wording.find(item, name)) for name in names]) for item in result.summary
        ],
        "beside": [f"{wording.metric_name(item.name)}: {wording.interval(item)}" for item in result.baselines],
        "unit": wording.unit_of_value(result),
        "calibration": None if drawn is None else as_markup(drawn, "calibration"),
    }


def _rocs(result: ComparisonResult) -> list[dict[str, Any]]:
    drawn = [(attack, figures.roc(result, attack)) for attack in wording.attacks(result)]
    return [
        {"name": wording.attack_name(attack), "svg": as_markup(figure, f"roc{index}")}
        for index, (attack, figure) in enumerate(drawn)
        if figure is not None
    ]


def _table(result: ComparisonResult, attack: str) -> dict[str, Any]:
    every = [name for name in wording.measure_names(result) if name.startswith(f"{attack}/")]
    names = [name for name in every if wording.is_rate(name)]
    rows = [
        {
            "name": wording.row_name(summary),
            "accuracy": wording.interval(summary.utility),
            "cells": [
                (wording.interval(wording.find(summary, name)), summary.permitted.get(name), _note(wording.find(summary, name)))
                for name in names
            ],
            "verdict": summary.verdicts.get(attack, "–"),
        }
        for summary in result.summary
    ]
    about, chances = wording.about(result, attack), wording.chances(result)
    headline = wording.headlines(result).get(attack)
    return {
        "name": wording.attack_name(attack),
        "paper": about.paper if about is not None else "",
        "access": about.access if about is not None else "",
        "chance": about.chance if about is not None else None,
        "chances": [
            (wording.metric_name(name.split("/")[1]), chances[name])
            for name in names
            if name in chances and name != headline and about is not None and chances[name] != about.chance
        ],
        "judges": wording.judges(result, attack),
        "chosen_on": wording.CHOSEN_ON.get((str(result.data.get("name")), attack), ""),
        "columns": [wording.metric_name(name.split("/")[1]) for name in names],
        "rows": rows,
        "likeness": _likeness(result, attack, [name for name in every if not wording.is_rate(name)]),
    }


def _likeness(result: ComparisonResult, attack: str, names: list[str]) -> dict[str, Any] | None:
    """Figures that have no chart: of pictures distances and similarities, those of what was to be had without a model too."""
    if not names:
        return None
    metrics = [name.split("/")[1] for name in names]
    rows = [(wording.row_name(item), [wording.interval(wording.find(item, name)) for name in names]) for item in result.summary]
    for who, found in wording.likeness_without_model(result, attack).items():
        rows.append((f"{who.replace('_', ' ')}, without a model", [wording.interval(found.get(metric)) for metric in metrics]))
    pictures = any(metric.startswith(("distance_", "similarity_")) for metric in metrics)
    return {
        "first": "Pictures" if pictures else "Model",
        "title": "how near the pictures come" if pictures else "further figures",
        "about": wording.HOW_NEAR if pictures else "",
        "columns": [wording.metric_name(metric) for metric in metrics],
        "rows": rows,
    }


def _note(measure: Measure | None) -> str:
    return measure.note if measure is not None and measure.value is None else ""


def _beside(result: ComparisonResult) -> list[dict[str, Any]]:
    """Baselines and controls of every attack on every run."""
    rows = []
    for run in result.runs:
        for attack in run.attacks:
            beside = [*attack.judges, *attack.baselines, *attack.controls]
            if beside:
                shown = [(item.name.replace("_", " "), wording.interval(item)) for item in beside]
                rows.append(
                    {"run": run.label, "attack": wording.attack_name(attack.name), "value": wording.number(attack.value),
                     "beside": shown, "verdict": attack.verdict, "reason": attack.reason}
                )  # fmt: skip
    return rows


def _exposed(result: ComparisonResult, root: Path) -> dict[str, Any] | None:
    """How the leak is spread over examples; where the examples are is said, and they are not here."""
    rows = [{"name": wording.row_name(item), "exposure": item.exposure} for item in result.summary if item.exposure is not None]
    if not rows:
        return None
    figure = figures.exposure(result)
    return {
        "rows": rows,
        "svg": as_markup(figure, "exposure"),
        "text": wording.exposure_in_words(result),
        "place": wording.WHERE_EXAMPLES_ARE if (root / PRIVATE).exists() else wording.NO_EXAMPLES_KEPT,
    }


def _pictures(result: ComparisonResult, root: Path) -> list[dict[str, str]]:
    """Reconstructions of the first seed of every budget."""
    shown: list[dict[str, str]] = []
    seen: set[tuple[Kind, str]] = set()
    classes = [str(name) for name in result.data.get("classes", [])]
    for run in result.runs:
        for attack in run.attacks:
            key = (run.kind, attack.name)
            if not attack.figures or key in seen:
                continue
            seen.add(key)
            arrays = figures.load_pictures(root, run, attack)
            title = f"{wording.attack_name(attack.name)}, {run.label}"
            count = 0 if arrays is None else len(next(iter(arrays.values())))
            if count > figures.MOST_CLASSES:
                title += f" (the first {figures.MOST_CLASSES} of {count} classes)"
            uri = figures.as_data_uri(figures.pictures(arrays, classes)) if arrays is not None else ""
            shown.append({"title": title, "uri": uri, "identified": wording.number(attack.value, 2)})
    return shown


def _audits(result: ComparisonResult) -> list[dict[str, Any]]:
    """Every audit, its first row with the claim."""
    return [
        {
            "name": wording.audit_name(found, result),
            "how": found.how,
            "about": found.about,
            "claimed": wording.number(found.epsilon),
            "bounds": [bound for bound in found.bounds if bound.is_bound],
            "checks": [f"{check.name}: {wording.seen(check)}" for check in found.checks],
            "verdict": wording.audit_verdict(found),
            "reasons": found.contradictions,
        }
        for found in result.audits
    ]


def _guarantees(result: ComparisonResult) -> list[dict[str, Any]]:
    """One statement a budget, from its first seed."""
    shown: dict[tuple[str, float], dict[str, Any]] = {}
    for run in result.runs:
        if run.guarantee is not None and run.variant == "dp":
            shown.setdefault((run.variant, run.epsilon), {"epsilon": run.epsilon, "guarantee": run.guarantee})
    return list(shown.values())
