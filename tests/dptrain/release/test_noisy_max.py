"""Report noisy max: its odds, its worst pair, and what many answers cost, each against a closed form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom

from dptrain.release.guard import fitted, stated
from dptrain.release.noisy_max import LARGEST, NoisyMax, composed, spent
from tests.dptrain.release.owners import INPUTS, owner

SCORES = np.array([0.7, 0.2, 0.05, 0.04, 0.01])


def odds(scores: np.ndarray, epsilon: float, sensitivity: float) -> np.ndarray:
    """Of the exponential mechanism."""
    raised = np.exp(epsilon * (scores - scores.max()) / (2 * sensitivity))
    return raised / raised.sum()


def shares(guards: list[NoisyMax], inputs: torch.Tensor, scores: np.ndarray) -> np.ndarray:
    labels = [guard.answers(inputs, np.tile(np.log(scores), (len(inputs), 1))).labels for guard in guards]
    return np.bincount(np.concatenate(labels), minlength=len(scores)) / (len(guards) * len(inputs))


def check(found: np.ndarray, wanted: np.ndarray, draws: int) -> None:
    """Within four standard errors, class by class."""
    assert (np.abs(found - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / draws)).all(), (found, wanted)


@pytest.mark.parametrize(("epsilon", "sensitivity"), [(4.0, 1.0), (1.0, 0.1), (12.0, 1.0)])
def test_over_many_keys_a_query_is_answered_with_the_odds_of_the_exponential_mechanism(epsilon: float, sensitivity: float):
    guards = [NoisyMax(epsilon, sensitivity, number.to_bytes(4, "big")) for number in range(8000)]
    check(shares(guards, INPUTS[:1], SCORES), odds(SCORES, epsilon, sensitivity), 8000)


def test_over_many_near_identical_queries_too_so_that_they_average_the_noise_away():
    """Which is why each of them counts as an answer."""
    near = torch.ones(8000, 1, dtype=torch.float64) + torch.arange(8000)[:, None] * 2.0**-52
    check(shares([NoisyMax(4.0, 1.0, b"key")], near, SCORES), odds(SCORES, 4.0, 1.0), 8000)


def test_one_query_is_answered_once_however_often_it_is_asked():
    guard = NoisyMax(1.0, 1.0, b"key")
    assert shares([guard], INPUTS[:1].repeat(500, 1), SCORES).max() == 1.0


def test_the_worst_pair_of_data_sets_comes_to_the_stated_epsilon_and_not_beyond():
    """One example takes one class from 0 to 1 and all others from 1 to 0. Of C classes the loss is ε − log of what the many
    outweigh, and comes to ε as C grows."""
    epsilon = 2.0
    losses = []
    for classes in (2, 10, 1000, 100_000):
        one = np.zeros(classes)
        one[0] = 1.0
        losses.append(math.log(odds(one, epsilon, 1.0)[0] / odds(1.0 - one, epsilon, 1.0)[0]))
    assert losses == sorted(losses)
    assert epsilon - 1e-4 < losses[-1] <= epsilon
    guards = [NoisyMax(epsilon, 1.0, number.to_bytes(4, "big")) for number in range(6000)]
    for scores in (np.array([1.0, 0.0]), np.array([0.0, 1.0])):
        check(shares(guards, INPUTS[:1], scores + 1e-300), odds(scores, epsilon, 1.0), 6000)


@given(
    arrays(float, 6, elements=st.floats(0, 1)),
    arrays(float, 6, elements=st.floats(-1, 1)),
    st.floats(0.1, 10),
    st.floats(0.01, 1),
)
def test_whatever_one_example_changes_the_losses_lie_within_epsilon_of_each_other(
    scores: np.ndarray, changes: np.ndarray, epsilon: float, sensitivity: float
):
    """Each loss is at most ε, and all of them lie in a range of ε: the latter is what the concentrated account stands on."""
    losses = np.log(odds(scores, epsilon, sensitivity) / odds(scores + sensitivity * changes, epsilon, sensitivity))
    assert np.abs(losses).max() <= epsilon * (1 + 1e-9)
    assert np.ptp(losses) <= epsilon * (1 + 1e-9)


def exact(epsilon: float, answers: int, delta: float) -> float:
    """The composition of randomised response by the binomial law (Kairouz et al. 2015)."""
    wrong = np.arange(answers + 1)
    losses = (answers - 2 * wrong) * epsilon
    chances = binom.pmf(wrong, answers, 1 / (1 + math.exp(epsilon)))

    def above(at: float) -> float:
        return float((chances * np.clip(-np.expm1(np.minimum(at - losses, 0.0)), 0, None)).sum()) - delta

    lowest, highest = 0.0, answers * epsilon
    for _ in range(100):
        middle = (lowest + highest) / 2
        lowest, highest = (middle, highest) if above(middle) > 0 else (lowest, middle)
    return highest


@pytest.mark.parametrize(("epsilon", "answers"), [(0.05, 100), (0.05, 1000), (0.5, 100), (8.0, 100), (1.0, 3)])
def test_the_privacy_loss_distribution_comes_to_the_binomial_law_rounded_up(epsilon: float, answers: int):
    wanted = exact(epsilon, answers, 1e-5)
    assert wanted - 1e-6 <= composed(epsilon, answers, 1e-5) <= wanted + 1e-3


@pytest.mark.parametrize(("epsilon", "answers"), [(0.01, 1000), (0.05, 1000), (0.1, 500), (0.5, 2000), (8.0, 100)])
def test_many_answers_cost_no_more_than_basic_and_advanced_composition_and_no_less_than_one(epsilon: float, answers: int):
    delta = 1e-5
    basic = answers * epsilon
    advanced = epsilon * math.sqrt(2 * answers * math.log(1 / delta)) + answers * epsilon * math.expm1(epsilon)
    found = NoisyMax(epsilon, 1.0, b"key").spent(answers, delta)
    assert found <= min(basic, advanced) * (1 + 1e-12)
    assert found >= spent(epsilon, 1, delta)


def test_the_concentrated_account_is_that_of_its_formula_where_it_is_the_smallest():
    """ρ + 2 √(ρ log(1/δ)) is its older and looser conversion (Bun, Steinke 2016); 0.9 of it is not reached here."""
    rho = 1000 * 0.05**2 / 8
    formula = rho + 2 * math.sqrt(rho * math.log(1e5))
    found = spent(0.05, 1000, 1e-5)
    assert 0.85 * formula < found < formula
    assert found < 0.5 * composed(0.05, 1000, 1e-5)


def test_nothing_asked_costs_nothing_one_answer_its_epsilon_and_without_delta_all_add_up():
    assert spent(0.5, 0, 1e-5) == 0.0
    assert spent(0.5, 1, 1e-5) == 0.5
    assert spent(0.5, 40, 0.0) == pytest.approx(20.0)
    costs = [spent(0.1, count, 1e-6) for count in (1, 2, 5, 10, 100, 1000, 10_000)]
    assert costs == sorted(costs)


def test_of_an_epsilon_whose_exponential_is_no_number_the_answers_add_up():
    assert spent(800.0, 100, 1e-5) == 80_000.0
    assert composed(LARGEST, 3, 1e-5) == pytest.approx(3 * LARGEST)
    assert "1 cost 1,000.000, 100 cost 100,000.000" in stated("noisy_max1000")


def test_the_owner_s_sensitivity_makes_the_noise_and_the_statement_gives_the_cost():
    made = fitted("noisy_max0.5", owner(sensitivity=1 / 50))
    assert isinstance(made, NoisyMax)
    assert (made.epsilon, made.sensitivity) == (0.5, 0.02)
    assert "each answer has ε = 0.5 for any one training example that changes no score by more than 0.02." in made.statement()
    assert "changes no score by more than 1." in stated("noisy_max0.5")
    assert f"100 cost {made.spent(100, 1e-5):.3f}" in made.statement()
