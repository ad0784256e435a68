"""What a budget means: against closed forms and published figures, and with what must hold of any plan."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis import rdp
from scipy.stats import norm

from dptrain import accounting
from dptrain.errors import PlanError
from dptrain.plan import PrivacyPlan
from evaluation import budget
from evaluation.budget import Outlook
from evaluation.inversion.bound import gaussian_bound

FULL = PrivacyPlan(sampling_rate=1.0, expected_batch_size=500, steps=16, clipping_norm=2.0, delta=1e-5, noise_multiplier=8.0)
"""Full batches: 16 Gaussians with σ = 8 are one with μ = 1/2, of which everything is known in closed form."""
SAMPLED = PrivacyPlan(sampling_rate=0.1, expected_batch_size=100, steps=30, clipping_norm=1.0, delta=1e-5, noise_multiplier=1.5)


@pytest.fixture(scope="module")
def full() -> Outlook:
    return budget.look_ahead(FULL, people=(1, 3))


@pytest.fixture(scope="module")
def sampled() -> Outlook:
    return budget.look_ahead(SAMPLED)


def test_epsilon_of_full_batches_is_that_of_one_gaussian(full: Outlook):
    assert full.guarantee.epsilon == pytest.approx(accounting.gdp_mu_to_epsilon(0.5, 1e-5), abs=0.012)
    assert budget.full_batch_mu(accounting.gdp_mu_to_epsilon(0.5, 1e-5), 1e-5) == pytest.approx(0.5, abs=1e-6)


def test_what_an_attacker_gains_at_full_batches_has_its_closed_form(full: Outlook):
    found = {gain.what: gain for gain in full.gains}
    for rate in budget.FALSE_POSITIVE_RATES:
        gain = found[f"TPR at {100 * rate:g}% FPR"]
        assert gain.guessing == rate
        assert gain.permitted == pytest.approx(norm.cdf(norm.ppf(rate) + 0.5), rel=0.01)
    assert found["AUC"].permitted == pytest.approx(norm.cdf(0.5 / math.sqrt(2)), abs=2e-3)
    advantage = found["membership advantage, TPR − FPR"].permitted
    assert advantage == pytest.approx(2 * norm.cdf(0.25) - 1, abs=1e-3)
    for count in budget.CANDIDATES:
        gain = found[f"reconstruction, one of {count:,} candidates"]
        assert (gain.guessing, gain.permitted) == (1 / count, pytest.approx(gaussian_bound(0.5, 1 / count), rel=0.01))


def test_people_together_count_like_one_with_so_many_times_the_gradient(full: Outlook):
    alone, three = full.households
    assert alone.epsilon == pytest.approx(accounting.gdp_mu_to_epsilon(0.5, 1e-5), abs=0.02)
    assert three.epsilon == pytest.approx(accounting.gdp_mu_to_epsilon(1.5, 1e-5), abs=0.05)
    assert three.epsilon >= accounting.gdp_mu_to_epsilon(1.5, 1e-5) - 1e-6  # it is rounded upward


def test_a_household_of_one_is_the_plan_itself_also_where_batches_are_sampled(sampled: Outlook):
    assert budget.household(SAMPLED, 1) == pytest.approx(sampled.guarantee.epsilon, abs=0.02)


@pytest.mark.parametrize("changes", [{"relation": "zero_out_one"}, {"sampling": "balls_in_bins"}, {"people": 0}])
def test_a_household_whose_epsilon_is_not_known_is_refused(changes: dict[str, object]):
    people = int(str(changes.pop("people", 2)))
    with pytest.raises(PlanError, match="household"):
        budget.household(dataclasses.replace(SAMPLED, **changes), people)  # pyright: ignore[reportArgumentType]


def test_full_batches_have_all_of_the_signal_to_noise_whatever_their_number(full: Outlook):
    whole = [choice for choice in full.choices if choice.expected_batch_size == 500]
    assert len(whole) == 3
    for choice in whole:
        assert choice.share == pytest.approx(1.0, abs=0.03)
        assert choice.epochs == choice.steps
    own = next(choice for choice in whole if choice.planned)
    assert own.noise_of_mean == pytest.approx(8.0 / 500)
    assert own.signal_to_noise == pytest.approx(math.sqrt(16) * 500 / 8.0)
    assert own.cost == 1


def test_every_row_of_the_table_keeps_to_the_budget_and_wastes_little_of_it(sampled: Outlook):
    assert len(sampled.choices) == 9
    assert sum(bool(choice.planned) for choice in sampled.choices) == 1
    for choice in sampled.choices:
        size = choice.expected_batch_size
        other = dataclasses.replace(
            SAMPLED, sampling_rate=size / 1000, expected_batch_size=size, steps=choice.steps,
            noise_multiplier=choice.noise_multiplier,
        )  # fmt: skip
        spent = accounting.epsilon_prv(other.event(), SAMPLED.delta)
        assert 0.985 * sampled.guarantee.epsilon <= spent <= sampled.guarantee.epsilon * (1 + 1e-9)
        assert choice.cost == pytest.approx(size * choice.steps / (100 * 30))


def test_signal_to_noise_does_not_depend_on_the_clipping_norm(full: Outlook):
    other = budget.table(dataclasses.replace(FULL, clipping_norm=0.1), full.guarantee.epsilon)
    assert [choice.signal_to_noise for choice in other] == pytest.approx([one.signal_to_noise for one in full.choices])


def test_the_advice_is_two_sentences_about_rows_of_the_table(sampled: Outlook):
    own = next(choice for choice in sampled.choices if choice.planned)
    first, second = sampled.advice
    assert f"{100 * own.share:.0f}% of the signal-to-noise" in first
    best = max((one for one in sampled.choices if one.cost <= 1.1), key=lambda one: one.share)
    assert second.startswith(f"For much the same computation {best.expected_batch_size:g} × {best.steps} steps")
    dear = tuple(one for one in sampled.choices if one.planned or one.cost > 1.1)
    assert "400 × 30 steps have" in budget.advice(dear, 1.0)[1]  # for 4 times the cost, and not for 16 times
    assert "Nothing in the table" in budget.advice((own,), 1.0)[1]
    assert budget.advice((), 1.0) == ()


def test_epsilon_falls_with_noise_and_grows_with_steps(full: Outlook, sampled: Outlook):
    for outlook in (full, sampled):
        assert np.all(np.diff([point.epsilon for point in outlook.over_noise]) < 0)
        assert np.all(np.diff([point.epsilon for point in outlook.over_steps]) > 0)
        plan = outlook.plan
        (own,) = [point.epsilon for point in outlook.over_steps if point.at == plan.steps]
        assert own == pytest.approx(outlook.guarantee.epsilon)
        assert [point.epsilon for point in outlook.over_noise if point.at == plan.noise_multiplier] == pytest.approx([own])


@settings(max_examples=5, deadline=None)
@given(rate=st.floats(0.05, 1.0), steps=st.integers(1, 40), sigma=st.floats(1.0, 4.0), exponent=st.integers(5, 8))
def test_the_steps_that_are_found_are_the_most_within_the_budget(rate: float, steps: int, sigma: float, exponent: int):
    plan = PrivacyPlan(
        sampling_rate=rate, expected_batch_size=1000 * rate, steps=steps, clipping_norm=1.0, delta=10.0**-exponent,
        noise_multiplier=sigma,
    )  # fmt: skip
    epsilon = accounting.epsilon(plan.event(), plan.delta)
    found = budget.with_steps_for(dataclasses.replace(plan, steps=1), epsilon)
    assert found.steps >= steps
    more = dataclasses.replace(found, steps=found.steps + 1)
    assert accounting.epsilon(found.event(), found.delta) <= epsilon < accounting.epsilon(more.event(), more.delta)


def test_epochs_are_whole_updates():
    """Sharp edge 4: ``int(90 // 0.04)`` is 2249."""
    assert budget.steps_of_epochs(90, 0.04) == 2250
    assert budget.steps_of_epochs(1e-9, 0.5) == 1


def test_what_promises_nothing_is_refused():
    with pytest.raises(PlanError, match="promises nothing"):
        budget.look_ahead(dataclasses.replace(FULL, noise_multiplier=0.0))
    with pytest.raises(PlanError, match="epsilon is inf"):
        budget.with_noise_for(FULL, math.inf)
    with pytest.raises(PlanError, match="spends any budget"):
        budget.with_steps_for(dataclasses.replace(FULL, noise_multiplier=0.0), 1.0)
    with pytest.raises(PlanError, match="one step alone"):
        budget.with_steps_for(dataclasses.replace(FULL, noise_multiplier=0.1), 1.0)


def test_fixed_size_batches_are_looked_at_by_a_bound_that_says_so():
    plan = PrivacyPlan(
        sampling_rate=0.1, expected_batch_size=100, steps=5, clipping_norm=1.0, delta=1e-5, noise_multiplier=2.0,
        sampling="fixed_size", relation="replace_one", max_examples=1000,
    )  # fmt: skip
    found = budget.look_ahead(plan)
    assert found.counted_by.startswith("RDP, an upper bound")
    (own,) = [point.epsilon for point in found.over_steps if point.at == 5]
    assert own >= found.guarantee.epsilon
    assert found.choices == ()


@pytest.mark.parametrize(("sigma", "epochs", "published"), [(1.12, 60, 2.92), (0.6, 30, 9.74), (1.2, 10, 1.20)])
def test_published_figures_of_mnist_are_reproduced_and_prv_lies_below_them(sigma: float, epochs: int, published: float):
    """The table in the tutorials of TensorFlow Privacy: batches of 256 out of 60,000, δ = 1e-5, RDP with the conversion of
    Mironov 2017, whose orders end at 64."""
    steps = budget.steps_of_epochs(epochs, 256 / 60000)
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 65))
    spent = np.asarray(rdp.compute_rdp(q=256 / 60000, noise_multiplier=sigma, steps=steps, orders=orders))
    converted = np.min(spent - math.log(1e-5) / (np.array(orders) - 1))
    assert round(float(converted), 2) == pytest.approx(published, abs=0.011)
    plan = PrivacyPlan(
        sampling_rate=256 / 60000, expected_batch_size=256, steps=steps, clipping_norm=1.0, delta=1e-5, noise_multiplier=sigma
    )
    assert accounting.epsilon_prv(plan.event(), 1e-5) < published
