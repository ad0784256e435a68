"""Linear regression with privacy in one step, from noised sufficient statistics: the baseline for small data.

    plan = statistics_plan(epsilon=5.0, delta=3e-5, examples=3000, norm=norm_bound(data.columns))
    fitted = fit_linear(inputs, outputs, plan)
    fitted.model(inputs)                    # [examples, 1]; fitted.plan.guarantee() counts it

Least squares needs of its examples A = Σ z zᵀ and b = Σ y z alone, with z = (x, 1). Both are released once, with Gaussian
noise, and the rest is post-processing (Vu & Slavković 2009, "Differential Privacy for Clinical Trial Data"; Sheffet 2017,
"Differentially Private Ordinary Least Squares"; Wang 2018, "Revisiting Differentially Private Linear Regression": AdaSSP, which
spends a part of the budget on choosing its ridge).

**Sensitivity.** Let ‖z‖ ≤ R and |y| ≤ B; both are enforced, an example that is longer is shortened. svec(M) lists the diagonal
of a symmetric M and √2 times what is above it, so that ‖svec(M)‖ = ‖M‖_F. An example adds the vector

    s(z, y) = (svec(z zᵀ), c y z),       ‖s‖² = ‖z‖⁴ + c² y² ‖z‖² ≤ R⁴ + c² B² R² = 2 R⁴      with c = R / B,

since ‖z zᵀ‖_F = ‖z‖². So adding or removing one example changes the sum by at most √2 R². This is one step of a plan with
sampling rate 1 and the clipping norm C = √2 R²: noise and account are the project's own.

**Ridge.** Noise of deviation τ in each coordinate of svec is a symmetric matrix with τ on its diagonal and τ/√2 off it, whose
norm comes to τ √(2 d) for d coefficients (Wigner's semicircle law). A is cut off at 0 in its eigenvalues and gets the ridge
τ √(2 d): τ and d are public, and no budget is spent on the choice. Without noise there is no ridge, and the fit is ordinary
least squares (of several, the shortest).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dptrain.clipping import ClippedSum, Counts
from dptrain.data.table import parse_column
from dptrain.errors import DataError, PlanError
from dptrain.noise import noise_for
from dptrain.plan import PrivacyPlan

OUTPUT_BOUND = 0.5
"""B: a value is encoded between -0.5 and 0.5."""
RELATIVE_RANK = 1e-10
"""Without noise, eigenvalues below this share of the largest count as zero."""


@dataclass(frozen=True, eq=False)
class FittedLinear:
    """What was released: coefficients, and the plan that counts them."""

    weights: Float[np.ndarray, " inputs"]
    intercept: float
    ridge: float
    plan: PrivacyPlan

    def model(self, inputs: Float[Tensor, "examples inputs"]) -> Float[Tensor, "examples 1"]:
        """Predictions on the encoded scale."""
        return self.module()(inputs)

    def module(self) -> nn.Linear:
        """The same as a torch module."""
        module = nn.Linear(len(self.weights), 1)
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(self.weights)[None])
            module.bias.fill_(self.intercept)
        return module


def norm_bound(columns: Sequence[str]) -> float:
    """R, the most that (x, 1) can measure for a table of these columns, by what was stated alone.

    A category has one input of 1; a number lies within ±½; a missing cell has one input of 1 and zeros.
    """
    squares = 1.0
    for column in map(parse_column, columns):
        squares += 1.0 if column.kind == "category" or column.may_be_missing else 0.25
    return math.sqrt(squares)


def statistics_plan(*, epsilon: float, delta: float, examples: float, norm: float) -> PrivacyPlan:
    """One release of the statistics within a budget; an infinite ε adds no noise and promises nothing.

    Args:
        examples: the publicly stated number of examples, by which δ is checked.
        norm: R, see :func:`norm_bound`.

    Raises:
        PlanError: a number for which no ε could be stated.
    """
    if not (math.isfinite(norm) and norm > 0):
        raise PlanError(
            f"norm is {norm}; give a finite bound above 0 on the length of (x, 1), such as norm_bound(data.columns)"
        )
    bound = math.sqrt(2) * norm**2
    plan = PrivacyPlan(sampling_rate=1.0, expected_batch_size=examples, steps=1, clipping_norm=bound, delta=delta)
    return plan.calibrate(epsilon=epsilon)


def statistics(
    inputs: Float[np.ndarray, "examples inputs"], outputs: Float[np.ndarray, " examples"], norm: float
) -> Float[np.ndarray, "examples statistics"]:
    """What each example adds to the sum, s(z, y); zero for one that is not finite. Private.

    Args:
        norm: R.
    """
    z = np.column_stack([inputs, np.ones(len(inputs))]).astype(np.float64)
    y = np.asarray(outputs, dtype=np.float64)
    finite = np.isfinite(z).all(1) & np.isfinite(y)
    z, y = np.where(finite[:, None], z, 0.0), np.where(finite, y, 0.0)
    z *= np.minimum(1.0, norm / np.maximum(np.linalg.norm(z, axis=1), 1e-300))[:, None]
    y = np.clip(y, -OUTPUT_BOUND, OUTPUT_BOUND)
    rows, columns = np.triu_indices(z.shape[1])
    products = z[:, rows] * z[:, columns] * np.where(rows == columns, 1.0, math.sqrt(2))
    return np.hstack([products, norm / OUTPUT_BOUND * y[:, None] * z])


def fit_linear(
    inputs: Float[Tensor, "examples inputs"],
    outputs: Float[Tensor, " examples"],
    plan: PrivacyPlan,
    insecure_seed: int | None = None,
) -> FittedLinear:
    """The coefficients from one noised release.

    Args:
        outputs: encoded values, between -0.5 and 0.5.
        plan: by :func:`statistics_plan`; says R as well.
        insecure_seed: repeatable noise, for tests alone.

    Raises:
        PlanError: the plan is of more than one step, of a part of the examples, or without a bound; or δ is not below 1/N.
        DataError: there are not as many outputs as inputs, or none.
    """
    if plan.steps != 1 or plan.sampling_rate != 1 or math.isinf(plan.clipping_norm):
        raise PlanError("the statistics are released in one step over all examples with a bound; use statistics_plan()")
    if len(inputs) != len(outputs) or len(inputs) == 0:
        raise DataError(f"there are {len(inputs)} inputs and {len(outputs)} outputs; give one output an input, at least one")
    if plan.is_private:
        plan.check_delta(len(inputs))
    norm = math.sqrt(plan.clipping_norm / math.sqrt(2))
    total = statistics(inputs.double().numpy(), outputs.double().numpy(), norm).sum(0)
    clipped = ClippedSum({"statistics": torch.from_numpy(total)}, plan.sensitivity, Counts(examples=len(inputs)))
    noised = noise_for(plan, insecure_seed).add(clipped)
    size = inputs.shape[1] + 1
    matrix, vector = _unpacked(noised.gradients["statistics"].double().numpy(), size, norm)
    ridge = noised.standard_deviation * math.sqrt(2 * size)
    coefficients = _solved(matrix, vector, ridge)
    return FittedLinear(coefficients[:-1], float(coefficients[-1]), ridge, plan)


def _unpacked(released: np.ndarray, size: int, norm: float) -> tuple[np.ndarray, np.ndarray]:
    """A and b out of their list."""
    rows, columns = np.triu_indices(size)
    matrix = np.zeros((size, size))
    matrix[rows, columns] = released[: len(rows)] / np.where(rows == columns, 1.0, math.sqrt(2))
    matrix[columns, rows] = matrix[rows, columns]
    return matrix, released[len(rows) :] * OUTPUT_BOUND / norm


def _solved(matrix: np.ndarray, vector: np.ndarray, ridge: float) -> Float[np.ndarray, " coefficients"]:
    eigenvalues, directions = np.linalg.eigh(matrix)
    raised = np.maximum(eigenvalues, 0.0) + ridge
    kept = raised > (RELATIVE_RANK * raised.max() if ridge == 0 else 0.0)
    along = directions[:, kept]
    return along @ ((along.T @ vector) / raised[kept])
