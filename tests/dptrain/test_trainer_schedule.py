"""Schedules and averages of a recipe reach everything that is trained by it, and go on exactly after a stop."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dptrain.data
from dptrain.checkpoint import load_release
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, draw
from dptrain.fleet import recipe_trainer
from dptrain.optimizers import learning_rate
from dptrain.recipe import DataConfig, OptimizerConfig, Recipe
from dptrain.trainer import Trainer, build_training

STEPS = 6


def recipe(name: str = "sgd") -> Recipe:
    """Full batches without noise: what is trained twice must come out the same to the bit."""
    made = Recipe(optimizer=OptimizerConfig(name=name, learning_rate=0.5, schedule="cosine", warmup=2))
    privacy = dataclasses.replace(made.privacy, mechanism="clip_only")
    training = dataclasses.replace(made.training, steps=STEPS, average=0.5, checkpoint_every=3)
    return dataclasses.replace(made, privacy=privacy, training=training)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return dptrain.data.load(DataConfig())


@pytest.fixture(scope="module")
def split(digits: DataSet) -> Split:
    return draw(len(digits), recipe().data.split, 0)


def test_every_step_has_the_rate_of_the_schedule(digits: DataSet, split: Split):
    training = build_training(recipe(), digits, split.members, 0)
    seen = []
    for batch in training.batches():
        training.step(batch)
        seen += [group["lr"] for group in training.optimizer.param_groups]
    groups = len(training.optimizer.param_groups)
    assert seen == [learning_rate(recipe().optimizer, step, STEPS) for step in range(STEPS) for _ in range(groups)]


@pytest.mark.parametrize("name", ["sgd", "adamw", "dp_adamw"])
def test_a_run_that_was_stopped_goes_on_exactly(digits: DataSet, split: Split, tmp_path: Path, name: str):
    def run(folder: Path, stop: int | None = None) -> dict[str, torch.Tensor]:
        def interrupt(checkpoint: object) -> None:
            if trainer.training.steps_taken == stop:
                raise KeyboardInterrupt

        trainer = Trainer(recipe(name), digits, split, seed=0, folder=folder, callbacks=(interrupt,), progress=False)
        trainer.run()
        return load_release(folder / "release")[0]

    straight = run(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop=3)
    resumed = run(tmp_path / "stopped")
    assert all(torch.equal(resumed[name], value) for name, value in straight.items())


def test_a_shadow_model_has_the_averaged_weights_as_the_target_has(digits: DataSet, split: Split, tmp_path: Path):
    """Rule 6 of an evaluation: shadows are the target's own recipe in everything."""
    trainer = Trainer(recipe(), digits, split, seed=7, folder=tmp_path, progress=False)
    training = trainer.run()
    shadow = recipe_trainer(recipe(), digits)(split.members, 7)
    released, card = load_release(tmp_path / "release")
    assert card["average"] == 0.5
    assert all(torch.equal(released[name], value) for name, value in shadow.state_dict().items())
    trained = nn.utils.parameters_to_vector(training.model.parameters())
    assert not torch.equal(nn.utils.parameters_to_vector(shadow.parameters()), trained)


def test_a_shadow_model_of_an_earlier_checkpoint_follows_the_same_schedule(digits: DataSet, split: Split):
    """The rate falls towards the end of the plan, not towards the checkpoint."""
    training = build_training(recipe(), digits, split.members, 7)
    for batch in training.batches(3):
        training.step(batch)
    shadow = recipe_trainer(recipe(), digits, steps=3)(np.asarray(split.members), 7)
    with training.averaged() as model:
        assert all(torch.equal(value, shadow.state_dict()[name]) for name, value in model.state_dict().items())
