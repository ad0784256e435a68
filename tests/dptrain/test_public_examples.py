"""Early stopping and distillation look at public examples alone; target and shadow models do the same."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dptrain.data
from dptrain import distillation, stopping
from dptrain.checkpoint import load_release
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, draw
from dptrain.distillation import answers_of, distillation_loss, released_model
from dptrain.fleet import recipe_digest, recipe_trainer
from dptrain.recipe import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PrivacyConfig,
    Recipe,
    RegularizationConfig,
    SplitConfig,
    TrainingConfig,
)
from dptrain.rounding import up
from dptrain.stopping import EarlyStopping, public_loss
from dptrain.trainer import Checkpoint, Trainer, build_model, build_training

SHARES = SplitConfig(members=0.4, non_members=0.3, population=0.1, public=0.2)
STEPS = 40


def recipe(regularization: RegularizationConfig, epsilon: float | None = None, rate: float = 1.0) -> Recipe:
    mechanism = "none" if epsilon is None else "gaussian"
    return Recipe(
        data=DataConfig(split=SHARES),
        model=ModelConfig(name="linear"),
        optimizer=OptimizerConfig(learning_rate=rate),
        privacy=PrivacyConfig(mechanism=mechanism, epsilon=epsilon, expected_batch_size=700.0),
        regularization=regularization,
        training=TrainingConfig(steps=STEPS),
    )


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return dptrain.data.load(DataConfig())


@pytest.fixture(scope="module")
def split(digits: DataSet) -> Split:
    return draw(len(digits), SHARES, 0)


def falling_then_rising(patch: pytest.MonkeyPatch, lowest: int) -> list[int]:
    """A public loss that is lowest at its n-th look; gives the looks at which it was asked."""
    looks: list[int] = []

    def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
        looks.append(len(looks) + 1)
        return 1.0 + abs(len(looks) - lowest)

    patch.setattr(stopping, "public_loss", loss)
    return looks


# -- early stopping ---------------------------------------------------------------------------------------------------


def test_training_ends_a_patience_after_the_lowest_loss(digits: DataSet, split: Split, monkeypatch: pytest.MonkeyPatch):
    """Patience 10 is looked at every second step; the lowest of all is the third look, at step 6."""
    looks = falling_then_rising(monkeypatch, 3)
    training = build_training(recipe(RegularizationConfig(early_stopping=10)), digits, split.members, 0, public=split.public)
    ending = EarlyStopping.of(recipe(RegularizationConfig(early_stopping=10)), digits, split.public, training)
    for batch in training.batches():
        training.step(batch)
        if ending.reached():
            break
    assert training.steps_taken == 16
    assert len(looks) == 8
    assert ending.state() == {"stopped": True, "lowest_public_loss": 1.0, "at_step": 6}


def test_without_patience_nothing_is_looked_at(digits: DataSet, split: Split, monkeypatch: pytest.MonkeyPatch):
    looks = falling_then_rising(monkeypatch, 1)
    training = build_training(recipe(RegularizationConfig()), digits, split.members, 0)
    ending = EarlyStopping.of(recipe(RegularizationConfig()), digits, None, training)
    for batch in training.batches():
        training.step(batch)
        assert not ending.reached()
    assert looks == []


def test_the_public_loss_is_the_released_models_on_public_examples_alone(digits: DataSet, split: Split):
    """Of the averaged weights, in evaluation mode; members could be anything."""
    made = recipe(RegularizationConfig(early_stopping=5, dropout=0.5))
    made = dataclasses.replace(made, training=TrainingConfig(steps=STEPS, average=0.5))
    training = build_training(made, digits, split.members, 0, public=split.public)
    ending = EarlyStopping.of(made, digits, split.public, training)
    batch = next(training.batches())
    training.step(batch)
    ending.reached()
    index = torch.from_numpy(split.public)
    with training.averaged() as model:
        expected = F.cross_entropy(model.eval()(digits.inputs[index]), digits.targets[index]).detach()
        model.train()
    assert ending.state()["lowest_public_loss"] == pytest.approx(float(expected), rel=1e-6)
    assert training.model.training


def test_of_many_public_examples_the_same_few_are_looked_at_every_time():
    """By target and shadow models alike; a table's order says something, so they are not the first ones."""
    public = np.arange(1000, 21_000, 2)
    chosen = stopping.looked_at(public)
    assert len(chosen) == stopping.MOST == len(set(chosen.tolist()))
    assert set(chosen.tolist()) <= set(public.tolist())
    assert abs(chosen.mean() - public.mean()) < 500
    assert (stopping.looked_at(public) == chosen).all()
    assert (stopping.looked_at(public[: stopping.MOST]) == public[: stopping.MOST]).all()


