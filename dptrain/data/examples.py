"""Examples by index, from whatever holds them: tensors, a :class:`DataSet`, or any map-style torch data set.

    examples = Examples(dataset)              # anything with len() and [index], also a torch Subset of it
    inputs, targets = examples.take(np.array([3, 5, 8]))

Where the unit of privacy is the user, ``units`` says whose each example is, by any whole numbers:

    examples = Examples(dataset, units=np.array([7, 7, 7, 40]))
    positions, offsets = examples.of_units(np.array([0, 1]), 2, secret_generator())
    positions[offsets[0] : offsets[1]]        # two of the three examples of user 7, drawn anew each time
"""

import copy
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset, TensorDataset
from torch.utils.data import default_collate as collate

from dptrain.data.dataset import DataSet
from dptrain.errors import DataError


class Examples:
    """A private list of examples.

    Args:
        indices: which of the data set's; left out, all.
        inputs: of a :class:`DataSet`, gives what stands in for its inputs: the same examples behind a fixed transform. It
            is asked when the first examples are taken.

    Raises:
        DataError: there are none, one is listed twice, the data set has no length or cannot be indexed, or ``units`` is not one
            number an example.
    """

    def __init__(
        self,
        dataset: Any,
        indices: np.ndarray | None = None,
        units: Any = None,
        inputs: Callable[[], torch.Tensor] | None = None,
    ):
        if not (hasattr(dataset, "__len__") and (isinstance(dataset, DataSet) or hasattr(dataset, "__getitem__"))):
            raise DataError(
                f"a {type(dataset).__name__} cannot be drawn from by index; give a map-style data set, with len() and "
                "[index], not a DataLoader or an iterable one: batches are drawn by the privacy plan"
            )
        self._indices = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=np.int64)
        while type(dataset) is Subset:  # of one of a class of its own it is not known what [index] does
            self._indices = np.asarray(dataset.indices, dtype=np.int64)[self._indices]
            dataset = dataset.dataset
        self._dataset: Any = dataset
        self._tensors: tuple[torch.Tensor, ...] | None = None
        self._inputs = inputs
        if isinstance(dataset, DataSet):
            self._tensors = (dataset.inputs, dataset.targets)
        elif isinstance(dataset, TensorDataset):
            self._tensors = dataset.tensors
        if len(self._indices) == 0:
            raise DataError("the data set is empty: it has 0 examples to train on, and training needs at least 1")
        if len(np.unique(self._indices)) < len(self._indices):
            raise DataError(
                "an example is listed more than once, and ε would count it as one however often it is trained on; list it once"
            )
        self._of_unit: list[np.ndarray] | None = None if units is None else _grouped(units, len(self._indices))

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def dataset(self) -> Any:
        """Private: what holds them, and maybe others."""
        return self._dataset

    @property
    def indices(self) -> np.ndarray:
        """Private: which of its examples they are."""
        return self._indices

    def others(self, indices: np.ndarray, units: Any = None) -> "Examples":
        """Other examples of the same data set, taken in the same way."""
        other = copy.copy(self)
        other._indices = np.asarray(indices, dtype=np.int64)
        other._of_unit = None if units is None else _grouped(units, len(other._indices))
        return other

    @property
    def has_units(self) -> bool:
        """Whether it is known whose each example is."""
        return self._of_unit is not None

    @property
    def units(self) -> int:
        """Private: how many units there are: users, or examples where each stands for itself."""
        return len(self) if self._of_unit is None else len(self._of_unit)

    @property
    def facts(self) -> tuple[object, ...]:
        """Private: what tells these examples from others, for processes that must have the same, in the same order.

        Of a :class:`DataSet` and of a ``TensorDataset`` the content is in it. That of another map-style data set is not
        compared: whoever gives it to several processes sees to it that index for index they find the same people.
        """
        of_unit = None if self._of_unit is None else [held.tolist() for held in self._of_unit]
        content = _content_of(self._dataset)
        order = hashlib.sha256(np.ascontiguousarray(self._indices).data).hexdigest()
        return len(self), self.units, content, order, hashlib.sha256(repr(of_unit).encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Private: a hash of the data set's content, where it knows one."""
        return self._dataset.fingerprint if isinstance(self._dataset, DataSet) else ""

    @property
    def content(self) -> str:
        """Private: a hash of the whole data set's content, also of a ``TensorDataset`` or ``Subset``; "" if none is known."""
        return _content_of(self._dataset)

    @property
    def name(self) -> str:
        """Of the data set, where it has one."""
        return self._dataset.name if isinstance(self._dataset, DataSet) else ""

    def take(self, positions: np.ndarray) -> Any:
        """The examples at these positions, collated: each tensor's first dimension counts them."""
        chosen = self._indices[positions]
        if self._inputs is not None:
            self._tensors, self._inputs = (self._inputs(), self._dataset.targets), None
        if self._tensors is not None:
            index = torch.from_numpy(chosen)
            return tuple(tensor[index] for tensor in self._tensors)
        return collate([self._dataset[int(index)] for index in chosen])

    def of_units(self, chosen: np.ndarray, most: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """At most ``most`` examples of each chosen unit, unit by unit: a fresh uniform subset where it has more.

        Args:
            chosen: numbers of units, from 0 to ``units - 1``.
            generator: a secret source of randomness.

        Returns:
            Positions ``[examples]``, and offsets ``[chosen + 1]``: those of the k-th chosen unit are
            ``positions[offsets[k]:offsets[k + 1]]``, sorted.
        """
        if self._of_unit is None:
            raise DataError("it is not known whose each example is; give units, a whole number for each example")
        kept = [self._of_unit[unit] for unit in chosen]
        kept = [
            held if len(held) <= most else np.sort(generator.choice(held, most, replace=False, shuffle=False)) for held in kept
        ]
        offsets = np.cumsum([0, *(len(held) for held in kept)], dtype=np.int64)
        return np.concatenate([np.empty(0, dtype=np.int64), *kept]), offsets


def _content_of(dataset: Any) -> str:
    """A subset's is that of the whole: who is in it is one choice among others from the same people."""
    if isinstance(dataset, Subset):
        return _content_of(dataset.dataset)
    if isinstance(dataset, DataSet):
        return dataset.fingerprint
    if not isinstance(dataset, TensorDataset):
        return ""
    hashed = hashlib.sha256()
    for tensor in dataset.tensors:
        bits = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        hashed.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + hashlib.sha256(bits.numpy().data).digest())
    return hashed.hexdigest()


def _grouped(units: Any, examples: int) -> list[np.ndarray]:
    """Positions of each unit's examples, in the order of the units' numbers."""
    labels = np.asarray(units)
    if labels.shape != (examples,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"units has the shape {labels.shape} and the type {labels.dtype} for {examples} examples; give one whole number an "
            "example, such as an array of user numbers"
        )
    _, number, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.split(np.argsort(number, kind="stable"), np.cumsum(counts)[:-1])
