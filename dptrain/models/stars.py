"""A node together with its neighbours, and a trained head: one hop, for training that clips each node's own gradient.

    z_i = (x_i + the sum of x_j over the neighbours j) / (1 + degree of i),  logits = head(z_i)

The setting is that of Daigavane, Madan, Sinha, Thakurta, Aggarwal, Jain 2022, "Node-Level Differentially Private Graph Neural
Networks"; the mean over a node and its neighbours is that of Wu et al. 2019, "Simplifying Graph Convolutional Networks". An
example is a node with its neighbours, so that one node is read in its own example and in those of its neighbours,
``max_degree`` at most: ``privacy.occurrences``, by which the account makes the noise of the updates larger.

ε is of the weights alone. An answer about a node reads its neighbours' features over the edges as they are: whoever serves such
answers shows them.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain.data.graph import Graph
from dptrain.models import linear, mlp
from dptrain.models.on_graph import NodeFront, NodeModel, Reads, bound, check_rows
from dptrain.recipe import ModelConfig, RegularizationConfig


class Stars(NodeFront):
    """``[n, 1]`` numbers of nodes to the mean of their own and their neighbours' features, ``[n, 1, features]``."""

    reads: Reads = "star"

    def __init__(self, features: int):
        super().__init__(features)
        self.output_shape = (1, features)

    @torch.no_grad()
    def of(self, features: Float[Tensor, "nodes features"], ids: Int[Tensor, " n"]) -> Tensor:
        return means(features, bound(self.graph))[ids][:, None]


def means(values: Float[Tensor, "nodes width"], graph: Graph) -> Float[Tensor, "nodes width"]:
    """The mean of each node's and its neighbours' values."""
    to, of = graph.both_ways
    return values.index_add(0, to, values[of]) / (1 + graph.degrees)[:, None]


def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig) -> nn.Module:
    """``[n, 1]`` numbers of nodes to logits ``[n, classes]``; ``input_shape`` is that of a node's features.

    Raises:
        ConfigError: nodes have no row of features.
    """
    check_rows(config.name, input_shape)
    front = Stars(input_shape[0])
    head = mlp if config.hidden else linear
    return NodeModel(front, head.build(front.output_shape, classes, config, regularization))
