"""Exposure of a canary, in bits (Carlini, Liu, Erlingsson, Kos, Song 2019, "The Secret Sharer").

A canary is drawn from a set R of equally likely candidates and trained on. Ranked among all of R by the model's score, at rank
1 the highest, it has the exposure

    log₂ |R| − log₂ rank.

Rank 1 of 2^k gives k, all that there is to tell; a canary that was never inserted has a uniform rank and averages close to
log₂ e = 1.44 bits, not 0.

    >>> float(exposure(9.0, [1.0, 2.0, 3.0]))
    2.0
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from evaluation.metrics import ScoreError

UNINSERTED = float(np.log2(np.e))
"""What a canary that was never inserted averages, in bits, where candidates are many."""


def exposure(canary: float, others: Sequence[float] | Float[np.ndarray, " candidates"]) -> float:
    """Bits by which the model narrows down the canary, given the scores of all other candidates.

    A candidate of equal score counts as ahead of it, so that a constant score exposes nothing.

    Raises:
        ScoreError: a score is NaN, or there is no other candidate.
    """
    scores = np.asarray(others, dtype=float)
    if scores.ndim != 1 or len(scores) == 0:
        raise ScoreError(f"scores of the other candidates have the shape {scores.shape}; give at least one, in a row")
    if np.isnan(scores).any() or np.isnan(canary):
        raise ScoreError("a score is NaN; score every candidate, and the canary, by the same model")
    rank = 1 + int((scores >= canary).sum())
    return float(np.log2(len(scores) + 1) - np.log2(rank))
