"""What the best of several private trainings costs, by privacy profiles: the figure that is reported.

    found = profiles_of((event,), Runs(distribution="geometric", mean=6))
    found.epsilon(1e-5), found.delta(4.0)

Rényi divergences lose where (ε, δ) is wanted in the end. That profiles lose less was shown by Koskela, Redberg, Wang 2024
("Privacy Profiles for Private Selection", ICML); the bound below is derived here in full, for any distribution of K.

**Setting.** Q and Q′ are the outputs of one training with its score on neighbouring data, with densities q and q′, ordered by
score; ties are broken by a uniform number that belongs to the output and is not shown. f(x) = E[x^K], whose derivative f′
rises on [0, 1]. With F(y) = Q[output ≤ y], the best of K lies at or below y with probability f(F(y)), so that it has the
density q f′(F), and q′ f′(F′) on the neighbour; that K = 0 is as likely on both.

**Bound.** Let T(u) be the largest true positive rate that any test of Q against Q′ allows at the false positive rate u, in
either direction (:class:`dptrain.accounting.TradeoffCurve`). "The output is above y" is such a test: with u = 1 − F(y),
1 − F′(y) ≤ T(u), and f′(F′) ≥ f′(1 − T(u)). Hence for every ε ≥ 0

    δ(ε) = ∫ max(0, q f′(F) − e^ε q′ f′(F′))  ≤  ∫ q · G(e^ε q′/q),     G(s) = max over u of  max(0, f′(1−u) − s f′(1−T(u))).

G is convex and falls to 0, so it is a mixture of s ↦ max(0, 1 − c s), and the right side one of δ_Q at all ε: whatever
dominates Q may take its place. It is therefore the mean of G(e^(ε−L)) over the privacy loss L of one training, in the worse
direction. Bounding f′(1−u) by E[K] and f′(1−u) / f′(1−T(u)) by e^((1+η) ε̂) in it gives E[K] δ_Q(ε − (1+η) ε̂), theirs.

u and T are taken on a grid, each at the end of its cell that makes G larger. Candidates with different plans: δ_Q is at most
the largest of theirs at every ε, and T is made of that; the mean over the drawn candidate is at most the largest of theirs.

Against exact best-of-K of small mechanisms the bound never lies below, and above by at most the factors that
``tests/dptrain/test_selection.py`` states (1.3 for geometric and logarithmic K).
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from dp_accounting import ComposedDpEvent, DpEvent, SelfComposedDpEvent

from dptrain import accounting
from dptrain.accounting import TradeoffCurve
from dptrain.privacy_losses import Losses, directions
from dptrain.selection import Runs

CELLS = 2000
"""Of u, between 0 and 1."""


@dataclass(frozen=True, eq=False)
class SelectionProfile:
    """δ(ε) of the best of K, and back."""

    each: tuple[Losses, ...]
    heights: np.ndarray
    """f′(1−u) of the lines of which G is the largest, falling."""
    slopes: np.ndarray
    """f′(1−T(u)) of the same lines, falling."""

    def delta(self, epsilon: float) -> float:
        """An upper bound on δ at ε ≥ 0."""
        return float(max(self._mean(one, epsilon) for one in self.each))

    def epsilon(self, delta: float) -> float:
        """The smallest ε whose δ is at most this, to 1e-6; rounded up."""
        low, high = 0.0, 1.0
        if self.delta(0.0) <= delta:
            return 0.0
        while self.delta(high) > delta:
            low, high = high, 2 * high
            if high > 1e4:
                return math.inf
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (low, middle) if self.delta(middle) <= delta else (middle, high)
        return high

    def curve(self) -> TradeoffCurve:
        """What any test of whether a unit was there can reach, of the one that is released."""
        return accounting.curve_of_profile(_AsProfile(self))

    def _mean(self, one: Losses, epsilon: float) -> float:
        scaled = np.exp(np.minimum(epsilon - one.losses, 700.0))
        return float(one.probabilities @ self._largest(scaled) + one.infinite * self.heights[0])

    def _largest(self, scaled: np.ndarray) -> np.ndarray:
        """G, by which of its lines is the largest."""
        crossings = np.diff(self.heights) / np.diff(self.slopes)
        line = np.searchsorted(crossings, scaled, side="right")
        return np.maximum(0.0, self.heights[line] - scaled * self.slopes[line])


@dataclass(frozen=True, eq=False)
class _AsProfile:
    profile: SelectionProfile

    def get_epsilon(self, delta: float) -> float:
        return self.profile.epsilon(delta)

    def get_delta(self, epsilon: float) -> float:
        return min(1.0, self.profile.delta(epsilon))


def profiles_of(events: Sequence[DpEvent], runs: Runs, relation: str = "add_or_remove_one") -> SelectionProfile:
    """The profile of the best of K trainings that each release one of the events."""
    return _profile(tuple(dict.fromkeys(accounting.merged(event) for event in events)), runs, relation)


@functools.lru_cache(maxsize=64)
def _profile(events: tuple[tuple[tuple[DpEvent, int], ...], ...], runs: Runs, relation: str) -> SelectionProfile:
    each = [ComposedDpEvent([SelfComposedDpEvent(leaf, times) for leaf, times in parts]) for parts in events]
    distributions = [accounting.losses(event, relation) for event in each]
    each_way = tuple(direction for one in distributions for direction in directions(one))
    return from_losses(each_way, accounting.curve_of_losses(distributions), runs)


def from_losses(each: tuple[Losses, ...], curve: TradeoffCurve, runs: Runs) -> SelectionProfile:
    """The profile from privacy losses of one training, in both directions, and what they allow a test."""
    # Cells are even in log(f′), where the negative binomial's lines differ, and get finer towards u = 0.
    grid = np.unique(np.concatenate([[0.0], np.geomspace(1e-12, 1.0, CELLS // 2), np.linspace(0, 1, CELLS // 2 + 1)]))
    heights = runs.derivative(1 - grid[:-1])
    slopes = runs.derivative(1 - np.minimum(1.0, curve.true_positive_rates(grid[1:])))
    kept = _upper_envelope(heights, slopes)
    heights, slopes = heights[kept], slopes[kept]
    # Where G is 0 at ε = 0, it is at every larger one.
    least = -math.log(float(np.max(heights / slopes)))
    felt = [(one, (one.losses > least) & (one.probabilities > 0)) for one in each]
    counting = tuple(Losses(one.losses[felt], one.probabilities[felt], one.infinite) for one, felt in felt)
    return SelectionProfile(counting, heights, slopes)


def _upper_envelope(heights: np.ndarray, slopes: np.ndarray) -> list[int]:
    """Which of the lines h − s·m are the largest somewhere at s ≥ 0, from the steepest to the flattest."""
    kept: list[int] = []
    for index in np.lexsort((-heights, -slopes)):
        if kept and slopes[kept[-1]] == slopes[index]:
            continue  # as steep and not higher
        while kept and heights[kept[-1]] <= heights[index]:
            kept.pop()
        while len(kept) > 1 and _crossing(heights, slopes, kept[-1], index) <= _crossing(heights, slopes, kept[-2], kept[-1]):
            kept.pop()
        kept.append(int(index))
    return kept


def _crossing(heights: np.ndarray, slopes: np.ndarray, steep: int, flat: int) -> float:
    return float((heights[steep] - heights[flat]) / (slopes[steep] - slopes[flat]))
