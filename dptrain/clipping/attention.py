"""Per-example gradients of multi-head attention, whose weights are used without a layer of their own being called.

    q, k, v = W_q x_q + b_q,  W_k x_k + b_k,  W_v x_v + b_v        out = W_o concat_heads(softmax(q kᵀ / √d + mask) v) + b_o

(Vaswani et al. 2017, "Attention Is All You Need"). All weights of ``nn.MultiheadAttention`` are linear layers over positions,
so their per-example gradients follow from what goes in and the gradient of what comes out, as those of ``nn.Linear`` do;
what lies between has no weights and is left to autograd. Where query, key and value are three tensors or two, the rows of
``in_proj_weight`` saw different inputs: its gradient is a stack of one block for each.

    outputs, weights = FORWARDS[nn.MultiheadAttention](module, (x, x, x), {}, deposit)      # what module(x, x, x) gives

Masks, dropout and returned weights are those of the module itself, with its order of random draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dptrain.clipping.choice import Choice, Workspace
from dptrain.clipping.contributions import Contribution, Instantiated, OuterProducts
from dptrain.clipping.rules import Deposit, Unfit, register_forward


class Stacked(Contribution):
    """A parameter whose first dimension is cut into blocks, each with gradients of its own."""

    def __init__(self, blocks: tuple[Contribution, ...]):
        self.blocks = blocks

    def settle(self, choice: Choice, work: Workspace, name: str) -> None:
        for index, block in enumerate(self.blocks):
            block.settle(choice, work, f"{name}, block {index}")

    def squared_norms(self) -> Tensor:
        return torch.stack([block.squared_norms() for block in self.blocks]).sum(0)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        return torch.cat([block.weighted_sum(factors) for block in self.blocks])

    def instantiate(self) -> Instantiated:
        return Instantiated(torch.cat([block.instantiate().gradients for block in self.blocks], 1))

    def keep(self, kept: Tensor) -> "Stacked":
        return Stacked(tuple(block.keep(kept) for block in self.blocks))

    def fold(self, size: int) -> "Stacked":
        return Stacked(tuple(block.fold(size) for block in self.blocks))


@dataclass(frozen=True, eq=False)
class _Block:
    """Consecutive rows of a weight, and of its bias."""

    weight: Tensor
    bias: Tensor | None
    key: str
    """Of the weight; blocks of one weight follow each other."""


@dataclass(frozen=True, eq=False)
class _Projection:
    blocks: tuple[_Block, ...]
    bias_key: str
    deposit: Deposit

    def leave(self, sources: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Deposits weights and bias, in float32 or better, whatever autocast made of the outputs."""
        wide = [gradient.to(block.weight.dtype) for gradient, block in zip(gradients, self.blocks, strict=True)]
        found: dict[str, list[Contribution]] = {}
        for block, source, outputs in zip(self.blocks, sources, wide, strict=True):
            if block.key in self.deposit.wanted:
                part = OuterProducts(source.to(outputs.dtype), outputs, tuple(block.weight.shape))
                found.setdefault(block.key, []).append(part)
        for key, parts in found.items():
            self.deposit(key, parts[0] if len(parts) == 1 else Stacked(tuple(parts)))
        if self.bias_key in self.deposit.wanted:
            self.deposit(self.bias_key, Instantiated(torch.cat([outputs.sum(1) for outputs in wide], 1)))


class _Project(torch.autograd.Function):
    """Each source ``[examples, positions, features]`` through its block; one node, so that all gradients come together."""

    @staticmethod
    def forward(ctx: Any, projection: _Projection, token: Tensor, *sources: Tensor) -> tuple[Tensor, ...]:
        ctx.projection = projection
        ctx.save_for_backward(*sources)
        return tuple(
            F.linear(source, block.weight, block.bias) for source, block in zip(sources, projection.blocks, strict=True)
        )

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]: torch names one gradient, there are several
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        projection: _Projection = ctx.projection
        projection.leave(ctx.saved_tensors, gradients)
        back: list[Tensor | None] = [None] * len(gradients)
        for index, (gradient, block) in enumerate(zip(gradients, projection.blocks, strict=True)):
            if ctx.needs_input_grad[2 + index]:
                back[index] = (gradient @ block.weight.to(gradient.dtype)).to(ctx.saved_tensors[index].dtype)
        return None, None, *back


class _Repeat(torch.autograd.Function):
    """A parameter ``[1, 1, features]`` for each example, ``[examples, 1, features]``."""

    @staticmethod
    def forward(ctx: Any, key: str, deposit: Deposit, token: Tensor, value: Tensor, examples: int) -> Tensor:
        ctx.key, ctx.deposit, ctx.dtype = key, deposit, value.dtype
        return value.expand(examples, 1, -1).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.key in ctx.deposit.wanted:
            ctx.deposit(ctx.key, Instantiated(gradient.unsqueeze(1).to(ctx.dtype)))
        return (None,) * 5


