"""Per-example gradients of recurrent layers: the gate gradients of the whole sequence, kept instead of summed.

A recurrent layer reads ``W_ih x_t + b_ih`` and ``W_hh h_(t-1) + b_hh`` into its gates. With δ_it the gradient of example i's
loss with respect to the gates at step t, the gradients of the weights are those of two linear layers over the steps:

    G_i(W_ih) = Σ_t δ_it x_itᵀ        G_i(W_hh) = Σ_t δ_it h_i(t-1)ᵀ        G_i(b) = Σ_t δ_it

(Werbos 1990, "Backpropagation through time"). So a layer is one autograd function: its backward pass walks through time
once, writes every δ_t into one buffer, and ordinary weight gradients are never computed. Gates are those of PyTorch:

    LSTM   i, f, o = σ(·)   g = tanh(·)   c_t = f c_(t-1) + i g   h_t = o tanh(c_t)   (with a projection: W_hr of that)
    GRU    r, z = σ(·)   n = tanh(W_in x + b_in + r (W_hn h_(t-1) + b_hn))   h_t = n + z (h_(t-1) - n)
    RNN    h_t = tanh(·) or max(·, 0)

where the n gate of a GRU has two gradients, δ towards x and r δ towards h.

**What makes it fast.** Buffers have the time first, so that a step is a contiguous slice of each; the input's share of all
gates is one product before the loop; whatever of the derivatives does not depend on the recurrence is computed for all
steps at once, and the δ buffer is filled with it, so that a backward step of an LSTM is five operations in place.

    outputs = REWRITTEN[nn.LSTM](module, (inputs,), {}, deposit)      # what module(inputs) gives

In a packed sequence a step covers the examples that are still running, the first few, since they are sorted by length;
contributions are in the order in which the user had the examples, and steps past an example's end are exactly zero.
"""

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from dptrain.clipping.rules import Contribution, Instantiated, OuterProducts, Unfit


class Deposit(Protocol):
    """Where a rewritten forward leaves what its backward pass found."""

    @property
    def wanted(self) -> Set[str]:
        """The keys of the module's parameters that are trained."""
        ...

    def __call__(self, key: str, contribution: Contribution, /) -> None:
        """The per-example gradients of one parameter in this call; at most once a key."""
        ...

    def leaf(self, tensor: Tensor, /) -> None:
        """A tensor that the backward pass has to reach."""
        ...


Rewritten = Callable[[Any, tuple[Any, ...], dict[str, Any], Deposit], Any]
"""``forward(module, args, kwargs, deposit)`` gives what ``module(*args, **kwargs)`` gives."""


