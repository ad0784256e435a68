"""Which pairs of nodes an attack scores, and the scores.

An attack on a large graph asks about some of its nodes. Its pairs are those with one end among the nodes that it *asked* about
and the other among those whose *answers* it saw; each unordered pair counts once. Scores are computed where they are wanted, so
that no table of all pairs has to be in memory.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

AT_ONCE = 500_000
"""Pairs that are scored at once."""
FEW = 200_000
"""Pairs that are listed rather than drawn and refused."""


@dataclass(frozen=True, eq=False)
class Coverage:
    """Pairs with one end in ``asked`` and the other in ``answered``, of which ``asked`` is a part."""

    asked: Bool[np.ndarray, " nodes"]
    answered: Bool[np.ndarray, " nodes"]

    @classmethod
    def among(cls, chosen: Bool[np.ndarray, " nodes"]) -> "Coverage":
        """All pairs of these nodes."""
        return cls(chosen, chosen)

    @property
    def count(self) -> int:
        """How many pairs there are."""
        asked, answered = int(self.asked.sum()), int(self.answered.sum())
        return asked * (asked - 1) // 2 + asked * (answered - asked)

    def holds(self, pairs: Int[np.ndarray, "pairs 2"]) -> Bool[np.ndarray, " pairs"]:
        """Which of these pairs are among them."""
        first, second = pairs[:, 0], pairs[:, 1]
        return (self.asked[first] & self.answered[second]) | (self.asked[second] & self.answered[first])

    def blocks(
        self,
    ) -> Iterator[tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " columns"], Bool[np.ndarray, "rows columns"]]]:
        """Rows, columns, and which of their pairs count: over all blocks together, each pair does once."""
        asked, columns = np.flatnonzero(self.asked), np.flatnonzero(self.answered)
        for rows in np.array_split(asked, max(1, len(asked) * len(columns) // AT_ONCE)):
            later = columns[None] > rows[:, None]
            yield rows, columns, later | ((columns[None] != rows[:, None]) & ~self.asked[columns][None])

    def draw(
        self, count: int, without: Int[np.ndarray, "pairs 2"], generator: np.random.Generator
    ) -> Int[np.ndarray, "drawn 2"]:
        """Different pairs, uniformly among those that are not in ``without``; fewer where there are no more."""
        nodes = len(self.asked)
        refused = np.unique(keys(without, nodes))
        if self.count <= FEW or 4 * (count + len(without)) > self.count:
            every = [
                np.stack([rows[at], columns[to]], 1) for rows, columns, counts in self.blocks() for at, to in [counts.nonzero()]
            ]
            left = np.concatenate(every)
            left = left[~np.isin(keys(left, nodes), refused)]
            return left[generator.permutation(len(left))[:count]]
        asked, answered = np.flatnonzero(self.asked), np.flatnonzero(self.answered)
        found = np.empty((0, 2), dtype=np.int64)
        while len(found) < count:
            first, second = generator.choice(asked, 2 * count), generator.choice(answered, 2 * count)
            # Of two nodes that were both asked about the pair could come in either order; others in one alone.
            drawn = np.stack([first, second], 1)[(first != second) & (~self.asked[second] | (first < second))]
            found = np.concatenate([found, drawn[~np.isin(keys(drawn, nodes), refused)]])
            found = found[np.sort(np.unique(keys(found, nodes), return_index=True)[1])]
        return found[:count]


def keys(pairs: Int[np.ndarray, "pairs 2"], nodes: int) -> Int[np.ndarray, " pairs"]:
    """One number an unordered pair."""
    return pairs.min(1).astype(np.int64) * nodes + pairs.max(1)


class PairScores(ABC):
    """What an attack on links gives."""

    covered: Coverage

    @abstractmethod
    def of(self, pairs: Int[np.ndarray, "pairs 2"]) -> Float[np.ndarray, " pairs"]:
        """The score of each pair, whatever the order of its two nodes; higher means linked."""

    def beside(self, pairs: Int[np.ndarray, "pairs 2"]) -> dict[str, Float[np.ndarray, " pairs"]]:
        """Scores by other names that stand beside it."""
        return {}

    def block(self, rows: Int[np.ndarray, " rows"], columns: Int[np.ndarray, " columns"]) -> Float[np.ndarray, "rows columns"]:
        """Scores of all pairs of two lists of nodes."""
        first, second = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
        return self.of(np.stack([first, second], 1)).reshape(len(rows), len(columns))


@dataclass(frozen=True, eq=False)
class Table(PairScores):
    """Scores that are at hand for each node of ``rows`` with every node; of pairs that are there twice, their mean."""

    covered: Coverage
    scores: Float[np.ndarray, "asked nodes"]
    """One row for each asked node, in their order."""

    def of(self, pairs: Int[np.ndarray, "pairs 2"]) -> Float[np.ndarray, " pairs"]:
        row = np.cumsum(self.covered.asked) - 1
        total, seen = np.zeros(len(pairs)), np.zeros(len(pairs))
        for one, other in ((pairs[:, 0], pairs[:, 1]), (pairs[:, 1], pairs[:, 0])):
            asked = self.covered.asked[one]
            total[asked] += self.scores[row[one[asked]], other[asked]]
            seen[asked] += 1
        return total / np.maximum(seen, 1)