def _project_in(module: nn.MultiheadAttention, deposit: Deposit, token: Tensor, given: tuple[Tensor, Tensor, Tensor]) -> Any:
    """Queries, keys and values, ``[examples, positions, embedding]`` each."""
    query, key, value = given
    size, bias = module.embed_dim, module.in_proj_bias
    if module.in_proj_weight is None:
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        biases = (None,) * 3 if bias is None else bias.split(size)
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        blocks = tuple(_Block(*each) for each in zip(weights, biases, names, strict=True))
        return _Project.apply(_Projection(blocks, "in_proj_bias", deposit), token, query, key, value)
    if key is not value:
        sources, cuts = (query, key, value), [size, size, size]
    else:
        sources, cuts = ((query,), [3 * size]) if query is key else ((query, key), [size, 2 * size])
    weights = module.in_proj_weight.split(cuts)
    biases = (None,) * len(cuts) if bias is None else bias.split(cuts)
    blocks = tuple(_Block(weight, bias, "in_proj_weight") for weight, bias in zip(weights, biases, strict=True))
    found: Any = _Project.apply(_Projection(blocks, "in_proj_bias", deposit), token, *sources)
    return [part for output in found for part in output.split(size, 2)]


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask that is added to the scores: what is True in a Boolean one is left out."""
    if mask is None or torch.is_floating_point(mask):
        return mask
    if mask.dtype != torch.bool:
        raise Unfit(f"an attention mask is of {mask.dtype}")
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))


def _merged(attn: Tensor | None, padding: Tensor | None, heads: int, extra: int) -> Tensor | None:
    """One mask ``[1 or examples, 1 or heads, targets, sources + extra]``; nobody is kept from looking at the extra sources."""
    if attn is not None:
        attn = F.pad(attn, (0, extra))
        attn = attn[None, None] if attn.dim() == 2 else attn.unflatten(0, (-1, heads))
    if padding is not None:
        padding = F.pad(padding, (0, extra))[:, None, None]
    return padding if attn is None else attn if padding is None else attn + padding


def _attend(
    module: nn.MultiheadAttention,
    deposit: Deposit,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    if query.dim() != 3 or key.dim() != 3 or value.dim() != 3 or query.is_nested or key.is_nested or value.is_nested:
        raise Unfit("attention was given something other than [batch, positions, features] or [positions, batch, features]")
    if is_causal and attn_mask is None:
        raise Unfit("attention was told that it is causal, without the mask")
    if not module.batch_first:
        same, shared = query is key, key is value
        query = query.transpose(0, 1)
        key = query if same else key.transpose(0, 1)
        value = key if shared else value.transpose(0, 1)
    if not query.shape[0] == key.shape[0] == value.shape[0]:
        raise Unfit("query, key and value of an attention are not of the same examples")
    heads, count, targets, sources = module.num_heads, query.shape[0], query.shape[1], key.shape[1]
    if attn_mask is not None and tuple(attn_mask.shape) not in ((targets, sources), (count * heads, targets, sources)):
        raise Unfit(
            f"an attention mask of shape {tuple(attn_mask.shape)} is neither for all examples nor for each head of each"
        )
    if key_padding_mask is not None and tuple(key_padding_mask.shape) != (count, sources):
        raise Unfit(f"a padding mask of shape {tuple(key_padding_mask.shape)} is not [examples, positions]")
    token = torch.zeros((), dtype=query.dtype, device=query.device, requires_grad=True)
    deposit.leaf(token)
    q, k, v = _project_in(module, deposit, token, (query, key, value))
    if module.bias_k is not None and module.bias_v is not None:
        k = torch.cat([k, _repeat("bias_k", module.bias_k, deposit, token, k)], 1)
        v = torch.cat([v, _repeat("bias_v", module.bias_v, deposit, token, v)], 1)
    if module.add_zero_attn:
        k, v = (torch.cat([each, each.new_zeros(count, 1, each.shape[2])], 1) for each in (k, v))
    q, k, v = (each.unflatten(2, (heads, -1)).transpose(1, 2) for each in (q, k, v))

    causal = is_causal and key_padding_mask is None and not need_weights
    attn, padding = None if causal else _additive(attn_mask, query.dtype), _additive(key_padding_mask, query.dtype)
    mask = _merged(attn, padding, heads, k.shape[2] - sources)
    dropout = module.dropout if module.training else 0.0
    weights = None
    if need_weights:
        scores = (q * (module.head_dim**-0.5)) @ k.transpose(2, 3)
        weights = (scores if mask is None else scores + mask).softmax(3)
        weights = F.dropout(weights, dropout) if dropout else weights
        mixed = weights @ v
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal)
    mixed = mixed.transpose(1, 2).reshape(count, targets, module.embed_dim)
    out = _Block(module.out_proj.weight, module.out_proj.bias, "out_proj.weight")
    (output,) = _Project.apply(_Projection((out,), "out_proj.bias", deposit), token, mixed)  # pyright: ignore[reportGeneralTypeIssues]
    return output if module.batch_first else output.transpose(0, 1), weights


def _repeat(key: str, value: Tensor, deposit: Deposit, token: Tensor, like: Tensor) -> Tensor:
    repeated: Any = _Repeat.apply(key, deposit, token, value, like.shape[0])
    return repeated.to(like.dtype)


@register_forward(nn.MultiheadAttention)
def _forward(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], deposit: Deposit) -> Any:
    return _attend(module, deposit, *args, **kwargs)
