"""A registry: what each layer's per-example gradients are made of, from its input and its output's gradient alone.

A rule is found by a module's exact type; a subclass may compute something else. Users add theirs:

    @register_rule(Scale)
    def scale(module, calls):
        return {"weight": Instantiated(torch.stack([(a * g).flatten(1).sum(1, keepdim=True) for a, g in calls]).sum(0))}

A layer whose output does not tell enough (a recurrent one, attention) is run by a forward of its own instead, which hands in
what it learns during the backward pass: :func:`register_forward`.
"""

from collections.abc import Callable, Mapping, Set
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from dptrain.clipping.contributions import Contribution, Instantiated, OuterProducts, Rows
from dptrain.clipping.convolution import Convolution, Geometry


class Unfit(Exception):
    """This call of a layer is outside of what its rule covers; the gradient has to be computed another way."""


class Wrong(Unfit):
    """What a rule gives is not the gradient of the example by itself."""


Calls = list[tuple[Tensor, Tensor]]
"""A layer's calls in one forward pass: input and output gradient of each, ``[examples, ...]``."""
Rule = Callable[..., Mapping[str, Contribution]]
"""``rule(module, calls)`` gives the contribution of each of the module's own parameters, trainable or not."""

RULES: dict[type[nn.Module], Rule] = {}


@runtime_checkable
class Deposit(Protocol):
    """Where a rewritten forward leaves what its backward pass found."""

    @property
    def wanted(self) -> Set[str]:
        """The keys of the module's parameters that are trained; of its children, with a dot."""
        ...

    def __call__(self, key: str, contribution: Contribution, /) -> None:
        """The per-example gradients of one parameter in this call; at most once a key."""
        ...

    def leaf(self, tensor: Tensor, /) -> None:
        """A tensor that the backward pass has to reach."""
        ...


Forward = Callable[[Any, tuple[Any, ...], dict[str, Any], Deposit], Any]
"""``forward(module, args, kwargs, deposit)`` gives what ``module(*args, **kwargs)`` gives."""

FORWARDS: dict[type[nn.Module], Forward] = {}


def register_rule(*kinds: type[nn.Module]) -> Callable[[Rule], Rule]:
    """A decorator: this rule is for modules of exactly these types. A later registration takes an earlier one's place."""

    def add(rule: Rule) -> Rule:
        for kind in kinds:
            RULES[kind] = rule
        return rule

    return add


def register_forward(*kinds: type[nn.Module]) -> Callable[[Forward], Forward]:
    """A decorator: modules of exactly these types, and their children, are run by this forward during the pass."""

    def add(forward: Forward) -> Forward:
        for kind in kinds:
            FORWARDS[kind] = forward
        return forward

    return add


def _positions(tensor: Tensor) -> Tensor:
    """``[examples, ..., features]`` as ``[examples, positions, features]``."""
    return tensor.reshape(tensor.shape[0], -1, tensor.shape[-1]) if tensor.dim() != 2 else tensor[:, None]


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _total(parts: list[Tensor]) -> Instantiated:
    return Instantiated(parts[0] if len(parts) == 1 else torch.stack(parts).sum(0))


@register_rule(nn.Linear)
def linear(module: nn.Linear, calls: Calls) -> dict[str, Contribution]:
    """Any number of leading dimensions; several calls are further positions."""
    if any(a.dim() < 2 for a, _ in calls):
        raise Unfit("a linear layer was given an example without a batch dimension")
    inputs, outputs = _join([_positions(a) for a, _ in calls]), _join([_positions(g) for _, g in calls])
    found: dict[str, Contribution] = {"weight": OuterProducts(inputs, outputs, tuple(module.weight.shape))}
    if module.bias is not None:
        found["bias"] = Instantiated(outputs[:, 0] if outputs.shape[1] == 1 else outputs.sum(1))
    return found


@register_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(module: _ConvNd, calls: Calls) -> dict[str, Contribution]:
    """Any stride, padding (by number or by name, of any mode), dilation and groups."""
    geometry = _geometry(module, calls, "convolution")
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    sides: Any = module._reversed_padding_repeated_twice
    padded = [F.pad(a, sides, mode=mode) if any(sides) else a for a, _ in calls]
    return _convolved(module, padded, [g for _, g in calls], calls, geometry)


@register_rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_convolution(module: _ConvTransposeNd, calls: Calls) -> dict[str, Contribution]:
    """The weight's gradient is that of a convolution whose input is the output's gradient, and the other way round."""
    geometry = _geometry(module, calls, "transposed convolution")
    sides: Any = [side for padding in reversed(module.padding) for side in (padding, padding)]
    padded = [F.pad(g, sides) if any(sides) else g for _, g in calls]
    return _convolved(module, padded, [a for a, _ in calls], calls, geometry)


def _geometry(module: _ConvNd, calls: Calls, what: str) -> Geometry:
    if any(a.dim() != len(module.kernel_size) + 2 for a, _ in calls):
        raise Unfit(f"a {what} was given an example without a batch dimension")
    return Geometry(module.kernel_size, module.stride, module.dilation, module.groups, tuple(module.weight.shape))


