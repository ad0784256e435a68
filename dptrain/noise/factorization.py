"""Which correlation banded noise has, and what it gains: banded Toeplitz factorisations of the workload.

Training by SGD releases sums of gradients over time: the weights after t updates hold Σ_{k ≤ t} a_{t-k} (g_k + noise_k), with
a = 1, 1, 1, … for plain SGD and a_j = (1 - β^{j+1}) / (1 - β) for momentum β. With A the lower-triangular Toeplitz matrix of a
and A = B C, noise C⁻¹z in the gradients is noise A C⁻¹z = B z in the weights. Its mean square over n updates, where one
example's one participation has sensitivity ‖C‖_{1→2} = ‖c‖ (c: the coefficients of C, a column), is

    error(c) = ‖c‖² · (1/n) Σ_{t<n} Σ_{k≤t} b_k²,     b = a / c as power series

so C = I, independent noise, has (n + 1) / 2 for prefix sums: noise in the weights grows as in a random walk.

* :func:`square_root_coefficients`: C = √A cut off after b bands; √(1/(1-z)) has the coefficients r_k = C(2k, k) / 4^k
  (Fichtenberger, Henzinger, Upadhyay 2023; banded: Kalinin & Lampert 2024, "Banded Square Root Matrix Factorization for
  Differentially Private Model Training"). Its ‖c‖² for b = n is Landau's constant, between 1 + ln(n)/π and 1.0663 + ln(n)/π
  (Brutman 1982, "A sharp estimate of the Landau constants").
* :func:`optimised_coefficients`: the b coefficients of least error, by L-BFGS (McKenna 2024, "Scaling up the Banded Matrix
  Factorization Mechanism for Differentially Private ML").

    >>> c = best_coefficients(bands=16, steps=1000)
    >>> round(expected_error(c, 1000) / expected_error([1.0], 1000), 3)
    0.079

This factor is what correlation gains at an equal number of participations; what batches without amplification cost beside
it, only the accountant tells.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dptrain.errors import PlanError

Coefficients = Float[np.ndarray, " bands"]


def workload_coefficients(steps: int, momentum: float = 0.0) -> Coefficients:
    """a_0 to a_{steps-1}: how a gradient counts in the weights, so many updates later."""
    return np.ones(steps) if momentum == 0 else (1 - momentum ** np.arange(1, steps + 1)) / (1 - momentum)


def square_root_coefficients(bands: int, momentum: float = 0.0) -> Coefficients:
    """The first ``bands`` coefficients of √A: of 1/√(1 - z), times those of 1/√(1 - βz)."""
    k = np.arange(1, bands)
    root = np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])
    return root if momentum == 0 else np.convolve(root, root * momentum ** np.arange(bands))[:bands]


def inverse_coefficients(coefficients: Sequence[float] | Coefficients, steps: int) -> Coefficients:
    """The first ``steps`` coefficients of C⁻¹, which is Toeplitz too: those of 1 / c."""
    impulse = np.zeros(steps)
    impulse[0] = 1.0
    return _divided(impulse, np.asarray(coefficients))


def expected_error(coefficients: Sequence[float] | Coefficients, steps: int, momentum: float = 0.0) -> float:
    """Mean square of the noise in the weights, a coordinate and update, for σ · clipping norm = 1 and one participation."""
    coefficients = np.asarray(coefficients)
    weights = _divided(workload_coefficients(steps, momentum), coefficients)
    return float(coefficients @ coefficients) * float(_shares(steps) @ weights**2)


def optimised_coefficients(bands: int, steps: int, momentum: float = 0.0) -> Coefficients:
    """The coefficients of least error that L-BFGS finds from the square root; their scale is left open."""
    from scipy.optimize import minimize

    workload, shares = workload_coefficients(steps, momentum), _shares(steps)

    def log_error(tail: np.ndarray) -> tuple[float, np.ndarray]:
        c = np.concatenate([[1.0], tail])
        with np.errstate(over="ignore", invalid="ignore"):
            weights = _divided(workload, c)
            total = shares @ weights**2
            # ∂b/∂c_j = - z^j b / c
            towards = _divided(weights, c)
        if not (math.isfinite(total) and np.isfinite(towards).all()):
            return 1e9, np.zeros_like(tail)
        weighted = shares * weights
        slopes = np.array([weighted[j:] @ towards[: steps - j] for j in range(1, bands)])
        length = c @ c
        return math.log(length) + math.log(total), 2 * tail / length - 2 * slopes / total

    found = minimize(log_error, square_root_coefficients(bands, momentum)[1:], jac=True, method="L-BFGS-B")
    return np.concatenate([[1.0], found.x])


@functools.lru_cache(maxsize=64)
def _best(bands: int, steps: int, momentum: float) -> tuple[float, ...]:
    bands = min(bands, steps)
    candidates = [square_root_coefficients(bands, momentum)]
    if bands > 1:
        candidates.append(optimised_coefficients(bands, steps, momentum))
    best = min(candidates, key=lambda c: expected_error(c, steps, momentum))
    return tuple(best / np.linalg.norm(best))


def best_coefficients(bands: int, steps: int, momentum: float = 0.0) -> Coefficients:
    """The better of square root and optimised, scaled to ‖c‖ = 1.

    Args:
        bands: b; an example takes part at most once every b updates.
        steps: n, the updates that the noise is for.
        momentum: of the optimizer, for which the noise is to be small; privacy does not depend on it.
    """
    if bands < 1 or steps < 1:
        raise PlanError(f"bands is {bands} over {steps} updates; give whole numbers from 1 up")
    return np.array(_best(bands, steps, momentum))


def _divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The power series numerator / denominator, to the length of the numerator."""
    from scipy.signal import lfilter

    return np.asarray(lfilter([1.0], denominator, numerator))


def _shares(steps: int) -> np.ndarray:
    """In how much of all updates the k-th coefficient of B appears."""
    return np.arange(steps, 0, -1) / steps
