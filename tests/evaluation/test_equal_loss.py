"""The non-private twin is stopped where it is worth as much as the private model, by utility alone."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dptrain.data import load
from dptrain.data.alphabet import LABELS
from dptrain.data.dataset import DataSet
from dptrain.data.split import split_of
from dptrain.plan import PrivacyPlan
from dptrain.recipe import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PrivacyConfig,
    Recipe,
    SplitConfig,
    TrainingConfig,
)
from dptrain.trainer import build_training
from evaluation import equal_loss
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.equal_loss import bits_per_character, stopped_twin
from evaluation.plan import EvaluationPlan
from evaluation.target import Target

pytestmark = pytest.mark.filterwarnings("ignore:delta is")
STEPS = 8
TWIN = Recipe(
    model=ModelConfig(name="lstm", hidden=(8,)),
    optimizer=OptimizerConfig(name="adamw", learning_rate=0.02),
    privacy=PrivacyConfig(mechanism="none", sampling_rate=1.0, expected_batch_size=40),
    training=TrainingConfig(steps=STEPS),
)
PLAN = PrivacyPlan(sampling_rate=1.0, expected_batch_size=40, steps=STEPS, clipping_norm=1.0, delta=1e-3, noise_multiplier=5.0)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    path = tmp_path / "own.txt"
    path.write_text("It was the best of times, it was the worst of times, it was the age of wisdom.\n" * 20)
    config = DataConfig(
        name="text", path=str(path), sequence_length=16, split=SplitConfig(members=0.5, non_members=0.5, population=0, public=0)
    )
    data, recipe = load(config), dataclasses.replace(TWIN, data=config)
    case = Case(
        at(recipe, data, 0), None, data, split_of(data, config.split, 0), PLAN, EvaluationPlan(attacks=()), 0, twin=recipe
    )
    return dataclasses.replace(case, target=at(recipe, data, 5, case))


def at(recipe: Recipe, data: DataSet, step: int, case: Case | None = None) -> Target:
    """The twin after so many updates: batches are full, so that two trainings are the same."""
    members = np.arange(len(data)) if case is None else case.split.members
    training = build_training(recipe, data, members, 0)
    for batch in training.batches(step):
        training.step(batch)
    return Target(training.model, Access.WEIGHTS, bounds=data.bounds, classes=len(LABELS), kind="language")


def test_a_model_that_is_the_twin_half_trained_finds_itself(case: Case):
    found = stopped_twin(case)
    assert found is not None
    assert (found.step, found.steps) == (5, STEPS)
    assert found.bits == pytest.approx(found.aim, abs=1e-6)
    mine, other = case.target.weights(), found.target.weights()
    assert all(np.allclose(mine[name], other[name], atol=1e-6) for name in mine)
    assert f"after 5 of {STEPS} updates: {found.bits:.3f} bits a character, here {found.aim:.3f}" in found.about


@pytest.mark.parametrize(("share", "step"), [(0.2, 4), (0.8, 5)])
def test_between_two_updates_the_nearer_one_is_taken(case: Case, monkeypatch: pytest.MonkeyPatch, share: float, step: int):
    assert case.twin is not None
    fourth, fifth = (bits_per_character(case, at(case.twin, case.data, number, case)) for number in (4, 5))
    aim = fourth + share * (fifth - fourth)
    measured = bits_per_character
    monkeypatch.setattr(equal_loss, "bits_per_character", lambda case, of: aim if of is case.target else measured(case, of))
    found = stopped_twin(case)
    assert found is not None
    assert found.step == step
    assert found.bits == pytest.approx((fourth, fifth)[step - 4], abs=1e-5)


@pytest.mark.parametrize(("aim", "step"), [(0.0, STEPS), (99.0, 0)])
def test_a_model_better_than_the_twin_has_its_end_beside_it_and_one_worse_than_its_start_has_that(
    case: Case, monkeypatch: pytest.MonkeyPatch, aim: float, step: int
):
    measured = bits_per_character
    monkeypatch.setattr(equal_loss, "bits_per_character", lambda case, of: aim if of is case.target else measured(case, of))
    found = stopped_twin(case)
    assert found is not None
    assert found.step == step


def test_where_there_is_no_twin_to_stop_there_is_no_control(case: Case):
    assert case.twin is not None
    assert stopped_twin(dataclasses.replace(case, twin=None)) is None
    assert stopped_twin(dataclasses.replace(case, plan=None)) is None
    lost = dataclasses.replace(case.twin, optimizer=OptimizerConfig(name="sgd", learning_rate=1e38))
    assert stopped_twin(dataclasses.replace(case, twin=lost)) is None
