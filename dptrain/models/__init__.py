"""Small reference models by name.

* :mod:`~dptrain.models.linear`: softmax regression
* :mod:`~dptrain.models.mlp`: fully connected layers
* :mod:`~dptrain.models.cnn`: two convolutions and two linear layers
* :mod:`~dptrain.models.scattering`: a fixed wavelet transform and a small head
* :mod:`~dptrain.models.public_pca`: eigenfaces of public people and a small head
* :mod:`~dptrain.models.lstm`, :mod:`~dptrain.models.gpt`: what comes next in a text
* :mod:`~dptrain.models.embedding_bag`: the mean of words' embeddings and hidden layers
* :mod:`~dptrain.models.bottleneck`: a stochastic last hidden layer
* :mod:`~dptrain.models.frozen`: early layers that public examples teach, and private ones never move
* :mod:`~dptrain.models.front`: a model whose front is fixed, and what it makes of the data, made once
"""

from typing import TYPE_CHECKING

from dptrain.registry import MODELS

if TYPE_CHECKING:
    from torch import nn

    from dptrain.data.dataset import DataSet
    from dptrain.recipe import ModelConfig, RegularizationConfig


def build(
    config: "ModelConfig", input_shape: tuple[int, ...], classes: int, regularization: "RegularizationConfig"
) -> "nn.Module":
    """The model that ``config`` names, untrained; its output is ``[examples, classes]`` logits."""
    return MODELS[config.name](input_shape, classes, config, regularization)


def build_for(config: "ModelConfig", data: "DataSet", regularization: "RegularizationConfig") -> "nn.Module":
    """The model for this data set, untrained; what learns from public examples of other classes has learned: a front, and
    layers that are frozen from then on.

    Raises:
        ConfigError: the model has not as many layers as are to be frozen.
        DataError: there is something to learn and the data set has no such examples, or too few.
    """
    from dptrain.models.front import fit  # after the look-up of names, which is answered without importing torch

    model = build(config, data.input_shape, data.outputs, regularization)
    fit(model, data)
    if regularization.freeze:
        from dptrain.models.frozen import freeze_early

        freeze_early(model, data, regularization)
    return model
