"""Gaussian noise from a cryptographic stream.

The generator is AES-128 in counter mode with a key from the operating system (``randomgen.AESCounter``); normal variates
come from numpy's float64 ziggurat over it. A new key is drawn for every training, also on resume, and no key or counter
is ever written down: two steps can never draw the same noise, and nobody can subtract it later. A stream cannot be copied,
and refuses to go on in a forked process.

A fixed seed is for tests and debugging alone. It must be asked for by the name ``insecure_seed`` and is recorded with
the model, since whoever knows the seed can remove the noise.

Not covered: attacks on floating-point rounding (Mironov 2012, "On Significance of the Least Significant Bits for
Differential Privacy").
"""

import os
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from randomgen import AESCounter
from torch import Tensor

from dptrain.clipping import ClippedSum
from dptrain.errors import PlanError, ProtocolError

if TYPE_CHECKING:
    from dptrain.plan import PrivacyPlan


def secret_generator(insecure_seed: int | None = None, stream: str = "noise") -> np.random.Generator:
    """A fresh generator keyed by the operating system; or, with ``insecure_seed``, a repeatable and insecure one.

    Args:
        stream: what it is for; different streams of one insecure seed are independent.
    """
    if insecure_seed is None:
        return _generator(secrets.randbits(128))
    if isinstance(insecure_seed, bool) or not isinstance(insecure_seed, int) or insecure_seed < 0:
        raise PlanError(f"insecure_seed is {insecure_seed!r}; give a whole number from 0 up, or leave it out")
    words = np.random.SeedSequence([insecure_seed, *stream.encode()]).generate_state(2, np.uint64)
    return _generator(int(words[0]) << 64 | int(words[1]))


def _generator(key: int) -> np.random.Generator:
    stream: Any = AESCounter(key=key)  # a numpy bit generator by its capsule, not by its type
    return np.random.Generator(stream)


@dataclass(frozen=True, eq=False)
class NoisedSum:
    """A clipped sum with its noise: all that an optimizer may see."""

    gradients: dict[str, Tensor]


@dataclass(eq=False)
class GaussianNoise:
    """Independent Gaussian noise; its scale is σ times the sensitivity that the clipped sum itself states.

    noised = GaussianNoise.of(plan).add(clipped_sum)
    """

    noise_multiplier: float
    generator: np.random.Generator = field(default_factory=secret_generator, repr=False)
    draws: int = 0
    """Updates that were given noise so far."""
    _process: int = field(default_factory=os.getpid, repr=False)

    @classmethod
    def of(cls, plan: "PrivacyPlan", insecure_seed: int | None = None, first: int = 0) -> "GaussianNoise":
        """The noise of a plan's updates from ``first`` on; a repeatable stream begins anew for each ``first``."""
        return cls(plan.noise_multiplier, secret_generator(insecure_seed, f"noise from {first}"))

    def __reduce__(self) -> Any:
        raise ProtocolError("a noise stream cannot be copied or sent elsewhere: two copies would draw the same noise")

    def add(self, clipped: ClippedSum) -> NoisedSum:
        """One draw for all parameters together; σ = 0 adds nothing and draws nothing."""
        if self.noise_multiplier == 0:
            return NoisedSum(clipped.gradients)
        scale = self.noise_multiplier * clipped.sensitivity
        if not np.isfinite(scale) or scale <= 0:
            raise PlanError(f"noise of standard deviation {scale} hides nothing; the sensitivity must be finite, above 0")
        if os.getpid() != self._process:
            raise ProtocolError(
                "this training was forked into another process, which would draw the same noise a second time; call "
                "make_private() in the process that trains"
            )
        self.draws += 1
        size = sum(gradient.numel() for gradient in clipped.gradients.values())
        flat = torch.from_numpy(self.generator.standard_normal(size)).mul_(scale)
        noised: dict[str, Tensor] = {}
        offset = 0
        for name, gradient in clipped.gradients.items():
            part = flat[offset : offset + gradient.numel()].view_as(gradient)
            noised[name] = gradient + part.to(gradient.device, gradient.dtype)
            offset += gradient.numel()
        return NoisedSum(noised)
