"""A generator that is a network: how an attack walks in its latent space.

For a decoder g with z ~ N(0, I) the attack's coordinates are u = M^((1−t)/2) z, where M is the mean of JᵀJ over the prior and
J the derivative of g. A gradient in u, carried to the input, is about J M^(t−1) Jᵀ ∇: at t = 0 the projection of ∇ on what the
generator can show, at t = 1 its product with the covariance of what the generator draws. For a linear g, J = V S and M = S²;
then u is the latent vector of :class:`~evaluation.inversion.generators.LinearGenerator` at the same temper t.

The middle is g(0). The shell is the set of u whose g is as far from the middle as a person is from the others; a direction is
brought there by a few steps of c ← c · radius / ‖g(c u) − g(0)‖, which for a linear g is exact after one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

METRIC_DRAWS = 32
"""Draws of the prior that M is averaged over."""
SHELL_STEPS = 6
FLOOR = 1e-6
"""Of M's eigenvalues, in units of the largest: a direction that changes nothing is not stretched for ever."""


@dataclass(frozen=True, eq=False)
class NetworkGenerator:
    """g(M^((t−1)/2) u)."""

    decoder: nn.Module
    """z ``[n, latent]`` to inputs ``[n, inputs]``; frozen."""
    narrow: Float[Tensor, "latent latent"]
    """M^((t−1)/2)."""
    widen: Float[Tensor, "latent latent"]
    """M^((1−t)/2)."""
    radius: float
    """Of the shell: a root mean squared difference from g(0), in units of the input."""
    input_shape: tuple[int, ...]

    @classmethod
    def tempered(
        cls, decoder: nn.Module, latent: int, *, temper: float, radius: float, input_shape: tuple[int, ...]
    ) -> "NetworkGenerator":
        """A decoder in the coordinates of temper t."""
        decoder = decoder.eval().requires_grad_(False)
        values, vectors = torch.linalg.eigh(mean_metric(decoder, latent).double())
        values = values.clamp_min(FLOOR * max(float(values[-1]), 1e-12))
        narrow, widen = (((vectors * values**power) @ vectors.T).float() for power in ((temper - 1) / 2, (1 - temper) / 2))
        return cls(decoder, narrow, widen, radius, input_shape)

    @property
    def dimensions(self) -> int:
        """Of the latent space."""
        return len(self.narrow)

    def decode(self, latent: Float[Tensor, "n latent"]) -> Float[Tensor, "n ..."]:
        """Inputs ``[n, *input_shape]``; they may leave the bounds."""
        return self.decoder(latent @ self.narrow).view(-1, *self.input_shape)

    def draw(self, count: int, random: torch.Generator) -> Float[Tensor, "count latent"]:
        """Latent vectors as those of public examples."""
        return torch.randn(count, self.dimensions, generator=random) @ self.widen

    def pull(self, latent: Float[Tensor, "n latent"], gradient: Float[Tensor, "n ..."]) -> Float[Tensor, "n latent"]:
        """A derivative with respect to the input ``decode(latent)``, as one with respect to the latent vector."""
        with torch.enable_grad():
            leaf = latent.detach().requires_grad_(True)
            (pulled,) = torch.autograd.grad(self.decode(leaf), leaf, gradient.reshape(-1, *self.input_shape))
        return pulled

    def on_shell(self, latent: Float[Tensor, "n latent"]) -> Float[Tensor, "n latent"]:
        """The same directions, as far from g(0) as a person is."""
        typical = float(self.widen.norm())
        placed = latent * (typical / latent.norm(dim=1, keepdim=True).clamp_min(1e-12))
        middle = self.decode(torch.zeros(1, self.dimensions)).flatten(1)
        for _ in range(SHELL_STEPS):
            apart = (self.decode(placed).flatten(1) - middle).square().mean(1, keepdim=True).sqrt()
            placed = placed * (self.radius / apart.clamp_min(1e-12))
        return placed


def mean_metric(decoder: nn.Module, latent: int) -> Float[Tensor, "latent latent"]:
    """M, the mean of JᵀJ over draws of N(0, I)."""
    draws = torch.randn(METRIC_DRAWS, latent, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(latent, latent)
    for z in draws:
        derivative = torch.func.jacfwd(lambda one: decoder(one[None])[0])(z)
        total += derivative.T @ derivative
    return total / METRIC_DRAWS
