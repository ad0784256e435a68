"""DP-SGD where one node is read in the examples of others, and what it costs.

A node is an example, and up to n examples of other nodes read it as well, as those of its neighbours do. Each example is in a
batch by a coin of its own, with probability q. Blanking the node takes its own gradient away, of norm at most C, and
exchanges each of the others for another one, at most 2 C away. In units of C the sums are then apart by at most

    S = B₀ + 2 (B₁ + … + B_n),    B₀, …, B_n independent coins of probability q.

(The setting of Daigavane et al. 2021, "Node-Level Differentially Private Graph Neural Networks", who bound batches of fixed
size by the Rényi divergences of a hypergeometric mixture.)

**The pair.** It is not that of the mixture Σ_s P[S = s] N(s, σ²) against N(0, σ²) (Choquette-Choo, Ganesh, Steinke, Thakurta
2024, "Privacy Amplification for Matrix Mechanisms"), which holds where examples are taken away: there one side is a single
Gaussian. Here both sides are mixtures over the same coins b, P = Σ_b p_b N(μ_b, σ²I) and Q = Σ_b p_b N(μ′_b, σ²I), and
where g = −g′ a test can be the best one for each b at once, which no threshold is for that mixture. What holds is this.

Let α ≥ 1, and let a_s ≥ 0 rise with s, with mean Σ_b p_b a_{s(b)} = α. Under the weights p_b a_{s(b)} / α coins are more often
1 than under p_b (FKG), so that a pair (b, b′) with b′ ≤ b in every coin has b so and b′ by p (Strassen 1965). Let R_b be the
mixture of N(μ′_{b′}, σ²I) over b′ given b. Then α Q = Σ_b p_b a_{s(b)} R_b, and by the convexity of H

    H_α(P ‖ Q) ≤ Σ_b p_b H_{a_{s(b)}}(N(μ_b, σ²I) ‖ R_b) ≤ Σ_s P[S = s] H_{a_s}(N(s, σ²) ‖ N(0, σ²)) =: h(α)

since ‖μ_b − μ′_{b′}‖ ≤ B₀ + Σ (B_i + B′_i) ≤ s(b): an exchanged gradient whose coin is 1 on one side alone moves the sum by 1.
With the roles exchanged the same holds, so that both directions have this h. For α < 1, H_α(P ‖ Q) = 1 − α + α H_{1/α}(Q ‖ P).

The least sum without the rise would have a_s = exp((x s − s²/2)/σ²), where one threshold x on the line is best for each s:
that is the mixture above. Beyond s = x these fall, and their running maximum over s is taken. All choices are bounds, and
H itself is convex in α, so the lowest convex curve through the h found for many x is a bound too. For q = 1 it is one
Gaussian of sensitivity 1 + 2 n; where nobody else reads the node, plain Poisson sampling is less, and taken.

**Rényi.** Two closed forms, of which the smaller one holds, stand above it. The same transport, with weights that rise as
exp((a−1) s²/2σ²), gives ∫ Pᵃ Q¹⁻ᵃ ≤ (E exp((a−1) S²/2σ²))ᵃ; and with γ = P[S > 0], the binomial expansion of Wang, Balle,
Kasiviswanathan (2019, "Subsampled Rényi Differential Privacy and Analytical Moments Accountant") gives

    ∫ Pᵃ Q¹⁻ᵃ ≤ 1 + γ² a(a−1)/2 · min(4 (M₂ − 1), 2 M₂) + Σ_{j=3..a} (a choose j) γʲ 2 M_j

with M_j = E[exp(j (j−1) S²/2σ²) | S > 0], as any two of P and Q given S > 0 and of what both are given S = 0 have a moment of
at most M_j, by joint convexity.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from scipy.special import gammaln
from scipy.stats import binom, norm

from dptrain.dominating import INTERVAL, PairedDpEvent, gaussian_profile, poisson, rounded

THRESHOLDS = 4096
"""Thresholds x for which a bound is computed; between them it is the chord."""
OUTSIDE = 1e-18
"""The chance of larger losses, which count as infinite."""


@dataclass(frozen=True)
class OccurrencesDpEvent(PairedDpEvent):
    """A Gaussian over a Poisson sample, where a unit is read in its own example and in up to ``occurrences`` others."""

    sampling_probability: float
    occurrences: int
    noise_multiplier: float
    """σ over C, the most that one example adds."""

    relations = ("zero_out_one",)

    @property
    def promises_nothing(self) -> bool:
        return self.noise_multiplier == 0

    def losses(self) -> PrivacyLossDistribution:
        return occurring(self.sampling_probability, self.occurrences, self.noise_multiplier)

    def renyi(self, orders: tuple[int, ...]) -> np.ndarray:
        shifts, chances = distances(self.sampling_probability, self.occurrences)
        return np.array([_renyi(order, shifts, chances, self.noise_multiplier) for order in orders])

    def floor(self) -> DpEvent:
        return PoissonSampledDpEvent(self.sampling_probability, GaussianDpEvent(self.noise_multiplier))


def distances(rate: float, occurrences: int) -> tuple[np.ndarray, np.ndarray]:
    """The values of S that have a chance, rising, and these chances."""
    chances = np.empty(2 * occurrences + 2)
    others = binom.pmf(np.arange(occurrences + 1), occurrences, rate)
    chances[0::2], chances[1::2] = (1 - rate) * others, rate * others
    kept = chances > 0
    return np.arange(2.0 * occurrences + 2)[kept], chances[kept]


@functools.lru_cache(maxsize=16)
def occurring(rate: float, occurrences: int, sigma: float) -> PrivacyLossDistribution:
    """Privacy losses of one step, in both directions."""
    if occurrences == 0:
        return poisson(rate, sigma)
    losses, deltas = profile_points(rate, occurrences, sigma)
    top = math.ceil(losses[-1] / INTERVAL)
    upper = interpolated(np.arange(top + 1) * INTERVAL, losses, deltas)
    falls = np.arange(-top, 0) * INTERVAL
    lower = -np.expm1(falls) + np.exp(falls) * upper[:0:-1]
    return PrivacyLossDistribution(rounded(-top, top, np.concatenate([lower, upper])))


def profile_points(rate: float, occurrences: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """log α, rising from 0, and h(α): corners of a convex curve, each above the profile of any two neighbours."""
    shifts, chances = distances(rate, occurrences)
    thresholds = np.linspace(shifts[shifts > 0][0] / 2, _largest(shifts, chances, sigma), THRESHOLDS)
    best = (thresholds[:, None] * shifts - shifts**2 / 2) / sigma**2
    weights = np.maximum.accumulate(best, axis=1)
    losses = np.maximum.accumulate(np.logaddexp.reduce(weights + np.log(chances), axis=1))
    losses[0] = max(losses[0], 0.0)
    deltas = np.zeros(THRESHOLDS)
    for shift, chance, weight in zip(shifts, chances, weights.T, strict=True):
        if shift > 0:
            deltas += chance * gaussian_profile(weight, sigma / shift)
    return _lowest_convex(losses, deltas)


def interpolated(at: np.ndarray, losses: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """The curve at other losses: chords in α = e^loss, which lie above what is convex in α."""
    after = np.clip(np.searchsorted(losses, at, side="right"), 1, len(losses) - 1)
    start, width = losses[after - 1], np.diff(losses)[after - 1]
    part = np.expm1(np.clip(at - start, 0.0, width)) / np.expm1(width)
    return deltas[after - 1] + part * (deltas[after] - deltas[after - 1])


def _largest(shifts: np.ndarray, chances: np.ndarray, sigma: float) -> float:
    """A threshold above which a sum with the node lies with a chance of OUTSIDE at most."""
    low, high = 0.0, float(shifts[-1]) + 9 * sigma
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chances @ norm.cdf((shifts - middle) / sigma) > OUTSIDE else (low, middle)
    return high


def _lowest_convex(losses: np.ndarray, deltas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the lowest convex curve through points (e^loss, δ), of which the losses rise."""
    corners: list[int] = []
    for point in range(len(losses)):
        if corners and losses[point] <= losses[corners[-1]]:
            continue
        while len(corners) > 1 and _slope(losses, deltas, corners[-2], point) <= _slope(losses, deltas, *corners[-2:]):
            corners.pop()
        corners.append(point)
    return losses[corners], deltas[corners]


def _slope(losses: np.ndarray, deltas: np.ndarray, first: int, last: int) -> float:
    """In α, over e^-loss of the first point: the sign of a difference of two slopes from one point is what is asked for."""
    return float((deltas[last] - deltas[first]) / np.expm1(losses[last] - losses[first]))


def _renyi(order: int, shifts: np.ndarray, chances: np.ndarray, sigma: float) -> float:
    logs, squares = np.log(chances), shifts**2 / (2 * sigma**2)
    moved = order * float(np.logaddexp.reduce((order - 1) * squares + logs))
    hit = shifts > 0
    gamma = float(chances[hit].sum())
    j = np.arange(2, order + 1)
    moments = np.logaddexp.reduce(j[:, None] * (j - 1)[:, None] * squares[hit] + logs[hit] - math.log(gamma), axis=1)
    terms = gammaln(order + 1) - gammaln(j + 1) - gammaln(order - j + 1) + j * math.log(gamma) + math.log(2) + moments
    terms[0] += min(0.0, math.log(2) + float(np.log(-np.expm1(-moments[0]))))
    expanded = float(np.logaddexp(0.0, np.logaddexp.reduce(terms)))
    return min(moved, expanded) / (order - 1)
