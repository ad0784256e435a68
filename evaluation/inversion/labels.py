"""Class inversion from labels alone, by boundary repulsion (Kahla, Chen, Just, Jia 2022, "Label-Only Model Inversion
Attacks via Boundary Repulsion").

A class is best represented far from the boundary to the others. Around a latent vector m that the target puts into class y,
N points are asked at distance R. With Φ = 0 where the answer is y and −1 elsewhere,

    M = (1/N) Σ Φ(m + R uₙ) uₙ,        uₙ on the unit sphere,

points away from the points in other classes, and m moves along it. When no point at R is in another class, m is further
than R from the boundary, and R grows; so the largest ball that the class holds is approached. Here Φ has its mean over the
N points taken off, which leaves the expectation where it is and lessens its noise; what earlier rounds found stays in the
direction; m is kept on the shell of :mod:`~evaluation.inversion.generators`, and u is drawn as public faces differ.

The first m of each class is the mean of those draws of the prior that the target puts into it; where a class is never seen,
the draws become √2 times as wide. A class that is not seen at all keeps the mean face. The directions sought are those of
:mod:`~evaluation.inversion.blackbox`, with the label in place of the score, and so is the count of queries.

The settings were chosen with roles swapped, as in :mod:`~evaluation.inversion.prior`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from evaluation.access import Access
from evaluation.inversion.blackbox import climbed
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.target import Target


@dataclass(frozen=True, kw_only=True)
class LabelInversion:
    """One reconstruction a class from labels, in the latent space of public examples."""

    access: ClassVar[Access] = Access.LABEL
    paper: ClassVar[str] = "Kahla et al. 2022"

    budget: int = 12_000
    """Queries, all classes together."""
    components: int = 120
    temper: float = 0.5
    rounds: int = 12
    first: float = 0.3
    """Share of the budget that goes into draws that serve all classes."""
    widenings: int = 4
    radius: float = 1.0
    """R at first, in units of a public example's own spread."""
    growth: float = 1.3

    def run(self, target: Target, knowledge: ClassKnowledge, generator: torch.Generator) -> Tensor:
        """Reconstructions ``[classes, *input_shape]``.

        Raises:
            DataError: there are fewer than two public examples.
        """
        return climbed(
            self,
            target,
            knowledge,
            lambda inputs: self._answered(target, inputs),
            generator,
            width=self.radius,
            growth=self.growth,
        )

    def _answered(self, target: Target, inputs: Tensor) -> Float[Tensor, "inputs classes"]:
        """Which class is answered; none where the answer is refused."""
        return (torch.from_numpy(target.labels(inputs))[:, None] == torch.arange(target.classes)).float()
