"""The plan says everything once, and refuses what it could not mean."""

import dataclasses
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from dptrain import accounting
from dptrain import plan as plan_module
from dptrain.errors import PlanError
from dptrain.plain import as_plain, from_plain
from dptrain.plan import PrivacyPlan, _halved, _narrowed, _searched
from dptrain.recipe import PrivacyConfig
from dptrain.rounding import up

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


def test_calibrating_warns_once_and_not_for_every_noise_that_it_tries():
    with pytest.warns(UserWarning, match="above 1/\\(10 N\\)") as caught:
        dataclasses.replace(PLAN, delta=5e-4, steps=3).calibrate(epsilon=2.5)
    assert len(caught) == 1


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
    for words in ("one example", "PRV", "PLD", up(stated.cross_check, 4), "1e-05", "expected batch size"):
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


TRUNCATED = dataclasses.replace(PLAN, sampling="truncated_poisson", max_batch_size=150, max_examples=1000)
FIXED = dataclasses.replace(PLAN, sampling="fixed_size", max_examples=1000, relation="replace_one")
CYCLIC = dataclasses.replace(PLAN, sampling="cyclic_poisson", bands=5)
USER = dataclasses.replace(PLAN, unit="user", max_examples_per_unit=8)
KINDS = {
    "poisson": PLAN,
    "truncated_poisson": TRUNCATED,
    "fixed_size": FIXED,
    "cyclic_poisson": CYCLIC,
    "banded": dataclasses.replace(CYCLIC, noise="banded"),
    "balls_in_bins": dataclasses.replace(PLAN, sampling="balls_in_bins"),
    "balls_in_bins replaced": dataclasses.replace(PLAN, sampling="balls_in_bins", relation="replace_one"),
    "user": USER,
}


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_and_two_accountants_serve_every_kind_of_plan(kind: str):
    """Sharp edge 20."""
    plan = KINDS[kind].calibrate(epsilon=3.0)
    spent = plan.guarantee()
    assert 2.98 < spent.epsilon <= 3.0
    if kind in ("truncated_poisson", "fixed_size"):
        assert spent.accountant.startswith("PLD")
        assert spent.cross_check_accountant.startswith("RDP")
        assert spent.epsilon < spent.cross_check < 2.2 * spent.epsilon
        assert "PLD accountant" in spent.statement
        assert f"bounded from above by RDP ({up(spent.cross_check, 4)})" in spent.statement
    else:
        assert spent.accountant.startswith("PRV")
        assert spent.cross_check_accountant.startswith("PLD")
        assert spent.cross_check == pytest.approx(3.0, abs=0.04)


@pytest.mark.parametrize("kind", KINDS)
def test_before_the_first_update_nothing_is_spent(kind: str):
    """Sharp edge 20: by both accountants, and also where no updates stand beside others, as in a run resumed at once."""
    plan = dataclasses.replace(KINDS[kind], noise_multiplier=2.0)
    nothing = plan.guarantee(0)
    assert (nothing.epsilon, nothing.cross_check) == (0.0, 0.0)
    assert "(0.00, 1e-05)-differential privacy" in nothing.statement
    whole, beside_nothing = plan.guarantee(), plan.guarantee(50, ((0, 0), (0, 50)))
    assert (beside_nothing.epsilon, beside_nothing.cross_check) == (whole.epsilon, whole.cross_check)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_plan_permits_is_what_its_own_delta_allows(kind: str):
    """At the plan's (ε, δ) no attack may pass e^ε FPR + δ; and the curve is no tighter than that at every other δ."""
    plan = dataclasses.replace(KINDS[kind], noise_multiplier=2.0)
    event = plan.event()
    for delta in (1e-2, 1e-4):
        epsilon = accounting.epsilon_pld(event, delta, plan.relation)
        for rate in (1e-3, 0.05):
            assert plan.permitted_true_positive_rate(rate) <= math.exp(epsilon) * rate + delta + 2e-3
    assert 0.5 < plan.permitted_auc() < 1
    assert plan.permitted_true_positive_rate(0.01) > 0.01


