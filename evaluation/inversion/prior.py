"""Class inversion with a prior: what a class looks like, among inputs that look like public ones.

The attacker fits a generator g to public examples (:mod:`~evaluation.inversion.generators`) and seeks, for each class y, a
distribution in its latent space and not a point (Chen, Kahng, Jia, Qi 2021, "Knowledge-Enriched Distributional Model
Inversion Attacks"). Its mean m is what is sought; its spread is that of the public examples, at first as wide as the prior:

    maximise over m on the shell:   E_ε [ h_y(g(m + σ ε)) ],      h_y(x) = logit_y(x) − log Σ_{j≠y} exp logit_j(x)

The margin h does not level off where the softmax has reached one, as the cross-entropy does (Nguyen, Chandrasegaran,
Abdollahzadeh, Cheung 2023, "Re-thinking Model Inversion Attacks Against Deep Neural Networks"). The expectation over faces
of all kinds leaves nothing of the gradient that is particular to one input: a network that answers y for a pattern which no
face has does so around one point, and not for every face that is moved the same way. (An input that survives change was
sought for afterwards, among candidates, by Struppek et al. 2022, "Plug & Play Attacks".) A shell, since a Gaussian of d
dimensions is at √d from its mean and nearly nowhere else.

Steps are of unit length with momentum, m ← shell(βm + (1−β) ∇/‖∇‖), for all classes at once; several restarts with draws of
their own are averaged. The result is g(m) within the bounds.

The settings were chosen with roles swapped: targets and evaluators of the 20 people who are the public ones, attacked by
someone who knows the 20 private ones, for three random halves of 40 people. Within one half no private person was attacked;
over the three, one who is private in one half may have been attacked in another, so the halves are not independent of the
settings. The reach was set knowing the pixel attack's distance for private people too.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from evaluation.access import Access
from evaluation.inversion.adversarial import ROUNDS, adversarial
from evaluation.inversion.generators import Generator, LinearGenerator, linear
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.inversion.network_generator import NetworkGenerator
from evaluation.inversion.variational import STEPS, variational
from evaluation.target import Target


@runtime_checkable
class Learner(Protocol):
    """How an attacker learns a generator."""

    def fit(self, target: Target, knowledge: ClassKnowledge) -> Generator:
        """From public examples, and from what the target answers to them where the generator is the target's own.

        Raises:
            DataError: there are fewer than two public examples.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Principal components."""

    components: int = 300
    """Dimensions of the latent space, at most."""
    temper: float = 0.1

    def fit(self, target: Target, knowledge: ClassKnowledge) -> LinearGenerator:
        """Of the public examples; the target has no part in it."""
        return linear(knowledge.public, knowledge.public_groups, components=self.components, temper=self.temper)


@dataclass(frozen=True, kw_only=True)
class Variational:
    """A variational autoencoder."""

    latent: int = 128
    """Dimensions of the latent space, at most."""
    temper: float = 0.1
    steps: int = STEPS
    """Of its training."""

    def fit(self, target: Target, knowledge: ClassKnowledge) -> NetworkGenerator:
        """Of the public examples; the target has no part in it."""
        return variational(knowledge.public, knowledge.public_groups, latent=self.latent, temper=self.temper, steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """A generator that learns against a discriminator with the target's knowledge."""

    latent: int = 128
    """Dimensions of the latent space, at most."""
    temper: float = 0.1
    rounds: int = ROUNDS
    """Of the adversaries."""
    steps: int = STEPS
    """Of the autoencoder that it starts from."""

    def fit(self, target: Target, knowledge: ClassKnowledge) -> NetworkGenerator:
        """Of the public examples and the scores that the target gives them."""
        return adversarial(
            target,
            knowledge.public,
            knowledge.public_groups,
            latent=self.latent,
            temper=self.temper,
            rounds=self.rounds,
            steps=self.steps,
        )


