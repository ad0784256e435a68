"""The reference models: what goes in, what comes out, and what is said when it does not fit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.validators import ModuleValidator
from torch import nn

from dptrain import models
from dptrain.errors import ConfigError
from dptrain.recipe import ModelConfig, RegularizationConfig

PLAIN = RegularizationConfig()
NAMES = ["linear", "mlp", "cnn"]


def modules(model: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


def parameters(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 112, 92)])
def test_every_model_gives_one_logit_a_class(name: str, shape: tuple[int, ...]):
    model = models.build(ModelConfig(name=name), shape, 7, PLAIN)
    assert model(torch.zeros(5, *shape)).shape == (5, 7)
    assert model(torch.zeros(0, *shape)).shape == (0, 7)


@given(height=st.integers(16, 64), width=st.integers(16, 64), channels=st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_cnn_takes_every_image_from_16x16_up(height: int, width: int, channels: int):
    model = models.build(ModelConfig(name="cnn"), (channels, height, width), 3, PLAIN)
    assert model(torch.zeros(2, channels, height, width)).shape == (2, 3)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 15, 40), (1, 40, 15), (12,), (28, 28)])
def test_cnn_names_what_it_takes_and_what_to_type(shape: tuple[int, ...]):
    with pytest.raises(ConfigError, match=r"at least 16×16.*--model\.name mlp"):
        models.build(ModelConfig(name="cnn"), shape, 10, PLAIN)


def test_cnn_is_the_model_of_opacus_mnist_example():
    """Its 26,010 parameters are stated in Opacus' tutorials."""
    model = models.build(ModelConfig(name="cnn", activation="relu"), (1, 28, 28), 10, PLAIN)
    assert parameters(model) == 26_010
    assert [type(module).__name__ for module in model.modules() if not list(module.children())] == [
        *["Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "MaxPool2d", "Flatten"],
        *["Linear", "ReLU", "Linear"],
    ]


def test_linear_starts_at_zero():
    model = models.build(ModelConfig(name="linear"), (1, 8, 8), 10, PLAIN)
    assert parameters(model) == 650
    assert all(bool((value == 0).all()) for value in model.parameters())


def test_mlp_has_the_widths_of_the_recipe():
    model = models.build(ModelConfig(name="mlp", hidden=(20, 10)), (4,), 3, PLAIN)
    assert [tuple(layer.weight.shape) for layer in model.modules() if isinstance(layer, nn.Linear)] == [
        (20, 4),
        (10, 20),
        (3, 10),
    ]


def test_mlp_without_hidden_layers_is_one_layer():
    assert parameters(models.build(ModelConfig(name="mlp", hidden=()), (4,), 3, PLAIN)) == 15


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize(("activation", "kind"), [("tanh", nn.Tanh), ("relu", nn.ReLU)])
def test_activation_is_the_recipes(name: str, activation: str, kind: type[nn.Module]):
    config = ModelConfig(name=name, activation="tanh" if activation == "tanh" else "relu")
    model = models.build(config, (1, 28, 28), 10, PLAIN)
    assert modules(model, kind)
    assert len(modules(model, nn.Tanh)) + len(modules(model, nn.ReLU)) == len(modules(model, kind))


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_there_only_where_asked_for(name: str):
    assert not modules(models.build(ModelConfig(name=name), (1, 28, 28), 10, PLAIN), nn.Dropout)
    dropped = modules(models.build(ModelConfig(name=name), (1, 28, 28), 10, RegularizationConfig(dropout=0.3)), nn.Dropout)
    assert dropped
    assert all(isinstance(module, nn.Dropout) and module.p == 0.3 for module in dropped)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_initial_weights(name: str):
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        model = models.build(ModelConfig(name=name), (1, 28, 28), 10, PLAIN)
        return nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(weights(0), weights(0))
    assert name == "linear" or not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize("name", NAMES)
def test_no_model_mixes_examples_or_keeps_statistics(name: str):
    model = models.build(ModelConfig(name=name), (1, 28, 28), 10, PLAIN)
    assert ModuleValidator.is_valid(model)
    assert not list(model.buffers())
