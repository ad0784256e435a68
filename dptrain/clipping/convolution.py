"""Per-example gradients of a convolution's weight, in any number of dimensions, strided, dilated, grouped, transposed.

With a padded input a and the gradient g of the output, position y, kernel offset k, stride s, dilation e

    G_i[d, c, k] = Σ_y g_i[d, y] a_i[c, s y + e k]

which is a linear layer's product over the unfolded input (Rochette et al. 2019, "Efficient Per-Example Gradient Computations
in Convolutional Neural Networks"), or one more convolution whose groups are the examples, or an ordinary weight gradient of a
batch of one. The unfolded input is copied position by position, so that what is neighbouring in memory stays so; where the
kernel's height is a multiple of the stride, only its rows are unfolded and the heights are shifted views of one buffer.

A transposed convolution is the same with its input and its output's gradient exchanged.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dptrain.clipping.choice import Workspace
from dptrain.clipping.clipped import accumulator_dtype, squared_lengths
from dptrain.clipping.contributions import Chosen, Contribution, Instantiated, blank, ghost_norms, too_large

ROOM = 4.0
"""See :func:`~dptrain.clipping.contributions.too_large`; the ghost norm of a convolution costs twice its gradients."""
CACHED = 1 << 20
"""Bytes of the unfolded input that are made at a time: half of a core's second cache, or less."""


