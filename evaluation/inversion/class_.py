"""Class inversion, MI-Face (Fredrikson, Jha, Ristenpart 2015, "Model Inversion Attacks that Exploit Confidence
Information and Basic Countermeasures").

For each class y, gradient descent on the input x within its public bounds:

    c(x) = 1 − f_y(x),        x ← clip(x − λ v),        v ← μ v + (1 − μ) (∇c/‖∇c‖ + τ ∇TV/‖∇TV‖)

It stops when the cost has not fallen for ``patience`` steps, or is at most ``enough``, or after ``steps``; the best x seen
is kept (the paper's Algorithm 1; the cost must *fall* to count as progress). Several starting points are tried, and the
one for which the *target* is most confident is kept: the judge of the reconstruction has no part in choosing it.

The gradient is normalised to unit length a class, so that one λ fits every model. The paper's step has μ = τ = 0. Momentum μ
evens out what single steps do. Of pictures it is known that neighbouring pixels are mostly alike, which needs no example: the
total variation TV(x) = mean √(∂x² + ∂y² + ε²) (Rudin, Osher, Fatemi 1992, "Nonlinear total variation based noise removal
algorithms") takes part in the descent with weight τ, and every few steps the picture is blurred (the paper's Process-DENOISE,
which it used for its autoencoder). Both are left out where an input is no picture, or one of fewer than 16×16 pixels.

The settings were chosen on the *public* people of the data set ``faces``, attacked in models of their own and judged by an
evaluator of their own, and on no private person.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from evaluation.access import Access
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.inversion.pictures import LEAST_SIDE, blurred, variation_gradient
from evaluation.target import Target


@dataclass(frozen=True, kw_only=True)
class ClassInversion:
    """One reconstruction a class from the target's scores and their derivatives."""

    access: ClassVar[Access] = Access.GRADIENTS
    paper: ClassVar[str] = "Fredrikson et al. 2015"

    steps: int = 300
    restarts: int = 4
    step_size: float = 0.1
    """λ as a share of the input's range, times the square root of the number of inputs over eight."""
    patience: int = 50
    enough: float = 0.001
    momentum: float = 0.9
    """μ."""
    total_variation: float = 0.5
    """τ: the part of a step that smooths a picture, in lengths of the part that follows the target."""
    blur: float = 0.7
    """Standard deviation, in pixels, of the Gaussian with which a picture is blurred every ``blur_every`` steps."""
    blur_every: int = 10

    def run(self, target: Target, knowledge: ClassKnowledge, generator: torch.Generator) -> Tensor:
        """Reconstructions ``[classes, *input_shape]``.

        Args:
            knowledge: only the shape of an input is used.
            generator: draws the starting points; the first one is the middle of the range.
        """
        low, high = target.bounds
        input_shape = knowledge.input_shape
        best = torch.full((target.classes, *input_shape), (low + high) / 2)
        best_cost = torch.full((target.classes,), torch.inf)
        for restart in range(self.restarts):
            start = torch.full((target.classes, *input_shape), (low + high) / 2)
            if restart:
                start += 0.2 * (high - low) * (torch.rand(start.shape, generator=generator) - 0.5)
            found, cost = self._descend(target, start)
            better = cost < best_cost
            best[better], best_cost[better] = found[better], cost[better]
        return best

    def _descend(self, target: Target, start: Tensor) -> tuple[Tensor, Tensor]:
        classes = torch.arange(len(start))
        low, high = target.bounds
        length = self.step_size * (high - low) * start[0].numel() ** 0.5 / 8
        smooth = start.dim() == 4 and min(start.shape[2:]) >= LEAST_SIDE

        def confidence(logits: Tensor) -> Tensor:
            return torch.log_softmax(logits, 1)[classes, classes]

        current, best = start.clone(), start.clone()
        best_cost = torch.full((len(start),), torch.inf)
        waited = torch.zeros(len(start), dtype=torch.long)
        velocity = torch.zeros_like(start)
        for step in range(1, self.steps + 1):
            # ∇c = −f_y ∇ log f_y points the same way as −∇ log f_y, and does not vanish where f_y is close to 0 or 1.
            gradient, log_score = target.gradient(current, confidence)
            cost = 1 - log_score.exp()
            fell = cost < best_cost
            best[fell], best_cost[fell] = current[fell], cost[fell]
            waited = torch.where(fell, torch.zeros_like(waited), waited + 1)
            going = (waited < self.patience) & (best_cost > self.enough)
            if not bool(going.any()):
                break
            direction = of_length_one(gradient)
            if smooth and self.total_variation:
                direction -= self.total_variation * of_length_one(variation_gradient(current / (high - low)))
            velocity = self.momentum * velocity + (1 - self.momentum) * direction
            moved = current + length * velocity
            if smooth and self.blur and step % self.blur_every == 0:
                moved = blurred(moved, self.blur)
            current = torch.where(going.view(-1, *[1] * (start.dim() - 1)), moved.clamp(low, high), current)
        return best, best_cost


def of_length_one(gradient: Tensor) -> Tensor:
    """Each example's gradient divided by its norm."""
    norm = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
    return gradient / norm.view(-1, *[1] * (gradient.dim() - 1))
