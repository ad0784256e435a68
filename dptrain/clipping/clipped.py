"""How a per-example gradient is clipped, and the sum that carries its sensitivity.

With g the whole gradient of one example (or the averaged one of a group), C the clipping norm:

* **flat** (Abadi et al. 2016, "Deep Learning with Differential Privacy"): g · min(1, C / ‖g‖)
* **per layer** (McMahan et al. 2018, "Learning Differentially Private Recurrent Language Models"): each of L layers by
  itself, g_l · min(1, C_l / ‖g_l‖) with C_l = C / √L, so that ‖·‖² ≤ Σ C_l² = C² for all layers together
* **automatic** (Bu et al. 2023, "Automatic Clipping", AUTO-S): g · C / (‖g‖ + γ), always shorter than C

An example whose gradient holds NaN or infinity contributes 0 in all its layers. Adding, removing or blanking one therefore
changes the sum by at most C in L2 norm, and replacing one by another by at most 2 C: the clipper states this sensitivity, and
noise reads it from nowhere else.

Norms are summed in float64 over short blocks of float32, and factors are rounded down, so that no clipped gradient exceeds C
by rounding; an example so long that its factor could not be told from 0 contributes nothing. Factors, products and sums are
kept in float32 or better whatever the parameters are: a bfloat16 sum of a thousand examples moves by several C when one joins
it.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dptrain.errors import PlanError, unknown_name

if TYPE_CHECKING:
    from dptrain.plan import PrivacyPlan

Rule = Literal["flat", "per_layer", "automatic"]

SENSITIVITY = {"add_or_remove_one": 1.0, "zero_out_one": 1.0, "replace_one": 2.0}
"""How many times C one neighbour changes a sum, by the relation."""

BLOCK = 1024
MARGIN = {torch.float32: 1 - 2.0**-14, torch.float64: 1 - 2.0**-36}
"""What factors are rounded down by. A sum of n squares in float32, added up in whatever order, is off by at most n 2⁻²⁴
relative, so a norm over blocks of 1024 by 2⁻¹⁵; a factor and a product add 2⁻²⁴ each. In float64 the same holds with 2⁻⁵³ and,
over as many as 2¹⁴ blocks, 2⁻³⁸."""


def squared_lengths(values: Tensor) -> Tensor:
    """Sum of squares over the last dimension, in float64.

    float32 values are not copied to float64, which costs several times as much: blocks are summed in float32, where few
    terms can lose little, and the blocks in float64. What overflows comes out as infinity; what underflows is made up for, so
    that no gradient is longer than it is said to be.
    """
    accumulator_dtype(values.dtype)
    if values.dtype not in MARGIN:
        values = values.float()
    return _squares(values) + values.shape[-1] * LOST[values.dtype]


LOST = {torch.float32: 2.0**-126, torch.float64: 2.0**-1022}
"""A square below this may come out as 0, where the machine has no denormal numbers."""


def _squares(values: Tensor) -> Tensor:
    count = values.shape[-1]
    if count < 2 * BLOCK or values.stride(-1) != 1:
        if count <= BLOCK:
            return torch.linalg.vector_norm(values, dim=-1).double().square()
        return torch.linalg.vector_norm(values, dim=-1, dtype=torch.float64).square()
    whole = count // BLOCK * BLOCK
    blocks = torch.linalg.vector_norm(values[..., :whole].unflatten(-1, (-1, BLOCK)), dim=-1)
    squares = blocks.double().square().sum(-1)
    if whole < count:
        squares += torch.linalg.vector_norm(values[..., whole:], dim=-1).double().square()
    return squares


def by_example(values: Tensor) -> Tensor:
    """``[examples, everything else]``, also where an example has a single value."""
    return values.flatten(1) if values.dim() > 1 else values[:, None]


@dataclass(frozen=True)
class Counts:
    """What happened in one logical batch. All of it is private."""

    examples: int = 0
    """How many were in the batch; groups, where clipping is by group."""
    clipped: int = 0
    """How many were longer than C (in one of their layers, where clipping is by layer)."""
    non_finite: int = 0
    """How many held NaN or infinity and contributed nothing."""
    loss: float = 0.0
    """The sum of the finite losses."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.examples + other.examples,
            self.clipped + other.clipped,
            self.non_finite + other.non_finite,
            self.loss + other.loss,
        )


