"""A model whose front is fixed: what it makes of an example never changes, so it can be made once.

    model = WithFront(front, head)      # model(inputs) is head(front(inputs))
    model(model.front(inputs))          # the same: what the front made is recognised by its shape

The front has no trainable weight and looks at one example at a time, so it is a transform of the data that costs no
privacy. Its constants may be made from the data set's public examples of other classes (``fit``), and from no other ones.
Making its output once and not at every step is a matter of speed alone.
"""

import hashlib
import weakref
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dptrain.data.dataset import DataSet
from dptrain.errors import DataError

CHUNK = 1024


class Front(Protocol):
    """A module without weights, whose output has a public shape that no input has."""

    output_shape: tuple[int, ...]

    def __call__(self, inputs: Tensor) -> Tensor: ...


@runtime_checkable
class Fitted(Protocol):
    """A front whose constants, which are buffers of its state, are made from public examples."""

    def fit(self, public: Tensor) -> None: ...


class WithFront(nn.Module):
    """A fixed transform and a trained head.

    Args:
        front: a module with ``output_shape``; see :class:`Front`.

    Raises:
        TypeError: the front has weights, so what it makes is not fixed.
    """

    def __init__(self, front: nn.Module, head: nn.Module):
        super().__init__()
        if any(True for _ in front.parameters()):
            raise TypeError(
                f"the front {type(front).__name__} has weights; a front is fixed, put what is trained into the head"
            )
        self.front = front
        self.head = head

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(inputs if inputs.shape[1:] == self.front.output_shape else self.front(inputs))


def fit(model: nn.Module, data: DataSet) -> None:
    """Makes the constants of a front that learns, from the data set's ``others``; every other model stays as it is.

    Raises:
        DataError: there are no such examples, or too few.
    """
    learner = model.front if isinstance(model, WithFront) else None
    if not isinstance(learner, Fitted):
        return
    if data.others is None:
        raise DataError(
            f"the model's front {type(learner).__name__} is made from public examples of other classes, and the data set "
            f"{data.name!r} comes with none; choose --model.name mlp or linear, or a data set with others, such as faces"
        )
    learner.fit(data.others.inputs)


_MADE: "weakref.WeakKeyDictionary[DataSet, tuple[str, Tensor]]" = weakref.WeakKeyDictionary()
"""What the latest front made of a data set, for all seeds and shadow models that are trained on it in this process."""


def made(front: nn.Module, data: DataSet) -> Tensor:
    """What the front makes of every example, ``[examples, *output_shape]``; made once a data set and front.

    It is held as long as the data set is: of MNIST's 70,000 digits behind the scattering transform, 1.1 GB.
    """
    key = _key(front)
    known = _MADE.get(data)
    if known is None or known[0] != key:
        _MADE.pop(data, None)
        known = _MADE[data] = key, _through(front, data.inputs)
    return known[1]


@torch.no_grad()
def _through(front: nn.Module, inputs: Tensor) -> Tensor:
    """Filled in place: a second copy of all of it, as joining parts would make, can be more than there is memory."""
    first = front(inputs[:1])
    whole = first.new_empty((len(inputs), *first.shape[1:]))
    for start in range(0, len(inputs), CHUNK):
        whole[start : start + CHUNK] = front(inputs[start : start + CHUNK])
    return whole


def _key(front: nn.Module) -> str:
    """A hash of what a front is: its modules with their settings, and its constants."""
    content = hashlib.sha256(repr(front).encode())
    for name, buffer in front.named_buffers():
        content.update(f"{name}{buffer.dtype}{tuple(buffer.shape)}".encode())
        content.update(buffer.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def inputs_of(model: nn.Module, data: DataSet) -> Tensor:
    """What the model is best given of every example: the data set's inputs, or what its front makes of them, made once."""
    return made(model.front, data) if isinstance(model, WithFront) else data.inputs