def test_one_example_of_a_user_is_hidden_less_than_the_user():
    """Full batches: a user's presence moves a sum by C, one of his examples by up to 2 C, so that μ = √T/σ is doubled."""
    plan = dataclasses.replace(USER, sampling_rate=1.0, noise_multiplier=8.0, steps=9)
    mu, rates, curve = 3 / 8.0, np.array([1e-3, 0.01, 0.1, 0.5]), plan.example_curve()
    np.testing.assert_allclose(plan.permitted_true_positive_rates(rates), norm.cdf(norm.ppf(rates) + mu), atol=2e-3)
    np.testing.assert_allclose(curve.true_positive_rates(rates), norm.cdf(norm.ppf(rates) + 2 * mu), atol=2e-3)
    assert curve.auc() == pytest.approx(norm.cdf(2 * mu / np.sqrt(2)), abs=2e-3)
    sampled = dataclasses.replace(USER, noise_multiplier=2.0)
    assert sampled.example_curve().auc() > sampled.permitted_auc() + 0.01
    promises_nothing = dataclasses.replace(USER, noise_multiplier=0.0)
    assert promises_nothing.example_curve().auc() == 1.0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "user"])
def test_where_the_unit_is_the_example_its_curve_is_the_plans(kind: str):
    plan = dataclasses.replace(KINDS[kind], noise_multiplier=2.0)
    assert plan.example_curve().auc() == plan.permitted_auc()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3, deadline=None)
@given(st.floats(1.0, 4.0), st.integers(10, 60))
def test_epsilon_never_falls_with_steps_rate_or_less_noise(kind: str, sigma: float, steps: int):
    plan = dataclasses.replace(KINDS[kind], noise_multiplier=sigma, steps=steps)
    base = spent(plan)
    assert spent(dataclasses.replace(plan, steps=steps + 7)) >= base - 1e-6
    assert spent(dataclasses.replace(plan, noise_multiplier=sigma * 0.8)) >= base - 1e-6
    assert spent(dataclasses.replace(plan, sampling_rate=0.125, expected_batch_size=125)) >= base - 1e-6


def spent(plan: PrivacyPlan) -> float:
    if accounting.prv_can_count(plan.event()):
        return accounting.epsilon_prv(plan.event(), plan.delta, error=0.01)
    return accounting.epsilon(plan.event(), plan.delta, plan.relation)


@pytest.mark.parametrize("kind", KINDS)
def test_a_range_drawn_anew_never_costs_less_than_one_drawn_at_once(kind: str):
    """Sharp edge 17: the groups and bins of a resumed training are others than before."""
    plan = dataclasses.replace(KINDS[kind], noise_multiplier=2.0)
    whole = plan.guarantee().epsilon
    assert plan.guarantee(50, ((0, 13), (13, 50))).epsilon >= whole - 1e-9
    if "cyclic" in kind or kind == "banded":
        assert plan.guarantee(50, ((0, 13), (13, 50))).epsilon > whole  # 3 + 8 turns in place of 10


@pytest.mark.parametrize("clipping", ["flat", "per_layer", "automatic"])
def test_every_clipping_has_the_sensitivity_of_the_norm(clipping: Any):
    """Sharp edge 12: and twice that where one is replaced by another; ε is the same for each."""
    plan = dataclasses.replace(PLAN, clipping=clipping, clipping_norm=0.7, noise_multiplier=1.0)
    assert plan.sensitivity == 0.7
    assert dataclasses.replace(FIXED, clipping=clipping, clipping_norm=0.7).sensitivity == 1.4
    assert plan.guarantee().epsilon == dataclasses.replace(PLAN, noise_multiplier=1.0).guarantee().epsilon


def test_the_statement_says_what_each_choice_means():
    """Sharp edge 22."""
    said = {kind: dataclasses.replace(plan, noise_multiplier=2.0).guarantee().statement for kind, plan in KINDS.items()}
    for kind, words in {
        "truncated_poisson": ("of more than 150 a random subset", "at most 1000 examples"),
        "fixed_size": ("replacing one example by another", "2 times twice that norm", "100 out of exactly 1000"),
        "cyclic_poisson": ("one of 5 random groups", "probability 0.5"),
        "banded": ("correlated over 5 updates",),
        "user": ("for one user", "at most 8 examples, a fresh random subset", "held under one user", "one gradient a user"),
        "balls_in_bins replaced": ("times twice that norm",),
    }.items():
        for part in words:
            assert part in said[kind], (kind, part, said[kind])
    for clipping, words in {"per_layer": "layer by layer", "automatic": "automatic clipping, stability 0.01"}.items():
        assert words in dataclasses.replace(PLAN, clipping=clipping, noise_multiplier=2.0).guarantee().statement


