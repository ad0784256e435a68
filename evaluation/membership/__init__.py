"""Membership inference: was this example trained on?

An attack sees examples without knowing which are members, and gives each a score; higher means member. The figures are
computed elsewhere (:mod:`evaluation.metrics`).

From the target alone:

* :mod:`~evaluation.membership.threshold`: loss, confidence, entropy, modified entropy; as they are, and class by class
* :mod:`~evaluation.membership.quantile`: the score that a non-member with this input would have
* :mod:`~evaluation.membership.boundary`: labels alone, distance to the decision boundary
* :mod:`~evaluation.membership.robustness`: labels alone, under noise and shifts
* :mod:`~evaluation.membership.gradient`: the weights, norms of each example's gradient
* :mod:`~evaluation.membership.language`: text, against compression, its neighbours, and what is least expected in it

With other models of the same recipe:

* :mod:`~evaluation.membership.calibrated`: the loss, less what it is for models without the example
* :mod:`~evaluation.membership.shadow`: a classifier that learned from shadow models
* :mod:`~evaluation.membership.lira`: likelihood ratio over shadow models, online and offline
* :mod:`~evaluation.membership.answers`: the same ratio for discrete answers, such as guards show
* :mod:`~evaluation.membership.ranks`: the same of the classes' order alone
* :mod:`~evaluation.membership.repeated`: near-identical copies, averaged
* :mod:`~evaluation.membership.rmia`: ratio to reference models, against the ratios of the population, online and offline
* :mod:`~evaluation.membership.informia`: the same ratio, less the population's mean
* :mod:`~evaluation.membership.bayesian`: one reference model and the uncertainty of its last layer

Shared: :mod:`~evaluation.membership.signal` (what a model says of an example, for classes and for values),
:mod:`~evaluation.membership.reference` (what models with and without an example say of it).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from dptrain.errors import UserError
from dptrain.fleet import Fleet
from evaluation.access import Access
from evaluation.target import Target

Need = Literal["fleet", "weights", "population", "reference"]
"""``fleet``: shadow models; ``weights``: shadow models whose weights were kept; ``population``: held-out examples;
``reference``: a model of public examples alone."""

MISSING: dict[Need, str] = {
    "fleet": "it needs shadow models: pass recipe= or retrain= to evaluate()",
    "weights": "it needs the weights of a reference model, and this fleet kept answers alone: train it with its weights kept",
    "reference": "it needs a model that has seen public examples alone, and the recipe has no pretraining: give "
    "pretraining.steps and public text",
    "population": "it needs held-out examples that nobody was trained on: raise data.split.population, such as to 0.1",
}


class NotApplicable(UserError):
    """The attack cannot be made on this target or with this knowledge; the message says what is missing."""


@dataclass(frozen=True, eq=False)
class LabelledExamples:
    """Examples as an attacker has them: without their membership."""

    inputs: Tensor
    targets: Tensor
    """Classes as whole numbers; values to predict as floating-point numbers."""
    indices: Int[np.ndarray, " examples"]
    """Where they stand in the data set, to find them in a fleet."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What an attacker has beside the target."""

    public: LabelledExamples | None = None
    population: LabelledExamples | None = None
    """Examples from the same source that the target was not trained on."""
    fleet: Fleet | None = None
    """Shadow models of the target's own recipe, and what each had seen."""
    reference: Target | None = None
    """A model that has seen public examples alone: what the target began from."""
    views: Callable[[Tensor], Tensor] | None = None
    """Inputs ``[examples, ...]`` to the augmented inputs ``[views, examples, ...]`` that ``fleet.views`` answers."""

    def check(self, needs: "frozenset[Need]") -> None:
        """Raises NotApplicable where something that an attack needs is not there."""
        if needs & {"fleet", "weights"}:
            self.models()
        if "weights" in needs and (self.models().weights is None or self.models().build is None):
            raise NotApplicable(MISSING["weights"])
        if "population" in needs:
            self.held_out()
        if "reference" in needs:
            self.public_model()

    def public_model(self) -> Target:
        """The reference; NotApplicable where there is none."""
        if self.reference is None:
            raise NotApplicable(MISSING["reference"])
        return self.reference

    def models(self) -> Fleet:
        """The fleet; NotApplicable where there is none."""
        if self.fleet is None:
            raise NotApplicable(MISSING["fleet"])
        return self.fleet

    def held_out(self) -> LabelledExamples:
        """The population; NotApplicable where there is none."""
        if self.population is None or len(self.population.indices) == 0:
            raise NotApplicable(MISSING["population"])
        return self.population


class MembershipAttack(ABC):
    """One attack; an instance is made for each run."""

    access: ClassVar[Access]
    paper: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    """Without which it is not applicable."""

    @abstractmethod
    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> Float[np.ndarray, " examples"]:
        """A score an example; higher means member."""
