"""Recurrent cells that walk through time and back, and hand over the gradients of their gates for the whole sequence.

    LSTM   i, f, o = σ(·)   g = tanh(·)   c_t = f c_(t-1) + i g   h_t = o tanh(c_t)   (with a projection: W_hr of that)
    GRU    r, z = σ(·)   n = tanh(W_in x + b_in + r (W_hn h_(t-1) + b_hn))   h_t = n + z (h_(t-1) - n)
    RNN    h_t = tanh(·) or max(·, 0)

where · is ``W_ih x_t + b_ih + W_hh h_(t-1) + b_hh``: gates in PyTorch's order (Hochreiter & Schmidhuber 1997, "Long Short-Term
Memory"; Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder"; backwards, Werbos 1990, "Backpropagation
through time"). δ_t is the gradient of the summed loss with respect to the gates at step t; the n gate of a GRU has two, δ
towards x and r δ towards h. No gradient of a weight is computed here.

    walk = LongWalk(Weights(weight_ih, weight_hh, bias_ih, bias_hh), Steps((8,) * 20, backwards=False))   # 20 steps of 8
    (last_cell,) = walk.forward(inputs, hidden, cell)                              # walk.after holds all hidden states
    found = walk.backward(walk.gradients(outputs=gradient, last=None), None)       # found.towards_input holds all δ

Buffers have the time first, so that a step is a contiguous slice of each, and the input's share of all gates is one product
before the loop. Whatever of the derivatives does not depend on what comes later is computed on the way there or for all
steps at once and put where the δ will be, so that a step back of an LSTM is five operations in place.

In a packed sequence a step covers the examples that are still running, the first few, since they are sorted by length.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Steps:
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

    def around(self, states: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Of ``[time + 1, ...]``, the running examples' states before and after each step, in walking order."""
        if self.ragged:
            before, after = self.neighbours(states)
            return self.rows(before), self.rows(after)
        found = list(states.unbind(0))
        found = found[::-1] if self.backwards else found
        return found[:-1], found[1:]

    def both(self, rows: list[Tensor], *, later: bool) -> list[Tensor]:
        """For each pair of neighbouring steps, the examples that run in both, at the earlier or the later of the two."""
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
class Weights:
    """Of one layer and direction, shaped as in ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN``."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None
    weight_hr: Tensor | None = None

    @property
    def bias(self) -> Tensor | None:
        return None if self.bias_ih is None or self.bias_hh is None else self.bias_ih + self.bias_hh


@dataclass(frozen=True, eq=False)
class Found:
    """What a walk back found; zero past an example's end."""

    towards_input: Tensor
    """δ, ``[time, examples, gates · size]``."""
    towards_state: Tensor
    """The same on the side of ``W_hh``."""
    initial: tuple[Tensor, ...]
    """Gradients of the initial states."""
    projected: tuple[Tensor, Tensor] | None = None
    """What ``W_hr`` was given, and the gradient of what it gave."""


