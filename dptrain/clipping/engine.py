"""The clipped sum of a logical batch, computed in physical chunks.

Each chunk goes through one pass to layer outputs where that was seen to be right, and through ``torch.func`` elsewhere.
The sum does not depend on the chunk size (but for rounding): clipping looks at one example at a time. Nothing here adds
noise or divides; a :class:`~dptrain.clipping.clipped.ClippedSum` states its own sensitivity and goes to the noise.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dptrain.clipping.clipped import ClippedSum, accumulator_dtype, clip_factors
from dptrain.clipping.fallback import LossFunction, PerExampleGradients, check_losses, norms_of
from dptrain.clipping.onepass import OnePass


class Clipper:
    """Sums clipped gradients of a model's trainable parameters.

        clipper = Clipper(model, loss, clipping_norm=1.0)
        total = clipper.sum([(inputs, targets), (more_inputs, more_targets)])

    An infinite clipping norm sums ordinary gradients, at the price of ordinary training, and its sensitivity is infinite.
    """

    def __init__(self, model: nn.Module, loss: LossFunction, clipping_norm: float):
        self.model = model
        self.loss = loss
        self.clipping_norm = clipping_norm
        self._per_example = PerExampleGradients(model, loss)
        self._one_pass = OnePass(model, loss)

    @property
    def sensitivity(self) -> float:
        """The most that one example, added, removed or blanked, changes a sum in L2 norm."""
        return self.clipping_norm

    @property
    def method(self) -> str:
        """How per-example gradients are computed: in one pass, or by torch.func, and then why."""
        return f"torch.func: {self._one_pass.reason}" if self._one_pass.reason else "one pass"

    def parameters(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def sum(self, chunks: Iterable[Any]) -> ClippedSum:
        """The clipped sum over all chunks; no chunk at all is a sum of zeros.

        Args:
            chunks: collated examples; each tensor's first dimension counts the examples of its chunk.
        """
        parameters = self.parameters()
        total = {name: torch.zeros_like(value, dtype=accumulator_dtype(value.dtype)) for name, value in parameters.items()}
        examples = clipped = non_finite = 0
        loss = 0.0
        for chunk in chunks:
            add = self._add_clipped if math.isfinite(self.clipping_norm) else self._add_ordinary
            counts = add(parameters, chunk, total)
            examples, clipped, non_finite = examples + counts[0], clipped + counts[1], non_finite + counts[2]
            loss += counts[3]
        return ClippedSum(total, self.sensitivity, examples, clipped, non_finite, loss)

    def _add_clipped(self, parameters: dict[str, Tensor], chunk: Any, total: dict[str, Tensor]) -> tuple[int, int, int, float]:
        done = self._one_pass(chunk)
        if done is not None:
            norms = done.norms()
            factors, finite = clip_factors(norms, self.clipping_norm)
            for name, part in done.contributions.items():
                part = part if bool(finite.all()) else part.keep(finite)
                total[name] += part.weighted_sum(factors)
            return self._counted(norms, finite, done.losses)
        gradients, losses = self._per_example(parameters, chunk)
        norms = norms_of(gradients)
        factors, finite = clip_factors(norms, self.clipping_norm)
        for name, gradient in gradients.items():
            if not bool(finite.all()):  # 0 · NaN is NaN: what is not finite must be replaced, not multiplied away
                shape = (-1,) + (1,) * (gradient.dim() - 1)
                gradient = torch.where(finite.view(shape), gradient, torch.zeros_like(gradient))
            wide = total[name].dtype
            total[name] += torch.tensordot(factors.to(wide), gradient.to(wide), dims=1)
        return self._counted(norms, finite, losses)

    def _counted(self, norms: Tensor, finite: Tensor, losses: Tensor) -> tuple[int, int, int, float]:
        long = int((norms[finite] > self.clipping_norm).sum())
        return len(norms), long, int((~finite).sum()), float(losses[torch.isfinite(losses)].sum())

    def _add_ordinary(self, parameters: dict[str, Tensor], chunk: Any, total: dict[str, Tensor]) -> tuple[int, int, int, float]:
        losses = self.loss(self.model, chunk)
        examples = len(losses) if losses.dim() else 0
        check_losses(losses, max(examples, 1))
        gradients = torch.autograd.grad(losses.sum(), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient
        return examples, 0, 0, float(losses.detach().sum())
