"""Many runs: thresholds from elsewhere, exact intervals, and mechanisms whose truth is known."""

import numpy as np
import pytest
from scipy.special import expit

from evaluation import metrics
from evaluation.audit import (
    AuditError,
    Bonferroni,
    Explicit,
    LowerBound,
    Split,
    Terms,
    clopper_pearson_bound,
    gdp_bound,
    katz_bound,
    strongest,
)
from evaluation.audit.clopper_pearson import LEAST, exact_epsilon, ratio_epsilon
from evaluation.audit.gdp import epsilon_to_mu, mu_to_epsilon
from evaluation.audit.thresholds import Errors, Rule, lower_rate, upper_rate

TERMS = Terms(access="black-box", relation="add_or_remove_one")
RULES: list[Rule] = [Explicit(0.5), Split(0.5), Bonferroni((-0.5, 0.5, 1.5))]


def runs(mu: float, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    is_member = np.arange(2 * each) < each
    return generator.normal(size=2 * each) + mu * is_member, is_member


@pytest.mark.parametrize("estimator", [clopper_pearson_bound, katz_bound, gdp_bound])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_scores_that_say_nothing_give_exactly_zero(estimator, rule: Rule):
    assert sum(estimator(*runs(0.0, 200, seed), rule, TERMS).epsilon == 0.0 for seed in range(100)) >= 95


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_gaussian_mechanism_exceeds_its_mu_and_epsilon_no_more_often_than_stated(rule: Rule):
    """μ = 1; 150 audits, of which 5% and two standard deviations may be wrong."""
    truth = mu_to_epsilon(1.0, TERMS.delta)
    over_mu = over_epsilon = 0
    for seed in range(150):
        scores, is_member = runs(1.0, 150, seed)
        over_mu += (gdp_bound(scores, is_member, rule, TERMS).mu or 0.0) > 1.0
        over_epsilon += clopper_pearson_bound(scores, is_member, rule, TERMS).epsilon > truth
    assert over_mu <= 13
    assert over_epsilon <= 13


def test_a_threshold_chosen_on_the_scores_it_judges_would_exceed_the_truth():
    """Rule 17, and the reason why no rule here does it: the best of all thresholds at the error of one."""
    over = 0
    for seed in range(300):
        scores, is_member = runs(1.0, 150, seed)
        errors = Errors.at(scores, is_member, np.unique(scores))
        over += ratio_epsilon(errors, 0.0, 0.05).max() > np.log((1 - 0.5) / 0.158655)  # a bound at the median of members
    assert over > 0.2 * 300


@pytest.mark.parametrize("delta", [0.0, 1e-5])
@pytest.mark.parametrize(("runs_each", "false_rate", "true_rate"), [(200, 0.05, 0.5), (1000, 0.012, 0.9), (10_000, 0.01, 0.99)])
def test_intervals_cover_the_truth_as_often_as_they_say(runs_each: int, false_rate: float, true_rate: float, delta: float):
    generator = np.random.default_rng(0)
    errors = Errors(
        generator.binomial(runs_each, false_rate, 20_000),
        runs_each,
        generator.binomial(runs_each, 1 - true_rate, 20_000),
        runs_each,
    )
    truth = np.log(max((true_rate - delta) / false_rate, (1 - false_rate - delta) / (1 - true_rate)))
    assert np.mean(exact_epsilon(errors, delta, 0.05) > truth) <= 0.05
    assert np.mean(ratio_epsilon(errors, delta, 0.05) > truth) <= 0.05


def test_the_ratio_interval_is_tighter_where_it_may_be_used_and_refused_elsewhere():
    scores, is_member = runs(1.0, 2000, 0)
    assert (
        clopper_pearson_bound(scores, is_member, Explicit(1.5), TERMS).epsilon
        < katz_bound(scores, is_member, Explicit(1.5), TERMS).epsilon
    )
    with pytest.raises(AuditError, match=f"needs {LEAST} false positives"):
        katz_bound(*runs(6.0, 200, 0), Explicit(3.0), TERMS)
    assert np.isfinite(katz_bound(scores, is_member, Explicit(1.5), TERMS).ceiling or np.inf)


def test_upper_and_lower_ends_are_those_of_the_two_sided_interval():
    for successes, trials in [(0, 10), (3, 50), (50, 50), (1, 1000)]:
        whole = metrics.proportion(successes, trials, confidence=0.9)
        assert upper_rate(np.array([successes]), trials, 0.05)[0] == pytest.approx(whole.high)
        assert lower_rate(np.array([successes]), trials, 0.05)[0] == pytest.approx(whole.low)


def test_both_directions_of_the_test_count():
    """A rare certain sign of a non-member is a leak as much as one of a member."""
    few_false_positives = Errors(np.array([0]), 1000, np.array([900]), 1000)
    few_false_negatives = Errors(np.array([900]), 1000, np.array([0]), 1000)
    assert exact_epsilon(few_false_positives, 1e-5, 0.05)[0] > 3
    assert exact_epsilon(few_false_positives, 1e-5, 0.05) == pytest.approx(exact_epsilon(few_false_negatives, 1e-5, 0.05))


@pytest.mark.parametrize("estimator", [clopper_pearson_bound, gdp_bound])
def test_a_higher_score_means_member(estimator):
    scores, is_member = runs(4.0, 200, 0)
    assert estimator(scores, is_member, Explicit(2.0), TERMS).epsilon > 1
    assert estimator(-scores, is_member, Explicit(-2.0), TERMS).epsilon == 0.0


def test_what_a_split_chose_its_threshold_on_is_not_counted():
    scores, is_member = runs(2.0, 200, 0)
    bound = clopper_pearson_bound(scores, is_member, Split(0.25, seed=3), TERMS)
    assert bound.guesses == 300
    assert bound.canaries == 400
    assert "25%" in bound.rule
    whole = clopper_pearson_bound(scores, is_member, Explicit(1.0), TERMS)
    assert bound.ceiling is not None
    assert whole.ceiling is not None
    assert bound.ceiling < whole.ceiling


def test_thresholds_and_checkpoints_share_the_permitted_error():
    scores, is_member = runs(2.0, 300, 0)
    alone = clopper_pearson_bound(scores, is_member, Explicit(1.0), TERMS)
    among_four = clopper_pearson_bound(scores, is_member, Bonferroni((1.0, 50.0, 60.0, 70.0)), TERMS)
    four_checkpoints = clopper_pearson_bound(
        scores, is_member, Explicit(1.0), Terms(access="black-box", relation="add_or_remove_one", comparisons=4)
    )
    assert among_four.epsilon < alone.epsilon
    assert among_four.epsilon == pytest.approx(four_checkpoints.epsilon)
    assert among_four.ceiling == pytest.approx(four_checkpoints.ceiling)


def test_the_largest_of_several_bounds_is_only_given_where_they_were_corrected_for_it():
    corrected = Terms(access="black-box", relation="add_or_remove_one", comparisons=2)
    bounds = [clopper_pearson_bound(*runs(mu, 100, 0), Explicit(mu / 2), corrected) for mu in (1.0, 3.0)]
    assert strongest(bounds) is bounds[1]
    with pytest.raises(AuditError, match=r"Terms\(comparisons=3\)"):
        strongest([*bounds, bounds[0]])
    with pytest.raises(AuditError, match="at least one"):
        strongest([])


def test_a_gaussian_curve_never_refutes_a_claim_on_another_curve():
    """Randomized response is (1, 0)-DP; read off a Gaussian curve its errors would mean ε = 5.58."""
    generator = np.random.default_rng(0)
    is_member = np.arange(4000) < 2000
    scores = np.where(generator.random(4000) < expit(1.0), is_member, ~is_member).astype(float)
    by_curve = gdp_bound(scores, is_member, Explicit(0.5), TERMS)
    assert by_curve.epsilon > 4
    assert by_curve.holds_for == "Gaussian trade-off curves"
    assert not by_curve.contradicts(1.0)
    exact = clopper_pearson_bound(scores, is_member, Explicit(0.5), TERMS)
    assert 0.8 < exact.epsilon < 1.0
    assert exact.contradicts(0.5)
    assert not exact.contradicts(1.0)


def test_a_bound_says_what_it_means():
    text = str(clopper_pearson_bound(*runs(3.0, 100, 0), Explicit(1.5), TERMS))
    for part in ("ε ≥ ", "δ = 1e-05", "95.0% confidence", "black-box", "add_or_remove_one", "fixed beforehand", "gives 3.281"):
        assert part in text
    assert "holds for Gaussian" in str(gdp_bound(*runs(3.0, 100, 0), Explicit(1.5), TERMS))


def test_mu_and_epsilon_are_each_others_inverse_to_the_ends():
    for mu in (0.01, 0.3, 1.0, 5.0, 12.0):
        epsilon = mu_to_epsilon(mu, 1e-5)
        assert epsilon_to_mu(epsilon, 1e-5) == pytest.approx(mu, rel=1e-8)
    assert mu_to_epsilon(0.0, 1e-5) == 0.0
    assert mu_to_epsilon(1.0, 0.0) == np.inf
    with pytest.raises(AuditError, match="0 < delta < 1"):
        epsilon_to_mu(1.0, 0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Terms(access="grey", relation="add_or_remove_one"), "black-box, white-box"),  # pyright: ignore[reportArgumentType]
        (lambda: Terms(access="black-box", relation="a", delta=1.0), "such as 1e-5"),
        (lambda: Terms(access="black-box", relation="a", confidence=0.3), "such as 0.95"),
        (lambda: Terms(access="black-box", relation="a", comparisons=0), "at least 1"),
        (lambda: Split(1.0), "such as 0.5"),
        (lambda: Bonferroni(()), "at least one"),
        (lambda: clopper_pearson_bound(*runs(1.0, 1, 0), Split(), TERMS), "cannot be split"),
    ],
)
def test_terms_and_rules_that_mean_nothing_are_refused(make, message: str):
    with pytest.raises(AuditError, match=message):
        make()


def test_every_estimator_returns_what_was_agreed_beforehand():
    bound: LowerBound = gdp_bound(*runs(1.0, 100, 0), Explicit(0.5), TERMS)
    assert bound.terms is TERMS
    assert bound.guesses == 200
    assert 0 <= bound.correct <= 200
