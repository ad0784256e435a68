"""Models of graphs: who is linked to whom, and what stands in the features of a node.

*Links*. An attack scores pairs of nodes without knowing which are linked; higher means linked. :mod:`evaluation.links` judges
it.

* :mod:`~evaluation.graph.pairs`: which pairs an attack scores, and the scores
* :mod:`~evaluation.graph.distances`: eight distances between what a model says of two nodes
* :mod:`~evaluation.graph.posteriors`: scores, labels, and a classifier that learned where edges are known
* :mod:`~evaluation.graph.influence`: whose answers move with a node's features
* :mod:`~evaluation.graph.optimised`: weights alone, a graph under which the model says what it says
* :mod:`~evaluation.graph.released`: what was released of the edges, read as it is
* :mod:`~evaluation.graph.figures`: areas and shares of pairs, with intervals that know that pairs share nodes

*Words*. A hidden feature of a node, guessed from what the model says of it; :mod:`evaluation.node_attributes` judges it.

* :mod:`~evaluation.graph.words`: which words, and the classifier that guesses them
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from evaluation.access import Access
from evaluation.graph.pairs import PairScores


@runtime_checkable
class GraphTarget(Protocol):
    """What these attacks ask of a target; :class:`evaluation.target.Target` says from which access level on."""

    def labels(self, inputs: Tensor) -> Int[np.ndarray, " nodes"]: ...

    def scores(self, inputs: Tensor) -> Float[np.ndarray, "nodes classes"]: ...

    def answers(self, features: Tensor) -> Float[np.ndarray, "nodes classes"]:
        """Scores of all nodes, where the asker gives every node's features and the owner holds the edges."""
        ...

    def embeddings(self, inputs: Tensor) -> Float[np.ndarray, "nodes width"]:
        """The last hidden layer of these nodes."""
        ...

    def on_adjacency(self, features: Tensor, adjacency: Tensor) -> Float[Tensor, "nodes classes"]:
        """Logits that can be differentiated in a dense symmetric adjacency, without self-loops."""
        ...


@dataclass(frozen=True, eq=False)
class LinkKnowledge:
    """What an attacker on links has beside the target."""

    features: Float[Tensor, "nodes features"]
    known: Int[np.ndarray, " known"]
    """Nodes among which he knows every edge of the model's graph; empty where he knows none."""
    known_edges: Int[np.ndarray, "edges 2"]
    """Those edges."""
    deviation: float = 0.0
    """Of the noise in sums over neighbours that were released, as the plan states it; 0 without."""

    @property
    def nodes(self) -> int:
        return len(self.features)

    @property
    def inputs(self) -> Int[Tensor, "nodes 1"]:
        """The numbers of all nodes, as a model of nodes reads them."""
        return torch.arange(self.nodes)[:, None]


class LinkAttack(ABC):
    """One attack on links; an instance is made for each run."""

    access: ClassVar[Access]
    paper: ClassVar[str]
    knows: ClassVar[Literal["no edge", "edges of half"]] = "no edge"
    """Whether he knows the edges among some nodes, drawn by a fair coin each; he is then judged on pairs of the others
    alone."""

    @abstractmethod
    def run(self, target: GraphTarget, knowledge: LinkKnowledge, generator: np.random.Generator) -> PairScores:
        """Scores of pairs of nodes; higher means linked."""
