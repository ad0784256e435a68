"""The informed adversary beside every model: how much of one unit its plan hides from someone who knows all others. The unit is
an example, or all that is a user's.

    attack = Informed(candidates=10)
    known_others(case, "inversion.informed", attack)

A game of :mod:`~evaluation.inversion.informed` is played on the plan's own numbers (steps, noise, clipping): n candidates whose
gradients are orthogonal and as long as C permits, one of which was trained on, and an observer of every released update. It is
a statement about the mechanism, the same for all models of one plan. It is no ceiling: candidates whose gradients point apart,
such as examples of different classes, are told from each other a little better. What the plan permits, the reconstruction
robustness bound, is the ceiling, and stands beside it.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from dptrain.errors import UserError
from dptrain.plan import PrivacyPlan
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.inversion.informed import ORTHOGONAL, InformedGame, informed_game, orthogonal_guesses
from evaluation.membership import NotApplicable
from evaluation.result import AttackResult, Verdict

NUMBERS = 20_000_000
"""Normal variates of one game, at most."""
MOST_TRIALS = 20_000


@dataclass(frozen=True, kw_only=True)
class Informed:
    """Which of ``candidates`` equally likely examples, or users, was trained on."""

    access: ClassVar[Access] = Access.WEIGHTS
    paper: ClassVar[str] = "Balle et al. 2022; Hayes et al. 2023"

    candidates: int = 10


def of_a_thousand() -> Informed:
    """With a prior that is right once in a thousand times."""
    return Informed(candidates=1000)


def known_others(case: Case, name: str, attack: Informed) -> AttackResult:
    """Plays the game on the plan, and judges it.

    Raises:
        NotApplicable: there is no plan, or not every example is in every batch, or noise is correlated.
    """
    if case.plan is None:
        raise NotApplicable("the plan is not known")
    try:
        found = _game(case.plan, attack.candidates)
    except UserError as error:
        raise NotApplicable(str(error)) from None
    verdict, reason = _verdict(found, private=case.is_private)
    return AttackResult(
        name=name,
        status="ok",
        metric="named",
        value=found.success.value,
        low=found.success.low,
        high=found.success.high,
        chance=found.baseline,
        permitted=found.bound if case.is_private else None,
        access="every released update",
        paper=attack.paper,
        verdict=verdict,
        reason=reason,
    )


@lru_cache(maxsize=64)
def _game(plan: PrivacyPlan, candidates: int) -> InformedGame:
    """The same for all models of one plan."""
    trials = min(MOST_TRIALS, NUMBERS // candidates)
    generator = np.random.default_rng(np.random.SeedSequence([candidates, *b"informed"]))
    truths = generator.integers(candidates, size=trials)
    guesses = orthogonal_guesses(plan, candidates, truths, generator)
    return informed_game(plan, candidates, guesses, truths, ORTHOGONAL)


def _verdict(found: InformedGame, *, private: bool) -> tuple[Verdict, str]:
    assert found.success.low is not None
    if private and found.exceeds:
        return "above the plan", found.text
    if found.success.low > found.baseline:
        return ("within the plan" if private else "leak"), "simulated on the plan's numbers, candidates orthogonal"
    return "found nothing", "the interval contains chance; simulated on the plan's numbers, candidates orthogonal"
