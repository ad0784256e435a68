"""What is counted over a client's queries, each in constant memory.

* :func:`cusum`: Sₜ = max(0, Sₜ₋₁ + xₜ − k), which stays small as long as x averages below the drift k and grows by the excess
  from the query on at which it does not (Page 1954, "Continuous Inspection Schemes").
* :class:`Surprise`: −log of the share of benign values that are as extreme; of benign queries about exponential of mean 1,
  whatever the values' own distribution.
* :func:`decayed`: a count in which a query of t seconds ago weighs exp(−t/τ).
* :func:`not_normal`: 1 − W, with W of Shapiro and Wilk 1965, "An Analysis of Variance Test for Normality".
* :func:`missing_entropy`: log C − H of the predicted labels, in nats.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import shapiro

GRID = 1024
"""Benign values that are kept of a distribution, at most."""


def cusum(
    start: Float[np.ndarray, " summed"], values: Float[np.ndarray, "queries summed"], drift: Float[np.ndarray, " summed"]
) -> Float[np.ndarray, "queries summed"]:
    """S after each value. Its closed form is Cₜ − min(0, C₁, …, Cₜ) with Cₜ = S₀ + Σ (x − k).

    >>> cusum(np.zeros(1), np.array([[1.0, 0.0, 0.0, 1.0, 1.0]]).T, np.full(1, 0.5))[:, 0].tolist()
    [0.5, 0.0, 0.0, 0.5, 1.0]
    """
    sums = start + np.cumsum(values - drift, axis=0)
    return sums - np.minimum(np.minimum.accumulate(sums, axis=0), 0.0)


@dataclass(frozen=True, eq=False)
class Surprise:
    """How seldom benign values are as high."""

    benign: Float[np.ndarray, " grid"]
    """Sorted."""

    @classmethod
    def of(cls, values: Float[np.ndarray, " values"]) -> "Surprise":
        """Of many values, as many quantiles as are kept."""
        ordered = np.sort(np.asarray(values, dtype=np.float64))
        if len(ordered) > GRID:
            ordered = np.quantile(ordered, (np.arange(GRID) + 0.5) / GRID)
        return cls(ordered)

    def __call__(self, values: Float[np.ndarray, " queries"]) -> Float[np.ndarray, " queries"]:
        """−log((1 + how many benign ones are as high) / (1 + how many there are)); 0 of NaN, which is no value."""
        above = len(self.benign) - np.searchsorted(self.benign, values, side="left")
        return np.where(np.isnan(values), 0.0, -np.log((1 + above) / (1 + len(self.benign))))


def decayed(count: float, last: float, times: Float[np.ndarray, " queries"], seconds: float) -> Float[np.ndarray, " queries"]:
    """The count at each query, itself included. A clock that goes back stands still."""
    path = np.empty(len(times))
    for row, time in enumerate(times.tolist()):
        count = count * math.exp(-max(time - last, 0.0) / seconds) + 1
        last = max(last, time)
        path[row] = count
    return path


def not_normal(values: Float[np.ndarray, " distances"]) -> float:
    """1 − W of the values within three standard deviations of their mean; 1 where all are equal."""
    near = values[np.abs(values - values.mean()) <= 3 * values.std()]
    if len(near) < 3 or np.ptp(near) <= 1e-9 * max(float(np.abs(near).max()), 1e-9):
        return 1.0
    return 1.0 - float(shapiro(near).statistic)


def missing_entropy(labels: Int[np.ndarray, " queries"], classes: int) -> float:
    """Of a uniform distribution over all classes 0, of a single label log C.

    >>> round(missing_entropy(np.array([3, 3, 3]), 2), 4), missing_entropy(np.array([0, 1]), 2)
    (0.6931, 0.0)
    """
    _, counts = np.unique(labels, return_counts=True)
    share = counts / counts.sum()
    return max(0.0, math.log(max(classes, 2)) + float((share * np.log(share)).sum()))
