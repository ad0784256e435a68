"""How far a query of numbers is from what benign clients ask.

With x the query, U the first K principal directions of benign queries around their mean m (Tipping, Bishop 1999,
"Probabilistic Principal Component Analysis"), z = Uᵀ(x − m), μ_c the mean of z over benign queries that the model puts into
class c, and S the covariance of z − μ_c over all of them (Lee, Lee, Lee, Shin 2018, "A Simple Unified Framework for Detecting
Out-of-Distribution Samples"):

    distance(x) = min_c (z − μ_c)ᵀ S⁻¹ (z − μ_c) + ‖x − m − Uz‖² / v,        v the mean square of a left-over direction.

Directions and means are statistics of benign queries. Nothing bounds what they tell of one: they belong to the operator, as
the thresholds do that they are kept with.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

DIRECTIONS = 32
LEAST_OF_CLASS = 5
"""Benign queries of a class without which its mean is the mean of all."""


@dataclass(frozen=True, eq=False)
class Density:
    """Of benign queries."""

    mean: Float[np.ndarray, " numbers"]
    directions: Float[np.ndarray, "numbers kept"]
    whitening: Float[np.ndarray, "kept kept"]
    """S to the power −1/2."""
    centres: Float[np.ndarray, "centres kept"]
    """μ_c, whitened."""
    left_over: float
    """v."""

    @classmethod
    def fit(cls, inputs: Float[np.ndarray, "queries numbers"], labels: Int[np.ndarray, " queries"]) -> "Density":
        mean = inputs.mean(0)
        centred = (inputs - mean).astype(np.float64)
        kept = max(1, min(DIRECTIONS, inputs.shape[1], len(inputs) // 4))
        directions = np.linalg.svd(centred, full_matrices=False)[2][:kept].T
        inside = centred @ directions
        centres, within = [np.zeros(inside.shape[1])], inside.copy()
        for label in np.unique(labels[labels >= 0]):
            own = labels == label
            if own.sum() >= LEAST_OF_CLASS:
                centres.append(inside[own].mean(0))
                within[own] -= centres[-1]
        centres = centres[1:] or centres
        values, vectors = np.linalg.eigh(within.T @ within / len(within))
        whitening = vectors / np.sqrt(np.maximum(values, 1e-4 * max(float(values.max()), 1e-12))) @ vectors.T
        outside = (centred**2).sum() - (inside**2).sum()
        spare = max(inputs.shape[1] - inside.shape[1], 1) * len(inputs)
        floor = 1e-4 * max(float((centred**2).mean()), 1e-12)
        return cls(
            mean.astype(np.float32),
            directions.astype(np.float32),
            whitening.astype(np.float32),
            (np.array(centres) @ whitening).astype(np.float32),
            max(float(outside) / spare, floor),
        )

    def distance(self, inputs: Float[np.ndarray, "queries numbers"]) -> Float[np.ndarray, " queries"]:
        """The formula above."""
        centred = inputs - self.mean
        inside = centred @ self.directions
        outside = np.maximum((centred**2).sum(1) - (inside**2).sum(1), 0)
        white = inside @ self.whitening
        squares = (white**2).sum(1)[:, None] + (self.centres**2).sum(1) - 2 * (white @ self.centres.T)
        return (squares.min(1) + outside / self.left_over).astype(np.float64)
