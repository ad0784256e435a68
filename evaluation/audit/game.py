"""What every audit comes to: canaries that were in or out by coins, and a score for each.

An estimator (:mod:`~evaluation.audit.one_run`, :mod:`~evaluation.audit.fdp`, ...) turns a game into a lower bound on ε; it
knows nothing of how the game was played.

**Checkpoints.** The claim of a checkpoint after t updates is that of the plan with t steps. That is what those updates cost
under every plan, correlated noise as well: its bands have norm 1 for whatever number of steps they were chosen, and t updates
hold at most ⌈t/b⌉ turns of an example.

**Early stopping** ends a training where the recipe would. From there on its checkpoints are the model that it ended with, a
function of fewer updates, so that each still keeps what is claimed of it beforehand. That is what it is held against, and not
the smaller ε that was spent by then: when a training ends is chosen by looking at it. The number of games stays as it was fixed
before.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from dptrain.errors import UserError
from dptrain.plan import PrivacyPlan
from dptrain.private import PrivateTraining
from dptrain.recipe import Recipe
from dptrain.regularization import check_regularization
from dptrain.stopping import EarlyStopping


@dataclass(frozen=True, eq=False)
class Game:
    """One play: scores of canaries, or of trainings, higher where the canary seems to have been in."""

    scores: Float[np.ndarray, " canaries"]
    included: Bool[np.ndarray, " canaries"]
    """By independent coins; drawn before anything was trained."""
    plan: PrivacyPlan
    """What the mechanism claims, for as many steps as the checkpoint had at which the scores were."""
    access: str
    """What the observer saw: ``weights`` where he saw every released update."""
    about: str
    """The canaries, in a line."""
    many_runs: bool = False
    """Whether each score is of a training of its own, which had the one canary or not."""


def coins(canaries: int, generator: np.random.Generator) -> Bool[np.ndarray, " canaries"]:
    """Independent fair coins: exactly half would let guesses about one canary depend on another."""
    return generator.random(canaries) < 0.5


def claim_of(recipe: Recipe, public: np.ndarray | None) -> PrivacyPlan:
    """The plan of the whole training, whose promise a game can be held against.

    Raises:
        UserError: it promises nothing, or nothing about canaries that are in or out.
        ConfigError: the recipe's regularization does not go with it, or needs public examples and has none.
    """
    plan = PrivacyPlan.from_config(recipe.privacy, recipe.training.steps)
    if not plan.is_private:
        raise UserError("this recipe promises nothing (no noise, or no clipping), so there is no ε to audit; give a budget")
    if plan.relation == "replace_one":
        sampling = " --privacy.sampling poisson, and leave max_examples out" if plan.sampling == "fixed_size" else ""
        raise UserError(
            "privacy.relation is 'replace_one', and a canary is in a training or is not in it, which is another relation: no "
            f"ε of 'replace_one' would be held against what an audit shows; give --privacy.relation add_or_remove_one{sampling}"
        )
    if plan.unit == "user":
        raise UserError(
            "privacy.unit is 'user', and a canary is one example: no ε of a user would be held against what an audit shows; "
            "give --privacy.unit example"
        )
    check_regularization(recipe.regularization, clipped=True, public=0 if public is None else len(public))
    return plan


def played(training: PrivateTraining, stopping: EarlyStopping, stops: tuple[int, ...]) -> Iterator[int]:
    """Takes the training to each of its checkpoints in turn, as far as its early stopping lets it."""
    for stop in stops:
        for batch in training.batches(stop) if not stopping.stopped else ():
            training.step(batch)
            if stopping.reached():
                break
        yield stop


def ended(training: PrivateTraining, stopping: EarlyStopping) -> str:
    """For the line about the canaries: where early stopping ended the training, if it did."""
    return f"; early stopping ended it after {training.steps_taken} updates" if stopping.stopped else ""
