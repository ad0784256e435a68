"""Early layers learn from public examples alone, by the seed, and are where they were after private training."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from dptrain import models
from dptrain.checkpoint import load_release
from dptrain.data.dataset import DataSet, Others
from dptrain.data.split import draw
from dptrain.errors import ConfigError, DataError
from dptrain.fleet.layers import Unstackable
from dptrain.fleet.stacked import models_in_a_stack
from dptrain.models.frozen import frozen_weights, layers_of
from dptrain.recipe import ModelConfig, PrivacyConfig, Recipe, RegularizationConfig, SplitConfig, TrainingConfig
from dptrain.trainer import Trainer, build_model, build_training
from evaluation.runner import _untrained

MLP = ModelConfig(name="mlp", hidden=(9, 5))
SOME = 20
"""Updates, enough to move a weight."""


def world(seed: int = 0, *, groups: int = 5, with_others: bool = True) -> DataSet:
    """Four classes, and others in groups that are told apart by one brighter pixel."""
    generator = torch.Generator().manual_seed(seed)
    shown = torch.arange(60) % groups
    public = 0.5 * torch.rand(60, 1, 4, 3, generator=generator)
    public.flatten(1)[torch.arange(60), shown] += 0.5
    inputs = torch.rand(40, 1, 4, 3, generator=generator)
    others = Others(public, 3 * shown + 1) if with_others else None
    return DataSet(name="w", inputs=inputs, targets=torch.arange(40) % 4, classes=tuple("abcd"), bounds=(0, 1), others=others)


def recipe(freeze: int, *, config: ModelConfig = MLP, mechanism: str = "none", steps: int = SOME) -> Recipe:
    privacy = PrivacyConfig(
        mechanism=mechanism,  # pyright: ignore[reportArgumentType]
        epsilon=4.0 if mechanism == "gaussian" else None,
        expected_batch_size=40.0,
        delta=1e-3,
    )
    options = RegularizationConfig(freeze=freeze, freeze_steps=steps)
    return Recipe(model=config, privacy=privacy, regularization=options, training=TrainingConfig(steps=3))


def linears(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


@pytest.mark.parametrize("mechanism", ["none", "gaussian"])
def test_frozen_weights_do_not_move_and_all_others_do(mechanism: str):
    data, made = world(), recipe(1, mechanism=mechanism)
    training = build_training(made, data, torch.arange(40).numpy(), 0)
    before = [layer.weight.detach().clone() for layer in linears(training.model)]
    for batch in training.batches():
        training.step(batch)
    after = [layer.weight.detach() for layer in linears(training.model)]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, False]


def test_minus_one_leaves_the_last_layer_alone_to_be_trained():
    model = build_model(recipe(-1), world(), 0)
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == ["5.weight", "5.bias"]
    assert model(world().inputs).shape == (40, 4)


def test_layers_learn_to_tell_the_others_apart():
    """A last layer that is fitted to frozen ones finds the groups: 5 of them, so chance is a fifth."""
    data = world()
    model = build_model(recipe(-1, steps=600), data, 0)
    assert data.others is not None
    assert isinstance(model, nn.Sequential)
    with torch.no_grad():
        features = torch.cat([model[:-1](data.others.inputs), torch.ones(60, 1)], 1)
    wanted = nn.functional.one_hot((data.others.groups - 1) // 3, 5).float()
    fitted = features @ torch.linalg.lstsq(features, wanted).solution
    assert float((fitted.argmax(1) == wanted.argmax(1)).float().mean()) > 0.9


def test_no_private_example_has_a_part_in_it():
    data = world()
    changed = dataclasses.replace(data, inputs=data.inputs.flip(1, 2, 3), targets=data.targets.flip(0))
    assert data.others is not None
    other = dataclasses.replace(data, others=Others(data.others.inputs.flip(1, 2, 3), data.others.groups))
    first, same, different = (build_model(recipe(-1), each, 0).state_dict() for each in (data, changed, other))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not torch.equal(first["1.weight"], different["1.weight"])
    assert torch.equal(first["5.weight"], different["5.weight"])  # as drawn: no example at all has moved it


def test_the_seed_decides_what_is_learned_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = (build_model(recipe(-1), world(), seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["1.weight"], other["1.weight"])


def test_layers_between_start_from_what_they_learned():
    plain = build_model(dataclasses.replace(recipe(0), regularization=RegularizationConfig()), world(), 0).state_dict()
    learned = build_model(recipe(1), world(), 0)
    assert not torch.equal(learned.state_dict()["3.weight"], plain["3.weight"])
    assert linears(learned)[1].weight.requires_grad
    assert torch.equal(learned.state_dict()["5.weight"], plain["5.weight"])


def test_the_card_says_what_they_learned_from():
    training = build_training(recipe(-1, mechanism="gaussian"), world(), torch.arange(40).numpy(), 0)
    said = training.guarantee().statement
    assert "The first 2 of 3 layers learned from 60 public examples of other classes in 20 updates and were then frozen" in said


@pytest.mark.parametrize("freeze", [1, -1])
def test_the_untrained_control_has_what_public_examples_taught_and_nothing_of_the_private_ones(freeze: int, tmp_path: Path):
    """A control with other early layers would differ from the target in more than its training."""
    data, made = world(), recipe(freeze)
    split = draw(len(data), SplitConfig(per_class=7), 0, targets=data.targets)
    Trainer(made, data, split, seed=0, folder=tmp_path, progress=False).run()
    weights, card = load_release(tmp_path / "release")
    untrained = _untrained(card, tmp_path, weights)
    assert untrained is not None
    found = untrained.weights()
    early = {"1.weight", "1.bias"} if freeze == 1 else {"1.weight", "1.bias", "3.weight", "3.bias"}
    assert {name for name, value in weights.items() if torch.equal(found[name], value)} == early
    assert set(frozen_weights(build_model(made, data, 0), freeze)) == early


def test_it_works_behind_a_fixed_front():
    config = ModelConfig(name="public_pca", hidden=(6,), components=5)
    model = build_model(recipe(1, config=config), world(), 0)
    assert [layer.weight.requires_grad for layer in linears(model)] == [False, True]


@pytest.mark.parametrize(
    ("freeze", "config", "message"),
    [
        (3, MLP, r"freeze is 3 and the model has 3 layers.*give 1 to 2, or -1"),
        (1, ModelConfig(name="linear"), r"has 1 layers.*choose --model\.name mlp or cnn"),
    ],
)
def test_the_last_layer_is_never_frozen(freeze: int, config: ModelConfig, message: str):
    with pytest.raises(ConfigError, match=message):
        build_model(recipe(freeze, config=config), world(), 0)


def test_without_others_or_with_one_group_of_them_there_is_nothing_to_learn():
    with pytest.raises(DataError, match=r"'w' comes with none; leave it out, or choose a data set with others, such as faces"):
        build_model(recipe(1), world(with_others=False), 0)
    with pytest.raises(DataError, match="all of one group"):
        build_model(recipe(1), world(groups=1), 0)


def test_shadow_models_are_not_stacked():
    with pytest.raises(Unstackable, match="more than dropout"):
        models_in_a_stack(recipe(1), world(), "masked")


def test_only_modules_with_weights_of_their_own_are_layers():
    model = models.build(ModelConfig(name="cnn"), (1, 16, 16), 4, RegularizationConfig())
    assert [type(layer).__name__ for layer in layers_of(model)] == ["Conv2d", "Conv2d", "Linear", "Linear"]
