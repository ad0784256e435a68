"""Softmax regression: one linear layer from the flattened input to the classes, starting at zero."""

import math

from torch import nn

from dptrain.errors import ConfigError
from dptrain.recipe import ModelConfig, RegularizationConfig


def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig) -> nn.Module:
    """``[examples, *input_shape]`` to logits ``[examples, classes]``.

    Raises:
        ConfigError: a bottleneck is asked for, and there is no hidden layer.
    """
    if regularization.information_bottleneck:
        raise ConfigError(
            f"regularization.information_bottleneck is {regularization.information_bottleneck:g} and the model linear has no "
            "hidden layer to narrow; choose --model.name mlp or cnn, or leave it out"
        )
    linear = nn.Linear(math.prod(input_shape), classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    dropout = [nn.Dropout(regularization.dropout)] if regularization.dropout > 0 else []
    return nn.Sequential(nn.Flatten(), *dropout, linear)
