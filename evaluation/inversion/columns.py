"""Which inputs of a table model belong to which column, and which values a column can take.

    layout = Layout.of(data.columns)
    layout.values("sex")                        # one block of inputs a value, [values, width]
    layout.codes(inputs, "sex")                 # which value each example has, [examples]
    layout.put(inputs, "sex", block)            # the same examples with another value

A category has its categories as values, a number ``GRID`` values evenly spaced between its public bounds, so that an attack on
either is a distribution over values. A column whose cells may be missing has one value more, the last: missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dptrain.data.table import Column, parse_column
from dptrain.errors import DataError, unknown_name

GRID = 41
"""Values of a number: a step is 2.5% of its public range."""


@dataclass(frozen=True)
class Layout:
    """The columns of a table, in the order of their inputs."""

    columns: tuple[Column, ...]

    @classmethod
    def of(cls, columns: Sequence[str]) -> "Layout":
        """From the texts of :attr:`DataSet.columns`.

        Raises:
            DataError: there are none: the data set is no table.
        """
        if not columns:
            raise DataError("the data set has no columns; attribute inference takes a table, such as 'iwpc' or 'table'")
        return cls(tuple(parse_column(text) for text in columns))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def width(self) -> int:
        """Inputs of all columns together."""
        return sum(_width(column) for column in self.columns)

    def column(self, name: str) -> Column:
        """Raises DataError, with the nearest name, where there is no such column."""
        if name not in self.names:
            raise unknown_name("column", name, self.names, DataError)
        return self.columns[self.names.index(name)]

    def place(self, name: str) -> slice:
        """The inputs of a column."""
        at = self.columns.index(self.column(name))
        start = sum(_width(column) for column in self.columns[:at])
        return slice(start, start + _width(self.columns[at]))

    def values(self, name: str) -> Float[np.ndarray, "values width"]:
        """Each value that the column can take, as its inputs."""
        column = self.column(name)
        grid = np.linspace(-0.5, 0.5, GRID)[:, None]
        blocks = np.eye(len(column.categories)) if column.kind == "category" else grid
        if column.may_be_missing:
            present = np.column_stack([blocks, np.zeros(len(blocks))])
            blocks = np.vstack([present, np.eye(1, present.shape[1], present.shape[1] - 1)])
        return blocks

    def texts(self, name: str) -> tuple[str, ...]:
        """The values as a person reads them."""
        column = self.column(name)
        if column.kind == "category":
            texts = column.categories
        else:
            texts = tuple(f"{value:.6g}" for value in np.linspace(*column.bounds, GRID))
        return (*texts, "missing") if column.may_be_missing else texts

    def codes(self, inputs: Float[Tensor, "examples inputs"], name: str) -> Int[np.ndarray, " examples"]:
        """The number of each example's value; of a number, of the nearest one."""
        block = inputs[:, self.place(name)].double().numpy()
        values = self.values(name)
        return ((block[:, None] - values[None]) ** 2).sum(2).argmin(1)

    def put(
        self, inputs: Float[Tensor, "examples inputs"], name: str, block: Float[np.ndarray, "*examples width"]
    ) -> Float[Tensor, "examples inputs"]:
        """A copy in which the column has other inputs: one block for all, or one an example."""
        changed = inputs.clone()
        changed[:, self.place(name)] = torch.from_numpy(np.asarray(block)).to(inputs.dtype)
        return changed

    def read(self, inputs: Float[Tensor, "examples inputs"], names: Sequence[str]) -> Float[np.ndarray, "examples features"]:
        """The inputs of some columns alone."""
        parts = [inputs[:, self.place(name)].double().numpy() for name in names]
        return np.hstack(parts) if parts else np.empty((len(inputs), 0))


def _width(column: Column) -> int:
    return (1 if column.kind == "number" else len(column.categories)) + column.may_be_missing
