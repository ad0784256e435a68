"""How sure an inversion is of a class: figures of the distribution that it gives in place of a point.

An attack whose result is a distribution a class (Chen, Kahng, Jia, Qi 2021, "Knowledge-Enriched Distributional Model Inversion
Attacks") draws from it; see :meth:`~evaluation.inversion.prior.PriorInversion.samples`. Of n draws x₁ … xₙ of each class,

* ``identified_of_draws``: the share that the judge takes for their class, its mean over classes. Draws of one class are no
  trials of their own: the interval is Clopper and Pearson's (1934) with a class as one trial, which a share between 0 and 1
  makes wider than it need be;
* ``distance_between_draws``: the root mean squared difference of two draws of one class, over pairs and classes;
* ``distance_between_public_people``: the same of the mean images of two public people (of two public examples where nobody
  says who is who).

Draws that are identified and lie as far apart as people do show that the model pins down what the judge looks at and nothing
else; draws that lie close together are a point.
"""

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from evaluation import metrics
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.result import Measure
from evaluation.target import Target

OF_DRAWS = "identified_of_draws"
COUNT = 20
"""Draws of each class."""
UNITS = "root mean square of a difference of two, input units"


@runtime_checkable
class Distributional(Protocol):
    """A class inversion that can also draw from what it found."""

    def samples(self, target: Target, knowledge: ClassKnowledge, count: int, generator: torch.Generator) -> Tensor:
        """Draws of each class's distribution, ``[classes, count, *input_shape]``, within the target's bounds."""
        ...


def distribution(
    drawn: Float[Tensor, "classes draws ..."],
    labels: Callable[[Tensor], np.ndarray],
    knowledge: ClassKnowledge,
    judged: Int[np.ndarray, " judged"] | None = None,
) -> tuple[Measure, ...]:
    """What is measured of draws.

    Args:
        labels: the judge's.
        knowledge: the public examples that the spread is held against.
        judged: the classes that the model had examples of; left out, all.
    """
    judged = np.arange(len(drawn)) if judged is None else judged
    drawn = drawn[torch.from_numpy(judged)]
    right = labels(drawn.flatten(0, 1)).reshape(drawn.shape[:2]) == judged[:, None]
    groups = knowledge.public_groups
    public = knowledge.public
    people = public if groups is None else torch.stack([public[groups == person].mean(0) for person in groups.unique()])
    return (
        mean_share(right.mean(1), OF_DRAWS),
        Measure(name="distance_between_draws", value=pair_distance(drawn), note=UNITS),
        Measure(name="distance_between_public_people", value=pair_distance(people[None]), note=UNITS),
    )


def mean_share(shares: Float[np.ndarray, " classes"], name: str) -> Measure:
    """The mean of a share that each class has, with the interval of as many trials as there are classes."""
    total, classes = float(shares.sum()), len(shares)
    low, high = (metrics.proportion(successes, classes) for successes in (math.floor(total), math.ceil(total)))
    return Measure(name=name, value=total / classes, low=low.low, high=high.high)


def pair_distance(groups: Float[Tensor, "groups examples ..."]) -> float:
    """Root mean squared difference of two examples of a group, over all pairs of each: √2 times the standard deviation."""
    flat = groups.flatten(2).double()
    return float((2 * flat.var(1).mean()).sqrt())
