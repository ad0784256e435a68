"""Noised sufficient statistics: no example moves them further than is stated, and without noise they are least squares."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dptrain.data.iwpc import load
from dptrain.errors import DataError, PlanError
from dptrain.recipe import DataConfig
from dptrain.regression import FittedLinear, fit_linear, norm_bound, statistics, statistics_plan

COLUMNS = ("age:number[0,100]", "sex:category[F,M]", "weight:number[30,200]?")
NORM = math.sqrt(1 + 0.25 + 1 + 1)


def examples(count: int, seed: int = 0, noise: float = 0.01) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.5
    weights = torch.tensor([0.2, -0.3, 0.1], dtype=torch.float64)
    return inputs, inputs @ weights + 0.05 + noise * torch.randn(count, generator=generator, dtype=torch.float64)


def fitted(epsilon: float, count: int = 2000, seed: int = 0, **changes: float) -> FittedLinear:
    settings = {"delta": 1e-5, "examples": float(count), "norm": math.sqrt(1.75)} | changes
    return fit_linear(*examples(count), statistics_plan(epsilon=epsilon, **settings), insecure_seed=seed)


number = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, 0.0])


@given(
    inputs=arrays(np.float64, (3, 4), elements=number), outputs=arrays(np.float64, 3, elements=number), norm=st.floats(0.1, 10)
)
@settings(deadline=None)
def test_no_example_moves_the_statistics_by_more_than_the_plan_says(inputs: np.ndarray, outputs: np.ndarray, norm: float):
    plan = statistics_plan(epsilon=5, delta=1e-5, examples=1000, norm=norm)
    with np.errstate(over="ignore", invalid="ignore"):
        added = statistics(inputs, outputs, norm)
    assert np.isfinite(added).all()
    assert np.linalg.norm(added, axis=1).max() <= plan.sensitivity * (1 + 1e-9)
    assert np.linalg.norm(added[0] - added[1]) <= 2 * plan.sensitivity * (1 + 1e-9)


def test_the_stated_sensitivity_is_reached():
    """By the longest example with the largest value; a smaller bound would be false."""
    row = np.array([[0.5, 1.0, 0.0, 1.0]])
    added = np.linalg.norm(statistics(row, np.array([0.5]), math.sqrt(3.25)))
    assert added == pytest.approx(statistics_plan(epsilon=5, delta=1e-5, examples=1000, norm=math.sqrt(3.25)).sensitivity)


def test_the_norm_follows_from_the_columns_alone():
    assert norm_bound(COLUMNS) == pytest.approx(NORM)


@pytest.mark.parametrize("huge", [math.inf, 500.0])
def test_without_noise_it_is_ordinary_least_squares(huge: float):
    inputs, outputs = examples(2000)
    found = fitted(huge)
    augmented = np.column_stack([inputs.numpy(), np.ones(len(inputs))])
    expected = np.linalg.lstsq(augmented, outputs.numpy(), rcond=None)[0]
    np.testing.assert_allclose([*found.weights, found.intercept], expected, atol=1e-8 if math.isinf(huge) else 1e-2)
    torch.testing.assert_close(
        found.model(inputs.float())[:, 0].double().detach(), torch.from_numpy(augmented @ expected), atol=1e-2, rtol=0
    )


def test_coefficients_come_closer_to_least_squares_as_the_budget_grows():
    expected = fitted(math.inf).weights
    away = [np.mean([np.linalg.norm(fitted(e, seed=seed).weights - expected) for seed in range(20)]) for e in (0.5, 5.0, 50.0)]
    assert away[0] > 2 * away[1] > 4 * away[2] > 0


def test_the_account_is_that_of_one_gaussian():
    """The closed form of Balle & Wang 2018 for ε and δ of a Gaussian mechanism."""
    from scipy.stats import norm

    plan = fitted(3.0).plan
    mu, epsilon = 1 / plan.noise_multiplier, plan.guarantee().epsilon
    delta = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    assert epsilon == pytest.approx(3.0, abs=1e-2)
    assert delta == pytest.approx(1e-5, rel=0.15)


def test_noise_is_as_large_as_counted_in_each_statistic():
    """The ridge is public, and says what deviation was added: σ Δ, enlarged by the rounding margin of the noise."""
    found = fitted(3.0)
    assert found.ridge / math.sqrt(2 * 4) == pytest.approx(found.plan.noise_multiplier * found.plan.sensitivity, rel=1e-5)


def test_noise_is_fresh_at_each_fit():
    inputs, outputs = examples(100)
    plan = statistics_plan(epsilon=3, delta=1e-3, examples=100, norm=1.4)
    assert not np.array_equal(fit_linear(inputs, outputs, plan).weights, fit_linear(inputs, outputs, plan).weights)


def test_what_means_nothing_is_refused():
    inputs, outputs = examples(100)
    plan = statistics_plan(epsilon=3, delta=1e-3, examples=100, norm=1.4)
    with pytest.raises(PlanError, match=r"statistics_plan\(\)"):
        fit_linear(inputs, outputs, dataclasses.replace(plan, steps=2))
    with pytest.raises(PlanError, match="norm is inf"):
        statistics_plan(epsilon=3, delta=1e-3, examples=100, norm=math.inf)
    with pytest.raises(DataError, match="one output an input"):
        fit_linear(inputs, outputs[:50], plan)
    with pytest.raises(PlanError, match="not below 1/N"):
        fit_linear(*examples(2000), plan)


@pytest.mark.slow
def test_warfarin_doses_are_predicted_within_the_stated_error(shared_data: Path):
    """At most 9.8 mg a week at ε = 5, over 10 seeds with a quarter held out; without noise at most 9.6."""
    cohort = load(DataConfig(name="iwpc", path=str(shared_data)))
    assert cohort.value is not None
    dose = cohort.value.decode(cohort.targets.double().numpy())
    for epsilon, most in ((math.inf, 9.6), (5.0, 9.8)):
        plan = statistics_plan(epsilon=epsilon, delta=3e-5, examples=3000, norm=norm_bound(cohort.columns))
        errors = []
        for seed in range(10):
            held_out = torch.from_numpy(np.random.default_rng(seed).random(len(cohort)) < 0.25)
            found = fit_linear(cohort.inputs[~held_out], cohort.targets[~held_out], plan, insecure_seed=seed)
            said = cohort.value.decode(found.model(cohort.inputs[held_out])[:, 0].detach().double().numpy())
            errors.append(np.abs(said - dose[held_out.numpy()]).mean())
        assert np.mean(errors) <= most
