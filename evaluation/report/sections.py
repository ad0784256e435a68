"""What stands in the parts of the page: tables as rows of text, drawings as SVG within their share of the page.

No figure is computed here; they are those of the result. One attack's charts are open, that of the answer; the others are
folded, and what does not fit into :data:`DRAWINGS` is left out and said, since its figures are in the tables.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from dptrain.rounding import up
from evaluation.headline import speaks_of_members
from evaluation.report import figures, wording
from evaluation.result import VERDICTS, ComparisonResult, Front, Kind, Measure

DRAWINGS = 900_000
"""All charts of a page together, at most, in bytes; the first ones are never left out."""
PICTURES = 600_000
"""All pictures of a page together, at most, in bytes."""
SMALL = 32
"""Below so many pixels a side a picture is shown with its pixels as squares."""
OPEN = 2
"""Curves of the answer's attack that are open."""
LOOKS = {"leak": "leak", "within the plan": "within", "above the plan": "above"}
PLAN = {
    "noise_multiplier": "noise multiplier σ",
    "clipping_norm": "clipping norm C",
    "sampling_rate": "sampling rate q",
    "expected_batch_size": "expected batch size",
    "steps": "updates",
    "sampling": "sampling",
    "clipping": "clipping",
    "noise": "noise",
}
"""Of a plan, what its ε follows from."""


class Drawings:
    """The charts of a page, in the order in which they are drawn; those for which there is no room are counted."""

    def __init__(self, result: ComparisonResult):
        self.result = result
        self.first = _first_attack(result)
        self.used = 0

    def tradeoffs(self) -> dict[str, Any]:
        """What models are worth and the answer's attack open; everything else folded."""
        worth, names = wording.utility_names(self.result), wording.measured_names(self.result)
        own = [name for name in names if name.split("/")[0] == self.first]
        own = sorted(own, key=lambda name: name != _first_figure(self.result))[:OPEN]
        shown = [*worth[:1], *own]
        rest = [name for name in [*worth[1:], *names] if name not in shown]
        drawn = self._drawn([*shown, *rest], lambda name: figures.tradeoff(self.result, name), "tradeoff")
        panels = [(name, {"svg": svg, "text": _in_words(self.result, name)}) for name, svg in drawn.items()]
        return {
            "open": [panel for name, panel in panels if name in shown],
            "folded": [panel for name, panel in panels if name not in shown],
            "left_out": _left_out(len(shown) + len(rest) - len(panels), "charts"),
        }

    def fronts(self) -> list[dict[str, Any]]:
        """Accuracy against the strongest attack of each family."""
        drawn = self._drawn([front.family for front in self.result.fronts], self._front, "front")
        return [_front(front, drawn[front.family]) for front in self.result.fronts if front.family in drawn]

    def _front(self, family: str) -> Any:
        return figures.front(next(front for front in self.result.fronts if front.family == family))

    def rocs(self) -> dict[str, Any]:
        """The ROC of the answer's attack open, or of the first that has one."""
        names = wording.attacks(self.result)
        names.sort(key=lambda name: name != self.first)
        drawn = self._drawn(names, lambda name: figures.roc(self.result, name), "roc")
        shown = [{"name": wording.attack_name(name), "svg": svg} for name, svg in drawn.items()]
        have = {attack.name for run in self.result.runs for attack in run.attacks if attack.curve is not None}
        return {"open": shown[:1], "folded": shown[1:], "left_out": _left_out(len(have) - len(shown), "ROC curves")}

    def _drawn(self, names: list[str], draw: Callable[[str], Any], prefix: str) -> dict[str, Markup]:
        found: dict[str, Markup] = {}
        for index, name in enumerate(names):
            if found and self.used > DRAWINGS:
                break
            figure = draw(name)
            if figure is not None:
                found[name] = Markup(figures.as_svg(figure, f"{prefix}{index}"))
                self.used += len(found[name])
        return found


def _left_out(count: int, what: str) -> str:
    return (
        f"{count} further {what} are left out, to keep this page small; their figures stand in the tables." if count > 0 else ""
    )


def _first_attack(result: ComparisonResult) -> str:
    """The attack that the answer names, or the first one with a figure."""
    chosen = None if result.headline is None else result.headline.chosen
    if chosen is not None and chosen.strongest is not None:
        return chosen.strongest.attack
    return next((name.split("/")[0] for name in wording.measured_names(result)), "")


def _first_figure(result: ComparisonResult) -> str:
    """``<attack>/<metric>`` of the answer; empty where there is none."""
    chosen = None if result.headline is None else result.headline.chosen
    return "" if chosen is None or chosen.strongest is None else f"{chosen.strongest.attack}/{chosen.strongest.metric}"