@dataclass(frozen=True, eq=False)
class _Steps:
    """The order in which a layer walks through ``[time, examples, ...]`` buffers, and how many examples each step covers."""

    running: tuple[int, ...]
    """By time, never rising."""
    backwards: bool

    @property
    def ragged(self) -> bool:
        return self.running[-1] != self.running[0]

    def rows(self, buffer: Tensor) -> list[Tensor]:
        """The running examples of each step, in walking order."""
        found = list(buffer.unbind(0))
        if self.ragged:
            found = [row[:count] for row, count in zip(found, self.running, strict=True)]
        return found[::-1] if self.backwards else found

    def shared(self, buffer: Tensor, *, later: bool) -> list[Tensor]:
        """For each pair of neighbouring steps, the examples that run in both, at the earlier or the later of the two."""
        rows = self.rows(buffer)
        chosen = rows[1:] if later else rows[:-1]
        if self.ragged:
            chosen = [row[: min(len(a), len(b))] for row, a, b in zip(chosen, rows[:-1], rows[1:], strict=True)]
        return chosen

    def neighbours(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Of ``[time + 1, ...]``, the states before and after each step."""
        return (states[1:], states[:-1]) if self.backwards else (states[:-1], states[1:])

    def states(self, initial: Tensor) -> Tensor:
        """A buffer for the states before and after all steps that starts from this one."""
        buffer = initial.new_empty(len(self.running) + 1, *initial.shape)
        if self.ragged:
            buffer[:] = initial  # of an example past its end, which the walk backwards starts from
        else:
            buffer[-1 if self.backwards else 0] = initial
        return buffer

    def running_mask(self, like: Tensor) -> Tensor:
        """``[time, examples, 1]``: whether an example has this step."""
        counts = torch.tensor(self.running, device=like.device)
        return (torch.arange(like.shape[1], device=like.device) < counts[:, None])[:, :, None]

    def _ends(self, buffer: Tensor, *, at_time_zero: bool) -> tuple[Any, ...]:
        if at_time_zero:
            return (0,)
        if not self.ragged:
            return (-1,)
        counts = torch.tensor(self.running, device=buffer.device)
        examples = torch.arange(buffer.shape[1], device=buffer.device)
        return ((examples[:, None] < counts).sum(1) - 1, examples)

    def first(self, buffer: Tensor) -> tuple[Any, ...]:
        """Index of each example's first step."""
        return self._ends(buffer, at_time_zero=not self.backwards)

    def last(self, buffer: Tensor) -> tuple[Any, ...]:
        return self._ends(buffer, at_time_zero=self.backwards)

    def clear(self, buffer: Tensor) -> Tensor:
        """Zero where an example has ended."""
        return buffer.masked_fill_(~self.running_mask(buffer), 0.0) if self.ragged else buffer


@dataclass(frozen=True, eq=False)
class _Direction:
    """One layer, one way through time."""

    suffix: str
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    weight_hr: Tensor | None
    steps: _Steps
    unsorted: Tensor | None
    """Where the user's example i is among the sorted ones of a packed sequence."""
    deposit: Deposit

    def examples(self, buffer: Tensor) -> Tensor:
        """``[time, examples, ...]`` as ``[examples, time, ...]`` in the user's order."""
        turned = buffer.transpose(0, 1)
        return turned if self.unsorted is None else turned.index_select(0, self.unsorted)

    def leave(self, inputs: Tensor, before: Tensor, towards_input: Tensor, towards_state: Tensor) -> None:
        """Deposits both weights and both biases."""
        wanted = {name for name in _SHARED if f"{name}_{self.suffix}" in self.deposit.wanted}
        if not wanted:
            return
        sides = (("ih", inputs, towards_input, self.weight_ih), ("hh", before, towards_state, self.weight_hh))
        outputs, seen = None, None
        for side, source, gates, weight in sides:
            if outputs is None or gates is not seen:
                outputs, seen = self.examples(gates).contiguous(), gates
            if f"weight_{side}" in wanted:
                part = OuterProducts(self.examples(source).contiguous(), outputs, tuple(weight.shape))
                self.deposit(f"weight_{side}_{self.suffix}", part)
            if f"bias_{side}" in wanted:
                self.deposit(f"bias_{side}_{self.suffix}", Instantiated(outputs.sum(1)))


_SHARED = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _through(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``inputs weightᵀ + bias`` for all steps at once."""
    return F.linear(inputs.flatten(0, 1), weight, bias).view(*inputs.shape[:2], -1)


def _total(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a + b


class _Layer(torch.autograd.Function):
    """A layer in one direction: ``inputs [time, examples, features]`` to ``outputs [time, examples, size]`` and last states.

    ``token`` is a leaf without a value of its own, so that the backward pass comes here though no weight wants a gradient.
    """

    @staticmethod
    def forward(ctx: Any, walk: "_Walk", token: Tensor, inputs: Tensor, *initial: Tensor) -> tuple[Tensor, ...]:
        ctx.walk = walk
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs)
        states = walk.forward(inputs, *initial)
        outputs = walk.direction.steps.neighbours(states[0])[1]
        # Copies: the user may change them in place, and the walk back needs what is in the buffers.
        last = walk.direction.steps.last(outputs)
        return outputs.clone(), *(walk.direction.steps.neighbours(state)[1][last].clone() for state in states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outputs: Tensor | None, *last: Tensor | None) -> tuple[Tensor | None, ...]:
        walk: _Walk = ctx.walk
        (inputs,) = ctx.saved_tensors
        with torch.autocast(inputs.device.type, enabled=False):
            gradients = walk.gradients(outputs, last[0])
            towards_input, initial = walk.backward(inputs, gradients, *last[1:])
            weight = walk.direction.weight_ih
            back = (towards_input.flatten(0, 1) @ weight).view_as(inputs) if ctx.needs_input_grad[2] else None
        return None, None, back, *initial


class _Walk:
    """The steps of one kind of cell, forward and back, with what one keeps for the other."""

    def __init__(self, direction: _Direction):
        self.direction = direction
        self.before = self.after = torch.empty(0)
        """The states that each step starts from and gives, ``[time, examples, size]``."""

    def forward(self, inputs: Tensor, *initial: Tensor) -> tuple[Tensor, ...]:
        """All states, ``[time + 1, examples, size]``; what is given on comes first."""
        raise NotImplementedError

    def backward(self, inputs: Tensor, gradients: Tensor, *last: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Gradients of the input's share of the gates and of the initial states; deposits the contributions."""
        raise NotImplementedError

    def gradients(self, outputs: Tensor | None, last: Tensor | None) -> Tensor:
        """Of the state after each step, from outside of the recurrence; to be changed in place."""
        steps = self.direction.steps
        if outputs is None:
            found = torch.zeros(self.after.shape, dtype=self.after.dtype, device=self.after.device)
        else:
            found = steps.clear(outputs.clone(memory_format=torch.contiguous_format))
        if last is not None:
            found[steps.last(found)] += last
        return found

    def _start(self, state: Tensor) -> Tensor:
        states = self.direction.steps.states(state)
        self.before, self.after = self.direction.steps.neighbours(states)
        return states


class _Plain(_Walk):
    def __init__(self, direction: _Direction, nonlinearity: str):
        super().__init__(direction)
        self._tanh = nonlinearity == "tanh"

    def forward(self, inputs: Tensor, *initial: Tensor) -> tuple[Tensor, ...]:
        own, steps = self.direction, self.direction.steps
        states = self._start(initial[0])
        gates = _through(inputs, own.weight_ih, _total(own.bias_ih, own.bias_hh))
        weight = own.weight_hh.T
        for gate, before, after in zip(*(steps.rows(each) for each in (gates, self.before, self.after)), strict=True):
            gate.addmm_(before, weight)
            if self._tanh:
                torch.tanh(gate, out=after)
            else:
                torch.clamp_min(gate, 0, out=after)
        return (states,)

    def backward(self, inputs: Tensor, gradients: Tensor, *last: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        own, steps = self.direction, self.direction.steps
        deltas = 1 - self.after.square() if self._tanh else (self.after > 0).to(self.after.dtype)
        steps.clear(deltas)
        weight = own.weight_hh
        rows, states = steps.rows(deltas), steps.rows(gradients)
        rows[-1].mul_(states[-1])
        later, earlier = steps.shared(deltas, later=True), steps.shared(gradients, later=False)
        for step in range(len(rows) - 2, -1, -1):
            earlier[step].addmm_(later[step], weight)
            rows[step].mul_(states[step])
        own.leave(inputs, self.before, deltas, deltas)
        return deltas, (deltas[steps.first(deltas)] @ weight,)


class _Gated(_Walk):
    """GRU."""

    def forward(self, inputs: Tensor, *initial: Tensor) -> tuple[Tensor, ...]:
        own, steps, size = self.direction, self.direction.steps, initial[0].shape[1]
        states = self._start(initial[0])
        bias, new_bias = own.bias_ih, None
        if bias is not None and own.bias_hh is not None:
            new_bias = own.bias_hh[2 * size :]
            bias = torch.cat([bias[: 2 * size] + own.bias_hh[: 2 * size], bias[2 * size :]])
        self.gates = _through(inputs, own.weight_ih, bias)
        self.recalled = torch.zeros_like(self.after)  # W_hn h + b_hn
        if new_bias is not None:
            self.recalled += new_bias
        weight, new_weight = own.weight_hh[: 2 * size].T, own.weight_hh[2 * size :].T
        buffers = (*self._parts(), self.gates[:, :, : 2 * size], self.recalled, self.before, self.after)
        for r, z, n, both, recalled, before, after in zip(*(steps.rows(each) for each in buffers), strict=True):
            both.addmm_(before, weight)
            both.sigmoid_()
            recalled.addmm_(before, new_weight)
            n.addcmul_(r, recalled)
            n.tanh_()
            torch.lerp(n, before, z, out=after)
        return (states,)

    def _parts(self) -> tuple[Tensor, ...]:
        return self.gates.chunk(3, 2)

    def backward(self, inputs: Tensor, gradients: Tensor, *last: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        own, steps = self.direction, self.direction.steps
        r, z, n = self._parts()
        new = (1 - z).mul_(1 - n.square())
        deltas = torch.empty_like(self.gates)  # towards the state; by the state's gradient
        for_r, for_z, for_n = deltas.chunk(3, 2)
        torch.mul(new, r, out=for_n)
        torch.mul(for_n, self.recalled, out=for_r).mul_(1 - r)
        torch.sub(self.before, n, out=for_z).mul_(z).mul_(1 - z)
        steps.clear(deltas)
        steps.clear(new)
        weight, by_gate = own.weight_hh, deltas.unflatten(2, (3, -1))
        rows, states = steps.rows(by_gate), steps.rows(gradients.unsqueeze(2))
        rows[-1].mul_(states[-1])
        later, kept = steps.shared(deltas, later=True), steps.shared(z, later=True)
        earlier, ahead = steps.shared(gradients, later=False), steps.shared(gradients, later=True)
        for step in range(len(rows) - 2, -1, -1):
            earlier[step].addcmul_(ahead[step], kept[step])
            earlier[step].addmm_(later[step], weight)
            rows[step].mul_(states[step])
        first = steps.first(deltas)
        initial = torch.addcmul(deltas[first] @ weight, gradients[first], z[first])
        towards_input = torch.cat([deltas[:, :, : 2 * n.shape[2]], new.mul_(gradients)], 2)
        own.leave(inputs, self.before, towards_input, deltas)
        return towards_input, (initial,)


class _Long(_Walk):
    """LSTM. Gates are kept in the order i, f, o, g, so that one sigmoid serves three of them."""

    def forward(self, inputs: Tensor, *initial: Tensor) -> tuple[Tensor, ...]:
        own, steps, size = self.direction, self.direction.steps, initial[1].shape[1]
        states, cells = self._start(initial[0]), steps.states(initial[1])
        self.cell_before, self.cell_after = steps.neighbours(cells)
        bias = _total(own.bias_ih, own.bias_hh)
        weight = self._turned(own.weight_hh).T
        self.gates = _through(inputs, self._turned(own.weight_ih), None if bias is None else self._turned(bias))
        self.squashed = torch.zeros_like(self.cell_after)  # tanh(c)
        self.hidden = self.after if own.weight_hr is None else torch.zeros_like(self.cell_after)
        buffers = (*self.gates.chunk(4, 2), self.gates[:, :, : 3 * size], self.gates)
        buffers += (self.cell_before, self.cell_after, self.squashed, self.before, self.hidden)
        projected = None if own.weight_hr is None else iter(steps.rows(self.after))
        for i, f, o, g, sigmoids, gates, c, cell, squashed, before, hidden in zip(
            *(steps.rows(each) for each in buffers), strict=True
        ):
            gates.addmm_(before, weight)
            sigmoids.sigmoid_()
            g.tanh_()
            torch.mul(f, c, out=cell)
            cell.addcmul_(i, g)
            torch.tanh(cell, out=squashed)
            torch.mul(o, squashed, out=hidden)
            if projected is not None and own.weight_hr is not None:
                torch.mm(hidden, own.weight_hr.T, out=next(projected))
        return states, cells

    @staticmethod
    def _turned(weight: Tensor) -> Tensor:
        i, f, g, o = weight.chunk(4)
        return torch.cat([i, f, o, g])

    def backward(self, inputs: Tensor, gradients: Tensor, *last: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        own, steps = self.direction, self.direction.steps
        i, f, o, g = self.gates.chunk(4, 2)
        deltas = torch.empty_like(self.gates)  # first what each gate's δ is by the gradient of c, or of h for o
        for_i, for_f, for_g, for_o = deltas.chunk(4, 2)
        product = i * g
        torch.addcmul(product, product, i, value=-1, out=for_i)
        torch.addcmul(i, product, g, value=-1, out=for_g)
        torch.mul(f, self.cell_before, out=product)
        torch.addcmul(product, product, f, value=-1, out=for_f)
        torch.mul(o, self.squashed, out=product)
        torch.addcmul(product, product, o, value=-1, out=for_o)
        through = torch.addcmul(o, product, self.squashed, value=-1, out=product)  # ∂h/∂c
        steps.clear(deltas)

        outer = gradients if own.weight_hr is None else torch.empty_like(self.hidden)  # of o tanh(c)
        cell = torch.zeros_like(self.cell_after[0]) if last[0] is None else last[0].clone(memory_format=torch.contiguous_format)
        weight, size = own.weight_hh, cell.shape[1]
        buffers = (deltas[:, :, : 3 * size].unflatten(2, (3, size)), for_o, f, through, outer, gradients)
        walk = [*zip(*(steps.rows(each) for each in buffers), strict=True)]
        later, earlier = steps.shared(deltas, later=True), steps.shared(gradients, later=False)
        for step in range(len(walk) - 1, -1, -1):
            three, one, forget, slope, out, state = walk[step]
            if step < len(later):
                earlier[step].addmm_(later[step], weight)
            if own.weight_hr is not None:
                torch.mm(state, own.weight_hr, out=out)
            running = cell[: len(out)] if steps.ragged else cell
            running.addcmul_(out, slope)
            three.mul_(running.unsqueeze(1))
            one.mul_(out)
            running.mul_(forget)
        own.leave(inputs, self.before, deltas, deltas)
        key = f"weight_hr_{own.suffix}"
        if own.weight_hr is not None and key in own.deposit.wanted:
            parts = own.examples(self.hidden).contiguous(), own.examples(gradients).contiguous()
            own.deposit(key, OuterProducts(*parts, tuple(own.weight_hr.shape)))
        return deltas, (deltas[steps.first(deltas)] @ weight, cell)


def _walk(module: nn.RNNBase, direction: _Direction) -> _Walk:
    if isinstance(module, nn.LSTM):
        return _Long(direction)
    return _Gated(direction) if isinstance(module, nn.GRU) else _Plain(direction, module.nonlinearity)


def _recur(module: nn.RNNBase, args: tuple[Any, ...], kwargs: dict[str, Any], deposit: Deposit) -> tuple[Any, Any]:
    """What the module's own forward gives, from one :class:`_Layer` for each layer and direction."""
    return _forward(module, deposit, *args, **kwargs)


def _forward(module: nn.RNNBase, deposit: Deposit, input: Any, hx: Any = None) -> tuple[Any, Any]:
    packed = isinstance(input, PackedSequence)
    values = input.data if packed else input
    if not packed and values.dim() != 3:
        raise Unfit(f"a {type(module).__name__} was given one sequence without a batch dimension")
    if values.numel() == 0:
        raise Unfit(f"a {type(module).__name__} was given no steps or no examples")
    device, cast = values.device.type, None
    if torch.is_autocast_enabled(device):
        cast = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        if packed:
            padded, lengths = pad_packed_sequence(PackedSequence(values, input.batch_sizes))
            running, sorting, unsorting = tuple(input.batch_sizes.tolist()), input.sorted_indices, input.unsorted_indices
        else:
            padded, lengths = values.transpose(0, 1) if module.batch_first else values, None
            running, sorting, unsorting = (padded.shape[1],) * padded.shape[0], None, None
        initial = _initial(module, padded, hx, sorting)
        padded = padded.to(module.weight_ih_l0.dtype)
        output, last = _stack(module, padded, [state.to(padded.dtype) for state in initial], running, unsorting, deposit)
        if cast is not None:
            output, last = output.to(cast), [state.to(cast) for state in last]
    if unsorting is not None:
        last = [state.index_select(1, unsorting) for state in last]
    if packed:
        data = pack_padded_sequence(output, lengths).data
        output = PackedSequence(data, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
    elif module.batch_first:
        output = output.transpose(0, 1)
    return output, tuple(last) if isinstance(module, nn.LSTM) else last[0]


def _initial(module: nn.RNNBase, padded: Tensor, hx: Any, sorting: Tensor | None) -> list[Tensor]:
    """One state, or two for an LSTM, each ``[layers · directions, examples, size]``, sorted as the examples are."""
    count, directions = padded.shape[1], 2 if module.bidirectional else 1
    sizes = [module.proj_size or module.hidden_size, module.hidden_size][: 2 if isinstance(module, nn.LSTM) else 1]
    shapes = [(module.num_layers * directions, count, size) for size in sizes]
    if hx is None:
        return [padded.new_zeros(shape) for shape in shapes]
    given = list(hx) if isinstance(module, nn.LSTM) else [hx]
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
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
            weights = [getattr(module, f"{name}_{suffix}", None) for name in names]
            direction = _Direction(suffix, *weights, _Steps(running, backwards), unsorting, deposit)  # pyright: ignore[reportArgumentType]
            states = [state[len(ends)] for state in initial]
            output, *last = _Layer.apply(_walk(module, direction), token, inputs, *states)  # pyright: ignore[reportGeneralTypeIssues]
            outputs.append(output)
            ends.append(tuple(last))
        inputs = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)
    return inputs, [torch.stack(states) for states in zip(*ends, strict=True)]


REWRITTEN: dict[type[nn.Module], Rewritten] = {nn.LSTM: _recur, nn.GRU: _recur, nn.RNN: _recur}
"""By a module's exact type: what the engine calls in place of its forward."""