@dataclass(frozen=True, eq=False)
class ClippedSum:
    """A sum of clipped gradients, before any noise: private, and not fit for an optimizer."""

    gradients: dict[str, Tensor]
    """Parameter name to the sum, shaped like the parameter, in float32 or better; parts of ``flat``."""
    sensitivity: float
    """The most, in L2 norm over all parameters together, that one example (or group) can change these gradients."""
    counts: Counts
    divisor: float = 1.0
    """What the sum has been divided by, and the sensitivity with it: the public expected batch size."""
    flat: Tensor | None = None
    """All gradients in one piece of memory, where they share their type and device."""


REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What can be clipped and noised. Complex numbers cannot: their imaginary part would have neither norm nor noise."""


def accumulator_dtype(dtype: torch.dtype) -> torch.dtype:
    """In what a sum over examples of this dtype is kept: float32, or the dtype itself where that is finer.

    Raises:
        PlanError: it is no real floating-point number.
    """
    if dtype not in REAL:
        raise PlanError(
            f"a gradient is in {dtype}, and only real numbers are clipped and noised; keep real and imaginary parts as two "
            "real parameters (torch.view_as_complex in forward)"
        )
    return torch.promote_types(dtype, torch.float32)


@dataclass(frozen=True)
class Clipping:
    """The rule, its bound, and the sensitivity that follows from both.

    >>> Clipping(1.0, relation="replace_one").sensitivity
    2.0

    Raises:
        PlanError: a number or a name for which no sensitivity could be stated.
    """

    clipping_norm: float
    rule: Rule = "flat"
    stability: float = 0.01
    """γ of ``automatic``."""
    relation: str = "add_or_remove_one"

    def __post_init__(self) -> None:
        if not self.clipping_norm > 0:  # NaN included
            raise PlanError(f"clipping_norm is {self.clipping_norm}; give a number above 0, such as 1.0")
        if self.rule not in get_args(Rule):
            raise unknown_name("clipping", self.rule, get_args(Rule), PlanError)
        if not (math.isfinite(self.stability) and self.stability > 0):
            raise PlanError(f"stability is {self.stability}; give a finite number above 0, such as 0.01")
        if self.relation not in SENSITIVITY:
            raise unknown_name("relation", self.relation, SENSITIVITY, PlanError)

    @classmethod
    def of(cls, plan: "PrivacyPlan") -> "Clipping":
        """What a plan says of it."""
        return cls(plan.clipping_norm, plan.clipping, plan.automatic_stability, plan.relation)

    @property
    def sensitivity(self) -> float:
        """The most that one example changes a sum in L2 norm, under the neighbouring relation."""
        return self.clipping_norm * SENSITIVITY[self.relation]

    @property
    def floor(self) -> float:
        """The length of a gradient below which an error in it no longer counts relative to its length, but relative to this.

        An error of ε max(‖g‖, floor) changes the clipped sum by ε C at most: factors are 1 below C, and C / (‖g‖ + γ) where
        clipping is automatic.
        """
        return self.stability if self.rule == "automatic" else self.clipping_norm

    def factors(
        self, squares: Float[Tensor, "layers examples"], dtype: torch.dtype, divisor: float = 1.0
    ) -> tuple[Float[Tensor, "parts examples"], Bool[Tensor, " examples"], Bool[Tensor, " examples"]]:
        """What to multiply each gradient by; which examples are finite; which are longer than the bound.

        Args:
            squares: squared norm of each layer's part of each example's gradient, float64.
            dtype: in which the products are taken; decides how much is kept clear of the bound for rounding.
            divisor: of the sum.

        Returns:
            Factors of all layers together (``parts`` = 1), or of each layer by itself.
        """
        finite = torch.isfinite(squares).all(0)
        parts = squares if self.rule == "per_layer" else squares.sum(0, keepdim=True)
        norms = parts.sqrt()
        finite &= torch.isfinite(norms).all(0)
        bound = self.clipping_norm / math.sqrt(len(parts))
        long = (norms > bound).any(0) & finite
        if not math.isfinite(bound):
            factors = torch.ones_like(norms)
        elif self.rule == "automatic":
            factors = bound * MARGIN[accumulator_dtype(dtype)] / (norms + self.stability)
        else:
            least = torch.finfo(norms.dtype).tiny
            factors = (bound * MARGIN[accumulator_dtype(dtype)] / norms.clamp_min(least)).clamp_max(1.0)
        factors = factors / divisor
        finite &= (factors >= torch.finfo(accumulator_dtype(dtype)).tiny).all(0)  # a denormal one is rounded by half of itself
        return torch.where(finite, factors, torch.zeros_like(factors)), finite, long & finite
