"""Exposure of a canary, in bits (Carlini, Liu, Erlingsson, Kos, Song 2019, "The Secret Sharer").

A canary is drawn from a set R of equally likely candidates and trained on. Ranked among all of R by the model's score, at rank
1 the highest, it has the exposure

    log₂ |R| − log₂ rank.

Rank 1 of 2^k gives k, all that there is to tell; a canary that was never inserted has a uniform rank and averages close to
log₂ e = 1.44 bits, not 0.

    >>> float(exposure(9.0, [1.0, 2.0, 3.0]))
    2.0
    >>> exact(1, 1024.0), round(without_insertion(10.0**6), 4)
    (10.0, 1.4427)

Of a large R the rank is estimated from the scores of m candidates that are drawn from it:

* **by sampling** (:func:`sampled`): the share of them that score as high as the canary is the share of R that does. It cannot
  say more than log₂ (m + 1), 13.3 bits for 10⁴, and its interval says that there may be more: Clopper and Pearson's for the
  share, of which the lower end is never below 1/|R|.
* **by extrapolation** (:func:`extrapolated`): a skew-normal distribution is fitted to their log-perplexities, and its tail
  below the canary's is the share. The fit is by the first three moments (Azzalini 1985, "A Class of Distributions Which
  Includes the Normal Ones"), which is a closed form, so that the bootstrap can fit hundreds of times. Its interval is of the
  sampling alone: it does not say how far the tail of R is from a skew-normal one.

**The mean over canaries.** Without insertion the rank is uniform and P[exposure ≥ x] ≤ 2^(−x): in nats an exposure is at most
exponential of mean 1, and the sum over k canaries, which are drawn independently, at most Gamma(k, 1). That gives
:func:`by_chance`, how likely such a sum is without a leak, whatever the model, and the exact interval of
:func:`mean_without_insertion`. Of canaries that were inserted nothing of the kind is known: :func:`mean_exposure` takes
Student's interval over them, and where all are at the maximum, of which Student would say that nothing is uncertain, Clopper
and Pearson's lower end of the share that is.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln, log_ndtr, logsumexp
from scipy.stats import gamma

from evaluation.metrics import ScoreError, mean, proportion
from evaluation.result import Measure

UNINSERTED = float(np.log2(np.e))
"""What a canary that was never inserted averages, in bits, where candidates are many."""
RESAMPLES = 200
STEEPEST = 0.99
"""The largest skewness that is fitted; that of no skew-normal distribution reaches 0.9953."""
TAIL = np.concatenate([[0.0], np.geomspace(1e-7, 60.0, 500)])
"""Where the tail is integrated, in standard deviations below its end."""


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


def exact(rank: int, space: float) -> float:
    """Of a canary of this rank among ``space`` candidates.

    Raises:
        ScoreError: there is no such rank.
    """
    if not 1 <= rank <= space:
        raise ScoreError(f"the rank is {rank} of {space:g} candidates; give one from 1 to {space:g}")
    return float(np.log2(space) - np.log2(rank))


def without_insertion(space: float) -> float:
    """The mean over a uniform rank: log₂ N − log₂(N!) / N."""
    return float(np.log2(space) - gammaln(space + 1) / (space * np.log(2)))


def sampled(canary: float, candidates: Float[np.ndarray, " drawn"], space: float, confidence: float = 0.95) -> Measure:
    """The exposure among all of R, from the scores of candidates that were drawn from it.

    Raises:
        ScoreError: as in :func:`exposure`.
    """
    value = exposure(canary, candidates)
    share = proportion(int((candidates >= canary).sum()), len(candidates), confidence=confidence)
    assert share.low is not None
    assert share.high is not None
    return Measure(
        name="exposure_sampled",
        value=value,
        low=float(-np.log2(share.high)),
        high=float(-np.log2(max(share.low, 1 / space))),
        confidence=confidence,
        note=f"at most {np.log2(len(candidates) + 1):.1f} bits can be seen in {len(candidates)} candidates",
    )


def extrapolated(
    canary: float,
    candidates: Float[np.ndarray, " drawn"],
    space: float,
    generator: np.random.Generator,
    confidence: float = 0.95,
) -> Measure:
    """The same by a skew-normal distribution, at most log₂ |R|; interval by the bootstrap's percentiles.

    Raises:
        ScoreError: as in :func:`exposure`, or all scores are equal, so that there is no distribution.
    """
    exposure(canary, candidates)
    if not np.isfinite(candidates).all() or np.ptp(candidates) == 0:
        raise ScoreError("the candidates' scores are all equal, or not finite, and have no distribution to extrapolate")
    perplexities, most = -np.asarray(candidates, dtype=float), float(np.log2(space))
    draws = generator.integers(len(perplexities), size=(RESAMPLES, len(perplexities)), dtype=np.int32)
    moments = np.array([_moments(perplexities), *(_moments(perplexities[drawn]) for drawn in draws)])
    bits = np.clip(-log_share_below(-canary, moments) / np.log(2), 0.0, most)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = (float(end) for end in np.quantile(bits[1:], tails))
    value = float(bits[0])
    return Measure(name="exposure_extrapolated", value=value, low=min(low, value), high=max(high, value), confidence=confidence)


def _moments(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, standard deviation and skewness."""
    middle, deviation = values.mean(), values.std()
    return float(middle), float(deviation), float(((values - middle) ** 3).mean() / max(deviation, 1e-300) ** 3)