def strongest_first(result: ComparisonResult) -> list[str]:
    """Every attack that ran on a model, that of the answer first."""
    first = _first_attack(result)
    return sorted(wording.applicable(result), key=lambda name: name != first)


def _front(front: Front, svg: Markup) -> dict[str, Any]:
    rows = [
        {
            "name": wording.row_name(point),
            "worth": point.utility.value,
            "got": point.leak.value,
            "utility": wording.interval(point.utility),
            "leak": wording.interval(point.leak),
            "attack": wording.attack_name(point.attack),
            "place": point.place
            + (f" than {', '.join(wording.row_name(front.points[at]) for at in point.worse_than)}" if point.worse_than else ""),
        }
        for point in front.points
    ]
    metric = wording.metric_name(front.metric)
    return {
        "name": f"{front.family.capitalize()}, {metric}",
        "metric": metric,
        "rows": rows,
        "svg": svg,
        "text": f"{front.family.capitalize()}: what each row is worth against what the strongest attack gets. "
        + "; ".join(f"{row['name']}: {row['utility']}, {row['leak']}, {row['place']}" for row in rows)
        + ".",
        "sentences": _front_in_words(front),
    }


def _front_in_words(front: Front) -> list[str]:
    by_place: dict[str, list[str]] = {}
    for point in front.points:
        by_place.setdefault(point.place, []).append(wording.row_name(point))
    return [f"{place[0].upper()}{place[1:]}: {'; '.join(names)}." for place, names in by_place.items()]


def alarms(result: ComparisonResult) -> list[str]:
    """What failed or was not finished, in short; the whole of it stands at the end of the page."""
    attacks = sum(attack.status == "failed" for run in result.runs for attack in run.attacks)
    said = []
    if result.failures:
        said.append(
            f"{len(result.failures)} models or audits failed or are not finished, such as {result.failures[0].rstrip('.')}"
        )
    if attacks:
        said.append(f"{attacks} attacks failed; their figures are missing, which makes no model safe")
    return said


def verdict_of(text: str) -> dict[str, str]:
    """How a verdict looks, and where it is defined."""
    word = next((word for word in (*VERDICTS, "failed", "not applicable") if text.startswith(word)), "")
    if not word:
        word = "failed" if "failed" in text else "not applicable" if "not applicable" in text else ""
    look = "failed" if word == "failed" else LOOKS.get(word, "")
    place = f"verdict-{re.sub('[^a-z]+', '-', word)}" if word else ""
    return {"place": place, "look": look, "meaning": VERDICTS.get(word, word)}


def compact(result: ComparisonResult) -> dict[str, Any]:
    """All attacks under all budgets and baselines."""
    columns = [wording.row_name(item) for item in result.summary]
    rows = []
    for attack in strongest_first(result):
        about = wording.about(result, attack)
        metric, chance = ("", None) if about is None else speaks_of_members(about)
        name = f"{attack}/{metric}"
        cells = []
        for item, column in zip(result.summary, columns, strict=True):
            measure = wording.find(item, name)
            known = measure is not None and measure.value is not None
            permitted = item.permitted.get(name)
            cells.append(
                {
                    "label": column,
                    "value": "–" if measure is None else wording.number(measure.value),
                    "ends": _ends(measure),
                    "sort": measure.value if measure is not None and known else "",
                    "verdict": item.verdicts.get(attack, ""),
                    "permitted": "" if permitted is None else up(permitted, 3),
                }
            )
        rows.append(
            {
                "name": wording.attack_name(attack),
                "metric": wording.metric_name(metric) if metric else "no figure",
                "chance": "" if chance is None else f"{chance:.3g}",
                "cells": cells,
            }
        )
    return {"columns": columns, "rows": rows}


def _ends(measure: Measure | None) -> str:
    if measure is None or measure.value is None or measure.low is None or measure.high is None:
        return ""
    return f"[{wording.number(measure.low)}, {wording.number(measure.high)}]"


def plans(result: ComparisonResult) -> dict[str, Any]:
    """What each budget's ε follows from, of its first seed; left out what no plan states."""
    found: dict[float, dict[str, Any]] = {}
    for run in result.runs:
        if run.variant == "dp" and run.plan:
            found.setdefault(run.epsilon, run.plan)
    names = [name for name in PLAN if any(plan.get(name) is not None for plan in found.values())]
    rows = [(f"ε = {wording.budget(epsilon)}", [_fact(plan.get(name)) for name in names]) for epsilon, plan in found.items()]
    return {"columns": [PLAN[name] for name in names], "rows": rows}


