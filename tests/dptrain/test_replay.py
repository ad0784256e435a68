"""A replayed training makes the same choices as the one that was noted, on other examples."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import dptrain.data
from dptrain import PrivacyPlan, draw, make_private, per_example
from dptrain.optimizers import DPAdamW
from dptrain.private import PrivateTraining
from dptrain.recipe import DataConfig
from dptrain.replay import Replay

DATA = dptrain.data.load(DataConfig())
SPLIT = draw(len(DATA))
EVERYONE = PrivacyPlan(sampling_rate=1.0, expected_batch_size=900, steps=6, clipping_norm=math.inf, delta=1e-4)
"""Nothing is drawn and nothing is noised: what is left is what the loop decided."""


def training(optimizer: type = torch.optim.SGD, **options) -> PrivateTraining:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 10))
    made = optimizer(model.parameters(), lr=0.3)
    return make_private(model, made, DATA[SPLIT.members], EVERYONE, loss=per_example(cross_entropy), **options)


def difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def test_the_same_examples_give_the_same_weights_whatever_made_the_learning_rate():
    """Known answer: with all examples in each batch, no noise and no dropout, a replay of the members is the model itself."""
    private = training(average=0.5)
    replay = Replay(private)
    schedule = torch.optim.lr_scheduler.OneCycleLR(private.optimizer, max_lr=0.5, total_steps=7, cycle_momentum=False)
    private.model.eval()  # a loop that forgot to train(): no dropout, there and here
    for until in (2, 6):
        for batch in private.batches(until):
            private.step(batch)
            schedule.step()
        with private.averaged() as model:
            assert difference(model, replay.model(SPLIT.members, seed=1)) < 1e-6
    with private.averaged() as model:
        assert difference(model, replay.model(SPLIT.non_members, seed=2)) > 1e-2


def test_going_on_from_a_checkpoint_is_as_if_trained_at_once():
    found = []
    for stops in ((3, 6), (6,)):
        private = training()
        replay = Replay(private)
        for until in stops:
            for batch in private.batches(until):
                private.step(batch)
            replay.model(SPLIT.members, seed=7)
        found.append(replay.model(SPLIT.members, seed=7))
    assert difference(*found) < 1e-6  # dropout and all: a model's randomness is its own


def test_an_optimizer_that_knows_the_noise_is_told_of_it_again():
    plan = PrivacyPlan(sampling_rate=0.1, expected_batch_size=90, steps=3, clipping_norm=1.0, delta=1e-4, noise_multiplier=1.0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    private = make_private(model, DPAdamW(model.parameters()), DATA[SPLIT.members], plan, loss=per_example(cross_entropy))
    replay = Replay(private)
    for batch in private.batches():
        private.step(batch)
    shadow = replay.begin(replay.examples.others(SPLIT.non_members))
    for batch in shadow.batches():
        shadow.step(batch)
    told: DPAdamW = shadow.optimizer  # pyright: ignore[reportAssignmentType]
    assert told.noise_deviation == pytest.approx(1.0 / 90, rel=1e-5)


def test_a_replay_is_no_ledger_entry_and_draws_its_own_batches(tmp_path):
    private = training(ledger=tmp_path / "ledger.jsonl")
    replay = Replay(private)
    for batch in private.batches():
        private.step(batch)
    before = (tmp_path / "ledger.jsonl").read_bytes() if (tmp_path / "ledger.jsonl").exists() else b""
    replay.model(np.sort(SPLIT.non_members), seed=0)
    after = (tmp_path / "ledger.jsonl").read_bytes() if (tmp_path / "ledger.jsonl").exists() else b""
    assert before == after
    assert private.steps_taken == 6
