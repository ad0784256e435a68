"""A lower bound on μ from many runs, and μ ↔ (ε, δ) (Nasr, Hayes, Steinke, Balle, Tramèr, Jagielski, Carlini, Terzis 2023,
"Tight Auditing of Differentially Private Machine Learning").

A μ-Gaussian DP mechanism permits no test with FNR < Φ(Φ⁻¹(1 − FPR) − μ) (Dong, Roth, Su 2022, "Gaussian Differential
Privacy"). With upper ends of both rates, each at half the permitted error,

    μ ≥ Φ⁻¹(1 − FPR⁺) − Φ⁻¹(FNR⁺),

for any mechanism. The same μ is (ε, δ)-DP for every pair on (Balle and Wang 2018; Dong et al. 2022)

    δ = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ).

ε is read off that curve, so it is a bound where the mechanism's own curve is Gaussian, such as full batches. A single count at
moderate rates then says as much as the far tail, which is why it needs fewer runs than the bound on ε itself.

    >>> round(mu_to_epsilon(1.0, 1e-5), 4)
    4.3772
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import brentq
from scipy.special import ndtri

from dptrain.accounting import gdp_mu_to_epsilon
from evaluation.audit.bound import AuditError, LowerBound, Terms
from evaluation.audit.thresholds import Errors, Rule, bound_over, upper_rate


def gdp_bound(scores: Float[np.ndarray, " runs"], is_member: Bool[np.ndarray, " runs"], rule: Rule, terms: Terms) -> LowerBound:
    """The bound on μ, and the ε at δ of a Gaussian curve with that μ."""
    return bound_over(
        scores,
        is_member,
        rule,
        terms,
        method="many runs, GDP",
        strength=gdp_mu,
        choice=fewest_errors,
        to_epsilon=lambda mu: mu_to_epsilon(mu, terms.delta),
        holds_for="Gaussian trade-off curves",
        note="μ is bounded for any mechanism",
        upper_ends_alone=True,
    )


def gdp_mu(errors: Errors, significance: float) -> np.ndarray:
    """μ ≥ this at each threshold."""
    false_positive = upper_rate(errors.false_positives, errors.non_members, significance / 2)
    false_negative = upper_rate(errors.false_negatives, errors.members, significance / 2)
    return np.maximum(-ndtri(false_positive) - ndtri(false_negative), 0.0)


def fewest_errors(errors: Errors, significance: float) -> np.ndarray:
    """Ranks thresholds by how seldom both kinds are mistaken: μ is best known in the middle of two Gaussians. The one with the
    largest bound would lie where errors are few, and where it is luck that they were."""
    del significance
    return -(errors.false_positives / errors.non_members + errors.false_negatives / errors.members)


def mu_to_epsilon(mu: float, delta: float) -> float:
    """ε at δ of the μ-Gaussian curve; 0 for μ = 0, and ∞ for δ = 0."""
    if mu <= 0:
        return 0.0
    return np.inf if delta == 0 else gdp_mu_to_epsilon(mu, delta)


def epsilon_to_mu(epsilon: float, delta: float) -> float:
    """The μ whose Gaussian curve passes through (ε, δ).

    Raises:
        AuditError: there is none: ε is negative, or δ not above 0.
    """
    if not (0 <= epsilon < np.inf and 0 < delta < 1):
        raise AuditError(f"no μ is ({epsilon:g}, {delta:g})-DP; give a finite epsilon from 0 up and 0 < delta < 1")
    low = float(2 * ndtri((1 + delta) / 2))  # all its δ at ε = 0
    if epsilon == 0:
        return low
    high = low + 1.0
    while mu_to_epsilon(high, delta) <= epsilon:
        high *= 2
    root: Any = brentq(lambda mu: mu_to_epsilon(mu, delta) - epsilon, low, high, xtol=1e-13)
    return float(root)
