"""Noised sums over neighbours, made once, and a trained head (Sajadmanesh, Shamsabadi, Bellet, Gatica-Perez 2023, "GAP:
Differentially Private Graph Neural Networks with Aggregation Perturbation").

Before the first update a node's features x become a short vector h of length at most 1, the vectors of a node's neighbours are
summed, and noise is added (:mod:`dptrain.graph.aggregation`), over ``model.hops`` hops. The sums are released with the model:
an answer reads edges through them alone. ``model.encoder`` says what h is, and what the head is trained on beside the sums,
each hop's over the root mean square of their lengths:

* ``labels``: h are the scores of a network that learned from features and labels of the members and saw no edge
  (:mod:`dptrain.graph.encoder`); the head is given [h, sums]. For the unit ``edge``, and without a guarantee: edges are all
  that is hidden, so it costs nothing.
* ``projection``: h = P x, with independent N(0, 1/width) entries of P from a public seed, scaled down to length 1 where it is
  longer; the head is given [x, sums]. For the unit ``node``, which hides features and labels as well.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain.data.graph import Graph
from dptrain.errors import ConfigError
from dptrain.graph.encoder import HIDDEN, Encoder
from dptrain.models import linear, mlp
from dptrain.models.on_graph import GrowingBuffers, NodeFront, NodeModel, Reads, bound, check_rows
from dptrain.recipe import ModelConfig, RegularizationConfig

WIDTH = 32
"""Of a random projection."""
SEED = 20231


class Projection(nn.Module):
    """Features to ``width`` numbers, by a fixed random matrix."""

    matrix: Tensor

    def __init__(self, features: int, width: int):
        super().__init__()
        generator = torch.Generator().manual_seed(SEED)
        self.register_buffer("matrix", torch.randn(features, width, generator=generator) / width**0.5)

    def forward(self, features: Float[Tensor, "n features"]) -> Float[Tensor, "n width"]:
        projected = features @ self.matrix
        return projected / projected.norm(dim=1, keepdim=True).clamp_min(1.0)


class NoisedSums(NodeFront, GrowingBuffers):
    """``[n, 1]`` numbers of nodes to what they are and what was released of their neighbours, ``[n, own + hops · width]``.

    Args:
        encoder: features to vectors of length at most 1; has buffers and no weights.
    """

    reads: Reads = "released"
    sums: Tensor

    def __init__(self, features: int, encoder: Encoder | Projection, width: int, hops: int):
        super().__init__(features)
        self.encoder = encoder
        self.hops = hops
        own = width if isinstance(encoder, Encoder) else features
        self.output_shape = (own + hops * width,)
        self.register_buffer("sums", torch.zeros(0, hops, width))

    def release(self, sums: Float[Tensor, "nodes hops width"]) -> None:
        """Takes what was released of the graph that it is bound to.

        Raises:
            ValueError: it is of another shape.
        """
        shape = (bound(self.graph).nodes, *self.sums.shape[1:])
        if tuple(sums.shape) != shape:
            raise ValueError(f"the sums are of shape {tuple(sums.shape)}, and this front holds {shape}")
        self.sums = sums.float().clone()

    def bind(self, graph: Graph) -> None:
        super().bind(graph)
        if len(self.sums) not in (0, graph.nodes):
            raise ConfigError(
                f"the model holds sums over the neighbours of {len(self.sums)} nodes and the graph has {graph.nodes}; bind it "
                "to the graph that it was trained on"
            )

    @torch.no_grad()
    def of(self, features: Float[Tensor, "nodes features"], ids: Int[Tensor, " n"]) -> Tensor:
        if not len(self.sums):
            raise RuntimeError("the sums over neighbours were not made yet; they are, before the first update, or load weights")
        scale = self.sums.square().sum(2).mean(0).sqrt().clamp_min(1e-12)
        own = self.encoder(features[ids]) if isinstance(self.encoder, Encoder) else features[ids]
        return torch.cat([own, (self.sums[ids] / scale[:, None]).flatten(1)], 1)


def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig) -> nn.Module:
    """``[n, 1]`` numbers of nodes to logits ``[n, classes]``; ``input_shape`` is that of a node's features.

    Raises:
        ConfigError: nodes have no row of features.
    """
    check_rows(config.name, input_shape)
    of_labels = config.encoder == "labels"
    width = classes if of_labels else WIDTH
    encoder = Encoder(input_shape[0], HIDDEN, classes) if of_labels else Projection(input_shape[0], width)
    front = NoisedSums(input_shape[0], encoder, width, config.hops)
    head = mlp if config.hidden else linear
    return NodeModel(front, head.build(front.output_shape, classes, config, regularization))
