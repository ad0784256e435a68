"""How sure an inversion is of a class."""

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.inversion.distribution import distribution, mean_share, pair_distance
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.metrics import proportion


def test_the_share_of_draws_is_averaged_over_classes_and_a_class_is_one_trial():
    drawn = torch.tensor([[[0.0], [0.0], [1.0], [0.0]], [[1.0], [1.0], [0.0], [0.0]]])

    def labels(inputs: Tensor) -> np.ndarray:
        return inputs[:, 0].long().numpy()

    known = ClassKnowledge((1,), torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.tensor([0, 0, 1, 1]))
    share, spread, people = distribution(drawn, labels, known)
    assert share.value == pytest.approx((0.75 + 0.5) / 2)
    assert (share.low, share.high) == (proportion(1, 2).low, proportion(2, 2).high)
    # Of 0, 0, 1, 0 three of six pairs differ by 1; of 1, 1, 0, 0 four of six.
    assert spread.value == pytest.approx(((3 / 6 + 4 / 6) / 2) ** 0.5)
    assert people.value == pytest.approx(4.0)


def test_all_draws_right_leave_the_doubt_of_as_many_trials_as_classes():
    found = mean_share(np.ones(20), "share")
    assert found.value == 1.0
    assert (found.low, found.high) == (proportion(20, 20).low, 1.0)


def test_the_distance_of_pairs_is_that_of_all_pairs_one_by_one():
    groups = torch.randn(3, 5, 2, 4, generator=torch.Generator().manual_seed(0))
    pairs = [(group[i] - group[j]).square().mean() for group in groups.double() for i in range(5) for j in range(i + 1, 5)]
    assert pair_distance(groups) == pytest.approx(float(torch.stack(pairs).mean().sqrt()))
