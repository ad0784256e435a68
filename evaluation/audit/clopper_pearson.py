"""A lower bound on ε from many runs: train with and without a canary, count the errors of a test that tells which.

**Exact intervals** (Nasr, Songi, Thakurta, Papernot, Carlini 2021, "Adversary Instantiation: Lower Bounds for Differentially
Private Machine Learning"; Jagielski, Ullman, Oprea 2020). An (ε, δ)-DP mechanism permits no test whose rates of false
positives (FPR) and false negatives (FNR) break

    1 − FNR ≤ e^ε FPR + δ        and, with the data sets exchanged,        1 − FPR ≤ e^ε FNR + δ.

With upper ends of both rates, each at half the permitted error (Clopper and Pearson 1934), ε is at least

    max( log((1 − FNR⁺ − δ)/FPR⁺),  log((1 − FPR⁺ − δ)/FNR⁺) ).

**A ratio of shares** (Katz, Baptista, Azen, Pike 1978; for audits: Lu, Zheng, Wang, Jagielski 2022, "A General Framework for
Auditing Differentially Private Machine Learning"). log(TPR/FPR) is taken for normal, with the variance
1/TP − 1/n₁ + 1/FP − 1/n₀. It spends nothing on bounding each rate by itself and so is tighter, but it is an approximation, and
refused below :data:`LEAST` false positives or false negatives. (In 40,000 simulations of each of 200 pairs of rates
it exceeded the truth in at most 4.5%, where 5% are permitted.) So it serves where an attack errs often, and its ceiling is
that of so many errors. With δ > 0, TPR ≥ ρ FPR gives (TPR − δ)/FPR ≥ ρ − δ/FPR, for which a tenth of
the error pays for a lower end of FPR.

One canary, or the same in all runs; runs independent of each other. ``is_member`` says which runs had it.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri

from evaluation.audit.bound import AuditError, LowerBound, Terms
from evaluation.audit.thresholds import Errors, Rule, bound_over, lower_rate, upper_rate

LEAST = 10
"""False positives, and false negatives, that the ratio interval needs."""

TO_SPARE = 3
"""So many times the least errors a threshold has where a split chooses it, so that the other part has the least too."""

PAID_FOR_DELTA = 0.1
"""The share of the permitted error that the ratio interval pays for a lower end of the rate under δ."""


def clopper_pearson_bound(
    scores: Float[np.ndarray, " runs"], is_member: Bool[np.ndarray, " runs"], rule: Rule, terms: Terms
) -> LowerBound:
    """The exact bound; it holds for any mechanism and any scores."""
    return bound_over(
        scores,
        is_member,
        rule,
        terms,
        method="many runs, Clopper–Pearson",
        strength=lambda errors, significance: exact_epsilon(errors, terms.delta, significance),
        upper_ends_alone=True,
    )


def exact_epsilon(errors: Errors, delta: float, significance: float) -> np.ndarray:
    """ε ≥ this at each threshold, by the exact interval."""
    false_positive = upper_rate(errors.false_positives, errors.non_members, significance / 2)
    false_negative = upper_rate(errors.false_negatives, errors.members, significance / 2)
    ratios = [(1 - false_negative - delta) / false_positive, (1 - false_positive - delta) / false_negative]
    return np.log(np.maximum(np.maximum(*ratios), 1.0))


def katz_bound(
    scores: Float[np.ndarray, " runs"], is_member: Bool[np.ndarray, " runs"], rule: Rule, terms: Terms
) -> LowerBound:
    """The bound by the ratio of shares.

    Raises:
        AuditError: there are too few errors at every threshold for the normal approximation.
    """
    bound = bound_over(
        scores,
        is_member,
        rule,
        terms,
        method="many runs, Katz log ratio",
        strength=lambda errors, significance: ratio_epsilon(errors, terms.delta, significance),
        choice=lambda errors, significance: ratio_epsilon(errors, terms.delta, significance, TO_SPARE * LEAST),
        fewest_errors=LEAST,
        note=f"normal approximation, used with at least {LEAST} false positives and false negatives",
    )
    if np.isneginf(bound.epsilon):
        wrong = bound.guesses - bound.correct
        raise AuditError(
            f"{wrong} errors in {bound.guesses} runs are too few for the ratio interval, which needs {LEAST} false positives "
            f"and {LEAST} false negatives; use clopper_pearson_bound(), which is exact"
        )
    return bound


def ratio_epsilon(errors: Errors, delta: float, significance: float, least: int = LEAST) -> np.ndarray:
    """ε ≥ this at each threshold, by the ratio interval; −∞ with fewer than ``least`` errors of either kind."""
    sides = (
        (errors.members - errors.false_negatives, errors.members, errors.false_positives, errors.non_members),
        (errors.non_members - errors.false_positives, errors.non_members, errors.false_negatives, errors.members),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = [_one_side(*side, delta, significance / 2) for side in sides]
    valid = (errors.false_positives >= least) & (errors.false_negatives >= least)
    return np.where(valid, np.maximum(np.maximum(*bounds), 0.0), -np.inf)


def _one_side(
    hits: np.ndarray, hit_trials: int, errors: np.ndarray, error_trials: int, delta: float, significance: float
) -> np.ndarray:
    """log of the lower end of (hit rate − δ)/error rate."""
    paid = significance * PAID_FOR_DELTA if delta > 0 else 0.0
    spread = np.sqrt(1 / hits - 1 / hit_trials + 1 / errors - 1 / error_trials)
    ratio = (hits / hit_trials) / (errors / error_trials) * np.exp(ndtri(significance - paid) * spread)
    loss = delta / lower_rate(errors, error_trials, paid) if delta > 0 else 0.0
    return np.log(np.maximum(np.nan_to_num(ratio - loss), 1.0))
