"""How one layer's per-example gradients are measured and summed, from its input and its output's gradient alone.

A layer that computes ``out = f(input, weight)`` for each example by itself has per-example gradients that follow from the
input ``a`` and the gradient ``g`` of the summed loss with respect to ``out``, since the loss of example i reaches ``out[i]``
alone. For a linear layer over T positions

    G_i = Σ_t g_it a_itᵀ        ‖G_i‖² = Σ_t Σ_t' (a_it·a_it') (g_it·g_it')        Σ_i c_i G_i = Σ_it (c_i g_it) a_itᵀ

so that neither the norm (Goodfellow 2015, "Efficient Per-Example Gradient Computations"; Li et al. 2022, "Large Language
Models Can Be Strong Differentially Private Learners") nor the clipped sum (Bu et al. 2022, "Differentially Private
Optimization on Large Model at Small Cost") needs ``[examples, *parameter]`` in memory.

A rule is found by a module's exact type; a subclass may compute something else. Users add theirs:

    @register_rule(Scale)
    def scale(module, calls):
        return {"weight": Instantiated(torch.stack([(a * g).flatten(1).sum(1, keepdim=True) for a, g in calls]).sum(0))}
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dptrain.clipping.clipped import squared_lengths


class Unfit(Exception):
    """This call of a layer is outside of what its rule covers; the gradient has to be computed another way."""


class Contribution(ABC):
    """What one parameter's per-example gradients are made of."""

    @abstractmethod
    def squared_norms(self) -> Tensor:
        """``[examples]``, in float64; rounding never makes one smaller than it is by more than a few units."""

    @abstractmethod
    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Σ_i factors_i G_i, shaped like the parameter."""

    @abstractmethod
    def instantiate(self) -> "Instantiated":
        """The per-example gradients themselves."""

    @abstractmethod
    def keep(self, kept: Tensor) -> "Contribution":
        """The same with exact zeros for the examples that are not kept, also where they hold NaN."""


def _blank(values: Tensor, kept: Tensor) -> Tensor:
    return torch.where(kept.view(-1, *(1,) * (values.dim() - 1)), values, torch.zeros_like(values))


@dataclass(frozen=True, eq=False)
class Instantiated(Contribution):
    """Gradients ``[examples, *parameter]``, for parameters that are small or shared."""

    gradients: Tensor

    def squared_norms(self) -> Tensor:
        return squared_lengths(self.gradients.flatten(1))

    def weighted_sum(self, factors: Tensor) -> Tensor:
        return torch.tensordot(factors.to(self.gradients.dtype), self.gradients, dims=1)

    def instantiate(self) -> "Instantiated":
        return self

    def keep(self, kept: Tensor) -> "Instantiated":
        return Instantiated(_blank(self.gradients, kept))


@dataclass(frozen=True, eq=False)
class OuterProducts(Contribution):
    """``G_i = Σ_t g_it a_itᵀ`` from ``inputs [examples, positions, p]`` and ``outputs [examples, positions, d]``."""

    inputs: Tensor
    outputs: Tensor
    shape: tuple[int, ...]

    def squared_norms(self) -> Tensor:
        positions, p, d = self.inputs.shape[1], self.inputs.shape[2], self.outputs.shape[2]
        if positions == 1:
            return squared_lengths(self.inputs[:, 0]) * squared_lengths(self.outputs[:, 0])
        if 2 * positions * positions > p * d:
            return self.instantiate().squared_norms()
        products = torch.bmm(self.inputs, self.inputs.mT).mul_(torch.bmm(self.outputs, self.outputs.mT))
        squares = products.flatten(1).sum(1, dtype=torch.float64)
        # Terms may cancel, and then rounding is large beside what is left: it is added, so that no norm comes out short.
        longest = (squared_lengths(self.inputs) * squared_lengths(self.outputs)).sqrt().sum(1).square()
        return squares.clamp_min(0) + longest * (torch.finfo(self.inputs.dtype).eps * (p + d) ** 0.5)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        scaled = self.outputs * factors.to(self.outputs.dtype)[:, None, None]
        return (scaled.flatten(0, 1).T @ self.inputs.flatten(0, 1)).view(self.shape)

    def instantiate(self) -> Instantiated:
        return Instantiated(torch.bmm(self.outputs.mT, self.inputs).view(-1, *self.shape))

    def keep(self, kept: Tensor) -> "OuterProducts":
        return OuterProducts(_blank(self.inputs, kept), _blank(self.outputs, kept), self.shape)


@dataclass(frozen=True, eq=False)
class Rows(Contribution):
    """Rows of a table that each example used: ``indices [examples, positions]``, ``outputs [examples, positions, d]``.

    No ``[examples, rows]`` is made: two positions of an example add up where they used the same row.
    """

    indices: Tensor
    outputs: Tensor
    rows: int

    def squared_norms(self) -> Tensor:
        same = self.indices[:, :, None] == self.indices[:, None, :]
        products = torch.bmm(self.outputs, self.outputs.mT).where(same, torch.zeros((), dtype=self.outputs.dtype))
        squares = products.flatten(1).sum(1, dtype=torch.float64).clamp_min(0)
        longest = squared_lengths(self.outputs).sqrt().sum(1).square()
        return squares + longest * (torch.finfo(self.outputs.dtype).eps * self.outputs.shape[2] ** 0.5)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        scaled = self.outputs * factors.to(self.outputs.dtype)[:, None, None]
        total = scaled.new_zeros(self.rows, scaled.shape[2])
        return total.index_add_(0, self.indices.flatten(), scaled.flatten(0, 1))

    def instantiate(self) -> Instantiated:
        examples, _, width = self.outputs.shape
        offset = torch.arange(examples, device=self.indices.device)[:, None] * self.rows
        flat = self.outputs.new_zeros(examples * self.rows, width)
        flat.index_add_(0, (self.indices + offset).flatten(), self.outputs.flatten(0, 1))
        return Instantiated(flat.view(examples, self.rows, width))

    def keep(self, kept: Tensor) -> "Rows":
        return Rows(self.indices, _blank(self.outputs, kept), self.rows)


Calls = list[tuple[Tensor, Tensor]]
"""A layer's calls in one forward pass: input and output gradient of each, ``[examples, ...]``."""
Rule = Callable[..., Mapping[str, Contribution]]
"""``rule(module, calls)`` gives the contribution of each of the module's own parameters, trainable or not."""

