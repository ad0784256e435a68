"""Users as the unit: who is drawn is a user, and what is used of one is capped, anew each time."""

import dataclasses
import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare
from torch import nn
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, checkpoint, make_private, per_example
from dptrain.clipping import Clipping
from dptrain.data.examples import Examples
from dptrain.errors import CheckpointError, DataError, PlanError
from dptrain.noise import secret_generator
from dptrain.private import PrivateTraining
from dptrain.recipe import Performance

PLAN = PrivacyPlan(
    sampling_rate=0.5, expected_batch_size=10, steps=6, clipping_norm=0.5, delta=1e-3, noise_multiplier=1.0,
    unit="user", max_examples_per_unit=3,
)  # fmt: skip
USERS = np.repeat(np.arange(20) * 7 - 30, [1, 2, 3, 4, 10] * 4)
"""20 users with 1 to 10 examples each, by numbers of any size and sign."""


@pytest.fixture(autouse=True)
def _no_delta_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="delta is")
        yield


def dataset(count: int = len(USERS)) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(count, 5, generator=generator), torch.randint(3, (count,), generator=generator))


def training(plan: PrivacyPlan = PLAN, data: Any = None, model: nn.Module | None = None, **options: Any) -> PrivateTraining:
    torch.manual_seed(0)
    model = nn.Linear(5, 3) if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return make_private(
        model, optimizer, dataset() if data is None else data, plan, loss=per_example(F.cross_entropy), **options
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 6), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 2**31))
def test_offsets_fold_each_users_examples_and_the_cap_holds(labels: list[int], most: int, seed: int):
    units = np.array(labels)
    examples = Examples(dataset(len(units)), units=units)
    names = np.unique(units)
    assert examples.units == len(names)
    chosen = np.flatnonzero(np.random.default_rng(seed).random(len(names)) < 0.5)
    positions, offsets = examples.of_units(chosen, most, secret_generator(seed))
    assert len(offsets) == len(chosen) + 1
    assert (offsets[0], offsets[-1]) == (0, len(positions))
    for place, unit in enumerate(chosen):
        held = positions[offsets[place] : offsets[place + 1]]
        assert (units[held] == names[unit]).all()
        assert len(set(held.tolist())) == len(held) == min(most, int((units == names[unit]).sum()))


def test_what_is_used_of_a_user_is_a_fresh_uniform_subset():
    examples = Examples(dataset(5), units=np.zeros(5, dtype=np.int64))
    generator = secret_generator(3)
    drawn = np.zeros((5000, 5), dtype=np.int64)
    for row in drawn:
        row[examples.of_units(np.array([0]), 2, generator)[0]] = 1
    subsets, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(subsets) == 10
    assert chisquare(counts).pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.06


def test_users_are_drawn_by_poisson_however_many_examples_they_have():
    """Sharp edge 1: the rate is a user's, and one with ten examples is not drawn more often than one with a single example."""
    plan = dataclasses.replace(PLAN, steps=3000, sampling_rate=0.3, expected_batch_size=6)
    private = training(plan, units=USERS, insecure_seed=4)
    names = np.unique(USERS)
    present = np.zeros((3000, 20), dtype=np.int64)
    for step in range(3000):
        batch = private._draw()
        assert batch._offsets is not None
        owners = USERS[batch._positions[batch._offsets[:-1]]]
        present[step, np.searchsorted(names, owners)] = 1
    assert np.abs(present.mean(0) - 0.3).max() < 0.04
    sizes = np.bincount(present.sum(1), minlength=21)[2:11]
    expected = binom.pmf(np.arange(2, 11), 20, 0.3)
    assert chisquare(sizes, expected / expected.sum() * sizes.sum()).pvalue > 1e-3
    assert np.abs(np.corrcoef(present.T) - np.eye(20)).max() < 0.09


def test_a_batch_of_no_user_is_a_batch():
    """Sharp edge 5."""
    positions, offsets = Examples(dataset(), units=USERS).of_units(np.empty(0, dtype=np.int64), 3, secret_generator(0))
    assert (positions.tolist(), offsets.tolist()) == ([], [0])


def test_delta_is_checked_against_the_private_number_of_users():
    """Sharp edge 16."""
    many = np.arange(2000)
    with pytest.raises(PlanError, match="below 1/N"):
        training(dataclasses.replace(PLAN, delta=9e-4), dataset(2000), units=many)
    training(dataclasses.replace(PLAN, delta=9e-4), dataset(2000), units=many // 4)


def test_a_batch_size_that_counts_examples_where_users_are_drawn_is_warned_about():
    """80 examples of 20 users, half of whom are drawn: a sum over 10 gradients would be divided by 40."""
    with pytest.warns(UserWarning, match=r"of whom 10 are drawn on average.*the number of users in a batch"):
        training(dataclasses.replace(PLAN, expected_batch_size=40), units=USERS)
    of_examples = dataclasses.replace(PLAN, expected_batch_size=40, unit="example", max_examples_per_unit=None)
    with pytest.warns(UserWarning, match=r"40 examples are drawn on average, sampling_rate 0\.5 of 80: .* 0\.4 times as long"):
        training(dataclasses.replace(of_examples, expected_batch_size=100))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="expected_batch_size is")
        training(units=USERS)
        training(of_examples)


