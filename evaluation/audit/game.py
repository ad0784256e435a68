"""What every audit comes to: canaries that were in or out by coins, and a score for each.

An estimator (:mod:`~evaluation.audit.one_run`, :mod:`~evaluation.audit.fdp`, ...) turns a game into a lower bound on ε; it
knows nothing of how the game was played.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from dptrain.plan import PrivacyPlan


@dataclass(frozen=True, eq=False)
class Game:
    """One play: scores of canaries, or of trainings, higher where the canary seems to have been in."""

    scores: Float[np.ndarray, " canaries"]
    included: Bool[np.ndarray, " canaries"]
    """By independent coins; drawn before anything was trained."""
    plan: PrivacyPlan
    """What the mechanism claims, for as many steps as were taken when the scores were."""
    access: str
    """What the observer saw: ``weights`` where he saw every released update."""
    about: str
    """The canaries, in a line."""
    many_runs: bool = False
    """Whether each score is of a training of its own, which had the one canary or not."""


def coins(canaries: int, generator: np.random.Generator) -> Bool[np.ndarray, " canaries"]:
    """Independent fair coins: exactly half would let guesses about one canary depend on another."""
    return generator.random(canaries) < 0.5
