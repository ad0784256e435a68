"""A stack trains the models that one training after the other would give: the same weights without noise, and with noise the
same distribution."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dptrain.data.dataset import DataSet
from dptrain.fleet.layers import Unstackable
from dptrain.fleet.stacked import Stack, Way, models_in_a_stack
from dptrain.models.front import WithFront
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
from dptrain.registry import MODELS
from dptrain.trainer import build_training

CLASSES = ("a", "b", "c")
STEPS = 7
WAYS: tuple[Way, ...] = ("masked", "gathered")


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def blobs(examples: int = 90, classes: tuple[str, ...] = CLASSES, scale: float = 1.0) -> DataSet:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(len(classes), (examples,), generator=generator)
    inputs = torch.randn(examples, 1, 3, 4, generator=generator) + 0.5 * targets[:, None, None, None]
    return DataSet("blobs", (inputs * scale).to(torch.get_default_dtype()), targets, classes, (-np.inf, np.inf))


def recipe(**changes: Any) -> Recipe:
    """Clipped and without noise, unless it is said otherwise."""
    parts: dict[str, Any] = {
        "model": {"name": "mlp", "hidden": (6,)},
        "optimizer": {"learning_rate": 0.5},
        "privacy": {"mechanism": "clip_only", "sampling_rate": 0.4, "expected_batch_size": 20.0, "clipping_norm": 0.3},
        "regularization": {},
        "training": {"steps": STEPS},
    }
    for name, value in changes.items():
        parts[name] = {**parts[name], **value}
    return Recipe(
        data=DataConfig(split=SplitConfig()),
        model=ModelConfig(**parts["model"]),
        optimizer=OptimizerConfig(**parts["optimizer"]),
        privacy=PrivacyConfig(**parts["privacy"]),
        regularization=RegularizationConfig(**parts["regularization"]),
        training=TrainingConfig(**parts["training"]),
    )


RECIPES = {
    "linear": recipe(model={"name": "linear"}),
    "mlp": recipe(),
    "two hidden layers, relu": recipe(model={"hidden": (9, 5), "activation": "relu"}),
    "not private": recipe(privacy={"mechanism": "none"}),
    "whole batches": recipe(privacy={"sampling_rate": 1.0, "expected_batch_size": 45.0}),
    "whole batches, not private": recipe(privacy={"sampling_rate": 1.0, "expected_batch_size": 45.0, "mechanism": "none"}),
    "each layer by itself": recipe(privacy={"clipping": "per_layer"}),
    "automatic": recipe(privacy={"clipping": "automatic"}),
    "often empty batches": recipe(privacy={"sampling_rate": 0.01, "expected_batch_size": 1.0}),
    "replace one": recipe(privacy={"relation": "replace_one", "sampling": "balls_in_bins", "sampling_rate": 0.25}),
    "truncated": recipe(privacy={"sampling": "truncated_poisson", "max_batch_size": 12, "max_examples": 90}),
    "in turn": recipe(privacy={"sampling": "cyclic_poisson", "bands": 2}),
    "momentum, decay, schedule": recipe(
        optimizer={"momentum": 0.9, "schedule": "cosine", "warmup": 2}, regularization={"weight_decay": 0.05}
    ),
    "adamw": recipe(optimizer={"name": "adamw", "learning_rate": 0.05}, regularization={"weight_decay": 0.1}),
    "dp_adamw": recipe(optimizer={"name": "dp_adamw", "learning_rate": 0.05}, regularization={"weight_decay": 0.1}),
    "smoothed below zero": recipe(regularization={"label_smoothing": -0.2}),
    "smoothed and averaged": recipe(regularization={"label_smoothing": 0.2}, training={"average": 0.7}),
}


def stacked(made: Recipe, data: DataSet, membership: np.ndarray, way: Way, seed: int | None = 5, steps: int = STEPS) -> Stack:
    stack = Stack(made, data, membership, list(range(len(membership))), way=way, insecure_seed=seed)
    while stack.taken < steps:
        stack.step()
    return stack


def weights_of(stack: Stack) -> dict[str, np.ndarray]:
    weights = stack.answers(np.arange(stack.models), keep_weights=True).weights
    assert weights is not None
    return dict(weights)


def alone(made: Recipe, data: DataSet, members: np.ndarray, seed: int, steps: int = STEPS) -> dict[str, np.ndarray]:
    training = build_training(made, data, members, seed, insecure_seed=5)
    for batch in training.batches(steps):
        training.step(batch)
    with training.averaged() as model:
        return {name: value.detach().clone().numpy() for name, value in model.state_dict().items()}


def coins(models: int, examples: int, rate: float = 0.5) -> np.ndarray:
    return np.random.default_rng(1).random((models, examples)) < rate


def assert_same(stack: dict[str, np.ndarray], models: list[dict[str, np.ndarray]], tolerance: float) -> None:
    for name, value in stack.items():
        expected = np.stack([model[name] for model in models])
        assert np.abs(value - expected).max() <= tolerance * np.abs(expected).max(), name


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.usefixtures("double")
def test_without_noise_a_stack_holds_the_weights_of_one_training_after_the_other(name: str, way: Way):
    data, membership = blobs(), coins(4, 90)
    found = weights_of(stacked(RECIPES[name], data, membership, way))
    expected = [alone(RECIPES[name], data, np.flatnonzero(row), seed) for seed, row in enumerate(membership)]
    assert_same(found, expected, 1e-10)
    moved = alone(RECIPES[name], data, np.flatnonzero(membership[0]), 0, steps=1)
    assert not all(np.allclose(moved[key], found[key][0], rtol=1e-3) for key in found)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows", [1, 64])
def test_in_float32_they_agree_to_rounding_and_chunks_change_nothing(way: Way, rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dptrain.fleet.rows.VALUES", 1)
    monkeypatch.setattr("dptrain.fleet.rows.LEAST_ROWS", rows)
    data, membership = blobs(), coins(3, 90)
    found = weights_of(stacked(RECIPES["mlp"], data, membership, way))
    assert_same(found, [alone(RECIPES["mlp"], data, np.flatnonzero(row), seed) for seed, row in enumerate(membership)], 1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "made",
    [
        recipe(privacy={"mechanism": "gaussian", "epsilon": 8.0, "delta": 1e-3}),
        recipe(
            privacy={"mechanism": "gaussian", "epsilon": 8.0, "delta": 1e-3, "sampling": "cyclic_poisson", "bands": 2}
            | {"noise": "banded"},
            optimizer={"name": "dp_adamw", "learning_rate": 0.05},
        ),
    ],
    ids=["independent", "banded, dp_adamw"],
)
@pytest.mark.filterwarnings("ignore:delta is")
@pytest.mark.usefixtures("double")
def test_with_the_same_noise_a_stack_of_one_is_the_training_itself(made: Recipe, way: Way):
    data, membership = blobs(), coins(1, 90)
    found = weights_of(stacked(made, data, membership, way))
    assert_same(found, [alone(made, data, np.flatnonzero(membership[0]), 0)], 1e-9)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:delta is")
def test_each_coordinate_of_each_model_has_its_own_noise_of_the_plans_deviation(way: Way):
    """One step of plain SGD from the same weights over the same batch, with and without noise: the difference is noise."""
    from dptrain.plan import PrivacyPlan

    noisy = recipe(
        privacy={"mechanism": "gaussian", "epsilon": 1.0, "delta": 1e-3, "sampling_rate": 1.0, "expected_batch_size": 45.0}
        | {"relation": "zero_out_one"},
        optimizer={"momentum": 0.0, "learning_rate": 2.0},
    )
    silent = dataclasses.replace(noisy, privacy=dataclasses.replace(noisy.privacy, mechanism="clip_only"))
    plan = PrivacyPlan.from_config(noisy.privacy, STEPS)
    data, membership = blobs(), coins(200, 90)
    with_noise = weights_of(stacked(noisy, data, membership, way, steps=1))
    without = weights_of(stacked(silent, data, membership, way, steps=1))
    deviation = 2.0 * plan.noise_multiplier * plan.sensitivity / plan.expected_batch_size
    noise = np.concatenate([((with_noise[k] - without[k]) / deviation).reshape(200, -1) for k in without], 1)
    models, coordinates = noise.shape
    assert coordinates == 12 * 6 + 6 + 6 * 3 + 3
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(1, abs=5 / np.sqrt(2 * noise.size))
    assert noise.std(0).min() > 1 - 5 / np.sqrt(2 * models)
    assert noise.std(0).max() < 1 + 5 / np.sqrt(2 * models)
    between = np.asarray(np.corrcoef(noise))[np.triu_indices(models, 1)]
    assert np.abs(between).max() < 6 / np.sqrt(coordinates)


@pytest.mark.parametrize("way", WAYS)
def test_each_model_draws_its_own_batches_from_its_own_examples_alone(way: Way):
    """Of two classes, from zero weights, an example moves the bias of the class that it is not by ½: a count of the batch."""
    shape = blobs(400, ("a", "b"))
    data = dataclasses.replace(shape, targets=torch.ones(400, dtype=torch.int64))
    made = recipe(
        model={"name": "linear"},
        optimizer={"momentum": 0.0, "learning_rate": 2.0},
        privacy={"mechanism": "none", "sampling_rate": 0.3, "expected_batch_size": 1.0},
    )
    membership = coins(500, 400)
    biases = weights_of(stacked(made, data, membership, way, seed=None, steps=1))["1.bias"]
    sizes, members = np.asarray(-biases[:, 0]), membership.sum(1)
    assert np.allclose(sizes, np.round(sizes))
    standard = (sizes - 0.3 * members) / np.sqrt(0.3 * 0.7 * members)
    assert abs(standard.mean()) < 5 / np.sqrt(500)
    assert standard.std() == pytest.approx(1, abs=5 / np.sqrt(1000))
    assert len(np.unique(sizes)) > 20


@pytest.mark.parametrize("way", WAYS)
def test_dropout_falls_on_each_example_of_each_model_by_itself(way: Way):
    """Of two classes, from zero weights and constant inputs, a weight counts how often its input was kept."""
    data = dataclasses.replace(
        blobs(300, ("a", "b")), inputs=torch.ones(300, 1, 3, 4), targets=torch.ones(300, dtype=torch.int64)
    )
    made = recipe(
        model={"name": "linear"},
        optimizer={"momentum": 0.0, "learning_rate": 2.0},
        privacy={"mechanism": "none", "sampling_rate": 1.0, "expected_batch_size": 1.0},
        regularization={"dropout": 0.25},
    )
    everyone = np.ones((100, 300), dtype=bool)
    found = weights_of(stacked(made, data, everyone, way, seed=None, steps=1))
    (weights,) = [value for name, value in found.items() if name.endswith("weight")]
    standard = (-0.75 * weights[:, 0] - 0.75 * 300) / np.sqrt(0.25 * 0.75 * 300)
    assert abs(standard.mean()) < 5 / np.sqrt(standard.size)
    assert standard.std() == pytest.approx(1, abs=5 / np.sqrt(2 * standard.size))
    assert standard.mean(0).std() < 0.3  # between models, and not between inputs alone
    assert standard.mean(1).std() < 0.6


@pytest.mark.parametrize("way", WAYS)
def test_an_example_whose_gradient_is_not_finite_counts_for_nothing_in_a_stack_as_elsewhere(way: Way):
    data = blobs()
    inputs = data.inputs.clone()
    inputs[::7] = 1e30
    data = dataclasses.replace(data, inputs=inputs)
    made = recipe(model={"hidden": (6,), "activation": "relu"})
    membership = coins(3, 90)
    found = weights_of(stacked(made, data, membership, way))
    assert all(np.isfinite(value).all() for value in found.values())
    expected = [alone(made, data, np.flatnonzero(row), seed) for seed, row in enumerate(membership)]
    assert_same(found, expected, 1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_an_example_that_overflows_breaks_no_model_that_does_not_have_it(way: Way):
    """Without clipping NaN is what its own models get; the others never see it, though all examples are computed together."""
    data = blobs()
    inputs = data.inputs.clone()
    inputs[3] = 3e38
    data = dataclasses.replace(data, inputs=inputs)
    made = recipe(model={"hidden": (6,), "activation": "relu"}, privacy={"mechanism": "none", "sampling_rate": 1.0})
    membership = coins(3, 90)
    membership[:, 3] = [True, False, False]
    found = weights_of(stacked(made, data, membership, way))
    assert np.isnan(found["3.weight"][0]).any()
    expected = [alone(made, data, np.flatnonzero(row), seed) for seed, row in enumerate(membership) if seed]
    assert_same({name: value[1:] for name, value in found.items()}, expected, 1e-5)


@MODELS.register("test_doubled", "a chain in looks alone")
def doubled(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, classes))
    model.forward = lambda input: 2 * nn.Sequential.forward(model, input)
    return model


@MODELS.register("test_hooked", "a chain with a hook")
def hooked(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, classes))
    model[1].register_forward_hook(lambda module, inputs, output: output.add(1))
    return model


@MODELS.register("test_frozen", "a chain of which a part is not trained")
def frozen(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, classes))
    model[1].requires_grad_(False)
    return model


@MODELS.register("test_normalised", "a layer that a stack does not know")
def normalised(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.LayerNorm(8), nn.Linear(8, classes))


@pytest.mark.parametrize("name", ["test_doubled", "test_hooked", "test_frozen", "test_normalised"])
def test_a_model_that_is_no_chain_of_known_layers_is_not_stacked(name: str):
    with pytest.raises(Unstackable):
        models_in_a_stack(recipe(model={"name": name}), blobs(), "masked")


class Doubling(nn.Module):
    output_shape = (24,)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([inputs.flatten(1), inputs.flatten(1).square()], 1)


@MODELS.register("test_front", "a fixed front, and a linear layer")
def with_front(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig):
    return WithFront(Doubling(), nn.Sequential(nn.Flatten(), nn.Linear(24, classes)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("double")
def test_a_model_behind_a_fixed_front_is_stacked_as_it_is(way: Way):
    made, data, membership = recipe(model={"name": "test_front"}), blobs(), coins(3, 90)
    found = weights_of(stacked(made, data, membership, way))
    assert_same(found, [alone(made, data, np.flatnonzero(row), seed) for seed, row in enumerate(membership)], 1e-10)
