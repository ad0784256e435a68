"""What is to be expected of a hidden or unknown column before the model is asked, learned from the population.

* :class:`Independent`: each column by itself, whatever else is known (the published attack; Fredrikson et al. 2014). P(v) is
  the share of the value in the population, counted with one more of each value.
* :class:`Conditional`: given the known columns. A category by multinomial logistic regression on the known inputs, a number by
  linear regression with a Gaussian residual over the grid of its values; whether its cell is missing, by logistic regression.
  Unknown columns follow in order, each given the known
  ones, the hidden one and those before it.

The published attack does not use what a race or an age says about a genotype, and so can do worse than someone without the
model who does. Jayaraman & Evans 2022, "Are Attribute Inference Attacks Just Imputation?", hold attacks against that person.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import Tensor

from evaluation.inversion.attribute_knowledge import AttributeKnowledge
from evaluation.inversion.columns import GRID


@runtime_checkable
class FittedPrior(Protocol):
    """A prior that has seen its population."""

    def of_hidden(self, inputs: Float[Tensor, "people inputs"]) -> Float[np.ndarray, "people values"]:
        """P(v | known columns), above 0 for each value."""
        ...

    def fill(self, inputs: Float[Tensor, "people inputs"], generator: np.random.Generator) -> Float[Tensor, "people inputs"]:
        """Rows whose unknown columns are drawn; known and hidden ones are given."""
        ...


@runtime_checkable
class Prior(Protocol):
    """How the population is used."""

    def fit(self, knowledge: AttributeKnowledge) -> FittedPrior: ...


@dataclass(frozen=True)
class Independent:
    """Each column's shares in the population."""

    def fit(self, knowledge: AttributeKnowledge) -> FittedPrior:
        return _Marginals(knowledge)


@dataclass(frozen=True)
class Conditional:
    """Each column given the known ones."""

    def fit(self, knowledge: AttributeKnowledge) -> FittedPrior:
        return _Chain(knowledge)


class _Marginals:
    def __init__(self, knowledge: AttributeKnowledge):
        self._knowledge = knowledge
        self._shares = {name: shares(knowledge, name) for name in (knowledge.hidden, *knowledge.unknown)}

    def of_hidden(self, inputs: Tensor) -> np.ndarray:
        return np.tile(self._shares[self._knowledge.hidden], (len(inputs), 1))

    def fill(self, inputs: Tensor, generator: np.random.Generator) -> Tensor:
        layout = self._knowledge.layout
        for name in self._knowledge.unknown:
            drawn = generator.choice(len(self._shares[name]), size=len(inputs), p=self._shares[name])
            inputs = layout.put(inputs, name, layout.values(name)[drawn])
        return inputs


class _Chain:
    def __init__(self, knowledge: AttributeKnowledge):
        self._knowledge = knowledge
        given = list(knowledge.known)
        self._hidden = Guesser(knowledge, knowledge.hidden, tuple(given))
        given.append(knowledge.hidden)
        self._unknown: dict[str, Guesser] = {}
        for name in knowledge.unknown:
            self._unknown[name] = Guesser(knowledge, name, tuple(given))
            given.append(name)

    def of_hidden(self, inputs: Tensor) -> np.ndarray:
        return self._hidden.probabilities(inputs)

    def fill(self, inputs: Tensor, generator: np.random.Generator) -> Tensor:
        layout = self._knowledge.layout
        for name, guesser in self._unknown.items():
            steps = guesser.probabilities(inputs).cumsum(1)
            drawn = (generator.random((len(inputs), 1)) * steps[:, -1:] > steps).sum(1)
            inputs = layout.put(inputs, name, layout.values(name)[drawn])
        return inputs


def shares(knowledge: AttributeKnowledge, name: str) -> Float[np.ndarray, " values"]:
    """The share of each value in the population, with one more of each."""
    layout = knowledge.layout
    counts = np.bincount(layout.codes(knowledge.population, name), minlength=len(layout.values(name))) + 1.0
    return counts / counts.sum()


class Guesser:
    """P(value of a column | other columns, and further features), learned from the population.

    Args:
        more: features of each person of the population beside the columns, such as the true outcome.
    """

    def __init__(
        self,
        knowledge: AttributeKnowledge,
        name: str,
        given: tuple[str, ...],
        more: Float[np.ndarray, "population more"] | None = None,
    ):
        self._layout, self._given = knowledge.layout, given
        self._marginal = shares(knowledge, name)
        self._number = knowledge.layout.column(name).kind == "number"
        features = self._features(knowledge.population, more)
        codes = knowledge.layout.codes(knowledge.population, name)
        self._grid = knowledge.layout.values(name)[:, 0]
        self._fitted: LinearRegression | LogisticRegression | None = None
        self._missing: LogisticRegression | None = None
        filled = codes < GRID if self._number else np.full(len(codes), True)
        if features.shape[1] and len(np.unique(codes[filled])) > 1:
            learner = LinearRegression() if self._number else LogisticRegression(max_iter=2000)
            self._fitted = learner.fit(features[filled], self._grid[codes[filled]] if self._number else codes)
            if not filled.all():
                self._missing = LogisticRegression(max_iter=2000).fit(features, ~filled)
            if self._number:
                residual = self._grid[codes[filled]] - self._fitted.predict(features[filled])
                self._deviation = max(float(residual.std()), 0.5 * float(self._grid[1] - self._grid[0]))
        self._doubt = 1 / (1 + len(codes))

    def probabilities(
        self, inputs: Float[Tensor, "people inputs"], more: Float[np.ndarray, "people more"] | None = None
    ) -> Float[np.ndarray, "people values"]:
        """Above 0 for each value: a little of the shares is mixed in, for what the population had none of."""
        if self._fitted is None:
            return np.tile(self._marginal, (len(inputs), 1))
        features = self._features(inputs, more)
        if isinstance(self._fitted, LinearRegression):
            apart = (self._grid[None, :GRID] - self._fitted.predict(features)[:, None]) / self._deviation
            found = np.exp(-0.5 * (apart**2 - (apart**2).min(1, keepdims=True)))
            found /= found.sum(1, keepdims=True)
            if len(self._marginal) > GRID:
                missing = np.zeros(len(features)) if self._missing is None else self._missing.predict_proba(features)[:, 1]
                found = np.column_stack([(1 - missing)[:, None] * found, missing])
        else:
            found = np.zeros((len(inputs), len(self._marginal)))
            found[:, self._fitted.classes_] = self._fitted.predict_proba(features)
        return (1 - self._doubt) * found + self._doubt * self._marginal

    def _features(self, inputs: Tensor, more: np.ndarray | None) -> np.ndarray:
        columns = self._layout.read(inputs, self._given)
        return columns if more is None else np.hstack([columns, more])