def _through(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``inputs weightᵀ + bias`` for all steps at once."""
    return F.linear(inputs.flatten(0, 1), weight, bias).view(*inputs.shape[:2], -1)


class Walk(ABC):
    """The steps of one kind of cell, forward and back, with what one keeps for the other."""

    def __init__(self, weights: Weights, steps: Steps):
        self.weights, self.steps = weights, steps
        self.before = self.after = torch.empty(0)
        """The states that each step starts from and gives, ``[time, examples, size]``."""

    @abstractmethod
    def forward(self, inputs: Tensor, *initial: Tensor) -> tuple[Tensor, ...]:
        """Fills the states; gives the last ones of any other kind."""

    @abstractmethod
    def backward(self, gradients: Tensor, *last: Tensor | None) -> Found:
        """From the gradients of the states after each step, which are changed in place, and of the last ones of other kinds."""

    def gradients(self, outputs: Tensor | None, last: Tensor | None) -> Tensor:
        """Of the state after each step, from outside of the recurrence; to be changed in place."""
        steps = self.steps
        if outputs is None:
            found = torch.zeros(self.after.shape, dtype=self.after.dtype, device=self.after.device)
        else:
            found = steps.clear(outputs.clone(memory_format=torch.contiguous_format))
        if last is not None:
            found[steps.last(found)] += last
        return found

    def _start(self, state: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Rows of the states before and after each step."""
        states = self.steps.states(state)
        self.before, self.after = self.steps.neighbours(states)
        return self.steps.around(states)


class PlainWalk(Walk):
    """RNN."""

    def __init__(self, weights: Weights, steps: Steps, *, tanh: bool):
        super().__init__(weights, steps)
        self._tanh = tanh

    def forward(self, inputs: Tensor, *initial: Tensor) -> tuple[Tensor, ...]:
        own, steps = self.weights, self.steps
        gates = _through(inputs, own.weight_ih, own.bias)
        weight = own.weight_hh.T
        for gate, before, after in zip(steps.rows(gates), *self._start(initial[0]), strict=True):
            gate.addmm_(before, weight)
            if self._tanh:
                torch.tanh(gate, out=after)
            else:
                torch.clamp_min(gate, 0, out=after)
        return ()

    def backward(self, gradients: Tensor, *last: Tensor | None) -> Found:
        own, steps = self.weights, self.steps
        deltas = 1 - self.after.square() if self._tanh else (self.after > 0).to(self.after.dtype)
        steps.clear(deltas)
        weight = own.weight_hh
        rows, states = steps.rows(deltas), steps.rows(gradients)
        later, earlier = steps.both(rows, later=True), steps.both(states, later=False)
        rows[-1].mul_(states[-1])
        for step in range(len(rows) - 2, -1, -1):
            earlier[step].addmm_(later[step], weight)
            rows[step].mul_(states[step])
        return Found(deltas, deltas, (deltas[steps.first(deltas)] @ weight,))


class GatedWalk(Walk):
    """GRU."""

    def forward(self, inputs: Tensor, *initial: Tensor) -> tuple[Tensor, ...]:
        own, steps, size = self.weights, self.steps, initial[0].shape[1]
        befores, afters = self._start(initial[0])
        bias, new_bias = own.bias_ih, None
        if bias is not None and own.bias_hh is not None:
            new_bias = own.bias_hh[2 * size :]
            bias = torch.cat([bias[: 2 * size] + own.bias_hh[: 2 * size], bias[2 * size :]])
        self.gates = _through(inputs, own.weight_ih, bias)
        self.recalled = torch.zeros_like(self.after)  # W_hn h + b_hn
        if new_bias is not None:
            self.recalled += new_bias
        weight, new_weight = own.weight_hh[: 2 * size].T, own.weight_hh[2 * size :].T
        buffers = (*self.gates.chunk(3, 2), self.gates[:, :, : 2 * size], self.recalled)
        rows = (steps.rows(each) for each in buffers)
        for r, z, n, sigmoids, recalled, before, after in zip(*rows, befores, afters, strict=True):
            sigmoids.addmm_(before, weight)
            sigmoids.sigmoid_()
            recalled.addmm_(before, new_weight)
            n.addcmul_(r, recalled)
            n.tanh_()
            torch.lerp(n, before, z, out=after)
        return ()

    def backward(self, gradients: Tensor, *last: Tensor | None) -> Found:
        own, steps = self.weights, self.steps
        r, z, n = self.gates.chunk(3, 2)
        new = (1 - z).mul_(1 - n.square())  # δ of the n gate by the gradient of the state
        deltas = torch.empty_like(self.gates)  # the same of r, z and n towards the state before
        for_r, for_z, for_n = deltas.chunk(3, 2)
        torch.mul(new, r, out=for_n)
        torch.mul(for_n, self.recalled, out=for_r).mul_(1 - r)
        torch.sub(self.before, n, out=for_z).mul_(z).mul_(1 - z)
        steps.clear(deltas)
        steps.clear(new)
        weight, states = own.weight_hh, steps.rows(gradients)
        rows, by_gate = steps.rows(deltas), steps.rows(deltas.unflatten(2, (3, -1)))
        later, kept = steps.both(rows, later=True), steps.both(steps.rows(z), later=True)
        earlier, ahead = steps.both(states, later=False), steps.both(states, later=True)
        by_gate[-1].mul_(states[-1].unsqueeze(1))
        for step in range(len(rows) - 2, -1, -1):
            earlier[step].addcmul_(ahead[step], kept[step])
            earlier[step].addmm_(later[step], weight)
            by_gate[step].mul_(states[step].unsqueeze(1))
        first = steps.first(deltas)
        initial = torch.addcmul(deltas[first] @ weight, gradients[first], z[first])
        towards_input = torch.cat([deltas[:, :, : 2 * n.shape[2]], new.mul_(gradients)], 2)
        return Found(towards_input, deltas, (initial,))


class LongWalk(Walk):
    """LSTM. No gate is kept: each is overwritten, while it is still in the cache, with what its δ is by ∂c, or by ∂h for o."""

    def forward(self, inputs: Tensor, *initial: Tensor) -> tuple[Tensor, ...]:
        own, steps, size = self.weights, self.steps, initial[1].shape[1]
        befores, afters = self._start(initial[0])
        weight, projection = own.weight_hh.T, None if own.weight_hr is None else own.weight_hr.T
        self.deltas = _through(inputs, own.weight_ih, own.bias)
        self.forget = inputs.new_empty(len(self.after), *initial[1].shape)
        self.slope = torch.empty_like(self.forget)  # ∂h/∂c, before a projection
        self.hidden = self.after if projection is None else torch.zeros_like(self.forget)
        buffers = (self.deltas, *self.deltas.chunk(4, 2), self.deltas[:, :, : 2 * size], self.forget, self.slope)
        hiddens = afters if projection is None else steps.rows(self.hidden)
        cell = initial[1].clone(memory_format=torch.contiguous_format)
        scratch = torch.empty_like(cell), torch.empty_like(cell), torch.empty_like(cell)
        rows = (steps.rows(each) for each in buffers)
        for gates, i, f, g, o, i_and_f, forget, slope, hidden, before, after in zip(
            *rows, hiddens, befores, afters, strict=True
        ):
            c, new, old, squashed = (each[: len(gates)] if steps.ragged else each for each in (cell, *scratch))
            gates.addmm_(before, weight)
            i_and_f.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(i, g, out=new)
            torch.mul(f, c, out=old)
            torch.add(new, old, out=c)
            torch.tanh(c, out=squashed)
            torch.mul(o, squashed, out=hidden)
            if projection is not None:
                torch.mm(hidden, projection, out=after)
            forget.copy_(f)
            torch.addcmul(o, hidden, squashed, value=-1, out=slope)  # o (1 - tanh² c)
            torch.addcmul(hidden, hidden, o, value=-1, out=o)  # tanh(c) o (1 - o)
            torch.addcmul(i, new, g, value=-1, out=g)  # i (1 - g²)
            torch.addcmul(new, new, i, value=-1, out=i)  # g i (1 - i)
            torch.addcmul(old, old, f, value=-1, out=f)  # c f (1 - f), c of the step before
        steps.clear(self.deltas)
        return (cell,)

    def backward(self, gradients: Tensor, *last: Tensor | None) -> Found:
        own, steps, deltas, weight = self.weights, self.steps, self.deltas, self.weights.weight_hh
        cell = self.forget.new_zeros(self.forget.shape[1:])  # the gradient of c
        if last[0] is not None:
            cell += last[0]
        size, states = cell.shape[1], steps.rows(gradients)
        later, earlier = steps.both(steps.rows(deltas), later=True), steps.both(states, later=False)
        buffers = (deltas[:, :, : 3 * size].unflatten(2, (3, size)), deltas[:, :, 3 * size :], self.forget, self.slope)
        walk = [*zip(*(steps.rows(each) for each in buffers), states, strict=True)]
        for step in range(len(walk) - 1, -1, -1):
            three, one, forget, slope, state = walk[step]
            if step < len(later):
                earlier[step].addmm_(later[step], weight)
            hidden = state if own.weight_hr is None else state @ own.weight_hr
            c = cell[: len(state)] if steps.ragged else cell
            c.addcmul_(hidden, slope)
            three.mul_(c.unsqueeze(1))
            one.mul_(hidden)
            c.mul_(forget)
        projected = None if own.weight_hr is None else (self.hidden, gradients)
        return Found(deltas, deltas, (deltas[steps.first(deltas)] @ weight, cell), projected)
