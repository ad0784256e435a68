"""From what was released to ε, and from ε to what an attacker can gain.

A mechanism is a value (``dp_accounting.DpEvent``) that composes; the accountants here only interpret it.

* **PRV** (Gopi, Lee, Wutschitz 2021, "Numerical Composition of Differential Privacy"), as Opacus computes it: the
  reported figure, its upper end. It looks at the remove direction of a Poisson-subsampled Gaussian.
* **PLD** (Doroshenko et al. 2022, "Connect the Dots"), by ``dp-accounting``: independent code, both directions, rounded
  pessimistically: the cross-check.
* **RDP** (Mironov 2017): an upper bound and a loose one; it brackets a calibration, and is the cross-check where PRV cannot
  count: truncated Poisson batches and batches of fixed size. There PLD is reported, over the pairs of
  :mod:`dptrain.dominating`, and must lie between two figures of other origin: below RDP, and above what PRV says of plain
  Poisson batches of the same rate, which those pairs can only exceed. So it is where a unit is read in examples of others
  (:mod:`dptrain.graph.occurrences`).
* **Pure ε** (Dwork, McSherry, Nissim, Smith 2006): what is (ε, 0)-private adds up, exactly; PLD beside it may not lie above.

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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from dp_accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    NeighboringRelation,
    NonPrivateDpEvent,
    NoOpDpEvent,
    PoissonSampledDpEvent,
    SampledWithoutReplacementDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from dp_accounting.rdp import compute_epsilon
from scipy.optimize import brentq
from scipy.stats import norm

from dptrain import dominating, privacy_losses
from dptrain.dominating import PairedDpEvent, PureDpEvent, TruncatedPoissonDpEvent
from dptrain.errors import PlanError

RELATIONS = {
    "add_or_remove_one": NeighboringRelation.ADD_OR_REMOVE_ONE,
    "zero_out_one": NeighboringRelation.REPLACE_SPECIAL,
    # σ multiplies the sensitivity under the plan's relation, here 2 C; REPLACE_ONE would take it to multiply C.
    "replace_one": NeighboringRelation.ADD_OR_REMOVE_ONE,
}

Steps = tuple[float, float, int]
"""Noise multiplier, sampling rate, count."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """ε by two independent ways of counting, and their names."""

    epsilon: float
    cross_check: float
    accountant: str
    cross_check_accountant: str


def count(event: DpEvent, delta: float, relation: str = "add_or_remove_one") -> Counted:
    """ε as it is reported: by PRV with PLD beside it, or where PRV cannot count, by PLD with RDP above it; pure ε as a sum.

    Raises:
        PlanError: the accountants contradict each other.
    """
    reported = epsilon(event, delta, relation)
    if is_pure(event):
        cross_check = epsilon_pld(event, delta, relation)
        check_between(cross_check, 0.0, reported)
        names = "Pure ε, summed (Dwork et al. 2006)", "PLD (Doroshenko et al. 2022), pessimistic"
    elif prv_can_count(event):
        cross_check = epsilon_pld(event, delta, relation)
        check_agreement(reported, cross_check)
        names = "PRV (Gopi et al. 2021), upper end", "PLD (Doroshenko et al. 2022), pessimistic"
    else:
        cross_check = epsilon_rdp(event, delta)
        check_between(reported, epsilon_prv(_poisson_floor(event), delta), cross_check)
        names = "PLD of a dominating pair (Zhu et al. 2022), pessimistic", "RDP (Mironov 2017; Wang et al. 2019), upper bound"
    return Counted(epsilon=reported, cross_check=cross_check, accountant=names[0], cross_check_accountant=names[1])


def epsilon(event: DpEvent, delta: float, relation: str = "add_or_remove_one") -> float:
    """The figure that :func:`count` reports, without its cross-check."""
    if is_pure(event):
        return sum(leaf.epsilon * times for leaf, times in _leaves(event, 1) if isinstance(leaf, PureDpEvent))
    return epsilon_prv(event, delta) if prv_can_count(event) else epsilon_pld(event, delta, relation)


def is_pure(event: DpEvent) -> bool:
    """Whether an event consists of one or more mechanisms of pure ε, and of nothing else."""
    leaves = _leaves(event, 1)
    return bool(leaves) and all(isinstance(leaf, PureDpEvent) for leaf, _ in leaves)


def prv_can_count(event: DpEvent) -> bool:
    """Whether an event consists of nothing but Gaussians, Poisson-sampled or not."""
    return not any(isinstance(leaf, _PAIRED) for leaf, _ in _leaves(event, 1))


def steps_of(event: DpEvent) -> list[Steps] | None:
    """The (possibly subsampled) Gaussians that an event consists of; None where it promises nothing.

    Raises:
        PlanError: the event holds a mechanism that is not of that kind.
    """
    merged: dict[tuple[float, float], int] = {}
    for leaf, times in _leaves(event, 1):
        if isinstance(leaf, _PAIRED):
            raise PlanError(f"the PRV accountant cannot count the event {leaf}; use epsilon_pld() or count()")
        sigma = _noise_of(leaf)
        if sigma == 0:
            return None
        rate = leaf.sampling_probability if isinstance(leaf, PoissonSampledDpEvent) else 1.0
        merged[sigma, rate] = merged.get((sigma, rate), 0) + times
    return [(sigma, rate, times) for (sigma, rate), times in merged.items() if rate]


_PAIRED = (SampledWithoutReplacementDpEvent, TruncatedPoissonDpEvent, PairedDpEvent)
"""Events that are counted by a dominating pair."""


def _leaves(event: DpEvent, times: int) -> list[tuple[DpEvent, int]]:
    """The single mechanisms of an event, and how often each is applied: at least once."""
    match event:
        case NoOpDpEvent():
            return []
        case NonPrivateDpEvent() | GaussianDpEvent() | TruncatedPoissonDpEvent() | PairedDpEvent():
            return [(event, times)]
        case PoissonSampledDpEvent(event=GaussianDpEvent()) | SampledWithoutReplacementDpEvent(event=GaussianDpEvent()):
            return [(event, times)]
        case SelfComposedDpEvent():
            return _leaves(event.event, times * event.count) if event.count else []
        case ComposedDpEvent():
            return [leaf for inner in event.events for leaf in _leaves(inner, times)]
    raise PlanError(
        f"no accountant here knows the event {event}; accepted: Gaussian, by itself or over a sample that is Poisson, "
        "truncated Poisson or of fixed size, events that bring their dominating pair, and their compositions"
    )


def _noise_of(leaf: DpEvent) -> float:
    """0 where a mechanism promises nothing."""
    match leaf:
        case PairedDpEvent():
            return 0.0 if leaf.promises_nothing else 1.0
        case GaussianDpEvent() | TruncatedPoissonDpEvent():
            return leaf.noise_multiplier
        case PoissonSampledDpEvent() | SampledWithoutReplacementDpEvent():
            return _noise_of(leaf.event)
    return 0.0


def _promises_nothing(event: DpEvent) -> bool:
    return any(_noise_of(leaf) == 0 for leaf, _ in _leaves(event, 1))


def merged(event: DpEvent) -> tuple[tuple[DpEvent, int], ...]:
    """The single mechanisms of an event, each once, and how often it is applied."""
    found: dict[DpEvent, int] = {}
    for leaf, times in _leaves(event, 1):
        found[leaf] = found.get(leaf, 0) + times
    return tuple(found.items())


def _poisson_floor(event: DpEvent) -> DpEvent:
    """The event with plain Poisson sampling of the same rate in place of what PRV cannot count."""
    parts: list[DpEvent] = []
    for leaf, times in _leaves(event, 1):
        match leaf:
            case PairedDpEvent():
                leaf = leaf.floor()
            case TruncatedPoissonDpEvent():
                leaf = PoissonSampledDpEvent(leaf.sampling_probability, GaussianDpEvent(leaf.noise_multiplier))
            case SampledWithoutReplacementDpEvent():
                leaf = PoissonSampledDpEvent(leaf.sample_size / leaf.source_dataset_size, leaf.event)
        parts.append(SelfComposedDpEvent(leaf, times))
    return ComposedDpEvent(parts)


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
    if not steps:
        return 0.0

    from dptrain import prv

    with warnings.catch_warnings(), np.errstate(all="ignore"):  # log 0 at q = 1 is meant; RDP only sizes the grid
        warnings.simplefilter("ignore")
        try:
            epsilon = prv.epsilon(steps, delta, 0.01 if error is None else error)
            if error is None and epsilon < 0.5:
                epsilon = prv.epsilon(steps, delta, 0.001)
        except (ValueError, RuntimeError) as reason:
            raise PlanError(f"the PRV accountant cannot count at δ = {delta:g} ({reason}); give a larger δ") from None
    if not epsilon >= 0:
        raise PlanError(f"the PRV accountant gave ε = {epsilon} at δ = {delta:g}, which no mechanism has; check δ")
    return epsilon


class Profile(Protocol):
    """δ(ε) and back, of whatever."""

    def get_epsilon(self, delta: float, /) -> Any: ...
    def get_delta(self, epsilon: float, /) -> Any: ...


def losses(event: DpEvent, relation: str = "add_or_remove_one") -> PrivacyLossDistribution:
    """Privacy losses of everything that an event consists of, composed, in both directions, rounded up."""
    if prv_can_count(event):
        return _gaussian_losses(tuple(_leaves(event, 1)), relation)
    return _paired_losses(merged(event), relation)


@functools.lru_cache(maxsize=4)  # a guarantee is counted, and then what it permits; each may take megabytes
def _gaussian_losses(parts: tuple[tuple[DpEvent, int], ...], relation: str) -> PrivacyLossDistribution:
    accountant = PLDAccountant(RELATIONS[relation])
    accountant.compose(ComposedDpEvent([SelfComposedDpEvent(leaf, times) for leaf, times in parts]))
    return accountant._pld  # it has no other way to read them


@functools.lru_cache(maxsize=64)
def _paired_losses(parts: tuple[tuple[DpEvent, int], ...], relation: str) -> PrivacyLossDistribution:
    for leaf, _ in parts:
        proved = _proved(leaf)
        if relation not in proved:
            accepted = " or ".join(repr(name) for name in proved)
            raise PlanError(f"relation is {relation!r}, under which nothing is proved for {leaf}; give {accepted}")
    composed = [dominating.losses(leaf).self_compose(times) for leaf, times in parts]
    return functools.reduce(PrivacyLossDistribution.compose, composed)


def _proved(leaf: DpEvent) -> tuple[str, ...]:
    """The relations under which a mechanism's pair is proved."""
    match leaf:
        case PairedDpEvent():
            return leaf.relations
        case TruncatedPoissonDpEvent():
            return ("add_or_remove_one",)
        case SampledWithoutReplacementDpEvent():
            return ("replace_one",)
    return tuple(RELATIONS)


