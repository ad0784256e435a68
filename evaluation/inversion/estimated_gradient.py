"""Class inversion by estimated gradients: what derivatives would show, from differences of shown scores.

:mod:`~evaluation.inversion.prior` follows derivatives of the model, which no server shows. Who sees scores alone can estimate
them: Fredrikson, Jha, Ristenpart 2015, "Model Inversion Attacks that Exploit Confidence Information and Basic
Countermeasures", take the difference of the scores of two inputs that lie close together. Along the principal components vᵢ
of public examples with their standard deviations Sᵢ (:mod:`~evaluation.inversion.generators`), at an input x = g(m),

    ∂ᵢ ≈ [ h_y(x + δ Sᵢ vᵢ) − h_y(x − δ Sᵢ vᵢ) ] / 2δ,        h_y = log s_y − log(1 − s_y),

which for exact scores and small δ is the derivative of the margin that ``inversion.prior`` climbs. The step is its step: of
unit length with momentum on the shell. At the mean face one set of differences serves every class; then each class has a
point of its own. No more than ``budget`` queries are asked, all classes together.

The paper shows that rounding scores stops this: within the distance of the two inputs a rounded score does not change, unless
a step lies between them, and a difference of 0 points nowhere. A class whose differences are all 0 stays at the mean face.
The search of :mod:`~evaluation.inversion.blackbox` asks about a cloud as wide as faces are, and rounding leaves it its slope.

δ is small and not chosen by what it finds; momentum, reach and temper are those of ``inversion.prior``.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from evaluation.access import Access
from evaluation.inversion.blackbox import stepped
from evaluation.inversion.generators import LinearGenerator, linear
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.target import Target

LOWEST = 1e-6
"""A score below it, or above 1 less it, counts as it: odds that are infinite have no difference."""


@dataclass(frozen=True, kw_only=True)
class EstimatedGradient:
    """One reconstruction a class, along differences of the scores of neighbouring inputs."""

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "Fredrikson et al. 2015"

    budget: int = 12_000
    """Queries, all classes together."""
    components: int = 120
    difference: float = 0.01
    """δ, in units of the public examples' own spread along a component."""
    temper: float = 0.1
    reach: float = 1.1
    """Of the shell, in units of a public person's distance from the others."""
    momentum: float = 0.6
    steps: int = 8
    """At most."""

    def run(self, target: Target, knowledge: ClassKnowledge, generator: torch.Generator) -> Tensor:
        """Reconstructions ``[classes, *input_shape]``.

        Args:
            generator: unused; nothing is drawn.

        Raises:
            DataError: there are fewer than two public examples.
        """
        prior = linear(knowledge.public, knowledge.public_groups, components=self.components, temper=1.0)
        direction = self._stepped(prior, self._slope(target, prior, torch.zeros(1, prior.dimensions))[0])
        means = direction
        asked, wanted = 2 * prior.dimensions, torch.arange(target.classes)
        rounds = min(self.steps - 1, max(0, self.budget - asked) // (asked * target.classes))
        for _ in range(rounds):
            slope = self._slope(target, prior, means)[wanted, wanted]
            direction = self.momentum * direction + (1 - self.momentum) * self._stepped(prior, slope)
            means = prior.on_shell(direction)
        return prior.decode(self.reach * means).clamp(*target.bounds)

    def _stepped(self, prior: LinearGenerator, slope: Float[Tensor, "classes latent"]) -> Float[Tensor, "classes latent"]:
        """On the shell; the mean face where no difference was seen."""
        return torch.where(slope.norm(dim=1, keepdim=True) > 0, stepped(prior, slope, self.temper), 0.0)

    def _slope(
        self, target: Target, prior: LinearGenerator, means: Float[Tensor, "points latent"]
    ) -> Float[Tensor, "points classes latent"]:
        """Of every class's margin, along each component, at each point."""
        count, latent = means.shape
        apart = self.difference * torch.eye(latent)
        both = torch.stack([means[:, None] + apart, means[:, None] - apart])
        inputs = prior.decode(both.flatten(0, 2)).clamp(*target.bounds)
        scores = torch.from_numpy(target.scores(inputs)).clamp(LOWEST, 1 - LOWEST)
        above, below = torch.logit(scores).view(2, count, latent, -1)
        return ((above - below) / (2 * self.difference)).float().transpose(1, 2)
