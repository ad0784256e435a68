"""A lower bound on ε: what was measured, under which terms, and for whom it holds.

    terms = Terms(delta=1e-5, access="white-box", relation="add_or_remove_one")
    bound = one_run_bound(scores, is_member, Guesses(50, 50), terms)
    print(bound)            # ε ≥ 1.370 at δ = 1e-05 ... a perfect attack on as many canaries gives 5.782

An audit rejects: with the stated confidence, no mechanism of a smaller ε would have let the attack do so well. A bound of 0
means that the attack found nothing, not that there is nothing; the ceiling says how much it could have found.

Whoever looks at several checkpoints, or at several audits of one, and speaks of the largest bound has had several chances to
be wrong. ``comparisons`` divides the permitted error between them (Bonferroni), before any of them is computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from dptrain.errors import UserError
from dptrain.rounding import down

Access = Literal["black-box", "white-box"]
HoldsFor = Literal["any mechanism", "Gaussian trade-off curves", "independent Gaussian scores"]

LARGEST = 64.0
"""No search for ε goes further: e⁶⁴ trials would be needed to tell it from infinity."""


class AuditError(UserError):
    """An audit that would not bound anything."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What is fixed before the scores are seen, and stated with the bound."""

    access: Access
    relation: str
    """The neighbouring relation of the plan: a canary in and out must be neighbours under it."""
    delta: float = 1e-5
    confidence: float = 0.95
    """That all ``comparisons`` bounds hold together."""
    comparisons: int = 1
    """Checkpoints, or audits of one checkpoint, of which the largest bound may be quoted."""

    def __post_init__(self) -> None:
        if self.access not in get_args(Access):
            raise AuditError(f"access is {self.access!r}; give one of {', '.join(get_args(Access))}")
        if not 0 <= self.delta < 1:
            raise AuditError(f"delta is {self.delta}; give a probability from 0 up and below 1, such as 1e-5")
        if not 0.5 < self.confidence < 1:
            raise AuditError(f"confidence is {self.confidence}; give a probability above 0.5 and below 1, such as 0.95")
        if self.comparisons < 1:
            raise AuditError(f"comparisons is {self.comparisons}; give the number of bounds that are looked at, at least 1")

    @property
    def significance(self) -> float:
        """The probability of error that a single bound may have."""
        return (1 - self.confidence) / self.comparisons


@dataclass(frozen=True, kw_only=True)
class LowerBound:
    """What an audit found."""

    method: str
    epsilon: float
    ceiling: float | None
    """ε that a perfect attack on as many canaries would have shown, all else the same; None for an estimate."""
    canaries: int
    """Canaries of one run, or training runs of one canary."""
    guesses: int
    correct: int
    rule: str
    """How thresholds or the number of guesses were fixed."""
    terms: Terms
    tried: int = 1
    """Thresholds, or numbers of guesses, that shared the permitted error."""
    mu: float | None = None
    """The lower bound on μ, for whatever mechanism, from which ε was read."""
    holds_for: HoldsFor = "any mechanism"
    """Mechanisms for which ``epsilon`` is a bound with the stated confidence."""
    note: str = ""

    @property
    def is_bound(self) -> bool:
        """False for an estimate: it assumes something of the scores that no mechanism promises."""
        return self.holds_for != "independent Gaussian scores"

    def contradicts(self, epsilon: float) -> bool:
        """Whether a claim of (ε, δ)-DP is refuted, whatever the mechanism.

        A bound that reads ε off a Gaussian curve never refutes it: a pure 1-DP mechanism may well show μ = 1.23, which on a
        Gaussian curve would be ε = 5.58 at δ = 1e-5. Hold it against the plan's own curve with
        :func:`evaluation.audit.fdp.refutes`.
        """
        return self.holds_for == "any mechanism" and self.epsilon > epsilon

    def __str__(self) -> str:
        terms = self.terms
        shared = f" over {terms.comparisons} audits" if terms.comparisons > 1 else ""
        found = (
            f"ε ≥ {down(self.epsilon)} at δ = {terms.delta:g} with {terms.confidence:.1%} confidence{shared}"
            if self.is_bound
            else f"ε ≈ {self.epsilon:.3f} at δ = {terms.delta:g}, an estimate and not a bound"
        )
        parts = [
            f"{found} ({self.method}; {terms.access}; {terms.relation}; {self.rule})",
            f"{self.correct} of {self.guesses} guesses were right",
            "no ceiling" if self.ceiling is None else f"a perfect attack on as many canaries gives {self.ceiling:.3f}",
        ]
        if self.holds_for != "any mechanism":
            parts.append(f"it holds for {self.holds_for}")
        return "; ".join([*parts, self.note] if self.note else parts)


def strongest(bounds: Sequence[LowerBound]) -> LowerBound:
    """The largest of several bounds that shared their permitted error.

    Raises:
        AuditError: there are more of them than they were corrected for, or one is only an estimate.
    """
    if not bounds:
        raise AuditError("there is no bound to choose from; give at least one")
    corrected = min(bound.terms.comparisons for bound in bounds)
    if corrected < len(bounds):
        raise AuditError(
            f"{len(bounds)} bounds were corrected for {corrected} comparisons, so that the largest holds with less than its "
            f"confidence; compute them with Terms(comparisons={len(bounds)})"
        )
    if not all(bound.is_bound for bound in bounds):
        raise AuditError("an estimate is among the bounds and may not stand in for one; leave it out")
    return max(bounds, key=lambda bound: bound.epsilon)


def largest_rejected(rejects: Callable[[float], bool], highest: float = LARGEST) -> float:
    """The end of the values from 0 up that a test rejects, to 2⁻⁴⁴ of ``highest``; exactly 0 where it does not reject 0.

    The test must be monotone: whoever rejects a value rejects every smaller one. The value returned was itself rejected.
    """
    if not rejects(0.0):
        return 0.0
    low, high = 0.0, highest
    for _ in range(44):
        middle = (low + high) / 2
        if rejects(middle):
            low = middle
        else:
            high = middle
    return low
