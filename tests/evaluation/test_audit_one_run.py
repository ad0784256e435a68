"""One run: bounds against brute force, against mechanisms at their limit, and against scores that say nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, ndtr, ndtri
from scipy.stats import binom, norm

from evaluation.audit import (
    AuditError,
    Guesses,
    LowerBound,
    Terms,
    fdp_bound,
    one_run_bound,
    planned_guesses,
    shift_estimate,
)
from evaluation.audit import fdp as recursion
from evaluation.audit.guesses import correct_guesses
from evaluation.audit.one_run import epsilon_lower_bound, p_value
from evaluation.metrics import ScoreError

TERMS = Terms(access="white-box", relation="add_or_remove_one")


def coins(canaries: int, seed: int) -> tuple[np.ndarray, np.random.Generator]:
    generator = np.random.default_rng(seed)
    return generator.random(canaries) < 0.5, generator


def approximate_bound(scores: np.ndarray, is_member: np.ndarray, guesses: Guesses, terms: Terms) -> LowerBound:
    return fdp_bound(scores, is_member, guesses, terms, curves="approximate")


ESTIMATORS = [one_run_bound, fdp_bound, approximate_bound]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_scores_that_say_nothing_give_exactly_zero(estimator):
    zeros = 0
    for seed in range(100):
        is_member, generator = coins(1000, seed)
        zeros += estimator(generator.normal(size=1000), is_member, Guesses.of(1000), TERMS).epsilon == 0.0
    assert zeros >= 95


@pytest.mark.parametrize("guesses", [5, 20, 150])
def test_coin_tosses_are_called_a_leak_with_no_more_than_the_stated_probability(guesses: int):
    """Exact, over all counts: W is Binomial(guesses, 1/2)."""
    law = binom.pmf(np.arange(guesses + 1), guesses, 0.5)
    for significance in (0.05, 0.01):
        for bound in (
            lambda right, error=significance: epsilon_lower_bound(1000, guesses, right, 1e-5, error),
            lambda right, error=significance: recursion.mu_lower_bound(1000, guesses, right, error),
            lambda right, error=significance: recursion.epsilon_lower_bound(1000, guesses, right, 1e-5, error),
        ):
            called = np.array([bound(right) > 0 for right in range(guesses + 1)])
            assert law[called].sum() <= significance


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_equal_scores_give_nothing_away_by_their_order(estimator):
    """Inserted canaries are stored first: a sort that keeps the order of equals would guess every one of them."""
    is_member = np.arange(1000) < 500
    assert estimator(np.zeros(1000), is_member, Guesses.of(400), TERMS).epsilon == 0.0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.data())
def test_the_one_run_p_value_is_the_theorems_right_hand_side(guesses: int, data):
    correct = data.draw(st.integers(0, guesses))
    canaries = data.draw(st.integers(guesses, 200))
    epsilon, delta = data.draw(st.floats(0, 6)), data.draw(st.sampled_from([0.0, 1e-5, 1e-3]))
    law = binom.pmf(np.arange(guesses + 1), guesses, expit(epsilon))
    means = [law[correct - i : correct].sum() / i for i in range(1, correct + 1)]
    expected = min(1.0, law[correct:].sum() + 2 * canaries * delta * max(means, default=0.0))
    assert p_value(canaries, guesses, correct, epsilon, delta) == pytest.approx(expected, rel=1e-8, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 300), st.data())
def test_one_more_right_guess_never_lowers_a_bound_nor_does_more_confidence_raise_it(guesses: int, data):
    correct = data.draw(st.integers(1, guesses))
    canaries = data.draw(st.integers(guesses, 2000))
    for bound in (
        lambda right, error: epsilon_lower_bound(canaries, guesses, right, 1e-5, error),
        lambda right, error: recursion.mu_lower_bound(canaries, guesses, right, error),
        lambda right, error: recursion.epsilon_lower_bound(canaries, guesses, right, 1e-5, error),
    ):
        assert bound(correct, 0.05) >= bound(correct - 1, 0.05) - 1e-9
        assert bound(correct, 0.05) >= bound(correct, 0.01)


def exceeded(refuted: np.ndarray, share: float, accuracy: float) -> float:
    """How often a mechanism is refuted that in a share of its runs answers with this accuracy, and else tosses coins."""
    guesses = len(refuted) - 1
    right = np.arange(guesses + 1)
    law = share * binom.pmf(right, guesses, accuracy) + (1 - share) * binom.pmf(right, guesses, 0.5)
    return float(law[refuted].sum())


@pytest.mark.parametrize(
    ("mu", "canaries", "guesses"), [(0.3, 1000, 100), (0.3, 200, 200), (1.0, 200, 200), (0.3, 5000, 60), (1.0, 100_000, 644)]
)
def test_no_mechanism_that_betrays_everyone_in_few_runs_is_refuted_too_often(mu: float, canaries: int, guesses: int):
    """Guesses are right together or not at all, as far as μ-GDP permits for one canary.

    In a share of the runs each of the guessed canaries, drawn at random, is answered rightly with the greatest accuracy a
    for which (share k/m (1 − a), share k/m a) lies below the Gaussian curve. Independent canaries would hardly test the claim.
    """
    refuted = np.array(
        [recursion.refutes(canaries, guesses, right, recursion.gaussian(mu), 0.05) for right in range(guesses + 1)]
    )
    rates = []
    for share in np.geomspace(0.03, 1, 60):
        mass = share * guesses / canaries
        accuracies = np.linspace(0.5, 1, 4001)
        permitted = mass * accuracies <= ndtr(ndtri(mass * (1 - accuracies)) + mu)
        rates.append(exceeded(refuted, float(share), float(accuracies[permitted].max())))
    assert max(rates) <= 0.05
    assert max(rates) > 0.01, "the bound is so loose that this test would not notice an error"


@pytest.mark.parametrize("delta", [1e-5, 1e-3])
def test_the_bounds_for_any_mechanism_hold_for_one_that_betrays_everyone_with_probability_delta(delta: float):
    """With (ε, δ): randomized response at ε, and with probability 0.04 a share δ/0.04 of the canaries laid open."""
    epsilon, canaries, guesses = 1.0, 1000, 200
    for bound in (epsilon_lower_bound, recursion.epsilon_lower_bound):
        generator, share, over = np.random.default_rng(0), 0.04, 0
        refuted = np.array([bound(canaries, guesses, right, delta, 0.05) > epsilon for right in range(guesses + 1)])
        for _ in range(20_000):
            open_ones = generator.binomial(canaries, delta / share) if generator.random() < share else 0
            open_ones = min(open_ones, guesses)
            over += refuted[open_ones + generator.binomial(guesses - open_ones, expit(epsilon))]
        assert over / 20_000 <= 0.05


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_randomized_response_exceeds_its_epsilon_no_more_often_than_stated(estimator):
    """Pure ε = 1; a Gaussian curve through its errors would claim far more, and says for whom it holds."""
    over = []
    for seed in range(120):
        is_member, generator = coins(500, seed)
        answers = np.where(generator.random(500) < expit(1.0), is_member, ~is_member)
        over.append(estimator(answers.astype(float), is_member, Guesses.of(500), TERMS))
    share = np.mean([bound.epsilon > 1.0 for bound in over])
    if over[0].holds_for == "any mechanism":
        assert share <= 0.09  # 5% and two standard deviations
    else:
        assert share > 0.5
        assert not any(bound.contradicts(1.0) for bound in over)


def test_a_curve_given_by_its_roc_is_tested_as_the_same_curve_in_closed_form():
    def permitted(rate: float) -> float:
        return float(norm.cdf(norm.ppf(rate) + 1.0))

    for correct in range(60, 101):
        closed = recursion.refutes(1000, 100, correct, recursion.gaussian(1.0), 0.05)
        assert recursion.refutes(1000, 100, correct, recursion.of_roc(permitted), 0.05) == closed


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 5), st.floats(0, 0.2), st.floats(0, 1))
def test_the_curve_of_approximate_dp_is_the_inverse_of_what_it_permits(epsilon: float, delta: float, rate: float):
    permitted = min(1.0, delta + np.exp(epsilon) * rate, 1 - np.exp(-epsilon) * (1 - delta - rate))
    assert recursion.approximate_dp(epsilon, delta)(permitted) <= rate + 1e-9
    beyond = permitted + 1e-6
    if beyond < 1:
        assert recursion.approximate_dp(epsilon, delta)(beyond) > rate - 1e-9


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_ceiling_is_what_a_perfect_attack_reaches(estimator):
    is_member, generator = coins(400, 0)
    perfect = estimator(is_member + 0.1 * generator.random(400), is_member, Guesses(int(is_member.sum()), 100), TERMS)
    assert perfect.correct == perfect.guesses
    assert perfect.epsilon <= perfect.ceiling
    everyone = Guesses(int(is_member.sum()), 400 - int(is_member.sum()))
    full = estimator(is_member.astype(float), is_member, everyone, TERMS)
    assert full.epsilon == pytest.approx(full.ceiling)


def test_an_estimate_has_no_ceiling_and_says_so():
    is_member, generator = coins(400, 0)
    estimate = shift_estimate(generator.normal(size=400) + 2 * is_member, is_member, TERMS)
    assert estimate.ceiling is None
    assert "; no ceiling;" in str(estimate)
    assert "inf" not in str(estimate)


@pytest.mark.parametrize("estimator", [one_run_bound, fdp_bound])
def test_several_numbers_of_guesses_share_the_error(estimator):
    is_member, generator = coins(2000, 1)
    scores = generator.normal(size=2000) + 1.5 * is_member
    several = estimator(scores, is_member, [Guesses.of(100), Guesses.of(400), Guesses.of(1000)], TERMS)
    alone = [estimator(scores, is_member, Guesses.of(total), TERMS).epsilon for total in (100, 400, 1000)]
    assert several.tried == 3
    assert "Bonferroni" in several.rule
    assert 0 < several.epsilon < max(alone)


def test_guesses_count_the_highest_as_members_and_the_lowest_as_others():
    scores = np.arange(10.0)
    is_member = np.array([False, True, False, False, True, False, True, True, True, True])
    assert correct_guesses(scores, is_member, Guesses(3, 0)) == 3
    assert correct_guesses(scores, is_member, Guesses(0, 2)) == 1
    assert correct_guesses(scores, is_member, Guesses(5, 5)) == 4 + 3


def test_planned_guesses_come_near_the_best_number_there_is():
    def bound(total: int, correct: int) -> float:
        return recursion.mu_lower_bound(10_000, total, correct, 0.05)

    plan = planned_guesses(10_000, 1.0, bound)
    is_member, generator = coins(10_000, 5)
    scores = generator.normal(size=10_000) + is_member

    def mean(total: int) -> float:
        found = []
        for seed in range(12):
            is_member, generator = coins(10_000, seed)
            scores = generator.normal(size=10_000) + is_member
            found.append(bound(total, correct_guesses(scores, is_member, Guesses.of(total))))
        return float(np.mean(found))

    assert mean(plan.total) >= 0.93 * max(mean(total) for total in (50, 100, 200, 400, 1000, 4000, 10_000))
    assert correct_guesses(scores, is_member, plan) > plan.total / 2


@pytest.mark.parametrize(
    ("scores", "members", "guesses", "error", "message"),
    [
        (np.full(100, np.nan), np.arange(100) < 50, Guesses.of(10), ScoreError, "NaN"),
        (np.zeros(100), np.arange(100) < 50, Guesses.of(101), AuditError, "give at most 100"),
        (np.zeros(100), np.arange(100) < 90, Guesses.of(10), AuditError, "insert each with probability 1/2"),
        (np.zeros(100), np.arange(100) < 50, [], AuditError, "at least one"),
    ],
)
def test_what_would_bound_nothing_is_refused(scores: np.ndarray, members: np.ndarray, guesses, error, message: str):
    for estimator in (one_run_bound, fdp_bound):
        with pytest.raises(error, match=message):
            estimator(scores, members, guesses, TERMS)


def test_counts_and_families_that_cannot_be_are_refused():
    with pytest.raises(AuditError, match="cannot be"):
        p_value(10, 11, 5, 1.0, 0.0)
    with pytest.raises(AuditError, match="not both 0"):
        Guesses(0, 0)
    with pytest.raises(AuditError, match="mu is 0"):
        planned_guesses(100, 0, lambda total, correct: 0.0)
    with pytest.raises(AuditError, match="'gaussian' or 'approximate'"):
        fdp_bound(np.zeros(100), np.arange(100) < 50, Guesses.of(10), TERMS, curves="laplace")  # pyright: ignore[reportArgumentType]
