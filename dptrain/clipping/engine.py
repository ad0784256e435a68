"""The clipped sum of a logical batch, computed in physical chunks.

Each chunk goes through one pass to layer outputs where that was seen to be right, and through ``torch.func`` elsewhere.
The sum does not depend on the chunk size (but for rounding): clipping looks at one example at a time. Nothing here adds
noise or divides; a :class:`~dptrain.clipping.clipped.ClippedSum` states its own sensitivity and goes to the noise.

    clipper = Clipper(model, loss, Clipping(clipping_norm=1.0))
    total = clipper.sum([(inputs, targets), (more_inputs, more_targets)])

An example may stand for several rows (the examples of one user, the augmented views of one picture): a :class:`Chunk` says
how many, and how much each counts. Their averaged gradient is clipped as one.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dptrain.clipping.choice import Choice, bucket
from dptrain.clipping.clipped import ClippedSum, Clipping, Counts, accumulator_dtype
from dptrain.clipping.fallback import LossFunction, PerExampleGradients, check_losses, squares_of
from dptrain.clipping.onepass import OnePass
from dptrain.clipping.tape import Pass, without_autocast
from dptrain.errors import ProtocolError
from dptrain.recipe import Performance


@dataclass(frozen=True, eq=False)
class Chunk:
    """Collated rows that are computed together."""

    batch: Any
    """Each tensor's first dimension counts the rows; ``group`` neighbours are one example to the clipping."""
    group: int = 1
    weights: Float[Tensor, " rows"] | None = None
    """How much each row counts in its group's gradient; left out, the rows of a group are averaged."""
    real: Bool[Tensor, " examples"] | None = None
    """Which groups are there at all; the others only fill the chunk, and contribute nothing whatever they hold."""

    def row_weights(self, rows: int, device: torch.device) -> Tensor | None:
        """``[rows]``; none where every row counts whole."""
        if rows % self.group:
            raise ProtocolError(f"a chunk has {rows} rows, which are not whole groups of {self.group}")
        if self.weights is not None:
            return self.weights.to(device)
        return torch.full((rows,), 1 / self.group, device=device, dtype=torch.float64) if self.group > 1 else None


