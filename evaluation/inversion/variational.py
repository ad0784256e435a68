"""A variational autoencoder of public examples as a generator (Kingma, Welling 2014, "Auto-Encoding Variational Bayes").

    generator = variational(public, groups, latent=128, temper=0.1)     # fitted once for the same public examples

Encoder q(z|x) = N(m(x), diag v(x)) and decoder g(z) are fitted by the evidence lower bound with z ~ N(0, I),

    maximise   − D/2 log E‖x − g(z)‖² − KL(q(z|x) ‖ N(0, I)),

where the variance of the Gaussian around g(z) takes its best value, which is the mean squared error (Rybkin, Daniilidis, Levine
2021, "Simple and Effective VAE Training with Calibrated Decoders").

Twenty people are few. A decoder made of dense layers alone gives another person's mean face worse than as many principal
components do, so this one starts from them and learns what they miss: with mean μ, components V and deviations S of the public
examples, their shifted and their mirrored copies, and a small network f that starts at 0,

    g(z) = μ + V S (z + f(z)),        m(x) = S⁻¹Vᵀ(x − μ) + h(x).

Neither dense layers alone nor this generator was seen to come nearer to unseen people than as many components do.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from evaluation.inversion.generators import (
    check_public,
    fingerprint,
    fitted_once,
    mirrored,
    moved,
    person_distance,
    principal,
    thinned,
)
from evaluation.inversion.network_generator import NetworkGenerator

COMPONENTS = 300
"""Principal components that the network sees and draws with, at most."""
HIDDEN = 256
STEPS = 2000
BATCH = 128
LEARNING_RATE = 2e-3
FIRST_LOG_VARIANCE = -2.0
"""Of q(z|x), before training."""


class Decoder(nn.Module):
    """μ + V S (z + f(z)); the latent dimensions are the first of the components."""

    def __init__(self, mean: Tensor, components: Tensor, spread: Tensor, latent: int):
        super().__init__()
        self.latent = min(latent, len(spread))
        self.mean, self.components, self.spread = mean, components, spread
        self.beyond = nn.Sequential(
            nn.Linear(self.latent, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, len(spread))
        )
        _silence(self.beyond)

    def coefficients(self, latent: Float[Tensor, "n latent"]) -> Float[Tensor, "n components"]:
        """Along the components, in units of the input."""
        return (F.pad(latent, (0, len(self.spread) - self.latent)) + self.beyond(latent)) * self.spread

    def forward(self, latent: Float[Tensor, "n latent"]) -> Float[Tensor, "n inputs"]:
        return self.mean + self.coefficients(latent) @ self.components.T


class Encoder(nn.Module):
    """The mean and the log variance of q(z|x), from coefficients along the components."""

    def __init__(self, spread: Tensor, latent: int):
        super().__init__()
        self.latent, self.spread = latent, spread
        self.beyond = nn.Sequential(nn.Linear(len(spread), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * latent))
        _silence(self.beyond)

    def forward(self, coefficients: Float[Tensor, "n components"]) -> tuple[Tensor, Tensor]:
        # The last components differ little among examples; whitened in full they would be as loud as the first.
        half_whitened = coefficients / (self.spread * self.spread[0]).sqrt()
        mean, log_variance = self.beyond(half_whitened).chunk(2, 1)
        return mean + (coefficients / self.spread)[:, : self.latent], log_variance + FIRST_LOG_VARIANCE


def variational(public: Tensor, groups: Tensor | None, *, latent: int, temper: float, steps: int = STEPS) -> NetworkGenerator:
    """The decoder as a generator; fitted once for the same public examples and settings.

    Args:
        public: ``[examples, *input_shape]``.
        groups: who each example shows, or None.
        latent: dimensions of the latent space, at most.
        steps: of the training.

    Raises:
        DataError: there are fewer than two public examples.
    """
    check_public(public)
    key = fingerprint(public, groups)

    def fit() -> NetworkGenerator:
        decoder = fitted_once(("variational decoder", key, latent, steps), lambda: train(public, latent, steps)[0])
        return NetworkGenerator.tempered(
            decoder,
            decoder.latent,
            temper=temper,
            radius=person_distance(public, groups),
            input_shape=tuple(public.shape[1:]),
        )

    return fitted_once(("variational", key, latent, steps, temper), fit)


def train(public: Tensor, latent: int, steps: int) -> tuple[Decoder, Encoder]:
    """Both halves, from public examples with their shifted and mirrored copies."""
    examples = moved(mirrored(thinned(public))).flatten(1).double()
    mean = examples.mean(0)
    components, spread = principal(examples - mean)
    kept = spread[:COMPONENTS] > 1e-6 * spread[0].clamp_min(1e-12)
    components, spread = components[:, :COMPONENTS][:, kept], spread[:COMPONENTS][kept]
    coefficients = (examples - mean) @ components
    beyond_reach = float((examples - mean).square().sum(1).mean() - coefficients.square().sum(1).mean())
    data, inputs = coefficients.float(), examples.shape[1]
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        decoder = Decoder(mean.float(), components.float(), spread.float(), latent)
        encoder = Encoder(spread.float(), decoder.latent)
        parameters = [*decoder.parameters(), *encoder.parameters()]
        optimizer = torch.optim.Adam(parameters, LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for _ in range(steps):
            batch = data[torch.randint(len(data), (BATCH,), generator=random)]
            middle, log_variance = encoder(batch)
            z = middle + (log_variance / 2).exp() * torch.randn(middle.shape, generator=random)
            error = ((decoder.coefficients(z) - batch).square().sum(1).mean() + max(beyond_reach, 0.0)) / inputs
            loss = inputs / 2 * error.clamp_min(1e-12).log() + divergence(middle, log_variance).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return decoder.eval().requires_grad_(False), encoder.eval().requires_grad_(False)


def divergence(mean: Float[Tensor, "n latent"], log_variance: Float[Tensor, "n latent"]) -> Float[Tensor, " n"]:
    """KL(N(mean, variance) ‖ N(0, I)), in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1)


def _silence(network: nn.Sequential) -> None:
    """The network gives 0 at first."""
    last = network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
