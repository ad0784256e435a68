"""Fully connected layers with one activation after each hidden one."""

import math

from torch import nn

from dptrain.recipe import ModelConfig, RegularizationConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig) -> nn.Module:
    """``[examples, *input_shape]`` to logits ``[examples, classes]``, through layers of ``config.hidden`` widths."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(input_shape)
    for hidden in config.hidden:
        layers += [nn.Linear(width, hidden), ACTIVATIONS[config.activation]()]
        if regularization.dropout > 0:
            layers.append(nn.Dropout(regularization.dropout))
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, classes))
