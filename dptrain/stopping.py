"""Early stopping on public examples: training ends where their loss has stopped falling.

    stopping = EarlyStopping.of(recipe, data, public, training)
    for batch in training.batches():
        training.step(batch)
        if stopping.reached():
            break

Members and non-members have no part in it: what is stopped by either tells of them. The loss is that of the model as it would
be released, looked at five times within the patience, on at most 4,096 public examples, drawn once.

Under a plan the steps that were taken are charged, and no more: ε is what was spent. That figure is ex post (Ligett, Neel,
Roth, Waggoner, Wu 2017, "Accuracy First"): "stopped after t updates, with these weights" is an event of the first t updates, so
that ε(t) and δ hold for it. But which t it is was chosen by looking; over all t together, δ goes with ε of the whole plan. The
guarantee's statement says both.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from dptrain.data.dataset import DataSet
from dptrain.models import front
from dptrain.private import PrivateTraining
from dptrain.recipe import Recipe

LOOKS = 5
"""Within the patience."""
MOST = 4096
"""Public examples that are looked at. Looks are compared with one another on the same examples, so that more would show little
more, and cost more than the steps between two looks."""
CHUNK = 4096


class EarlyStopping:
    """Says after each step whether training has ended; it never has where the patience is 0.

    Args:
        patience: steps without a lower loss.
        inputs: of the public examples; nothing is asked of them where the patience is 0.
    """

    def __init__(self, training: PrivateTraining, patience: int, inputs: Tensor, targets: Tensor):
        self._training, self._patience = training, patience
        self._inputs, self._targets = inputs, targets
        self.stopped = False
        self._lowest: float | None = None
        self._at = 0
        """The step of the lowest loss."""

    @classmethod
    def of(
        cls, recipe: Recipe, data: DataSet, public: Int[np.ndarray, " public"] | None, training: PrivateTraining
    ) -> "EarlyStopping":
        """As the recipe states it."""
        patience = recipe.regularization.early_stopping
        chosen = torch.from_numpy(looked_at(public) if patience and public is not None else np.empty(0, dtype=np.int64))
        source = front.inputs_of(training.model, data) if len(chosen) else data.inputs
        return cls(training, patience, source[chosen], data.targets[chosen])

    def reached(self) -> bool:
        """Whether training ends here; called after every step."""
        step = self._training.steps_taken
        if self.stopped or not self._patience or step % max(1, self._patience // LOOKS):
            return self.stopped
        loss = self._loss()
        if self._lowest is None or loss < self._lowest:
            self._lowest, self._at = loss, step
        self.stopped = self._training.ranks.any("early stopping", step - self._at >= self._patience)
        return self.stopped

    def _loss(self) -> float:
        with self._training.averaged() as model:
            return public_loss(model, self._inputs, self._targets)

    def state(self) -> dict[str, Any]:
        """Public, for the card, and for :meth:`go_on`."""
        return {"stopped": self.stopped, "lowest_public_loss": self._lowest, "at_step": self._at}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        self.stopped, self._lowest, self._at = state["stopped"], state["lowest_public_loss"], state["at_step"]


def looked_at(public: Int[np.ndarray, " public"]) -> Int[np.ndarray, " some"]:
    """All public examples, or of many the same :data:`MOST` every time: target and shadow models look at the same ones."""
    if len(public) <= MOST:
        return public
    generator = np.random.default_rng(np.random.SeedSequence([*b"early stopping"]))
    return np.sort(generator.choice(public, MOST, replace=False))


@torch.no_grad()
def public_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Mean cross entropy in nats, of the model in evaluation mode; it is left in the mode in which it was."""
    device, was = next(model.parameters()).device, model.training
    model.eval()
    total = 0.0
    for start in range(0, len(inputs), CHUNK):
        logits = model(inputs[start : start + CHUNK].to(device))
        total += float(F.cross_entropy(logits, targets[start : start + CHUNK].to(device), reduction="sum"))
    model.train(was)
    return total / len(inputs)
