"""A score moves by at most 1 with one unit, and has the noise that is stated."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn

import dptrain.data
from dptrain.data.dataset import DataSet
from dptrain.noise import secret_generator
from dptrain.recipe import DataConfig
from evaluation.access import Access
from evaluation.score import score, shares_of
from evaluation.target import Target


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return dptrain.data.load(DataConfig(name="digits"))


def target_of(module: nn.Module) -> Target:
    return Target(module, Access.WEIGHTS, bounds=(0.0, 1.0), classes=10)


@pytest.fixture(scope="module")
def target(digits: DataSet) -> Target:
    torch.manual_seed(0)
    return target_of(nn.Sequential(nn.Flatten(), nn.Linear(digits.inputs[0].numel(), 10)))


def test_leaving_out_any_example_changes_the_score_by_at_most_one(digits: DataSet, target: Target):
    indices, generator = np.arange(120), np.random.default_rng(0)
    whole = score(target, digits, indices, unit="example", noise=0.0, generator=generator)
    assert 0 < whole < 120
    changes = [
        whole - score(target, digits, np.delete(indices, left_out), unit="example", noise=0.0, generator=generator)
        for left_out in range(120)
    ]
    assert set(changes) == {0.0, 1.0}
    assert sum(changes) == whole


def test_a_user_changes_it_by_at_most_one_however_many_examples_they_have(digits: DataSet, target: Target):
    """The first of three users has 100 of 120 examples."""
    data = dataclasses.replace(digits, users=torch.cat([torch.zeros(100), torch.ones(10), torch.full((1687,), 2)]).long())
    indices, generator = np.arange(120), np.random.default_rng(0)
    whole = score(target, data, indices, unit="user", noise=0.0, generator=generator)
    without = score(target, data, indices[100:], unit="user", noise=0.0, generator=generator)
    assert 0 <= whole - without <= 1
    assert whole <= 3
    assert whole - without == pytest.approx(shares_of(target, data, indices[:100]).mean())


def test_an_answer_that_is_no_number_is_wrong_and_the_others_stand(digits: DataSet):
    class Astray(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            answers = torch.nn.functional.one_hot(torch.arange(len(inputs)) % 10, 10).float()
            answers[::2] = torch.nan
            return answers

    shares = shares_of(target_of(Astray()), digits, np.arange(100))
    assert set(shares[::2]) == {0.0}
    assert set(shares) == {0.0, 1.0}


def test_the_noise_is_gaussian_and_as_large_as_stated(digits: DataSet, target: Target):
    generator, indices = secret_generator(0, "score"), np.arange(20)
    exact = shares_of(target, digits, indices).sum()
    drawn = [score(target, digits, indices, unit="example", noise=3.0, generator=generator) for _ in range(400)]
    assert kstest((np.array(drawn) - exact) / 3.0, "norm").pvalue > 1e-3
