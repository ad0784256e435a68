"""Examples by index, from whatever holds them: tensors, a :class:`DataSet`, or any map-style torch data set.

examples = Examples(dataset)              # anything with len() and [index]
inputs, targets = examples.take(np.array([3, 5, 8]))
"""

from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset
from torch.utils.data import default_collate as collate

from dptrain.data.dataset import DataSet
from dptrain.errors import DataError


class Examples:
    """A private list of examples.

    Raises:
        DataError: there are none, or the data set has no length or cannot be indexed.
    """

    def __init__(self, dataset: Any, indices: np.ndarray | None = None):
        if not (hasattr(dataset, "__len__") and (isinstance(dataset, DataSet) or hasattr(dataset, "__getitem__"))):
            raise DataError(
                f"a {type(dataset).__name__} cannot be drawn from by index; give a map-style data set, with len() and "
                "[index], not a DataLoader or an iterable one: batches are drawn by the privacy plan"
            )
        self._dataset: Any = dataset
        self._indices = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=np.int64)
        self._tensors: tuple[torch.Tensor, ...] | None = None
        if isinstance(dataset, DataSet):
            self._tensors = (dataset.inputs, dataset.targets)
        elif isinstance(dataset, TensorDataset):
            self._tensors = dataset.tensors
        if len(self._indices) == 0:
            raise DataError("the data set is empty: it has 0 examples to train on, and training needs at least 1")

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def fingerprint(self) -> str:
        """Private: a hash of the data set's content, where it knows one."""
        return self._dataset.fingerprint if isinstance(self._dataset, DataSet) else ""

    def take(self, positions: np.ndarray) -> Any:
        """The examples at these positions, collated: each tensor's first dimension counts them."""
        chosen = self._indices[positions]
        if self._tensors is not None:
            index = torch.from_numpy(chosen)
            return tuple(tensor[index] for tensor in self._tensors)
        return collate([self._dataset[int(index)] for index in chosen])
