"""Noise over a clipped sum: the protocol that every mechanism keeps, and independent Gaussian noise.

    released = clipped sum + σ · sensitivity · z

σ is the plan's noise multiplier; the sensitivity is what the sum itself states, and there is no second place to state it.
z is a vector of unit noise: standard normal and fresh at each step (:class:`GaussianNoise`; Abadi et al. 2016, "Deep Learning
with Differential Privacy"), or correlated between steps (:class:`~dptrain.noise.banded.BandedNoise`).

σ · sensitivity is enlarged by 2⁻²⁰, as much as rounding can take from a variate, so that noise is never smaller than counted.
A mechanism cannot be copied and refuses to go on in a forked process: both would add the same noise a second time.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dptrain.clipping import ClippedSum
from dptrain.errors import PlanError, ProtocolError
from dptrain.noise.ahead import NormalSource
from dptrain.noise.stream import secret_generator

ROUNDING_MARGIN = 1 + 2.0**-20


_MADE_BY_NOISE = object()


@dataclass(frozen=True, eq=False)
class NoisedSum:
    """A clipped sum with its noise: all that an optimizer may see. Made by a mechanism alone, see :func:`noised_sum`."""

    gradients: dict[str, Tensor]
    """Parameter name to the noised sum, shaped like the parameter. Its own memory, which may be kept or changed in place; but
    where σ = 0 these are the clipped sum's own tensors."""
    standard_deviation: float
    """Of the noise in each coordinate of this sum. Public, so an optimizer may correct its moments by it."""
    noise_multiplier: float
    """σ, by which it is counted."""
    _made: object = field(init=False, repr=False, default=None)

    @property
    def is_genuine(self) -> bool:
        """Whether a mechanism made it, and nobody by hand."""
        return self._made is _MADE_BY_NOISE


def noised_sum(gradients: dict[str, Tensor], standard_deviation: float, noise_multiplier: float) -> NoisedSum:
    """What a noise mechanism, or the rank that was sent its sum, hands on."""
    noised = NoisedSum(gradients, standard_deviation, noise_multiplier)
    object.__setattr__(noised, "_made", _MADE_BY_NOISE)
    return noised


class NoiseMechanism(ABC):
    """What adds noise to each update's clipped sum, in the order of the updates.

    Args:
        noise_multiplier: σ, the noise's scale over the sum's sensitivity. 0 adds nothing and draws nothing.
        generator: the mechanism's own; keyed by the operating system if not given.
        ahead: whether to draw the next update's variates while this one computes. Changes the speed alone.
    """

    def __init__(self, noise_multiplier: float, generator: np.random.Generator | None = None, *, ahead: bool = True):
        self.noise_multiplier = noise_multiplier
        self.draws = 0
        """Updates that were given noise so far."""
        self._source = NormalSource(secret_generator() if generator is None else generator, ahead)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(noise_multiplier={self.noise_multiplier!r}, draws={self.draws})"

    def __reduce__(self) -> Any:
        raise ProtocolError("a noise stream cannot be copied or sent elsewhere: two copies would draw the same noise")

    def add(self, clipped: ClippedSum) -> NoisedSum:
        """One draw for all parameters together.

        Raises:
            PlanError: the sum's sensitivity is infinite or zero.
            ProtocolError: in a forked process.
        """
        if self.noise_multiplier == 0:
            return noised_sum(clipped.gradients, 0.0, 0.0)
        scale = self.noise_multiplier * clipped.sensitivity
        if not np.isfinite(scale) or scale <= 0:
            raise PlanError(f"noise of standard deviation {scale} hides nothing; the sensitivity must be finite, above 0")
        scale *= ROUNDING_MARGIN
        self._source.check_process()
        self.draws += 1
        gradients = clipped.gradients
        size = sum(gradient.numel() for gradient in gradients.values())
        wide = any(gradient.dtype == torch.float64 for gradient in gradients.values())
        devices = {gradient.device for gradient in gradients.values()}
        device = devices.pop() if len(devices) == 1 else torch.device("cpu")
        flat, deviation = self._unit_noise(size, torch.float64 if wide else torch.float32, device)
        noised: dict[str, Tensor] = {}
        offset = 0
        for name, gradient in gradients.items():
            noised[name] = _added(gradient, flat[offset : offset + gradient.numel()], scale)
            offset += gradient.numel()
        return noised_sum(noised, scale * deviation, self.noise_multiplier)

    @abstractmethod
    def _unit_noise(self, size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, float]:
        """The next update's noise at σ · sensitivity = 1, ``[size]``, and its standard deviation in each coordinate.

        The caller overwrites it: nothing else may share its memory.
        """


class GaussianNoise(NoiseMechanism):
    """Fresh independent Gaussian noise at each update.

    noised = GaussianNoise(noise_multiplier=1.1).add(clipped_sum)
    """

    def _unit_noise(self, size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, float]:
        return self._source.draw(size, dtype, device), 1.0


def _added(gradient: Tensor, noise: Tensor, scale: float) -> Tensor:
    """gradient + scale · noise in one pass, over the noise's own memory and in the gradient's memory order."""
    noise = noise.to(gradient.device)
    if gradient.is_contiguous():
        noise = noise.view(gradient.shape)
    else:
        noise = noise.as_strided(gradient.shape, torch.empty_like(gradient, device="meta").stride(), noise.storage_offset())
    if noise.dtype != gradient.dtype:
        return torch.add(gradient, noise, alpha=scale).to(gradient.dtype)
    return torch.add(gradient, noise, alpha=scale, out=noise)