@dataclass(frozen=True)
class Geometry:
    """Of a convolution without padding: the input has been padded before."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    shape: tuple[int, ...]
    """Of the weight: ``[d, c / groups, *kernel]``."""


class Convolution(Chosen):
    """From the padded ``inputs [examples, c, *size]`` and ``outputs [examples, d, *places]``; ``group`` neighbours add up."""

    def __init__(self, inputs: Tensor, outputs: Tensor, geometry: Geometry, group: int = 1):
        super().__init__()
        wide = accumulator_dtype(torch.promote_types(inputs.dtype, outputs.dtype))
        self.inputs, self.outputs = inputs.detach().to(wide), outputs.detach().to(wide)
        self.geometry, self.group = geometry, group
        self._examples = len(inputs) // group
        self._places = tuple(outputs.shape[2:])
        self._positions = math.prod(self._places)
        self._channels_last = False
        """Whether kept gradients are ``[examples, d, *kernel, c]``."""

    @property
    def examples(self) -> int:
        return self._examples

    def key(self) -> tuple[Any, ...]:
        layout = self.inputs.stride(1) == 1, self.outputs.stride(1) == 1
        sizes = tuple(self.inputs.shape[1:]), tuple(self.outputs.shape[1:])
        return ("convolution", self.geometry, sizes, layout, self.group, self.inputs.dtype, self.inputs.device)

    def ways(self, work: Workspace, name: str) -> dict[str, Callable[[], None]]:
        geometry, found = self.geometry, dict[str, Callable[[], None]]()
        numel = math.prod(geometry.shape)
        if geometry.groups == 1:
            found["unfolded"] = lambda: self._unfolded(work, name)
            if self._rows_shift():
                found["rows"] = lambda: self._rows(work, name)
            if (self._positions * self.group) ** 2 < 16 * numel:
                found["ghost"] = lambda: self._ghost(work)
        if "ghost" in found and too_large(self._examples * numel, self.inputs, self.outputs, ROOM):
            return {"ghost": found["ghost"]}
        found["one by one"] = lambda: self._one_by_one(work, name)
        if self.group == 1 and (geometry.groups > 1 or self._examples * numel < 1 << 24):
            found["grouped"] = self._grouped
        return found

    def _rows_shift(self) -> bool:
        geometry = self.geometry
        return len(geometry.kernel) == 2 and geometry.dilation == (1, 1) and geometry.kernel[0] % geometry.stride[0] == 0

    def _channels(self) -> Tensor:
        """The input with its channels as the last dimension, in one piece."""
        return self.inputs.movedim(1, -1).contiguous()

    def _output_positions(self, part: slice) -> Tensor:
        """``[examples, positions, d]`` of some examples, for each group's members one behind the other."""
        rows = self.outputs[part.start * self.group : part.stop * self.group]
        return rows.movedim(1, -1).reshape(part.stop - part.start, self.group * self._positions, -1)

    def _blocks(self, values: int) -> Iterator[slice]:
        """So many examples at a time that what is unfolded, ``values`` an example, stays in the cache."""
        count = max(1, CACHED // (values * self.inputs.element_size()))
        for start in range(0, self._examples, count):
            yield slice(start, min(start + count, self._examples))

    def _unfold(self, work: Workspace, a: Tensor, part: slice) -> Tensor:
        """``[examples, positions, kernel · c]`` of some examples of ``a``, which has its channels last."""
        geometry, steps = self.geometry, a.stride()
        inner = [step * e for step, e in zip(steps[1:-1], geometry.dilation, strict=True)]
        outer = [step * s for step, s in zip(steps[1:-1], geometry.stride, strict=True)]
        count = (part.stop - part.start) * self.group
        shape = (count, *self._places, *geometry.kernel, a.shape[-1])
        unfolded = work.take("unfolded", shape, a)
        start = a.storage_offset() + part.start * self.group * steps[0]
        unfolded.copy_(a.as_strided(shape, (steps[0], *outer, *inner, 1), start))
        return unfolded.view(part.stop - part.start, self.group * self._positions, -1)

    def _unfolded(self, work: Workspace, name: str) -> None:
        a, (d, c) = self._channels(), self.geometry.shape[:2]
        size = math.prod(self.geometry.kernel) * c
        kept = work.take((name, "gradients"), (self._examples, d, size), a)
        squares = torch.empty(self._examples, dtype=torch.float64, device=a.device)
        for part in self._blocks(self.group * self._positions * size):
            torch.bmm(self._output_positions(part).mT, self._unfold(work, a, part), out=kept[part])
            squares[part] = squared_lengths(kept[part].flatten(1))
        self._set(kept, squares)

    def _set(self, kept: Tensor, squares: Tensor) -> None:
        """Gradients with the channels last."""
        shape = self.geometry.shape
        self._channels_last = True
        self._keep_gradients(kept.view(-1, shape[0], *self.geometry.kernel, shape[1]), squares)

    def _rows(self, work: Workspace, name: str) -> None:
        (high, wide), (down, right) = self.geometry.kernel, self.geometry.stride
        places_down, places_right = self._places
        a, d = self._channels(), self.geometry.shape[0]
        rows = ((places_down - 1) * down + high) // down  # a kernel is whole strides high, and so is what it covers
        steps = a.stride()
        strides = (steps[0], steps[1] * down, steps[2] * right, steps[1], steps[2], 1)
        width = down * wide * a.shape[3]
        kept = work.take((name, "gradients"), (self._examples, d, high // down, width), a)
        squares = torch.empty(self._examples, dtype=torch.float64, device=a.device)
        for part in self._blocks(self.group * rows * places_right * width):
            count = (part.stop - part.start) * self.group
            shape = (count, rows, places_right, down, wide, a.shape[3])
            unfolded = work.take("unfolded", shape, a)
            unfolded.copy_(a.as_strided(shape, strides, a.storage_offset() + part.start * self.group * steps[0]))
            members = self.outputs[part.start * self.group : part.stop * self.group]
            outputs = members.movedim(1, -1).reshape(count, self._positions, d).mT
            for offset in range(high // down):
                product = torch.bmm(outputs, unfolded[:, offset : offset + places_down].view(count, self._positions, width))
                kept[part, :, offset] = product if self.group == 1 else product.unflatten(0, (-1, self.group)).sum(1)
            squares[part] = squared_lengths(kept[part].flatten(1))
        self._set(kept, squares)

    def _ghost(self, work: Workspace) -> None:
        a, squares = self._channels(), torch.empty(self._examples, dtype=torch.float64, device=self.inputs.device)
        for part in self._blocks(self.group * self._positions * math.prod(self.geometry.kernel) * a.shape[-1]):
            squares[part] = ghost_norms(self._unfold(work, a, part), self._output_positions(part))
        self._measure_only(squares)

    def _gradient(self, inputs: Tensor, outputs: Tensor, groups: int, shape: tuple[int, ...]) -> Tensor:
        geometry, none = self.geometry, [0] * len(self.geometry.kernel)
        weight = inputs.new_empty(shape)  # of its values, nothing is read
        return torch.ops.aten.convolution_backward(
            outputs, inputs, weight, None, geometry.stride, none, geometry.dilation, False, none, groups, [False, True, False]
        )[1]

    def _one_by_one(self, work: Workspace, name: str) -> None:
        """An ordinary weight gradient for each example, measured while it lies in the cache, and kept as it is laid out."""
        shape, group = self.geometry.shape, self.group
        last = self.inputs.stride(1) == 1 and self.geometry.groups == 1
        laid = (shape[0], *shape[2:], shape[1]) if last else shape
        kept = work.take((name, "gradients"), (self._examples, *laid), self.inputs)
        squares = torch.empty(self._examples, dtype=torch.float64, device=kept.device)
        for index in range(self._examples):
            members = slice(index * group, (index + 1) * group)
            gradient = self._gradient(self.inputs[members], self.outputs[members], self.geometry.groups, shape)
            kept[index] = gradient.movedim(1, -1) if last else gradient
            squares[index] = squared_lengths(kept[index].view(-1))
        self._channels_last = last
        self._keep_gradients(kept, squares)

    def _grouped(self) -> None:
        """One convolution, whose groups are the examples' groups."""
        shape, examples = self.geometry.shape, self._examples
        inputs, outputs = (part.reshape(1, -1, *part.shape[2:]) for part in (self.inputs, self.outputs))
        gradient = self._gradient(inputs, outputs, self.geometry.groups * examples, (examples * shape[0], *shape[1:]))
        self._channels_last = False
        self._keep_gradients(gradient.reshape(examples, *shape))

    def release(self) -> None:
        self.inputs = self.outputs = torch.empty(0)

    def shaped(self, gradients: Tensor) -> Tensor:
        if not self._channels_last:
            return gradients
        return gradients.movedim(-1, -1 - len(self.geometry.kernel))

    def sum_of_products(self, factors: Tensor) -> Tensor:
        each = factors.to(self.outputs.dtype).repeat_interleave(self.group)
        scaled = self.outputs * each.view(-1, *(1,) * (self.outputs.dim() - 1))
        return self._gradient(self.inputs, scaled, self.geometry.groups, self.geometry.shape)

    def instantiate(self) -> Instantiated:
        if self._kept is None:
            self._one_by_one(Workspace(), "")
        assert self._kept is not None
        return Instantiated(self.shaped(self._kept))

    def keep(self, kept: Tensor) -> Contribution:
        if self._kept is not None:
            return Instantiated(self.shaped(blank(self._kept, kept)))
        each = kept.repeat_interleave(self.group)
        return Convolution(blank(self.inputs, each), blank(self.outputs, each), self.geometry, self.group)

    def fold(self, size: int) -> "Convolution":
        return Convolution(self.inputs, self.outputs, self.geometry, self.group * size)
