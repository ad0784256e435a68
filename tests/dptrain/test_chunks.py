"""A logical batch in physical chunks: whole groups, bounded memory, the same sum however it is cut."""

import dataclasses
import itertools
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dptrain import make_private, per_example
from dptrain.chunks import chunks_of
from dptrain.clipping import Chunk, Clipper
from dptrain.data.examples import Examples
from dptrain.errors import PlanError
from dptrain.private import PrivateTraining
from dptrain.recipe import Performance
from tests.dptrain.test_private import PLAN, QUIET, dataset, flat, run, training, weights


@pytest.fixture(autouse=True)
def _no_delta_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="delta is")
        yield


NUMBERED = Examples(TensorDataset(torch.arange(500)))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 9), max_size=30), st.integers(9, 40), st.integers(1, 3), st.booleans(), st.booleans()
)  # fmt: skip
def test_chunks_hold_each_group_once_and_whole(sizes: list[int], rows: int, views: int, grouped: bool, filled: bool):
    """Sharp edge 9: whatever the sizes, each group's weights sum to 1 over its own members, and nobody else's."""
    rows *= views
    total = sum(sizes)
    positions = np.random.default_rng(total).permutation(500)[:total]
    offsets = np.cumsum([0, *sizes]) if grouped else None
    members = [positions[a:b] for a, b in itertools.pairwise(offsets)] if offsets is not None else positions[:, None]
    wanted = {frozenset(group.tolist()): 1 / len(group) for group in members}
    seen: list[frozenset[int]] = []
    for chunk in chunks_of(positions, offsets, NUMBERED, rows=rows, views=views, filled=filled):
        (taken,) = chunk.batch
        assert len(taken) <= rows
        given_weights = chunk.row_weights(len(taken), torch.device("cpu"))
        each = torch.ones(len(taken)) if given_weights is None else given_weights
        real = torch.ones(len(taken) // chunk.group, dtype=torch.bool) if chunk.real is None else chunk.real
        for group, weight, there in zip(taken.split(chunk.group), each.split(chunk.group), real, strict=True):
            if not there:
                continue
            assert float(weight.sum()) == pytest.approx(1.0)
            own = frozenset(group[weight > 0].tolist())
            assert frozenset(group.tolist()) == own  # what fills a group is its own
            for member in own:
                assert float(weight[group == member].sum()) == pytest.approx(wanted[own])
            seen.append(own)
    assert sorted(map(sorted, seen)) == sorted(map(sorted, wanted))


def test_filled_chunks_are_all_of_one_size():
    sizes = {len(chunk.batch[0]) for chunk in chunks_of(np.arange(23), None, NUMBERED, rows=10, filled=True)}
    assert sizes == {10}
    assert list(chunks_of(np.arange(0), None, NUMBERED, rows=10, filled=True)) == []


VARIANTS = [
    Performance(max_physical_batch=1),
    Performance(max_physical_batch=7),
    Performance(max_physical_batch=7, chunks="filled"),
    Performance(norms="ghost"),
    Performance(norms="instantiated"),
    Performance(norms="one by one"),
    Performance(layout="channels_last"),
    Performance(threads=1),
]


@pytest.mark.parametrize("performance", VARIANTS, ids=lambda item: str(item)[12:-1])
def test_nothing_in_the_performance_config_changes_what_is_released(performance: Performance):
    """Batches, weights, ε and its statement are those of the default; only the way to them differs."""

    def trained(performance: Performance) -> PrivateTraining:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Unflatten(1, (1, 5, 5)), nn.Conv2d(1, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3))
        generator = torch.Generator().manual_seed(0)
        data = TensorDataset(torch.randn(40, 25, generator=generator), torch.randint(3, (40,), generator=generator))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        loss = per_example(F.cross_entropy)
        private = make_private(model, optimizer, data, PLAN, loss=loss, performance=performance, insecure_seed=3)
        return run(private)

    default, other = trained(Performance()), trained(performance)
    assert other.guarantee() == default.guarantee()
    assert other.event() == default.event()
    assert other.card() == default.card()
    assert other.last_counts is not None
    assert default.last_counts is not None
    assert other.last_counts.examples == default.last_counts.examples
    torch.testing.assert_close(weights(other), weights(default), rtol=1e-4, atol=1e-5)


def test_chunks_are_halved_where_memory_runs_out_and_the_sum_begins_anew():
    """Nothing is summed twice: the weights are those of enough memory."""
    whole = weights(run(training(QUIET, insecure_seed=1)))
    private = training(QUIET, insecure_seed=1)
    sum_of, tried = private._clipper._add_clipped, []

    def short_of_memory(parameters: dict[str, Tensor], chunk: Chunk, total: dict[str, Tensor], first: bool):
        rows = len(chunk.batch[0])
        counts = sum_of(parameters, chunk, total, first)
        tried.append(rows)
        if rows > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return counts

    private._clipper._add_clipped = short_of_memory
    private._chunk_size = 40
    with pytest.warns(UserWarning, match="chunks hold 10 rows from here on"):
        run(private)
    assert max(tried[-3:]) <= 10
    torch.testing.assert_close(weights(private), whole, rtol=1e-5, atol=1e-6)


def test_an_error_that_is_not_about_memory_is_not_swallowed():
    private = training(QUIET, insecure_seed=1)

    def breaks(*_: object):
        raise RuntimeError("the loss is wrong")

    private._clipper._add_clipped = breaks  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(RuntimeError, match="the loss is wrong"):
        run(private)
    assert private.steps_taken == 0


def test_views_are_averaged_and_clipped_as_one_example():
    """Sharp edge 12: K augmented views move the sum by at most C, as one example does."""
    torch.manual_seed(0)
    model = nn.Linear(5, 3)

    def augment(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return batch[0] + torch.linspace(-1, 1, 4).repeat(len(batch[0]) // 4)[:, None], batch[1]

    plan = dataclasses.replace(QUIET, sampling_rate=1.0, expected_batch_size=40.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    loss = per_example(F.cross_entropy)
    private = make_private(model, optimizer, dataset(), plan, loss=loss, views=4, augment=augment)
    inputs, targets = dataset().tensors
    viewed = inputs.repeat_interleave(4, 0) + torch.linspace(-1, 1, 4).repeat(40)[:, None]
    expected = flat(Clipper(model, loss, 0.5).sum([Chunk((viewed, targets.repeat_interleave(4)), group=4)]).gradients)
    before = weights(private)
    private.step(next(private.batches()))
    assert private.last_counts is not None
    assert private.last_counts.examples == 40
    torch.testing.assert_close((before - weights(private)) * 40, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("views", [0, 1.5, True])
def test_views_are_a_whole_number(views):
    with pytest.raises(PlanError, match="views is"):
        training(views=views)
