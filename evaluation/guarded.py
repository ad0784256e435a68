"""A guard before the target, and the same kind of guard before each shadow model.

    bench = Bench("top5-rounded", data, split)
    target.guard = bench.guard(target, "target 0")
    fleet = bench.behind(fleet)

Every model's guard is fitted as its owner would: on that model's own members, and on the population, which is in no model and
is not audited, so that no guard is tuned on the examples that score it. Each has a key of its own. An attack that is handed
this fleet knows the guard: what it learns of shadow models it learns through theirs.

Attacks that see more than scores are behind the guard, and so are the weights of shadow models, where an attack takes them.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dptrain.data.dataset import DataSet
from dptrain.data.split import Split
from dptrain.errors import UserError
from dptrain.fleet import Fleet, Views
from dptrain.release.guard import Guard, Logits, Owner, fitted, needs_members, needs_model
from evaluation.access import Access
from evaluation.completed import completed
from evaluation.target import Target

CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Bench:
    """What guards are fitted on."""

    text: str
    """That says the guard."""
    data: DataSet
    split: Split
    views: Views | None = None

    def guard(self, target: Target, key: str) -> Guard:
        """Of the target, whose members are the split's."""
        inside = target.behind(Access.LOGITS)
        members = others = None
        if needs_members(self.text):
            members, others = (inside.logits(self._inputs(part)) for part in (self.split.members, self.split.population))
        return fitted(self.text, self._owner(inside.logits, key, members, others))

    def behind(self, fleet: Fleet) -> Fleet:
        """The same models, each behind a guard of its own.

        They answer on audited and on population examples alone, which is all that attacks ask of them; elsewhere is NaN. Where
        a part is fitted on the model's answers to further inputs (HAMP), each shadow model is asked for its own.

        Raises:
            UserError: such a part is to be fitted, and the fleet kept no weights.
        """
        asked = np.sort(np.concatenate([self.split.audited, self.split.population]))
        inputs = self._inputs(asked)
        logits = np.full_like(fleet.logits, np.nan, dtype=np.float64)
        views = None if fleet.views is None else np.full_like(fleet.views, np.nan, dtype=np.float64)
        for number, inside in enumerate(fleet.membership):
            own = fleet.logits[number]
            outputs = _outputs_of(fleet.model(number)) if needs_model(self.text) else _unasked
            owner = self._owner(outputs, f"shadow model {number}", own[inside], own[self.split.population])
            guard = fitted(self.text, owner)
            logits[number, asked] = _shown(guard, inputs, own[asked])
            if views is not None and fleet.views is not None and self.views is not None:
                for view, altered in enumerate(self.views.of(inputs)):
                    views[number, view, asked] = _shown(guard, altered, fleet.views[number, view, asked])
        return dataclasses.replace(fleet, logits=logits, views=views)

    def _owner(self, outputs: Callable[[Tensor], Logits], key: str, members: Logits | None, others: Logits | None) -> Owner:
        shape, bounds, classes = self.data.input_shape, self.data.bounds, len(self.data.classes)
        reads = "numbers" if self.data.inputs.is_floating_point() else "words"
        return Owner(outputs, shape, bounds, classes, key.encode(), key, members, others, reads)

    def _inputs(self, indices: np.ndarray) -> Tensor:
        return self.data.inputs[torch.from_numpy(indices)]


def _shown(guard: Guard, inputs: Tensor, logits: np.ndarray) -> Float[np.ndarray, "examples classes"]:
    """Logarithms of what an attacker makes of a guard's answers, which take the place of logits."""
    with np.errstate(divide="ignore"):
        return np.log(completed(guard.answers(inputs, logits)))


def _outputs_of(model: nn.Module) -> Callable[[Tensor], Logits]:
    @torch.no_grad()
    def outputs(inputs: Tensor) -> Logits:
        return torch.cat([model(part) for part in inputs.split(CHUNK)]).double().numpy()

    return outputs


def _unasked(inputs: Tensor) -> Logits:
    raise UserError("the guard asks its model, and says in its terms that it does not; give it Terms(fitted_on='model')")
