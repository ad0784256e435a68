"""The one unknown example beside every model: read off without noise, not beyond the bound with it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import dptrain.data
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, draw
from dptrain.plan import PrivacyPlan
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
from dptrain.trainer import build_training
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.final_model import Stacks, final_model
from evaluation.inversion.one_unknown import judge_unknown
from evaluation.inversion.reconstructor import Reconstructor, weights_of
from evaluation.membership import NotApplicable
from evaluation.plan import ATTACKS, EvaluationPlan
from evaluation.runner import run_attack
from evaluation.target import Target

pytestmark = [pytest.mark.filterwarnings("ignore:delta is"), pytest.mark.usefixtures("same_keys")]
NAME = "inversion.reconstructor"
SPLIT = SplitConfig(members=0.5, non_members=0.35, population=0.1, public=0.05)
QUICK = Reconstructor(shadow_models=300, epochs=40, width=256)
BARE = Recipe(
    data=DataConfig(name="digits", split=SPLIT),
    model=ModelConfig(name="linear"),
    optimizer=OptimizerConfig(name="sgd", learning_rate=1.0, momentum=0.9),
    privacy=PrivacyConfig(mechanism="none", sampling_rate=1.0, expected_batch_size=898.0, clipping_norm=0.1),
    training=TrainingConfig(steps=60),
)
SMALL = dataclasses.replace(
    BARE,
    privacy=dataclasses.replace(BARE.privacy, expected_batch_size=150.0),
    training=TrainingConfig(steps=20),
)


def private(recipe: Recipe, epsilon: float, learning_rate: float = 5.6) -> Recipe:
    return dataclasses.replace(
        recipe,
        optimizer=dataclasses.replace(recipe.optimizer, learning_rate=learning_rate),
        privacy=dataclasses.replace(recipe.privacy, mechanism="gaussian", epsilon=epsilon),
    )


def digits(count: int | None = None) -> tuple[DataSet, Split]:
    data = dptrain.data.load(DataConfig(name="digits"))
    if count is not None:
        data = dataclasses.replace(data, inputs=data.inputs[:count], targets=data.targets[:count])
    return data, draw(len(data), SPLIT, 0)


def case_of(recipe: Recipe, data: DataSet, split: Split, folder: Path | None = None) -> Case:
    training = build_training(recipe, data, split.members, 0)
    for batch in training.batches():
        training.step(batch)
    target = Target(training.model, Access.WEIGHTS, bounds=data.bounds, classes=10)
    plan = PrivacyPlan.from_config(recipe.privacy, recipe.training.steps)
    evaluation = EvaluationPlan(attacks=(NAME,))
    return Case(target, None, data, split, plan, evaluation, 0, folder=folder, recipe=recipe)


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_a_stack_gives_the_weights_that_training_on_known_examples_and_one_more_gives(hidden: tuple[int, ...]):
    recipe = dataclasses.replace(SMALL, model=ModelConfig(name="mlp", hidden=hidden)) if hidden else SMALL
    data, split = digits(300)
    known, extra = split.members[1:], split.non_members[:3]
    found = Stacks(recipe, data, known, 20, 7).with_each(extra)
    for row, one in zip(found, extra, strict=True):
        training = build_training(recipe, data, np.append(known, one), 7)
        for batch in training.batches():
            training.step(batch)
        torch.testing.assert_close(row, weights_of(training.model), rtol=1e-4, atol=1e-5)


def test_unknown_initial_weights_are_drawn_anew_for_each_model():
    recipe = dataclasses.replace(SMALL, model=ModelConfig(name="mlp", hidden=(8,)))
    data, split = digits(300)
    same = np.repeat(split.non_members[:1], 2)
    drawn = Stacks(recipe, data, split.members[1:], 2, None).with_each(same)
    known = Stacks(recipe, data, split.members[1:], 2, 0).with_each(same)
    assert float((drawn[0] - drawn[1]).norm()) > 1
    torch.testing.assert_close(known[0], known[1])


def test_without_noise_examples_are_named_and_with_it_no_more_than_the_plan_permits(tmp_path: Path):
    data, split = digits(500)
    bare = final_model(case_of(SMALL, data, split, tmp_path), NAME, QUICK)
    assert (bare.metric, bare.verdict, bare.permitted) == ("named", "leak", None)
    assert bare.value is not None
    assert bare.value > 0.3
    errors = {measure.name: measure.value or 0.0 for measure in bare.metrics}
    assert errors["error_of_reconstruction"] < 0.5 * errors["error_of_mean_example"]
    assert bare.controls[0].value is not None
    assert bare.controls[0].value < 0.1
    with np.load(tmp_path / bare.figures[0], allow_pickle=False) as pictures:
        assert [pictures[f"row{at}"].shape for at in range(len(pictures["labels"]))] == [(10, 8, 8)] * 3
    noised = final_model(case_of(private(SMALL, 1.0), data, split), NAME, QUICK)
    assert noised.low is not None
    assert noised.permitted is not None
    assert noised.low <= noised.permitted
    assert noised.verdict in ("found nothing", "within the plan")


@pytest.mark.slow
def test_in_the_recipe_digits_four_of_five_secrets_are_nearer_than_any_known_example():
    data, split = digits()
    found = final_model(case_of(BARE, data, split), NAME, Reconstructor())
    measures = {measure.name: measure.value for measure in found.metrics}
    assert found.verdict == "leak"
    assert found.value == pytest.approx(0.87, abs=0.06)
    assert measures["nearer_than_known"] == pytest.approx(0.79, abs=0.08)
    assert measures["error_of_reconstruction"] == pytest.approx(0.0148, abs=0.002)
    assert measures["error_of_mean_example"] == pytest.approx(0.0746, abs=0.001)
    assert measures["error_of_nearest_example"] == pytest.approx(0.0195, abs=0.001)
    assert measures["error_of_released_model"] == pytest.approx(0.010, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("hidden", "epsilon"), [((), None), ((10,), None), ((10,), 8.0)])
def test_digits_of_mnist_beside_300_known_ones_look_like_themselves_without_noise_and_like_the_mean_with_it(
    shared_data: Path, hidden: tuple[int, ...], epsilon: float | None
):
    stored = torchvision.datasets.MNIST(shared_data, train=True, download=False)
    order = torch.randperm(60_000, generator=torch.Generator().manual_seed(0))[:1600]
    inputs = F.avg_pool2d(stored.data[order].float()[:, None] / 255, 2)
    data = DataSet("mnist halved", inputs, stored.targets[order], tuple("0123456789"), (0.0, 1.0))
    recipe = dataclasses.replace(
        BARE,
        model=ModelConfig(name="mlp", hidden=hidden) if hidden else BARE.model,
        optimizer=dataclasses.replace(BARE.optimizer, learning_rate=0.5),
        privacy=dataclasses.replace(BARE.privacy, expected_batch_size=301.0),
        training=TrainingConfig(steps=40),
    )
    recipe = recipe if epsilon is None else private(recipe, epsilon, 1.0)
    stacks, side, secrets = Stacks(recipe, data, np.arange(300), 40, 0), np.arange(1400), np.arange(1400, 1600)
    read = Reconstructor().fit(stacks.with_each(side), inputs[:1400], torch.Generator().manual_seed(0), data.bounds)
    found = judge_unknown(read(stacks.with_each(secrets)), inputs[1400:], inputs[:1400], bounds=data.bounds)
    similarity, of_mean, of_nearest = (measure.value for measure in found.similarities)
    assert (of_mean, of_nearest) == pytest.approx((0.16, 0.77), abs=0.01)
    assert found.errors[1].value == pytest.approx(0.0527, abs=0.0005)
    if epsilon is None:
        assert similarity == pytest.approx(0.80 if hidden else 0.76, abs=0.03)
        assert found.errors[0].value == pytest.approx(0.0165 if hidden else 0.0191, abs=0.003)
        assert found.nearer.value == pytest.approx(0.91 if hidden else 0.82, abs=0.07)
    else:
        assert similarity == pytest.approx(of_mean, abs=0.02)
        assert found.errors[0].value == pytest.approx(0.0527, abs=0.001)
        assert found.nearer.value == pytest.approx(found.nearer_by_mean.value, abs=0.015)


def test_without_a_recipe_or_for_models_that_are_not_stacked_or_too_large_it_is_not_applicable():
    data, split = digits(300)
    case = case_of(SMALL, data, split)
    with pytest.raises(NotApplicable, match="pass recipe="):
        final_model(dataclasses.replace(case, recipe=None), NAME, QUICK)
    relaxed = dataclasses.replace(SMALL, regularization=RegularizationConfig(relax=0.3))
    with pytest.raises(NotApplicable, match="cannot be trained many at a time"):
        final_model(dataclasses.replace(case, recipe=relaxed), NAME, QUICK)
    wide = dataclasses.replace(SMALL, model=ModelConfig(name="mlp", hidden=(5000, 500)))
    with pytest.raises(NotApplicable, match="the models are too large"):
        final_model(dataclasses.replace(case, recipe=wide), NAME, QUICK)
    left = np.sort(np.concatenate([split.population, split.non_members[5:]]))
    few = dataclasses.replace(split, non_members=split.non_members[:5], population=left)
    with pytest.raises(NotApplicable, match="5 held-out ones"):
        final_model(dataclasses.replace(case, split=few), NAME, QUICK)


def test_the_runner_knows_it_by_name():
    data, split = digits(300)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    target = Target(model, Access.WEIGHTS, bounds=data.bounds, classes=10)
    case = Case(target, None, data, split, None, EvaluationPlan(attacks=()), 0)
    found = run_attack(case, NAME, lambda: None)
    assert found.status == "not_applicable"
    assert "pass recipe=" in found.reason
    assert isinstance(ATTACKS[NAME](), Reconstructor)
