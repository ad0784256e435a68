"""The result as TensorBoard files below a comparison's folder: ``tensorboard --logdir runs/digits``.

* ``tradeoff/``: curves over ε with interval bands on Custom Scalars, pictures on Images, and how to read it all on Text
* one run a model: HParams; figures over training steps, where the recipe keeps several checkpoints; and for the first seed
  the ROC on the PR tab, laid over those of the other budgets (recall stands for the false positive rate, precision for the
  true one)

There are no other runs. First seeds come before others, since TensorBoard has seven colours and hands them out in order.
It switches all runs off where there are more than forty, so training telemetry has a log directory of its own.

Only this view's own event files, told by their suffix, are ever removed; writing twice leaves one set, and models that left
the comparison leave no run behind. A file of another writer is neither read nor touched.
"""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evaluation.report import bought, wording
from evaluation.report.board import curves, pictures, trials, words
from evaluation.report.board.events import Events, own_files
from evaluation.result import ComparisonResult, RunResult


def write(result: ComparisonResult, root: Path) -> None:
    """Writes all of it below ``root``, in place of what this view wrote before."""
    written = {run.save(root / label) for label, run in _runs(result, root)}
    for path in own_files(root):
        if path not in written:
            path.unlink(missing_ok=True)


def _runs(result: ComparisonResult, root: Path) -> Iterator[tuple[str, Events]]:
    """Every run by its folder, in the order in which TensorBoard is to list them."""
    now = time.time()
    first = [run.label for run in pictures.firsts(result).values()]
    ordered = sorted(result.runs, key=lambda run: run.label not in first)
    begun = (now + 0.001 * place for place in itertools.count())
    yield "tradeoff", _tradeoff(result, root, next(begun))
    for run in ordered:
        events = Events(next(begun))
        trials.row(events, result, run)
        if run.label in first:
            _rocs(events, run)
        yield run.label, events


def _tradeoff(result: ComparisonResult, root: Path, begun: float) -> Events:
    events = Events(begun)
    events.text("1 What was found", words.found(result))
    for card, text in words.how_to_read(result).items():
        events.text(f"2 How to read this/{card}", text)
    for exchange in result.exchanges:
        events.text(f"{bought.TITLE}/{exchange.attack}", bought.markdown(exchange))
    for name, texts in wording.secrets_said(result):
        events.text(f"What the models say/{name}", words.said(texts))
    curves.draw(events, result)
    pictures.draw(events, result, root)
    if result.runs:
        trials.columns(events, result)
    return events


def _rocs(events: Events, run: RunResult) -> None:
    """One tag for all runs lays their curves over each other."""
    for attack in run.attacks:
        for kind, curve in (("", attack.curve), (", permitted", attack.permitted_curve)):
            if curve is not None:
                rates = np.array(curve.false_positive_rate), np.array(curve.true_positive_rate)
                events.roc(f"{attack.name}{kind} (read as ROC)", *rates, run.step)
