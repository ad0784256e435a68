"""The most that anyone can learn of a secret that stands in n units, from the plan alone.

    permitted_exposure(plan, units=1, space=1e6)        # bits, on average
    permitted_recovery(plan, units=1, space=1e6)        # the chance that one guess is right

A secret s is one of N equally likely ones, and stands in n of the plan's units, which are known but for it. Where the unit is
the example, n is how often it was inserted; where it is the user, n is how many users have it, in however many of their
examples (:func:`units_of`): a user's examples are clipped as one, and with or without a made-up user who has all repetitions
of a secret two data sets are neighbours.

Let Q be what is released without these units, P_s with them, and T the largest ROC of any test of Q against P_s: true positive
rate over false positive rate. Candidates are ranked by what is released, one that scores as high as s ahead of it, and let E be
the event that s has rank r or better. Under Q the release knows nothing of s, and at most r candidates have rank r or better:
the mean of Q(E) over s is at most r/N. As T is concave, Jensen's inequality gives, as for a reconstruction, which is the case
r = 1 (:mod:`evaluation.inversion.bound`),

    P[rank ≤ r] ≤ T(r/N)                                                                  and with
    log₂ N − log₂ rank = Σ over r from rank to N − 1 of log₂((r + 1)/r),
    E[exposure] ≤ Σ over r from 1 to N − 1 of T(r/N) log₂((r + 1)/r).

With T(x) = x that is the 1.44 bits of a secret that was never inserted, and with T = 1 it is log₂ N.

**T for n units.** Each of two bounds holds, and the smaller one is taken.

* One by one: for neighbours a test with false positive rate x has a true positive rate of at most t(x), the plan's curve, and
  data sets that differ in n units are n neighbours apart: T = t(t(…t(x))), n times (Dong, Roth, Su 2022, "Gaussian
  Differential Privacy", group privacy). That holds for every plan.
* All together, where batches are Poisson samples and noise is independent, and one unit is added or removed: k of the n are
  in a batch with the binomial probability, and their clipped gradients sum to a length of at most k C, whatever was
  released before. Such a step is dominated by N(0, σ²) against the mixture of N(k, σ²) over k (Ganesh 2024, "Tight Group-Level
  DP Guarantees for DP-SGD with Sampling via Mixture of Gaussians Mechanisms").

T then is a bound on the curve for each pair, and concave: the smallest one of lines is concave, and so is a rising concave
function of a concave one.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binom
from torch import Tensor

from dptrain.errors import UserError
from dptrain.plan import PrivacyPlan

Curve = Callable[[Float[np.ndarray, " rates"]], Float[np.ndarray, " rates"]]
"""False positive rates to the largest true positive rates."""
ONE_BY_ONE = 4096
"""Ranks that are summed one by one; larger ones in groups whose ends are a thousandth part apart."""
INTERVAL = 5e-3
"""Of privacy losses, in nats; they are rounded up to it."""
MOST_TOGETHER = 64
"""Units of one secret for which the mixture is made: its numerical cost rises with them."""


def units_of(plan: PrivacyPlan, examples: Sequence[int], users: Int[Tensor, " users"] | None) -> int:
    """In how many of the plan's units a secret stands.

    Args:
        examples: those that hold it.
        users: whose each example of the data set is. Where the unit is the user and that is not known, each of them could be
            another's.
    """
    if plan.unit != "user" or users is None:
        return len(examples)
    return len(users[list(examples)].unique())


def permitted_exposure(plan: PrivacyPlan, units: int, space: float) -> float:
    """The largest expected exposure of a secret that stands in so many units, in bits."""
    return expected_exposure(group_curve(plan, units), space)


def permitted_recovery(plan: PrivacyPlan, units: int, space: float, guesses: int = 1) -> float:
    """The largest chance that the secret is among so many guesses."""
    return float(group_curve(plan, units)(np.array([min(guesses / space, 1.0)]))[0])


def expected_exposure(curve: Curve, space: float) -> float:
    """The sum above; between the ends of a group of ranks the curve is taken at the upper one, where it is largest.

    Raises:
        UserError: there are not two candidates.
    """
    if not space >= 2:
        raise UserError(f"space is {space:g}; give the number of candidates, at least 2")
    ends = np.arange(1.0, min(space, ONE_BY_ONE) + 1)
    if space > ONE_BY_ONE:
        groups = int(np.ceil(np.log(space / ONE_BY_ONE) / np.log1p(1e-3)))
        ends = np.concatenate([ends, np.geomspace(ONE_BY_ONE, space, groups + 1)[1:]])
    ranks = np.where(ends[1:] <= ONE_BY_ONE, ends[:-1], ends[1:])
    return float(np.sum(curve(ranks / space) * np.log2(ends[1:] / ends[:-1])))


def group_curve(plan: PrivacyPlan, size: int) -> Curve:
    """T for a group of so many units.

    Raises:
        UserError: the plan promises nothing, or the group is empty.
    """
    if not plan.is_private:
        raise UserError("the plan adds no noise and permits everything; give a plan with noise_multiplier above 0")
    if size < 1:
        raise UserError(f"size is {size}; give a whole number from 1 up")

    def curve(rates: Float[np.ndarray, " rates"]) -> Float[np.ndarray, " rates"]:
        apart = functools.reduce(lambda found, _: plan.permitted_true_positive_rates(found), range(size), rates)
        together = _together(plan, size)
        return apart if together is None else np.minimum(apart, together(rates))

    return curve


@functools.lru_cache(maxsize=64)
def _together(plan: PrivacyPlan, size: int) -> Curve | None:
    """The mixture's curve; None where nothing is proved, or where one example says as much."""
    from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
    from dp_accounting.pld import PLDAccountant

    from dptrain.accounting import RELATIONS, curve_of_profile

    proved = plan.sampling == "poisson" and plan.noise == "independent" and plan.relation != "replace_one"
    if not proved or plan.unit in ("node", "edge") or not 1 < size <= MOST_TOGETHER:
        return None
    counts = np.arange(size + 1)
    probabilities = binom.pmf(counts, size, plan.sampling_rate)
    kept = probabilities > 0
    step = MixtureOfGaussiansDpEvent(plan.noise_multiplier, counts[kept].astype(float).tolist(), probabilities[kept].tolist())
    accountant = PLDAccountant(RELATIONS[plan.relation], value_discretization_interval=INTERVAL)
    accountant.compose(step, plan.steps)
    return curve_of_profile(accountant).true_positive_rates
