"""Thresholds of a monitor that may be published with a model: made from public examples alone.

    thresholds = of_public(released, comparison)        # None where there is too little that is public

What a monitor is calibrated on shows in its thresholds, without noise. Held-out examples are private as members are, so benign
sessions are made from the examples that the recipe calls public (``data.split.public``) and from what the published model
answers to them: whoever holds the folder could make the same file. Fewer examples are asked for again sooner, so that what
speaks of near-duplicates is set higher than on many; whoever runs a server calibrates better on its own traffic, and keeps that
file to themselves.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

import dptrain.data
from dptrain.data.split import load as load_split
from dptrain.errors import UserError
from dptrain.release.checks import Released
from dptrain.release.monitor import Thresholds, benign_sessions, calibrate
from dptrain.trainer import commitment_of
from evaluation.access import Access
from evaluation.target import Target, kind_of

if TYPE_CHECKING:
    from recipes.comparison import Comparison

SESSIONS = 600
"""Enough for a false alarm rate of 1% at 95% confidence, those that are fitted on among them (:func:`calibrate`)."""
NONE = (
    "No monitor.json: it is made for classifiers, from at least 30 examples that the recipe calls public (data.split.public). "
    "A server can calibrate its monitor on its own traffic."
)


def of_public(released: Released, comparison: "Comparison") -> Thresholds | None:
    """Thresholds from public examples; None where the model is no classifier of single inputs, the data are not those that it
    was trained on, or too few are public."""
    try:
        data = dptrain.data.load(comparison.recipe.data)
        split = load_split(released.run / "private" / "split.npz")
    except (UserError, OSError):  # the data may have been taken away; the model is what is released
        return None
    if data.graph is not None or kind_of(data.targets) != "classification":
        return None
    if released.card.get("data", {}).get("commitment") != commitment_of(data, split):
        return None
    target = Target.open(released.run / "release", Access.SCORES)

    def answer(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = np.sort(found := target.scores(torch.from_numpy(inputs)), axis=1)
        return found.argmax(1), scores[:, -1] - scores[:, -2]

    public = data.inputs[torch.from_numpy(split.public)].numpy()
    try:
        sessions = benign_sessions(public, answer, SESSIONS, np.random.default_rng(0))
        return calibrate(sessions, classes=len(data.classes))
    except UserError:
        return None
