"""Small graphs, and models of them that answer as a target does."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain.plan import PrivacyPlan
from evaluation.access import Access, AccessError
from evaluation.analysis import Case
from evaluation.membership import NotApplicable


def communities(
    nodes: int = 240, classes: int = 3, words: int = 60, seed: int = 0, *, linked: float = 0.05, across: float = 0.1
) -> tuple[Tensor, Int[Tensor, " nodes"], Int[np.ndarray, "edges 2"]]:
    """Words, classes and edges: nodes of a class are linked with probability ``linked``, others with ``across`` of it, and of
    its class's own words a node has 30%, of others 10%."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, classes, nodes)
    own = (np.arange(words) % classes)[None] == label[:, None]
    features = (generator.random((nodes, words)) < np.where(own, 0.3, 0.1)).astype(np.float32)
    first, second = np.triu_indices(nodes, 1)
    rate = np.where(label[first] == label[second], linked, across * linked)
    drawn = generator.random(len(first)) < rate
    return torch.from_numpy(features), torch.from_numpy(label), np.stack([first, second], 1)[drawn]


class Network(nn.Module):
    """A graph convolution of two layers (Kipf and Welling 2017), or without edges a perceptron."""

    def __init__(self, features: Tensor, edges: Int[np.ndarray, "edges 2"] | None, classes: int, hidden: int = 16):
        super().__init__()
        self.features, self.edges = features, edges
        self.first, self.second = nn.Linear(features.shape[1], hidden), nn.Linear(hidden, classes)
        self.mix = torch.eye(0)
        if edges is not None:
            index = torch.from_numpy(np.concatenate([edges, edges[:, ::-1]]).T.copy())
            own = torch.arange(len(features)).repeat(2, 1)
            every = torch.cat([index, own], 1)
            degree = torch.bincount(every[0], minlength=len(features)).float().rsqrt()
            weight = degree[every[0]] * degree[every[1]]
            self.mix = torch.sparse_coo_tensor(every, weight, (len(features), len(features)), check_invariants=False).coalesce()

    def hidden(self, features: Tensor, mix: Tensor | None = None) -> Tensor:
        dropped = nn.functional.dropout(features, 0.5, self.training)
        return self._mixed(self.first(dropped), mix).relu()

    def outputs(self, features: Tensor, mix: Tensor | None = None) -> Tensor:
        dropped = nn.functional.dropout(self.hidden(features, mix), 0.5, self.training)
        return self._mixed(self.second(dropped), mix)

    def _mixed(self, values: Tensor, mix: Tensor | None) -> Tensor:
        return values if self.edges is None else (self.mix if mix is None else mix) @ values


def trained(
    features: Tensor,
    labels: Tensor,
    edges: Int[np.ndarray, "edges 2"] | None,
    members: Tensor,
    *,
    seed: int = 0,
    steps: int = 100,
) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(features, edges, int(labels.max()) + 1)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=5e-4)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network.outputs(features)[members], labels[members]).backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


class Silent:
    """A target that answers nothing; those below it answer something."""

    def behind(self, access: Access) -> "Silent":
        return self

    def labels(self, inputs: Tensor) -> Int[np.ndarray, " nodes"]:
        raise NotImplementedError

    def scores(self, inputs: Tensor) -> Float[np.ndarray, "nodes classes"]:
        raise NotImplementedError

    def answers(self, features: Tensor) -> Float[np.ndarray, "nodes classes"]:
        raise NotImplementedError

    def embeddings(self, inputs: Tensor) -> Float[np.ndarray, "nodes width"]:
        raise NotImplementedError

    def on_adjacency(self, features: Tensor, adjacency: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(eq=False)
class GraphTarget(Silent):
    """A network behind an access level, with what attacks on graphs ask of it."""

    network: Network
    access: Access = Access.WEIGHTS
    asked: list[Access] = field(default_factory=list)
    """Of this target and of those that are it behind another level."""

    def behind(self, access: Access) -> "GraphTarget":
        return GraphTarget(self.network, access, self.asked)

    def labels(self, inputs: Tensor) -> Int[np.ndarray, " nodes"]:
        return self._logits(inputs, Access.LABEL).argmax(1)

    def scores(self, inputs: Tensor) -> Float[np.ndarray, "nodes classes"]:
        return _softmax(self._logits(inputs, Access.SCORES))

    def answers(self, features: Tensor) -> Float[np.ndarray, "nodes classes"]:
        self._require(Access.SCORES)
        return _softmax(self.network.outputs(features).double().numpy())

    def embeddings(self, inputs: Tensor) -> Float[np.ndarray, "nodes width"]:
        self._require(Access.LOGITS)
        return self.network.hidden(self.network.features)[inputs[:, 0]].double().numpy()

    def on_adjacency(self, features: Tensor, adjacency: Tensor) -> Tensor:
        self._require(Access.WEIGHTS)
        if self.network.edges is None:
            raise NotApplicable("the model reads no edges")
        linked = adjacency + torch.eye(len(adjacency))
        scale = linked.sum(1).rsqrt()
        return self.network.outputs(features, scale[:, None] * linked * scale[None])

    def _logits(self, inputs: Tensor, needed: Access) -> np.ndarray:
        self._require(needed)
        return self.network.outputs(self.network.features)[inputs[:, 0]].double().numpy()

    def _require(self, needed: Access) -> None:
        self.asked.append(needed)
        if self.access < needed:
            raise AccessError(f"this attacker sees {self.access.word} and asked for {needed.word}")


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def case_of(
    features: Tensor, labels: Tensor, edges: Int[np.ndarray, "edges 2"], *, held_out: float = 0.2, seed: int = 0,
    population: float = 0.3, plan: PrivacyPlan | Any = None, graph_of_model: Literal["true", "none"] = "true", steps: int = 100
) -> Case:  # fmt: skip
    """A graph model of half of the nodes' labels on the bench, beside one of the same members without the graph."""
    generator = np.random.default_rng([seed, 1])
    left_out = generator.random(len(edges)) < held_out
    part = generator.random(len(features))
    lists = {"members": part < 0.5, "population": part >= 1 - population}
    members, apart = (np.flatnonzero(which) for which in lists.values())
    others = np.setdiff1d(np.arange(len(features)), np.concatenate([members, apart]))
    read = edges[~left_out] if graph_of_model == "true" else None
    models = [trained(features, labels, by, torch.from_numpy(members), seed=seed, steps=steps) for by in (read, None)]
    graph = SimpleNamespace(
        features=features, edges=torch.from_numpy(edges[~left_out].T), held_out=torch.from_numpy(edges[left_out].T)
    )
    classes = tuple(str(number) for number in range(int(labels.max()) + 1))
    data = SimpleNamespace(name="communities", graph=graph, classes=classes, targets=labels)
    split = SimpleNamespace(members=members, population=apart, non_members=others, drawn="coins")
    case = SimpleNamespace(
        target=GraphTarget(models[0]), without_graph=GraphTarget(models[1]), data=data, split=split, seed=seed, plan=plan,
        is_private=plan is not None,
    )  # fmt: skip
    return cast(Any, case)
