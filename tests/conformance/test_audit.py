"""Published audit figures, to the digits given; δ = 1e-5 and 95% confidence unless said.

The Gaussian game is that of Mahloujifar et al. 2025, table 1: m canaries, each the score N(0, σ²), or N(1, σ²) if it was
inserted, all independent. The number of guesses is planned from the claim, without a look at any score.
"""

import numpy as np
import pytest

import dptrain.data
from dptrain.recipe import DataConfig, ModelConfig, OptimizerConfig, PrivacyConfig, Recipe, TrainingConfig
from evaluation.audit import fdp, gdp, one_run, white_box
from evaluation.audit.bound import Terms
from evaluation.audit.clopper_pearson import exact_epsilon
from evaluation.audit.guesses import Guesses, correct_guesses, planned_guesses
from evaluation.audit.judge import judge
from evaluation.audit.shift import shift_estimate
from evaluation.audit.thresholds import Errors

DELTA, SIGNIFICANCE = 1e-5, 0.05


def game(mu: float, canaries: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    is_member = generator.random(canaries) < 0.5
    return generator.normal(size=canaries) + mu * is_member, is_member


def steinke(canaries: int, guesses: int, correct: int) -> float:
    return one_run.epsilon_lower_bound(canaries, guesses, correct, DELTA, SIGNIFICANCE)


def over_games(bound, mu: float, canaries: int, draws: int) -> np.ndarray:
    plan = planned_guesses(canaries, mu, lambda guesses, correct: bound(canaries, guesses, correct))
    counts = (correct_guesses(*game(mu, canaries, seed), plan, seed) for seed in range(draws))
    return np.array([bound(canaries, plan.total, correct) for correct in counts])


def gaussian_epsilon(canaries: int, guesses: int, correct: int) -> float:
    return gdp.mu_to_epsilon(fdp.mu_lower_bound(canaries, guesses, correct, SIGNIFICANCE), DELTA)


@pytest.mark.parametrize(("mu", "epsilon"), [(0.5, 1.9931), (1.0, 4.3772), (2.0, 9.9973)])
def test_a_gaussian_curve_has_its_closed_form_in_both_directions(mu: float, epsilon: float):
    assert gdp.mu_to_epsilon(mu, DELTA) == pytest.approx(epsilon, abs=5e-5)
    assert gdp.epsilon_to_mu(epsilon, DELTA) == pytest.approx(mu, abs=2e-5)


@pytest.mark.parametrize(
    ("canaries", "guesses", "wrong", "significance", "epsilon", "digits"),
    [
        (500, 100, 0, 0.05, 3.479195, 6),
        (500, 100, 0, 0.01, 3.023198, 6),
        (1000, 1000, 401, 0.05, 0.2931, 4),
        (1000, 1000, 309, 0.05, 0.6902, 4),
        (1000, 1000, 159, 0.05, 1.5209, 4),
        (10000, 1000, 97, 0.05, 2.0464, 4),
    ],
)
def test_the_one_run_bound_has_its_published_values(
    canaries: int, guesses: int, wrong: int, significance: float, epsilon: float, digits: int
):
    found = one_run.epsilon_lower_bound(canaries, guesses, guesses - wrong, DELTA, significance)
    assert round(found, digits) == epsilon


@pytest.mark.parametrize(("canaries", "ceiling"), [(10, 1.052), (100, 3.490), (1000, 5.782), (5000, 7.284)])
def test_a_perfect_attack_in_one_run_has_its_ceiling(canaries: int, ceiling: float):
    assert round(steinke(canaries, canaries, canaries), 3) == ceiling


@pytest.mark.parametrize(
    ("trials", "ceiling"), [(100, 3.281), (200, 3.984), (500, 4.906), (1000, 5.601), (5000, 7.212), (10000, 7.905)]
)
def test_a_perfect_attack_over_many_runs_has_its_ceiling(trials: int, ceiling: float):
    """The figures are those of δ = 0: for 5,000 trials δ = 1e-5 gives 7.211492, which rounds the other way."""
    without, with_delta = (float(exact_epsilon(Errors.fewest(trials, trials), delta, SIGNIFICANCE)[0]) for delta in (0, DELTA))
    assert round(without, 3) == ceiling
    assert with_delta == pytest.approx(without, abs=1.1e-5)


@pytest.mark.parametrize(
    ("sigma", "canaries", "published"),
    [(0.5, 10**5, 4.99), (1.0, 10**5, 2.61), (2.0, 10**5, 1.33), pytest.param(4.0, 10**6, 0.61, marks=pytest.mark.slow)],
)
def test_the_gaussian_game_gives_the_published_one_run_bounds(sigma: float, canaries: int, published: float):
    found = over_games(steinke, 1 / sigma, canaries, 40 if canaries == 10**5 else 8)
    assert found.mean() == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize(
    ("sigma", "canaries", "truth", "least"),
    [
        (0.5, 10**5, 9.99, 6.5),
        (1.0, 10**5, 4.37, 2.9),
        (2.0, 10**5, 1.99, 1.33),
        pytest.param(4.0, 10**6, 0.92, 0.61, marks=pytest.mark.slow),
    ],
)
def test_the_gaussian_game_gives_more_by_f_dp_and_never_more_than_the_truth(
    sigma: float, canaries: int, truth: float, least: float
):
    found = over_games(gaussian_epsilon, 1 / sigma, canaries, 24 if canaries == 10**5 else 8)
    assert found.mean() >= least
    assert found.max() <= truth


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "published"), [(0.5, 8.16), (1.0, 3.61), (2.0, 1.59)])
def test_the_published_f_dp_figures_are_those_of_a_number_of_guesses_chosen_on_the_same_scores(sigma: float, published: float):
    """With the number planned beforehand the mean lies below; with the best over all numbers it is within a deviation."""
    canaries, fixed, best = 10**5, [], []
    plan = planned_guesses(canaries, 1 / sigma, lambda guesses, correct: gaussian_epsilon(canaries, guesses, correct))
    for seed in range(12):
        scores, is_member = game(1 / sigma, canaries, seed)
        centred = scores - 0.5 / sigma
        order = np.argsort(-np.abs(centred))
        right = ((centred > 0) == is_member)[order]
        before_a_miss = np.flatnonzero(~right)[:160]
        tried = [int(place) for place in before_a_miss[::2] if place >= 20]
        total = np.cumsum(right)
        best.append(max(gaussian_epsilon(canaries, guesses, int(total[guesses - 1])) for guesses in tried))
        fixed.append(gaussian_epsilon(canaries, plan.total, int(total[plan.total - 1])))
    assert np.mean(fixed) < published - np.std(fixed) / 2
    assert np.mean(best) == pytest.approx(published, abs=float(np.std(best, ddof=1)))


