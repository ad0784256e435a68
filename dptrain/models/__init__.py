"""Small reference models by name.

* :mod:`~dptrain.models.linear`: softmax regression
* :mod:`~dptrain.models.mlp`: fully connected layers
* :mod:`~dptrain.models.cnn`: two convolutions and two linear layers
* :mod:`~dptrain.models.scattering`: a fixed wavelet transform and a small head
* :mod:`~dptrain.models.public_pca`: eigenfaces of public people and a small head
* :mod:`~dptrain.models.lstm`, :mod:`~dptrain.models.gpt`: what comes next in a text
* :mod:`~dptrain.models.hugging_face`: a published language model, and what is learned beside it
* :mod:`~dptrain.models.embedding_bag`: the mean of words' embeddings and hidden layers
* :mod:`~dptrain.models.gcn`, :mod:`~dptrain.models.gap`, :mod:`~dptrain.models.stars`: nodes of a graph, over its edges
* :mod:`~dptrain.models.on_graph`: what models of nodes have in common, and which plan covers what they read
* :mod:`~dptrain.models.bottleneck`: a stochastic last hidden layer
* :mod:`~dptrain.models.frozen`: early layers that public examples teach, and private ones never move
* :mod:`~dptrain.models.front`: a model whose front is fixed, and what it makes of the data, made once
"""

from typing import TYPE_CHECKING, Any, Literal

from dptrain.errors import ConfigError
from dptrain.registry import MODELS

if TYPE_CHECKING:
    from torch import nn

    from dptrain.data.dataset import DataSet
    from dptrain.data.graph import Graph
    from dptrain.recipe import ModelConfig, RegularizationConfig


Kind = Literal["examples", "nodes"]
"""What a model is given: examples themselves, or the numbers of a graph's nodes."""


def build(
    config: "ModelConfig",
    input_shape: tuple[int, ...],
    classes: int,
    regularization: "RegularizationConfig",
    of: Kind = "examples",
) -> "nn.Module":
    """The model that ``config`` names, untrained; its output is ``[examples, classes]`` logits.

    Args:
        input_shape: of an example; of ``nodes``, of a node's features.

    Raises:
        ConfigError: a model of nodes is to read examples.
    """
    model: Any = MODELS[config.name](input_shape, classes, config, regularization)
    if of == "examples" and config.name not in OF_GRAPHS:
        return model
    from dptrain.models.on_graph import Features, NodeModel, OnGraph

    if of == "examples":
        raise ConfigError(
            f"model.name is {config.name!r}, whose examples are nodes of a graph; give the data set cora or graph, or a model "
            "such as mlp"
        )
    on_graph: Any = model if isinstance(model, OnGraph) else NodeModel(Features(*input_shape), model)
    return on_graph


OF_GRAPHS = ("gcn", "sage", "gap", "stars")
OF_SEQUENCES = ("lstm", "gpt", "embedding_bag", "lora")


def build_for(config: "ModelConfig", data: "DataSet", regularization: "RegularizationConfig") -> "nn.Module":
    """The model for this data set, untrained; what learns from public examples of other classes has learned: a front, and
    layers that are frozen from then on.

    Raises:
        ConfigError: the model has not as many layers as are to be frozen, or does not read what the data are written in.
        DataError: there is something to learn and the data set has no such examples, or too few.
    """
    from dptrain.models.front import fit  # after the look-up of names, which is answered without importing torch

    if data.graph is not None:
        return _on_graph(config, data, data.graph, regularization)
    if config.name == "lora" and data.tokenizer is None:
        raise ConfigError(
            f"the model lora reads tokens of a published model, and the data set {data.name!r} is not written in them; choose "
            "--data.name text or shakespeare"
        )
    model = build(config, data.input_shape, data.outputs, regularization)
    fit(model, data)
    if regularization.freeze:
        from dptrain.models.frozen import freeze_early

        freeze_early(model, data, regularization)
    return model


def _on_graph(config: "ModelConfig", data: "DataSet", graph: "Graph", regularization: "RegularizationConfig") -> "nn.Module":
    if regularization.freeze:
        raise ConfigError("regularization.freeze learns early layers from public examples, and a graph has none; leave it out")
    if config.name in OF_SEQUENCES:
        raise ConfigError(
            f"model.name is {config.name!r}, which reads sequences, and examples here are nodes of a graph; give gap, gcn or "
            "mlp"
        )
    model: Any = build(config, tuple(graph.features.shape[1:]), data.outputs, regularization, "nodes")
    model.bind(graph)
    return model
