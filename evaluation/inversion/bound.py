"""The most that anyone can reconstruct of one example, from the plan alone: the reconstruction robustness bound (ReRo).

    bound = reconstruction_bound(plan, 1 / 10)      # ten candidates, equally likely beforehand

Somebody knows every example but one, z, which is drawn from a prior π that he knows. From what the mechanism M releases he
makes R, and *hits* where ℓ(z, R) ≤ η. Without the release, the best constant answer hits with κ = sup over z₀ of
P[ℓ(z, z₀) ≤ η]: 1/n for n candidates that are equally likely. M is (η, γ)-reconstruction robust where no R hits more often
than γ (Balle, Cherubin, Hayes 2022, "Reconstructing Training Data with Informed Adversaries"). Hayes, Mahloujifar, Balle 2023,
"Bounding Training Data Reconstruction in DP-SGD", show γ ≤ B_κ, with the blow-up function

    B_κ(P, Q) = sup { P(E) : Q(E) ≤ κ }

**Why this is the trade-off curve at the false positive rate κ.** Let Q be what is released without z, and P_z with it. Let
E_z be the outputs from which R hits z. Q does not depend on z, so R applied to it is an answer that knows nothing of z, and
the mean of Q(E_z) over π is at most κ. "The output is in E_z" is a test of Q against P_z, so P_z(E_z) is at most the curve
T at Q(E_z). T is concave, and Jensen's inequality gives: the mean of P_z(E_z) is at most T(κ). A membership attack and a
reconstruction are held against one curve; only the place on it differs.

**For which relation.** The pair is "with z" against "without z", in that direction alone.

* ``add_or_remove_one`` and ``zero_out_one``: Q is a neighbour of each P_z. The plan's curve covers both directions of that
  pair, so it is a bound; where batches are sampled, the one direction may lie below it.
* ``replace_one``: Q is the release with some fixed z' in the place of z. The curve is a bound, and a loose one: any Q that
  does not depend on z would do, and Q without either is at half the distance.

For full batches and independent noise the sums of T steps are a Gaussian mechanism, and

    B_κ = Φ(Φ⁻¹(κ) + μ),     μ = √T Δ_z / (σ Δ)

where Δ_z = C is what z moves a sum by, and σ Δ the noise: μ = √T / σ, and √T / (2σ) under ``replace_one`` (Dong, Roth, Su 2022,
"Gaussian Differential Privacy").

**How much of it can be had.** n candidates with orthogonal gradients of length C are told apart best by the largest inner
product, which is right with probability

    S(μ, n) = ∫ φ(x − μ) Φ(x)^(n−1) dx

    >>> round(gaussian_bound(1.667, 0.1), 3), round(orthogonal_success(1.667, 10), 3)
    (0.65, 0.566)

Gradients that point away from each other are told apart a little better. The bound is not met for n > 2 candidates: an
event E_z for each z, each as likely as 1/n under Q and the best for its z, would have to cut the space into n parts, and
the best ones overlap.
"""

import math

import numpy as np
from scipy.integrate import trapezoid
from scipy.special import log_ndtr, ndtr, ndtri

from dptrain.clipping import Clipping
from dptrain.errors import UserError
from dptrain.plan import PrivacyPlan
from dptrain.sampling import sampler_for


def reconstruction_bound(plan: PrivacyPlan, prior_hit: float) -> float:
    """The largest chance to hit, of any reconstruction of one unit from everything that all steps release.

    Args:
        prior_hit: κ, the chance of the best answer that sees no release.

    Raises:
        UserError: κ is no probability.
    """
    _check(prior_hit)
    return plan.permitted_true_positive_rate(prior_hit)


def gaussian_bound(mu: float, prior_hit: float) -> float:
    """Φ(Φ⁻¹(κ) + μ)."""
    _check(prior_hit)
    return float(ndtr(ndtri(prior_hit) + mu))


def gaussian_mu(plan: PrivacyPlan) -> float:
    """μ of one example's presence in all steps; infinity without noise.

    Raises:
        UserError: not every example is in every batch, or noise is correlated, so that the curve is not Gaussian; or the unit
        is
            a graph's node or edge.
    """
    if not sampler_for(plan).takes_all or plan.noise != "independent":
        raise UserError(
            f"sampling_rate is {plan.sampling_rate:g}, sampling is {plan.sampling!r} and noise is {plan.noise!r}, and μ is "
            "known for full batches with independent noise; take reconstruction_bound(plan, κ), which holds for every plan"
        )
    if plan.unit in ("node", "edge"):
        raise UserError(
            f"unit is {plan.unit!r}, whose plan releases more than its updates, and μ is known for updates alone; take "
            "reconstruction_bound(plan, κ), which holds for every plan"
        )
    if not plan.is_private:
        return math.inf
    return math.sqrt(plan.steps) * plan.clipping_norm / (plan.noise_multiplier * Clipping.of(plan).sensitivity)


def orthogonal_success(mu: float, candidates: int) -> float:
    """S(μ, n): how often the most likely of n equally likely candidates is right, where their gradients are orthogonal."""
    if candidates < 1:
        raise UserError(f"candidates is {candidates}; give a whole number from 1 up")
    if math.isinf(mu):
        return 1.0
    offset = np.linspace(-12.0, 12.0, 24_001)
    density = np.exp(-(offset**2) / 2) / math.sqrt(2 * math.pi)
    return float(trapezoid(density * np.exp((candidates - 1) * log_ndtr(offset + mu)), offset))


def _check(prior_hit: float) -> None:
    if not 0 <= prior_hit <= 1:
        raise UserError(f"prior_hit is {prior_hit}; give the chance of the best blind answer, such as 1/n for n candidates")
