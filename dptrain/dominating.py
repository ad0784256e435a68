"""Pairs of distributions that are at least as easy to tell apart as any two neighbours, where no library counts safely.

A pair (P, Q) dominates a mechanism M where H_α(M(D) ‖ M(D′)) ≤ H_α(P ‖ Q) for all neighbours and every α ≥ 0, with
H_α(P ‖ Q) = ∫ max(0, dP − α dQ), which is δ at ε = log α. Products of dominating pairs dominate adaptive compositions
(Zhu, Dong, Wang 2022, "Optimal Accounting of Differential Privacy via Characteristic Function", theorem 10). All noise below
is in units of the sensitivity under the plan's relation; G = (N(1, σ²), N(0, σ²)) is one Gaussian.

**Fixed size, without replacement, replacing one.** B of N examples are drawn, γ = B/N. Given that the replaced example is
left out, the output is μ₀; given that it is drawn, μ₁ with the old and μ₁′ with the new value. Any two of the three can be
coupled so that sums differ by the exchange of one gradient for another: each pair is dominated by G. For α ≥ 1 let
α′ = 1 + (α − 1)/γ and β = α/α′; then (advanced joint convexity: Balle, Barthe, Gaboardi 2018)

    H_α((1−γ)μ₀ + γμ₁ ‖ (1−γ)μ₀ + γμ₁′) = γ H_α′(μ₁ ‖ (1−β)μ₀ + βμ₁′) ≤ γ H_α′(G)

and for α < 1, since H_α(A ‖ B) = 1 − α + α H_{1/α}(B ‖ A) and the roles of the neighbours can be exchanged,

    H_α ≤ 1 − α + α γ H_{1 + (1/α − 1)/γ}(G).

This curve h is convex (at α = 1 its slope rises from −(1−γ)Φ(1/2σ) − γΦ(−1/2σ) to −Φ(−1/2σ)), falls, and lies above
max(0, 1 − α): it belongs to a pair, which is discretised from h itself. Neither the add nor the remove direction of Poisson
sampling alone would do: each lies below h on one side of α = 1.

**Truncated Poisson, adding or removing one.** Each example is drawn with probability q; of more than B drawn, a uniform
subset of B is kept. Let S be how many of the *others* were drawn: it has the same distribution whether or not the example is
there, so revealing whether S ≥ B can only help the attacker, and the mechanism is a mixture over that.

* S < B: nothing is cut off with or without the example: Poisson sampling with rate q, sensitivity 1.
* S ≥ B: without the example the batch is a uniform B-subset of the others, whatever S is. With it, the example takes the
  place of one of these with probability q B / (S + 1) < q: Poisson sampling with a rate below q, sensitivity 2.

A smaller rate is dominated by a larger one (keep the output with probability p/q, else draw it anew from Q), sensitivity 1 by
sensitivity 2 (halve the output and add noise), and so, whatever N ≤ max_examples is, the mixture is dominated by

    (1 − w) · Poisson(q, sensitivity 1) + w · Poisson(q, sensitivity 2),    w = P[Binomial(max_examples − 1, q) ≥ B]

as w only grows with N. The exact figure of one N would not be safe for a smaller one: of many more examples than B/q, each
is kept more rarely. ``dp_accounting.TruncatedSubsampledGaussianDpEvent`` states one N, which is private here, and is not used.

**Poisson, where a unit stays and what it contributes is another.** A user is drawn with probability q in both data sets, and
contributes g in one and g′ in the other, each of norm at most 1: the sums differ by up to 2. Others are drawn by coins of their
own, so let μ₀ be the output given that the user is not drawn, μ₁ with g and μ₁′ with g′. Any two of the three are at most 2
apart, whatever the others are, and so dominated by a Gaussian of sensitivity 2, which is one of sensitivity 1 with noise σ/2.
From there on the derivation for a fixed size, above, holds word for word with γ = q: the pair is that of its h, at σ/2. Where a
user's examples are a random subset, g and g′ are drawn too; a mixture over them is dominated as each pair is, by convexity.
At q = 1 nothing is lost: g = −g′ of norm 1 are Gaussians that are 2 apart.

**Pure ε.** Whatever is (ε, 0)-differentially private is dominated by one answer of randomised response, which is true with
probability e^ε/(1 + e^ε) (Kairouz, Oh, Viswanath 2015, "The Composition Theorem for Differential Privacy").

A mechanism elsewhere in the house brings its pair with it: :class:`PairedDpEvent`.
"""

import functools
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from dp_accounting import (
    DpEvent,
    GaussianDpEvent,
    NeighboringRelation,
    NoOpDpEvent,
    PoissonSampledDpEvent,
    SampledWithoutReplacementDpEvent,
)
from dp_accounting.pld import pld_pmf
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from dp_accounting.rdp import RdpAccountant
from scipy.special import log_ndtr, ndtr
from scipy.stats import binom

