"""The best of several private trainings, and what choosing it costs.

    runs = Runs(distribution="geometric", mean=6)
    number = runs.draw(secret_generator())                     # K: how many trainings; told to nobody
    epsilon_selected(event, "geometric", 6, delta=1e-5)        # of the best of them, where each releases `event`

Training with k learning rates and keeping the model that scores best on private examples is a mechanism of its own: of a
fixed number k of trainings that are each (ε, 0)-private the best can cost k ε. Where the number of trainings is drawn at
random the best of them costs a small multiple of one, however many there are on average (Liu, Talwar 2019, "Private Selection
from Private Candidates"; Papernot, Steinke 2022, "Hyperparameter Tuning with Rényi Differential Privacy", ICLR).

**What is assumed.** Q is one randomised algorithm: it draws a candidate (of a list that was fixed without looking at the
data), trains, and gives the model, the candidate and a score. K comes from a distribution that is fixed beforehand, and
independently of the data; Q is run K times with fresh randomness; that output of the K whose score is best is released, and
nothing else: neither K nor any other model or score. The score is part of Q's output, so Q's privacy covers it. A training
that fails is an output of Q as well, with a score below all others.

**Negative binomial, truncated at 0**: D(η, γ) with η > −1 and 0 < γ < 1; η = 1 is geometric, η = 0 logarithmic.

    P[K = k] = (1−γ)^k / (γ^(−η) − 1) · Π_{l<k} (l+η)/(l+1)  from k = 1 on;   (1−γ)^k / (k log(1/γ))  at η = 0
    E[K] = η (1−γ) / (γ (1 − γ^η));                                           (1/γ − 1) / log(1/γ)     at η = 0

Theorem 2 of the paper: if Q is (λ, ε)- and (λ̂, ε̂)-RDP with λ > 1 and λ̂ ≥ 1, the best of K is (λ, ε′)-RDP with

    ε′ = ε + (1+η) (1 − 1/λ̂) ε̂ + (1+η) log(1/γ) / λ̂ + log E[K] / (λ − 1).

λ̂ is free: the best of all orders is taken. If Q is (ε, 0)-private, the best of K is ((2+η) ε, 0)-private (corollary 3): 3 ε
with geometric and 2 ε with logarithmic K.

**Poisson** with mean μ. Theorem 6: if Q is (λ, ε)-RDP and (ε̂, δ̂)-private with ε̂ ≤ log(1 + 1/(λ−1)), the best of K is
(λ, ε′)-RDP with

    ε′ = ε + μ δ̂ + log μ / (λ − 1).

K is 0 with probability e^(−μ). Then nothing is released but that; the budget is spent all the same.

RDP falls with no order: what holds at a larger one holds at a smaller one. It becomes (ε, δ) by Canonne, Kamath, Steinke 2020
("The Discrete Gaussian for Differential Privacy", proposition 12), as everywhere here. Several events stand for candidates with
different plans: as the candidate is part of the output, Q's Rényi divergence is at most the largest of theirs at each order.

:mod:`dptrain.selection_profiles` proves a smaller figure from privacy profiles; :func:`count` has both.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from dp_accounting import ComposedDpEvent, DpEvent, SelfComposedDpEvent
from dp_accounting.rdp.rdp_privacy_accountant import compute_delta, compute_epsilon
from scipy.optimize import brentq
from scipy.special import gammaln

from dptrain import accounting, dominating
from dptrain.errors import PlanError, unknown_name

Distribution = Literal["geometric", "logarithmic", "negative_binomial", "poisson"]
SHAPES = {"geometric": 1.0, "logarithmic": 0.0}
WHOLE_ORDERS = (*range(2, 65), 72, 80, 96, 112, 128, 160, 192, 256, 384, 512, 1024)
ORDERS = tuple(sorted({*(1 + round(10 ** (power / 16), 4) for power in range(-32, 17)), *WHOLE_ORDERS}))
"""From 1.01 on. The choice of orders can make the figure larger, never too small."""
MOST_RUNS = 100_000


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The distribution of K, the number of trainings.

    Raises:
        PlanError: it is none of those that are proved.
    """

    distribution: Distribution
    mean: float
    """E[K], from 1 up."""
    shape: float | None = None
    """η of ``negative_binomial``, above −1."""

    def __post_init__(self) -> None:
        if self.distribution not in get_args(Distribution):
            raise unknown_name("distribution of the number of runs", self.distribution, get_args(Distribution), PlanError)
        if not (math.isfinite(self.mean) and 1 <= self.mean <= MOST_RUNS / 100):
            raise PlanError(f"mean is {self.mean:g}; give how many runs are trained on average, from 1 to {MOST_RUNS // 100}")
        if (self.distribution == "negative_binomial") != (self.shape is not None):
            raise PlanError(
                f"shape is {self.shape} and distribution is {self.distribution!r}; a shape is given with 'negative_binomial', "
                "and with it alone"
            )
        if self.shape is not None and not (math.isfinite(self.shape) and self.shape > -1):
            raise PlanError(f"shape is {self.shape:g}; give a number above -1, such as 0.5")

    @property
    def eta(self) -> float:
        """η; infinity of Poisson, which is what the negative binomial tends to."""
        return math.inf if self.distribution == "poisson" else SHAPES.get(self.distribution, self.shape or 0.0)

    @property
    def gamma(self) -> float:
        """γ of the negative binomial whose mean is this one."""
        return _gamma(self.eta, self.mean)

    @property
    def theorem(self) -> str:
        """Under which its RDP is proved."""
        return "theorem 6" if self.distribution == "poisson" else "theorem 2"

    def probabilities(self, most: int) -> np.ndarray:
        """P[K = k] for k = 0 to ``most``, ``[most + 1]``."""
        k = np.arange(1, most + 1, dtype=float)
        if self.distribution == "poisson":
            return np.exp(np.concatenate([[-self.mean], k * math.log(self.mean) - self.mean - gammaln(k + 1)]))
        eta, gamma = self.eta, self.gamma
        if gamma == 1:
            return (np.arange(most + 1) == 1).astype(float)
        if eta == 0:
            known = np.exp(k * math.log1p(-gamma) - np.log(k)) / -math.log(gamma)
        else:
            # Π (l+η)/(l+1) has the sign of η, and so has γ^−η − 1.
            product = np.exp(gammaln(k + eta) - gammaln(k + 1) - gammaln(eta + 1)) * abs(eta)
            known = np.exp(k * math.log1p(-gamma)) * product / abs(math.expm1(-eta * math.log(gamma)))
        return np.concatenate([[0.0], known])

    def derivative(self, x: np.ndarray) -> np.ndarray:
        """f′(x) = E[K x^(K−1)] of the generating function f(x) = E[x^K], between 0 and 1: it rises, to E[K] at 1."""
        if self.distribution == "poisson":
            return self.mean * np.exp(self.mean * (x - 1))
        gamma = self.gamma
        return self.mean * (gamma / (1 - (1 - gamma) * x)) ** (1 + self.eta)

    def draw(self, generator: np.random.Generator) -> int:
        """K, by inversion of one uniform number of 53 bits."""
        uniform, size = generator.random(), 256
        while True:
            found = int(np.searchsorted(np.cumsum(self.probabilities(size)), uniform, side="right"))
            if found <= size or size >= MOST_RUNS:
                return min(found, size)
            size *= 8