class Clipper:
    """Sums clipped gradients of a model's trainable parameters.

    An infinite clipping norm sums ordinary gradients, at the price of ordinary training, and its sensitivity is infinite.

    Args:
        clipping: the rule and its bound; a number is flat clipping to that norm.
        divisor: what sums are divided by, and their sensitivity with them: a public number, for noise and optimizer to see the
            mean. Dividing the factors costs nothing; dividing the sum would be one more pass over all weights.
        performance: which way to take, where several give the same; left out, the fastest is measured.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        clipping: Clipping | float,
        performance: Performance | None = None,
        *,
        divisor: float = 1.0,
    ):
        self.model = model
        self.loss = loss
        self.clipping = clipping if isinstance(clipping, Clipping) else Clipping(float(clipping))
        self.performance = performance or Performance()
        self.divisor = divisor
        self.choice = Choice.shared(self.performance.norms)
        self._layout: str | None = None
        """In which the model lies, once that was decided."""
        self._per_example = PerExampleGradients(model, loss)
        self._one_pass = OnePass(model, loss, self.choice, floor=self.clipping.floor)
        self._flat: Tensor | None = None

    @property
    def sensitivity(self) -> float:
        """The most that one example, changed as the neighbouring relation says, changes a sum in L2 norm."""
        return self.clipping.sensitivity / self.divisor

    @property
    def method(self) -> str:
        """How per-example gradients are computed: in one pass, or by torch.func, and then why."""
        return f"torch.func: {self._one_pass.reason}" if self._one_pass.reason else "one pass"

    def parameters(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def layers(self) -> list[list[str]]:
        """Names of the trainable parameters, by the module that holds them: what clipping per layer clips together."""
        found: dict[str, list[str]] = {}
        for name in self.parameters():
            found.setdefault(name.rpartition(".")[0], []).append(name)
        return list(found.values())

    def sum(self, chunks: Iterable[Any], *, reuse: bool = False) -> ClippedSum:
        """The clipped sum over all chunks; no chunk at all is a sum of zeros.

        Args:
            chunks: collated examples, each tensor's first dimension counting them; or :class:`Chunk` objects.
            reuse: write into the memory of the last sum that was made so, which must have served its purpose.
        """
        parameters = self.parameters()
        chunks = iter(chunks)
        begin = next(chunks, None)
        if begin is not None:
            self._arrange(begin if isinstance(begin, Chunk) else Chunk(begin))
            chunks = itertools.chain([begin], chunks)
        total, flat = self._totals(parameters, reuse)
        counts, first = Counts(), True
        for chunk in chunks:
            chunk = self._arranged(chunk if isinstance(chunk, Chunk) else Chunk(chunk))
            add = self._add_clipped if math.isfinite(self.clipping.clipping_norm) else self._add_ordinary
            counts += add(parameters, chunk, total, first)
            first = False
        if first:
            for value in total.values():
                value.zero_()
        return ClippedSum(total, self.sensitivity, counts, self.divisor, flat)

    def _arrange(self, chunk: Chunk) -> None:
        """Decides once in which layout model and images are computed with; a matter of speed alone."""
        if self._layout is not None or not _rows(chunk.batch):
            return
        images = any(isinstance(leaf, Tensor) and _is_image(leaf) for leaf in pytree.tree_leaves(chunk.batch))
        convolutions = any(isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) for module in self.model.modules())
        wanted = self.performance.layout if images and convolutions else "contiguous"
        if wanted == "measured":
            shapes = tuple(tuple(leaf.shape[1:]) for leaf in pytree.tree_leaves(chunk.batch) if isinstance(leaf, Tensor))
            key = ("layout", str(self.model), shapes, bucket(_rows(chunk.batch)))
            wanted = self.choice.of(key, {layout: functools.partial(self._try, layout, chunk) for layout in LAYOUTS})
        self._lay(wanted)

    def _lay(self, layout: str) -> None:
        if self._layout != layout and (layout != "contiguous" or self._layout is not None):
            self.model.to(memory_format=LAYOUTS[layout])  # pyright: ignore[reportCallIssue]  a torch overload of its own
        self._layout = layout

    def _try(self, layout: str, chunk: Chunk) -> None:
        self._lay(layout)
        parameters = self.parameters()
        add = self._add_clipped if math.isfinite(self.clipping.clipping_norm) else self._add_ordinary
        add(parameters, self._arranged(chunk), self._totals(parameters, reuse=False)[0], True)

    def _arranged(self, chunk: Chunk) -> Chunk:
        layout = LAYOUTS[self._layout or "contiguous"]

        def lay(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            leaf = leaf.detach()  # examples are no parameters
            return leaf.contiguous(memory_format=layout) if self._layout == "channels_last" and _is_image(leaf) else leaf

        return dataclasses.replace(chunk, batch=pytree.tree_map(lay, chunk.batch))

    def _totals(self, parameters: dict[str, Tensor], reuse: bool) -> tuple[dict[str, Tensor], Tensor | None]:
        """Memory for the sum: one piece, in which each parameter's part lies as the parameter does."""
        kinds = {(accumulator_dtype(value.dtype), value.device) for value in parameters.values()}
        if len(kinds) != 1:
            return {n: torch.empty_like(v, dtype=accumulator_dtype(v.dtype)) for n, v in parameters.items()}, None
        (dtype, device), size = kinds.pop(), sum(value.numel() for value in parameters.values())
        flat = self._flat if reuse else None
        if flat is None or flat.numel() != size or flat.dtype != dtype or flat.device != device:
            flat = torch.empty(size, dtype=dtype, device=device)
        if reuse:
            self._flat = flat
        total, start = {}, 0
        for name, value in parameters.items():
            total[name] = flat.as_strided(value.shape, _strides(value), start)
            start += value.numel()
        return total, flat

    def _add_clipped(self, parameters: dict[str, Tensor], chunk: Chunk, total: dict[str, Tensor], first: bool) -> Counts:
        rows = _rows(chunk.batch)
        weights = chunk.row_weights(rows, next(iter(parameters.values())).device)
        layers = self.layers() if self.clipping.rule == "per_layer" else None
        done = self._one_pass(chunk.batch, chunk.group, weights)
        if done is not None:
            return self._add_pass(done, chunk, layers, total, first)
        gradients, losses = self._per_example(parameters, chunk.batch)
        if weights is not None:
            gradients = {name: _averaged(value, weights, chunk.group) for name, value in gradients.items()}
        return self._add_instantiated(gradients, losses, chunk, layers, total, first)

    @without_autocast
    def _add_pass(
        self, done: Pass, chunk: Chunk, layers: list[list[str]] | None, total: dict[str, Tensor], first: bool
    ) -> Counts:
        factors, finite, counts = self._factors(done.squares(layers), chunk, done.losses, _coarsest(total))
        by_name = self._by_name(factors, layers, total)
        whole = bool(finite.all())
        for name, sum_of in total.items():
            part = done.contributions.get(name)
            if part is not None:
                (part if whole else part.keep(finite)).add_to(sum_of, by_name[name], first)
            elif first:
                sum_of.zero_()
        return counts

    @without_autocast
    def _add_instantiated(
        self,
        gradients: dict[str, Tensor],
        losses: Tensor,
        chunk: Chunk,
        layers: list[list[str]] | None,
        total: dict[str, Tensor],
        first: bool,
    ) -> Counts:
        squares = squares_of(gradients, layers)
        factors, finite, counts = self._factors(squares, chunk, losses, _coarsest(total))
        by_name = self._by_name(factors, layers, total)
        for name, gradient in gradients.items():
            if not bool(finite.all()):  # 0 · NaN is NaN: what is not finite must be replaced, not multiplied away
                shape = (-1,) + (1,) * (gradient.dim() - 1)
                gradient = torch.where(finite.view(shape), gradient, torch.zeros_like(gradient))
            wide = total[name].dtype
            added = torch.tensordot(by_name[name].to(wide), gradient.to(wide), dims=1)
            total[name].copy_(added) if first else total[name].add_(added)
        return counts

    def _factors(self, squares: Tensor, chunk: Chunk, losses: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Counts]:
        """Factors of each layer or of all together, which examples are finite, and how many did what."""
        factors, finite, long = self.clipping.factors(squares, dtype, self.divisor)
        present, bad = len(finite), ~finite
        if chunk.real is not None:
            real = chunk.real.to(finite.device)
            factors, long, bad = torch.where(real, factors, torch.zeros_like(factors)), long & real, bad & real
            losses, present = losses[real.repeat_interleave(chunk.group)], int(real.sum())
        loss = float(losses.sum())
        if not math.isfinite(loss):
            loss = float(losses[torch.isfinite(losses)].sum())
        return factors, finite, Counts(present, int(long.sum()), int(bad.sum()), loss / chunk.group)

    @staticmethod
    def _by_name(factors: Tensor, layers: list[list[str]] | None, total: dict[str, Tensor]) -> dict[str, Tensor]:
        if layers is None:
            return dict.fromkeys(total, factors[0])
        return {name: factors[index] for index, names in enumerate(layers) for name in names}

    def _add_ordinary(self, parameters: dict[str, Tensor], chunk: Chunk, total: dict[str, Tensor], first: bool) -> Counts:
        losses = self.loss(self.model, chunk.batch)
        rows = len(losses) if losses.dim() else 0
        check_losses(losses, max(rows, 1))
        weights = chunk.row_weights(rows, losses.device)
        weighted = losses if weights is None else losses * weights.to(losses.dtype)
        if chunk.real is not None:
            weighted = weighted[chunk.real.to(losses.device).repeat_interleave(chunk.group)]
        gradients = torch.autograd.grad(weighted.sum() / self.divisor, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                total[name].copy_(gradient) if first else total[name].add_(gradient)
            elif first:
                total[name].zero_()
        present = rows // chunk.group if chunk.real is None else int(chunk.real.sum())
        return Counts(present, 0, 0, float(weighted.detach().sum()))


LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def _coarsest(total: dict[str, Tensor]) -> torch.dtype:
    """The type whose rounding is the largest."""
    return torch.float32 if any(value.dtype == torch.float32 for value in total.values()) else torch.float64


def _is_image(leaf: Tensor) -> bool:
    return leaf.dim() == 4 and leaf.is_floating_point()


def _rows(batch: Any) -> int:
    return next((len(leaf) for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim()), 0)


def _strides(value: Tensor) -> tuple[int, ...]:
    """Those of the parameter, so that an optimizer finds both laid out alike; or contiguous ones where it has gaps."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(value.dim())
    if value.is_contiguous() or (last is not None and value.is_contiguous(memory_format=last)):
        return value.stride()
    return torch.empty(value.shape, device="meta").stride()


def _averaged(gradients: Tensor, weights: Tensor, group: int) -> Tensor:
    """Per-row gradients as per-group ones; a row without weight contributes nothing, whatever it holds."""
    each = weights.to(gradients.dtype).view(-1, *(1,) * (gradients.dim() - 1))
    weighted = torch.where(each != 0, gradients * each, torch.zeros_like(gradients))
    return weighted.unflatten(0, (-1, group)).sum(1)
