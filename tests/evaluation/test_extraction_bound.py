"""What a plan permits of a secret: its ends, the case of a reconstruction, and an adversary that keeps below it."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn
from torch.utils.data import TensorDataset

from dptrain import make_private
from dptrain.errors import UserError
from dptrain.plan import PrivacyPlan
from evaluation.extraction.bound import (
    ONE_BY_ONE,
    expected_exposure,
    group_curve,
    permitted_exposure,
    permitted_recovery,
    units_of,
)
from evaluation.extraction.exposure import without_insertion
from evaluation.inversion.bound import gaussian_mu, reconstruction_bound

pytestmark = pytest.mark.filterwarnings("ignore:delta is", "ignore:expected_batch_size is")
FULL = PrivacyPlan(sampling_rate=1.0, expected_batch_size=100, steps=4, clipping_norm=1.0, delta=1e-5, noise_multiplier=2.0)
SAMPLED = dataclasses.replace(FULL, sampling_rate=0.1, expected_batch_size=10, steps=20, noise_multiplier=1.0)


@pytest.mark.parametrize("space", [2.0, 1000.0, 1e6, 1e15])
def test_a_plan_that_permits_nothing_leaves_a_uniform_rank(space: float):
    found = expected_exposure(lambda rates: rates, space)
    exactly = without_insertion(space)
    assert exactly <= found + 1e-9 <= exactly * 1.001 + 2e-9
    if space <= ONE_BY_ONE:
        assert found == pytest.approx(exactly)


def test_a_plan_that_permits_everything_leaves_all_bits():
    assert expected_exposure(np.ones_like, 2.0**20) == pytest.approx(20)


def test_the_first_rank_of_one_example_is_the_bound_of_a_reconstruction():
    assert permitted_recovery(SAMPLED, 1, 1e4) == reconstruction_bound(SAMPLED, 1e-4)
    assert permitted_recovery(SAMPLED, 1, 1e4, guesses=100) == reconstruction_bound(SAMPLED, 1e-2)
    assert permitted_recovery(SAMPLED, 1, 10, guesses=100) == 1.0


@pytest.mark.parametrize("size", [1, 2, 3])
def test_of_full_batches_n_examples_are_one_that_is_n_times_as_long(size: int):
    """A Gaussian of μ composed n times with itself is one of n μ: Φ(Φ⁻¹(x) + n μ)."""
    rates = np.array([1e-3, 0.01, 0.1, 0.5])
    exactly = norm.cdf(norm.ppf(rates) + size * gaussian_mu(FULL))
    assert group_curve(FULL, size)(rates) == pytest.approx(exactly, rel=0.03)
    assert (group_curve(FULL, size)(rates) >= exactly - 1e-9).all()


def test_of_sampled_batches_the_mixture_says_more_than_one_by_one():
    rates = np.array([1e-3, 0.01, 0.1])
    apart = SAMPLED.permitted_true_positive_rates(SAMPLED.permitted_true_positive_rates(rates))
    assert (group_curve(SAMPLED, 2)(rates) < 0.97 * apart).all()
    cyclic = dataclasses.replace(SAMPLED, sampling="cyclic_poisson", bands=2)
    twice = cyclic.permitted_true_positive_rates(cyclic.permitted_true_positive_rates(rates))
    assert (group_curve(cyclic, 2)(rates) == twice).all()


def test_more_insertions_permit_more_up_to_all_bits():
    found = [permitted_exposure(SAMPLED, count, 1e6) for count in (1, 2, 4)]
    assert without_insertion(1e6) < found[0] < found[1] < found[2] <= np.log2(1e6)


def test_the_informed_adversary_of_orthogonal_candidates_keeps_below_and_comes_near():
    """Candidate k moves the sum along an axis of its own: its score is a normal, shifted by n μ where it was inserted."""
    generator, candidates, trials = np.random.default_rng(0), 1000, 2000
    for insertions in (1, 2):
        scores = generator.normal(size=(trials, candidates))
        scores[:, 0] += insertions * gaussian_mu(FULL)
        ranks = (scores >= scores[:, :1]).sum(1)
        bits = np.log2(candidates) - np.log2(ranks)
        bound = permitted_exposure(FULL, insertions, candidates)
        error = bits.std() / np.sqrt(trials)
        assert bits.mean() <= bound + 2 * error
        assert bits.mean() >= 0.9 * bound


def test_what_has_no_bound_is_refused():
    with pytest.raises(UserError, match="permits everything"):
        group_curve(dataclasses.replace(FULL, noise_multiplier=0.0), 1)
    with pytest.raises(UserError, match="from 1 up"):
        group_curve(FULL, 0)
    with pytest.raises(UserError, match="at least 2"):
        expected_exposure(np.ones_like, 1.0)


# -- users ----------------------------------------------------------------------------------------------------------

BY_USER = dataclasses.replace(FULL, unit="user", max_examples_per_unit=16)


def test_a_secret_stands_in_as_many_units_as_users_have_it():
    users = torch.tensor([5, 5, 5, 7, 8])
    assert units_of(FULL, (0, 1, 2), users) == units_of(FULL, (0, 1, 2), None) == 3
    assert units_of(BY_USER, (0, 1, 2), users) == 1
    assert units_of(BY_USER, (2, 3, 4), users) == 3
    assert units_of(BY_USER, (0, 1, 2), None) == 3  # whose they are is not known: each could be another's


def contributed(plan: PrivacyPlan, repetitions: int, candidates: int, secret: int) -> np.ndarray:
    """What so many repetitions of a secret add to one sum, by the engine: each pulls along the secret's axis."""
    model = nn.Linear(candidates, 1, bias=False)
    nn.init.zeros_(model.weight)
    inputs = torch.zeros(repetitions + 1, candidates)
    inputs[:-1, secret] = 30.0
    users = np.array([0] * repetitions + [1])
    quiet = dataclasses.replace(plan, noise_multiplier=1e-6, steps=1)
    training = make_private(
        model, torch.optim.SGD(model.parameters(), lr=1.0), TensorDataset(inputs, torch.zeros(len(inputs))), quiet,
        loss=lambda model, batch: model(batch[0])[:, 0], units=users if plan.unit == "user" else None,
    )  # fmt: skip
    training.step(next(training.batches()))
    return -model.weight.detach().double().numpy()[0] * plan.expected_batch_size


def test_of_one_users_sixteen_repetitions_the_bound_is_that_of_one_unit_and_an_adversary_comes_near():
    """Clipped one by one, the sixteen are far above it: the bound is of the user alone, and of no group."""
    generator, candidates, trials = np.random.default_rng(1), 1000, 2000
    bound = permitted_exposure(BY_USER, 1, candidates)
    assert bound == permitted_exposure(FULL, 1, candidates)
    found = {}
    for plan in (BY_USER, FULL):
        axis = contributed(plan, 16, candidates, 3)
        scores = plan.steps * axis + np.sqrt(plan.steps) * plan.noise_multiplier * generator.normal(size=(trials, candidates))
        ranks = (scores >= scores[:, 3:4]).sum(1)
        found[plan.unit] = np.log2(candidates) - np.log2(ranks)
    error = found["user"].std() / np.sqrt(trials)
    assert 0.9 * bound <= found["user"].mean() <= bound + 2 * error
    assert found["example"].mean() > 2 * bound
    assert found["example"].mean() <= permitted_exposure(FULL, 16, candidates) + 1e-9
