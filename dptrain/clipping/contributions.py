"""What per-example gradients of one parameter are made of, and how they are measured and summed.

A layer that computes ``out = f(input, weight)`` for each example by itself has per-example gradients that follow from the
input ``a`` and the gradient ``g`` of the summed loss with respect to ``out``, since the loss of example i reaches ``out[i]``
alone. For a linear layer over T positions

    G_i = Σ_t g_it a_itᵀ        ‖G_i‖² = Σ_t Σ_t' (a_it·a_it') (g_it·g_it')        Σ_i c_i G_i = Σ_it (c_i g_it) a_itᵀ

so that neither the norm (Goodfellow 2015, "Efficient Per-Example Gradient Computations"; Li et al. 2022, "Large Language
Models Can Be Strong Differentially Private Learners") nor the clipped sum (Bu et al. 2022, "Differentially Private
Optimization on Large Model at Small Cost") needs ``[examples, *parameter]`` in memory. Where G_i is small, or positions are
many, making it once and keeping it for the sum is cheaper: the products are then those of ordinary training. Which way is
taken is measured (:mod:`~dptrain.clipping.choice`); all give the same result to rounding.

The members of a group (a user's examples, or views of one example) stand next to each other; ``fold(k)`` adds up every k
gradients, mostly by treating the members as further positions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dptrain.clipping.choice import Choice, Workspace, bucket
from dptrain.clipping.clipped import LOST, accumulator_dtype, by_example, squared_lengths


class Contribution(ABC):
    """One parameter's part in the per-example gradients."""

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

    @abstractmethod
    def fold(self, size: int) -> "Contribution":
        """The gradients of groups of ``size`` neighbours, added up."""

    def settle(self, choice: Choice, work: Workspace, name: str) -> None:
        """Chooses the way and measures the norms, while input and gradient are at hand; lets go of what is not needed."""
        del choice, work, name  # here there is but one way

    def add_to(self, total: Tensor, factors: Tensor, first: bool) -> None:
        """Adds the weighted sum to ``total``, or, where it is the ``first``, writes it there."""
        if first:
            total.copy_(self.weighted_sum(factors))
        else:
            total += self.weighted_sum(factors)


def blank(values: Tensor, kept: Tensor) -> Tensor:
    """Zeros in place of the examples that are not kept."""
    return torch.where(kept.view(-1, *(1,) * (values.dim() - 1)), values, torch.zeros_like(values))


def _column(factors: Tensor, like: Tensor) -> Tensor:
    return factors.to(like.dtype).view(-1, *(1,) * (like.dim() - 1))


class Instantiated(Contribution):
    """Gradients ``[examples, *parameter]``, for parameters that are small or shared."""

    def __init__(self, gradients: Tensor):
        self.gradients = gradients.detach().to(accumulator_dtype(gradients.dtype))
        self._squares: Tensor | None = None

    def squared_norms(self) -> Tensor:
        if self._squares is None:
            self._squares = squared_lengths(by_example(self.gradients))
        return self._squares

    def weighted_sum(self, factors: Tensor) -> Tensor:
        flat = by_example(self.gradients)
        return torch.mv(flat.t(), factors.to(flat.dtype)).view(self.gradients.shape[1:])

    def instantiate(self) -> "Instantiated":
        return self

    def keep(self, kept: Tensor) -> "Instantiated":
        return Instantiated(blank(self.gradients, kept))

    def fold(self, size: int) -> "Instantiated":
        return Instantiated(self.gradients.unflatten(0, (-1, size)).sum(1))


class Chosen(Contribution):
    """A contribution with several ways to the same norms: some keep the gradients that they made, some need not make any."""

    def __init__(self) -> None:
        self._kept: Tensor | None = None
        """``[examples, *]``, as the way that made them lays them out."""
        self._squares: Tensor | None = None

    @abstractmethod
    def ways(self, work: Workspace, name: str) -> dict[str, Callable[[], None]]:
        """Each sets the squared norms, and the kept gradients or none."""

    @abstractmethod
    def key(self) -> tuple[Any, ...]:
        """What the speed of each way depends on, but for the number of examples."""

    @abstractmethod
    def release(self) -> None:
        """Lets go of inputs and output gradients: the gradients themselves are kept."""

    @abstractmethod
    def shaped(self, gradients: Tensor) -> Tensor:
        """Kept gradients, or a sum of them, with the parameter's shape in its last dimensions."""

    @abstractmethod
    def sum_of_products(self, factors: Tensor) -> Tensor:
        """The weighted sum from inputs and output gradients."""

    @property
    @abstractmethod
    def examples(self) -> int: ...

    def settle(self, choice: Choice, work: Workspace, name: str) -> None:
        ways = self.ways(work, name)

        def whole(way: Callable[[], None]) -> Callable[[], object]:
            def run() -> object:
                way()
                return self.weighted_sum(torch.ones_like(self.squared_norms()))

            return run

        way = choice.of((*self.key(), bucket(self.examples)), {key: whole(run) for key, run in ways.items()})
        ways[way]()
        if self._kept is not None:
            self.release()

    def squared_norms(self) -> Tensor:
        if self._squares is None:
            next(iter(self.ways(Workspace(), "").values()))()
        assert self._squares is not None
        return self._squares

    def weighted_sum(self, factors: Tensor) -> Tensor:
        if self._kept is None:
            return self.sum_of_products(factors)
        flat = self._kept.flatten(1)
        return self.shaped(torch.mv(flat.t(), factors.to(flat.dtype)).view(self._kept.shape[1:]))

    def _keep_gradients(self, gradients: Tensor, squares: Tensor | None = None) -> None:
        self._kept = gradients
        self._squares = squared_lengths(gradients.flatten(1)) if squares is None else squares

    def _measure_only(self, squares: Tensor) -> None:
        self._kept, self._squares = None, squares


