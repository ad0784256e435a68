"""Softmax regression: one linear layer from the flattened input to the classes, starting at zero."""

import math

from torch import nn

from dptrain.recipe import ModelConfig, RegularizationConfig


def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig) -> nn.Module:
    """``[examples, *input_shape]`` to logits ``[examples, classes]``."""
    linear = nn.Linear(math.prod(input_shape), classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    dropout = [nn.Dropout(regularization.dropout)] if regularization.dropout > 0 else []
    return nn.Sequential(nn.Flatten(), *dropout, linear)
