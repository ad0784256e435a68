"""Eight distances between what a model says of two nodes.

Those of He, Jia, Backes, Gong, Zhang 2021, "Stealing Links from Graph Neural Networks". Linked nodes are answered alike, as a
model of a graph mixes their features. Where a distance is 0/0, two answers are as far apart as unrelated ones: 1 for cosine and
correlation, 0 for a coordinate of canberra and for braycurtis.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Vectors = Float[np.ndarray, "pairs classes"]
Distance = Callable[[Vectors, Vectors], Float[np.ndarray, " pairs"]]


def cosine(first: Vectors, second: Vectors) -> Float[np.ndarray, " pairs"]:
    """1 − cos of the angle."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return 1 - (first * second).sum(1) / np.where(lengths > 0, lengths, 1.0)


def correlation(first: Vectors, second: Vectors) -> Float[np.ndarray, " pairs"]:
    """1 − Pearson's correlation over the classes."""
    return cosine(first - first.mean(1, keepdims=True), second - second.mean(1, keepdims=True))


def euclidean(first: Vectors, second: Vectors) -> Float[np.ndarray, " pairs"]:
    return np.sqrt(sqeuclidean(first, second))


def sqeuclidean(first: Vectors, second: Vectors) -> Float[np.ndarray, " pairs"]:
    return np.square(first - second).sum(1)


def chebyshev(first: Vectors, second: Vectors) -> Float[np.ndarray, " pairs"]:
    return np.abs(first - second).max(1)


def cityblock(first: Vectors, second: Vectors) -> Float[np.ndarray, " pairs"]:
    return np.abs(first - second).sum(1)


def braycurtis(first: Vectors, second: Vectors) -> Float[np.ndarray, " pairs"]:
    total = np.abs(first + second).sum(1)
    return cityblock(first, second) / np.where(total > 0, total, 1.0)


def canberra(first: Vectors, second: Vectors) -> Float[np.ndarray, " pairs"]:
    sizes = np.abs(first) + np.abs(second)
    return (np.abs(first - second) / np.where(sizes > 0, sizes, 1.0)).sum(1)


DISTANCES: dict[str, Distance] = {
    "cosine": cosine,
    "euclidean": euclidean,
    "correlation": correlation,
    "chebyshev": chebyshev,
    "braycurtis": braycurtis,
    "canberra": canberra,
    "cityblock": cityblock,
    "sqeuclidean": sqeuclidean,
}
