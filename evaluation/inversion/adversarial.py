"""A generator that learns what matters to the target: its answers to public examples go into the discriminator.

    generator = adversarial(target, public, groups, latent=128, temper=0.1)     # each public picture and its mirror image asked

After Chen, Kahng, Jia, Qi 2021, "Knowledge-Enriched Distributional Model Inversion Attacks". The target answers the public
examples x with probabilities T(x) over its K classes. The discriminator gives K numbers l(x), which stand for two things
(Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen 2016, "Improved Techniques for Training GANs"): softmax l(x) for what the
target would answer, and D(x) = Z/(Z + 1), Z = Σ exp lₖ(x), for whether x is an example at all; that it is made up would be the
(K+1)-th output, whose number is fixed at 0. With φ its last hidden layer,

    discriminator: minimise   E_x[ H(T(x), softmax l(x)) ] − E_x[ log D(x) ] − E_z[ log(1 − D(g(z))) ]
    generator:     minimise   ‖E_x φ(x) − E_z φ(g(z))‖² / σ_φ² + λ E_z[ H(softmax l(g(z))) ] + κ E_z ‖f(z) − f₀(z)‖²

The first term matches features and not verdicts; the second, an entropy, asks for examples of which the target would be sure.
Two hundred images of twenty people are too few to learn g from noise. It starts as the decoder of
:mod:`~evaluation.inversion.variational`, whose f is f₀ (Larsen, Sønderby, Larochelle, Winther 2016, "Autoencoding beyond pixels
using a learned similarity metric", join the two), and the last term, which is not in the papers, keeps it near. The
discriminator sees coefficients along the public examples' principal components, with noise.

On ``faces`` it was not seen to give more than the autoencoder that it starts from: weakly held, the discriminator still tells
all that is made from examples.
"""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from evaluation.inversion.generators import check_public, mirrored, person_distance, thinned
from evaluation.inversion.network_generator import NetworkGenerator
from evaluation.inversion.variational import STEPS, Decoder, variational
from evaluation.target import Target

ROUNDS = 600
BATCH = 64
LEARNING_RATE = 2e-4
HIDDEN = 128
NOISE = 0.1
"""Of what the discriminator sees, in units of the square root of a component's deviation over the first one's."""
SURE = 0.1
"""λ."""
NEAR = 0.03
"""κ."""


class Discriminator(nn.Module):
    """Coefficients along the components to K numbers."""

    def __init__(self, spread: Tensor, classes: int):
        super().__init__()
        self.scale = (spread * spread[0]).sqrt()
        self.body = nn.Sequential(
            nn.Linear(len(spread), HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, HIDDEN), nn.LeakyReLU(0.2)
        )
        self.head = nn.Linear(HIDDEN, classes)

    def features(self, coefficients: Float[Tensor, "n components"], random: torch.Generator) -> Float[Tensor, "n hidden"]:
        seen = coefficients / self.scale
        return self.body(seen + NOISE * torch.randn(seen.shape, generator=random))


def adversarial(
    target: Target,
    public: Tensor,
    groups: Tensor | None,
    *,
    latent: int,
    temper: float,
    rounds: int = ROUNDS,
    steps: int = STEPS,
) -> NetworkGenerator:
    """The generator of this target.

    Args:
        public: ``[examples, *input_shape]``.
        groups: who each example shows, or None.
        latent: dimensions of the latent space, at most.
        rounds: of the adversaries.
        steps: of the autoencoder that it starts from.

    Raises:
        DataError: there are fewer than two public examples.
    """
    check_public(public)
    start = variational(public, groups, latent=latent, temper=temper, steps=steps).decoder
    assert isinstance(start, Decoder)
    shown = mirrored(thinned(public))
    answers = torch.from_numpy(target.scores(shown)).float()
    return NetworkGenerator.tempered(
        contest(start, shown, answers, rounds)[0],
        start.latent,
        temper=temper,
        radius=person_distance(public, groups),
        input_shape=tuple(public.shape[1:]),
    )


def contest(
    start: Decoder, examples: Tensor, answers: Float[Tensor, "examples classes"], rounds: int
) -> tuple[Decoder, Discriminator]:
    """Generator and discriminator, after as many rounds."""
    random = torch.Generator().manual_seed(0)
    data = (examples.flatten(1) - start.mean) @ start.components
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        generator = copy.deepcopy(start).train().requires_grad_(True)
        judge = Discriminator(start.spread, answers.shape[1])
        optimizers = [torch.optim.Adam(each.parameters(), LEARNING_RATE, betas=(0.5, 0.9)) for each in (judge, generator)]
        for _ in range(rounds):
            drawn = torch.randint(len(data), (BATCH,), generator=random)
            z = torch.randn(BATCH, start.latent, generator=random)
            made = generator.coefficients(z)
            real, fake = (judge.head(judge.features(each, random)) for each in (data[drawn], made.detach()))
            optimizers[0].zero_grad()
            discriminating(real, fake, answers[drawn]).backward()
            optimizers[0].step()
            features, seen = judge.features(made, random), judge.features(data[drawn], random).detach()
            away = (generator.beyond(z) - start.beyond(z)).square().sum(1).mean()
            loss = matching(seen, features) + SURE * entropy(judge.head(features)) + NEAR * away
            optimizers[1].zero_grad()
            loss.backward()
            optimizers[1].step()
    return generator.eval().requires_grad_(False), judge.eval().requires_grad_(False)


def discriminating(
    real: Float[Tensor, "n classes"], fake: Float[Tensor, "n classes"], answers: Float[Tensor, "n classes"]
) -> Float[Tensor, ""]:
    """The discriminator's loss, from its numbers: −log D = softplus(−log Z) and −log(1 − D) = softplus(log Z)."""
    answered = -(answers * real.log_softmax(1)).sum(1).mean()
    return answered + F.softplus(-real.logsumexp(1)).mean() + F.softplus(fake.logsumexp(1)).mean()


def matching(real: Float[Tensor, "n hidden"], fake: Float[Tensor, "n hidden"]) -> Float[Tensor, ""]:
    """Squared difference of the mean features, in units of their mean variance."""
    return (real.mean(0) - fake.mean(0)).square().mean() / real.var(0).mean().clamp_min(1e-12)


def entropy(numbers: Float[Tensor, "n classes"]) -> Float[Tensor, ""]:
    """Mean entropy of the softmax, in nats."""
    log_scores = numbers.log_softmax(1)
    return -(log_scores.exp() * log_scores).sum(1).mean()
