"""Small reference models by name.

* :mod:`~dptrain.models.linear`: softmax regression
* :mod:`~dptrain.models.mlp`: fully connected layers
* :mod:`~dptrain.models.cnn`: two convolutions and two linear layers
* :mod:`~dptrain.models.scattering`: a fixed wavelet transform and a small head
* :mod:`~dptrain.models.front`: a model whose front is fixed, and what it makes of the data, made once
"""

from typing import TYPE_CHECKING

from dptrain.registry import MODELS

if TYPE_CHECKING:
    from torch import nn

    from dptrain.recipe import ModelConfig, RegularizationConfig


def build(
    config: "ModelConfig", input_shape: tuple[int, ...], classes: int, regularization: "RegularizationConfig"
) -> "nn.Module":
    """The model that ``config`` names, untrained; its output is ``[examples, classes]`` logits."""
    return MODELS[config.name](input_shape, classes, config, regularization)
