"""Networks over exact edges: graph convolutions and GraphSAGE, by PyTorch Geometric (extra ``graph``).

A layer of the first gives node i the sum over j of  Â_ij W h_j + b,  with Â = D^(−1/2) (A + I) D^(−1/2) and D the degrees of
A + I (Kipf, Welling 2017, "Semi-Supervised Classification with Graph Convolutional Networks"); of the second,
W h_i + V mean of the neighbours' h_j + b (Hamilton, Ying, Leskovec 2017, "Inductive Representation Learning on Large Graphs").

An answer about a node depends on its neighbours and theirs, so that no clipping makes the training private; over edges that
were released with noise before (``privacy.edge_release``, :mod:`dptrain.graph.perturbation`) training costs nothing more.
Those edges are then a part of the model's state.
"""

import warnings
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain.data.graph import Graph
from dptrain.errors import ConfigError
from dptrain.models.mlp import ACTIVATIONS
from dptrain.models.on_graph import GrowingBuffers, Reads, bound, check_fits
from dptrain.recipe import ModelConfig, RegularizationConfig


class GraphNetwork(GrowingBuffers, ABC):
    """``[n, 1]`` numbers of nodes to logits ``[n, classes]``, through one convolution a hidden width and a last one.

    Args:
        layers: convolutions of torch-geometric, each of features and directed edges.
    """

    reads: Reads = "edges"
    released: Tensor
    is_released: Tensor

    def __init__(self, layers: list[nn.Module], features: int, activation: type[nn.Module], dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.activation = activation()
        self.dropout = nn.Dropout(dropout)
        self.features = features
        self.graph: Graph | None = None
        self.register_buffer("released", torch.zeros(2, 0, dtype=torch.int64))
        self.register_buffer("is_released", torch.tensor(False))

    def bind(self, graph: Graph) -> None:
        check_fits(graph, self.features)
        self.graph = graph

    def release(self, edges: Int[Tensor, "2 edges"]) -> None:
        """Takes these edges, each once, in place of the graph's own."""
        self.released = edges.clone()
        self.is_released = torch.tensor(True)

    @property
    def edges(self) -> Int[Tensor, "2 twice"]:
        """What it computes over, in both directions."""
        if bool(self.is_released):  # also where there are none
            return torch.cat([self.released, self.released.flip(0)], 1)
        return bound(self.graph).both_ways

    def forward(self, ids: Int[Tensor, "n 1"]) -> Float[Tensor, "n classes"]:
        return self.answers(bound(self.graph).features)[ids[:, 0]]

    def answers(self, features: Float[Tensor, "nodes features"]) -> Float[Tensor, "nodes classes"]:
        edges = self.edges
        return self._through(features, [lambda h, layer=layer: layer(h, edges) for layer in self.layers])[-1]

    def embeddings(self, ids: Int[Tensor, "n 1"]) -> Float[Tensor, "n width"]:
        edges = self.edges
        layers = [lambda h, layer=layer: layer(h, edges) for layer in self.layers]
        return self._through(bound(self.graph).features, layers)[-2][ids[:, 0]]

    def on_adjacency(
        self, features: Float[Tensor, "nodes features"], adjacency: Float[Tensor, "nodes nodes"]
    ) -> Float[Tensor, "nodes classes"]:
        """Logits over a dense symmetric adjacency without loops, whose entries may be shares of an edge; differentiable in
        it."""
        return self._through(features, [lambda h, layer=layer: self.dense(layer, h, adjacency) for layer in self.layers])[-1]

    @abstractmethod
    def dense(self, layer: Any, given: Tensor, adjacency: Tensor) -> Tensor:
        """One layer over a dense adjacency."""

    def _through(self, features: Tensor, layers: list[Any]) -> list[Tensor]:
        """What each layer is given, and the logits."""
        found = [features]
        for number, layer in enumerate(layers):
            made = layer(self.dropout(found[-1]))
            found.append(self.activation(made) if number < len(layers) - 1 else made)
        return found


class ConvolutionNetwork(GraphNetwork):
    """Of graph convolutions."""

    def dense(self, layer: Any, given: Tensor, adjacency: Tensor) -> Tensor:
        looped = adjacency + torch.eye(len(adjacency), dtype=adjacency.dtype)
        scale = looped.sum(1).clamp_min(1e-12).rsqrt()
        return scale[:, None] * (looped @ (scale[:, None] * layer.lin(given))) + layer.bias


class SageNetwork(GraphNetwork):
    """Of GraphSAGE layers."""

    def dense(self, layer: Any, given: Tensor, adjacency: Tensor) -> Tensor:
        mean = (adjacency @ given) / adjacency.sum(1, keepdim=True).clamp_min(1.0)
        return layer.lin_l(mean) + layer.lin_r(given)


def build_gcn(
    input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig
) -> nn.Module:
    """Graph convolutions of ``config.hidden`` widths; ``input_shape`` is that of a node's features."""
    return _build(ConvolutionNetwork, "GCNConv", input_shape, classes, config, regularization)


def build_sage(
    input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig
) -> nn.Module:
    """GraphSAGE layers of ``config.hidden`` widths; ``input_shape`` is that of a node's features."""
    return _build(SageNetwork, "SAGEConv", input_shape, classes, config, regularization)


def _build(
    kind: type[GraphNetwork],
    layer: str,
    input_shape: tuple[int, ...],
    classes: int,
    config: ModelConfig,
    regularization: RegularizationConfig,
) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)  # of the library's own import, nothing to mend here
            import torch_geometric.nn as library
    except ImportError:
        raise ConfigError(
            f"the model {config.name} is one of PyTorch Geometric, which is not installed; type pip install 'dptrain[graph]', "
            "or choose --model.name gap"
        ) from None
    if regularization.information_bottleneck:
        raise ConfigError(f"regularization.information_bottleneck has no place in the model {config.name}; leave it out")
    if len(input_shape) != 1 or not config.hidden:
        raise ConfigError(
            f"the model {config.name} needs nodes with a row of features (here {input_shape}) and a hidden layer (model.hidden "
            f"is {config.hidden}); give the data set cora or graph, and a width, such as --model.hidden 16"
        )
    widths = (*input_shape, *config.hidden, classes)
    made: Any = getattr(library, layer)
    layers = [made(before, after) for before, after in pairwise(widths)]
    return kind(layers, input_shape[0], ACTIVATIONS[config.activation], regularization.dropout)
