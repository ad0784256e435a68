"""Models whose examples are the nodes of one graph: they take numbers of nodes, and hold the graph that they are bound to.

    model = models.build_for(ModelConfig(name="gcn", hidden=(16,)), data, RegularizationConfig())
    model(data.inputs[:5])                      # [5, classes]
    model.answers(data.graph.features)          # [nodes, classes], features given by whoever asks

The graph is no part of a model's state and never of a release. Of what a model reads depends for which unit of privacy it can
be trained (:func:`check_reads`): its own features, what was *released* of the edges with noise, its neighbours' features
through at most ``max_degree`` edges (a *star*), or the edges as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain.data.graph import Graph
from dptrain.errors import ConfigError, PlanError, UserError
from dptrain.models.front import WithFront
from dptrain.plan import PrivacyPlan

Reads = Literal["features", "released", "star", "edges"]
"""What of the graph an answer about one node depends on."""


@runtime_checkable
class OnGraph(Protocol):
    """A model of nodes."""

    reads: Reads

    def bind(self, graph: Graph) -> None:
        """From here on its nodes are those of this graph."""
        ...

    def answers(self, features: Float[Tensor, "nodes features"]) -> Float[Tensor, "nodes classes"]:
        """Logits of all nodes, whose features are given, over the edges that the model holds, or what was released of them."""
        ...

    def embeddings(self, ids: Int[Tensor, "n 1"]) -> Float[Tensor, "n width"]:
        """The last hidden layer of these nodes: what the last linear map is given."""
        ...


class NodeFront(nn.Module):
    """What is known of a node before anything is trained; a front (:mod:`dptrain.models.front`) that holds the graph."""

    output_shape: tuple[int, ...]
    reads: Reads = "features"

    def __init__(self, features: int):
        super().__init__()
        self.features = features
        self.graph: Graph | None = None

    def bind(self, graph: Graph) -> None:
        check_fits(graph, self.features)
        self.graph = graph

    def of(self, features: Float[Tensor, "nodes features"], ids: Int[Tensor, " n"]) -> Tensor:
        """``[n, *output_shape]`` of nodes of a graph with these features."""
        return features[ids]

    def forward(self, ids: Int[Tensor, "n 1"]) -> Tensor:
        return self.of(bound(self.graph).features, ids[:, 0])

    def extra_repr(self) -> str:
        return f"{self.features}, {self.output_shape}"


class Features(NodeFront):
    """A node's own features: the graph is not looked at."""

    def __init__(self, features: int):
        super().__init__(features)
        self.output_shape = (features,)


class NodeModel(WithFront):
    """A fixed view of the nodes, and a trained head."""

    front: NodeFront

    @property
    def reads(self) -> Reads:
        return self.front.reads

    def bind(self, graph: Graph) -> None:
        self.front.bind(graph)

    def answers(self, features: Float[Tensor, "nodes features"]) -> Float[Tensor, "nodes classes"]:
        return self.head(self.front.of(features, torch.arange(len(features))))

    def embeddings(self, ids: Int[Tensor, "n 1"]) -> Float[Tensor, "n width"]:
        own: Any = getattr(self.head, "embeddings", None)  # of a head whose layers are no modules
        if own is not None:
            return own(self.front(ids))
        last = [module for module in self.head.modules() if isinstance(module, nn.Linear)][-1]
        with _given_to(last) as given:
            self(ids)
        return given[0].flatten(1)


@contextmanager
def _given_to(module: nn.Module) -> Iterator[list[Tensor]]:
    given: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        yield given
    finally:
        handle.remove()


def check_rows(name: str, input_shape: tuple[int, ...]) -> None:
    """Raises ConfigError where a model of nodes, by its name, is to read inputs that are no rows of features."""
    if len(input_shape) != 1:
        raise ConfigError(
            f"the model {name} reads nodes of a graph, each with a row of features, and inputs here are of shape {input_shape}"
            "; give the data set cora or graph"
        )


def bound(graph: Graph | None) -> Graph:
    """The graph that a model is bound to.

    Raises:
        UserError: it is bound to none.
    """
    if graph is None:
        raise UserError(
            "this model answers about the nodes of a graph and is bound to none; call model.bind(data.graph) before"
        )
    return graph


def check_fits(graph: Graph, features: int) -> None:
    """Raises ConfigError where nodes have another number of features than the model was made for."""
    if graph.features.shape[1] != features:
        raise ConfigError(
            f"the model was made for nodes of {features} features and the graph's have {graph.features.shape[1]}; bind it to "
            "the graph of its own data set"
        )


class GrowingBuffers(nn.Module):
    """A module whose buffers take the shape of what is loaded: how much was released is known once it is."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any, **named: Any) -> None:
        for name, buffer in self.named_buffers(recurse=False):
            given = state_dict.get(prefix + name)
            if given is not None and given.shape != buffer.shape and given.dim() == buffer.dim():
                setattr(self, name, torch.empty_like(given))
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)


def check_reads(model: nn.Module, plan: PrivacyPlan, graph: Graph) -> None:
    """Refuses a private plan that does not cover what the model reads of the graph.

    Raises:
        PlanError: it says which unit or which model to give.
    """
    reads = getattr(model, "reads", "edges")
    if plan.unit == "node" and plan.max_degree is not None and int(graph.degrees.max()) > plan.max_degree:
        raise PlanError(
            f"privacy.max_degree is {plan.max_degree}, and the graph has a node of {int(graph.degrees.max())} edges; leave out "
            f"what is too much with --data.max-degree {plan.max_degree}"
        )
    if not plan.is_private:
        return
    if plan.unit not in ("node", "edge"):
        raise PlanError(
            f"privacy.unit is {plan.unit!r}, which says nothing of a node's edges, and the examples are nodes of a graph; give "
            "'node' or 'edge'"
        )
    what = {
        "features": "no edges",
        "released": "noised sums",
        "star": "its neighbours' features",
        "edges": "edges as they are",
    }[reads]
    if plan.unit == "edge":
        fit = reads in ("features", "released") if plan.edge_release == "none" else reads == "edges"
        give = "model.name gap with privacy.aggregations 1, or gcn with privacy.edge_release laplace"
    else:
        fit = {
            "features": plan.aggregations == 0 and plan.occurrences == 0,
            "released": plan.aggregations > 0 and plan.occurrences == 0,
            "star": plan.aggregations == 0 and plan.occurrences == plan.max_degree,
            "edges": False,
        }[reads]
        give = (
            "model.name gap with privacy.aggregations 1, stars with privacy.occurrences as privacy.max_degree, "
            "or mlp with neither"
        )
    if not fit:
        raise PlanError(
            f"privacy.unit is {plan.unit!r} and the model reads {what}, for which this plan holds no noise; give {give}"
        )
