"""A model and its loss once more, in float64: to tell what rounding explains from what it does not.

The twin is a copy. What the loss holds besides (class weights, a teacher), and what asks for float32 on the way, is widened
as it is used; whole numbers stay as they are.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from dptrain.clipping.fallback import LossFunction

NARROW = (torch.float32, torch.float16, torch.bfloat16)
_CASTS = {Tensor.float, Tensor.half, Tensor.bfloat16}


def _widen(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype in NARROW else value
    return torch.float64 if isinstance(value, torch.dtype) and value in NARROW else value


class _Wide(TorchFunctionMode):
    """Whatever is computed in it is computed in float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = pytree.tree_map(_widen, (args, kwargs or {}))
        return _widen((Tensor.double if func in _CASTS else func)(*args, **kwargs))


def in_float64(model: nn.Module, loss: LossFunction, chunk: Any) -> tuple[nn.Module, LossFunction, Any]:
    """A copy of the model, its loss and its examples, all in float64."""

    def wide(twin: nn.Module, rows: Any) -> Tensor:
        with _Wide():
            return loss(twin, rows)

    return copy.deepcopy(model).double(), wide, pytree.tree_map(_widen, chunk)
