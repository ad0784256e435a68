"""Published ε figures, reproduced to the digits given.

Opacus' own PRV test expects 6.777396 for σ = 1.5, q = 0.04 and ``int(90 // 0.04)`` steps. In floating point that is 2249
steps, one fewer than 90/0.04 = 2250: the rounding trap of sharp edge 4, in the reference's own test. Its RDP figure is for
2250 steps.
"""

import math

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from scipy.stats import norm

from dptrain import accounting
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
