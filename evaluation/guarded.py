"""A guard before the target, and the same kind of guard before each shadow model.

    bench = Bench(recipe.release, data, split)
    target.guard = bench.guard(target, "target 0")
    fleet = bench.behind(fleet)

Every model's guard is fitted as its owner would: on that model's own members, and on the population, which is in no model and
is not audited, so that no guard is tuned on the examples that score it. Each has a key of its own. An attack that is handed
this fleet knows the guard: what it learns of shadow models it learns through theirs.

Attacks that see more than scores are behind the guard, and so are the weights of shadow models, where an attack takes them.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dptrain.data.dataset import DataSet
from dptrain.data.split import Split
from dptrain.fleet import Fleet, Views
from dptrain.recipe import ReleaseConfig
from dptrain.release import Guard, fitted
from evaluation.access import Access
from evaluation.target import Target


@dataclass(frozen=True, eq=False)
class Bench:
    """What guards are fitted on."""

    release: ReleaseConfig
    data: DataSet
    split: Split
    views: Views | None = None

    def guard(self, target: Target, key: str) -> Guard:
        """Of the target, whose members are the split's."""
        inside = target.behind(Access.LOGITS)
        members, others = (inside.logits(self._inputs(part)) for part in (self.split.members, self.split.population))
        return fitted(self.release, members, others, key.encode())

    def behind(self, fleet: Fleet) -> Fleet:
        """The same models, each behind a guard of its own.

        They answer on audited and on population examples alone, which is all that attacks ask of them; elsewhere is NaN.
        """
        asked = np.sort(np.concatenate([self.split.audited, self.split.population]))
        inputs = self._inputs(asked)
        logits = np.full_like(fleet.logits, np.nan, dtype=np.float64)
        views = None if fleet.views is None else np.full_like(fleet.views, np.nan, dtype=np.float64)
        for number, inside in enumerate(fleet.membership):
            own = fleet.logits[number]
            guard = fitted(self.release, own[inside], own[self.split.population], f"shadow model {number}".encode())
            logits[number, asked] = _shown(guard, inputs, own[asked])
            if views is not None and fleet.views is not None and self.views is not None:
                for view, altered in enumerate(self.views.of(inputs)):
                    views[number, view, asked] = _shown(guard, altered, fleet.views[number, view, asked])
        return dataclasses.replace(fleet, logits=logits, views=views)

    def _inputs(self, indices: np.ndarray) -> Tensor:
        return self.data.inputs[torch.from_numpy(indices)]


def _shown(guard: Guard, inputs: Tensor, logits: np.ndarray) -> Float[np.ndarray, "examples classes"]:
    """Logarithms of a guard's scores, which take the place of logits."""
    with np.errstate(divide="ignore"):
        return np.log(guard.answers(inputs, logits))