def _fact(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else str(value).replace("_", " ")


def _in_words(result: ComparisonResult, name: str) -> str:
    """A panel in words, for who cannot see it."""
    of = [(item, wording.find(item, name)) for item in result.summary]
    return (
        f"{wording.measure_name(name)}. "
        + "; ".join(f"{wording.row_name(item)}: {wording.interval(found)}" for item, found in of)
        + "."
    )


def worth(result: ComparisonResult) -> dict[str, Any]:
    """What the models are worth; a table of its own where that takes more than one figure."""
    names, drawn = wording.utility_names(result), figures.calibration(result)
    return {
        "columns": [wording.metric_name(name) for name in names] or ["test accuracy"],
        "rows": [
            (wording.row_name(item), [wording.interval(wording.find(item, name)) for name in names]) for item in result.summary
        ],
        "beside": [f"{wording.metric_name(item.name)}: {wording.interval(item)}" for item in result.baselines],
        "unit": wording.unit_of_value(result),
        "calibration": None if drawn is None else Markup(figures.as_svg(drawn, "calibration")),
    }


def table(result: ComparisonResult, attack: str) -> dict[str, Any]:
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
        "verdicts": ", ".join(dict.fromkeys(row["verdict"] for row in rows if row["verdict"] != "–")),
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


def beside(result: ComparisonResult) -> list[dict[str, Any]]:
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


def exposed(result: ComparisonResult, place: str) -> dict[str, Any] | None:
    """How the leak is spread over examples; where the examples are is said, and they are not here."""
    rows = [{"name": wording.row_name(item), "exposure": item.exposure} for item in result.summary if item.exposure is not None]
    if not rows:
        return None
    figure = figures.exposure(result)
    return {
        "rows": rows,
        "svg": Markup(figures.as_svg(figure, "exposure")),
        "text": wording.exposure_in_words(result),
        "place": place,
    }


def is_of_no_member(label: str) -> bool:
    """Whether a row of pictures shows no single member. Those that do (a member's face, the one unknown example, the known one
    next to it), and those of which nobody says what they are, are on no page that may be handed on."""
    words = label.replace("-\n", "").replace("\n", " ")
    return words.startswith(("class mean", "reconstruction", "one draw", "public", "nearest public"))


def pictures(result: ComparisonResult, root: Path) -> tuple[list[dict[str, Any]], str]:
    """Reconstructions of the first seed of every budget, the answer's attack first, and how many there was no room for."""
    shown: list[dict[str, Any]] = []
    seen: set[tuple[Kind, str]] = set()
    classes = [str(name) for name in result.data.get("classes", [])]
    used = left_out = 0
    for name in strongest_first(result):
        for run in result.runs:
            attack = next((one for one in run.attacks if one.name == name and one.figures), None)
            if attack is None or (run.kind, name) in seen:
                continue
            seen.add((run.kind, name))
            if used > PICTURES:
                left_out += 1
                continue
            arrays = figures.load_pictures(root, run, attack)
            title = f"{wording.attack_name(name)}, {run.label}"
            count = 0 if arrays is None else len(next(iter(arrays.values())))
            if count > figures.MOST_CLASSES:
                title += f" (the first {figures.MOST_CLASSES} of {count} classes)"
            strips = {label: figures.strip_uri(array) for label, array in (arrays or {}).items() if is_of_no_member(label)}
            used += sum(map(len, strips.values()))
            heads = [*classes, *(str(index) for index in range(len(classes), count))][: min(count, figures.MOST_CLASSES)]
            shown.append(
                {
                    "attack": name,
                    "title": title,
                    "identified": wording.number(attack.value, 2),
                    "open": not shown or name == shown[0]["attack"],
                    "heads": [head[: figures.LONGEST_NAME] for head in heads],
                    "rows": [(label.replace("-\n", "").replace("\n", " "), uri) for label, uri in strips.items()],
                    "small": max(next(iter((arrays or {"": np.zeros((1, 1, 1))}).values())).shape[1:3]) < SMALL,
                }
            )
    said = f"{left_out} further pictures are left out, to keep this page small; TensorBoard has all." if left_out else ""
    return shown, said


def audits(result: ComparisonResult) -> list[dict[str, Any]]:
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


def guarantees(result: ComparisonResult) -> list[dict[str, Any]]:
    """One statement a budget, from its first seed."""
    shown: dict[tuple[str, float], dict[str, Any]] = {}
    for run in result.runs:
        if run.guarantee is not None and run.variant == "dp":
            shown.setdefault((run.variant, run.epsilon), {"epsilon": run.epsilon, "guarantee": run.guarantee})
    chosen = None if result.headline is None else result.headline.chosen
    return [{**item, "open": chosen is None or item["epsilon"] == chosen.epsilon} for item in shown.values()]
