"""Fully connected layers with one activation after each hidden one, and a bottleneck behind the last where one is asked for."""

import math

from torch import nn

from dptrain.errors import ConfigError
from dptrain.models.bottleneck import Bottleneck
from dptrain.recipe import ModelConfig, RegularizationConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig) -> nn.Module:
    """``[examples, *input_shape]`` to logits ``[examples, classes]``, through layers of ``config.hidden`` widths.

    Raises:
        ConfigError: a bottleneck is asked for and there is no hidden layer.
    """
    if regularization.information_bottleneck and not config.hidden:
        raise ConfigError(
            f"regularization.information_bottleneck is {regularization.information_bottleneck:g} and model.hidden is [], so "
            "that there is no hidden layer to narrow; give a width, such as --model.hidden 64, or leave it out"
        )
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(input_shape)
    for hidden in config.hidden:
        layers += [nn.Linear(width, hidden), ACTIVATIONS[config.activation]()]
        if regularization.dropout > 0:
            layers.append(nn.Dropout(regularization.dropout))
        width = hidden
    if regularization.information_bottleneck:
        layers.append(Bottleneck(width))
    return nn.Sequential(*layers, nn.Linear(width, classes))
