"""Published ε figures, reproduced to the digits given.

Opacus' own PRV test expects 6.777396 for σ = 1.5, q = 0.04 and ``int(90 // 0.04)`` steps. In floating point that is 2249
steps, one fewer than 90/0.04 = 2250: the rounding trap of sharp edge 4, in the reference's own test. Its RDP figure is for
2250 steps.
"""

import math

import pytest
from dp_accounting import (
    ComposedDpEvent,
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
    SampledWithoutReplacementDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.dp_event import TruncatedSubsampledGaussianDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from dp_accounting.rdp import RdpAccountant
from scipy.stats import binom, norm

from dptrain import accounting, dominating
from dptrain.dominating import TruncatedPoissonDpEvent
from dptrain.errors import PlanError
from dptrain.plan import PrivacyPlan


def steps(sigma: float, rate: float, count: int) -> SelfComposedDpEvent:
    return SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(sigma)), count)


def test_opacus_counts_2249_steps_where_2250_are_meant():
    assert int(90 // 0.04) == 2249
    assert round(90 / 0.04) == 2250


def test_prv_and_rdp_agree_with_opacus_own_figures():
    assert accounting.epsilon_prv(steps(1.5, 0.04, 2249), 1e-5) == pytest.approx(6.777395712, abs=1e-6)
    assert accounting.epsilon_rdp(steps(1.5, 0.04, 2250), 1e-5) == pytest.approx(7.32911117143, abs=1e-6)


def test_one_step_more_costs_more():
    assert accounting.epsilon_prv(steps(1.5, 0.04, 2250), 1e-5) == pytest.approx(6.77913, abs=1e-4)


def test_pld_and_prv_agree_within_a_hundredth_and_a_half():
    for sigma, rate, count, delta in [(1.5, 0.04, 2250, 1e-5), (5.0, 1.0, 60, 1e-4), (2.0, 0.2, 60, 1e-4)]:
        event = steps(sigma, rate, count)
        assert accounting.epsilon_prv(event, delta) == pytest.approx(accounting.epsilon_pld(event, delta), abs=0.015)


@pytest.mark.parametrize(("mu", "epsilon"), [(0.5, 1.9931), (1.0, 4.3772), (2.0, 9.9973)])
def test_gaussian_dp_has_its_closed_form(mu: float, epsilon: float):
    assert accounting.gdp_mu_to_epsilon(mu, 1e-5) == pytest.approx(epsilon, abs=5e-5)
    # A Gaussian mechanism with noise multiplier 1/μ is exactly μ-GDP, so both accountants must find the same ε.
    assert accounting.epsilon_prv(GaussianDpEvent(1 / mu), 1e-5) == pytest.approx(epsilon, abs=0.012)
    assert accounting.epsilon_pld(GaussianDpEvent(1 / mu), 1e-5) == pytest.approx(epsilon, abs=2e-3)


def test_noise_for_epsilon_8_agrees_with_opacus():
    plan = PrivacyPlan(sampling_rate=0.04, expected_batch_size=400, steps=2250, clipping_norm=1.0, delta=1e-5)
    assert plan.calibrate(epsilon=8.0).noise_multiplier == pytest.approx(1.3477, abs=2e-3)


def test_permitted_rates_agree_with_gaussian_differential_privacy():
    # Rule 15 of the method: ε = 1 at δ = 1e-4 is μ ≈ 0.31, so AUC ≤ .588 and TPR at 1% FPR ≤ .022.
    mu = 0.31
    curve = accounting.tradeoff_curve(GaussianDpEvent(1 / mu))
    assert curve.auc() == pytest.approx(norm.cdf(mu / math.sqrt(2)), abs=2e-3)
    assert curve.true_positive_rate(0.01) == pytest.approx(norm.cdf(mu + norm.ppf(0.01)), abs=1e-3)
    assert curve.auc() >= norm.cdf(mu / math.sqrt(2))
    assert round(curve.true_positive_rate(0.01), 3) == 0.022


@pytest.mark.parametrize(("rate", "sigma", "count"), [(0.01, 1.0, 200), (0.5, 2.0, 20), (0.99, 1.0, 5), (1.0, 1.0, 3)])
def test_own_poisson_losses_agree_with_dp_accounting(rate: float, sigma: float, count: int):
    """The pairs of mixtures are discretised from own closed forms: they must be the library's, in both directions."""
    own = dominating.poisson(rate, sigma).self_compose(count)
    library = from_gaussian_mechanism(sigma, sampling_prob=rate).self_compose(count)
    for delta in (1e-3, 1e-6):
        assert own.get_epsilon_for_delta(delta) == pytest.approx(library.get_epsilon_for_delta(delta), abs=1e-5)


def test_one_fixed_size_step_has_the_closed_form_of_amplification_by_subsampling():
    """ε′ = log(1 + γ (e^ε − 1)), δ′ = γ δ (Balle, Barthe, Gaboardi 2018), at the Gaussian's own (ε, δ)."""
    share, sigma = 0.1, 1.0
    event = SampledWithoutReplacementDpEvent(500, 50, GaussianDpEvent(sigma))
    for delta in (1e-3, 1e-6):
        whole = accounting.gdp_mu_to_epsilon(1 / sigma, delta)
        amplified = math.log1p(share * math.expm1(whole))
        assert accounting.epsilon_pld(event, share * delta, "replace_one") == pytest.approx(amplified, abs=1e-4)


def test_a_fixed_size_of_everything_is_the_gaussian_mechanism():
    event = SelfComposedDpEvent(SampledWithoutReplacementDpEvent(300, 300, GaussianDpEvent(5.0)), 25)
    assert accounting.epsilon_pld(event, 1e-5, "replace_one") == pytest.approx(4.3772, abs=2e-3)  # 1-GDP


def test_fixed_size_rdp_is_dp_accountings_own():
    event = SelfComposedDpEvent(SampledWithoutReplacementDpEvent(60000, 600, GaussianDpEvent(1.0)), 1000)
    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE).compose(event)
    assert accounting.epsilon_rdp(event, 1e-6) == pytest.approx(accountant.get_epsilon(1e-6), rel=0.02)
    assert accounting.epsilon_pld(event, 1e-6, "replace_one") < accountant.get_epsilon(1e-6)