@dataclass(frozen=True, kw_only=True)
class PriorInversion:
    """One reconstruction a class, in the latent space of a generator that was fitted to public examples."""

    access: ClassVar[Access] = Access.GRADIENTS
    paper: ClassVar[str] = "Chen et al. 2021"

    learner: Learner = Linear()
    reach: float = 1.1
    """Of the shell, in units of a public person's distance from the others."""
    steps: int = 8
    draws: int = 12
    """Inputs that a gradient is averaged over."""
    spread: float = 1.0
    """σ, in units of the public examples' own."""
    momentum: float = 0.6
    restarts: int = 2

    def run(self, target: Target, knowledge: ClassKnowledge, generator: torch.Generator) -> Tensor:
        """Reconstructions ``[classes, *input_shape]``.

        Raises:
            DataError: there are fewer than two public examples.
        """
        prior = self.learner.fit(target, knowledge)
        return prior.decode(self.reach * self.means(target, prior, generator)).clamp(*target.bounds)

    def means(self, target: Target, prior: Generator, generator: torch.Generator) -> Float[Tensor, "classes latent"]:
        """m of each class."""
        found = torch.stack([self._ascend(target, prior, generator) for _ in range(self.restarts)])
        return prior.on_shell(found.mean(0))

    def samples(self, target: Target, knowledge: ClassKnowledge, count: int, generator: torch.Generator) -> Tensor:
        """Draws of each class's distribution, ``[classes, count, *input_shape]``: how sure the reconstruction is.

        They lie around what :meth:`run` gives with the same generator. The spread of a class is the widest of :data:`SPREADS`
        at which the target answers the class for nine draws of ten.
        """
        prior = self.learner.fit(target, knowledge)
        means = self.reach * self.means(target, prior, generator)
        noise = prior.draw(len(means) * count, generator).view(len(means), count, -1)
        classes = torch.arange(len(means))
        drawn = prior.decode(means).clamp(*target.bounds)[:, None].repeat(1, count, *[1] * len(knowledge.input_shape))
        for spread in SPREADS:
            wider = prior.decode((means[:, None] + spread * noise).flatten(0, 1)).clamp(*target.bounds)
            answers = torch.from_numpy(target.labels(wider)).view(len(means), count)
            kept = (answers == classes[:, None]).double().mean(1) >= 0.9
            drawn[kept] = wider.view_as(drawn)[kept]
        return drawn

    def _ascend(self, target: Target, prior: Generator, generator: torch.Generator) -> Float[Tensor, "classes latent"]:
        wanted = torch.arange(target.classes).repeat_interleave(self.draws)
        means = torch.zeros(target.classes, prior.dimensions)
        direction = torch.zeros_like(means)
        for step in range(self.steps):
            noise = self.spread * prior.draw(len(wanted), generator)
            latent = means.repeat_interleave(self.draws, 0) + noise
            inputs = prior.decode(latent).clamp(*target.bounds)
            gradient, _ = target.gradient(inputs, lambda logits: margins(logits, wanted))
            slope = prior.on_shell(prior.pull(latent, gradient).view(target.classes, self.draws, -1).mean(1))
            direction = self.momentum * direction + (1 - self.momentum) * slope if step else slope
            means = prior.on_shell(direction)
        return means


def vae_prior() -> PriorInversion:
    """With a variational autoencoder as the generator."""
    return PriorInversion(learner=Variational())


def gan_prior() -> PriorInversion:
    """With a generator of the target's own."""
    return PriorInversion(learner=Adversarial())


SPREADS = (0.125, 0.25, 0.5, 1.0)
"""From the narrowest to the public examples' own."""


def margins(logits: Float[Tensor, "inputs classes"], wanted: Tensor) -> Float[Tensor, " inputs"]:
    """By how much the wanted class's logit is above the (soft) highest of the others."""
    own = logits.gather(1, wanted[:, None])
    others = logits.scatter(1, wanted[:, None], -torch.inf)
    return own[:, 0] - torch.logsumexp(others, 1)
