"""The mechanism held against its own words, by what the canaries of one coordinate each let be seen of it.

Coordinates of canaries that stayed out hold noise alone, and there are T of each; coordinates of those that came in say how
much one example contributed to a step, and how often it was drawn. Noise that is smaller than stated, a contribution longer
than C, or more draws than q says show there long before a bound on ε could exceed what is claimed, since a bound from one run
is far from tight.

Everything is in units of C / B, with B the expected batch size: one example adds at most 1 to a step. With s = σ Δ / C, Δ the
sensitivity, the noise in a coordinate is s K⁻¹ z, z standard normal. K says how steps are correlated: it is the identity for
independent noise, and for banded noise the lower-triangular Toeplitz matrix of :mod:`dptrain.noise.banded` (C, there) with
bands c_0 to c_{b-1}. From it follow

    whitened           w_t = Σ_{j<b} c_j g̃_{t-j}, which is s z_t where a canary stayed out: independent over steps
    of one draw        at most max_j c_j in any w_t, since draws of one canary lie b updates apart or more
    of a sum of T      noise of variance s² V_T, with V_T = Σ_{k<T} (Σ_{i≤k} a_i)² and a_i the coefficients of K⁻¹

Independent noise has w_t = g̃_t, max_j c_j = 1 and V_T = T.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import chi2, norm
from torch import Tensor

from dptrain.clipping import Clipping
from dptrain.noise.factorization import best_coefficients, inverse_coefficients
from dptrain.plan import PrivacyPlan
from evaluation.result import AuditCheck, Measure

CERTAIN = 1e-5
"""The chance that a check of a sound mechanism fails, each."""


@dataclass(frozen=True, eq=False)
class Correlation:
    """Of a plan's noise between its steps, as the plan states it; the noise itself is not asked."""

    bands: Float[np.ndarray, " bands"]
    """c_0 to c_{b-1}, of norm 1."""
    of_sums: Float[np.ndarray, " steps"]
    """V_1 to V_T: the variance of the noise in the sum of the first steps."""

    @classmethod
    def of(cls, plan: PrivacyPlan) -> Self:
        """For the plan of the whole training: the bands are those of least error over all its steps."""
        bands = best_coefficients(plan.bands, plan.steps) if plan.noise == "banded" else np.ones(1)
        inverse = inverse_coefficients(bands, plan.steps)
        return cls(bands, np.cumsum(np.cumsum(inverse) ** 2))


class Observer:
    """Sees each released update's part on the canaries' weights, as the optimizer does.

    Args:
        marks: the canaries' weights, ``[canaries + 1, 1]``.
        plan: of the whole training.
    """

    def __init__(self, marks: Tensor, included: Bool[np.ndarray, " canaries"], plan: PrivacyPlan):
        self.included, self.plan, self.correlation = included, plan, Correlation.of(plan)
        self.unit = plan.clipping_norm / plan.expected_batch_size
        self.total = torch.zeros(len(included), dtype=torch.float64)
        """The sum of what was released so far, ``[canaries]``."""
        self.squares = 0.0
        """Of the whitened coordinates of canaries that stayed out, over all of them and all steps."""
        self.highest, self.steps = -math.inf, 0
        """The largest whitened coordinate of all canaries and steps; and how many steps there were."""
        self._marks, self._out = marks, torch.from_numpy(~included)
        self._latest: deque[Tensor] = deque(maxlen=len(self.correlation.bands))
        """The latest b releases, which is what whitening needs."""

    def __call__(self, *_: Any) -> None:
        assert self._marks.grad is not None
        self.see(self._marks.grad[: len(self.included), 0].detach().double().cpu() / self.unit)

    def see(self, released: Float[Tensor, " canaries"]) -> None:
        """One step's release, in units of C / B."""
        self.total += released
        self._latest.appendleft(released)
        whitened = torch.zeros_like(released)
        for band, earlier in zip(self.correlation.bands.tolist(), self._latest, strict=False):
            whitened += band * earlier
        self.squares += float(whitened[self._out].square().sum())
        self.highest = max(self.highest, float(whitened.max()))
        self.steps += 1

    def checks(self) -> tuple[AuditCheck, ...]:
        """Of all steps that were seen.

        * noise: T times the number of canaries that stayed out whitened squares of N(0, s²); their sum over s² is χ².
        * contribution: no whitened coordinate exceeds max_j c_j + s z with z the quantile for all of them together.
        * draws: the mean score of those that came in is at most q T, with a variance of at most (q (1 − q) T + s² V_T) over
          their number, that of independent draws at q: under every other way draws vary less, or there are fewer.
        """
        deviation = self.plan.noise_multiplier * Clipping.of(self.plan).sensitivity / self.plan.clipping_norm
        found = [self._contribution(deviation)]
        samples = int((~self.included).sum()) * self.steps
        if samples:
            found.insert(0, self._noise(deviation, samples))
        if self.included.any():
            found.append(self._draws(deviation))
        return tuple(found)

    @property
    def _undone(self) -> str:
        return "" if len(self.correlation.bands) == 1 else ", correlation between steps undone"

    def _noise(self, deviation: float, samples: int) -> AuditCheck:
        low, high = (math.sqrt(self.squares / chi2.ppf(tail, samples)) for tail in (1 - CERTAIN, CERTAIN))
        seen = Measure(name="noise", value=math.sqrt(self.squares / samples), low=low, high=high, confidence=1 - 2 * CERTAIN)
        what = (
            f"standard deviation of the noise in each coordinate of a step{self._undone}, in clipping norms, is not below what "
            "is stated"
        )
        return AuditCheck(name="noise", stated=deviation, seen=seen, ok=high >= deviation, what=what)

    def _contribution(self, deviation: float) -> AuditCheck:
        tail = float(norm.isf(CERTAIN / (len(self.included) * self.steps)))
        most = float(self.correlation.bands.max()) + deviation * tail
        seen = Measure(name="contribution", value=self.highest)
        what = f"no example adds more than the clipping norm to a step{self._undone}, beyond what the noise explains"
        return AuditCheck(name="contribution", stated=most, seen=seen, ok=self.highest <= most, what=what)

    def _draws(self, deviation: float) -> AuditCheck:
        rate, steps, count = self.plan.sampling_rate, self.steps, int(self.included.sum())
        mean = float(self.total.numpy()[self.included].mean()) / steps
        variance = rate * (1 - rate) * steps + deviation**2 * float(self.correlation.of_sums[steps - 1])
        half = float(norm.isf(CERTAIN)) * math.sqrt(variance / count) / steps
        seen = Measure(name="draws", value=mean, low=mean - half, high=mean + half, confidence=1 - 2 * CERTAIN)
        what = "an example contributes to no larger share of the steps than the sampling rate says"
        return AuditCheck(name="draws", stated=rate, seen=seen, ok=mean - half <= rate, what=what)
