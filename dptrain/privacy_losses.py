"""Privacy losses on a grid, as numbers: δ at many ε at once.

    deltas(distribution, np.array([0.0, 1.0]))

With p the mass of a loss l, and p∞ that of an infinite one, the hockey-stick divergence is (Doroshenko et al. 2022)

    δ(ε) = p∞ + Σ over l > ε of  p (1 − e^(ε−l))  =  p∞ + A(ε) − e^ε B(ε),     A = Σ p,  B = Σ p e^(−l),

with both sums over l > ε. From the largest loss down, the sums of one ε go on from those of the next larger one, so that all ε
cost as much as one. What n additions of positive numbers lose is at most n u of the sum (u = 2⁻⁵³; Higham 2002, "Accuracy and
Stability of Numerical Algorithms", section 4.2), and e^ε B ≤ A: δ is raised by that, and never lies below what it should be.
"""

from dataclasses import dataclass

import numpy as np
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Losses:
    """The privacy loss in one direction, rising, and the mass of each."""

    losses: Float[np.ndarray, " losses"]
    probabilities: Float[np.ndarray, " losses"]
    infinite: float

    def deltas(self, epsilons: Float[np.ndarray, " epsilons"]) -> Float[np.ndarray, " epsilons"]:
        """δ at each ε ≥ 0."""
        felt = self.losses > 0
        losses, masses = self.losses[felt], self.probabilities[felt]
        start = np.searchsorted(losses, epsilons, side="right")
        above, below = _from_the_top(masses)[start], _from_the_top(masses * np.exp(-losses))[start]
        lost = (len(losses) + 4) * np.finfo(np.float64).eps * above
        return np.clip(self.infinite + (above - np.exp(epsilons) * below) + lost, 0.0, 1.0)


def _from_the_top(values: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values+1"]:
    """Sums of each and all that follow it; of none at the end."""
    return np.concatenate([np.cumsum(values[::-1])[::-1], [0.0]])


def directions(distribution: PrivacyLossDistribution) -> list[Losses]:
    """Both of a composed distribution, which keeps them on a grid; one where they are the same."""
    found = []
    for pmf in (distribution._pmf_remove, distribution._pmf_add):  # the library has no other way to read them
        dense = pmf.to_dense_pmf()
        probabilities = np.maximum(np.asarray(dense._probs), 0.0)  # a Fourier transform's rounding
        losses = (dense._lower_loss + np.arange(len(probabilities))) * dense._discretization
        found.append(Losses(losses, probabilities, float(dense._infinity_mass)))
    return found if distribution._pmf_add is not distribution._pmf_remove else found[:1]


def deltas(distribution: PrivacyLossDistribution, epsilons: Float[np.ndarray, " epsilons"]) -> Float[np.ndarray, " epsilons"]:
    """δ at each ε ≥ 0, in the worse direction."""
    return np.max([one.deltas(epsilons) for one in directions(distribution)], axis=0)