RULES: dict[type[nn.Module], Rule] = {}


def register_rule(*kinds: type[nn.Module]) -> Callable[[Rule], Rule]:
    """A decorator: this rule is for modules of exactly these types. A later registration takes an earlier one's place."""

    def add(rule: Rule) -> Rule:
        for kind in kinds:
            RULES[kind] = rule
        return rule

    return add


def _positions(tensor: Tensor) -> Tensor:
    """``[examples, ..., features]`` as ``[examples, positions, features]``."""
    return tensor.reshape(tensor.shape[0], -1, tensor.shape[-1]) if tensor.dim() != 2 else tensor[:, None]


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


@register_rule(nn.Linear)
def linear(module: nn.Linear, calls: Calls) -> dict[str, Contribution]:
    """Any number of leading dimensions; several calls are further positions."""
    if any(a.dim() < 2 for a, _ in calls):
        raise Unfit("a linear layer was given an example without a batch dimension")
    inputs, outputs = _join([_positions(a) for a, _ in calls]), _join([_positions(g) for _, g in calls])
    found: dict[str, Contribution] = {"weight": OuterProducts(inputs, outputs, tuple(module.weight.shape))}
    if module.bias is not None:
        found["bias"] = Instantiated(outputs.sum(1))
    return found


@register_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, calls: Calls) -> dict[str, Contribution]:
    """Stride, padding, dilation and groups; in two dimensions without groups the unfolded input makes it a linear layer."""
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise Unfit(f"padding {module.padding!r} in mode {module.padding_mode!r} has no rule")
    dimensions = len(module.kernel_size)
    if any(a.dim() != dimensions + 2 for a, _ in calls):
        raise Unfit("a convolution was given an example without a batch dimension")
    found: dict[str, Contribution] = {}
    if dimensions == 2 and module.groups == 1:
        shape = tuple(module.weight.shape)
        geometry: Any = (module.kernel_size, module.dilation, module.padding, module.stride)
        unfolded = [F.unfold(a, *geometry).mT for a, _ in calls]
        found["weight"] = OuterProducts(_join(unfolded), _join([g.flatten(2).mT for _, g in calls]), shape)
    else:
        found["weight"] = Instantiated(torch.stack([_grouped(module, a, g) for a, g in calls]).sum(0))
    if module.bias is not None:
        found["bias"] = Instantiated(torch.stack([g.flatten(2).sum(2) for _, g in calls]).sum(0))
    return found