@functools.lru_cache(maxsize=64)
def _gamma(eta: float, mean: float) -> float:
    """Rounded down: E[K] falls as γ grows, and what is charged grows with log(1/γ)."""
    if mean == 1:
        return 1.0
    if eta == 1:
        return 1 / mean

    def excess(log_gamma: float) -> float:
        return math.log(_mean(eta, log_gamma)) - math.log(mean)

    low = -1.0
    while excess(low) < 0:
        low *= 2
    return math.exp(float(brentq(excess, low, -1e-12, xtol=1e-13)) - 1e-12)  # pyright: ignore[reportArgumentType]


def _mean(eta: float, log_gamma: float) -> float:
    odds = math.expm1(-log_gamma)  # (1−γ)/γ
    return odds / -log_gamma if eta == 0 else eta * odds / -math.expm1(eta * log_gamma)


@dataclass(frozen=True, kw_only=True)
class CountedSelection:
    """ε of the best of K, by two ways of proving it."""

    epsilon: float
    """The smaller of the two: each is an upper bound."""
    by_profiles: float
    by_renyi: float
    """Papernot & Steinke 2022."""


def epsilon_selected(
    events: DpEvent | Sequence[DpEvent],
    distribution: str,
    mean: float,
    delta: float,
    *,
    shape: float | None = None,
    relation: str = "add_or_remove_one",
) -> float:
    """ε of the best of K trainings, as it is reported; see :func:`count`."""
    runs = Runs(distribution=distribution, mean=mean, shape=shape)  # pyright: ignore[reportArgumentType]  checked there
    return count(events, runs, delta, relation).epsilon


