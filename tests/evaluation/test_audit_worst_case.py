"""One run, f-DP: the recursion against the worst mechanism there is, found by a linear programme that knows nothing of it.

Averaged over the order of the canaries and over turning coins over, a mechanism with its attack becomes one whose output
depends on W alone: draw w from (p_w), then which guesses are right. It satisfies f-DP if no test on one coin beats the
curve. With y_w = w p_w/m and x_w = (k − w + 1) p_{w−1}/m, the probabilities of "guess i is right, W = w" and of the same output
with coin i turned over, that is, for each slope e^u of a tangent,

    Σ_w (y_w − e^u x_w)₊ + (x_w − e^u y_w)₊ ≤ δ(u)

with δ the curve's privacy profile. Fewer tangents allow more, so the programme's optimum is an upper bound on P[W ≥ c].
"""

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.sparse import csr_matrix
from scipy.special import ndtr

from evaluation.audit.fdp import approximate_dp, gaussian, refutes


def gaussian_profile(mu: float, tangent: float) -> float:
    return float(ndtr(mu / 2 - tangent / mu) - np.exp(tangent) * ndtr(-mu / 2 - tangent / mu))


def largest_probability(canaries: int, guesses: int, correct: int, profile: dict[float, float]) -> float:
    """The most that P[W ≥ correct] can be where every test satisfies ``profile``, {u: δ(u)}."""
    entries: list[tuple[int, int, float]] = []
    limits: list[float] = []
    levels, excess = guesses + 1, guesses + 1
    for tangent, delta in profile.items():
        first, steep = excess, np.exp(tangent)
        for level in range(1, levels + 1):
            right, wrong = level / guesses, (guesses - level + 1) / guesses
            for of_right, of_wrong in ((right, -steep * wrong), (-steep * right, wrong)):
                row = len(limits)
                entries += [(row, level - 1, of_wrong), (row, excess, -1.0)]
                if level <= guesses:
                    entries.append((row, level, of_right))
                limits.append(0.0)
                excess += 1
        entries += [(len(limits), column, 1.0) for column in range(first, excess)]
        limits.append(delta * canaries / guesses)
    rows, columns, values = zip(*entries, strict=True)
    goal = np.zeros(excess)
    goal[correct:levels] = -1.0
    total = csr_matrix((np.ones(levels), (np.zeros(levels, dtype=int), np.arange(levels))), shape=(1, excess))
    bounds = csr_matrix((values, (rows, columns)), shape=(len(limits), excess))
    found = linprog(goal, A_ub=bounds, b_ub=limits, A_eq=total, b_eq=[1.0], method="highs-ipm")
    assert found.success
    return -float(found.fun)


def least_refuting(canaries: int, guesses: int, inverse) -> int:
    return next(right for right in range(guesses + 1) if refutes(canaries, guesses, right, inverse, 0.05))


@pytest.mark.parametrize(("mu", "canaries", "guesses"), [(0.5, 100, 40), (1.0, 60, 60), (0.5, 2000, 60)])
def test_no_mechanism_on_the_gaussian_curve_is_refuted_too_often_and_the_worst_nearly_so(
    mu: float, canaries: int, guesses: int
):
    correct = least_refuting(canaries, guesses, gaussian(mu))
    profile = {float(u): gaussian_profile(mu, float(u)) for u in np.linspace(0.0, 4 * mu + 1, 16)}
    worst = largest_probability(canaries, guesses, correct, profile)
    assert 0.02 < worst <= 0.05


@pytest.mark.parametrize(("epsilon", "delta", "canaries", "guesses"), [(1.0, 1e-3, 200, 60), (0.5, 0.0, 60, 60)])
def test_no_mechanism_of_approximate_dp_is_refuted_too_often(epsilon: float, delta: float, canaries: int, guesses: int):
    correct = least_refuting(canaries, guesses, approximate_dp(epsilon, delta))
    profile = {epsilon: delta, 0.0: 1 - 2 * (1 - delta) / (1 + np.exp(epsilon))}
    worst = largest_probability(canaries, guesses, correct, profile)
    assert 0.02 < worst <= 0.05


def test_a_count_below_the_refuting_one_can_come_about_more_often():
    """The programme has teeth: it finds mechanisms that reach a lower count in more than one run of twenty."""
    correct = least_refuting(60, 60, gaussian(1.0)) - 3
    profile = {float(u): gaussian_profile(1.0, float(u)) for u in np.linspace(0.0, 5.0, 16)}
    assert largest_probability(60, 60, correct, profile) > 0.05