def _grouped(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, a: Tensor, g: Tensor) -> Tensor:
    """Per-example weight gradients as one convolution's, whose groups are the examples' groups."""
    examples = a.shape[0]
    weight = module.weight.detach().expand(examples, *module.weight.shape).flatten(0, 1)
    _, gradient, _ = torch.ops.aten.convolution_backward(
        g.reshape(1, -1, *g.shape[2:]), a.reshape(1, -1, *a.shape[2:]), weight, None, module.stride, module.padding,
        module.dilation, False, [0] * len(module.kernel_size), module.groups * examples, [False, True, False],
    )  # fmt: skip
    return gradient.view(examples, *module.weight.shape)


@register_rule(nn.Embedding)
def embedding(module: nn.Embedding, calls: Calls) -> dict[str, Contribution]:
    if module.max_norm is not None or module.scale_grad_by_freq or module.sparse:
        raise Unfit("an embedding with max_norm, scale_grad_by_freq or sparse gradients has no rule")
    indices = _join([a.reshape(a.shape[0], -1) for a, _ in calls])
    outputs = _join([g.reshape(g.shape[0], -1, g.shape[-1]) for _, g in calls])
    if module.padding_idx is not None:
        outputs = outputs.masked_fill((indices == module.padding_idx)[:, :, None], 0.0)
    return {"weight": Rows(indices, outputs, module.num_embeddings)}


def _affine(scaled: list[Tensor], shifted: list[Tensor], module: nn.Module) -> dict[str, Contribution]:
    found: dict[str, Contribution] = {"weight": Instantiated(torch.stack(scaled).sum(0))}
    if getattr(module, "bias", None) is not None:
        found["bias"] = Instantiated(torch.stack(shifted).sum(0))
    return found


def _leading(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Summed over all dimensions between the examples and the last ones, of this shape."""
    return values.reshape(values.shape[0], -1, *shape).sum(1)


@register_rule(nn.LayerNorm)
def layer_norm(module: nn.LayerNorm, calls: Calls) -> dict[str, Contribution]:
    shape = tuple(module.normalized_shape)
    if any(a.dim() <= len(shape) for a, _ in calls):
        raise Unfit("a layer norm covers the examples' own dimension")
    scaled = [_leading(g * F.layer_norm(a, shape, eps=module.eps), shape) for a, g in calls]
    return _affine(scaled, [_leading(g, shape) for _, g in calls], module)


@register_rule(nn.RMSNorm)
def rms_norm(module: nn.RMSNorm, calls: Calls) -> dict[str, Contribution]:
    shape = tuple(module.normalized_shape)
    if any(a.dim() <= len(shape) for a, _ in calls):
        raise Unfit("an RMS norm covers the examples' own dimension")
    return _affine([_leading(g * F.rms_norm(a, list(shape), eps=module.eps), shape) for a, g in calls], [], module)


def _channels(values: Tensor) -> Tensor:
    """``[examples, channels, ...]`` summed over all that follows the channels."""
    return values.reshape(*values.shape[:2], -1).sum(2)


@register_rule(nn.GroupNorm)
def group_norm(module: nn.GroupNorm, calls: Calls) -> dict[str, Contribution]:
    scaled = [_channels(g * F.group_norm(a, module.num_groups, eps=module.eps)) for a, g in calls]
    return _affine(scaled, [_channels(g) for _, g in calls], module)


@register_rule(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def instance_norm(module: nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d, calls: Calls) -> dict[str, Contribution]:
    if module.track_running_stats or any(a.dim() < 3 or a.dim() != _batched(module) for a, _ in calls):
        raise Unfit("an instance norm keeps statistics, or was given an example without a batch dimension")
    scaled = [_channels(g * F.instance_norm(a, eps=module.eps)) for a, g in calls]
    return _affine(scaled, [_channels(g) for _, g in calls], module)


def _batched(module: nn.Module) -> int:
    return {nn.InstanceNorm1d: 3, nn.InstanceNorm2d: 4, nn.InstanceNorm3d: 5}[type(module)]
