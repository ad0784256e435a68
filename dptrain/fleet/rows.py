"""Which examples the models of a stack look at together: those of their batches, as tensors of one shape.

* :class:`Gathered`: each model's own batch, filled up to the longest one
* :class:`Masked`: all examples, once for all of the models, and of each model a mask of its batch

Both give :class:`Rows`, chunk by chunk, and both leave out what is not in a model's batch.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dptrain.fleet.layers import squares

VALUES = 2**19
"""How many numbers an activation may hold: 2 MB, which stay near a core. Rows beyond are computed in chunks."""
GATHERED = 2**20
"""How many numbers the gathered inputs of all models in a stack may hold: 4 MB. With more they leave the cache, and stacking
gains nothing."""
LEAST_ROWS = 64


@dataclass(frozen=True, eq=False)
class Rows:
    """Examples that are computed together."""

    inputs: Tensor
    """``[features, rows]`` where all models see the same examples, otherwise ``[models, features, rows]``."""
    targets: Tensor
    """``[rows]`` or ``[models, rows]``."""
    present: Bool[Tensor, "models rows"]
    """Which are in the model's batch; the others contribute nothing."""
    squares: Float[Tensor, " rows"] | None = None
    """Of the inputs, summed over features; where they are known."""


def rows_at_once(models: int, width: int, gathered: int = 0) -> int:
    """Of each model, for activations of up to ``width`` units.

    Args:
        gathered: numbers of an input that each model has for itself.
    """
    most = VALUES // (models * width)
    return max(LEAST_ROWS, min(most, GATHERED // (models * gathered)) if gathered else most)


class Masked:
    """Every example from the first to the last that any model has: views of the data, not a copy.

    Args:
        size: how many of them are computed together.
    """

    def __init__(
        self,
        inputs: Float[Tensor, "examples features"],
        targets: Int[Tensor, " examples"],
        membership: Bool[np.ndarray, "models examples"],
        size: int,
    ):
        anyone = np.flatnonzero(membership.any(0))
        begin, end = (int(anyone[0]), int(anyone[-1]) + 1) if len(anyone) else (0, 0)
        self._shape = membership.shape
        self._chunks: list[tuple[slice, Rows]] = []
        """With all members present."""
        for start in range(begin, end, size):
            which = slice(start, min(start + size, end))
            shared, members = inputs[which].t(), torch.from_numpy(membership[:, which])
            self._chunks.append((which, Rows(shared, targets[which], members, squares(shared))))

    def everything(self) -> Iterator[Rows]:
        """All members of every model."""
        yield from (rows for _, rows in self._chunks)

    def of(self, batches: list[np.ndarray]) -> Iterator[Rows]:
        """These examples of each model, as indices into the data set."""
        present = np.zeros(self._shape, dtype=bool)
        for row, batch in zip(present, batches, strict=True):
            row[batch] = True
        for which, rows in self._chunks:
            yield dataclasses.replace(rows, present=torch.from_numpy(present[:, which]))


class Gathered:
    """Each model's own batch.

    Args:
        size: how many examples of each model are computed together.
    """

    def __init__(self, inputs: Float[Tensor, "examples features"], targets: Int[Tensor, " examples"], size: int):
        self._inputs, self._targets, self._size = inputs, targets, size

    def of(self, batches: list[np.ndarray]) -> Iterator[Rows]:
        """These examples of each model, as indices into the data set."""
        longest = max(len(batch) for batch in batches)
        places = torch.zeros(len(batches), longest, dtype=torch.int64)
        present = torch.zeros(len(batches), longest, dtype=torch.bool)
        for model, batch in enumerate(batches):
            places[model, : len(batch)] = torch.from_numpy(batch)
            present[model, : len(batch)] = True
        for start in range(0, longest, self._size):
            index = places[:, start : start + self._size]
            inputs = self._inputs.index_select(0, index.flatten()).unflatten(0, tuple(index.shape)).transpose(1, 2)
            yield Rows(inputs, self._targets[index], present[:, start : start + self._size])
