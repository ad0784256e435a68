"""The page that is not to be shared: which members leak, with the members themselves.

    write(result, Path("runs/digits"))        # runs/digits/private/vulnerable.html, or nothing where no run kept examples

``report.html`` is made to be handed on; this page is a file of its own, in a folder that is marked private and readable by
its owner alone, so that no switch has to be remembered before the report is sent. It shows the first seed of every budget
that has examples: pictures, the rows of a table, or, of other data, their index. Everything on it was computed and kept when
the checkpoint was attacked (``evaluation.membership.gallery``); the data need not be at hand.
"""

import math
from pathlib import Path
from typing import Any

from dptrain.errors import CheckpointError
from dptrain.files import write_file
from evaluation.membership import gallery
from evaluation.membership.gallery import Gallery, Group
from evaluation.report import figures, html, wording
from evaluation.result import ComparisonResult, RunResult, Summary

TEMPLATE = "private.html.jinja"
PICTURE_BYTES = 1_200_000
"""All pictures of a page together, at most: it stays under 2 MB whatever the data are."""
GROUPS: dict[Group, str] = {
    "most": "The most exposed members",
    "random": "Control: members drawn at random",
    "least": "Control: the least exposed members",
}


def write(result: ComparisonResult, root: Path) -> Path | None:
    """Writes the page where a run kept examples, and otherwise removes an earlier one; its place, where there is one."""
    text = render(result, root)
    if text is None:
        (root / html.PRIVATE).unlink(missing_ok=True)
        return None
    write_file(root / html.PRIVATE, text.encode(), mode=0o600)
    return root / html.PRIVATE


def render(result: ComparisonResult, root: Path) -> str | None:
    """None where no run kept examples. One that did not, among others that did, is said to have none, and why."""
    found = [(item, *_kept(result, root, item)) for item in result.summary if item.exposure is not None]
    kept = [one for _, _, one, _ in found if one is not None]
    if not kept:
        return None
    pixels = sum(len(one.group) * one.pictures.shape[3] for one in kept if one.pictures is not None)
    side = max(math.isqrt(int(0.75 * PICTURE_BYTES / max(pixels, 1))), 8)
    return html.fill(
        TEMPLATE,
        result=result,
        svg=html.as_markup(figures.exposure(result), "exposure"),
        text=wording.exposure_in_words(result),
        budgets=[_budget(*one, side) for one in found],
    )


def _kept(result: ComparisonResult, root: Path, item: Summary) -> tuple[RunResult, Gallery | None, str]:
    """The first seed of a budget that kept its examples; where none did, why the first one has none."""
    runs = [run for run in result.runs if (run.variant, run.epsilon) == (item.variant, item.epsilon)]
    reasons: list[str] = []
    for run in runs:
        path = root / run.label / "private" / gallery.name_of(run.step)
        try:
            found = gallery.load(path)
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        if found.release_digest == run.release_digest:
            return run, found, ""
        reasons.append(f"{path} is of other weights than the result; type `dptrain evaluate RUN` to make it again")
    return runs[0], None, reasons[0]


def _budget(item: Summary, run: RunResult, kept: Gallery | None, reason: str, side: int) -> dict[str, Any]:
    return {
        "id": f"{run.variant}-{wording.budget(run.epsilon)}",
        "name": wording.row_name(item),
        "run": run,
        "kept": kept,
        "reason": reason,
        "groups": [] if kept is None else [_group(kept, name, side) for name in GROUPS],
    }


def _group(kept: Gallery, name: Group, side: int) -> dict[str, Any]:
    return {"title": GROUPS[name], "examples": [_example(kept, at, side) for at, of in enumerate(kept.group) if of == name]}


def _example(kept: Gallery, at: int, side: int) -> dict[str, Any]:
    score = float(kept.score[at])
    return {
        "index": int(kept.index[at]),
        "label": kept.label[at],
        "rate": _percents(*kept.rate[at].tolist()),
        "auc": "{:.2f} [{:.2f}, {:.2f}]".format(*kept.auc[at].tolist()),
        "score": f"{score:+.2f}" if math.isfinite(score) else "–",
        "flagged": bool(kept.is_flagged[at]),
        "models": f"{int(kept.models_in[at])} with, {int(kept.models_out[at])} without",
        "picture": figures.picture_uri(kept.pictures[at], side) if kept.pictures is not None else "",
        "cells": kept.cells[at] if kept.columns else (),
    }


def _percents(value: float, low: float, high: float) -> str:
    """``8.5% [2.9, 20]``: two digits where there are two."""
    shown = [f"{100 * share:.1f}" if share < 0.0995 else f"{100 * share:.0f}" for share in (value, low, high)]
    return f"{shown[0]}% [{shown[1]}, {shown[2]}]"
