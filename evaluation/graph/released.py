"""Links from what was released of them: the sums over neighbours of a model, or its perturbed graph.

Whoever holds the weights of a model of noised sums (:mod:`dptrain.models.gap`) holds S_u, the sum of h_j over the neighbours j
of u with noise of a deviation τ that the plan states, and computes every h_j from the nodes' features. Two nodes u and v are
scored by both ends together:

* where τ is below 1/2 and all h are shares from 0 up, by what the sum leaves room for: if v is a neighbour of u, then S_u −
  h_v is a sum of shares and noise, and no number of it lies far below 0. The score is Σ_c log Φ((S_u − h_v)_c / max(τ, 0.05)),
  of both ends.
* otherwise by the matched filter S_u · h_v + S_v · h_u, which is the likelihood ratio in Gaussian noise up to what the other
  neighbours add (for one known signal: Neyman and Pearson 1933).

Which of the two is fixed by τ, a public number, before any sum is looked at. Of a network over a graph that was perturbed as a
whole a pair scores 1 where it is among the released edges.

This is the attack for which the noise is: whatever a model computes from what was released says no more of an edge than that.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_ndtr

from dptrain.errors import UserError
from evaluation.access import Access, AccessError
from evaluation.graph import GraphTarget, LinkAttack, LinkKnowledge
from evaluation.graph.pairs import Coverage, PairScores, keys
from evaluation.membership import NotApplicable

SHARP = 0.5
"""Deviation of the noise from which on the matched filter is taken."""
LEAST_DEVIATION = 0.05
"""What rounding and the sums' own scale leave, where there is no noise."""


@dataclass(frozen=True, eq=False)
class FromSums(PairScores):
    """How well the sum over each node's neighbours goes with the other node."""

    covered: Coverage
    summed: Float[np.ndarray, "nodes width"]
    """h of every node."""
    sums: Float[np.ndarray, "nodes width"]
    deviation: float

    def of(self, pairs: Int[np.ndarray, "pairs 2"]) -> Float[np.ndarray, " pairs"]:
        return self._one_way(pairs[:, 0], pairs[:, 1]) + self._one_way(pairs[:, 1], pairs[:, 0])

    def _one_way(self, at: Int[np.ndarray, " pairs"], other: Int[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
        if self.deviation >= SHARP or self.summed.min() < 0:
            return (self.sums[at] * self.summed[other]).sum(1)
        room = (self.sums[at] - self.summed[other]) / max(self.deviation, LEAST_DEVIATION)
        return log_ndtr(room).sum(1)


@dataclass(frozen=True, eq=False)
class Among(PairScores):
    """1 for a pair that was released as an edge, else 0."""

    covered: Coverage
    edges: Int[np.ndarray, " edges"]
    """Their keys."""

    def of(self, pairs: Int[np.ndarray, "pairs 2"]) -> Float[np.ndarray, " pairs"]:
        return np.isin(keys(pairs, len(self.covered.asked)), self.edges).astype(float)


class Release(LinkAttack):
    """What was released of the edges, read as it is."""

    access: ClassVar[Access] = Access.WEIGHTS
    paper: ClassVar[str] = "the likelihood of what was released"

    def run(self, target: GraphTarget, knowledge: LinkKnowledge, generator: np.random.Generator) -> PairScores:
        everyone = Coverage.among(np.ones(knowledge.nodes, dtype=bool))
        holder: Any = target
        try:
            summed, sums = holder.released_sums(knowledge.features)
            return FromSums(everyone, summed, sums, knowledge.deviation)
        except AccessError:
            raise
        except UserError:
            pass
        try:
            return Among(everyone, keys(holder.released_edges().T, knowledge.nodes))
        except AccessError:
            raise
        except UserError:
            raise NotApplicable("nothing was released of the edges that a model reads them through") from None
