"""Noise: what turns a clipped sum into one that may be released.

    mechanism = noise_for(plan)             # or GaussianNoise(noise_multiplier=1.1)
    noised = mechanism.add(clipped_sum)     # the scale is σ times the sensitivity that the sum states
    noised.gradients, noised.standard_deviation

* ``stream.py``: a secret generator, and standard normal variates from it at the price of ``torch.randn``
* ``ahead.py``: flat vectors of them, the next one drawn while the current step computes
* ``mechanism.py``: :class:`NoiseMechanism`, its protocol, and independent :class:`GaussianNoise`
* ``banded.py``: :class:`BandedNoise`, correlated between steps so that it cancels in the weights
* ``factorization.py``: which correlation, and what it gains

Not covered: attacks on floating-point rounding (Mironov 2012, "On Significance of the Least Significant Bits for
Differential Privacy").
"""

from typing import TYPE_CHECKING

from dptrain.errors import PlanError
from dptrain.noise.banded import BandedNoise
from dptrain.noise.mechanism import GaussianNoise, NoisedSum, NoiseMechanism, noised_sum
from dptrain.noise.stream import secret_generator

if TYPE_CHECKING:
    from dptrain.plan import PrivacyPlan

__all__ = ["BandedNoise", "GaussianNoise", "NoiseMechanism", "NoisedSum", "noise_for", "noised_sum", "secret_generator"]


def noise_for(plan: "PrivacyPlan", insecure_seed: int | None = None, first: int = 0) -> NoiseMechanism:
    """The noise of a plan's updates from ``first`` on, keyed afresh; a repeatable stream begins anew for each ``first``.

    Raises:
        PlanError: an unknown noise, or correlated noise over batches in which an example may come back too soon.
    """
    generator = secret_generator(insecure_seed, f"noise from {first}")
    if plan.noise == "independent":
        return GaussianNoise(plan.noise_multiplier if plan.noises_updates else 0.0, generator)
    if plan.noise != "banded":
        raise PlanError(f"noise is {plan.noise!r}; give independent or banded")
    if plan.sampling != "cyclic_poisson":
        raise PlanError(
            f"noise is banded and sampling is {plan.sampling}, which may take an example twice within {plan.bands} updates: "
            "the noise would hide less than is counted; give sampling cyclic_poisson"
        )
    left = max(plan.steps - first, 1)  # a finished run is resumed as well, and has noise that it never draws
    return BandedNoise.over(left, plan.bands, plan.noise_multiplier, generator)
