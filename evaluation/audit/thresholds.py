"""Many runs: from the scores of models that held a canary or did not to errors at a threshold that was fixed beforehand.

A threshold that is chosen on the scores that it judges makes the bound too large: in ideal simulations 3 to 7% of such bounds
exceed the truth, and none of those with a threshold from elsewhere. So there are four rules:

    Explicit(0.3)                   from held-out models, or from theory
    Split(fraction=0.5, seed=0)     chosen on one part of the models, used on the other
    Bonferroni((0.1, 0.2, 0.3))     several, that share the permitted error
    Everywhere()                    all of them, of which the best may be taken: the rates are bounded at all of them together
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import beta

from evaluation.audit.band import local_level
from evaluation.audit.bound import AuditError, HoldsFor, LowerBound, Terms
from evaluation.metrics import check_scores


@dataclass(frozen=True)
class Explicit:
    """A threshold from held-out models or from theory."""

    threshold: float

    def __str__(self) -> str:
        return "threshold fixed beforehand"


@dataclass(frozen=True)
class Split:
    """The threshold that gives the largest bound on ``fraction`` of the models; only the others are counted."""

    fraction: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise AuditError(f"fraction is {self.fraction}; give a share above 0 and below 1, such as 0.5")

    def __str__(self) -> str:
        return f"threshold chosen on {self.fraction:.0%} of the runs, used on the others"


@dataclass(frozen=True)
class Bonferroni:
    """Several thresholds that were named beforehand; the error that is permitted is divided among them."""

    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.thresholds:
            raise AuditError("there is no threshold to try; give at least one, such as Bonferroni((0.0,))")

    def __str__(self) -> str:
        return f"{len(self.thresholds)} thresholds, Bonferroni"


@dataclass(frozen=True)
class Everywhere:
    """Every threshold; both rates are bounded at all of them together (:mod:`~evaluation.audit.band`), and no run is held out.

    For estimators that hold the upper ends of both rates against a mechanism, and nothing else of the counts.
    """

    def __str__(self) -> str:
        return "every threshold, rates bounded at all of them together"


Rule = Explicit | Split | Bonferroni | Everywhere


@dataclass(frozen=True, eq=False)
class Errors:
    """What a test gets wrong, at one threshold or at several: arrays of one shape, or single numbers."""

    false_positives: np.ndarray
    """Models without the canary that score above the threshold."""
    non_members: int
    false_negatives: np.ndarray
    """Models with the canary that do not."""
    members: int

    @classmethod
    def at(cls, scores: np.ndarray, is_member: np.ndarray, thresholds: np.ndarray) -> "Errors":
        """Counts at each threshold; a score above it means member."""
        members, others = np.sort(scores[is_member]), np.sort(scores[~is_member])
        above = len(others) - np.searchsorted(others, thresholds, side="right")
        return cls(above, len(others), np.searchsorted(members, thresholds, side="right"), len(members))

    @classmethod
    def fewest(cls, members: int, non_members: int, count: int = 0) -> "Errors":
        """Those of a perfect attack, or so many of either kind."""
        return cls(np.array([count]), non_members, np.array([count]), members)


Strength = Callable[[Errors, float], np.ndarray]
"""A lower bound at each threshold, from the errors and the permitted probability of error of one of them."""


def upper_rate(count: np.ndarray, trials: int, significance: float) -> np.ndarray:
    """The one-sided upper end of a share (Clopper and Pearson 1934)."""
    inside = np.minimum(count, trials - 1)
    return np.where(count < trials, beta.ppf(1 - significance, inside + 1, trials - inside), 1.0)


def lower_rate(count: np.ndarray, trials: int, significance: float) -> np.ndarray:
    """The one-sided lower end of a share (Clopper and Pearson 1934)."""
    inside = np.maximum(count, 1)
    return np.where(count > 0, beta.ppf(significance, inside, trials - inside + 1), 0.0)


def bound_over(
    scores: Float[np.ndarray, " runs"],
    is_member: Bool[np.ndarray, " runs"],
    rule: Rule,
    terms: Terms,
    *,
    method: str,
    strength: Strength,
    choice: Strength | None = None,
    to_epsilon: Callable[[float], float] = float,
    holds_for: HoldsFor = "any mechanism",
    fewest_errors: int = 0,
    note: str = "",
    upper_ends_alone: bool = False,
) -> LowerBound:
    """The lower bound of one estimator under one rule; ``to_epsilon`` reads ε off what ``strength`` bounds.

    ``choice`` ranks thresholds in its place where a split chooses one;
    ``fewest_errors`` is how few of either kind the estimator can take: those of its ceiling. ``upper_ends_alone``: that
    ``strength`` is a function of :func:`upper_rate` of both rates, at half of the permitted error each.

    Raises:
        ScoreError: scores are NaN, not one a run, or only of one kind.
        AuditError: the rule is :class:`Everywhere`, which the estimator does not permit.
    """
    check_scores(scores, is_member)
    each = terms.significance
    used, thresholds = np.ones(len(scores), dtype=bool), np.array([0.0])
    match rule:
        case Explicit():
            thresholds = np.array([rule.threshold])
        case Bonferroni():
            thresholds = np.array(rule.thresholds)
        case Split():
            chosen_on = _part(is_member, rule)
            used = ~chosen_on
            candidates = np.unique(scores[chosen_on])
            on_part = (choice or strength)(Errors.at(scores[chosen_on], is_member[chosen_on], candidates), terms.significance)
            best = candidates[np.flatnonzero(on_part == on_part.max())]
            thresholds = best[[len(best) // 2]]
        case Everywhere():
            if not upper_ends_alone:
                raise AuditError(f"{method} holds at one threshold at a time; give Explicit, Split or Bonferroni")
            thresholds = np.unique(scores)
            counts = {int(is_member.sum()), int((~is_member).sum())}
            each = 2 * min(local_level(count, terms.significance / 2) for count in counts)
    if isinstance(rule, Bonferroni):
        each /= len(thresholds)
    errors = Errors.at(scores[used], is_member[used], thresholds)
    values = strength(errors, each)
    at = int(np.argmax(values))
    wrong = int(errors.false_positives[at] + errors.false_negatives[at])
    total = errors.members + errors.non_members
    ceiling = strength(Errors.fewest(errors.members, errors.non_members, fewest_errors), each)
    value = float(values[at])
    return LowerBound(
        method=method,
        epsilon=to_epsilon(value),
        ceiling=to_epsilon(float(ceiling[0])),
        canaries=len(scores),
        guesses=total,
        correct=total - wrong,
        rule=str(rule),
        terms=terms,
        tried=len(thresholds) if isinstance(rule, Bonferroni) else 1,
        mu=value if holds_for == "Gaussian trade-off curves" else None,
        holds_for=holds_for,
        note=note,
    )


def _part(is_member: np.ndarray, rule: Split) -> np.ndarray:
    """The runs on which the threshold is chosen: the same share of either kind, at least one and not all."""
    chosen = np.zeros(len(is_member), dtype=bool)
    generator = np.random.default_rng(rule.seed)
    for kind in (is_member, ~is_member):
        places = np.flatnonzero(kind)
        count = round(rule.fraction * len(places))
        if not 0 < count < len(places):
            raise AuditError(
                f"{len(places)} runs of one kind cannot be split by {rule.fraction:g}; give more runs, or Explicit"
            )
        chosen[generator.permutation(places)[:count]] = True
    return chosen