def log_share_below(value: float, moments: Float[np.ndarray, "fits three"]) -> Float[np.ndarray, " fits"]:
    """log P[X ≤ value] of the skew-normal distributions with these means, standard deviations and skewnesses.

    With |γ| the skewness and c = |γ|^(2/3), δ² = (π/2) c / (c + ((4 − π)/2)^(2/3)), the shape is δ/√(1 − δ²), the scale the
    deviation over √(1 − 2δ²/π), and the location the mean less scale · δ √(2/π). The density 2 φ(z) Φ(shape · z) is summed in
    logarithms: the difference of two shares, as the distribution is usually computed, is lost far down the tail.
    """
    middle, deviation, skewness = np.asarray(moments, dtype=float).T
    skewness = np.clip(skewness, -STEEPEST, STEEPEST)
    power = np.abs(skewness) ** (2 / 3)
    delta = np.sign(skewness) * np.sqrt(np.pi / 2 * power / (power + ((4 - np.pi) / 2) ** (2 / 3)))
    shape, scale = delta / np.sqrt(1 - delta**2), deviation / np.sqrt(1 - 2 * delta**2 / np.pi)
    end = (value - middle) / scale + delta * np.sqrt(2 / np.pi)
    below = end[:, None] - TAIL
    density = np.log(2 / np.sqrt(2 * np.pi)) - below**2 / 2 + log_ndtr(shape[:, None] * below)
    widths = np.diff(TAIL)
    halves = np.concatenate([[0.0], widths]) / 2 + np.concatenate([widths, [0.0]]) / 2
    return np.minimum(logsumexp(density, axis=1, b=halves), 0.0)


def by_chance(bits: Float[np.ndarray, " canaries"]) -> float:
    """How likely canaries that were never inserted have a sum of exposures as large as this one, at most."""
    return float(gamma.sf(float(np.sum(bits)) * np.log(2), len(bits)))


def mean_without_insertion(bits: Float[np.ndarray, " canaries"], name: str, confidence: float = 0.95) -> Measure:
    """The mean over canaries that were never inserted; its interval holds :data:`UNINSERTED` as often as it says."""
    total, count = float(np.sum(bits)), len(bits)
    low, high = (total / gamma.ppf(end, count) for end in ((1 + confidence) / 2, (1 - confidence) / 2))
    return Measure(name=name, value=total / count, low=float(low), high=float(high), confidence=confidence)


def mean_exposure(bits: Float[np.ndarray, " canaries"], name: str, space: float) -> Measure:
    """The mean over canaries with Student's interval, between 0 and log₂ |R|."""
    most = float(np.log2(space))
    found = mean(bits, name)
    if found.low is None or found.high is None:
        return found
    low, high = max(found.low, 0.0), min(found.high, most)
    if bool((bits >= most - 1e-9).all()):
        low = most * (proportion(len(bits), len(bits)).low or 0.0)
    return Measure(name=name, value=found.value, low=low, high=high, confidence=found.confidence)
