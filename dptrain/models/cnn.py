"""Two convolutions and two linear layers: the MNIST model of Opacus' example, for images of at least 16×16.

Convolution 16 of 8×8 stride 2, pool 2 stride 1, convolution 32 of 4×4 stride 2, pool 2 stride 1, linear 32, linear
classes. (Opacus, examples/mnist.py; the architecture of Papernot et al. 2021, "Tempered Sigmoid Activations".)
"""

import torch
from torch import nn

from dptrain.errors import ConfigError
from dptrain.models.bottleneck import Bottleneck
from dptrain.models.mlp import ACTIVATIONS
from dptrain.recipe import ModelConfig, RegularizationConfig

LEAST_SIDE = 16


def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig) -> nn.Module:
    """``[examples, channels, height, width]`` to logits ``[examples, classes]``.

    Raises:
        ConfigError: the inputs are not images, or smaller than 16×16.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < LEAST_SIDE:
        raise ConfigError(
            f"the model cnn takes images of at least {LEAST_SIDE}×{LEAST_SIDE} and the data set's inputs are "
            f"{'×'.join(map(str, input_shape))}; choose --model.name mlp or linear"
        )
    activation = ACTIVATIONS[config.activation]
    body = nn.Sequential(
        nn.Conv2d(input_shape[0], 16, 8, stride=2, padding=3),
        activation(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, stride=2),
        activation(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
    )
    with torch.no_grad():
        features = body(torch.zeros(1, *input_shape)).shape[1]
    dropout = [nn.Dropout(regularization.dropout)] if regularization.dropout > 0 else []
    bottleneck = [Bottleneck(32)] if regularization.information_bottleneck else []
    return nn.Sequential(body, nn.Linear(features, 32), activation(), *dropout, *bottleneck, nn.Linear(32, classes))
