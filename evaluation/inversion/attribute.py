"""Attribute inference: a hidden column of a person's row, from what is known of the row and the model.

    knowledge = AttributeKnowledge(layout, "VKORC1", ("Age", "Race"), population, population_targets)
    people = knowledge.people(inputs, targets)              # hidden and unknown columns are wiped out here
    posterior = MaximumAPosteriori().run(target, knowledge, people, generator)      # [people, values]

Fredrikson et al. 2014, "Privacy in Pharmacogenetics: An End-to-End Case Study of Personalized Warfarin Dosing": the attacker
knows some columns x_K of a row, the true outcome y (a patient's stable dose), the model f, a prior and how far f errs. Over
the values v of the hidden column and u of the unknown ones,

    P(v | x_K, y)  ∝  P(v | x_K) · E over u ~ P(u | x_K, v) of  P(y | f(x_K, v, u))

and the guess is the v for which it is largest. The parts are files of their own: the prior
(:mod:`~evaluation.inversion.prior_of_columns`) and the error model P(y | f(x)) (:mod:`~evaluation.inversion.error_model`), so
that one attack serves regression and classification (Fredrikson, Jha, Ristenpart 2015, "Model Inversion Attacks that Exploit
Confidence Information and Basic Countermeasures").

What the attacker knows beside the model is in :mod:`~evaluation.inversion.attribute_knowledge`.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import logsumexp

from evaluation.access import Access
from evaluation.inversion.attribute_knowledge import AttributeKnowledge, People
from evaluation.inversion.error_model import ErrorModel, usual
from evaluation.inversion.prior_of_columns import Conditional, Independent, Prior
from evaluation.target import Kind, Target

DRAWS = 32
"""Draws of the unknown columns over which a likelihood is averaged."""


class AttributeAttack(Protocol):
    """An attribute inference: a distribution over the hidden column's values, one a person."""

    access: ClassVar[Access]
    paper: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]]
    """What the models give that it can be run on."""

    def run(
        self, target: Target, knowledge: AttributeKnowledge, people: People, generator: np.random.Generator
    ) -> Float[np.ndarray, "people values"]:
        """Rows sum to 1; the guess is the largest, see :func:`guesses`."""
        ...


@dataclass(frozen=True, kw_only=True)
class MaximumAPosteriori:
    """Prior times error model, through the model's outputs alone.

    With the default prior this is the published attack; with :class:`~evaluation.inversion.prior_of_columns.Conditional` the
    attacker also uses what the known columns say about the hidden one.
    """

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "Fredrikson et al. 2014"
    kinds: ClassVar[tuple[Kind, ...]] = ("classification", "regression")

    prior: Prior = field(default_factory=Independent)
    error: ErrorModel | None = None
    """None is the usual one: :func:`~evaluation.inversion.error_model.usual`."""
    draws: int = DRAWS

    def run(
        self, target: Target, knowledge: AttributeKnowledge, people: People, generator: np.random.Generator
    ) -> Float[np.ndarray, "people values"]:
        prior = self.prior.fit(knowledge)
        error = (self.error or usual(target)).fit(target, knowledge)
        draws = knowledge.rounds(self.draws)
        columns = []
        for block in knowledge.layout.values(knowledge.hidden):
            filled = knowledge.layout.put(people.inputs, knowledge.hidden, block)
            likelihoods = [error.log_likelihood(prior.fill(filled, generator), people.targets) for _ in range(draws)]
            columns.append(logsumexp(likelihoods, axis=0) - np.log(draws))
        return normalised(np.log(prior.of_hidden(people.inputs)) + np.column_stack(columns))


def conditional() -> MaximumAPosteriori:
    """The attack with the prior that knows the demographics: the stronger one where columns go together."""
    return MaximumAPosteriori(prior=Conditional())


def normalised(logs: Float[np.ndarray, "people values"]) -> Float[np.ndarray, "people values"]:
    """Distributions from unnormalised log probabilities."""
    return np.exp(logs - logsumexp(logs, axis=1, keepdims=True))


def guesses(posterior: Float[np.ndarray, "people values"]) -> Shaped[np.ndarray, " people"]:
    """The number of the most probable value of each."""
    return posterior.argmax(1)
