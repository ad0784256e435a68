"""Labels alone: distance to the decision boundary (Choquette-Choo, Tramèr, Carlini, Papernot 2021, "Label-Only Membership
Inference Attacks"), by a gradient-free search (Chen, Jordan, Wainwright 2020, "HopSkipJumpAttack").

Members are further from the boundary. For every example that is classified correctly:

1. Start at the nearest other example that the target puts into another class, and halve the line between the two until the
   boundary is found.
2. From n random directions u at the boundary, the same ones for all examples, the boundary's normal is estimated as the mean
   of ±u (plus where x + δu is in another class than the example), less its mean sign.
3. Step along it, halve the step until still in another class, and halve the line to the example again.
4. Repeat 2 and 3; the nearest point that was found counts.

The score is that Euclidean distance, in units of the input; an example that is classified wrongly has 0. It is an upper
bound on the distance to the boundary, and the better the more queries. An example costs :attr:`BoundaryDistance.queries`
labels at most.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.membership.signal import require_classes, require_numbers
from evaluation.target import Target


@dataclass(frozen=True)
class BoundaryDistance(MembershipAttack):
    """The further from the boundary, the more a member."""

    access: ClassVar[Access] = Access.LABEL
    paper: ClassVar[str] = "Choquette-Choo et al. 2021"

    rounds: int = 8
    """How often the normal is estimated."""
    directions: int = 32
    """Random directions of an estimate in the first round; √t times as many in round t."""
    halvings: int = 12
    """Of a line between an example and a point in another class."""
    shrinks: int = 8
    """Of a step that left the other class."""

    @property
    def queries(self) -> int:
        """Labels that one example costs at most."""
        estimates = sum(self._count(number) for number in range(self.rounds))
        return 1 + self.halvings * (self.rounds + 1) + estimates + self.shrinks * self.rounds

    def _count(self, number: int) -> int:
        return int(self.directions * (number + 1) ** 0.5)

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        require_classes(examples.targets)
        require_numbers(examples.inputs)
        inputs, shape = examples.inputs.flatten(1).float(), examples.inputs.shape[1:]
        found = torch.from_numpy(target.labels(examples.inputs))
        distance = torch.zeros(len(inputs))
        right = found == examples.targets
        if len(found.unique()) < 2 or not bool(right.any()):  # no boundary is known, or nothing is further than 0 from it
            return right.double().numpy()
        search = _Search(self, target, inputs[right], found[right], shape, examples.inputs.dtype)
        distance[right] = search.nearest(_nearest_other(inputs, found, right))
        return distance.double().numpy()


def _nearest_other(inputs: Tensor, found: Tensor, wanted: Tensor) -> Tensor:
    """For each wanted example the nearest one that the target puts into another class."""
    starts = torch.empty_like(inputs[wanted])
    labels = found[wanted]
    for label in labels.unique():
        own, others = inputs[wanted][labels == label], inputs[found != label]
        starts[labels == label] = others[torch.cdist(own, others).argmin(1)]
    return starts


class _Search:
    """All examples at once: the steps of one example never depend on another's."""

    def __init__(
        self, attack: BoundaryDistance, target: Target, inputs: Tensor, labels: Tensor, shape: torch.Size, dtype: torch.dtype
    ):
        self.attack, self.target, self.inputs, self.labels = attack, target, inputs, labels
        self.shape, self.dtype = shape, dtype
        self.generator = torch.Generator().manual_seed(0)

    def nearest(self, starts: Tensor) -> Tensor:
        """The smallest distance to a point in another class that was found."""
        points = self._halve(starts)
        best = (points - self.inputs).norm(dim=1)
        for number in range(self.attack.rounds):
            distance = (points - self.inputs).norm(dim=1)
            normal = self._normal(points, distance, self.attack._count(number))
            points = self._halve(self._step(points, normal, distance / (number + 1) ** 0.5))
            best = torch.minimum(best, (points - self.inputs).norm(dim=1))
        return best

    def _other(self, points: Tensor) -> Tensor:
        """Whether each point is in another class than its example."""
        given = points.to(self.dtype).view(-1, *self.shape)
        return torch.from_numpy(self.target.labels(given)) != self.labels

    def _inside(self, points: Tensor) -> Tensor:
        return points.clamp(*self.target.bounds)

    def _halve(self, far: Tensor) -> Tensor:
        """The point nearest to the example, on the line to a point in another class, that is still in another class."""
        low, high = torch.zeros(len(far), 1), torch.ones(len(far), 1)
        for _ in range(self.attack.halvings):
            middle = (low + high) / 2
            other = self._other(self.inputs + middle * (far - self.inputs))[:, None]
            low, high = torch.where(other, low, middle), torch.where(other, middle, high)
        return self.inputs + high * (far - self.inputs)

    def _normal(self, points: Tensor, distance: Tensor, count: int) -> Tensor:
        reach = (0.1 * distance + 1e-6)[:, None]
        directions = torch.randn(count, points.shape[1], generator=self.generator)
        directions /= directions.norm(dim=1, keepdim=True)
        signs = torch.stack([self._other(self._inside(points + reach * one)) for one in directions], dim=1) * 2.0 - 1.0
        mean = signs.mean(1, keepdim=True)
        normal = torch.where(mean.abs() == 1, signs, signs - mean) @ directions
        return normal / normal.norm(dim=1, keepdim=True).clamp_min(1e-12)

    def _step(self, points: Tensor, normal: Tensor, size: Tensor) -> Tensor:
        """Along the normal, by a step that is halved until it ends in another class; where none does, it stays."""
        reached, missing = points.clone(), torch.ones(len(points), dtype=torch.bool)
        for _ in range(self.attack.shrinks):
            tried = self._inside(points + size[:, None] * normal)
            good = self._other(tried) & missing
            reached[good], missing = tried[good], missing & ~good
            size = size / 2
        return reached
