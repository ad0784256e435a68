"""What is kept of a query: a few numbers in which alike queries are alike, never the query itself.

* of numbers, a Gaussian random projection to ``PLACES`` coordinates, p = R x with entries N(0, 1/PLACES), which keeps Euclidean
  distances in expectation (Johnson, Lindenstrauss 1984, "Extensions of Lipschitz Mappings into a Hilbert Space"). R comes from
  a public seed.
* of tokens, ``PLACES`` minima of hashes of all shingles of ``SHINGLE`` tokens. Two texts agree in one of them with the
  probability that is their shingles' Jaccard index (Broder 1997, "On the Resemblance and Containment of Documents"); their
  distance is the share in which they do not.

Beside it a digest of the whole query, by which a repeated one is known. A projection or a digest is made from the query, and
where the query is about a person it is personal data as well: a projection tells what the query was like, and whoever has a
query in mind can see whether it was asked.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from dptrain.errors import DataError

PLACES = 16
SHINGLE = 3
TAILS = (1, 2, 4, 8, 16)
"""How many of the last tokens are left away, for the beginnings that queries of one length may share."""
LEAST_BEGINNING = 8
"""Tokens that a shared beginning has at least."""

Kind = Literal["numbers", "tokens"]


@dataclass(frozen=True, eq=False)
class Points:
    """What is kept of some queries."""

    places: Shaped[np.ndarray, "queries places"]
    digests: Int[np.ndarray, " queries"]
    beginnings: Int[np.ndarray, "queries tails"]
    """Of tokens, a hash of the length and of all but the last tokens, for each of ``TAILS``; of numbers there are none."""

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, which: slice | np.ndarray) -> "Points":
        return Points(self.places[which], self.digests[which], self.beginnings[which])


def kind_of(inputs: np.ndarray) -> Kind:
    """Whole numbers are tokens."""
    if inputs.ndim < 2 or inputs.dtype.kind not in "iuf":
        raise DataError(
            f"queries are {inputs.dtype} of shape {list(inputs.shape)}; give floats [queries, ...] or tokens [queries, length]"
        )
    return "numbers" if inputs.dtype.kind == "f" else "tokens"


def sketched(inputs: Shaped[np.ndarray, "queries ..."], seed: int) -> Points:
    """Of floats ``[queries, ...]``, or of whole numbers ``[queries, length]``."""
    if kind_of(inputs) == "numbers":
        flat = np.asarray(inputs, dtype=np.float32).reshape(len(inputs), -1) + np.float32(0)  # so that -0 is 0, to the bit
        return Points(flat @ _projection(flat.shape[1], seed), _digests(flat), np.empty((len(flat), 0), dtype=np.int64))
    tokens = np.ascontiguousarray(inputs, dtype=np.int64).reshape(len(inputs), -1)
    digests = _digests(tokens)
    return Points(_minima(tokens, seed), digests, _beginnings(tokens, digests, seed))


def distances(
    left: Shaped[np.ndarray, "queries places"], right: Shaped[np.ndarray, "others places"]
) -> Float[np.ndarray, "queries others"]:
    """Euclidean between projections, and the share of minima that differ between texts."""
    if left.dtype.kind == "f":
        squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * (left @ right.T)
        return np.sqrt(np.maximum(squares, 0))
    return (left[:, None] != right[None]).mean(2, dtype=np.float32)


@lru_cache(maxsize=8)
def _projection(numbers: int, seed: int) -> Float[np.ndarray, "numbers places"]:
    generator = np.random.default_rng([seed, numbers])
    return (generator.standard_normal((numbers, PLACES)) / PLACES**0.5).astype(np.float32)


def _digests(rows: np.ndarray) -> Int[np.ndarray, " queries"]:
    found = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(found), dtype=np.int64)


@lru_cache(maxsize=8)
def _odd(count: int, seed: int) -> Int[np.ndarray, " count"]:
    return np.random.default_rng([seed, count, 1]).integers(0, 2**63, count, dtype=np.uint64) | np.uint64(1)


def _minima(tokens: np.ndarray, seed: int) -> Int[np.ndarray, "queries places"]:
    """By multiplication and shift (Dietzfelbinger, Hagerup, Katajainen, Penttonen 1997)."""
    size = min(SHINGLE, tokens.shape[1])
    windows = np.lib.stride_tricks.sliding_window_view(tokens.astype(np.uint64) + np.uint64(1), size, axis=1)
    shingles = (windows * _odd(size, seed + 1)).sum(2, dtype=np.uint64)
    shingles ^= shingles >> np.uint64(31)
    return ((shingles[:, :, None] * _odd(PLACES, seed)) >> np.uint64(32)).min(1).astype(np.uint32)


def _beginnings(tokens: np.ndarray, digests: np.ndarray, seed: int) -> Int[np.ndarray, "queries tails"]:
    length = tokens.shape[1]
    sums = ((tokens.astype(np.uint64) + np.uint64(1)) * _odd(length, seed + 2)).cumsum(1, dtype=np.uint64).view(np.int64)
    kept = [sums[:, length - tail - 1] + tail if length - tail >= LEAST_BEGINNING else digests for tail in TAILS]
    return np.stack(kept, 1) + length
