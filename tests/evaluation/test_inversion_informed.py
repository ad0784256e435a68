"""The informed adversary: what he finds is held against closed forms, against the engine, and against the plan's bound."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, make_private, per_example
from dptrain.errors import UserError
from dptrain.noise import NoiseMechanism
from dptrain.private import PrivateTraining
from dptrain.recipe import Clipping
from evaluation.audit.gdp import epsilon_to_mu
from evaluation.inversion.bound import gaussian_bound, gaussian_mu, orthogonal_success, reconstruction_bound
from evaluation.inversion.informed import (
    EXAMPLES,
    ORTHOGONAL,
    SecretExample,
    informed_game,
    most_likely,
    orthogonal_guesses,
    orthogonal_secret,
)
from evaluation.inversion.released import Contributions, known_sum, watch

SURE = 1 - 1e-5
LOSS = per_example(F.cross_entropy)
FAR = pytest.param(100.0, marks=pytest.mark.slow)
"""Its privacy losses span so much that the curve takes seconds."""


def full_batch(epsilon: float, steps: int = 2, batch: float = 21) -> PrivacyPlan:
    """σ from the Gaussian curve itself: √T / σ = μ(ε, δ)."""
    sigma = math.sqrt(steps) / epsilon_to_mu(epsilon, 1e-5)
    return PrivacyPlan(sampling_rate=1.0, expected_batch_size=batch, steps=steps, clipping_norm=0.5, delta=1e-5,
                       noise_multiplier=sigma)  # fmt: skip


def digits_secret(plan: PrivacyPlan, candidates: int = 10, known: int = 20) -> SecretExample:
    pixels, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(pixels / 16 - 0.3, dtype=torch.float32), torch.tensor(labels)
    torch.manual_seed(0)
    kept, tried = slice(0, known), slice(known, known + candidates)
    return SecretExample(nn.Linear(64, 10), LOSS, (inputs[kept], targets[kept]), (inputs[tried], targets[tried]), plan,
                         learning_rate=0.5)  # fmt: skip


def halved(training: PrivateTraining) -> None:
    noise = training._noise
    assert isinstance(noise, NoiseMechanism)
    draw = noise._unit_noise
    noise._unit_noise = lambda *given: (draw(*given)[0] * 0.5, 1.0)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("epsilon", [1.0, 8.0, FAR])
@pytest.mark.parametrize("candidates", [10, 1000])
def test_the_bound_of_a_full_batch_plan_is_the_gaussian_one(epsilon: float, candidates: int):
    plan = full_batch(epsilon)
    mu, found = gaussian_mu(plan), reconstruction_bound(plan, 1 / candidates)
    assert mu == pytest.approx(epsilon_to_mu(epsilon, 1e-5))
    assert gaussian_bound(mu, 1 / candidates) - 1e-6 <= found <= gaussian_bound(mu, 1 / candidates) * 1.01 + 1e-4


@pytest.mark.parametrize(("epsilon", "bound"), [(1.0, 0.155), (8.0, 0.650), (100.0, 1.0)])
def test_the_bound_for_ten_candidates_is_the_known_one(epsilon: float, bound: float):
    assert gaussian_bound(epsilon_to_mu(epsilon, 1e-5), 0.1) == pytest.approx(bound, abs=6e-4)


def test_without_noise_everything_is_permitted_and_without_a_release_nothing():
    assert reconstruction_bound(dataclasses.replace(full_batch(1.0), noise_multiplier=0.0), 0.1) == 1.0
    assert gaussian_bound(0.0, 0.1) == pytest.approx(0.1)
    assert orthogonal_success(0.0, 1000) == pytest.approx(0.001, rel=1e-6)
    with pytest.raises(UserError, match="prior_hit is 10"):
        reconstruction_bound(full_batch(1.0), 10)


def test_replacing_one_permits_as_much_as_its_own_curve_and_needs_no_more_than_half_the_distance():
    plan = dataclasses.replace(full_batch(8.0, batch=20), relation="replace_one", sampling="fixed_size", max_examples=20)
    mu = gaussian_mu(plan)
    assert mu == pytest.approx(math.sqrt(plan.steps) / plan.noise_multiplier / 2)
    assert gaussian_bound(mu, 0.1) < reconstruction_bound(plan, 0.1)


@pytest.mark.parametrize("candidates", [2, 10, 300])
def test_orthogonal_candidates_are_told_apart_as_often_as_the_integral_says(candidates: int):
    plan, generator = full_batch(8.0), np.random.default_rng(0)
    truths = generator.integers(candidates, size=8_000)
    found = informed_game(plan, candidates, orthogonal_guesses(plan, candidates, truths, generator), truths, ORTHOGONAL, SURE)
    assert found.success.low is not None
    assert found.success.high is not None
    assert found.success.low < orthogonal_success(gaussian_mu(plan), candidates) < found.success.high


def test_orthogonal_success_of_two_candidates_is_that_of_their_difference():
    assert orthogonal_success(1.3, 2) == pytest.approx(0.5 * math.erfc(-1.3 / 2), abs=1e-9)


@pytest.mark.parametrize("clipping", ["flat", "automatic"])
def test_contributions_are_those_that_the_engine_sums(clipping: Clipping):
    plan = dataclasses.replace(full_batch(8.0, steps=1, batch=3), clipping=clipping, noise_multiplier=0.0)
    torch.manual_seed(1)
    model, inputs, targets = nn.Linear(6, 4), torch.randn(3, 6) * torch.tensor([[0.01], [1.0], [9.0]]), torch.arange(3)
    contributions = Contributions(model, LOSS, plan)
    training = make_private(model, torch.optim.SGD(model.parameters(), lr=1.0), TensorDataset(inputs, targets), plan, loss=LOSS)
    releases = watch(training)
    for batch in training.batches():
        training.step(batch)
    (release,) = releases
    summed = contributions(release.weights, inputs, targets).sum(0) / 3
    torch.testing.assert_close(release.gradient, summed, rtol=2e-4, atol=1e-6)


def test_the_engine_and_the_simulation_are_one_mechanism():
    """From the same weights the releases differ by noise of the stated deviation alone, and as many are named."""
    plan = full_batch(8.0)
    secret, generator = digits_secret(plan), np.random.default_rng(0)
    deviations: list[float] = []

    def seen(training: PrivateTraining) -> None:
        releases = watch(training)

        def look(*_: Any) -> None:
            release = releases[-1]
            clean = (
                known_sum(secret._contributions, release.weights, secret._known)
                + secret._contributions(release.weights, *secret._candidates)[3]
            )
            deviations.append(float((release.gradient * 21 - clean).std() / (plan.noise_multiplier * plan.sensitivity)))

        training.optimizer.register_step_pre_hook(look)

    secret.trained(np.full(3, 3), generator, seen)
    assert len(deviations) == 3 * plan.steps
    assert np.mean(deviations) == pytest.approx(1.0, abs=4 / math.sqrt(2 * 650 * len(deviations)))
    truths = secret.drawn(40, generator)
    by_engine = informed_game(plan, 10, secret.trained(truths, generator), truths, EXAMPLES, SURE).success
    truths = secret.drawn(1000, generator)
    by_simulation = informed_game(plan, 10, secret.simulated(truths, generator), truths, EXAMPLES, SURE).success
    assert by_engine.low is not None
    assert by_engine.high is not None
    assert by_simulation.value is not None
    assert by_engine.low < by_simulation.value < by_engine.high
    assert by_simulation.value > 0.2  # the candidates are seen at all


@pytest.mark.parametrize("epsilon", [1.0, 8.0, FAR])
def test_no_informed_adversary_of_many_trials_exceeds_the_bound(epsilon: float):
    plan, generator = full_batch(epsilon), np.random.default_rng(1)
    secret = digits_secret(plan)
    truths = secret.drawn(1000, generator)
    assert not informed_game(plan, 10, secret.simulated(truths, generator), truths, EXAMPLES, SURE).exceeds
    truths = generator.integers(10, size=100_000)
    worst = informed_game(plan, 10, orthogonal_guesses(plan, 10, truths, generator), truths, ORTHOGONAL, SURE)
    assert not worst.exceeds
    assert (worst.success.value or 0.0) > 0.8 * worst.bound


def test_half_the_noise_exceeds_the_bound_in_the_simulation():
    plan, generator = full_batch(8.0), np.random.default_rng(2)
    secret = orthogonal_secret(10, plan)
    truths = secret.drawn(1000, generator)
    assert informed_game(plan, 10, secret.simulated(truths, generator, 0.5), truths, ORTHOGONAL, SURE).exceeds
    assert not informed_game(plan, 10, secret.simulated(truths, generator), truths, ORTHOGONAL, SURE).exceeds


def test_half_the_noise_in_the_engine_exceeds_the_bound():
    plan, generator = full_batch(8.0, steps=1, batch=1), np.random.default_rng(3)
    secret = orthogonal_secret(100, plan)
    truths = secret.drawn(60, generator)
    assert informed_game(plan, 100, secret.trained(truths, generator, halved), truths, ORTHOGONAL, SURE).exceeds
    assert not informed_game(plan, 100, secret.trained(truths, generator), truths, ORTHOGONAL, SURE).exceeds


def test_candidates_that_no_release_tells_apart_are_guessed_by_chance():
    guesses = most_likely(np.zeros((4000, 4)), np.random.default_rng(0))
    assert np.bincount(guesses, minlength=4) == pytest.approx(1000, abs=120)
    assert (most_likely(np.array([[0.0, 2.0, 1.0]]), np.random.default_rng(0)) == 1).all()


def test_the_text_says_success_bound_and_blind_guess():
    plan = full_batch(8.0)
    truths = np.arange(10)
    found = informed_game(plan, 10, np.zeros(10, dtype=int), truths, ORTHOGONAL)
    assert "One of 10 candidates at ε = 8" in found.text
    assert "named in 0.1000 of trials" in found.text
    assert "within the 0.6497" in found.text
    assert not found.exceeds


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sampling_rate": 0.5}, "take reconstruction_bound"),
        ({"noise_multiplier": 0.0}, "the plan adds no noise"),
        ({"clipping": "per_layer"}, "clipping is 'per_layer'"),
    ],
)
def test_a_plan_that_the_likelihood_is_not_of_is_refused(change: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        digits_secret(dataclasses.replace(full_batch(8.0), **change))
    with pytest.raises(UserError, match="give at least 2"):
        digits_secret(full_batch(8.0), candidates=1)