def test_a_users_examples_are_averaged_and_clipped_as_one():
    """Sharp edge 22: one user, however many examples are theirs, moves the sum by at most C."""
    quiet = dataclasses.replace(PLAN, noise_multiplier=0.0, sampling_rate=1.0, expected_batch_size=20)
    model = nn.Linear(5, 3)
    private = training(quiet, model=model, units=USERS)
    batch = next(private.batches())
    assert repr(batch) == "Batch(step=0)"
    offsets = batch._offsets
    assert offsets is not None
    expected = torch.zeros_like(model.weight)
    inputs, targets = dataset().tensors
    for a, b in itertools.pairwise(offsets):
        members = batch._positions[a:b]
        assert len(set(USERS[members])) == 1
        losses = F.cross_entropy(model(inputs[members]), targets[members], reduction="none")
        weight, bias = torch.autograd.grad(losses.mean(), [model.weight, model.bias])
        norm = float(torch.cat([weight.flatten(), bias]).norm())
        expected += weight * min(1.0, PLAN.clipping_norm / norm)
    before = model.weight.detach().clone()
    private.step(batch)
    assert private.last_counts is not None
    assert private.last_counts.examples == 20
    moved = (before - model.weight.detach()) / 0.5 * 20
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [3, 4, 7, 100])
@pytest.mark.parametrize("filled", [False, True])
def test_users_are_never_cut_apart_by_a_chunk(size: int, filled: bool):
    """Sharp edge 9: the weights do not depend on the chunk size; a user lies whole in one chunk."""
    quiet = dataclasses.replace(PLAN, noise_multiplier=0.0)
    results = []
    for performance in (Performance(), Performance(max_physical_batch=size, chunks="filled" if filled else "as_drawn")):
        private = training(quiet, units=USERS, insecure_seed=5, performance=performance)
        for batch in private.batches():
            private.step(batch)
        results.append(torch.cat([value.detach().flatten() for value in private.model.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


def test_a_user_who_does_not_fit_a_chunk_is_refused_at_once():
    with pytest.raises(PlanError, match="max_physical_batch is 2"):
        training(units=USERS, performance=Performance(max_physical_batch=2))


def test_units_and_the_plans_unit_go_together():
    """Sharp edge 22."""
    with pytest.raises(PlanError, match="whose each example is"):
        training()
    with pytest.raises(PlanError, match="promises nothing to users"):
        training(dataclasses.replace(PLAN, unit="example", max_examples_per_unit=None), units=USERS)
    with pytest.raises(PlanError, match=r"Examples\(dataset, indices, units\)"):
        training(data=Examples(dataset()), units=USERS)
    assert training(data=Examples(dataset(), units=USERS))._examples.units == 20


@pytest.mark.parametrize("units", [USERS[:-1], USERS.astype(float), USERS[:, None], [str(user) for user in USERS]])
def test_units_are_one_whole_number_an_example(units: Any):
    with pytest.raises(DataError, match="one whole number an example"):
        training(units=units)


def test_a_data_set_of_another_size_than_the_plan_states_is_refused():
    plan = PrivacyPlan(
        sampling_rate=0.5, expected_batch_size=20, steps=6, clipping_norm=0.5, delta=1e-3, noise_multiplier=1.0,
        sampling="truncated_poisson", max_batch_size=25, max_examples=40,
    )  # fmt: skip
    training(plan, dataset(40))
    with pytest.raises(PlanError, match="max_examples is 40"):
        training(plan, dataset(41))


def test_noise_for_one_norm_is_never_sold_as_noise_for_an_exchange():
    """Sharp edge 12: under replace_one σ multiplies 2 C; a sum that states C is refused before anything is released."""
    plan = PrivacyPlan(
        sampling_rate=0.5, expected_batch_size=20, steps=6, clipping_norm=0.5, delta=1e-3, noise_multiplier=1.0,
        sampling="fixed_size", max_examples=40, relation="replace_one",
    )  # fmt: skip
    private = training(plan, dataset(40))
    assert private._clipper.sensitivity == 1.0 / 20
    private.step(next(private.batches()))
    careless = training(plan, dataset(40))
    careless._clipper.clipping = Clipping(0.5)
    with pytest.raises(PlanError, match=r"states a sensitivity of 0\.5"):
        careless.step(next(careless.batches()))
    assert careless.steps_taken == 0


def test_truncated_batches_train_and_are_counted_as_planned(tmp_path: Path):
    plan = PrivacyPlan(
        sampling_rate=0.5, expected_batch_size=20, steps=3, clipping_norm=0.5, delta=1e-3, noise_multiplier=3.0,
        sampling="truncated_poisson", max_batch_size=22, max_examples=40,
    )  # fmt: skip
    private = training(plan, dataset(40), ledger=tmp_path / "ledger.jsonl")
    for batch in private.batches():
        assert len(batch._positions) <= 22
        private.step(batch)
    assert private.epsilon() == plan.guarantee().epsilon
    assert private.card()["guarantee"]["accountant"].startswith("PLD")


def test_a_checkpoint_of_before_these_fields_is_gone_on_with(tmp_path: Path):
    """Sharp edge 17: and one of another plan is still refused."""
    plan = dataclasses.replace(PLAN, unit="example", max_examples_per_unit=None)
    private = training(plan)
    for batch in private.batches(2):
        private.step(batch)
    private.save(tmp_path)
    folder = tmp_path / "private" / "checkpoint"
    files = checkpoint.read_folder(folder)
    state = json.loads(files["state.json"])
    later = {"max_examples_per_unit", "max_batch_size", "max_examples", "clipping", "automatic_stability", "noise", "bands"}
    state["plan"] = {key: value for key, value in state["plan"].items() if key not in later}
    checkpoint.write_folder(folder, {**files, "state.json": checkpoint.pack_json(state)})
    assert training(plan).resume(tmp_path) == 2
    with pytest.raises(CheckpointError, match="another plan"):
        training(dataclasses.replace(plan, noise_multiplier=2.0)).resume(tmp_path)
