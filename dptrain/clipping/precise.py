"""A model and its loss once more, in float64: to tell what rounding explains from what it does not.

    with in_float64(model):
        losses = wide(loss)(model, widened(chunk))

The model is the same one, with wider tensors in the place of its own while the context lasts. What the loss holds besides
(class weights, a teacher), and what asks for float32 on the way, is widened as it is used; whole numbers stay as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from dptrain.clipping.fallback import LossFunction

NARROW = (torch.float32, torch.float16, torch.bfloat16)
_CASTS = {Tensor.float, Tensor.half, Tensor.bfloat16}


def widened(value: Any) -> Any:
    """The same with every floating-point tensor, and type, in float64."""
    return pytree.tree_map(_widen, value)


def _widen(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype in NARROW else value
    return torch.float64 if isinstance(value, torch.dtype) and value in NARROW else value


class _Wide(TorchFunctionMode):
    """Whatever is computed in it is computed in float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = widened((args, kwargs or {}))
        return _widen((Tensor.double if func in _CASTS else func)(*args, **kwargs))


def wide(loss: LossFunction) -> LossFunction:
    """The loss, computed in float64."""

    def compute(model: nn.Module, rows: Any) -> Tensor:
        with _Wide():
            return loss(model, rows)

    return compute


@contextmanager
def in_float64(model: nn.Module) -> Iterator[None]:
    """While it lasts, parameters and buffers are float64 copies; afterwards, whatever happens, the model's own again."""
    own: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (held, dict(held)) for module in model.modules() for held in (module._parameters, module._buffers)
    ]
    twins: dict[int, Tensor] = {}
    try:
        for held, values in own:
            for key, value in values.items():
                if isinstance(value, Tensor) and value.dtype in NARROW:
                    held[key] = twins.setdefault(id(value), _twin(value))
        _relink(model)
        yield
    finally:
        for held, values in own:
            held.clear()
            held.update(values)
        _relink(model)


def _twin(value: Tensor) -> Tensor:
    copy = value.detach().double()
    return nn.Parameter(copy, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else copy


def _relink(model: nn.Module) -> None:
    """Recurrent layers hold a list of their weights beside the weights."""
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]
