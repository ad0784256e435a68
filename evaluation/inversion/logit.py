"""Class inversion through logits (Nguyen, Chandrasegaran, Abdollahzadeh, Cheung 2023, "Re-thinking Model Inversion Attacks
Against Deep Neural Networks"): a score close to 1 can still mean a picture that merely speaks against all other classes.

    x ← clip(x − λ v),        v ← μ v + (1 − μ) (−∇z_y/‖∇z_y‖ + τ ∇TV/‖∇TV‖)

with z_y the class's output before the softmax and TV as in :mod:`~evaluation.inversion.class_`. A logit has no highest value,
so nothing says that it is high enough: λ falls in a line to 0 over ``steps``, from twice ``reach`` over ``steps``, and the
last x is kept. It starts in the middle of the range and draws nothing at random.

It goes on where MI-Face's cost is flat, such as in models that were trained with labels below 0 smoothed. The settings were
chosen on the public people of the data set ``faces``, in a model of their own and by an evaluator of their own.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from evaluation.access import Access
from evaluation.inversion.class_ import of_length_one
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.inversion.pictures import LEAST_SIDE, variation_gradient
from evaluation.target import Target


@dataclass(frozen=True, kw_only=True)
class LogitInversion:
    """One reconstruction a class from the target's logits and their derivatives."""

    access: ClassVar[Access] = Access.GRADIENTS
    paper: ClassVar[str] = "Nguyen et al. 2023"

    steps: int = 120
    reach: float = 3.0
    """Σλ: how far all steps together can go, as a share of the input's range, times the square root of the number of inputs
    over eight."""
    momentum: float = 0.9
    """μ."""
    total_variation: float = 0.5
    """τ; left out where an input is no picture, or one of fewer than 16×16 pixels."""

    def run(self, target: Target, knowledge: ClassKnowledge, generator: torch.Generator) -> Tensor:
        """Reconstructions ``[classes, *input_shape]``.

        Args:
            knowledge: only the shape of an input is used.
            generator: is left alone.
        """
        del generator
        low, high = target.bounds
        classes, shape = torch.arange(target.classes), knowledge.input_shape
        smooth = len(shape) == 3 and min(shape[1:]) >= LEAST_SIDE and self.total_variation > 0
        current = torch.full((target.classes, *shape), (low + high) / 2)
        longest = 2 * self.reach / self.steps * (high - low) * current[0].numel() ** 0.5 / 8
        velocity = torch.zeros_like(current)
        for step in range(self.steps):
            gradient, _ = target.gradient(current, lambda logits: logits[classes, classes])
            direction = of_length_one(gradient)
            if smooth:
                direction -= self.total_variation * of_length_one(variation_gradient(current / (high - low)))
            velocity = self.momentum * velocity + (1 - self.momentum) * direction
            current = (current + longest * (1 - step / self.steps) * velocity).clamp(low, high)
        return current
