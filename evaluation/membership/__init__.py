"""Membership inference: was this example trained on?

An attack sees examples without knowing which are members, and gives each a score; higher means member. The figures are
computed elsewhere (:mod:`evaluation.metrics`).

* :mod:`~evaluation.membership.threshold`: the target's loss by itself
* :mod:`~evaluation.membership.lira`: likelihood ratio over shadow models
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from dptrain.fleet import Fleet
from evaluation.access import Access
from evaluation.target import Target


@dataclass(frozen=True, eq=False)
class LabelledExamples:
    """Examples as an attacker has them: without their membership."""

    inputs: Tensor
    targets: Tensor
    indices: Int[np.ndarray, " examples"]
    """Where they stand in the data set, to find them in a fleet."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What an attacker has beside the target."""

    public: LabelledExamples | None = None
    fleet: Fleet | None = None
    """Shadow models of the target's own recipe, and what each had seen."""


class MembershipAttack(ABC):
    """One attack; an instance is made for each run."""

    access: ClassVar[Access]
    paper: ClassVar[str]
    needs_fleet: ClassVar[bool] = False

    @abstractmethod
    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> Float[np.ndarray, " examples"]:
        """A score an example; higher means member."""
