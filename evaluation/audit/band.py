"""A bound on every error rate at once: order statistics in the place of a threshold.

Of n independent scores, let F̂(t) be the share above t and F(t) its probability. With U_(1) ≤ ... ≤ U_(n) the probabilities F
at the scores from the highest down, "k scores lie above t" means that the (k + 1)-th highest does not, so that
F(t) ≤ U_(k+1). Whatever the distribution of the scores, U_(i) is at most the i-th order statistic of n uniform numbers (equal
scores make it smaller), which is Beta(i, n + 1 − i). Let c_i be its quantile at 1 − a. Where

    U_(i) ≤ c_i for all i,                                                                                                 (*)

F(t) ≤ c_(k+1) holds at **all** thresholds t together, and c_(k+1) is, letter for letter, Clopper–Pearson's one-sided upper end
of k successes in n trials at the error a. So a threshold may be chosen on the scores that it judges, all of which are used, if
only a is chosen such that (*) fails with the permitted probability. Equal *local levels* a for all i: Aldor-Noiman, Brown,
Buja, Rolke, Stine 2013, "The Power to See: A New Graphical Test of Normality", for both sides together; here it is one.

The probability of (*) is computed, not simulated (Moscovich and Nadler 2017, "Fast calculation of boundary crossing
probabilities for Poisson processes"): a Poisson process of rate n on [0, 1] which has n points is n uniform numbers, and
(*) says that by each c_i it has i of them at least. Its counts are carried from c_i to c_(i+1) by a convolution, those that
are too small are struck out, and what is left with n points is divided by the chance of n points.

    >>> round(holds(2, (0.1, 1.0)), 12)      # the lower one of two uniform numbers is at most 0.1
    0.19
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln
from scipy.stats import beta, poisson


def _jumps(rate: float, most: int) -> np.ndarray:
    """Chances of so many points where ``rate`` are expected; those beyond, together, are far below rounding."""
    points = np.arange(min(most, int(rate + 12 * np.sqrt(rate) + 30)) + 1)
    return np.exp(points * np.log(rate) - rate - gammaln(points + 1))


def holds(count: int, limits: Sequence[float] | np.ndarray) -> float:
    """The probability that the order statistics of ``count`` uniform numbers are at most their ``limits``, ``[count]``, which
    must not fall."""
    chances, place = np.zeros(count + 1), 0.0
    chances[0] = 1.0
    for index, limit in enumerate(limits):
        chances = _carried(chances, count * (float(limit) - place))
        chances[: index + 1] = 0.0
        place = float(limit)
    return float(_carried(chances, count * (1 - place))[count] / poisson.pmf(count, count))


def _carried(chances: np.ndarray, rate: float) -> np.ndarray:
    """The counts after a stretch in which so many points are expected."""
    if rate <= 0:
        return chances
    return np.convolve(chances, _jumps(rate, len(chances) - 1))[: len(chances)]


@functools.lru_cache(maxsize=256)
def local_level(count: int, significance: float) -> float:
    """a, for which (*) fails with the probability ``significance`` (to a millionth of it, on the safe side).

    Above ``significance`` / ``count`` (Bonferroni over the order statistics) and below ``significance``.
    """

    def excess(logarithm: float) -> float:
        places = np.arange(1, count + 1)
        return 1 - holds(count, beta.ppf(1 - np.exp(logarithm), places, count + 1 - places)) - significance

    if count == 1:
        return significance
    root: Any = brentq(excess, np.log(significance / count) - 1e-6, np.log(significance) + 1e-6, xtol=1e-7)
    return float(np.exp(root) * (1 - 1e-6))
