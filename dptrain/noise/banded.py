"""Noise correlated between steps, so that much of it cancels in the weights: banded matrix factorisation.

    released_t = clipped sum_t + σ · sensitivity · (C⁻¹ z)_t,     z_t standard normal, fresh at each step

(Choquette-Choo et al. 2023, "(Amplified) Banded Matrix Factorization: A unified approach to private training".) C is
lower-triangular and Toeplitz with b bands, c_0 to c_{b-1}, and columns of norm at most ‖c‖ = 1. C⁻¹z comes in a stream that
remembers b - 1 vectors:

    ẑ_t = (z_t - Σ_{0<j<b} c_j ẑ_{t-j}) / c_0

**Why σ is enough.** Released is C⁻¹ (C G + σ S z) with G the clipped sums and S their sensitivity: post-processing of the
Gaussian mechanism on C G. One example changes row t of G by at most S, in the updates in which it takes part. Let no two of
these lie fewer than b updates apart. Columns of C at a distance of b or more share no row, so the change of C G is a sum of
orthogonal parts, each of norm at most S ‖c‖ = S; k participations change it by at most √k S. That is what k Gaussian mechanisms
of noise multiplier σ cost. And where the sampler cuts the examples into b parts and update t draws from part t mod b, each
example with probability b q (``cyclic_poisson``), rows of C G fall into ⌈n/b⌉ blocks with one possible participation each, so
that n updates cost ⌈n/b⌉ × Poisson-sampled Gaussian(σ) at rate b q. The same holds for sums whose sensitivity varies: it is the
unit of its own row. An update whose noise was drawn and which was not released leaves a gap, and distances only grow.

**What it rests on.** Batches without the distance break it, and ``noise_for`` refuses them. The remembered vectors are as
secret as the key: they stay in memory and are never saved. A resumed training begins a new block with fresh z, which its
sampler charges by itself.

It costs the memory of b - 1 gradients, and one pass over them at each update. With b = 1 it is
:class:`~dptrain.noise.mechanism.GaussianNoise`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dptrain.errors import PlanError, ProtocolError
from dptrain.noise.factorization import Coefficients, best_coefficients
from dptrain.noise.mechanism import NoiseMechanism


class BandedNoise(NoiseMechanism):
    """Gaussian noise of covariance C⁻¹C⁻ᵀ between updates.

    noise = BandedNoise.over(steps=1000, bands=16, noise_multiplier=1.1)
    noised = noise.add(clipped_sum)             # at each update, in order

    Args:
        coefficients: c_0 to c_{b-1}, the bands of C; c_0 is not zero. They are scaled to ‖c‖ = 1.
    """

    def __init__(
        self,
        noise_multiplier: float,
        coefficients: Sequence[float] | Coefficients,
        generator: np.random.Generator | None = None,
        *,
        ahead: bool = True,
    ):
        super().__init__(noise_multiplier, generator, ahead=ahead)
        strategy = np.array(coefficients, dtype=np.float64)
        if strategy.ndim != 1 or len(strategy) == 0 or not np.isfinite(strategy).all() or strategy[0] == 0:
            raise PlanError(f"coefficients are {coefficients!r}; give at least one finite number, the first not 0")
        self.coefficients = strategy / np.linalg.norm(strategy)
        self._remembered: Tensor | None = None
        """Secret: the last b - 1 vectors ẑ, ``[b - 1, size]``; that of update t in row t mod (b - 1)."""
        self._torn = False
        """Whether an update was broken off while what is remembered changed."""
        self._inverse: list[float] = []
        """The coefficients of C⁻¹ so far: the deviation of an update is the root of their squares' sum."""

    @classmethod
    def over(
        cls, steps: int, bands: int, noise_multiplier: float, generator: np.random.Generator | None = None
    ) -> "BandedNoise":
        """The best banded noise for this many updates of which an example takes part in at most every ``bands``-th."""
        return cls(noise_multiplier, best_coefficients(bands, steps), generator)

    @property
    def bands(self) -> int:
        return len(self.coefficients)

    def _unit_noise(self, size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, float]:
        if self._torn:
            raise ProtocolError(
                "the last update was broken off inside of its noise, and what correlates with it is lost; save, and resume "
                "into a new training, which begins a new block"
            )
        step = len(self._inverse)
        before = self._remembered
        if before is None:
            before = torch.zeros(self.bands - 1, size, dtype=dtype, device=device)
        if before.shape[1] != size or before.dtype != dtype or before.device != device:
            raise ProtocolError(
                f"this sum has {size} coordinates ({dtype}, {device}) and the one before had {before.shape[1]} "
                f"({before.dtype}, {before.device}): correlated noise needs the same parameters at each update; begin a new "
                "training"
            )
        fresh = self._source.draw(size, dtype, device)
        memory = self.bands - 1
        if memory:
            # row i holds ẑ of the latest update t' < step with t' mod memory = i, which lies back 1 to b - 1 updates
            back = [(step - row - 1) % memory + 1 for row in range(memory)]
            weights = torch.tensor(self.coefficients[back], dtype=dtype, device=device)
            fresh.addmv_(before.T, weights, alpha=-1.0)
        fresh.div_(float(self.coefficients[0]))
        self._torn = True
        if memory:
            before[step % memory].copy_(fresh)
        self._remembered = before
        self._inverse.append(self._next_inverse())
        self._torn = False
        return fresh, float(np.linalg.norm(self._inverse))

    def _next_inverse(self) -> float:
        known = self._inverse[: -self.bands : -1] if self.bands > 1 else []
        start = 0.0 if self._inverse else 1.0
        return (start - float(np.dot(self.coefficients[1 : 1 + len(known)], known))) / float(self.coefficients[0])
