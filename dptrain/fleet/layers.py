"""The layers of many models at once: forward, backward and per-example norms, as batched matrix products.

Activations are ``[models, units, examples]``, so that what is done along units (softmax, squares) runs over contiguous
examples. While all models see the same examples an activation is ``[units, examples]``, and one matrix product serves every
model.

A linear layer's gradient of one example is the outer product g aᵀ of its output's gradient and its input, and its bias' is g.
Their norm needs neither (Goodfellow 2015, "Efficient Per-Example Gradient Computations"):

    ‖g aᵀ‖² + ‖g‖² = ‖g‖² (‖a‖² + 1)

and the sum of clipped gradients, with f the factor of each example, is (f g) aᵀ over all of them: one more product.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dptrain.clipping.clipped import BLOCK
from dptrain.models.front import WithFront

KINDS = (nn.Flatten, nn.Linear, nn.Tanh, nn.ReLU, nn.Dropout)


class Unstackable(Exception):
    """Models of this recipe are not computed by a stack; they are trained one after the other."""


def cross_entropy_gradient(
    logits: Float[Tensor, "models classes rows"], targets: Int[Tensor, "... rows"], smoothing: float
) -> Float[Tensor, "models classes rows"]:
    """Of each example's cross entropy, to its own logits: probabilities minus the smoothed target.

    Args:
        targets: of all models, or of each.
    """
    gradient = torch.softmax(logits, 1)
    index = targets.expand(len(logits), -1)[:, None]
    gradient.scatter_add_(1, index, torch.full_like(gradient[:, :1], smoothing - 1.0))
    return gradient.sub_(smoothing / logits.shape[1]) if smoothing else gradient


LOSS_GRADIENTS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"cross_entropy": cross_entropy_gradient}
"""The losses whose gradient is known here, by the name in the registry."""


def squares(values: Float[Tensor, "... units rows"]) -> Float[Tensor, "... rows"]:
    """Sum of squares over the units, in float64 over short blocks of the values' own type, as clipping does."""
    blocks = [block.square().sum(-2).double() for block in values.split(BLOCK, -2)]
    return torch.stack(blocks).sum(0) if len(blocks) > 1 else blocks[0]


@dataclass(eq=False)
class _Linear:
    """A linear layer of all models, with what the latest pass left."""

    weight_name: str
    bias_name: str | None
    weight: Float[Tensor, "models out into"]
    bias: Float[Tensor, "models out"] | None
    inputs: Tensor | None = None
    gradients: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        self.inputs = inputs
        models, out, _ = self.weight.shape
        if inputs.dim() == 2:
            flat = self.weight.flatten(0, 1)
            product = flat @ inputs if self.bias is None else torch.addmm(self.bias.reshape(-1, 1), flat, inputs)
            return product.unflatten(0, (models, out))
        return self.weight @ inputs if self.bias is None else torch.baddbmm(self.bias[:, :, None], self.weight, inputs)

    def sum_into(self, total: dict[str, Tensor], factors: Tensor | None) -> None:
        """Adds Σ f g aᵀ of every model; factors ``[models, rows]``, or none where the gradients carry them. Uses the gradients
        up."""
        assert self.inputs is not None
        assert self.gradients is not None
        gradients = self.gradients if factors is None else self.gradients.mul_(factors[:, None])
        if self.inputs.dim() == 2:
            of_weight = (gradients.flatten(0, 1) @ self.inputs.t()).view_as(self.weight)
        else:
            of_weight = gradients @ self.inputs.transpose(1, 2)
        parts = {self.weight_name: of_weight}
        if self.bias_name is not None:
            parts[self.bias_name] = gradients.sum(-1)
        for name, part in parts.items():
            total[name] = total[name].add_(part) if name in total else part

    def keep(self, wanted: Bool[Tensor, "models rows"]) -> None:
        """Puts 0 for the other examples, whatever they hold."""
        assert self.inputs is not None
        assert self.gradients is not None
        self.gradients = torch.where(wanted[:, None], self.gradients, 0.0)
        self.inputs = torch.where(wanted[:, None], self.inputs, 0.0)


