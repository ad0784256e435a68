"""Queries: everything that a model could tell apart is told apart, and no more."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dptrain.errors import UserError
from dptrain.release.queries import draws, query_of
from tests.dptrain.release.owners import INPUTS


def test_what_is_drawn_depends_on_key_purpose_and_input_and_is_uniform():
    drawn = draws(torch.arange(4000.0)[:, None], b"key", "a", 3)
    assert np.all((drawn > 0) & (drawn < 1))
    for power in (1, 2, 3):  # moments of the uniform distribution; a standard error is below .0052
        assert (drawn**power).mean(0) == pytest.approx(1 / (power + 1), abs=0.02)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.06
    for other in (draws(INPUTS, b"other", "a"), draws(INPUTS, b"key", "b"), draws(INPUTS + 1, b"key", "a")):
        assert (other != draws(INPUTS, b"key", "a")).all()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor([[2**53]]), torch.tensor([[2**53 + 1]])),
        (torch.tensor([[1.0, 2.0]]), torch.tensor([[1, 2]])),
        (torch.tensor([[1.5]]), torch.tensor([[1.5]]).double()),
        (torch.zeros(1, 2, 3), torch.zeros(1, 3, 2)),
        (torch.tensor([[0.0]]), torch.tensor([[-0.0]])),
        (torch.tensor([[1 + 2j]]), torch.tensor([[1 - 2j]])),
        (torch.tensor([[1 + 2j]]), torch.tensor([[1 + 2j]]).conj()),
        (torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bfloat16)),
    ],
)
def test_what_a_model_may_tell_apart_has_draws_of_its_own(one: Tensor, other: Tensor):
    """Of noise that they shared, the difference of two answers would say what no ε covers."""
    assert (draws(one, b"key", "a", 4) != draws(other, b"key", "a", 4)).all()
    assert not torch.equal(query_of(1, (one,), {}), query_of(1, (other,), {}))


def test_how_a_query_lies_in_memory_changes_nothing():
    wide = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    turned = wide.T.contiguous().T
    assert not turned.is_contiguous()
    assert np.array_equal(draws(turned, b"key", "a"), draws(wide, b"key", "a"))
    assert np.array_equal(draws(wide[2:5].requires_grad_(), b"key", "a"), draws(wide, b"key", "a")[2:5])


def test_the_last_bit_of_one_number_buys_another_draw():
    """What the module says that keys do not stop: near-identical queries average a draw away."""
    near = torch.full((1000, 1), 1.0, dtype=torch.float64) + torch.arange(1000)[:, None] * 2.0**-52
    assert draws(near, b"key", "a").mean() == pytest.approx(0.5, abs=4 * 0.0092)


def test_without_a_key_nothing_is_drawn():
    with pytest.raises(UserError, match="the guard's key is empty"):
        draws(INPUTS, b"", "a")
    assert draws(INPUTS[:0], b"key", "a", 3).shape == (0, 3)


X, Y = torch.arange(6.0).view(3, 2), torch.arange(6.0, 12.0).view(3, 2)


def test_of_a_call_every_argument_counts_and_its_name_and_its_place():
    """Two by two, all of these are told apart, for each example."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((X,), {}),
        ((X, Y), {}),
        ((Y, X), {}),
        ((X,), {"plus": Y}),
        ((X,), {"minus": Y}),
        ((X,), {"scale": 1.0}),
        ((X,), {"scale": -1.0}),
        ((X,), {"scale": 1}),
        ((X,), {"scale": True}),
        ((X,), {"scale": "1"}),
        ((X,), {"scale": None}),
        ((X, 1.0), {}),
        ((X,), {"scale": torch.tensor(1.0)}),
        ((X,), {"scale": torch.tensor(-1.0)}),
        ((X,), {"scale": torch.ones(2)}),
        ((X,), {"both": [Y, 1]}),
        ((X,), {"both": (Y, 1)}),
        ((X,), {"both": {"a": Y, "b": 1}}),
        ((X,), {"both": {"a": Y, "c": 1}}),
        ((X.double(),), {}),
        ((X.view(3, 2, 1),), {}),
        ((torch.cat([X, Y], 1),), {}),
    ]
    for example in range(3):
        digests = {query_of(3, inputs, named)[example].numpy().tobytes() for inputs, named in calls}
        assert len(digests) == len(calls)


def test_a_call_for_one_example_is_the_same_query_as_in_a_batch():
    mask = torch.tensor([[1.0, 0.0]])
    together = query_of(3, (X,), {"other": Y, "mask": mask, "table": torch.ones(5, 5)})
    for row in range(3):
        alone = query_of(1, (X[row : row + 1],), {"other": Y[row : row + 1], "mask": mask, "table": torch.ones(5, 5)})
        assert torch.equal(alone[0], together[row])


def test_what_cannot_be_told_apart_is_refused_with_its_name():
    with pytest.raises(UserError, match="how is a object, of which it does not know"):
        query_of(3, (X,), {"how": object()})
    with pytest.raises(UserError, match=r"no dense tensor; give \.to_dense\(\)"):
        query_of(3, (X.to_sparse(),), {})
    with pytest.raises(UserError, match="without a tensor of 4 rows"):
        query_of(4, (X,), {})
