"""How batches are drawn. Each sampler yields indices, and states the event that it realises.

    for indices in sampler_for(plan).batches(units, 0, plan.steps, secret_generator()): ...

The sampling rate is stated in one place, the plan, and only the sampler turns it into an accounting event. A sampler
that no proof of amplification covers states the event of the mechanism without amplification. What is drawn are *units*:
examples, or users where the plan's unit is the user.

* **Poisson**: every unit is in every batch with probability q, independently. Batches vary in size and may be empty;
  an empty batch is a batch (Abadi et al. 2016; Mironov, Talwar, Zhang 2019). Where a unit is read in examples of others as
  well, as a node is by its neighbours, each of them is drawn by a coin of its own: :mod:`dptrain.graph.occurrences`.
* **Truncated Poisson**: the same, and of more than `max_batch_size` a uniform subset is kept, so that memory is bounded (Chua
  et al. 2024, "Scalable DP-SGD: Shuffling vs. Poisson Subsampling"). Truncation lets one example push out another; what
  that costs is proved in :mod:`dptrain.dominating`.
* **Fixed size**: exactly the expected batch size, a uniform subset without replacement. N must be public, so that neighbours
  differ by replacing one (Wang, Balle, Kasiviswanathan 2019; :mod:`dptrain.dominating`).
* **Cyclic Poisson**: each example falls into one of b groups by its own coin, once a draw; step t takes each of group t mod b
  with probability q b. Two uses of an example are at least b steps apart, so that under noise whose strategy matrix
  has b bands they touch disjoint columns, each of norm at most 1 (Choquette-Choo et al. 2023, "(Amplified) Banded Matrix
  Factorization"; independent noise is the case of one band). k steps hold at most ⌈k/b⌉ turns of any group: as many
  Poisson-sampled Gaussians with rate q b.
* **Balls in bins**: in each epoch every example falls into one of b = 1/q batches, independently of all others
  (Chua et al. 2024, "Balls-and-Bins Sampling for DP-SGD"). Each example is used once an epoch, as under shuffling. No
  amplification is claimed: given an example's bins, its presence changes one clipped sum an epoch by at most C, so k
  epochs are k Gaussian mechanisms; the mixture over bins is no worse, since the privacy profile is jointly convex.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from dptrain.errors import PlanError, unknown_name

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from dptrain.plan import PrivacyPlan


@dataclass(frozen=True)
class Sampler(ABC):
    """Draws one batch a step, and knows what that costs."""

    sampling_rate: float
    by_example: ClassVar[bool] = False
    """Whether each example is drawn by coins of its own: neither the other examples nor its place among them have a part.
    Only then may several processes each draw for their own examples."""

    @classmethod
    def of(cls, plan: "PrivacyPlan") -> Self:
        """The sampler with a plan's numbers."""
        return cls(plan.sampling_rate)

    @property
    def takes_all(self) -> bool:
        """Whether every unit is in every batch, by the way it draws: only then does nobody need to know what was drawn."""
        return False

    @abstractmethod
    def batches(self, examples: int, first: int, steps: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """Indices of the batches of steps ``first`` to ``steps - 1``, each sorted and possibly empty.

        Args:
            examples: the private number of units.
            generator: a secret source of randomness; the amplification rests on the attacker not knowing the batches.
        """

    @abstractmethod
    def event(self, mechanism: "DpEvent", steps: int, first: int = 0) -> "DpEvent":
        """What the batches of steps ``first`` to ``steps - 1``, drawn in one go, release through ``mechanism``."""


@dataclass(frozen=True)
class PoissonSampler(Sampler):
    """Every example in every batch with probability q, independently."""

    by_example = True
    occurrences: int = 0
    """In how many examples of others a unit is read, at most."""

    @classmethod
    def of(cls, plan: "PrivacyPlan") -> Self:
        return cls(plan.sampling_rate, plan.occurrences)

    @property
    def takes_all(self) -> bool:
        return self.sampling_rate == 1

    def batches(self, examples: int, first: int, steps: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
        for _ in range(first, steps):
            yield np.flatnonzero(generator.random(examples) < self.sampling_rate)

    def event(self, mechanism: "DpEvent", steps: int, first: int = 0) -> "DpEvent":
        from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent

        from dptrain.graph.occurrences import OccurrencesDpEvent

        if not self.occurrences:
            return SelfComposedDpEvent(PoissonSampledDpEvent(self.sampling_rate, mechanism), steps - first)
        if not isinstance(mechanism, GaussianDpEvent):
            raise PlanError(f"units that others read are proved for Gaussian noise alone, not for {mechanism}")
        step = OccurrencesDpEvent(self.sampling_rate, self.occurrences, mechanism.noise_multiplier)
        return SelfComposedDpEvent(step, steps - first)


@dataclass(frozen=True)
class TruncatedPoissonSampler(Sampler):
    """Poisson, with at most ``max_batch_size`` kept, for up to ``max_examples`` examples."""

    max_batch_size: int
    max_examples: int

    @classmethod
    def of(cls, plan: "PrivacyPlan") -> Self:
        return cls(plan.sampling_rate, _given(plan.max_batch_size), _given(plan.max_examples))

    def batches(self, examples: int, first: int, steps: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
        if examples > self.max_examples:
            raise PlanError(f"there are more examples than max_examples = {self.max_examples}, for which ε is stated")
        for _ in range(first, steps):
            drawn = np.flatnonzero(generator.random(examples) < self.sampling_rate)
            if len(drawn) > self.max_batch_size:
                drawn = np.sort(generator.choice(drawn, self.max_batch_size, replace=False, shuffle=False))
            yield drawn

    def event(self, mechanism: "DpEvent", steps: int, first: int = 0) -> "DpEvent":
        from dp_accounting import GaussianDpEvent, SelfComposedDpEvent

        from dptrain.dominating import TruncatedPoissonDpEvent

        if not isinstance(mechanism, GaussianDpEvent):
            raise PlanError(f"truncated Poisson batches are proved for Gaussian noise alone, not for {mechanism}")
        step = TruncatedPoissonDpEvent(self.sampling_rate, self.max_batch_size, self.max_examples, mechanism.noise_multiplier)
        return SelfComposedDpEvent(step, steps - first)


@dataclass(frozen=True)
class FixedSizeSampler(Sampler):
    """Always ``batch_size`` of exactly ``examples``, without replacement."""

    batch_size: int
    examples: int

    @classmethod
    def of(cls, plan: "PrivacyPlan") -> Self:
        return cls(plan.sampling_rate, round(plan.expected_batch_size), _given(plan.max_examples))

    @property
    def takes_all(self) -> bool:
        return self.batch_size == self.examples

    def batches(self, examples: int, first: int, steps: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
        if examples != self.examples:
            raise PlanError(f"there are not exactly max_examples = {self.examples} examples, for which ε is stated")
        for _ in range(first, steps):
            yield np.sort(generator.choice(examples, self.batch_size, replace=False, shuffle=False))

    def event(self, mechanism: "DpEvent", steps: int, first: int = 0) -> "DpEvent":
        from dp_accounting import SampledWithoutReplacementDpEvent, SelfComposedDpEvent

        step = SampledWithoutReplacementDpEvent(self.examples, self.batch_size, mechanism)
        return SelfComposedDpEvent(step, steps - first)


@dataclass(frozen=True)
class CyclicPoissonSampler(Sampler):
    """One of ``bands`` groups a step, in turn, and of its examples a Poisson sample."""

    by_example = True

    bands: int

    @classmethod
    def of(cls, plan: "PrivacyPlan") -> Self:
        return cls(plan.sampling_rate, plan.bands)

    def __post_init__(self) -> None:
        if self.sampling_rate * self.bands > 1 + 1e-12:
            raise PlanError(
                f"sampling_rate is {self.sampling_rate:g} with {self.bands} bands, and an example has its turn in one step "
                f"out of {self.bands}; give at most 1/{self.bands} = {1 / self.bands!r}"
            )

    @property
    def rate_in_turn(self) -> float:
        """With which probability an example is drawn when its group has its turn."""
        return min(1.0, self.sampling_rate * self.bands)

    def batches(self, examples: int, first: int, steps: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
        group_of = generator.integers(self.bands, size=examples)
        for step in range(first, steps):
            members = np.flatnonzero(group_of == step % self.bands)
            yield members[generator.random(len(members)) < self.rate_in_turn]

    def event(self, mechanism: "DpEvent", steps: int, first: int = 0) -> "DpEvent":
        from dp_accounting import PoissonSampledDpEvent, SelfComposedDpEvent

        # Whoever starts anywhere draws new groups: the group whose turn comes first has the most turns.
        turns = math.ceil((steps - first) / self.bands)
        return SelfComposedDpEvent(PoissonSampledDpEvent(self.rate_in_turn, mechanism), turns)


@dataclass(frozen=True)
class BallsInBinsSampler(Sampler):
    """Every example in one random batch an epoch; no amplification claimed."""

    by_example = True

    def __post_init__(self) -> None:
        if abs(self.bins * self.sampling_rate - 1) > 1e-9:
            raise PlanError(
                f"sampling_rate is {self.sampling_rate:g} with balls_in_bins, which needs a whole number of batches an "
                f"epoch; give 1/{self.bins} = {1 / self.bins!r}"
            )

    @property
    def bins(self) -> int:
        """Batches an epoch."""
        return max(1, round(1 / self.sampling_rate))

    @property
    def takes_all(self) -> bool:
        return self.bins == 1

    def batches(self, examples: int, first: int, steps: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
        bin_of = np.empty(0, dtype=np.int64)
        for step in range(first, steps):
            if step == first or step % self.bins == 0:
                bin_of = generator.integers(self.bins, size=examples)
            yield np.flatnonzero(bin_of == step % self.bins)

    def event(self, mechanism: "DpEvent", steps: int, first: int = 0) -> "DpEvent":
        from dp_accounting import SelfComposedDpEvent

        # Whoever starts in the middle of an epoch draws new bins: the epoch counts once before and once after.
        epochs = math.ceil(steps / self.bins) - first // self.bins if steps > first else 0
        return SelfComposedDpEvent(mechanism, epochs)


SAMPLERS: dict[str, type[Sampler]] = {
    "poisson": PoissonSampler,
    "truncated_poisson": TruncatedPoissonSampler,
    "fixed_size": FixedSizeSampler,
    "cyclic_poisson": CyclicPoissonSampler,
    "balls_in_bins": BallsInBinsSampler,
}


def sampler_for(plan: "PrivacyPlan") -> Sampler:
    """The sampler that a plan names.

    Raises:
        PlanError: no such sampler, or one that cannot realise the plan's sampling rate.
    """
    if plan.sampling not in SAMPLERS:
        raise unknown_name("sampling", plan.sampling, SAMPLERS, PlanError)
    return SAMPLERS[plan.sampling].of(plan)


def _given(number: int | None) -> int:
    assert number is not None  # the plan has checked that it is there
    return number