from dptrain.errors import PlanError

INTERVAL = 1e-4
"""Width of the grid of privacy losses, in nats, as ``dp-accounting`` takes it."""


class PairedDpEvent(DpEvent):
    """A mechanism that brings its dominating pair; hashable, as accounts are kept for reuse."""

    relations: ClassVar[tuple[str, ...]]
    """Under which the pair is proved."""

    @property
    @abstractmethod
    def promises_nothing(self) -> bool:
        """Whether there is no noise."""

    @abstractmethod
    def losses(self) -> PrivacyLossDistribution:
        """Privacy losses of one application, in both directions, on a grid of :data:`INTERVAL`, rounded up."""

    @abstractmethod
    def renyi(self, orders: tuple[int, ...]) -> np.ndarray:
        """Upper bounds on its Rényi divergences, by code and proofs that share nothing with these losses, ``[orders]``."""

    @abstractmethod
    def floor(self) -> DpEvent:
        """Gaussians, Poisson-sampled or not, that cost no more, as PRV counts them; nothing, if there are none."""


@dataclass(frozen=True)
class PureDpEvent(PairedDpEvent):
    """Anything that is (ε, 0)-differentially private.

    ``dp_accounting``'s event of randomised response is not used: blanking, for it, is an answer that is drawn uniformly, and an
    edge that is blanked is a cell that holds 0.
    """

    epsilon: float

    relations = ("add_or_remove_one", "zero_out_one", "replace_one")

    @property
    def promises_nothing(self) -> bool:
        return math.isinf(self.epsilon)

    def losses(self) -> PrivacyLossDistribution:
        top = math.ceil(self.epsilon / INTERVAL)
        deltas = -np.expm1(np.arange(-top, top + 1) * INTERVAL - self.epsilon) / (1 + math.exp(-self.epsilon))
        grid = np.arange(-top, top + 1) * INTERVAL
        return PrivacyLossDistribution(rounded(-top, top, np.maximum(deltas, -np.expm1(np.minimum(grid, 0.0)))))

    def renyi(self, orders: tuple[int, ...]) -> np.ndarray:
        """Mironov 2017, proposition 5."""
        a, likely = np.asarray(orders), -math.log1p(math.exp(-self.epsilon))
        unlikely = likely - self.epsilon
        return np.logaddexp(a * likely + (1 - a) * unlikely, a * unlikely + (1 - a) * likely) / (a - 1)

    def floor(self) -> DpEvent:
        return NoOpDpEvent()


@dataclass(frozen=True)
class TruncatedPoissonDpEvent(DpEvent):
    """A Gaussian over a Poisson sample, of which at most ``max_batch_size`` are kept, out of at most ``max_examples``."""

    sampling_probability: float
    max_batch_size: int
    max_examples: int
    noise_multiplier: float

    @property
    def truncation_probability(self) -> float:
        """w: how likely the others alone fill the batch, at most."""
        return float(binom.sf(self.max_batch_size - 1, self.max_examples - 1, self.sampling_probability))


def gaussian_profile(epsilons: np.ndarray, sigma: float) -> np.ndarray:
    """δ(ε) of one Gaussian: Φ(1/2σ − εσ) − e^ε Φ(−1/2σ − εσ) (Balle and Wang 2018)."""
    below = np.exp(np.minimum(epsilons + log_ndtr(-0.5 / sigma - epsilons * sigma), 0.0))
    return np.clip(ndtr(0.5 / sigma - epsilons * sigma) - below, 0.0, 1.0)


