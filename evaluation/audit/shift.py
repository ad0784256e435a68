"""An estimate, and no bound: how far apart are the scores of members and non-members, in standard deviations?

In the Gaussian game the scores of a run are N(0, 1) and N(μ, 1), independent. Then μ is a standardized mean difference, whose
standard error is √(1/n₁ + 1/n₀ + d²/(2(n₁ + n₀))) (Hedges and Olkin 1985), and its lower end is close to the truth: it
keeps scores continuous. But a mechanism may give everything away in one run of twenty, or correlate its canaries, and stay
within its promise: nothing is refuted. It is shown beside a bound, to say how much the bound leaves on the table.
Any distance could have been seen, so it has no ceiling.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri

from evaluation.audit.bound import LowerBound, Terms
from evaluation.audit.gdp import mu_to_epsilon
from evaluation.metrics import check_scores


def shift_estimate(
    scores: Float[np.ndarray, " canaries"], is_member: Bool[np.ndarray, " canaries"], terms: Terms
) -> LowerBound:
    """The lower end of μ if scores were independent and Gaussian, with the ε that it would mean.

    Raises:
        ScoreError: scores are NaN, not one a canary, or only of one kind.
    """
    check_scores(scores, is_member)
    members, others = scores[is_member], scores[~is_member]
    count = len(scores)
    spread = float(np.sqrt(((members - members.mean()) ** 2).sum() + ((others - others.mean()) ** 2).sum()) / np.sqrt(count))
    difference = float(members.mean() - others.mean())
    distance = difference / spread if spread > 0 else 0.0
    error = float(np.sqrt(1 / len(members) + 1 / len(others) + distance**2 / (2 * count)))
    mu = max(0.0, distance + float(ndtri(terms.significance)) * error)
    right = int((members > scores.mean()).sum() + (others <= scores.mean()).sum())
    return LowerBound(
        method="one run, Gaussian shift",
        epsilon=mu_to_epsilon(mu, terms.delta),
        ceiling=None,
        canaries=count,
        guesses=count,
        correct=right,
        rule="no threshold",
        terms=terms,
        mu=mu,
        holds_for="independent Gaussian scores",
        note="canaries of one run need not be independent, so this refutes no claim",
    )
