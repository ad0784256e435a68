"""A lower bound on ε from a single training run (Steinke, Nasr, Jagielski 2023, "Privacy Auditing with One (1) Training Run").

Let an (ε, δ)-DP mechanism be run once on m canaries that independent fair coins inserted, and let r of them be guessed. The
number W of right guesses is then bounded in distribution (their Theorem 5.2): with q = e^ε/(1 + e^ε) and B ~ Binomial(r, q),

    P[W ≥ v] ≤ P[B ≥ v] + 2 m δ · max over 1 ≤ i ≤ v of  P[v − i ≤ B < v] / i.

The bound is the largest ε for which the right-hand side stays below the permitted error. It holds for any mechanism, any
scores and any dependence between canaries.

    >>> round(epsilon_lower_bound(500, 100, 100, delta=1e-5, significance=0.05), 6)
    3.479195
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import betainc, expit, gammaln, xlog1py, xlogy

from evaluation.audit.bound import AuditError, LowerBound, Terms, largest_rejected
from evaluation.audit.guesses import Guesses, as_tuple, correct_guesses, rule_of

METHOD = "one run, Steinke et al. 2023"

FAR = 40
"""Standard deviations below the mode beyond which the maximum is not looked for: no mass is left there that could raise the
mean P[v − i ≤ B < v]/i, so that it only falls."""


def one_run_bound(
    scores: Float[np.ndarray, " canaries"],
    is_member: Bool[np.ndarray, " canaries"],
    guesses: Guesses | Sequence[Guesses],
    terms: Terms,
    seed: int = 0,
) -> LowerBound:
    """The bound of one run from the scores of its canaries; the permitted error is shared by all ``guesses`` tried.

    Raises:
        ScoreError, AuditError: see :func:`~evaluation.audit.guesses.correct_guesses`.
    """
    plans, canaries = as_tuple(guesses), len(scores)
    significance = terms.significance / len(plans)

    def bound(total: int, correct: int) -> float:
        return epsilon_lower_bound(canaries, total, correct, terms.delta, significance)

    counts = [(plan.total, correct_guesses(scores, is_member, plan, seed)) for plan in plans]
    epsilon, total, correct = max((bound(*pair), *pair) for pair in counts)
    return LowerBound(
        method=METHOD,
        epsilon=epsilon,
        ceiling=bound(canaries, canaries),
        canaries=canaries,
        guesses=total,
        correct=correct,
        rule=rule_of(plans),
        terms=terms,
        tried=len(plans),
    )


def epsilon_lower_bound(canaries: int, guesses: int, correct: int, delta: float, significance: float) -> float:
    """The largest ε at which so many right guesses have less than the permitted probability; 0 where there is none."""
    return largest_rejected(lambda epsilon: p_value(canaries, guesses, correct, epsilon, delta) < significance)


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """An upper bound on the probability of at least ``correct`` right guesses under (ε, δ)-DP.

    Raises:
        AuditError: the counts are not 0 ≤ correct ≤ guesses ≤ canaries.
    """
    check_counts(canaries, guesses, correct)
    if correct == 0:
        return 1.0
    chance = float(expit(epsilon))
    tail = float(betainc(correct, guesses - correct + 1, chance))
    if delta == 0:
        return tail
    spread = float(np.sqrt(guesses * chance * (1 - chance)))
    lowest = max(0, int(min(guesses * chance, correct) - FAR * (spread + 1)))
    below = _binomial(np.arange(correct - 1, lowest - 1, -1), guesses, chance)
    mean = np.cumsum(below) / np.arange(1, len(below) + 1)
    return min(1.0, tail + 2 * canaries * delta * float(mean.max()))


def _binomial(successes: np.ndarray, trials: int, chance: float) -> np.ndarray:
    """The probability of each number of successes; many times faster than ``scipy.stats`` for few of them."""
    failures = trials - successes
    ways = gammaln(trials + 1) - gammaln(successes + 1) - gammaln(failures + 1)
    return np.exp(ways + xlogy(successes, chance) + xlog1py(failures, -chance))


def check_counts(canaries: int, guesses: int, correct: int) -> None:
    """Raises AuditError unless 0 ≤ correct ≤ guesses ≤ canaries, with at least one guess."""
    if not 0 <= correct <= guesses <= canaries or guesses == 0:
        raise AuditError(
            f"{correct} right of {guesses} guesses on {canaries} canaries cannot be; "
            "give 0 ≤ correct ≤ guesses ≤ canaries, and at least one guess"
        )
