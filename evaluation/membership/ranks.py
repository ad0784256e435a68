"""Likelihood ratio of ranks: the order of the classes, without their scores.

What a model shows is read as the rank of each class, 0 for the best; classes that are not shown, and others of the same score,
share the mean of their ranks. So it is the attack of someone who sees the k best classes in order, and where scores are shown
it is what their order alone says.

An example's classes are put in an order of its own, the true one first and the others by their mean rank over shadow models,
so that "second best" means the same for all examples. Each place is then a question in the sense of
:mod:`~evaluation.membership.lira`: the ranks are made one signal by the weights that tell the shadow models' members from
their non-members best, and this signal has the empirical likelihood ratio of :mod:`~evaluation.membership.answers`, since it is
discrete.
"""

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.membership.answers import answer_ratio
from evaluation.membership.lira import as_one
from evaluation.membership.signal import outputs_of, require_classes
from evaluation.target import Target

MOST_PLACES = 12
"""Of an example's order: behind them ranks say next to nothing, and cost time."""


class RankRatio(MembershipAttack):
    """Online: the ranks that models with and without each example give its classes."""

    access = Access.SCORES
    paper = "after Carlini et al. 2022"
    needs = frozenset({"fleet"})

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        require_classes(examples.targets)
        fleet, labels = knowledge.models(), examples.targets.numpy()
        inside = fleet.membership[:, examples.indices]
        shadows = ranks(fleet.logits[:, examples.indices])
        observed = ranks(outputs_of(target, examples.inputs, examples.targets))
        order = shadows.mean(0)
        order[np.arange(len(labels)), labels] = -1.0
        places = np.argsort(order, axis=1, kind="stable")[:, :MOST_PLACES]
        asked = np.take_along_axis(observed, places, 1).T
        shown = np.take_along_axis(shadows, places[None], 2).transpose(0, 2, 1)
        return answer_ratio(*as_one(asked, shown, inside), inside)


def ranks(outputs: Float[np.ndarray, "*lead classes"]) -> Float[np.ndarray, "*lead classes"]:
    """Of each class from 0, the best; equal ones share their mean."""
    return rankdata(-np.asarray(outputs, dtype=float), axis=-1) - 1.0
