"""Every threshold at once: the crossing probability is known, the band holds as often as it says, no threshold is paid for."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import beta

from evaluation.audit import AuditError, Everywhere, Split, Terms, clopper_pearson_bound, gdp_bound, katz_bound
from evaluation.audit.band import holds, local_level
from evaluation.audit.thresholds import Errors, upper_rate

TERMS = Terms(access="black-box", relation="add_or_remove_one")


@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_two_crossing_probabilities_are_known_in_closed_form(count: int):
    same = holds(count, np.full(count, 0.9))  # all of them at most 0.9
    assert same == pytest.approx(0.9**count, rel=1e-10)
    lowest = holds(count, np.array([0.05, *np.ones(count - 1)]))  # the lowest at most 0.05
    assert lowest == pytest.approx(1 - 0.95**count, rel=1e-9)


def test_three_uniform_numbers_are_integrated_by_hand():
    """P(U₁ ≤ a, U₂ ≤ b, U₃ ≤ 1) = 3! ∫₀ᵃ ∫ᵤᵇ (1 − v) dv du = 6 [a (b − b²/2) − a²/2 + a³/6]."""
    a, b = 0.3, 0.55
    assert holds(3, (a, b, 1.0)) == pytest.approx(6 * (a * (b - b**2 / 2) - a**2 / 2 + a**3 / 6), rel=1e-10)


def test_a_daniels_line_has_its_known_probability():
    """P(U_(i) ≥ x i/n for all i) = 1 − x (Daniels 1945), here of 1 − U, whose order is reversed."""
    count, share = 40, 0.25
    limits = 1 - (count + 1 - np.arange(1, count + 1)) * share / count
    assert holds(count, limits) == pytest.approx(1 - share, rel=1e-9)


@pytest.mark.parametrize(("count", "significance"), [(1, 0.05), (5, 0.05), (150, 0.025), (600, 0.0125)])
def test_the_local_level_spends_what_is_permitted_and_no_more(count: int, significance: float):
    level = local_level(count, significance)
    places = np.arange(1, count + 1)
    fails = 1 - holds(count, beta.ppf(1 - level, places, count + 1 - places))
    assert significance * (1 - 1e-4) <= fails <= significance * (1 + 1e-9)
    assert significance / count <= level * (1 + 1e-5) <= significance * (1 + 1e-5)


def test_the_band_holds_at_all_thresholds_together_as_often_as_it_says():
    generator, count, significance, draws = np.random.default_rng(0), 120, 0.1, 4000
    level = local_level(count, significance)
    ends = upper_rate(np.arange(count), count, level)  # of 0, 1, ... false positives
    uniform = np.sort(generator.random((draws, count)), axis=1)
    failed = (uniform > ends).any(axis=1).mean()
    assert failed == pytest.approx(significance, abs=4 * np.sqrt(significance * 0.9 / draws))


def test_a_mechanism_at_its_very_limit_is_accused_no_more_often_than_stated():
    """Randomised response at ε, whose scores are few and equal; and a shift of μ = 1, whose best threshold is anywhere."""
    epsilon, over, over_mu, audits = 1.5, 0, 0, 200
    for seed in range(audits):
        generator = np.random.default_rng(seed)
        is_member = generator.random(300) < 0.5
        truthful = generator.random(300) < expit(epsilon)
        said = (is_member == truthful).astype(float)
        over += clopper_pearson_bound(said, is_member, Everywhere(), TERMS).epsilon > epsilon
        shifted = generator.normal(size=300) + is_member
        over_mu += (gdp_bound(shifted, is_member, Everywhere(), TERMS).mu or 0.0) > 1.0
    assert over <= 0.05 * audits + 2 * np.sqrt(0.05 * 0.95 * audits)
    assert over_mu <= 0.05 * audits + 2 * np.sqrt(0.05 * 0.95 * audits)


def test_scores_that_say_nothing_give_exactly_zero():
    zeros = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        is_member = generator.random(400) < 0.5
        scores = generator.normal(size=400)
        zeros += clopper_pearson_bound(scores, is_member, Everywhere(), TERMS).epsilon == 0.0
    assert zeros >= 95


def test_more_is_shown_than_by_a_threshold_from_a_part_of_the_runs_and_it_varies_less():
    found: dict[str, list[float]] = {"split": [], "everywhere": []}
    for seed in range(30):
        generator = np.random.default_rng(seed)
        is_member = generator.random(1000) < 0.5
        scores = generator.normal(size=1000) + 2.0 * is_member
        found["split"].append(clopper_pearson_bound(scores, is_member, Split(0.3, seed), TERMS).epsilon)
        found["everywhere"].append(clopper_pearson_bound(scores, is_member, Everywhere(), TERMS).epsilon)
    assert np.mean(found["everywhere"]) > np.mean(found["split"])
    assert np.std(found["everywhere"]) < np.std(found["split"])


def test_the_bound_is_the_largest_over_thresholds_at_the_local_level_and_its_ceiling_pays_for_it():
    generator = np.random.default_rng(3)
    is_member = np.arange(400) < 200
    scores = generator.normal(size=400) + 1.5 * is_member
    level = local_level(200, TERMS.significance / 2)
    by_hand = 0.0
    for threshold in scores:
        errors = Errors.at(scores, is_member, np.array([threshold]))
        false, missed = (float(upper_rate(count, 200, level)[0]) for count in (errors.false_positives, errors.false_negatives))
        for hits, wrong in ((1 - missed, false), (1 - false, missed)):
            by_hand = max(by_hand, float(np.log(max((hits - TERMS.delta) / wrong, 1.0))))
    bound = clopper_pearson_bound(scores, is_member, Everywhere(), TERMS)
    assert bound.epsilon == pytest.approx(by_hand, rel=1e-9)
    perfect = clopper_pearson_bound(is_member.astype(float), is_member, Everywhere(), TERMS)
    assert perfect.epsilon == pytest.approx(perfect.ceiling) == pytest.approx(bound.ceiling)
    assert "at all of them together" in str(bound)


def test_an_estimator_that_needs_more_than_upper_ends_refuses_the_rule():
    generator = np.random.default_rng(0)
    is_member = np.arange(200) < 100
    with pytest.raises(AuditError, match="one threshold at a time"):
        katz_bound(generator.normal(size=200) + is_member, is_member, Everywhere(), TERMS)
