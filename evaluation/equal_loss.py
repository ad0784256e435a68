"""The non-private twin of a private model, stopped where it is worth as much.

A private model is worse than its non-private twin, and what it does not give away it may simply not have learned. The twin is
trained again, by its own recipe, on the same members and from the same weights, and its bits a character on the held-out
examples are taken after each update. It is stopped at the first update after which they are at most the private model's; of
that update and the one before, the one that is nearer is taken, and of equally near ones the later. The stop is chosen by
utility on examples that neither model was trained on, and no secret has a part in it.
"""

import math
from dataclasses import dataclass

import numpy as np

from dptrain.distillation import released_model
from dptrain.private import PrivateTraining
from dptrain.trainer import build_training
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.target import Target


@dataclass(frozen=True, eq=False)
class Stopped:
    """A twin, and where it was stopped."""

    target: Target
    step: int
    steps: int
    """That it would have taken."""
    bits: float
    """That it needs a character of the held-out examples."""
    aim: float
    """That the private model needs."""

    @property
    def about(self) -> str:
        """Which model it is, in words that can stand behind a figure."""
        return (
            f"its non-private twin at an equal loss (after {self.step} of {self.steps} updates: {self.bits:.3f} bits a "
            f"character, here {self.aim:.3f})"
        )


def stopped_twin(case: Case) -> Stopped | None:
    """The twin of a private language model at its loss; None where the model is not one, the twin's recipe is not known, or the
    twin is lost in training before it is worth as much."""
    if case.twin is None or not case.is_private or case.target.kind != "language":
        return None
    aim, public = bits_per_character(case, case.target), case.split.public
    known = public if case.twin.regularization.needs_public else None
    training = build_training(case.twin, case.data, case.split.members, case.seed, public=known)
    found = _now(case, training, aim)
    batches = training.batches()
    while found.bits > aim and found.step < found.steps:
        before = found
        training.step(next(batches))
        found = _now(case, training, aim)
        if not math.isfinite(found.bits):
            return None
        if found.bits <= aim < before.bits and before.bits - aim < aim - found.bits:
            found = before
            break
    batches.close()
    return found


def _now(case: Case, training: PrivateTraining, aim: float) -> Stopped:
    """The twin as it would be released after the updates that it has taken."""
    assert case.twin is not None
    model = released_model(case.twin, case.data, case.split.public, training, case.seed)
    target = Target(model, Access.WEIGHTS, bounds=case.target.bounds, classes=case.target.classes, kind="language")
    return Stopped(target, training.steps_taken, training.plan.steps, bits_per_character(case, target), aim)


def bits_per_character(case: Case, target: Target) -> float:
    """The mean over the examples that measure utility; NaN of a model that was lost in training."""
    held_out = case.examples(case.split.held_out)
    return float(-target.log_likelihoods(held_out.inputs, held_out.targets).mean() / np.log(2))
