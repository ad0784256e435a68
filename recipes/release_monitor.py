"""Thresholds of a monitor that may be published with a model: made from public examples alone.

    thresholds = of_public(released, comparison)        # None where there is too little that is public

What a monitor is calibrated on shows in its thresholds, without noise. Held-out examples are private as members are, so benign
sessions are made from the examples that the recipe calls public (``data.split.public``) and from what the published model
answers to them: whoever holds the folder could make the same file.

A third of the public examples is left out, and sessions made of those are played to the thresholds. The file says how many of
them raised an alert, and no rate beyond that: a few hundred examples that are drawn again and again carry none. ``LEAST`` is
where that was measured to hold on digits (multilayer perceptrons of five seeds, thresholds from n examples, 300 sessions of 600
others each, so 1,500 in all): 0.2% of the sessions raised an alert with n = 300, 0.3% with 200, and 1.8% with 150. Whoever runs
a server calibrates better on its own traffic, and keeps that file to themselves.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import dptrain.data
from dptrain.checkpoint import unpack_json
from dptrain.data.split import load as load_split
from dptrain.errors import UserError
from dptrain.release.checks import Released
from dptrain.release.monitor import Thresholds
from dptrain.release.monitor.sketch import sketched
from dptrain.trainer import commitment_of
from evaluation.access import Access
from evaluation.target import Target, kind_of
from recipes.thresholds import answers_of, of_examples

if TYPE_CHECKING:
    from recipes.comparison import Comparison

LEAST = 450
"""Distinct public examples, of which two thirds are calibrated on."""
NONE = f"""\
No monitor.json: it is made for classifiers, from at least {LEAST} distinct examples that the recipe calls public
(data.split.public), where sessions of those left out raise no more alerts than aimed at. From held-out examples, for yourself:
  dptrain serve thresholds RUN                                 # writes monitor.json, which is not to be published
or, better, from recorded traffic, a list of dptrain.release.monitor.Session(inputs, labels, margins), one a client:
  thresholds = dptrain.release.monitor.calibrate(sessions)
  Path("monitor.json").write_text(json.dumps(thresholds.to_json()))
Give it to the server by `dptrain serve FOLDER --thresholds monitor.json`."""


def of_public(released: Released, comparison: "Comparison") -> Thresholds | None:
    """Thresholds from public examples; None where the model is no classifier of single inputs, the data are not those that it
    was trained on, too few are public, or more sessions of those left out raise an alert than was aimed at."""
    try:
        data = dptrain.data.load(comparison.recipe.data)
        split = load_split(released.run / "private" / "split.npz")
    except (UserError, OSError):  # the data may have been taken away; the model is what is released
        return None
    if data.graph is not None or kind_of(data.targets) != "classification":
        return None
    if released.card.get("data", {}).get("commitment") != commitment_of(data, split):
        return None
    public = data.inputs[torch.from_numpy(split.public)].numpy()
    if len(np.unique(sketched(public, 0).digests)) < LEAST:
        return None
    try:
        thresholds = of_examples(public, answers_of(Target.open(released.run / "release", Access.SCORES)), len(data.classes))
    except UserError:
        return None
    assert thresholds.left_out is not None
    return thresholds if thresholds.left_out.share <= thresholds.false_alarm_rate else None


def said_of(path: Path) -> str:
    """What the owner is told of a published folder's ``monitor.json``, or of there being none."""
    if not path.exists():
        return NONE
    return f"{path.name}: {Thresholds.from_json(unpack_json(path.read_bytes(), path)).statement()}"