@pytest.mark.parametrize(
    ("given_fields", "said"),
    [
        ({"unit": "usr"}, "did you mean 'user'"),
        ({"unit": "user"}, "max_examples_per_unit is None; give a whole number"),
        ({"max_examples_per_unit": 3}, "only where unit is 'user'"),
        ({"unit": "user", "max_examples_per_unit": 0}, "whole number from 1 up"),
        ({"unit": "user", "max_examples_per_unit": 2, "sampling": "balls_in_bins"}, "'poisson' alone"),
        ({"sampling": "truncated_poisson", "max_examples": 1000}, "max_batch_size is None"),
        ({"sampling": "truncated_poisson", "max_batch_size": 120}, "max_examples is None"),
        ({"sampling": "truncated_poisson", "max_batch_size": 120, "max_examples": 900}, "sampling_rate = 1000"),
        ({"sampling": "truncated_poisson", "max_batch_size": 120, "max_examples": 1000, "relation": "zero_out_one"}, "proved"),
        ({"max_batch_size": 120}, "only where sampling is 'truncated_poisson'"),
        ({"max_examples": 1000}, "only where sampling is"),
        ({"sampling": "fixed_size", "max_examples": 1000}, "proved under replace_one"),
        ({"sampling": "fixed_size", "max_examples": 999, "relation": "replace_one"}, "give 0.1001"),
        (
            {"sampling": "fixed_size", "max_examples": 1000, "relation": "replace_one", "expected_batch_size": 99.5},
            "whole number",
        ),
        ({"relation": "replace_one"}, "proved under add_or_remove_one or zero_out_one"),
        ({"sampling": "cyclic_poisson"}, "give 2 or more bands"),
        ({"bands": 4}, "leave bands out"),
        ({"sampling": "cyclic_poisson", "bands": 11}, "at most 1/11"),
        ({"sampling": "cyclic_poisson", "bands": 2.0}, "bands is 2.0; give a whole number"),
        ({"noise": "banded"}, "sampling 'cyclic_poisson'"),
        ({"noise": "band"}, "did you mean 'banded'"),
        ({"clipping": "auto"}, "automatic"),
        ({"clipping": "automatic", "automatic_stability": 0.0}, "finite number above 0"),
        ({"automatic_stability": 0.1}, "leave it out, or give 'automatic'"),
    ],
)
def test_choices_that_do_not_go_together_say_what_to_give(given_fields: dict[str, Any], said: str):
    """Sharp edge 21: what is not needed is an error as much as what is missing."""
    with pytest.raises(PlanError, match=re.escape(said)):
        dataclasses.replace(PLAN, **given_fields)


def test_delta_is_held_against_the_number_of_users():
    """Sharp edge 16: for a unit of which there are few, δ must be small against few."""
    with pytest.raises(PlanError, match="below 1/N"):
        dataclasses.replace(USER, delta=1e-3, noise_multiplier=1.0)


@pytest.mark.parametrize(
    ("plan", "fits", "refused"), [(TRUNCATED, (1, 1000), (1001,)), (FIXED, (1000,), (999, 1001)), (PLAN, (5,), ())]
)
def test_a_data_set_of_another_size_than_stated_is_refused(plan: PrivacyPlan, fits: tuple[int, ...], refused: tuple[int, ...]):
    for examples in fits:
        plan.check_examples(examples)
    for examples in refused:
        with pytest.raises(PlanError, match="max_examples is 1000"):
            plan.check_examples(examples)


def test_a_plan_comes_back_from_json_and_one_of_before_these_fields_does_too():
    for plan in KINDS.values():
        assert from_plain(PrivacyPlan, json.loads(json.dumps(as_plain(plan))), "here") == plan
    before = {
        "sampling_rate": 0.1, "expected_batch_size": 100, "steps": 50, "clipping_norm": 1.0, "delta": 1e-5,
        "noise_multiplier": 0.0, "unit": "example", "relation": "add_or_remove_one", "sampling": "poisson",
    }  # fmt: skip
    assert from_plain(PrivacyPlan, before, "here") == PLAN


