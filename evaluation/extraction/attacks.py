"""The attacks on made-up secrets: they ask the target and keep what it said; :mod:`evaluation.secrets` judges it.

ranked = ExposureAttack().run(target, secrets, generator)           # one Ranked a secret
tries = GenerationAttack().run(target, secrets, generator)          # one Tries a secret
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from dptrain.data.secrets import PATTERNS, Secret
from evaluation.access import Access
from evaluation.extraction.generation import FEW, Tries, generate, greedy
from evaluation.extraction.space import at_least, scored
from evaluation.target import Target


@dataclass(frozen=True, eq=False)
class Ranked:
    """One secret among all that it might have been."""

    score: float
    """Its log-probability, in nats."""
    rank: int | None
    """Among all candidates, those that score as high ahead of it; None where they are too many to go through."""
    space: float
    """How many candidates there are."""
    candidates: Float[np.ndarray, " drawn"]
    """Scores of some that were drawn as the secret was."""


@dataclass(frozen=True, kw_only=True)
class ExposureAttack:
    """The rank of each secret: exact where its candidates can be gone through, and a sample of their scores always."""

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "Carlini et al. 2019"

    candidates: int = 10_000
    """That are drawn for the estimates."""

    def run(self, target: Target, secrets: Sequence[Secret], generator: np.random.Generator) -> list[Ranked]:
        return [self._ranked(target, secret, generator) for secret in secrets]

    def ranks(self, target: Target, secrets: Sequence[Secret]) -> list[int]:
        """The exact ranks alone, of secrets whose candidates can be gone through."""
        return [_rank(target, secret, float(scored(target, secret.before, [secret.secret])[0])) for secret in secrets]

    def _ranked(self, target: Target, secret: Secret, generator: np.random.Generator) -> Ranked:
        pattern = PATTERNS[secret.format]
        drawn = [pattern.draw(generator) for _ in range(self.candidates)]
        score, *scores = scored(target, secret.before, [secret.secret, *drawn])
        rank = _rank(target, secret, float(score)) if pattern.space <= FEW else None
        return Ranked(float(score), rank, pattern.space, np.array(scores))


def _rank(target: Target, secret: Secret, score: float) -> int:
    return max(1, at_least(target, secret.before, PATTERNS[secret.format].places, score))


@dataclass(frozen=True, kw_only=True)
class GenerationAttack:
    """What the model says after the words before each secret, by every method of :mod:`~evaluation.extraction.generation`."""

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "Carlini et al. 2019, 2021"

    def run(self, target: Target, secrets: Sequence[Secret], generator: np.random.Generator) -> list[Tries]:
        return [generate(target, secret.before, PATTERNS[secret.format], generator) for secret in secrets]


def said(target: Target, secret: Secret) -> str:
    """The most probable character after each other behind what stands before the secret: what a reader would see."""
    return greedy(target, secret.before, len(secret.secret))
