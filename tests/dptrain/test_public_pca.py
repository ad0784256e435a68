"""Eigenfaces are made from public people alone, are part of the model's state, and are refused before they are made."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from dptrain import models
from dptrain.checkpoint import load_release
from dptrain.data.dataset import DataSet, Others
from dptrain.data.split import draw
from dptrain.errors import ConfigError, DataError
from dptrain.models.front import WithFront
from dptrain.models.public_pca import PublicPca
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
from dptrain.trainer import Trainer
from evaluation.access import Access
from evaluation.runner import _untrained
from evaluation.target import Target

PLAIN = RegularizationConfig()
CONFIG = ModelConfig(name="public_pca", hidden=(), components=5)


def world(public: int = 30, seed: int = 0) -> DataSet:
    generator = torch.Generator().manual_seed(seed)
    others = Others(torch.rand(public, 1, 4, 3, generator=generator), torch.arange(public) % 4)
    inputs = torch.rand(40, 1, 4, 3, generator=generator)
    return DataSet(name="w", inputs=inputs, targets=torch.arange(40) % 4, classes=tuple("abcd"), bounds=(0, 1), others=others)


def front_of(data: DataSet, config: ModelConfig = CONFIG) -> PublicPca:
    model = models.build_for(config, data, PLAIN)
    assert isinstance(model, WithFront)
    assert isinstance(model.front, PublicPca)
    return model.front


def test_axes_are_orthonormal_and_hold_the_largest_variances_in_order():
    data = world()
    front = front_of(data)
    assert torch.allclose(front.axes.T @ front.axes, torch.eye(5), atol=1e-5)
    assert data.others is not None
    public = data.others.inputs.flatten(1).double()
    variances = torch.linalg.eigvalsh(torch.cov(public.T)).flip(0)
    along = ((public - public.mean(0)) @ front.axes.double()).var(0)
    assert torch.allclose(along, variances[:5], rtol=1e-5)


def test_every_example_is_brought_to_length_one_alone():
    data = world()
    front = front_of(data)
    features = front(data.inputs)
    assert features.shape == (40, 5)
    assert torch.allclose(features.norm(dim=1), torch.ones(40))
    assert torch.allclose(front(data.inputs[7:8]), features[7:8], atol=1e-6)
    assert torch.equal(front(front.mean.view(1, 1, 4, 3)), torch.zeros(1, 5))


def test_no_private_example_has_a_part_in_it():
    data = world()
    changed = dataclasses.replace(data, inputs=data.inputs.flip(1, 2, 3))
    assert torch.equal(front_of(data).axes, front_of(changed).axes)
    assert not torch.equal(front_of(data).axes, front_of(world(seed=1)).axes)


def test_what_cannot_be_fitted_is_refused():
    data = world()
    with pytest.raises(DataError, match=r"'w' comes with none; choose --model\.name mlp"):
        models.build_for(CONFIG, dataclasses.replace(data, others=None), PLAIN)
    with pytest.raises(DataError, match="has 5 public examples of other classes, which span at most 4 axes"):
        models.build_for(CONFIG, world(public=5), PLAIN)
    with pytest.raises(ConfigError, match="an input has 12 numbers"):
        models.build(dataclasses.replace(CONFIG, components=12), (1, 4, 3), 4, PLAIN)
    with pytest.raises(ConfigError, match=r"model\.components is 0"):
        ModelConfig(components=0)


def test_a_front_that_was_not_made_says_so():
    with pytest.raises(RuntimeError, match="not made yet"):
        models.build(CONFIG, (1, 4, 3), 4, PLAIN)(torch.zeros(1, 1, 4, 3))


def test_a_released_model_needs_no_public_example(tmp_path: Path):
    data = world()
    recipe = Recipe(
        data=DataConfig(split=SplitConfig(per_class=6)),
        model=CONFIG,
        optimizer=OptimizerConfig(learning_rate=1.0),
        privacy=PrivacyConfig(epsilon=8.0, delta=1e-3, clipping_norm=1.0, expected_batch_size=24.0),
        training=TrainingConfig(steps=3),
    )
    split = draw(len(data), recipe.data.split, 0, targets=data.targets)
    training = Trainer(recipe, data, split, seed=0, folder=tmp_path, progress=False).run()
    target = Target.open(tmp_path / "release", Access.LOGITS)
    expected = training.model.eval()(data.inputs).detach().double().numpy()
    assert target.logits(data.inputs) == pytest.approx(expected, abs=1e-6)
    weights, card = load_release(tmp_path / "release")
    untrained = _untrained(card, tmp_path, weights)
    assert untrained is not None
    assert untrained.scores(data.inputs) == pytest.approx(0.25)
    assert math.isclose(float(untrained.weights()["front.mean"].sum()), float(weights["front.mean"].sum()), rel_tol=1e-6)