def test_a_recipe_says_every_field_of_a_plan():
    """Sharp edge 21: no choice of a plan is out of a recipe's reach, and none is dropped on the way."""
    config = PrivacyConfig(
        mechanism="clip_only", sampling="cyclic_poisson", sampling_rate=0.1, expected_batch_size=100, delta=1e-5,
        clipping="automatic", automatic_stability=0.2, noise="banded", bands=5,
    )  # fmt: skip
    plan = PrivacyPlan.from_config(config, 50)
    assert (plan.clipping, plan.automatic_stability, plan.noise, plan.bands) == ("automatic", 0.2, "banded", 5)
    left_out = {item.name for item in dataclasses.fields(PrivacyPlan)} - {
        item.name for item in dataclasses.fields(PrivacyConfig)
    }
    assert left_out == {"steps", "noise_multiplier"}


@pytest.mark.parametrize(("told", "taken"), [(1.0, True), (1.05, True), (0.99, False), (math.nan, False), (-1.0, False)])
def test_a_noise_multiplier_that_is_taken_up_spends_no_more_than_the_budget(
    told: float, taken: bool, monkeypatch: pytest.MonkeyPatch
):
    """What another process found is counted before it is used: a wrong one can cost accuracy, and never privacy."""
    monkeypatch.setattr(plan_module, "_told", {})
    monkeypatch.setattr(plan_module, "_found", {})
    plan_module._calibrated.cache_clear()
    found = PLAN.calibrate(epsilon=3.0).noise_multiplier
    (key,) = plan_module.calibrations()
    plan_module._calibrated.cache_clear()
    plan_module.take_up_calibrations({key: told * found})
    plan = PLAN.calibrate(epsilon=3.0)
    plan_module._calibrated.cache_clear()
    assert plan.noise_multiplier == (told * found if taken else found)
    assert plan.guarantee().epsilon <= 3.0


@pytest.mark.parametrize(
    ("rate", "steps", "delta", "epsilon"),
    [(1.0, 60, 1e-4, 12.0), (1.0, 60, 1e-4, 2.0), (1.0, 60, 1e-4, 0.5), (0.01, 500, 1e-5, 0.5)],
)
def test_calibration_finds_what_bisection_finds_and_counts_less(rate: float, steps: int, delta: float, epsilon: float):
    """The noise multiplier of a budget stays what it was, to the last bit: results of earlier runs are found again by it."""
    plan = PrivacyPlan(sampling_rate=rate, expected_batch_size=900 * rate, steps=steps, clipping_norm=1.0, delta=delta)
    counted: list[float] = []

    def spent(noise_multiplier: float) -> float:
        counted.append(noise_multiplier)
        return accounting.epsilon(dataclasses.replace(plan, noise_multiplier=noise_multiplier).event(), delta)

    found = plan.calibrate(epsilon=epsilon).noise_multiplier
    high = 1.0
    while accounting.epsilon_rdp(dataclasses.replace(plan, noise_multiplier=high).event(), delta) > max(epsilon, 2.0):
        high *= 1.5
    while spent(high) > epsilon:
        high *= 1.25
    low = high / 1.25
    while spent(low) <= epsilon:
        high, low = low, low / 1.25
    bracket, already = (low, high), len(counted)
    assert _halved(spent, epsilon, low, high, bracket) == found
    by_halves = len(counted) - already
    narrow = _narrowed(spent, epsilon, low, high)
    assert _halved(spent, epsilon, low, high, narrow) == found
    assert len(counted) - already - by_halves <= by_halves - 2  # both ends are counted again here, from the cache elsewhere


def test_a_search_whose_first_guesses_mislead_is_made_again_by_halves(monkeypatch: pytest.MonkeyPatch):
    plan = PrivacyPlan(sampling_rate=1.0, expected_batch_size=900.0, steps=60, clipping_norm=1.0, delta=1e-4)
    expected = _searched(plan, 3.0)
    monkeypatch.setattr("dptrain.plan._narrowed", lambda spent, epsilon, low, high: (low, low * 1.0001))
    assert _searched(plan, 3.0) == expected
