"""Class inversion by estimated gradients: what derivatives would show, from differences of shown scores.

:mod:`~evaluation.inversion.prior` follows derivatives of the model, which no server shows. Who sees scores alone can estimate
them: Fredrikson, Jha, Ristenpart 2015, "Model Inversion Attacks that Exploit Confidence Information and Basic
Countermeasures", take the difference of the scores of two inputs that lie close together. Along the principal components vᵢ
of public examples with their standard deviations Sᵢ (:mod:`~evaluation.inversion.generators`), at an input x = g(m),

    ∂ᵢ ≈ [ h_y(x + δ Sᵢ vᵢ) − h_y(x − δ Sᵢ vᵢ) ] / 2δ,        h_y = log s_y − log(1 − s_y),

which for exact scores and small δ is the derivative of the margin that ``inversion.prior`` climbs. The step is its step: of
unit length with momentum on the shell. At the mean face one set of differences serves every class; then each class has a
point of its own. No more than ``budget`` queries are asked, all classes together.

At a small δ rounded scores do not change, unless a step lies between the two inputs, and a difference of 0 points nowhere: the
paper shows that rounding stops whoever keeps to a small one. Nobody has to. Where at the mean face fewer than half
(:data:`ENOUGH`) of a class's differences are other than 0, δ is doubled, at most ``doublings`` times and within the budget;
each class keeps the first δ with which half are, or else the one with which most were, and at its own points too. A score that
is shown as 0 counts as a quarter of the least one above it, which is the middle of what is rounded to 0, since log s would
make of that last step the only one that counts. All of it is read off the attacker's own queries.

What that leaves is measured: of the 20 people of ``faces``, on models without privacy, mean of seeds 0 to 2, .90 are recognised
from exact scores, .67 through the guard ``rounded`` (.20 where δ is not doubled), and .32 through ``label_only``; the search of
:mod:`~evaluation.inversion.blackbox` gets .75 through ``rounded`` (``dptrain run faces_guards --epsilons inf
--evaluation.attacks inversion.estimated_gradient inversion.scores --evaluation.guards rounded label_only``). Rounding does not
stop this attack, of which chance is .05; the intervals of .90 and .67 overlap.

δ at first is small, half is half, and neither was chosen by what it finds; momentum, reach and temper are those of
``inversion.prior``.
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
ENOUGH = 0.5
"""Share of the components along which a class's shown scores differ, from which on δ is doubled no more."""


@dataclass(frozen=True, kw_only=True)
class EstimatedGradient:
    """One reconstruction a class, along differences of the scores of neighbouring inputs."""

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "Fredrikson et al. 2015"

    budget: int = 12_000
    """Queries, all classes together."""
    components: int = 120
    difference: float = 0.01
    """δ at first, in units of the public examples' own spread along a component."""
    doublings: int = 8
    """Of δ, at most."""
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
        first = self._first(target, prior)
        means = direction = stepped(prior, first.slope, self.temper)
        each, wanted = 2 * prior.dimensions, torch.arange(target.classes)
        rounds = min(self.steps - 1, max(0, self.budget - first.asked) // (each * target.classes))
        for _ in range(rounds):
            slope = _slope(_shown(target, prior, means, first.apart), first.apart, first.least)[wanted, wanted]
            direction = self.momentum * direction + (1 - self.momentum) * stepped(prior, slope, self.temper)
            means = prior.on_shell(direction)
        return prior.decode(self.reach * means).clamp(*target.bounds)

    def _first(self, target: Target, prior: LinearGenerator) -> "_First":
        """At the mean face, with the same queries for every class."""
        middle, each = torch.zeros(1, prior.dimensions), 2 * prior.dimensions
        slope = torch.zeros(target.classes, prior.dimensions)
        apart, moved = torch.full((target.classes,), self.difference), torch.zeros(target.classes)
        asked, least, tried = 0, LOWEST, self.difference
        for _ in range(self.doublings + 1):
            if asked and asked + each > self.budget:
                break
            shown = _shown(target, prior, middle, torch.tensor([tried]))
            asked += each
            least = max(least, _least(shown)) if asked == each else least
            found = _slope(shown, torch.tensor([tried]), least)[0]
            share = (found != 0).float().mean(1)
            better = (share > moved) & (moved < ENOUGH)
            slope[better], apart[better], moved[better] = found[better], tried, share[better]
            if bool((moved >= ENOUGH).all()):
                break
            tried *= 2
        return _First(slope, apart, least, asked)


@dataclass(frozen=True, eq=False)
class _First:
    """What the queries around the mean face say."""

    slope: Float[Tensor, "classes latent"]
    apart: Float[Tensor, " classes"]
    """δ of each class."""
    least: float
    """A score below it counts as it."""
    asked: int


def _shown(
    target: Target, prior: LinearGenerator, means: Float[Tensor, "points latent"], apart: Float[Tensor, " points"]
) -> Float[Tensor, "2 points latent classes"]:
    """Scores on both sides of each point, along each component."""
    count, latent = means.shape
    steps = apart[:, None, None] * torch.eye(latent)
    both = torch.stack([means[:, None] + steps, means[:, None] - steps])
    inputs = prior.decode(both.flatten(0, 2)).clamp(*target.bounds)
    return torch.from_numpy(target.scores(inputs)).view(2, count, latent, -1)


def _slope(
    shown: Float[Tensor, "2 points latent classes"], apart: Float[Tensor, " points"], least: float
) -> Float[Tensor, "points classes latent"]:
    """Of every class's margin, along each component, at each point."""
    above, below = torch.logit(shown.clamp(least, 1 - least))
    return ((above - below) / (2 * apart[:, None, None])).float().transpose(1, 2)


def _least(shown: Float[Tensor, "2 points latent classes"]) -> float:
    """What a score that is shown as 0 stands for; 0 where none is."""
    if bool((shown > 0).all()):
        return 0.0
    return float(shown[shown > 0].min()) / 4
