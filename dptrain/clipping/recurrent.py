"""Per-example gradients of recurrent layers: the gate gradients of the whole sequence, kept instead of summed.

With δ_it the gradient of example i's loss with respect to a layer's gates at step t, the gradients of its weights are those
of two linear layers over the steps,

    G_i(W_ih) = Σ_t δ_it x_itᵀ        G_i(W_hh) = Σ_t δ_it h_i(t-1)ᵀ        G_i(b) = Σ_t δ_it

so that a layer in one direction is one autograd function around a walk of :mod:`~dptrain.clipping.cells`: its backward pass
writes every δ_t into one buffer, deposits that, and ordinary weight gradients are never computed.

    outputs = FORWARDS[nn.LSTM](module, (inputs,), {}, deposit)      # what module(inputs) gives

Contributions are in the order in which the user had the examples, also of a packed sequence, which is sorted by length; where
he sorted them himself before he packed them, it is that order. Under autocast a layer computes in the type of its weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from dptrain.clipping.cells import Found, GatedWalk, LongWalk, PlainWalk, Steps, Walk, Weights
from dptrain.clipping.choice import Workspace
from dptrain.clipping.clipped import LOST, squared_lengths
from dptrain.clipping.contributions import Contribution, Instantiated, OuterProducts
from dptrain.clipping.rules import Deposit, Unfit, register_forward


class StepOutputs:
    """Gate gradients ``[examples, time, gates]``, and what several parameters need of them, computed once."""

    def __init__(self, values: Tensor):
        self.values = values

    def products(self, inputs: Tensor, shape: tuple[int, ...]) -> "StepProducts":
        return StepProducts(inputs, self.values, shape, self)

    @cached_property
    def total(self) -> Tensor:
        return self.values.sum(1)

    @cached_property
    def gram(self) -> Tensor:
        return torch.bmm(self.values, self.values.mT)

    @cached_property
    def squared_lengths(self) -> Tensor:
        return squared_lengths(self.values.transpose(0, 1)).T


class StepProducts(OuterProducts):
    """:class:`OuterProducts` whose tensors have the time first in memory, and whose outputs are another parameter's too."""

    def __init__(self, inputs: Tensor, outputs: Tensor, shape: tuple[int, ...], shared: StepOutputs):
        super().__init__(inputs, outputs, shape)
        self._shared: StepOutputs | None = shared

    def key(self) -> tuple[Any, ...]:
        return ("steps", *super().key())

    def ways(self, work: Workspace, name: str) -> dict[str, Callable[[], None]]:
        found, shared = super().ways(work, name), self._shared
        if "ghost" in found and shared is not None:
            found["ghost"] = lambda: self._measure_only(self._ghost_by_steps(shared))
        return found

    def _ghost_by_steps(self, shared: StepOutputs) -> Tensor:
        """:func:`~dptrain.clipping.contributions.ghost_norms`, with what the other weight has computed already."""
        squares = torch.bmm(self.inputs, self.inputs.mT).mul_(shared.gram).sum(2).sum(1, dtype=torch.float64)
        long_in, long_out = squared_lengths(self.inputs.transpose(0, 1)).T.sqrt(), shared.squared_lengths.sqrt()
        unit = torch.finfo(self.inputs.dtype).eps * (self.p + self.d + self.positions) ** 0.5
        lost = LOST[self.inputs.dtype] * (self.p * long_out.sum(1).square() + self.d * long_in.sum(1).square())
        return squares.clamp_min(0) + (long_in * long_out).sum(1).square() * unit + lost

    def release(self) -> None:
        super().release()
        self._shared = None

    def sum_of_products(self, factors: Tensor) -> Tensor:
        """As for any product, over the time first: so nothing is copied."""
        turned = OuterProducts(self.inputs.transpose(0, 1), self.outputs.transpose(0, 1), self.shape)
        return turned.scaled_product(factors.to(self.inputs.dtype)[None, :, None]).view(self.shape)

    def add_to(self, total: Tensor, factors: Tensor, first: bool) -> None:
        Contribution.add_to(self, total, factors, first)


