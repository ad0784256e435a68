"""How far a model errs: P(y | what the model says), by which an attacker weighs each value that would lead to y.

* :class:`Gaussian`, of a regression: y − f(x) is normal on the encoded scale. Its mean and deviation are those of the
  population's residuals, or a deviation that was published with the model, as in Fredrikson et al. 2014.
* :class:`Confusion`, of a classifier that gives labels: P(true class | predicted class), counted on the population with one
  more of each (Fredrikson, Jha, Ristenpart 2015).
* :class:`Scores`, of a classifier that gives scores: P(y | x) is the score of y.

:func:`usual` is the one that goes with what a model gives.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

from dptrain.errors import DataError
from evaluation.inversion.attribute_knowledge import AttributeKnowledge
from evaluation.target import Target

LEAST_DEVIATION = 1e-3
"""Of the encoded outcome, whose range is 1: a model that fits its rows exactly is taken to err by as much."""
LEAST_SCORE = 1e-12


@runtime_checkable
class FittedError(Protocol):
    """An error model of one target."""

    def log_likelihood(
        self, inputs: Float[Tensor, "people inputs"], targets: Shaped[Tensor, " people"]
    ) -> Float[np.ndarray, " people"]:
        """log P(y | f(x)), up to a constant."""
        ...


@runtime_checkable
class ErrorModel(Protocol):
    """How the population is used."""

    def fit(self, target: Target, knowledge: AttributeKnowledge) -> FittedError: ...


@dataclass(frozen=True)
class Gaussian:
    """Normal residuals of a regression.

    Raises:
        DataError: ``deviation`` is not above 0.
    """

    deviation: float | None = None
    """As published with the model, on the encoded scale; None measures it on the population."""

    def __post_init__(self) -> None:
        if self.deviation is not None and not self.deviation > 0:
            raise DataError(f"the deviation of an error model is {self.deviation}; give a number above 0, or leave it out")

    def fit(self, target: Target, knowledge: AttributeKnowledge) -> "FittedGaussian":
        if self.deviation is not None:
            return FittedGaussian(target, 0.0, max(self.deviation, LEAST_DEVIATION))
        residuals = knowledge.population_targets.double().numpy() - predictions(target, knowledge.population)
        return FittedGaussian(target, float(residuals.mean()), max(float(residuals.std()), LEAST_DEVIATION))


@dataclass(frozen=True, eq=False)
class FittedGaussian:
    """N(mean, deviation²) around the model's output."""

    target: Target
    mean: float
    deviation: float

    def log_likelihood(self, inputs: Tensor, targets: Tensor) -> Float[np.ndarray, " people"]:
        residuals = targets.double().numpy() - predictions(self.target, inputs) - self.mean
        return -0.5 * (residuals / self.deviation) ** 2


@dataclass(frozen=True)
class Confusion:
    """P(true class | predicted class), or given that a guard refused to predict."""

    def fit(self, target: Target, knowledge: AttributeKnowledge) -> FittedError:
        counts = np.ones((target.classes + 1, target.classes))  # the last row is that of -1, where a guard gave no answer
        np.add.at(counts, (target.labels(knowledge.population), knowledge.population_targets.numpy()), 1)
        return _FittedConfusion(target, np.log(counts / counts.sum(1, keepdims=True)))


@dataclass(frozen=True, eq=False)
class _FittedConfusion:
    target: Target
    logs: Float[np.ndarray, "predicted true"]

    def log_likelihood(self, inputs: Tensor, targets: Tensor) -> Float[np.ndarray, " people"]:
        return self.logs[self.target.labels(inputs), targets.numpy()]


@dataclass(frozen=True)
class Scores:
    """The model's own score of the true class."""

    def fit(self, target: Target, knowledge: AttributeKnowledge) -> FittedError:
        return _FittedScores(target)


@dataclass(frozen=True, eq=False)
class _FittedScores:
    target: Target

    def log_likelihood(self, inputs: Tensor, targets: Tensor) -> Float[np.ndarray, " people"]:
        scores = self.target.scores(inputs)[np.arange(len(inputs)), targets.numpy()]
        return np.log(np.maximum(scores, LEAST_SCORE))


def usual(target: Target) -> ErrorModel:
    """Normal residuals of a value; of classes, the score of the true one."""
    return Gaussian() if target.kind == "regression" else Scores()


def predictions(target: Target, inputs: Float[Tensor, "examples inputs"]) -> Float[np.ndarray, " examples"]:
    """The one output of a regression, on the encoded scale."""
    return np.asarray(target.scores(inputs)).reshape(len(inputs), -1)[:, 0]