def test_a_loss_that_is_not_a_number_ends_training():
    class Broken(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * float("nan")

    assert np.isnan(public_loss(Broken(2, 2), torch.zeros(3, 2), torch.zeros(3, dtype=torch.long)))


def test_what_was_spent_is_what_was_taken_and_the_card_says_both(
    digits: DataSet, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Under a plan ε is that of the steps taken; the promise made beforehand, of all steps, stands beside it."""
    falling_then_rising(monkeypatch, 1)
    made = recipe(RegularizationConfig(early_stopping=10), epsilon=4.0)
    training = Trainer(made, digits, split, seed=0, folder=tmp_path, progress=False).run()
    _, card = load_release(tmp_path / "release")
    assert card["steps_taken"] == training.steps_taken == 12
    assert card["early_stopping"] == {"stopped": True, "lowest_public_loss": 1.0, "at_step": 2}
    assert card["guarantee"]["epsilon"] == pytest.approx(training.plan.guarantee(12).epsilon)
    whole = training.plan.guarantee().epsilon
    assert card["guarantee"]["epsilon"] < whole
    assert f"all {STEPS} updates of the plan, {up(whole, 4)}" in card["guarantee"]["statement"]
    ledger = [json.loads(line) for line in (tmp_path / "private" / "ledger.jsonl").read_text().splitlines()]
    assert any(12 in entry.values() for entry in ledger)


def test_what_has_ended_is_not_gone_on_with(digits: DataSet, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    falling_then_rising(monkeypatch, 1)
    made = recipe(RegularizationConfig(early_stopping=10))
    seen: list[int] = []

    def keep(checkpoint: Checkpoint) -> None:
        seen.append(checkpoint.step)

    for _ in range(2):
        Trainer(made, digits, split, seed=0, folder=tmp_path, callbacks=(keep,), progress=False).run()
    assert seen == [12, 12]


def test_a_training_that_was_cut_ends_where_it_would_have(
    digits: DataSet, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The lowest loss so far is taken up with the checkpoint: looks go on from it, not from nothing."""
    made = recipe(RegularizationConfig(early_stopping=10))
    falling_then_rising(monkeypatch, 1)
    first = Trainer(made, digits, split, seed=0, folder=tmp_path, progress=False)
    first._start()
    for batch in first.training.batches(8):
        first.training.step(batch)
        first.stopping.reached()
    first.training.save(tmp_path, first.about())
    monkeypatch.setattr(stopping, "public_loss", lambda *_: 1.5)
    assert Trainer(made, digits, split, seed=0, folder=tmp_path, progress=False).run().steps_taken == 12


def test_on_real_digits_too_large_a_step_is_stopped_and_a_good_one_is_not(digits: DataSet, split: Split):
    def taken(rate: float) -> int:
        made = recipe(RegularizationConfig(early_stopping=5), rate=rate)
        training = build_training(made, digits, split.members, 0, public=split.public)
        ending = EarlyStopping.of(made, digits, split.public, training)
        for batch in training.batches():
            training.step(batch)
            if ending.reached():
                break
        return training.steps_taken

    assert taken(0.05) == STEPS
    assert taken(60.0) < STEPS


# -- distillation -----------------------------------------------------------------------------------------------------


def test_the_students_loss_is_hintons():
    """T² times the cross entropy of softened answers: of equal logits its gradient is 0."""
    logits = torch.tensor([[1.0, -1.0, 0.5], [0.0, 2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    answers = F.softmax(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64) / 2, 1)
    by_hand = -4 * (answers * (logits / 2 - torch.logsumexp(logits / 2, 1, keepdim=True))).sum(1).mean()
    torch.testing.assert_close(distillation_loss(logits, answers, 2.0), by_hand)
    distillation_loss(logits, F.softmax(logits.detach() / 2, 1), 2.0).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-12, rtol=0)


def test_a_teacher_answers_in_evaluation_mode_and_stays_in_its_own():
    teacher = nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 3)).train()
    inputs = torch.randn(5, 4)
    assert torch.equal(answers_of(teacher, inputs, 1.0), answers_of(teacher, inputs, 1.0))
    assert teacher.training


def test_the_student_learns_from_public_examples_and_no_others(digits: DataSet, split: Split):
    """All other examples are turned into their opposites once the teacher is trained: the student stays the same."""
    made = recipe(RegularizationConfig(distillation=30))
    training = build_training(made, digits, split.members, 0, public=split.public)
    for batch in training.batches():
        training.step(batch)
    inputs = -digits.inputs.clone()
    index = torch.from_numpy(split.public)
    inputs[index] = digits.inputs[index]
    low, high = digits.bounds
    other = dataclasses.replace(digits, inputs=inputs, targets=digits.targets.flip(0), bounds=(-high, max(high, -low)))
    students = [released_model(made, data, split.public, training, 0) for data in (digits, other)]
    for first, second in zip(*(student.parameters() for student in students), strict=True):
        assert torch.equal(first, second)
    held_out = torch.from_numpy(split.held_out)
    teacher = training.model.eval()(digits.inputs[held_out]).argmax(1)
    student = students[0].eval()(digits.inputs[held_out]).argmax(1)
    assert float((teacher == student).double().mean()) > 0.9


def test_the_student_is_released_and_the_teacher_is_kept_private(digits: DataSet, split: Split, tmp_path: Path):
    made = recipe(RegularizationConfig(distillation=30), epsilon=4.0)
    training = Trainer(made, digits, split, seed=0, folder=tmp_path, progress=False).run()
    weights, card = load_release(tmp_path / "release")
    student = distillation.student_of(made, digits, split.public, training, 0).state_dict()
    assert all(torch.equal(weights[name], value) for name, value in student.items())
    assert not torch.equal(weights["1.weight"], training.model.state_dict()["1.weight"])
    assert "post-processing" in card["guarantee"]["statement"]
    again = Trainer(made, digits, split, seed=0, folder=tmp_path, progress=False)
    again._start()
    assert torch.equal(again.training.model.state_dict()["1.weight"], training.model.state_dict()["1.weight"])


# -- shadow models ----------------------------------------------------------------------------------------------------


def test_a_shadow_model_ends_by_its_own_looks(digits: DataSet, split: Split, monkeypatch: pytest.MonkeyPatch):
    falling_then_rising(monkeypatch, 1)
    made, plain = recipe(RegularizationConfig(early_stopping=10)), recipe(RegularizationConfig())
    shadow = recipe_trainer(made, digits, public=split.public)(split.members, 7)
    twelve = recipe_trainer(plain, digits, steps=12)(split.members, 7)
    for first, second in zip(shadow.parameters(), twelve.parameters(), strict=True):
        torch.testing.assert_close(first, second)


def test_a_shadow_model_is_a_student_where_the_target_is(digits: DataSet, split: Split):
    made = recipe(RegularizationConfig(distillation=10))
    shadow = recipe_trainer(made, digits, public=split.public)(split.members, 7)
    training = build_training(made, digits, split.members, 7, public=split.public)
    for batch in training.batches():
        training.step(batch)
    expected = distillation.student_of(made, digits, split.public, training, 7)
    for first, second in zip(shadow.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(first, second)


def test_a_fleet_is_of_its_own_public_examples(digits: DataSet, split: Split):
    """The split's seed decides which they are, so that fleets of two seeds are not the same."""
    made, plain = recipe(RegularizationConfig(early_stopping=10)), recipe(RegularizationConfig())
    model = build_model(plain, digits, 0)
    assert recipe_digest(made, model, 5, split.public) != recipe_digest(made, model, 5, split.public[1:])
    assert recipe_digest(plain, model, 5, split.public) == recipe_digest(plain, model, 5)
