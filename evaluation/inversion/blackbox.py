"""Class inversion through rounded scores alone: a search without gradients.

The smoothed margin of :mod:`~evaluation.inversion.prior` has a gradient that needs no derivative of the model. For any
score s of the input, natural evolution strategies (Wierstra et al. 2014; Ilyas, Engstrom, Athalye, Lin 2018, "Black-box
Adversarial Attacks with Limited Queries and Information") estimate

    ∇_m E_ε[ s(g(m + σ ε)) ]  =  E_ε[ (s(g(m + σ ε)) − s̄) ε ] / σ,        ε ~ N(0, I) in whitened latent coordinates,

and the expectation has a gradient where s itself is a staircase: rounding a score to 0.1 hides the slope at one input and
not the share of a wide cloud of faces that is above a step. The cloud is as wide as faces are. The attacker rounds every
score that the target shows to ``decimals``, as a server would that rounds, so that what is found was to be found behind one.

One answer carries the scores of all classes, so that the first cloud, around the mean face, serves every class; where some
class's score never moves there, the next cloud is √2 times as wide. Then each class has a cloud of its own around its mean
m, and all estimates of a class are summed. What is spent is counted: at most ``budget`` queries, all classes together.

The step is that of the temper t of :mod:`~evaluation.inversion.generators`, which in whitened coordinates multiplies the
slope by S²ᵗ⁻². Every coordinate of an estimate is as noisy as the next while public examples differ little along the last
ones; hence fewer components and a higher temper than where derivatives are known.

The settings were chosen with roles swapped, as in :mod:`~evaluation.inversion.prior`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from evaluation.access import Access
from evaluation.inversion.generators import LinearGenerator, linear
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.target import Target

WIDER = 2**0.5
NO_SLOPE = 1e-9
"""A score of 0.1 more in one of a million queries gives a hundred times as much."""
MOSTLY = 0.95
"""Share of a ball's points in the class from which on the ball grows; exactly all would wait for the noise of N points."""


@dataclass(frozen=True, kw_only=True)
class ScoreInversion:
    """One reconstruction a class from rounded scores, by natural evolution strategies in the latent space of public
    examples."""

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "Ilyas et al. 2018"

    budget: int = 12_000
    """Queries, all classes together."""
    components: int = 120
    temper: float = 0.5
    rounds: int = 8
    """Of clouds around each class's own mean."""
    spread: float = 1.0
    """σ, in units of the public examples' own."""
    first: float = 0.3
    """Share of the budget that goes into clouds that serve all classes."""
    widenings: int = 4
    decimals: int = 1
    """Of a score; what is beyond them is not looked at, unless a guard decides what is shown."""

    def run(self, target: Target, knowledge: ClassKnowledge, generator: torch.Generator) -> Tensor:
        """Reconstructions ``[classes, *input_shape]``.

        Raises:
            DataError: there are fewer than two public examples.
        """
        return climbed(self, target, knowledge, lambda inputs: self._shown(target, inputs), generator, width=self.spread)

    def _shown(self, target: Target, inputs: Tensor) -> Float[Tensor, "inputs classes"]:
        scores = target.scores(inputs)
        return torch.from_numpy(np.round(scores, self.decimals) if target.guard is None else scores)


@runtime_checkable
class Search(Protocol):
    """What a search without gradients is told; queries are of all classes together."""

    @property
    def budget(self) -> int: ...
    @property
    def components(self) -> int: ...
    @property
    def temper(self) -> float: ...
    @property
    def rounds(self) -> int: ...
    @property
    def first(self) -> float: ...
    @property
    def widenings(self) -> int: ...


def climbed(
    search: Search,
    target: Target,
    knowledge: ClassKnowledge,
    answers: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    *,
    width: float,
    growth: float = 1.0,
) -> Tensor:
    """One reconstruction a class, ``[classes, *input_shape]``: first from clouds that serve all, then each from its own.

    Args:
        answers: inputs to ``[inputs, classes]``, each class's score or whether it was answered.
        width: of a cloud at first, in units of the public examples' own spread.
        growth: of a class's cloud where nearly all of it (:data:`MOSTLY`) is in the class.

    Raises:
        DataError: there are fewer than two public examples.
    """
    prior = linear(knowledge.public, knowledge.public_groups, components=search.components, temper=1.0)
    count = int(search.budget * search.first) // (search.widenings + 1) // 2 * 2
    slope = slope_at_the_mean(prior, answers, target, count, width, search.widenings, generator)
    means = stepped(prior, slope, search.temper)
    each = int(search.budget * (1 - search.first)) // (search.rounds * target.classes) // 2 * 2
    wanted = torch.arange(target.classes)
    widths = torch.full((target.classes, 1, 1), width)
    for _ in range(search.rounds if each else 0):
        half = torch.randn(target.classes, each // 2, means.shape[1], generator=generator)
        noise = torch.cat([half, -half], 1)
        inputs = prior.decode((means[:, None] + widths * noise).flatten(0, 1)).clamp(*target.bounds)
        own = answers(inputs).view(target.classes, each, -1)[wanted, :, wanted]
        share = own.mean(1, keepdim=True)
        slope += unit(((own - share).float()[..., None] * noise).mean(1))
        means = stepped(prior, slope, search.temper)
        widths = torch.where((share > MOSTLY)[..., None], widths * growth, widths)
    return prior.decode(means).clamp(*target.bounds)


def slope_at_the_mean(
    prior: LinearGenerator,
    answers: Callable[[Tensor], Tensor],
    target: Target,
    count: int,
    spread: float,
    widenings: int,
    generator: torch.Generator,
) -> Float[Tensor, "classes latent"]:
    """Every class's slope at the mean face, from the same queries: ``count`` a cloud, √2 times as wide where a class has none.

    Args:
        answers: inputs to ``[inputs, classes]``, each class's score or whether it was answered.
        spread: of the first cloud, in units of the public examples' own.
    """
    slope = torch.zeros(target.classes, len(prior.spread))
    for _ in range(widenings + 1):
        half = torch.randn(count // 2, len(prior.spread), generator=generator)
        noise = torch.cat([half, -half])
        shown = answers(prior.decode(spread * noise).clamp(*target.bounds))
        slope += unit((shown - shown.mean(0)).float().T @ noise / count)
        if bool((slope.norm(dim=1) == 0).any()):
            spread *= WIDER
    return slope


def stepped(prior: LinearGenerator, slope: Float[Tensor, "classes latent"], temper: float) -> Float[Tensor, "classes latent"]:
    """The step of another temper, on the shell."""
    return prior.on_shell(slope * prior.spread ** (2 * temper - 2))


def unit(slope: Float[Tensor, "classes latent"]) -> Float[Tensor, "classes latent"]:
    """Of length one a class; a class without a slope, beyond what rounding floats makes, keeps none."""
    length = slope.norm(dim=1, keepdim=True)
    return torch.where(length > NO_SLOPE, slope / length.clamp_min(NO_SLOPE), 0.0)
