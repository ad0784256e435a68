"""Links from what a model says of each node by itself.

He, Jia, Backes, Gong, Zhang 2021, "Stealing Links from Graph Neural Networks". Three attackers:

* :class:`Posteriors` sees the scores of all nodes and nothing else: the paper's Attack-0. Of its eight distances correlation is
  the headline, fixed before any figure was seen; the others stand beside it.
* :class:`Labels` sees labels alone: linked are those of the same label. Not in the paper, and the least that any model shows.
* :class:`Supervised` also knows the edges among one half of the nodes, and learns there what the answers for linked nodes look
  like. This is Attack-3, whose attacker has a part of the target's graph and no features; but where the paper's knows half of
  the links and is judged on the other half, here he knows all links among half of the *nodes* (a shadow graph inside the
  target's own) and is judged on pairs of two other nodes, so that no pair that scores him shares a node with one that he
  learned from. His features are the paper's: the eight distances, and four operations on the entropies e of the two answers,
  (e + e')/2, e e', |e − e'| and (e − e')². The classifier is a small MLP.
"""

import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluation.access import Access
from evaluation.graph import GraphTarget, LinkAttack, LinkKnowledge
from evaluation.graph.distances import DISTANCES
from evaluation.graph.pairs import AT_ONCE, Coverage, PairScores
from evaluation.membership import NotApplicable

HEADLINE = "correlation"
LEAST_KNOWN = 20
"""Edges that a classifier learns from, at least."""
HIDDEN = (32, 32)


@dataclass(frozen=True, eq=False)
class Near(PairScores):
    """The nearer two answers are, the higher the score of the pair."""

    covered: Coverage
    answers: Float[np.ndarray, "nodes classes"]

    def of(self, pairs: Int[np.ndarray, "pairs 2"]) -> Float[np.ndarray, " pairs"]:
        return -DISTANCES[HEADLINE](self.answers[pairs[:, 0]], self.answers[pairs[:, 1]])

    def beside(self, pairs: Int[np.ndarray, "pairs 2"]) -> dict[str, Float[np.ndarray, " pairs"]]:
        first, second = self.answers[pairs[:, 0]], self.answers[pairs[:, 1]]
        return {name: -distance(first, second) for name, distance in DISTANCES.items() if name != HEADLINE}


class Posteriors(LinkAttack):
    """Scores that are alike (Attack-0)."""

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "He et al. 2021"

    def run(self, target: GraphTarget, knowledge: LinkKnowledge, generator: np.random.Generator) -> PairScores:
        everyone = np.ones(knowledge.nodes, dtype=bool)
        return Near(Coverage.among(everyone), target.scores(knowledge.inputs))


@dataclass(frozen=True, eq=False)
class Same(PairScores):
    """1 where two labels are the same."""

    covered: Coverage
    labels: Int[np.ndarray, " nodes"]

    def of(self, pairs: Int[np.ndarray, "pairs 2"]) -> Float[np.ndarray, " pairs"]:
        return (self.labels[pairs[:, 0]] == self.labels[pairs[:, 1]]).astype(float)


class Labels(LinkAttack):
    """The same label, or not."""

    access: ClassVar[Access] = Access.LABEL
    paper: ClassVar[str] = "after He et al. 2021"

    def run(self, target: GraphTarget, knowledge: LinkKnowledge, generator: np.random.Generator) -> PairScores:
        everyone = np.ones(knowledge.nodes, dtype=bool)
        return Same(Coverage.among(everyone), target.labels(knowledge.inputs))


@dataclass(frozen=True, eq=False)
class Learned(PairScores):
    """The probability of a link by a classifier of pairs."""

    covered: Coverage
    answers: Float[np.ndarray, "nodes classes"]
    classifier: Pipeline

    def of(self, pairs: Int[np.ndarray, "pairs 2"]) -> Float[np.ndarray, " pairs"]:
        parts = np.array_split(pairs, len(pairs) // AT_ONCE + 1)
        return np.concatenate(
            [self.classifier.predict_proba(described(self.answers, part))[:, 1] for part in parts if len(part)]
        )


class Supervised(LinkAttack):
    """A classifier learned among nodes whose edges are known (after Attack-3)."""

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "He et al. 2021"
    knows: ClassVar[Literal["no edge", "edges of half"]] = "edges of half"

    def run(self, target: GraphTarget, knowledge: LinkKnowledge, generator: np.random.Generator) -> PairScores:
        """Raises NotApplicable where too few edges are known to learn from."""
        linked = knowledge.known_edges
        if len(linked) < LEAST_KNOWN:
            raise NotApplicable(f"among the nodes that the attacker knows there are {len(linked)} edges, too few to learn from")
        answers = target.scores(knowledge.inputs)
        known = np.zeros(knowledge.nodes, dtype=bool)
        known[knowledge.known] = True
        unlinked = Coverage.among(known).draw(len(linked), linked, generator)
        seen = described(answers, np.concatenate([linked, unlinked]))
        is_linked = np.arange(len(seen)) < len(linked)
        network = MLPClassifier(HIDDEN, random_state=int(generator.integers(2**31)), max_iter=200)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # so many passes are enough to rank pairs by
            classifier = make_pipeline(StandardScaler(), network).fit(seen, is_linked)
        return Learned(Coverage.among(~known), answers, classifier)


def described(
    answers: Float[np.ndarray, "nodes classes"], pairs: Int[np.ndarray, "pairs 2"]
) -> Float[np.ndarray, "pairs twelve"]:
    """Of each pair the eight distances, and what four operations make of the entropies of the two answers."""
    first, second = answers[pairs[:, 0]], answers[pairs[:, 1]]
    logs = np.log(np.where(answers > 0, answers, 1.0))
    entropy = -(answers * logs).sum(1)
    one, other = entropy[pairs[:, 0]], entropy[pairs[:, 1]]
    apart = np.abs(one - other)
    operations = ((one + other) / 2, one * other, apart, apart**2)
    return np.stack([*(distance(first, second) for distance in DISTANCES.values()), *operations], 1)
