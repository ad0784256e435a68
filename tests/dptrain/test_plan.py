"""The plan says everything once, and refuses what it could not mean."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dptrain import accounting
from dptrain.errors import PlanError
from dptrain.plan import PrivacyPlan
from dptrain.recipe import PrivacyConfig

PLAN = PrivacyPlan(sampling_rate=0.1, expected_batch_size=100, steps=50, clipping_norm=1.0, delta=1e-5)


@pytest.mark.parametrize("epsilon", [8.0, 1.0, 0.1])
def test_calibration_spends_the_budget_and_not_more(epsilon: float):
    spent = PLAN.calibrate(epsilon=epsilon).guarantee()
    assert spent.epsilon <= epsilon
    assert spent.epsilon > 0.98 * epsilon
    assert spent.cross_check <= epsilon * 1.01


def test_calibration_is_for_exactly_the_steps_that_run():
    """Sharp edge 4: one step more than planned must not fit into the same budget."""
    tight = PLAN.calibrate(epsilon=2.0)
    assert tight.guarantee().epsilon <= 2.0
    assert accounting.epsilon_prv(tight.event(), 1e-5) < accounting.epsilon_prv(
        dataclasses.replace(tight, steps=51).event(), 1e-5
    )


@pytest.mark.parametrize("steps", [2.5, 0, -1, True, "7"])
def test_steps_are_whole(steps: object):
    with pytest.raises(PlanError, match="whole number"):
        dataclasses.replace(PLAN, steps=steps)


def test_delta_of_one_over_n_is_refused():
    """Sharp edge 16: such a δ allows a whole example to be published."""
    with pytest.raises(PlanError, match="below 1/N"):
        dataclasses.replace(PLAN, delta=1e-3, noise_multiplier=1.0)
    with pytest.raises(PlanError, match="below 1/N"):
        dataclasses.replace(PLAN, noise_multiplier=1.0).check_delta(100_000)


def test_delta_near_one_over_n_is_warned_about():
    with pytest.warns(UserWarning, match="above 1/\\(10 N\\)"):
        dataclasses.replace(PLAN, delta=5e-4, noise_multiplier=1.0)


def test_delta_of_nine_tenths_never_gives_a_negative_epsilon():
    """Sharp edge 16: Opacus answered ε = −2.28."""
    with pytest.raises(PlanError):
        dataclasses.replace(PLAN, delta=0.9, noise_multiplier=1.0)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan])
def test_a_budget_of_nothing_is_refused(epsilon: float):
    with pytest.raises(PlanError, match="above 0"):
        PLAN.calibrate(epsilon=epsilon)


def test_no_noise_or_no_clipping_promises_nothing():
    for plan in (PLAN, dataclasses.replace(PLAN, clipping_norm=math.inf), PLAN.calibrate(epsilon=math.inf)):
        stated = plan.guarantee()
        assert math.isinf(stated.epsilon)
        assert math.isinf(stated.cross_check)
        assert "No differential privacy" in stated.statement


def test_noise_without_clipping_is_refused():
    with pytest.raises(PlanError, match="clipping_norm is infinite"):
        dataclasses.replace(PLAN, clipping_norm=math.inf, noise_multiplier=1.0)


def test_the_unit_and_both_accountants_are_in_the_statement():
    """Sharp edges 20 and 22."""
    stated = PLAN.calibrate(epsilon=3.0).guarantee()
    assert stated.unit == "example"
    for words in ("one example", "PRV", "PLD", f"{stated.cross_check:.4f}", "1e-05", "expected batch size"):
        assert words in stated.statement


def test_accountants_that_disagree_are_an_error():
    """Sharp edge 20."""
    accounting.check_agreement(6.779, 6.769)
    with pytest.raises(PlanError, match="disagree"):
        accounting.check_agreement(6.0, 6.8)
    with pytest.raises(PlanError, match="disagree"):
        accounting.check_agreement(math.inf, 6.8)


def test_the_config_becomes_the_plan_unchanged():
    config = PrivacyConfig(epsilon=4.0, sampling_rate=0.5, expected_batch_size=449.0, clipping_norm=0.2)
    plan = PrivacyPlan.from_config(config, 30)
    assert (plan.sampling_rate, plan.expected_batch_size, plan.clipping_norm, plan.steps) == (0.5, 449.0, 0.2, 30)
    assert plan.guarantee().epsilon <= 4.0
    without = PrivacyPlan.from_config(dataclasses.replace(config, mechanism="none", epsilon=None), 30)
    assert not without.is_private
    with pytest.raises(PlanError, match=r"privacy\.epsilon"):
        PrivacyPlan.from_config(dataclasses.replace(config, epsilon=None), 30)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.6, 20), st.floats(0.01, 1.0), st.integers(1, 200))
def test_more_steps_and_less_noise_never_cost_less(sigma: float, rate: float, steps: int):
    plan = PrivacyPlan(
        sampling_rate=rate, expected_batch_size=1000 * rate, steps=steps, clipping_norm=1.0, delta=1e-5, noise_multiplier=sigma
    )
    base = accounting.epsilon_prv(plan.event(), 1e-5, error=0.01)
    longer = accounting.epsilon_prv(dataclasses.replace(plan, steps=steps + 20).event(), 1e-5, error=0.01)
    quieter = accounting.epsilon_prv(dataclasses.replace(plan, noise_multiplier=sigma * 0.8).event(), 1e-5, error=0.01)
    assert longer >= base - 1e-6
    assert quieter >= base - 1e-6
