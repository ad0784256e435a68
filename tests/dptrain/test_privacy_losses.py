"""δ of privacy losses at many ε at once: as the library has it one by one, never below the truth, and cheap."""

import math

import numpy as np
import pytest
from dp_accounting import DpEvent, GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from scipy.stats import norm

from dptrain import accounting, privacy_losses
from dptrain.dominating import TruncatedPoissonDpEvent
from dptrain.privacy_losses import Losses

EVENTS = {
    "one Gaussian": GaussianDpEvent(0.8),
    "many": SelfComposedDpEvent(GaussianDpEvent(5.0), 300),
    "a large ε": SelfComposedDpEvent(GaussianDpEvent(1.0), 60),
    "sampled, of which each direction is another": SelfComposedDpEvent(PoissonSampledDpEvent(0.02, GaussianDpEvent(0.9)), 200),
    "of truncated batches": SelfComposedDpEvent(TruncatedPoissonDpEvent(0.02, 40, 1000, 1.0), 50),
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_deltas_are_those_of_one_epsilon_after_the_other_rounded_up(event: DpEvent):
    distribution = accounting.losses(event)
    top = float(distribution.get_epsilon_for_delta(1e-9))
    epsilons = np.concatenate([[0.0], np.geomspace(top * 1e-4, top, 40), [top + 1, top * 4 + 10]])
    found = privacy_losses.deltas(distribution, epsilons)
    wanted = np.array([float(np.asarray(distribution.get_delta_for_epsilon(float(epsilon)))) for epsilon in epsilons])
    assert (found >= wanted - 1e-15).all()
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-13)  # a mass that a transform made negative is none


@pytest.mark.parametrize(("sigma", "count"), [(0.8, 1), (5.0, 300), (1.0, 60)])
def test_deltas_of_a_gaussian_lie_above_the_exact_ones_and_near_them(sigma: float, count: int):
    mu = math.sqrt(count) / sigma
    epsilons = np.linspace(0, mu**2 / 2 + 4 * mu, 30)
    exact = norm.cdf(mu / 2 - epsilons / mu) - np.exp(epsilons + norm.logcdf(-mu / 2 - epsilons / mu))
    found = privacy_losses.deltas(accounting.losses(SelfComposedDpEvent(GaussianDpEvent(sigma), count)), epsilons)
    assert (found >= exact).all()
    np.testing.assert_allclose(found, exact, rtol=2e-3)


def test_deltas_of_randomized_response_are_exact():
    # P[l = ln 3] = 3/4, P[l = −ln 3] = 1/4, mixed with an output that is never seen without the unit: 1/10
    losses = Losses(np.array([-math.log(3), math.log(3)]), np.array([0.225, 0.675]), 0.1)
    epsilons = np.array([0.0, 0.5, math.log(3), 2.0])
    exact = [0.1 + 0.45, 0.1 + 0.675 * (1 - math.exp(0.5) / 3), 0.1, 0.1]
    np.testing.assert_allclose(losses.deltas(epsilons), exact, rtol=1e-14)


def test_what_was_counted_for_a_guarantee_serves_its_curve():
    event = SelfComposedDpEvent(PoissonSampledDpEvent(1.0, GaussianDpEvent(6.125)), 40)
    accounting.epsilon_pld(event, 1e-5)
    before = accounting._gaussian_losses.cache_info()
    accounting.tradeoff_curve(event)
    after = accounting._gaussian_losses.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
