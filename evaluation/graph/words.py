"""A hidden word of a node, from what a model says of the node.

A word is a feature that a node has or has not. The attacker knows the words of some nodes that the model was not trained on,
and what the model says of them; he learns a classifier a word (logistic regression on standardised inputs) and guesses the
words of the others. He chooses which words before he asks: those whose frequency among his own nodes is nearest to one in
five, where there is enough of both to learn from.

* :class:`FromScores` reads the logarithms of the scores, less their mean: the logits up to a constant
* :class:`FromEmbedding` reads the last hidden layer (Duddu, Boutet, Shejwalkar 2020, "Quantifying Privacy Leakage in Graph
  Embedding")
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from evaluation.access import Access
from evaluation.graph import GraphTarget

WORDS = 20
SHARE = 0.2
"""Frequency that chosen words are near."""
RAREST = 0.05
"""Words with a lower frequency, or a higher one than 1 less it, are left alone."""
LEAST_SCORE = 1e-300


class WordAttack(ABC):
    """What the attacker reads of each node."""

    access: ClassVar[Access]
    paper: ClassVar[str]

    @abstractmethod
    def read(self, target: GraphTarget, inputs: Tensor) -> Float[np.ndarray, "nodes width"]:
        """Of each node, a row of numbers."""


class FromScores(WordAttack):
    """The scores of the node."""

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "after Duddu et al. 2020"

    def read(self, target: GraphTarget, inputs: Tensor) -> Float[np.ndarray, "nodes width"]:
        logs = np.log(np.maximum(target.scores(inputs), LEAST_SCORE))
        return logs - logs.mean(1, keepdims=True)


class FromEmbedding(WordAttack):
    """The last hidden layer for the node."""

    access: ClassVar[Access] = Access.LOGITS
    paper: ClassVar[str] = "Duddu et al. 2020"

    def read(self, target: GraphTarget, inputs: Tensor) -> Float[np.ndarray, "nodes width"]:
        return np.asarray(target.embeddings(inputs))


def chosen(has: Bool[np.ndarray, "known words"]) -> Int[np.ndarray, " chosen"]:
    """Which words are guessed, by the nodes whose words are known; may be none."""
    shares = has.mean(0)
    usable = np.flatnonzero((shares >= RAREST) & (shares <= 1 - RAREST))
    return np.sort(usable[np.argsort(np.abs(shares[usable] - SHARE), kind="stable")[:WORDS]])


def guessed(
    known: Float[np.ndarray, "known width"],
    has: Bool[np.ndarray, "known words"],
    others: Float[np.ndarray, "others width"],
) -> Float[np.ndarray, "others words"]:
    """How much each of the others seems to have each word, by classifiers that learned where it is known."""
    found = np.empty((len(others), has.shape[1]))
    for word in range(has.shape[1]):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(known, has[:, word])
        found[:, word] = model.decision_function(others)
    return found


def imputed(
    known: Bool[np.ndarray, "known features"], others: Bool[np.ndarray, "others features"], words: Int[np.ndarray, " words"]
) -> Float[np.ndarray, "others words"]:
    """The same without any model, from all other words of the node.

    Ridge regression on 0 and 1 in its dual form, with a penalty of the mean squared length of an input: there are more words
    than nodes to learn from.
    """
    middle = known.mean(0)
    seen, asked = known - middle, others - middle
    products = seen @ seen.T
    found = np.empty((len(others), len(words)))
    for place, word in enumerate(words):
        inner = products - np.outer(seen[:, word], seen[:, word])
        penalty = np.trace(inner) / len(inner)
        weights = seen.T @ np.linalg.solve(inner + penalty * np.eye(len(inner)), seen[:, word])
        weights[word] = 0.0  # not by a difference: what rounding left of it would tell the word where guesses are tied
        found[:, place] = asked @ weights
    return found