@dataclass(frozen=True, eq=False)
class _Place:
    """Which layer and direction, in which order of examples."""

    suffix: str
    unsorted: Tensor | None
    """Where the user's example i is among the sorted ones of a packed sequence."""
    deposit: Deposit

    def examples(self, buffer: Tensor) -> Tensor:
        """``[time, examples, ...]`` as ``[examples, time, ...]`` in the user's order."""
        turned = buffer.transpose(0, 1)
        return turned if self.unsorted is None else turned.index_select(0, self.unsorted)

    def leave(self, inputs: Tensor, walk: Walk, found: Found) -> None:
        """Deposits the contributions of all weights and biases that are wanted."""
        outputs = StepOutputs(self.examples(found.towards_input))
        same = found.towards_state is found.towards_input
        others = outputs if same else StepOutputs(self.examples(found.towards_state))
        self._weight("weight_ih", inputs, outputs, walk.weights.weight_ih)
        self._weight("weight_hh", walk.before, others, walk.weights.weight_hh)
        for name, gates in (("bias_ih", outputs), ("bias_hh", others)):
            if f"{name}_{self.suffix}" in self.deposit.wanted:
                self.deposit(f"{name}_{self.suffix}", Instantiated(gates.total))
        if found.projected is not None and walk.weights.weight_hr is not None:
            hidden, gradients = found.projected
            self._weight("weight_hr", hidden, StepOutputs(self.examples(gradients)), walk.weights.weight_hr)

    def _weight(self, name: str, inputs: Tensor, outputs: StepOutputs, weight: Tensor) -> None:
        if f"{name}_{self.suffix}" in self.deposit.wanted:
            self.deposit(f"{name}_{self.suffix}", outputs.products(self.examples(inputs), tuple(weight.shape)))


class _Layer(torch.autograd.Function):
    """A layer in one direction: ``inputs [time, examples, features]`` to ``outputs [time, examples, size]`` and last states.

    ``token`` is a leaf without a value of its own, so that the backward pass comes here though no weight wants a gradient.
    """

    @staticmethod
    def forward(ctx: Any, walk: Walk, place: _Place, token: Tensor, inputs: Tensor, *initial: Tensor) -> tuple[Tensor, ...]:
        ctx.walk, ctx.place = walk, place
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs)
        last = walk.forward(inputs, *initial)
        # Copies: the user may change outputs in place, and the walk back needs what is in the buffers.
        return walk.after.clone(), walk.after[walk.steps.last(walk.after)].clone(), *last

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]: torch names one gradient, there are several
        ctx: Any, outputs: Tensor | None, *last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        walk: Walk | None = ctx.walk
        if walk is None:
            raise RuntimeError("the walk back through a recurrent layer used its buffers up; run the forward pass again")
        ctx.walk = None
        (inputs,) = ctx.saved_tensors
        with torch.autocast(inputs.device.type, enabled=False):
            found = walk.backward(walk.gradients(outputs, last[0]), *last[1:])
            ctx.place.leave(inputs, walk, found)
            weight = walk.weights.weight_ih
            back = (found.towards_input.flatten(0, 1) @ weight).view_as(inputs) if ctx.needs_input_grad[3] else None
        return None, None, None, back, *found.initial


def _walk(module: nn.RNNBase, suffix: str, steps: Steps) -> Walk:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    weights = Weights(*(getattr(module, f"{name}_{suffix}", None) for name in names))  # pyright: ignore[reportArgumentType]
    if isinstance(module, nn.LSTM):
        return LongWalk(weights, steps)
    return (
        GatedWalk(weights, steps) if isinstance(module, nn.GRU) else PlainWalk(weights, steps, tanh=module.mode == "RNN_TANH")
    )


@register_forward(nn.LSTM, nn.GRU, nn.RNN)
def _forward(module: nn.RNNBase, args: tuple[Any, ...], kwargs: dict[str, Any], deposit: Deposit) -> tuple[Any, Any]:
    """What the module's own forward gives, from one :class:`_Layer` for each layer and direction."""
    return _recur(module, deposit, *args, **kwargs)


