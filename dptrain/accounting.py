"""From what was released to ε, and from ε to what an attacker can gain.

A mechanism is a value (``dp_accounting.DpEvent``) that composes; the accountants here only interpret it.

* **PRV** (Gopi, Lee, Wutschitz 2021, "Numerical Composition of Differential Privacy"), as Opacus computes it: the
  reported figure, its upper end. It looks at the remove direction of a Poisson-subsampled Gaussian.
* **PLD** (Doroshenko et al. 2022, "Connect the Dots"), by ``dp-accounting``: independent code, both directions, rounded
  pessimistically: the cross-check.
* **RDP** (Mironov 2017): loose; only brackets a calibration.

GDP's central limit theorem lies below the truth and is not offered.

**What a plan permits** (Kairouz et al. 2015; Dong et al. 2022). If δ(ε) is the plan's privacy profile, every test that
tells members from non-members at false positive rate α has

    TPR ≤ min over ε of  e^ε α + δ(ε)     and     TPR ≤ 1 − max over ε of  e^(−ε) (1 − δ(ε) − α)

(the second is the first with the roles exchanged). The area under that curve bounds the area under any ROC.

    >>> from dp_accounting import GaussianDpEvent
    >>> round(gdp_mu_to_epsilon(1.0, 1e-5), 4)
    4.3772
"""

import functools
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from dp_accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    NeighboringRelation,
    NonPrivateDpEvent,
    NoOpDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.pld import PLDAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from dptrain.errors import PlanError

RELATIONS = {
    "add_or_remove_one": NeighboringRelation.ADD_OR_REMOVE_ONE,
    "zero_out_one": NeighboringRelation.REPLACE_SPECIAL,
}

Steps = tuple[float, float, int]
"""Noise multiplier, sampling rate, count."""


def steps_of(event: DpEvent) -> list[Steps] | None:
    """The (possibly subsampled) Gaussians that an event consists of; None where it promises nothing.

    Raises:
        PlanError: the event holds a mechanism that the accountants here do not know.
    """
    parts = _parts(event, 1)
    if any(sigma == 0 for sigma, _, _ in parts):
        return None
    merged: dict[tuple[float, float], int] = {}
    for sigma, rate, count in parts:
        merged[sigma, rate] = merged.get((sigma, rate), 0) + count
    return [(sigma, rate, count) for (sigma, rate), count in merged.items() if count and rate]


def _parts(event: DpEvent, count: int) -> list[Steps]:
    match event:
        case NoOpDpEvent():
            return []
        case NonPrivateDpEvent():
            return [(0.0, 1.0, count)]
        case GaussianDpEvent():
            return [(event.noise_multiplier, 1.0, count)]
        case PoissonSampledDpEvent(event=GaussianDpEvent() as inner):
            return [(inner.noise_multiplier, event.sampling_probability, count)]
        case SelfComposedDpEvent():
            return _parts(event.event, count * event.count)
        case ComposedDpEvent():
            return [part for inner in event.events for part in _parts(inner, count)]
    raise PlanError(f"no accountant here knows the event {event}; accepted: Gaussian, Poisson-sampled Gaussian, composed")


def epsilon_prv(event: DpEvent, delta: float, error: float | None = None) -> float:
    """The PRV accountant's upper end of ε.

    ``error`` is the width of its discretisation, in ε; left out, 0.01, and 0.001 where ε is below 1/2.
    """
    steps = steps_of(event)
    if steps is None:
        return math.inf
    return _epsilon_prv(tuple(sorted(steps)), delta, error)


@functools.lru_cache(maxsize=4096)
def _epsilon_prv(steps: tuple[Steps, ...], delta: float, error: float | None) -> float:
    from opacus.accountants import PRVAccountant

    if not steps:
        return 0.0
    accountant = PRVAccountant()
    accountant.history = list(steps)
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # log 0 at q = 1 is meant; RDP only sizes the grid
        warnings.simplefilter("ignore")
        try:
            epsilon = float(accountant.get_epsilon(delta, eps_error=0.01 if error is None else error))
            if error is None and epsilon < 0.5:
                epsilon = float(accountant.get_epsilon(delta, eps_error=0.001))
        except (ValueError, RuntimeError) as reason:
            raise PlanError(f"the PRV accountant cannot count at δ = {delta:g} ({reason}); give a larger δ") from None
    if not epsilon >= 0:
        raise PlanError(f"the PRV accountant gave ε = {epsilon} at δ = {delta:g}, which no mechanism has; check δ")
    return epsilon


