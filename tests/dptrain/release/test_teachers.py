"""Teachers: disjoint parts, and one vote each."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dptrain.errors import UserError
from dptrain.release.guard import fitted
from dptrain.release.noisy_max import NoisyMax
from dptrain.release.teachers import Ensemble, partition
from dptrain.release.wrapped import Guarded
from tests.dptrain.release.owners import INPUTS, owner


def teachers(count: int, seed: int) -> list[nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [nn.Linear(3, 5) for _ in range(count)]


def test_scores_are_shares_of_votes():
    def always(label: int) -> nn.Module:
        made = nn.Linear(3, 5)
        with torch.no_grad():
            made.weight.zero_()
            made.bias.copy_(torch.eye(5)[label])
        return made

    ensemble = Ensemble([always(2), always(2), always(4)])
    shares = ensemble(INPUTS[:4]).softmax(1)
    assert shares.numpy() == pytest.approx(np.tile([0, 0, 2 / 3, 0, 1 / 3], (4, 1)))
    assert ensemble.votes(INPUTS[:1]).tolist() == [[0, 0, 2, 0, 1]]


@given(st.integers(1, 12), st.integers(0, 11), st.integers(0, 100))
def test_another_teacher_changes_no_score_by_more_than_one_over_their_number(count: int, changed: int, seed: int):
    before = Ensemble(teachers(count, seed))
    after = copy.deepcopy(before)
    after.teachers[changed % count] = teachers(1, seed + 1000)[0]
    change = (before(INPUTS).softmax(1) - after(INPUTS).softmax(1)).abs()
    assert float(change.max()) <= before.sensitivity * (1 + 1e-12)
    assert float(change.sum(1).max()) <= 2 * before.sensitivity * (1 + 1e-12)


def test_that_bound_is_reached():
    other = Ensemble([*teachers(3, 0), *teachers(1, 7)])
    same = Ensemble(teachers(3, 0) + teachers(1, 8))
    change = (other(INPUTS).softmax(1) - same(INPUTS).softmax(1)).abs()
    assert float(change.max()) == pytest.approx(other.sensitivity)


def test_many_teachers_that_agree_are_heard_through_noise_that_would_drown_one():
    """Fifty of one opinion and ε = .5: the class wins with odds of exp(12.5) against each other one, a lone model's with
    exp(.25)."""
    one = teachers(1, 3)[0]
    label = one(INPUTS).argmax(1).numpy()
    for count, lowest, highest in ((50, 0.99, 1.0), (1, 0.15, 0.4)):
        ensemble = Ensemble([one] * count)
        guard = fitted("noisy_max0.5", owner(sensitivity=ensemble.sensitivity))
        assert isinstance(guard, NoisyMax)
        right = (Guarded(ensemble, guard).answers(INPUTS).labels == label).mean()
        assert lowest <= right <= highest


@given(st.integers(1, 20), st.integers(0, 5), st.integers(2, 5))
def test_parts_are_disjoint_whole_and_about_equal(count: int, seed: int, spacing: int):
    indices = np.arange(0, 400 * spacing, spacing)
    parts = partition(indices, count, seed)
    assert len(parts) == count
    assert np.array_equal(np.sort(np.concatenate(parts)), indices)
    sizes = np.array([len(part) for part in parts])
    assert np.abs(sizes - 400 / count).max() <= 5 * np.sqrt(400 / count)


def test_an_example_more_or_less_changes_one_part():
    indices = np.arange(300)
    before, after = partition(indices, 10, 0), partition(np.delete(indices, 123), 10, 0)
    changed = [number for number in range(10) if not np.array_equal(before[number], after[number])]
    assert len(changed) == 1
    (number,) = changed
    assert np.array_equal(np.setdiff1d(before[number], after[number]), [123])


def test_the_seed_deals_the_examples():
    assert not np.array_equal(partition(np.arange(100), 2, 0)[0], partition(np.arange(100), 2, 1)[0])


def test_what_cannot_be_dealt_is_refused():
    with pytest.raises(UserError, match="teachers would have none of the 3 examples; give fewer"):
        partition(np.arange(3), 50, 0)
    with pytest.raises(UserError, match="an index comes twice"):
        partition(np.array([1, 1, 2]), 2, 0)
    with pytest.raises(UserError, match="the number of teachers is 0"):
        partition(np.arange(3), 0, 0)
    with pytest.raises(UserError, match="no teachers"):
        Ensemble([])
