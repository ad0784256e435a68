"""One run: from the scores of canaries to guesses, of which some are right.

Each canary was inserted or left out by a fair coin of its own. The attacker sees the scores, calls the ``highest`` of them
members and the ``lowest`` non-members, and abstains on the rest. Both numbers are fixed before the scores are seen: to try
several and keep the best is to try several, and their confidence is divided among them.

Equal scores are put in an order that is drawn from ``seed``. By position they would give the coins away wherever inserted
canaries are stored first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr
from scipy.stats import binomtest

from evaluation.audit.bound import AuditError
from evaluation.metrics import check_scores

UNFAIR = 1e-9
"""Coins that fall like this by chance less often are not taken for fair ones."""


@dataclass(frozen=True)
class Guesses:
    """How many canaries are called members and how many non-members, fixed beforehand."""

    highest: int
    lowest: int

    def __post_init__(self) -> None:
        if min(self.highest, self.lowest) < 0 or self.total == 0:
            raise AuditError(f"guesses are {self.highest} and {self.lowest}; give two numbers from 0 up, not both 0")

    @property
    def total(self) -> int:
        return self.highest + self.lowest

    @classmethod
    def of(cls, total: int) -> "Guesses":
        """So many guesses, half of them at either end: the best where members and non-members differ by a shift."""
        return cls(total - total // 2, total // 2)


def correct_guesses(
    scores: Float[np.ndarray, " canaries"], is_member: Bool[np.ndarray, " canaries"], guesses: Guesses, seed: int = 0
) -> int:
    """How many of the guesses are right.

    Raises:
        ScoreError: scores are NaN, or not one a canary.
        AuditError: there are fewer canaries than guesses, or their coins were not fair.
    """
    check_scores(scores, is_member)
    canaries = len(scores)
    if guesses.total > canaries:
        raise AuditError(f"{guesses.total} guesses were asked for of {canaries} canaries; give at most {canaries}")
    inserted = int(is_member.sum())
    if binomtest(inserted, canaries).pvalue < UNFAIR:
        raise AuditError(
            f"{inserted} of {canaries} canaries were inserted, which fair coins do not do; insert each with probability 1/2"
        )
    shuffled = np.random.default_rng(seed).permutation(canaries)
    order = shuffled[np.argsort(scores[shuffled], kind="stable")]
    members_called = is_member[order[canaries - guesses.highest :]]
    others_called = is_member[order[: guesses.lowest]]
    return int(members_called.sum()) + int((~others_called).sum())


def as_tuple(guesses: Guesses | Sequence[Guesses]) -> tuple[Guesses, ...]:
    """One or several plans of guesses as several."""
    several = (guesses,) if isinstance(guesses, Guesses) else tuple(guesses)
    if not several:
        raise AuditError("there is no number of guesses to try; give at least one, such as Guesses(50, 50)")
    return several


def rule_of(plans: tuple[Guesses, ...]) -> str:
    """How the number of guesses was fixed, as a bound states it."""
    return "guesses fixed beforehand" if len(plans) == 1 else f"{len(plans)} numbers of guesses, Bonferroni"


def planned_guesses(canaries: int, mu: float, bound: Callable[[int, int], float], points: int = 40) -> Guesses:
    """The number of guesses that serves best if the claim is exactly true: it needs no scores.

    In the Gaussian game a canary's score is N(±μ/2, 1), by its coin. With guesses beyond ±(t − μ/2) a share Φ(μ − t) of the
    canaries is guessed rightly and Φ(−t) wrongly. Of ``points`` thresholds t, the one is taken whose expected counts give the
    largest ``bound(guesses, correct)``.
    """
    if not mu > 0:
        raise AuditError(f"mu is {mu}; give the μ > 0 that the mechanism is claimed to have")
    best = (-1.0, canaries)
    for threshold in np.linspace(mu / 2, mu / 2 + 4.5, points):
        right, wrong = canaries * ndtr(mu - threshold), canaries * ndtr(-threshold)
        total = min(canaries, round(right + wrong))
        if total >= 1:
            best = max(best, (bound(total, min(total, round(right))), total))
    return Guesses.of(best[1])
