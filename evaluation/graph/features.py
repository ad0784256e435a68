"""What the features of two nodes say of a link, without any model: linked nodes resemble each other."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from evaluation.graph.pairs import Coverage, PairScores

AT_ONCE = 10_000
"""Pairs whose features are side by side in memory."""


@dataclass(frozen=True, eq=False)
class FeatureCosine(PairScores):
    """The cosine of the angle between the features of two nodes; 0 where one has none."""

    covered: Coverage
    directions: Float[np.ndarray, "nodes features"]
    """Of length 1."""

    @classmethod
    def of_features(cls, features: Float[Tensor, "nodes features"], covered: Coverage) -> "FeatureCosine":
        lengths = features.norm(dim=1, keepdim=True)
        return cls(covered, (features / lengths.where(lengths > 0, 1.0)).numpy())

    def of(self, pairs: Int[np.ndarray, "pairs 2"]) -> Float[np.ndarray, " pairs"]:
        parts = np.array_split(pairs, len(pairs) // AT_ONCE + 1)
        return np.concatenate([(self.directions[part[:, 0]] * self.directions[part[:, 1]]).sum(1) for part in parts])

    def block(self, rows: Int[np.ndarray, " rows"], columns: Int[np.ndarray, " columns"]) -> Float[np.ndarray, "rows columns"]:
        return self.directions[rows] @ self.directions[columns].T