ROOM = 1.5
"""How many times the memory of a layer's input and output gradient the per-example gradients that are kept may take, where a
ghost norm costs a little more than they do."""


def too_large(values: int, inputs: Tensor, outputs: Tensor, room: float = ROOM) -> bool:
    """Whether so many values would be too much to keep."""
    return values > room * (inputs.numel() + outputs.numel())


def ghost_norms(inputs: Tensor, outputs: Tensor) -> Tensor:
    """‖Σ_t g_t a_tᵀ‖² of ``[examples, positions, *]``, without the products themselves.

    Terms may cancel, and then rounding is large beside what is left: it is added, so that no norm comes out short. So is what
    underflows in a product of two positions' inputs or outputs, times the other factor.
    """
    products = torch.bmm(inputs, inputs.mT).mul_(torch.bmm(outputs, outputs.mT))
    squares = products.flatten(1).sum(1, dtype=torch.float64)
    long_in, long_out = squared_lengths(inputs).sqrt(), squared_lengths(outputs).sqrt()
    longest = (long_in * long_out).sum(1).square()
    wide_in, wide_out = inputs.shape[2], outputs.shape[2]
    lost = LOST[inputs.dtype] * (wide_in * long_out.sum(1).square() + wide_out * long_in.sum(1).square())
    return squares.clamp_min(0) + longest * (torch.finfo(inputs.dtype).eps * (wide_in + wide_out) ** 0.5) + lost


