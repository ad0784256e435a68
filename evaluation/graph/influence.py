"""Links from influence: change one node's features, and see whose answers move.

Wu, Long, Zhang, Li 2022, "LinkTeller: Recovering Private Edges from Graph Neural Networks via Influence Analysis". The
attacker gives the features of all nodes and is answered with the scores of all nodes; the owner holds the edges. For each node
v that he asks about, x_v becomes (1 + Δ) x_v, and the influence of v on u is ‖s_u(after) − s_u(before)‖₂ / Δ. In a model of k
layers it is 0 on whoever is more than k edges away. Influence is made symmetric by its mean over both directions, where both
ends were asked about.

Two choices are not the paper's. (1) s is the *logarithm* of the scores, less its mean over classes, which is the logits up to
a constant: where a score is close to 1 it hardly moves, its logarithm does. On Cora (the slow test of
``tests/evaluation/test_links.py``: a GCN of two layers with 16 hidden units, 500 nodes asked about) the precision at the true
density is .65 so and .37 from plain scores, the AUC .999 and .997. (2) Δ is 0.01 rather than 0.0001: answers come from
float32, and a small change is rounded away where a node has many neighbours. There any Δ from 0.0001 to 1 gives the same three
digits of the AUC.

A node without any feature that is not 0 has no influence by this change, and its pairs are scored by the other end alone.
"""

from typing import ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from evaluation.access import Access
from evaluation.graph import GraphTarget, LinkAttack, LinkKnowledge
from evaluation.graph.pairs import Coverage, PairScores, Table

CHANGE = 0.01
"""Δ."""
ASKED = 500
"""Nodes that are asked about, at most: each is one answer about the whole graph. On Cora 500 take some seven seconds."""
LEAST_SCORE = 1e-300
"""Scores below it count as it: a guard may round them to 0. No larger, since the answer of a node of many neighbours is so
sure that all that moves of it is in scores below 1e-12."""


class Influence(LinkAttack):
    """Whose answers move with whose features."""

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "Wu et al. 2022"

    def run(self, target: GraphTarget, knowledge: LinkKnowledge, generator: np.random.Generator) -> PairScores:
        asked = np.sort(generator.permutation(knowledge.nodes)[:ASKED])
        before = _logs(target, knowledge.features)
        found = np.empty((len(asked), knowledge.nodes))
        changed = knowledge.features.clone()
        for row, node in enumerate(asked):
            changed[node] *= 1 + CHANGE
            found[row] = np.linalg.norm(_logs(target, changed) - before, axis=1) / CHANGE
            changed[node] = knowledge.features[node]
        is_asked = np.zeros(knowledge.nodes, dtype=bool)
        is_asked[asked] = True
        return Table(Coverage(is_asked, np.ones_like(is_asked)), found)


def _logs(target: GraphTarget, features: Tensor) -> Float[np.ndarray, "nodes classes"]:
    logs = np.log(np.maximum(target.answers(features), LEAST_SCORE))
    return logs - logs.mean(1, keepdims=True)