def test_a_shift_of_independent_scores_is_estimated_closely_and_bounds_nothing():
    terms = Terms(access="white-box", relation="add_or_remove_one")
    estimate = shift_estimate(*game(1.0, 10**5, 0), terms)
    assert estimate.epsilon == pytest.approx(4.32, abs=0.08)
    assert not estimate.is_bound
    assert not estimate.contradicts(1.0)
    assert "an estimate and not a bound" in str(estimate)


def test_a_million_canaries_take_a_moment():
    scores, is_member = game(0.25, 10**6, 0)
    correct = correct_guesses(scores, is_member, Guesses.of(10**6))
    assert 0.3 > steinke(10**6, 10**6, correct) > 0.15
    assert gaussian_epsilon(10**6, 10**6, correct) > steinke(10**6, 10**6, correct)


@pytest.mark.filterwarnings("ignore:delta is")
@pytest.mark.usefixtures("same_keys")
def test_a_thousand_canaries_through_the_engine_show_more_than_a_quarter_of_the_claim():
    """One run, white box, full batch, theoretical ε = 4; each bound by itself at 95%. In the ideal Gaussian game the first is
    1.43 on average, with a standard deviation of .44, so that the mean of 24 lies below 1.1 once in 10,000 times; which 24
    games are played is the same in each run."""
    privacy = PrivacyConfig(epsilon=4.0, delta=DELTA, sampling_rate=1.0, clipping_norm=0.1, expected_batch_size=900)
    recipe = Recipe(
        model=ModelConfig(name="linear"),
        optimizer=OptimizerConfig(learning_rate=1.0),
        privacy=privacy,
        training=TrainingConfig(steps=20),
    )
    digits = dptrain.data.load(DataConfig(name="digits"))
    games = [white_box.play(recipe, digits, np.arange(900), canaries=1000, seed=seed).game for seed in range(24)]
    found = {name: np.mean([judge(game, bound=name).bounds[0].epsilon for game in games]) for name in ("steinke", "f-dp")}
    assert 1.1 <= found["steinke"] <= 4
    assert 1.5 <= found["f-dp"] <= 4
