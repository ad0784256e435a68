"""How often a hidden column was guessed, for members and held-out people, beside those who have no model.

    figures = attribute_figures(knowledge, layout.codes(inputs, hidden), ...)

An attack gives distributions; this turns them into shares with intervals. Beside the attack stand

* **prior**: always the population's most frequent value,
* **imputation**: the hidden column from the same known columns, learned on the same population, without the model,
* **imputation with outcome**: the same with the true outcome, which the attack sees too. What the attack has beyond imputation
  and this one has as well says only that the outcome goes with the hidden column: the attacker's own population shows it, and
  the model matters to those who have no such population,
* **ideal**: the hidden column from all others *and the true outcome*, again learned on the population without the model. An
  attack that comes to it got from the model all that the outcome says,
* **held-out − imputation**: the difference of the two on the same held-out people, one by one,
* **train − held-out**: the attack's share of members less that of held-out people. This difference alone is a leak of
  training; the rest is what the model learned of the population (Jayaraman & Evans 2022, "Are Attribute Inference Attacks Just
  Imputation?").

A guess of a number counts as right within ``TOLERANCE`` of its public range.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from evaluation.inversion.attribute_knowledge import AttributeKnowledge, People
from evaluation.inversion.columns import GRID
from evaluation.inversion.prior_of_columns import Guesser, shares
from evaluation.metrics import difference, paired_difference, proportion
from evaluation.result import Measure

TOLERANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class AttributeFigures:
    """What an attack got, and what was to be had without it. All but ``members`` and the difference are of held-out people."""

    members: Measure
    held_out: Measure
    held_out_minus_imputation: Measure
    """Of the same people."""
    train_minus_held_out: Measure
    prior: Measure
    imputation: Measure
    imputation_with_outcome: Measure
    ideal: Measure


def attribute_figures(
    knowledge: AttributeKnowledge,
    members: tuple[Float[np.ndarray, "members values"], Int[np.ndarray, " members"]],
    held_out: tuple[Float[np.ndarray, "held_out values"], Int[np.ndarray, " held_out"]],
    held_out_rows: tuple[Float[Tensor, "held_out inputs"], Tensor],
    classes: int = 0,
) -> AttributeFigures:
    """Figures of one attack.

    Args:
        members: the attack's distributions over the hidden column, and the true value of each (``layout.codes``).
        held_out: the same of people who were not trained on.
        held_out_rows: whole rows and targets of the held-out people, for those who have no model.
        classes: of a classifier; 0 for a regression.
    """
    truth = held_out[1]
    of_members = share_right(knowledge, *members, "members")
    of_held_out = share_right(knowledge, *held_out, "held_out")
    people = knowledge.people(*held_out_rows)
    imputed = impute(knowledge, people)
    answers = [is_right(knowledge, posterior, truth) for posterior in (held_out[0], imputed)]
    prior = np.tile(shares(knowledge, knowledge.hidden), (len(truth), 1))
    everything = tuple(name for name in knowledge.layout.names if name != knowledge.hidden)
    same = with_outcome(knowledge, knowledge.known, *held_out_rows, classes=classes)
    best = same if not knowledge.unknown else with_outcome(knowledge, everything, *held_out_rows, classes=classes)
    return AttributeFigures(
        members=of_members,
        held_out=of_held_out,
        held_out_minus_imputation=paired_difference(answers[0], answers[1], "held_out_minus_imputation"),
        train_minus_held_out=difference(of_members, of_held_out, "train_minus_held_out"),
        prior=share_right(knowledge, prior, truth, "prior"),
        imputation=share_right(knowledge, imputed, truth, "imputation"),
        imputation_with_outcome=share_right(knowledge, same, truth, "imputation_with_outcome"),
        ideal=share_right(knowledge, best, truth, "ideal"),
    )


def impute(knowledge: AttributeKnowledge, people: People) -> Float[np.ndarray, "people values"]:
    """The hidden column from the known ones, without the model and without the outcome."""
    return Guesser(knowledge, knowledge.hidden, knowledge.known).probabilities(people.inputs)


def with_outcome(
    knowledge: AttributeKnowledge,
    given: tuple[str, ...],
    inputs: Float[Tensor, "people inputs"],
    targets: Tensor,
    classes: int = 0,
) -> Float[np.ndarray, "people values"]:
    """The hidden column from the given ones and the true outcome, without the model."""
    outcomes = [_outcome(each, classes) for each in (knowledge.population_targets, targets)]
    return Guesser(knowledge, knowledge.hidden, given, outcomes[0]).probabilities(inputs, outcomes[1])


def _outcome(targets: Tensor, classes: int) -> Float[np.ndarray, "people outcome"]:
    return np.eye(classes)[targets.numpy()] if classes else OUTCOME_SCALE * targets.double().numpy()[:, None]


OUTCOME_SCALE = 10.0
"""The encoded outcome uses little of its public range; unscaled, a ridge would keep its weight from growing."""


def share_right(
    knowledge: AttributeKnowledge,
    posterior: Float[np.ndarray, "people values"],
    truth: Int[np.ndarray, " people"],
    name: str,
) -> Measure:
    """The share of people whose most probable value is the true one, with its Clopper–Pearson interval."""
    return proportion(int(is_right(knowledge, posterior, truth).sum()), len(truth), name)


def is_right(
    knowledge: AttributeKnowledge, posterior: Float[np.ndarray, "people values"], truth: Int[np.ndarray, " people"]
) -> Bool[np.ndarray, " people"]:
    """Whether each one's most probable value is the true one."""
    apart = np.abs(posterior.argmax(1) - truth)
    column = knowledge.layout.column(knowledge.hidden)
    near = round(TOLERANCE * (GRID - 1)) if column.kind == "number" else 0
    right = apart <= near
    if column.kind == "number" and column.may_be_missing:  # missing is no number that another could be near to
        right &= (posterior.argmax(1) < GRID) == (truth < GRID)
    return right