def truncated(most: int, count: int = 500, sigma: float = 1.0) -> SelfComposedDpEvent:
    return SelfComposedDpEvent(TruncatedPoissonDpEvent(0.01, most, 60000, sigma), count)


def test_truncation_that_never_happens_costs_nothing():
    assert accounting.epsilon_pld(truncated(900), 1e-6) == pytest.approx(
        accounting.epsilon_pld(steps(1.0, 0.01, 500), 1e-6), abs=1e-5
    )


def test_truncation_that_always_happens_is_a_gaussian_of_twice_the_sensitivity():
    event = TruncatedPoissonDpEvent(1.0, 5, 40, 2.0)
    assert event.truncation_probability == 1.0
    assert accounting.epsilon_pld(event, 1e-5) == pytest.approx(4.3772, abs=2e-3)  # 1-GDP


@pytest.mark.parametrize("most", [650, 700, 720])
def test_truncated_poisson_lies_between_poisson_and_the_published_bounds(most: int):
    """Below δ + T (1 + e^ε) τ of Chua et al. 2024, τ the chance of a full batch; above dp-accounting's figure for exact N,
    but for its looser pair of the cut part."""
    event = truncated(most)
    weight, epsilon = float(binom.sf(most - 1, 59999, 0.01)), accounting.epsilon_pld(event, 1e-6)
    poisson = PLDAccountant().compose(steps(1.0, 0.01, 500))
    assert poisson.get_epsilon(1e-6) <= epsilon + 1e-6
    assert poisson.get_delta(epsilon) + 500 * (1 + math.exp(epsilon)) * weight >= 1e-6 - 1e-12
    exact = PLDAccountant().compose(SelfComposedDpEvent(TruncatedSubsampledGaussianDpEvent(60000, 0.01, most, 1.0), 500))
    assert epsilon == pytest.approx(exact.get_epsilon(1e-6), rel=0.02)
    fewer = PLDAccountant().compose(SelfComposedDpEvent(TruncatedSubsampledGaussianDpEvent(50000, 0.01, most, 1.0), 500))
    assert epsilon >= fewer.get_epsilon(1e-6) - 1e-6


def test_more_examples_than_a_batch_can_hold_are_never_a_reason_for_less():
    """dp-accounting's figure for N falls where N is far above B/q; a bound on N must not be rewarded for being generous."""
    figures = [
        accounting.epsilon_pld(TruncatedPoissonDpEvent(0.1, 50, at_most, 2.0), 1e-6) for at_most in (300, 500, 900, 5000)
    ]
    assert figures == sorted(figures)
    exact = [
        PLDAccountant().compose(TruncatedSubsampledGaussianDpEvent(n, 0.1, 50, 2.0)).get_epsilon(1e-6) for n in (900, 50000)
    ]
    assert exact[1] < exact[0]


def test_an_event_is_counted_under_the_relation_that_it_is_proved_for_alone():
    with pytest.raises(PlanError, match="give 'replace_one'"):
        accounting.epsilon_pld(SampledWithoutReplacementDpEvent(10, 5, GaussianDpEvent(1.0)), 1e-5)
    with pytest.raises(PlanError, match="give 'add_or_remove_one'"):
        accounting.epsilon_pld(truncated(700), 1e-5, "replace_one")
    with pytest.raises(PlanError, match="PRV accountant cannot count"):
        accounting.epsilon_prv(truncated(700), 1e-5)


def test_a_figure_outside_of_its_bounds_is_not_reported():
    """Sharp edge 20."""
    accounting.check_between(2.0, 1.9, 2.5)
    accounting.check_between(math.inf, math.inf, math.inf)
    for reported in (1.8, 2.6, math.inf, math.nan):
        with pytest.raises(PlanError, match="disagree"):
            accounting.check_between(reported, 1.9, 2.5)


def test_mechanisms_of_different_kinds_compose():
    """A ledger may hold blocks of several plans: together they cost more than the dearest, and less than the sum."""
    parts = [truncated(700, 50), steps(1.0, 0.01, 50), GaussianDpEvent(2.0)]
    alone = [accounting.epsilon_pld(part, 1e-6) for part in parts]
    together = accounting.count(ComposedDpEvent(parts), 1e-6)
    assert max(alone) < together.epsilon < sum(alone)
    assert together.epsilon < together.cross_check


def test_without_noise_nothing_is_promised_by_any_sampler():
    for event in (TruncatedPoissonDpEvent(0.1, 5, 40, 0.0), SampledWithoutReplacementDpEvent(10, 5, GaussianDpEvent(0.0))):
        assert math.isinf(accounting.epsilon_pld(event, 1e-5))
        assert math.isinf(accounting.epsilon_rdp(event, 1e-5))
        assert accounting.tradeoff_curve(event).true_positive_rate(0.0) == 1.0