def epsilon_pld(event: DpEvent, delta: float, relation: str = "add_or_remove_one") -> float:
    """ε by privacy loss distributions, rounded up."""
    if _promises_nothing(event):
        return math.inf
    return float(losses(event, relation).get_epsilon_for_delta(delta))


def epsilon_rdp(event: DpEvent, delta: float) -> float:
    """ε by Rényi DP as Opacus converts it; an upper bound, and a loose one."""
    from opacus.accountants import RDPAccountant

    if _promises_nothing(event):
        return math.inf
    if not prv_can_count(event):
        return _epsilon_rdp_of_pairs(event, delta)
    steps = steps_of(event)
    if not steps:
        return 0.0
    accountant = RDPAccountant()
    accountant.history = list(steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta))


def epsilon_bound(event: DpEvent, delta: float) -> float:
    """An upper bound on ε in a hundredth of the time: RDP at whole orders."""
    return math.inf if _promises_nothing(event) else _epsilon_rdp_of_pairs(event, delta)


def _epsilon_rdp_of_pairs(event: DpEvent, delta: float) -> float:
    total = np.sum([times * dominating.renyi(leaf, _ORDERS) for leaf, times in merged(event)], axis=0)
    return float(compute_epsilon(_ORDERS, total.tolist(), delta)[0])