def _recur(module: nn.RNNBase, deposit: Deposit, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
    values = input.data if isinstance(input, PackedSequence) else input
    if not isinstance(input, PackedSequence) and values.dim() != 3:
        raise Unfit(f"a {type(module).__name__} was given one sequence without a batch dimension")
    if values.numel() == 0:
        raise Unfit(f"a {type(module).__name__} was given no steps or no examples")
    device = values.device.type
    cast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else values.dtype
    with torch.autocast(device, enabled=False):
        values = values.to(next(module.parameters(recurse=False)).dtype)
        if isinstance(input, PackedSequence):
            output, last = _packed(module, deposit, values, input, hx)
        else:
            padded = values.transpose(0, 1) if module.batch_first else values
            initial = _initial(module, padded, hx, None)
            output, last = _stack(module, padded, initial, (padded.shape[1],) * padded.shape[0], None, deposit)
            output = output.transpose(0, 1) if module.batch_first else output
    output, last = output.to(cast), [state.to(cast) for state in last]
    return output, tuple(last) if isinstance(module, nn.LSTM) else last[0]


def _packed(
    module: nn.RNNBase, deposit: Deposit, values: Tensor, given: PackedSequence, hx: Any
) -> tuple[PackedSequence, list[Tensor]]:
    padded, lengths = pad_packed_sequence(PackedSequence(values, given.batch_sizes))
    initial = _initial(module, padded, hx, given.sorted_indices)
    output, last = _stack(module, padded, initial, tuple(given.batch_sizes.tolist()), given.unsorted_indices, deposit)
    data = pack_padded_sequence(output, lengths).data
    if given.unsorted_indices is not None:
        last = [state.index_select(1, given.unsorted_indices) for state in last]
    return PackedSequence(data, given.batch_sizes, given.sorted_indices, given.unsorted_indices), last


def _initial(module: nn.RNNBase, padded: Tensor, hx: Any, sorting: Tensor | None) -> list[Tensor]:
    """One state, or two for an LSTM, each ``[layers · directions, examples, size]``, sorted as the examples are."""
    count, directions = padded.shape[1], 2 if module.bidirectional else 1
    sizes = [module.proj_size or module.hidden_size, module.hidden_size][: 2 if isinstance(module, nn.LSTM) else 1]
    shapes = [(module.num_layers * directions, count, size) for size in sizes]
    if hx is None:
        return [padded.new_zeros(shape) for shape in shapes]
    given = [state.to(padded.dtype) for state in (hx if isinstance(module, nn.LSTM) else (hx,))]
    if [tuple(state.shape) for state in given] != shapes:
        raise Unfit(f"a {type(module).__name__} was given states of shapes {[tuple(state.shape) for state in given]}")
    return given if sorting is None else [state.index_select(1, sorting) for state in given]


def _stack(
    module: nn.RNNBase,
    inputs: Tensor,
    initial: list[Tensor],
    running: tuple[int, ...],
    unsorting: Tensor | None,
    deposit: Deposit,
) -> tuple[Tensor, list[Tensor]]:
    token = torch.zeros((), dtype=inputs.dtype, device=inputs.device, requires_grad=True)
    deposit.leaf(token)
    ends: list[tuple[Tensor, ...]] = []
    for layer in range(module.num_layers):
        if layer and module.dropout:
            inputs = F.dropout(inputs, module.dropout, module.training)
        inputs = inputs.contiguous()
        outputs = []
        for backwards in (False, True)[: 2 if module.bidirectional else 1]:
            suffix = f"l{layer}_reverse" if backwards else f"l{layer}"
            walk, place = _walk(module, suffix, Steps(running, backwards)), _Place(suffix, unsorting, deposit)
            states = [state[len(ends)] for state in initial]
            output, *last = _Layer.apply(walk, place, token, inputs, *states)  # pyright: ignore[reportGeneralTypeIssues]
            outputs.append(output)
            ends.append(tuple(last))
        inputs = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)
    return inputs, [torch.stack(states) for states in zip(*ends, strict=True)]