def poisson_profiles(epsilons: np.ndarray, rate: float, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """δ(ε) of U = (1−q) N(0, σ²) + q N(1, σ²) against Q = N(0, σ²), and of Q against U: remove, add; both ``[epsilons]``.

    H_α(U ‖ Q) = q H_{1 + (α−1)/q}(G) while that order is above 0, and 1 − α below. H_α(Q ‖ U) = c H_{α q/c}(G) with
    c = 1 − α (1−q), and 0 where c is not above 0. Neither takes the difference of two large numbers.
    """
    shift = np.expm1(np.minimum(epsilons, 700.0)) / rate
    amplified = np.log1p(np.maximum(shift, np.nextafter(-1.0, 0.0)))
    remove = np.where(shift > -1, rate * gaussian_profile(amplified, sigma), -np.expm1(np.minimum(epsilons, 0.0)))
    with np.errstate(divide="ignore"):
        share = np.maximum(-np.expm1(np.minimum(epsilons + np.log1p(-rate), 0.0)), 0.0)
        within = share > 0
        weakened = epsilons + math.log(rate) - np.log(np.where(within, share, 1.0))
    return remove, np.where(within, share * gaussian_profile(weakened, sigma), 0.0)


def without_replacement_profile(epsilons: np.ndarray, share: float, sigma: float) -> np.ndarray:
    """h(e^ε), the profile of the pair that dominates sampling a share γ without replacement; see the module's text."""
    remove, add = poisson_profiles(epsilons, share, sigma)
    return np.where(epsilons >= 0, remove, add)


def _widest(rate: float, sigma: float) -> int:
    """The largest loss that matters, in steps of the grid: all but e⁻⁵⁰ of the Gaussian's own losses lie below."""
    return math.ceil(float(np.logaddexp(0.0, math.log(rate) + 0.5 / sigma**2 + 9.6 / sigma)) / INTERVAL)


def rounded(lower: int, upper: int, deltas: np.ndarray) -> pld_pmf.PLDPmf:
    """Losses on the grid whose profile touches the given one at its points and lies above it between ("Connect the Dots")."""
    clean = np.minimum.accumulate(np.clip(deltas, 0.0, 1.0))
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(INTERVAL, lower, upper, clean)


@functools.lru_cache(maxsize=16)
def without_replacement(share: float, sigma: float) -> PrivacyLossDistribution:
    """Privacy losses of one Gaussian step over a share γ = B/N of the examples, drawn without replacement."""
    top = _widest(share, sigma)
    grid = np.arange(-top, top + 1) * INTERVAL
    return PrivacyLossDistribution(rounded(-top, top, without_replacement_profile(grid, share, sigma)))


def exchanged_in_poisson(rate: float, sigma: float) -> PrivacyLossDistribution:
    """Privacy losses of one Gaussian step over a Poisson sample, where one unit's vector of norm at most 1 is another."""
    return without_replacement(rate, sigma / 2)


@functools.lru_cache(maxsize=16)
def poisson(rate: float, sigma: float) -> PrivacyLossDistribution:
    """Privacy losses of one Gaussian step over a Poisson sample, in both directions."""
    top = _widest(rate, sigma)
    end = top if rate == 1 else min(top, math.ceil(-math.log1p(-rate) / INTERVAL) + 1)  # no loss of one side lies beyond
    remove, _ = poisson_profiles(np.arange(-end, top + 1) * INTERVAL, rate, sigma)
    _, add = poisson_profiles(np.arange(-top, end + 1) * INTERVAL, rate, sigma)
    return PrivacyLossDistribution(rounded(-end, top, remove), rounded(-top, end, add))


def truncated_poisson(rate: float, weight: float, sigma: float) -> PrivacyLossDistribution:
    """Privacy losses of one Gaussian step over a truncated Poisson sample, filled by others with probability ``weight``."""
    whole = poisson(rate, sigma)
    return poisson(rate, sigma / 2).compute_mixture(whole, weight) if weight > 0 else whole


def losses(event: DpEvent) -> PrivacyLossDistribution:
    """Privacy losses of one step, rounded up."""
    match event:
        case PairedDpEvent():
            return event.losses()
        case TruncatedPoissonDpEvent():
            return truncated_poisson(event.sampling_probability, event.truncation_probability, event.noise_multiplier)
        case SampledWithoutReplacementDpEvent(event=GaussianDpEvent() as inner):
            return without_replacement(event.sample_size / event.source_dataset_size, inner.noise_multiplier)
        case PoissonSampledDpEvent(event=GaussianDpEvent() as inner):
            return poisson(event.sampling_probability, inner.noise_multiplier)
        case GaussianDpEvent():
            return poisson(1.0, event.noise_multiplier)
    raise PlanError(f"no dominating pair is known for {event}")


def renyi(event: DpEvent, orders: tuple[int, ...]) -> np.ndarray:
    """Rényi divergences of one step, by code and proofs that share nothing with :func:`losses`, ``[orders]``.

    Without replacement: Wang, Balle, Kasiviswanathan 2019, theorem 27. Truncated: the Rényi divergence of a mixture whose part
    is revealed, log((1−w) e^{(a−1)R₁} + w e^{(a−1)R₂}) / (a−1), of the parts' own (Mironov, Talwar, Zhang 2019).
    """
    if isinstance(event, PairedDpEvent):
        return event.renyi(orders)
    if isinstance(event, SampledWithoutReplacementDpEvent):
        return RdpAccountant(orders, NeighboringRelation.REPLACE_ONE).compose(event).rdp
    if not isinstance(event, TruncatedPoissonDpEvent):
        return RdpAccountant(orders).compose(event).rdp
    powers = np.asarray(orders) - 1
    whole, cut = (
        RdpAccountant(orders).compose(PoissonSampledDpEvent(event.sampling_probability, GaussianDpEvent(noise))).rdp * powers
        for noise in (event.noise_multiplier, event.noise_multiplier / 2)
    )
    weight = event.truncation_probability
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log1p(-weight) + whole, np.log(weight) + cut) / powers
