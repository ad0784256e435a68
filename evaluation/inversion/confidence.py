"""Attribute inference on a classifier without any prior: by its confidence, or by its labels alone.

Mehnaz et al. 2022, "Are Your Sensitive Attributes Private? Novel Model Inversion Attribute Inference Attacks on Classification
Models". The attacker knows a person's other columns and true class y, and asks the model once for each value of the hidden
column. With C the set of values for which the model says y:

* :class:`ConfidenceScores` (CSMIA): one value in C: it. Several: the one for which the score of the predicted class is highest.
  None: the one for which it is lowest, since the model is the least sure of its error there.
* :class:`LabelsOnly` (LOMIA): people with one value in C become examples, from which a classifier learns the hidden column
  out of the known ones and y; it guesses for all others. Where there are no such people of two kinds, every value is alike.

Both are given where unknown columns are few: each is averaged over draws of them from the population's shares.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression

from evaluation.access import Access
from evaluation.inversion.attribute import DRAWS
from evaluation.inversion.attribute_knowledge import AttributeKnowledge, People
from evaluation.inversion.prior_of_columns import FittedPrior, Independent
from evaluation.target import Kind, Target


@dataclass(frozen=True, kw_only=True)
class ConfidenceScores:
    """CSMIA."""

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "Mehnaz et al. 2022"
    kinds: ClassVar[tuple[Kind, ...]] = ("classification",)

    draws: int = DRAWS

    def run(
        self, target: Target, knowledge: AttributeKnowledge, people: People, generator: np.random.Generator
    ) -> Float[np.ndarray, "people values"]:
        prior = Independent().fit(knowledge)
        votes = np.zeros((len(people), len(knowledge.layout.values(knowledge.hidden))))
        draws = knowledge.rounds(self.draws)
        for _ in range(draws):
            scores = np.stack([target.scores(rows) for rows in _with_each_value(knowledge, people, prior, generator)], 1)
            right, confidence = scores.argmax(2) == people.targets.numpy()[:, None], scores.max(2)
            some = right.any(1)
            best = np.where(right, confidence, -1.0).argmax(1)
            votes[np.arange(len(people)), np.where(some, best, confidence.argmin(1))] += 1 / draws
        return votes


@dataclass(frozen=True, kw_only=True)
class LabelsOnly:
    """LOMIA."""

    access: ClassVar[Access] = Access.LABEL
    paper: ClassVar[str] = "Mehnaz et al. 2022"
    kinds: ClassVar[tuple[Kind, ...]] = ("classification",)

    draws: int = DRAWS

    def run(
        self, target: Target, knowledge: AttributeKnowledge, people: People, generator: np.random.Generator
    ) -> Float[np.ndarray, "people values"]:
        prior = Independent().fit(knowledge)
        draws = knowledge.rounds(self.draws)
        rounds = [self._round(target, knowledge, people, prior, generator) for _ in range(draws)]
        return np.mean(rounds, axis=0)

    def _round(
        self,
        target: Target,
        knowledge: AttributeKnowledge,
        people: People,
        prior: FittedPrior,
        generator: np.random.Generator,
    ) -> Float[np.ndarray, "people values"]:
        said = np.column_stack([target.labels(rows) for rows in _with_each_value(knowledge, people, prior, generator)])
        right = said == people.targets.numpy()[:, None]
        alone = right.sum(1) == 1
        found = np.where(alone[:, None], right, 1 / right.shape[1])
        if len(np.unique(right[alone].argmax(1))) > 1 and not alone.all():
            found[~alone] = self._learned(target, knowledge, people, right, alone)
        return found

    def _learned(
        self,
        target: Target,
        knowledge: AttributeKnowledge,
        people: People,
        right: Bool[np.ndarray, "people values"],
        alone: Bool[np.ndarray, " people"],
    ) -> Float[np.ndarray, "others values"]:
        classes = np.eye(target.classes)[people.targets.numpy()]
        features = np.hstack([knowledge.layout.read(people.inputs, knowledge.known), classes])
        learned = LogisticRegression(max_iter=2000).fit(features[alone], right[alone].argmax(1))
        found = np.zeros((int((~alone).sum()), right.shape[1]))
        found[:, learned.classes_] = learned.predict_proba(features[~alone])
        return found


def _with_each_value(knowledge: AttributeKnowledge, people: People, prior: FittedPrior, generator: np.random.Generator):
    """The people's rows with each value of the hidden column; the unknown ones are drawn once for all values."""
    filled = prior.fill(people.inputs, generator)
    return [knowledge.layout.put(filled, knowledge.hidden, block) for block in knowledge.layout.values(knowledge.hidden)]
