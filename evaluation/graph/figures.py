"""Areas and shares of pairs of nodes, with intervals that know that pairs share nodes.

A node of many edges is in many pairs, and an odd node moves them all: pairs are not independent, and an interval that takes
them for that (DeLong's over pairs) is too narrow. What is independent is the node. So nodes are dealt at random into G groups,
the figure is computed again without each group and all of its pairs, and

    variance = (G − 1)/G · Σ (figure without g − their mean)²,

the delete-a-group jackknife, with Student's t of G − 1 degrees. For counts of subgraphs such a jackknife over nodes errs
upwards (Lin, Lunde, Sarkar 2020, "On the Theoretical Properties of the Network Jackknife"): what is independent from pair to
pair goes with either end, and counts up to twice. An interval is never narrower than DeLong's, which also serves where the
area is 1 and nothing varies. The graph and the model are given: nothing is said of other graphs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata
from scipy.stats import t as student

from evaluation.graph.pairs import PairScores, keys
from evaluation.metrics import area_under_roc
from evaluation.result import Measure

GROUPS = 30
LEAST = 10
"""Pairs of each kind without which an area is not measured."""

Figure = Callable[[Bool[np.ndarray, " items"]], float]
"""Of the items that are kept; NaN where they are too few."""


def dealt(nodes: int, generator: np.random.Generator, groups: int = GROUPS) -> Int[np.ndarray, " nodes"]:
    """The group of each node; groups are of equal size."""
    return generator.permutation(np.arange(nodes) % groups)


def jackknife(
    figure: Figure, nodes: Int[np.ndarray, "items ends"], group: Int[np.ndarray, " nodes"], name: str, confidence: float = 0.95
) -> Measure:
    """A figure and its interval; without one where a group is all there is of some kind of items.

    Args:
        nodes: which nodes each item is of, two for a pair.
    """
    groups, ends = int(group.max()) + 1, group[nodes]
    value = figure(np.ones(len(nodes), dtype=bool))
    without = np.array([figure((ends != one).all(1)) for one in range(groups)])
    if not np.isfinite(without).all():
        return Measure(name=name, value=value, note="too few for an interval")
    spread = np.sqrt((groups - 1) / groups * np.square(without - without.mean()).sum())
    half = float(student.ppf(0.5 + confidence / 2, groups - 1) * spread)
    return Measure(name=name, value=value, low=value - half, high=value + half, confidence=confidence)


@dataclass(frozen=True, eq=False)
class Contrast:
    """Two kinds of pairs that scores are to tell apart, and the groups of nodes by which intervals are made."""

    pairs: Int[np.ndarray, "pairs 2"]
    positive: Bool[np.ndarray, " pairs"]
    """Those that should score higher."""
    group: Int[np.ndarray, " nodes"]

    @classmethod
    def of(
        cls, positive: Int[np.ndarray, "some 2"], negative: Int[np.ndarray, "others 2"], group: Int[np.ndarray, " nodes"]
    ) -> "Contrast":
        return cls(np.concatenate([positive, negative]), np.arange(len(positive) + len(negative)) < len(positive), group)

    @property
    def is_enough(self) -> bool:
        return LEAST <= int(self.positive.sum()) <= len(self.positive) - LEAST

    def area(self, scores: Float[np.ndarray, " pairs"], name: str, confidence: float = 0.95) -> Measure:
        """P(score of a positive pair > score of another), ties counted half."""
        if not self.is_enough:
            return Measure(name=name, value=None, note=f"fewer than {LEAST} pairs of a kind")
        found = jackknife(lambda kept: _area(scores[kept], self.positive[kept]), self.pairs, self.group, name, confidence)
        plain = area_under_roc(scores, self.positive, name, confidence)
        assert found.value is not None
        assert plain.low is not None
        assert plain.high is not None
        if found.low is None or found.high is None:
            return Measure(name=name, value=found.value, low=0.0, high=1.0, confidence=confidence, note=found.note)
        low, high = max(0.0, min(found.low, plain.low)), min(1.0, max(found.high, plain.high))
        return Measure(name=name, value=found.value, low=low, high=high, confidence=confidence)

    def difference(self, scores: Float[np.ndarray, " pairs"], others: Float[np.ndarray, " pairs"], name: str) -> Measure:
        """The area of the scores less that of others, of the same pairs: what the two err by together is taken off."""
        if not self.is_enough:
            return Measure(name=name, value=None, note=f"fewer than {LEAST} pairs of a kind")

        def figure(kept: Bool[np.ndarray, " pairs"]) -> float:
            return _area(scores[kept], self.positive[kept]) - _area(others[kept], self.positive[kept])

        return jackknife(figure, self.pairs, self.group, name)


def _area(scores: Float[np.ndarray, " pairs"], positive: Bool[np.ndarray, " pairs"]) -> float:
    count = int(positive.sum())
    if count in (0, len(positive)):
        return float("nan")
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(positive) - count)))


def precision_at_density(
    scores: PairScores,
    linked: Int[np.ndarray, "edges 2"],
    without: Int[np.ndarray, "others 2"],
    group: Int[np.ndarray, " nodes"],
    generator: np.random.Generator,
    name: str = "precision_at_density",
) -> Measure:
    """Of as many pairs as there are edges, those of the highest scores of all pairs that are scored: the share that is linked.

    Ties are broken at random. Twice as many pairs as are needed are kept, in order, so that the jackknife finds those that
    move up where a group of nodes is left out.

    Args:
        linked: the edges among the pairs that are scored.
        without: pairs that are in no ranking.
    """
    if len(linked) < LEAST:
        return Measure(name=name, value=None, note=f"fewer than {LEAST} edges among the pairs that are scored")
    nodes = len(group)
    top = _top(scores, 2 * len(linked) + len(without), generator)
    top = top[~np.isin(keys(top, nodes), keys(without, nodes))]
    together = np.concatenate([top, linked])
    hit = np.isin(keys(top, nodes), keys(linked, nodes))

    def figure(kept: Bool[np.ndarray, " pairs"]) -> float:
        wanted, found = int(kept[len(top) :].sum()), hit[kept[: len(top)]]
        return float(found[:wanted].mean()) if 0 < wanted <= len(found) else float("nan")

    found = jackknife(figure, together, group, name)
    if found.value is None or found.low is None or found.high is None:
        return found
    return Measure(name=name, value=found.value, low=max(0.0, found.low), high=min(1.0, found.high))


def _top(scores: PairScores, count: int, generator: np.random.Generator) -> Int[np.ndarray, "count 2"]:
    """The pairs of the highest scores, the highest first, ties at random."""
    best, chance, pairs = np.empty(0), np.empty(0), np.empty((0, 2), dtype=np.int64)
    for rows, columns, counts in scores.covered.blocks():
        values = scores.block(rows, columns)
        if len(best) == count:
            counts &= values >= best[0]
        at, to = counts.nonzero()
        best = np.concatenate([best, values[at, to]])
        chance = np.concatenate([chance, generator.random(len(at))])
        pairs = np.concatenate([pairs, np.stack([rows[at], columns[to]], 1)])
        if len(best) > count:
            cut = np.partition(best, -count)[-count]
            best, chance, pairs = best[best >= cut], chance[best >= cut], pairs[best >= cut]
        order = np.lexsort((chance, best))[-count:]
        best, chance, pairs = best[order], chance[order], pairs[order]
    return pairs[::-1]