class OuterProducts(Chosen):
    """``G_i = Σ_t g_it a_itᵀ`` from ``inputs [examples, positions, p]`` and ``outputs [examples, positions, d]``."""

    def __init__(self, inputs: Tensor, outputs: Tensor, shape: tuple[int, ...]):
        super().__init__()
        wide = accumulator_dtype(torch.promote_types(inputs.dtype, outputs.dtype))  # under autocast the two may differ
        self.inputs, self.outputs, self.shape = inputs.detach().to(wide), outputs.detach().to(wide), shape
        self._examples, self.positions, self.p = inputs.shape
        self.d = outputs.shape[2]

    @property
    def examples(self) -> int:
        return self._examples

    def key(self) -> tuple[Any, ...]:
        return ("products", self.positions, self.p, self.d, self.inputs.dtype, self.inputs.device)

    def ways(self, work: Workspace, name: str) -> dict[str, Callable[[], None]]:
        if self.positions == 1:
            return {
                "factors": lambda: self._measure_only(squared_lengths(self.inputs[:, 0]) * squared_lengths(self.outputs[:, 0]))
            }
        found: dict[str, Callable[[], None]] = {
            "ghost": lambda: self._measure_only(ghost_norms(self.inputs, self.outputs)),
            "instantiated": lambda: self._instantiate(work, name),
        }
        if too_large(self._examples * self.d * self.p, self.inputs, self.outputs) and "ghost" in found:
            return {"ghost": found["ghost"]}
        if self.d * self.p >= 1 << 14:
            found["one by one"] = lambda: self._one_by_one(work, name)
        if 2 * self.positions * self.positions > self.p * self.d:  # the first one is taken where nothing is measured
            found["ghost"] = found.pop("ghost")
            if self.positions * self.positions > 16 * self.p * self.d:
                del found["ghost"]
        return found

    def _buffer(self, work: Workspace, name: str) -> Tensor:
        return work.take((name, "gradients"), (self._examples, self.d, self.p), self.inputs)

    def _instantiate(self, work: Workspace, name: str) -> None:
        self._keep_gradients(torch.bmm(self.outputs.mT, self.inputs, out=self._buffer(work, name)))

    def _one_by_one(self, work: Workspace, name: str) -> None:
        """Each gradient is measured while it lies in the cache."""
        kept = self._buffer(work, name)
        squares = torch.empty(self._examples, dtype=torch.float64, device=kept.device)
        for index in range(self._examples):
            torch.mm(self.outputs[index].T, self.inputs[index], out=kept[index])
            squares[index] = squared_lengths(kept[index].view(-1))
        self._keep_gradients(kept, squares)

    def release(self) -> None:
        self.inputs = self.outputs = torch.empty(0)

    def shaped(self, gradients: Tensor) -> Tensor:
        return gradients.reshape(*gradients.shape[:-2], *self.shape)

    def sum_of_products(self, factors: Tensor) -> Tensor:
        return self._product(factors).view(self.shape)

    def scaled_product(self, scale: Tensor, out: Tensor | None = None) -> Tensor:
        """``[d, p]``: the narrower of the two is written anew, times ``scale``, which is as wide as one."""
        inputs, outputs = (self.inputs * scale, self.outputs) if self.p <= self.d else (self.inputs, self.outputs * scale)
        return torch.mm(outputs.flatten(0, 1).T, inputs.flatten(0, 1), out=out)

    def _product(self, factors: Tensor, out: Tensor | None = None) -> Tensor:
        return self.scaled_product(_column(factors, self.inputs), out)

    def add_to(self, total: Tensor, factors: Tensor, first: bool) -> None:
        whole = total.numel() == self.d * self.p and total.dtype == self.inputs.dtype and total.is_contiguous()
        if first and self._kept is None and whole:
            self._product(factors, out=total.view(self.d, self.p))
        else:
            super().add_to(total, factors, first)

    def instantiate(self) -> Instantiated:
        kept = self._kept if self._kept is not None else torch.bmm(self.outputs.mT, self.inputs)
        return Instantiated(self.shaped(kept))

    def keep(self, kept: Tensor) -> Contribution:
        if self._kept is not None:
            return Instantiated(self.shaped(blank(self._kept, kept)))
        return OuterProducts(blank(self.inputs, kept), blank(self.outputs, kept), self.shape)

    def fold(self, size: int) -> "OuterProducts":
        groups = self._examples // size
        return OuterProducts(self.inputs.reshape(groups, -1, self.p), self.outputs.reshape(groups, -1, self.d), self.shape)


class Rows(Contribution):
    """Rows of a table that each example used: ``indices [examples, positions]``, ``outputs [examples, positions, d]``.

    No ``[examples, rows]`` is made: two positions of an example add up where they used the same row.
    """

    def __init__(self, indices: Tensor, outputs: Tensor, rows: int):
        self.indices, self.rows = indices, rows
        self.outputs = outputs.detach().to(accumulator_dtype(outputs.dtype))
        self._squares: Tensor | None = None

    def squared_norms(self) -> Tensor:
        if self._squares is None:
            self._squares = self._measured()
        return self._squares

    def _measured(self) -> Tensor:
        same = self.indices[:, :, None] == self.indices[:, None, :]
        products = torch.bmm(self.outputs, self.outputs.mT).where(same, torch.zeros((), dtype=self.outputs.dtype))
        squares = products.flatten(1).sum(1, dtype=torch.float64).clamp_min(0)
        longest = squared_lengths(self.outputs).sqrt().sum(1).square()
        width, positions = self.outputs.shape[2], self.indices.shape[1]
        lost = positions * positions * width * LOST[self.outputs.dtype]
        return squares + longest * (torch.finfo(self.outputs.dtype).eps * width**0.5) + lost

    def weighted_sum(self, factors: Tensor) -> Tensor:
        scaled = self.outputs * _column(factors, self.outputs)
        total = scaled.new_zeros(self.rows, scaled.shape[2])
        return total.index_add_(0, self.indices.flatten(), scaled.flatten(0, 1))

    def instantiate(self) -> Instantiated:
        examples, _, width = self.outputs.shape
        offset = torch.arange(examples, device=self.indices.device)[:, None] * self.rows
        flat = self.outputs.new_zeros(examples * self.rows, width)
        flat.index_add_(0, (self.indices + offset).flatten(), self.outputs.flatten(0, 1))
        return Instantiated(flat.view(examples, self.rows, width))

    def keep(self, kept: Tensor) -> "Rows":
        return Rows(self.indices, blank(self.outputs, kept), self.rows)

    def fold(self, size: int) -> "Rows":
        groups = len(self.indices) // size
        return Rows(self.indices.reshape(groups, -1), self.outputs.reshape(groups, -1, self.outputs.shape[2]), self.rows)