class Chain:
    """A chain of layers, with the weights of every model.

    Args:
        model: one of the models: its structure.
        stacked: parameter name to the models' own, ``[models, *shape]``; read anew in every pass.

    Raises:
        Unstackable: it is no ``nn.Sequential`` of the layers in :data:`KINDS`, behind a fixed front or not.
    """

    def __init__(self, model: nn.Module, stacked: dict[str, Tensor]):
        self.models = len(next(iter(stacked.values()))) if stacked else 0
        self._steps: list[_Linear | nn.Module] = []
        self._made: list[Tensor] = []
        names = {module: name for name, module in model.named_modules()}
        for module in layers_of(model):
            if not isinstance(module, nn.Linear):
                self._steps.append(module)
                continue
            weight, bias = f"{names[module]}.weight", None if module.bias is None else f"{names[module]}.bias"
            self._steps.append(_Linear(weight, bias, stacked[weight], None if bias is None else stacked[bias]))
        self.linears = [step for step in self._steps if isinstance(step, _Linear)]
        before = self._steps[: self._steps.index(self.linears[0])]
        self._bare = all(isinstance(step, nn.Flatten) for step in before)
        self._drops = any(isinstance(step, nn.Dropout) for step in before)

    def width(self) -> int:
        """Units of the widest activation that each model has for itself; its inputs are none, unless they are dropped out."""
        own = [layer.weight.shape[1] for layer in self.linears]
        return max(*own, self.linears[0].weight.shape[2]) if self._drops else max(own)

    def forward(self, inputs: Tensor, training: bool = False) -> Float[Tensor, "models classes rows"]:
        """Logits; of inputs ``[features, rows]`` that all models see, or ``[models, features, rows]``."""
        values, self._made = inputs, []
        for step in self._steps:
            made = values
            if isinstance(step, _Linear):
                values = made = step.forward(values)
            elif isinstance(step, nn.Tanh):
                values = made = values.tanh()
            elif isinstance(step, nn.ReLU):
                values = made = values.relu()
            elif isinstance(step, nn.Dropout) and training and step.p > 0:
                shape = (self.models, *values.shape[-2:])
                made = torch.empty(shape, dtype=values.dtype).bernoulli_(1 - step.p).div_(1 - step.p)
                values = values * made
            self._made.append(made)
        return values

    def backward(self, gradients: Float[Tensor, "models classes rows"]) -> None:
        """Takes each example's gradient to its logits back to the output of every linear layer."""
        first = self._steps.index(self.linears[0])
        for position in range(len(self._steps) - 1, first - 1, -1):
            step, made = self._steps[position], self._made[position]
            if isinstance(step, _Linear):
                step.gradients = gradients
                if position > first:
                    gradients = step.weight.transpose(1, 2) @ gradients
            elif isinstance(step, nn.Tanh):
                gradients = gradients * (1 - made.square())
            elif isinstance(step, nn.ReLU):
                gradients = gradients * (made > 0)
            elif isinstance(step, nn.Dropout) and step.p > 0:
                gradients = gradients * made

    def squares(self, of_inputs: Tensor | None = None) -> Float[Tensor, "layers models rows"]:
        """Squared norm of each layer's part of each example's gradient, float64.

        Args:
            of_inputs: those of the inputs, ``[rows]``, where they are known; the first layer may see them as they are.
        """
        found = []
        for layer in self.linears:
            assert layer.inputs is not None
            assert layer.gradients is not None
            known = of_inputs if self._bare and layer is self.linears[0] else None
            inputs = squares(layer.inputs) if known is None else known
            found.append(squares(layer.gradients) * (inputs if layer.bias is None else inputs + 1))
        return torch.stack(found)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of a model that is a chain, in order.

    Raises:
        Unstackable: it is none, or something was attached to it.
    """
    body = model.head if type(model) is WithFront else model
    layers = _flattened(body)
    modules = [model, body, *body.modules()]
    hooked = any(getattr(module, hooks) for module in modules for hooks in ("_forward_hooks", "_forward_pre_hooks"))
    if hooked or len(set(layers)) < len(layers) or not any(isinstance(layer, nn.Linear) for layer in layers):
        raise Unstackable("the model has hooks, uses a layer twice, or has no linear layer")
    if any(isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) != (1, -1) for layer in layers):
        raise Unstackable("a Flatten keeps some of the dimensions")
    held = {value for layer in layers for value in layer.parameters()}
    if held != set(model.parameters()) or not all(value.requires_grad for value in held):
        raise Unstackable("some parameters are outside of the layers, or are not trained")
    return layers


def _flattened(module: nn.Module) -> list[nn.Module]:
    if type(module) is nn.Sequential:
        return [layer for part in module for layer in _flattened(part)]
    if type(module) not in KINDS:
        raise Unstackable(f"a {type(module).__name__} is not stacked")
    return [module]
