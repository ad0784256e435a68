"""Flat clipping: each example's whole gradient is scaled to an L2 norm of at most C (Abadi et al. 2016).

    clip(g) = g · min(1, C / ‖g‖)        and 0 where g holds NaN or infinity

Adding or removing one example changes the sum by at most C; so does blanking one. Norms are summed in float64 over short
blocks of float32, and the factor is rounded down, so that no clipped gradient exceeds C by rounding. Factors, products and
sums are kept in float32 or better whatever the parameters are: a bfloat16 sum of a thousand examples moves by several C when
one joins it.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

BLOCK = 16
ROUNDING_MARGIN = 1 - 2.0**-20
"""float32 rounds a factor and a product by at most 2⁻²⁴ relative each, and the norm of a block of 16 by at most 9 times
that, in whatever order it is added up: together less than 2⁻²⁰."""


def squared_lengths(values: Tensor) -> Tensor:
    """Sum of squares over the last dimension, in float64.

    float32 values are not copied to float64, which costs several times as much: blocks of 16 are summed in
    float32, where few terms can lose little, and the blocks in float64. What overflows comes out as infinity.
    """
    if values.dtype != torch.float32 or not values.is_contiguous() or values.shape[-1] < 4 * BLOCK:
        return torch.linalg.vector_norm(values, dim=-1, dtype=torch.float64).square()
    whole = values.shape[-1] // BLOCK * BLOCK
    blocks = torch.linalg.vector_norm(values[..., :whole].unflatten(-1, (-1, BLOCK)), dim=-1)
    squares = blocks.double().square().sum(-1)
    return squares if whole == values.shape[-1] else squares + values[..., whole:].double().square().sum(-1)


@dataclass(frozen=True, eq=False)
class ClippedSum:
    """A sum of clipped gradients, before any noise: private, and not fit for an optimizer."""

    gradients: dict[str, Tensor]
    """Parameter name to the sum, shaped like the parameter, in float32 or better."""
    sensitivity: float
    """The most, in L2 norm over all parameters together, that one example can change the sum."""
    examples: int
    """Private: how many were in the batch."""
    clipped: int
    """Private: how many were longer than C."""
    non_finite: int
    """Private: how many held NaN or infinity and contributed nothing."""
    loss: float
    """Private: the sum of the finite losses."""


def accumulator_dtype(dtype: torch.dtype) -> torch.dtype:
    """In what a sum over examples of this dtype is kept: float32, or the dtype itself where that is finer."""
    return torch.promote_types(dtype, torch.float32)


def clip_factors(
    norms: Float[Tensor, " examples"], clipping_norm: float
) -> tuple[Float[Tensor, " examples"], Bool[Tensor, " examples"]]:
    """What to multiply each gradient by, and which are finite. A gradient that is not finite gets 0."""
    finite = torch.isfinite(norms)
    factors = torch.ones_like(norms)
    if math.isfinite(clipping_norm):
        factors = (clipping_norm * ROUNDING_MARGIN / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_max(1.0)
    return torch.where(finite, factors, torch.zeros_like(factors)), finite
