"""How batches are drawn. Each sampler yields indices, and states the event that it realises.

The sampling rate is stated in one place, the plan, and only the sampler turns it into an accounting event. A sampler
that no proof of amplification covers states the event of the mechanism without amplification.

* **Poisson**: every example is in every batch with probability q, independently. Batches vary in size and may be empty;
  an empty batch is a batch (Abadi et al. 2016; Mironov, Talwar, Zhang 2019).
* **Balls in bins**: in each epoch every example falls into one of b = 1/q batches, independently of all others
  (Chua et al. 2024, "Balls-and-Bins Sampling for DP-SGD"). Each example is used once an epoch, as under shuffling. No
  amplification is claimed: given an example's bins, its presence changes one clipped sum an epoch by at most C, so k
  epochs are k Gaussian mechanisms; the mixture over bins is no worse, since the privacy profile is jointly convex.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dptrain.errors import PlanError, unknown_name

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from dptrain.plan import PrivacyPlan


@dataclass(frozen=True)
class Sampler(ABC):
    """Draws one batch a step, and knows what that costs."""

    sampling_rate: float

    @abstractmethod
    def batches(self, examples: int, first: int, steps: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """Indices of the batches of steps ``first`` to ``steps - 1``, each sorted and possibly empty.

        Args:
            examples: the private number of examples.
            generator: a secret source of randomness; the amplification rests on the attacker not knowing the batches.
        """

    @abstractmethod
    def event(self, mechanism: "DpEvent", steps: int, first: int = 0) -> "DpEvent":
        """What the batches of steps ``first`` to ``steps - 1``, drawn in one go, release through ``mechanism``."""


@dataclass(frozen=True)
class PoissonSampler(Sampler):
    """Every example in every batch with probability q, independently."""

    def batches(self, examples: int, first: int, steps: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
        for _ in range(first, steps):
            yield np.flatnonzero(generator.random(examples) < self.sampling_rate)

    def event(self, mechanism: "DpEvent", steps: int, first: int = 0) -> "DpEvent":
        from dp_accounting import PoissonSampledDpEvent, SelfComposedDpEvent

        return SelfComposedDpEvent(PoissonSampledDpEvent(self.sampling_rate, mechanism), steps - first)


@dataclass(frozen=True)
class BallsInBinsSampler(Sampler):
    """Every example in one random batch an epoch; no amplification claimed."""

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


SAMPLERS: dict[str, type[Sampler]] = {"poisson": PoissonSampler, "balls_in_bins": BallsInBinsSampler}


def sampler_for(plan: "PrivacyPlan") -> Sampler:
    """The sampler that a plan names.

    Raises:
        PlanError: no such sampler, or one that cannot realise the plan's sampling rate.
    """
    if plan.sampling not in SAMPLERS:
        raise unknown_name("sampling", plan.sampling, SAMPLERS, PlanError)
    return SAMPLERS[plan.sampling](plan.sampling_rate)