def _pld(event: DpEvent, relation: str) -> PLDAccountant:
    accountant = PLDAccountant(RELATIONS[relation])
    accountant.compose(event)
    return accountant


def epsilon_pld(event: DpEvent, delta: float, relation: str = "add_or_remove_one") -> float:
    """ε by privacy loss distributions, rounded up."""
    if steps_of(event) is None:
        return math.inf
    return float(_pld(event, relation).get_epsilon(delta))


def epsilon_rdp(event: DpEvent, delta: float) -> float:
    """ε by Rényi DP as Opacus converts it; an upper bound, and a loose one."""
    from opacus.accountants import RDPAccountant

    steps = steps_of(event)
    if steps is None:
        return math.inf
    if not steps:
        return 0.0
    accountant = RDPAccountant()
    accountant.history = list(steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta))


def check_agreement(reported: float, cross_check: float) -> None:
    """Two independent accountants must agree to 0.02 + 1%; the reported figure may not be the smaller by more.

    Raises:
        PlanError: they do not.
    """
    if math.isinf(reported) and math.isinf(cross_check):
        return
    if math.isinf(reported) or not abs(reported - cross_check) <= 0.02 + 0.01 * max(reported, cross_check):
        raise PlanError(
            f"the accountants disagree: PRV says ε = {reported:.4f} and PLD says {cross_check:.4f}, so neither is "
            "reported; use a larger δ or less extreme noise"
        )


def gdp_mu_to_epsilon(mu: float, delta: float) -> float:
    """ε of a mechanism that is exactly μ-Gaussian DP: δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ) (Dong et al. 2022)."""

    def excess(epsilon: float) -> float:
        tail = math.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu))
        return float(norm.cdf(mu / 2 - epsilon / mu) - tail - delta)

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    root: Any = brentq(excess, 0.0, high, xtol=1e-12)
    return float(root)


@dataclass(frozen=True, eq=False)
class TradeoffCurve:
    """The least upper bound on an attacker's ROC, as (ε, δ(ε)) supports; see the module's text."""

    epsilons: np.ndarray
    deltas: np.ndarray

    def true_positive_rate(self, false_positive_rate: float) -> float:
        """The most that any membership attack reaches at this false positive rate, both as probabilities."""
        return float(self._rates(np.array([float(false_positive_rate)]))[0])

    def auc(self) -> float:
        """The area under the curve, as a sum of right-hand ends: never below the true area, above it by at most 1/4000."""
        grid = np.linspace(0, 1, 4001)
        return float(np.mean(self._rates(grid)[1:]))

    def _rates(self, alpha: np.ndarray) -> np.ndarray:
        if len(self.epsilons) == 0:
            return np.ones_like(alpha)
        direct, mirrored = np.full_like(alpha, np.inf), np.full_like(alpha, -np.inf)
        for epsilon, delta in zip(self.epsilons, self.deltas, strict=True):
            direct = np.minimum(direct, np.exp(epsilon) * alpha + delta)
            mirrored = np.maximum(mirrored, np.exp(-epsilon) * (1 - delta - alpha))
        return np.clip(np.minimum(direct, 1 - mirrored), alpha, 1.0)


def tradeoff_curve(event: DpEvent, relation: str = "add_or_remove_one") -> TradeoffCurve:
    """The curve of an event; without a guarantee, everything is permitted."""
    steps = steps_of(event)
    if steps is None:
        return TradeoffCurve(np.empty(0), np.empty(0))
    return _tradeoff_curve(tuple(sorted(steps)), relation)


@functools.lru_cache(maxsize=64)
def _tradeoff_curve(steps: tuple[Steps, ...], relation: str) -> TradeoffCurve:
    if not steps:
        return TradeoffCurve(np.zeros(1), np.zeros(1))
    event = ComposedDpEvent(
        [SelfComposedDpEvent(PoissonSampledDpEvent(q, GaussianDpEvent(sigma)), count) for sigma, q, count in steps]
    )
    accountant = _pld(event, relation)
    top = max(float(accountant.get_epsilon(1e-9)), 1e-3)
    epsilons = np.concatenate([[0.0], np.geomspace(top * 1e-4, top, 160)])
    deltas = np.array([float(accountant.get_delta(epsilon)) for epsilon in epsilons])
    return TradeoffCurve(epsilons, deltas)