def count(
    events: DpEvent | Sequence[DpEvent], runs: Runs, delta: float, relation: str = "add_or_remove_one"
) -> CountedSelection:
    """ε of the best of K trainings by Rényi divergences and by privacy profiles.

    Args:
        events: what one training with its score releases; several where candidates differ, of which each may be drawn.

    Raises:
        PlanError: δ is not between 0 and 1.
    """
    if not 0 < delta < 1:
        raise PlanError(f"delta is {delta:g}; give a number above 0 and below 1/N, such as 1e-5")
    return _count(tuple(accounting.merged(event) for event in _several(events)), runs, delta, relation)


@functools.lru_cache(maxsize=64)
def _count(events: tuple[tuple[tuple[DpEvent, int], ...], ...], runs: Runs, delta: float, relation: str) -> CountedSelection:
    from dptrain import selection_profiles

    each = [ComposedDpEvent([SelfComposedDpEvent(leaf, times) for leaf, times in parts]) for parts in events]
    if all(accounting.is_pure(event) for event in each) and runs.distribution != "poisson":
        pure = epsilon_pure(max(accounting.epsilon(event, delta) for event in each), runs)
        return CountedSelection(epsilon=pure, by_profiles=pure, by_renyi=pure)
    by_renyi = epsilon_by_renyi(each, runs, delta)
    if math.isinf(by_renyi):
        return CountedSelection(epsilon=math.inf, by_profiles=math.inf, by_renyi=math.inf)
    by_profiles = selection_profiles.profiles_of(each, runs, relation).epsilon(delta)
    return CountedSelection(epsilon=min(by_profiles, by_renyi), by_profiles=by_profiles, by_renyi=by_renyi)


def _several(events: DpEvent | Sequence[DpEvent]) -> tuple[DpEvent, ...]:
    """Each of them once."""
    given = (events,) if isinstance(events, DpEvent) else tuple(events)
    if not given:
        raise PlanError("there is no event to select from; give what one training releases")
    return tuple(event for index, event in enumerate(given) if event not in given[:index])


# -- Rényi divergences (Papernot & Steinke 2022) --------------------------------------------------------------------


def epsilon_by_renyi(events: DpEvent | Sequence[DpEvent], runs: Runs, delta: float) -> float:
    """ε of the best of K by theorem 2 or 6; infinity where a training promises nothing."""
    each = _several(events)
    if any(math.isinf(accounting.epsilon_rdp(event, 0.5)) for event in each):
        return math.inf
    orders = ORDERS if all(accounting.prv_can_count(event) for event in each) else WHOLE_ORDERS
    base = np.max([renyi(event, orders) for event in each], axis=0)
    return float(compute_epsilon(orders, renyi_selected(orders, base, runs).tolist(), delta)[0])


def renyi(event: DpEvent, orders: Sequence[float]) -> np.ndarray:
    """Rényi divergences of an event, composed, ``[orders]``."""
    parts = [times * dominating.renyi(leaf, tuple(orders)) for leaf, times in accounting.merged(event)]  # pyright: ignore[reportArgumentType]
    return np.sum(parts, axis=0) if parts else np.zeros(len(orders))


def renyi_selected(orders: Sequence[float], base: np.ndarray, runs: Runs) -> np.ndarray:
    """(λ, ε′) of the best of K from (λ, ε) of one training, ``[orders]``."""
    order = np.asarray(orders, dtype=float)
    with np.errstate(invalid="ignore"):
        if runs.distribution == "poisson":
            deltas = np.array([compute_delta(orders, base.tolist(), math.log1p(1 / (one - 1)))[0] for one in orders])
            found = base + runs.mean * deltas + math.log(runs.mean) / (order - 1)
        else:
            free = (1 - 1 / order) * base + math.log(1 / runs.gamma) / order
            found = base + (1 + runs.eta) * np.nanmin(free) + math.log(runs.mean) / (order - 1)
    return np.minimum.accumulate(found[::-1])[::-1]


def epsilon_pure(epsilon: float, runs: Runs) -> float:
    """ε of the best of K that are each (ε, 0)-private, such as answers of :mod:`dptrain.release.noisy_max`: (2+η) ε.

    Raises:
        PlanError: K is Poisson, for which no pure ε is proved.
    """
    if runs.distribution == "poisson":
        raise PlanError("no pure ε is proved where the number of runs is 'poisson'; give 'geometric' or 'logarithmic'")
    return (2 + runs.eta) * epsilon


def composed(event: DpEvent, runs: int, delta: float, relation: str = "add_or_remove_one") -> float:
    """ε of so many trainings, all of which are released: what choosing among them by plain composition costs."""
    from dp_accounting import SelfComposedDpEvent

    return accounting.epsilon(SelfComposedDpEvent(event, runs), delta, relation) if runs else 0.0
