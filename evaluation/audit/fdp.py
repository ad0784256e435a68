"""A lower bound on μ from a single run (Mahloujifar, Melis, Chaudhuri 2025, "Auditing f-Differential Privacy in One Run").

Let F(x) be the largest true positive rate that the mechanism permits at false positive rate x: 1 − f(x), concave, rising.
There are m canaries, inserted by fair coins b; k of them are guessed, k fixed beforehand; W guesses are right; p_w = P[W = w].
The recursion is the paper's; the argument that it bounds anything is written out here.

**What f-DP says of W.** Fix a canary i, the coins b and a level j. An output for which "guess i is right and W > j" becomes,
with coin i turned over, one for which "guess i is wrong and W ≥ j". The two data sets are neighbours, so the probability of
the first event is at most F of the second's. Averaged over i and b, which turning a fair coin over maps onto themselves, and by
concavity, with

    right_j = Σ_{w ≥ j} w p_w / m        wrong_j = Σ_{w ≥ j} (k − w) p_w / m
    right_{j+1} ≤ F(wrong_j),  or  wrong_j ≥ G(right_{j+1}) with G the inverse of F,   for every j.   (1)

**The test.** Suppose P[W ≥ c] ≥ τ. Start from r = τ c/m, h = τ (k − c)/m, as if that mass lay at c exactly; then for
j = c − 1, ..., 0 add the least mass at j that (1) asks for:

    h' = max(h, G(r))        r' = r + κ (h' − h),   κ = j/(k − j).

If ever r + h > k/m, all mass there is, the supposition was wrong: P[W ≥ c] < τ under f, and c right guesses refute it.

**Why that is enough.** Let (R, H) be the true (right, wrong) at a level and (r, h) the recursion's. Claim: at every level
R ≥ r and R − κH ≥ r − κh. At c: mass at w ≥ c adds w to R and w − κ(k − w), not negative, to the second, both least at w = c.
Mass at j leaves R − κH as it is, so R' = (R − κH) + κH' ≥ (r − κh) + κ max(h, G(r)) = r' where the recursion adds mass, since
H' ≥ G(R) ≥ G(r); where it adds none, r' = r ≤ R ≤ R'. For the next, smaller κ̃: R' − κ̃H' is a convex combination of R' − κH' and
R', each at least the recursion's. In the end R ≥ r, and H ≥ G(R) ≥ G(r) = h at the last level where mass was added, so that
k/m = R + H ≥ r + h. Whoever refutes f refutes every smaller f, so bisection over μ finds the bound. ∎

**How far from the published figures, and why.** For the Gaussian game with σ = 0.5, 1, 2 (1e5 canaries, δ = 1e-5; the truth is
9.99, 4.37, 1.99) the paper's table has 8.16, 3.61, 1.59. With the number of guesses fixed beforehand this module gives
7.39 ± .50, 3.39 ± .14, 1.49 ± .07 (mean and deviation of a single game, 20 to 30 games): the table lies one and a half
deviations above, in all three. With the number of guesses that gives the most on the very scores that are bounded, the same
games give 7.84 ± .54, 3.65 ± .24, 1.70 ± .14: the table lies within a deviation. So such a choice would explain
the table; it has no 95% confidence, and is not offered here. Slack in the recursion would not. By symmetry the worst mechanism
depends on W alone, and a linear programme finds it (``tests/evaluation/test_audit_worst_case.py``): at the expected counts
for σ = 1, 621 right of 644, it ends at 3.41 (60 tangents) and the recursion at 3.35. Nor do more canaries help much: a
mechanism may put all that it gives away into one draw in twenty, so that the bound from one threshold t tends to
Φ⁻¹(τΦ(μ − t)) − Φ⁻¹(τΦ(−t)), not to μ.

**What ε means here.** With ``curves="gaussian"`` μ is bounded for any mechanism; ε is read off the Gaussian curve of that μ at
δ, and so holds for mechanisms with a Gaussian curve. With ``curves="approximate"`` the same test runs over the curves of
(ε, δ)-DP, and ε holds for any mechanism. That is the bound of Steinke et al. with its δ counted more closely: about the same
where mδ is far below 1, larger where it is not. :func:`refutes` tests a plan's own curve.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr, ndtri

from evaluation.audit.bound import AuditError, LowerBound, Terms, largest_rejected
from evaluation.audit.gdp import mu_to_epsilon
from evaluation.audit.guesses import Guesses, as_tuple, correct_guesses, rule_of
from evaluation.audit.one_run import check_counts

METHOD = "one run, f-DP, Mahloujifar et al. 2025"

LARGEST_MU = 16.0
"""No search for μ goes further: 1 − Φ(8) is below what a double can tell from 0 beside 1."""

Inverse = Callable[[float], float]
"""G: the least false positive rate at which a true positive rate is permitted."""


def gaussian(mu: float) -> Inverse:
    """G of the μ-Gaussian curve: Φ(Φ⁻¹(r) − μ)."""
    return lambda rate: float(ndtr(ndtri(rate) - mu))


def approximate_dp(epsilon: float, delta: float) -> Inverse:
    """G of the curve of (ε, δ)-DP: the larger of e^(−ε)(r − δ), 1 − δ − e^ε(1 − r) and 0."""
    up, down = np.exp(epsilon), np.exp(-epsilon)
    return lambda rate: float(max(0.0, down * (rate - delta), 1 - delta - up * (1 - rate)))


def of_roc(permitted: Callable[[float], float]) -> Inverse:
    """G of a curve that is the same with the roles of the data sets exchanged, given as its ROC F: 1 − F(1 − r)."""
    return lambda rate: 1 - permitted(1 - rate)


def refutes(canaries: int, guesses: int, correct: int, inverse: Inverse, significance: float) -> bool:
    """Whether so many right guesses have less than the permitted probability under the curve.

    Raises:
        AuditError: the counts are not 0 ≤ correct ≤ guesses ≤ canaries.
    """
    check_counts(canaries, guesses, correct)
    right, wrong, all_mass = (
        significance * correct / canaries,
        significance * (guesses - correct) / canaries,
        guesses / canaries,
    )
    for level in range(correct - 1, -1, -1):
        least = inverse(right)
        if least <= wrong:
            return False
        right += level / (guesses - level) * (least - wrong)
        wrong = least
        if right + wrong > all_mass:
            return True
    return False


def mu_lower_bound(canaries: int, guesses: int, correct: int, significance: float) -> float:
    """The largest μ that so many right guesses refute; 0 where they refute none."""

    def rejects(mu: float) -> bool:
        return refutes(canaries, guesses, correct, gaussian(mu), significance)

    return largest_rejected(rejects, LARGEST_MU)


def epsilon_lower_bound(canaries: int, guesses: int, correct: int, delta: float, significance: float) -> float:
    """The largest ε for which so many right guesses refute (ε, δ)-DP, whatever the mechanism."""

    def rejects(epsilon: float) -> bool:
        return refutes(canaries, guesses, correct, approximate_dp(epsilon, delta), significance)

    return largest_rejected(rejects)


def fdp_bound(
    scores: Float[np.ndarray, " canaries"],
    is_member: Bool[np.ndarray, " canaries"],
    guesses: Guesses | Sequence[Guesses],
    terms: Terms,
    seed: int = 0,
    curves: Literal["gaussian", "approximate"] = "gaussian",
) -> LowerBound:
    """The bound of one run over one family of curves; the permitted error is shared by all ``guesses`` tried.

    Raises:
        ScoreError, AuditError: see :func:`~evaluation.audit.guesses.correct_guesses`.
    """
    if curves not in ("gaussian", "approximate"):
        raise AuditError(f"curves is {curves!r}; give 'gaussian' or 'approximate'")
    plans, canaries = as_tuple(guesses), len(scores)
    significance = terms.significance / len(plans)

    def bound(total: int, correct: int) -> float:
        if curves == "approximate":
            return epsilon_lower_bound(canaries, total, correct, terms.delta, significance)
        return mu_lower_bound(canaries, total, correct, significance)

    counts = [(plan.total, correct_guesses(scores, is_member, plan, seed)) for plan in plans]
    found, total, correct = max((bound(*pair), *pair) for pair in counts)
    ceiling = bound(canaries, canaries)
    is_gaussian = curves == "gaussian"
    return LowerBound(
        method=f"{METHOD}, {curves} curves",
        epsilon=mu_to_epsilon(found, terms.delta) if is_gaussian else found,
        ceiling=mu_to_epsilon(ceiling, terms.delta) if is_gaussian else ceiling,
        canaries=canaries,
        guesses=total,
        correct=correct,
        rule=rule_of(plans),
        terms=terms,
        tried=len(plans),
        mu=found if is_gaussian else None,
        holds_for="Gaussian trade-off curves" if is_gaussian else "any mechanism",
        note=f"μ ≥ {found:.3f} for any mechanism" if is_gaussian else "",
    )