_ORDERS = (*range(2, 33), 40, 48, 64, 96, 128)
"""Whole Rényi orders alone: there every term is a finite sum, and libraries agree to rounding. Fewer orders are only looser."""


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


def check_between(reported: float, floor: float, ceiling: float) -> None:
    """What PLD reports must not lie below PRV's floor by more than the two may differ, nor above RDP's ceiling.

    Raises:
        PlanError: it does.
    """
    if math.isinf(reported) and math.isinf(ceiling):
        return
    if not floor - (0.02 + 0.01 * floor) <= reported <= ceiling + 0.01:
        raise PlanError(
            f"the accountants disagree: PLD says ε = {reported:.4f}, outside of {floor:.4f} (PRV, of less) to "
            f"{ceiling:.4f} (RDP), so it is not reported; use a larger δ or less extreme noise"
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
        return float(self.true_positive_rates(np.array([float(false_positive_rate)]))[0])

    def auc(self) -> float:
        """The area under the curve, as a sum of right-hand ends: never below the true area, above it by at most 1/4000."""
        grid = np.linspace(0, 1, 4001)
        return float(np.mean(self.true_positive_rates(grid)[1:]))

    def true_positive_rates(self, alpha: np.ndarray) -> np.ndarray:
        """The same at several false positive rates, ``[rates]``."""
        if len(self.epsilons) == 0:
            return np.ones_like(alpha)
        direct, mirrored = np.full_like(alpha, np.inf), np.full_like(alpha, -np.inf)
        for epsilon, delta in zip(self.epsilons, self.deltas, strict=True):
            direct = np.minimum(direct, np.exp(epsilon) * alpha + delta)
            mirrored = np.maximum(mirrored, np.exp(-epsilon) * (1 - delta - alpha))
        return np.clip(np.minimum(direct, 1 - mirrored), alpha, 1.0)


def tradeoff_curve(event: DpEvent, relation: str = "add_or_remove_one") -> TradeoffCurve:
    """The curve of an event; without a guarantee, everything is permitted."""
    if _promises_nothing(event):
        return TradeoffCurve(np.empty(0), np.empty(0))
    if not prv_can_count(event):
        return curve_of_losses([losses(event, relation)])
    return _tradeoff_curve(tuple(sorted(steps_of(event) or ())), relation)


def exchange_curve(event: DpEvent) -> TradeoffCurve:
    """The curve of an event of Poisson-sampled Gaussians, where a unit stays and what it contributes is exchanged.

    That is the pair of an attack on one *example* of a user: with and without it, the user's one clipped gradient is another,
    by up to twice the clipping norm (:mod:`dptrain.dominating`). A user who had this example alone and then leaves differs by
    once that norm, for which the curve of :func:`tradeoff_curve` holds, as it does for a user's presence.

    Raises:
        PlanError: the event holds a mechanism that is not of that kind.
    """
    steps = steps_of(event)
    if steps is None:
        return TradeoffCurve(np.empty(0), np.empty(0))
    return _exchange_curve(tuple(sorted(steps)))


@functools.lru_cache(maxsize=64)
def _exchange_curve(steps: tuple[Steps, ...]) -> TradeoffCurve:
    if not steps:
        return TradeoffCurve(np.zeros(1), np.zeros(1))
    composed = [dominating.exchanged_in_poisson(rate, sigma).self_compose(count) for sigma, rate, count in steps]
    return curve_of_losses([functools.reduce(PrivacyLossDistribution.compose, composed)])


@functools.lru_cache(maxsize=64)
def _tradeoff_curve(steps: tuple[Steps, ...], relation: str) -> TradeoffCurve:
    if not steps:
        return TradeoffCurve(np.zeros(1), np.zeros(1))
    event = ComposedDpEvent(
        [SelfComposedDpEvent(PoissonSampledDpEvent(q, GaussianDpEvent(sigma)), count) for sigma, q, count in steps]
    )
    return curve_of_losses([losses(event, relation)])


def curve_of_losses(each: Sequence[PrivacyLossDistribution]) -> TradeoffCurve:
    """The curve of composed privacy losses; of several, the one that holds for whichever of them it is."""
    epsilons = _supporting(max(float(one.get_epsilon_for_delta(SMALLEST)) for one in each))
    return TradeoffCurve(epsilons, np.max([privacy_losses.deltas(one, epsilons) for one in each], axis=0))


def curve_of_profile(profile: Profile) -> TradeoffCurve:
    """The curve of anything else whose δ(ε) is known."""
    epsilons = _supporting(float(profile.get_epsilon(SMALLEST)))
    return TradeoffCurve(epsilons, np.array([float(profile.get_delta(epsilon)) for epsilon in epsilons]))


SMALLEST = 1e-9
"""The δ up to which a curve has its ε."""


def _supporting(top: float) -> np.ndarray:
    """The ε at which a curve is supported: fewer would only raise it."""
    top = max(top, 1e-3)
    return np.concatenate([[0.0], np.geomspace(top * 1e-4, top, 160)])