def _convolved(
    module: _ConvNd, inputs: list[Tensor], outputs: list[Tensor], calls: Calls, geometry: Geometry
) -> dict[str, Contribution]:
    parts: list[Contribution] = [Convolution(a, g, geometry) for a, g in zip(inputs, outputs, strict=True)]
    one = parts[0] if len(parts) == 1 else _total([part.instantiate().gradients for part in parts])
    found: dict[str, Contribution] = {"weight": one}
    if module.bias is not None:
        found["bias"] = _total([_channels(g) for _, g in calls])
    return found


@register_rule(nn.Embedding)
def embedding(module: nn.Embedding, calls: Calls) -> dict[str, Contribution]:
    if module.max_norm is not None or module.scale_grad_by_freq:
        raise Unfit("an embedding with max_norm or scale_grad_by_freq changes with what else is in the batch")
    indices = _join([a.reshape(a.shape[0], -1) for a, _ in calls])
    outputs = _join([g.reshape(g.shape[0], -1, g.shape[-1]) for _, g in calls])
    if module.padding_idx is not None:
        outputs = outputs.masked_fill((indices == module.padding_idx)[:, :, None], 0.0)
    return {"weight": Rows(indices, outputs, module.num_embeddings)}


@register_rule(nn.EmbeddingBag)
def embedding_bag(module: nn.EmbeddingBag, calls: Calls) -> dict[str, Contribution]:
    """Bags of one length, ``[examples, positions]``, summed or averaged: every position has its bag's gradient."""
    if module.max_norm is not None or module.scale_grad_by_freq or module.mode == "max":
        raise Unfit("an embedding bag with max_norm, scale_grad_by_freq or mode 'max' has no rule")
    if any(a.dim() != 2 for a, _ in calls):
        raise Unfit("an embedding bag was given flat indices with offsets; give [examples, positions]")
    parts = []
    for indices, outputs in calls:
        counted = torch.ones_like(indices) if module.padding_idx is None else (indices != module.padding_idx).long()
        weights = counted.to(outputs.dtype)
        if module.mode == "mean":
            weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
        parts.append(outputs[:, None] * weights[:, :, None])
    return {"weight": Rows(_join([a for a, _ in calls]), _join(parts), module.num_embeddings)}


def _affine(scaled: list[Tensor], shifted: list[Tensor], module: nn.Module) -> dict[str, Contribution]:
    found: dict[str, Contribution] = {"weight": _total(scaled)}
    if getattr(module, "bias", None) is not None:
        found["bias"] = _total(shifted)
    return found


def _leading(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Summed over all dimensions between the examples and the last ones, of this shape."""
    return values.reshape(values.shape[0], -1, *shape).sum(1)


@register_rule(nn.LayerNorm)
def layer_norm(module: nn.LayerNorm, calls: Calls) -> dict[str, Contribution]:
    shape = tuple(module.normalized_shape)
    if any(a.dim() <= len(shape) for a, _ in calls):
        raise Unfit("a layer norm covers the examples' own dimension")
    scaled = [_leading(F.layer_norm(a, shape, eps=module.eps).mul_(g), shape) for a, g in calls]
    return _affine(scaled, [_leading(g, shape) for _, g in calls], module)


@register_rule(nn.RMSNorm)
def rms_norm(module: nn.RMSNorm, calls: Calls) -> dict[str, Contribution]:
    shape = tuple(module.normalized_shape)
    if any(a.dim() <= len(shape) for a, _ in calls):
        raise Unfit("an RMS norm covers the examples' own dimension")
    return _affine([_leading(F.rms_norm(a, list(shape), eps=module.eps).mul_(g), shape) for a, g in calls], [], module)


def _channels(values: Tensor) -> Tensor:
    """``[examples, channels, ...]`` summed over all that follows the channels."""
    return values.flatten(2).sum(2) if values.dim() > 2 else values


@register_rule(nn.GroupNorm)
def group_norm(module: nn.GroupNorm, calls: Calls) -> dict[str, Contribution]:
    scaled = [_channels(F.group_norm(a, module.num_groups, eps=module.eps).mul_(g)) for a, g in calls]
    return _affine(scaled, [_channels(g) for _, g in calls], module)


@register_rule(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def instance_norm(module: nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d, calls: Calls) -> dict[str, Contribution]:
    if module.track_running_stats or any(a.dim() < 3 or a.dim() != _batched(module) for a, _ in calls):
        raise Unfit("an instance norm keeps statistics, or was given an example without a batch dimension")
    scaled = [_channels(F.instance_norm(a, eps=module.eps).mul_(g)) for a, g in calls]
    return _affine(scaled, [_channels(g) for _, g in calls], module)


def _batched(module: nn.Module) -> int:
    return {nn.InstanceNorm1d: 3, nn.InstanceNorm2d: 4, nn.InstanceNorm3d: 5}[type(module)]
