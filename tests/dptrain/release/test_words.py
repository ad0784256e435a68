"""ε in words: the numbers in the sentences are the formula's, and are never rounded to the owner's favour."""

import math

import pytest

from dptrain.plan import PrivacyPlan
from dptrain.release.words import in_words

PLAN = PrivacyPlan(sampling_rate=1.0, expected_batch_size=90, steps=6, clipping_norm=1, delta=1e-4, noise_multiplier=9)


@pytest.mark.parametrize(
    ("epsilon", "factor", "sure"),
    [(math.log(3), "3.00 times", "at most 75% sure"), (8.0, "2,981 times", "at most 99.97% sure"), (0.1, "1.11", "53% sure")],
)
def test_the_factor_and_the_posterior_are_those_of_epsilon(epsilon: float, factor: str, sure: str):
    said = in_words(PLAN, epsilon)
    assert factor in said
    assert sure in said


def test_a_large_epsilon_is_never_said_to_leave_a_doubt_that_it_does_not():
    assert "100% sure" not in in_words(PLAN, 15.0)
    assert "more than 99.999% sure" in in_words(PLAN, 15.0)
    assert "by itself it says little" in in_words(PLAN, 15.0)


def test_the_finer_count_is_the_plans_own_curve():
    rate = PLAN.permitted_true_positive_rate(0.01)
    assert f"at most {math.ceil(100 * rate)} of 100" in in_words(PLAN, PLAN.guarantee().epsilon, steps=6)


def test_without_a_guarantee_nothing_is_promised():
    assert in_words(PLAN, math.inf).startswith("Nothing is promised")
