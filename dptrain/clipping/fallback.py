"""Per-example gradients of any module, by ``torch.func`` (``vmap`` over ``grad``).

Right for everything that ``vmap`` can follow, and it holds one gradient an example in memory: ``[examples, *parameter]``.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.utils import _pytree as pytree

from dptrain.clipping.clipped import by_example, squared_lengths
from dptrain.errors import ProtocolError

ALONE: ContextVar[bool] = ContextVar("an example is computed by itself", default=False)
"""Set while :class:`PerExampleGradients` computes: a loss that compares examples finds a batch of one, and may refuse that."""

LossFunction = Callable[[nn.Module, Any], Tensor]
"""``loss(model, batch)`` gives one value an example, ``[examples]``."""


class LossModule(nn.Module):
    """A model and its loss as one module, so that its parameters can be swapped for a function's arguments."""

    def __init__(self, model: nn.Module, loss: LossFunction):
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Any) -> Any:
        return self.loss(self.model, batch)


def check_losses(losses: Any, examples: int) -> Tensor:
    """Raises ProtocolError unless there is one loss an example."""
    if not isinstance(losses, Tensor):
        raise ProtocolError(
            f"the loss gave a {type(losses).__name__} for a batch of {examples}; it must give a tensor, one value an example, "
            f"shape ({examples},)"
        )
    if tuple(losses.shape) != (examples,):
        raise ProtocolError(
            f"the loss gave a tensor of shape {tuple(losses.shape)} for a batch of {examples}; it must give one value an "
            f"example, shape ({examples},): use reduction='none' and do not average"
        )
    return losses


class PerExampleGradients:
    """Gradients of each example by itself, for the trainable parameters of a model."""

    def __init__(self, model: nn.Module, loss: LossFunction):
        self._module = LossModule(model, loss)
        self._gradients = vmap(grad_and_value(self._one_example), in_dims=(None, 0), randomness="different")

    def _one_example(self, parameters: dict[str, Tensor], example: Any) -> Tensor:
        batch = pytree.tree_map(lambda leaf: leaf.unsqueeze(0) if isinstance(leaf, Tensor) else leaf, example)
        losses = functional_call(self._module, {f"model.{name}": value for name, value in parameters.items()}, (batch,))
        return check_losses(losses, 1)[0]

    def __call__(self, parameters: dict[str, Tensor], batch: Any) -> tuple[dict[str, Tensor], Tensor]:
        """Gradients ``[examples, *parameter]`` by name, and losses ``[examples]``."""
        detached = {name: value.detach() for name, value in parameters.items()}
        alone = ALONE.set(True)
        try:
            gradients, losses = self._gradients(detached, batch)
        except (RuntimeError, ValueError) as error:
            if "vmap" not in str(error):
                raise
            said, model = " ".join(str(error).split())[:300], type(self._module.model).__name__
            raise ProtocolError(
                f"the gradient of each example by itself cannot be computed for {model}: torch.func says {said!r}; keep to "
                "tensors in the batch, and branch on no tensor's value"
            ) from error
        finally:
            ALONE.reset(alone)
        return gradients, losses.detach()


def squares_of(gradients: dict[str, Tensor], layers: list[list[str]] | None = None) -> Tensor:
    """Squared L2 norm of each example's gradient, ``[layers, examples]``, in float64; one layer where none are named."""
    squares = {name: squared_lengths(by_example(gradient)) for name, gradient in gradients.items()}
    return torch.stack([torch.stack([squares[name] for name in names]).sum(0) for names in layers or [list(squares)]])
