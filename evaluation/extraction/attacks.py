"""The attacks on made-up secrets: they ask the target and keep what it said; :mod:`evaluation.secrets` judges it.

ranked = ExposureAttack().run(target, secrets, generator)           # one Ranked a secret
tries = GenerationAttack().run(target, secrets, generator)          # one Tries a secret

Of a model of tokens they take its tokenizer as well (:mod:`evaluation.extraction.tokens`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from dptrain.data.secrets import PATTERNS, Secret
from dptrain.data.tokens import Tokenizer
from evaluation.access import Access
from evaluation.extraction import tokens
from evaluation.extraction.generation import FEW, Tries, generate, greedy, restricted
from evaluation.extraction.space import at_least, scored
from evaluation.target import Target


@dataclass(frozen=True, eq=False)
class Ranked:
    """One secret among all that it might have been."""

    score: float
    """Its log-probability, in nats."""
    rank: int | None
    """Among all candidates, those that score as high ahead of it; None where they are not gone through."""
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
    """That are drawn for the estimates; of tokens at most :data:`evaluation.extraction.tokens.CANDIDATES`."""

    def run(
        self, target: Target, secrets: Sequence[Secret], generator: np.random.Generator, tokenizer: Tokenizer | None = None
    ) -> list[Ranked]:
        return [self._ranked(target, secret, generator, tokenizer) for secret in secrets]

    def ranks(self, target: Target, secrets: Sequence[Secret]) -> list[int]:
        """The exact ranks alone, of secrets whose candidates can be gone through."""
        return [_rank(target, secret, float(scored(target, secret.before, [secret.secret])[0])) for secret in secrets]

    def _ranked(self, target: Target, secret: Secret, generator: np.random.Generator, tokenizer: Tokenizer | None) -> Ranked:
        pattern = PATTERNS[secret.format]
        count = self.candidates if tokenizer is None else min(self.candidates, tokens.CANDIDATES)
        every = [secret.secret, *(pattern.draw(generator) for _ in range(count))]
        if tokenizer is not None:
            score, *scores = tokens.scored(target, tokenizer, secret.before, every)
            return Ranked(float(score), None, pattern.space, np.array(scores))
        score, *scores = scored(target, secret.before, every)
        rank = _rank(target, secret, float(score)) if pattern.space <= FEW else None
        return Ranked(float(score), rank, pattern.space, np.array(scores))


def _rank(target: Target, secret: Secret, score: float) -> int:
    return max(1, at_least(target, secret.before, PATTERNS[secret.format].places, score))


@dataclass(frozen=True, kw_only=True)
class GenerationAttack:
    """What the model says after the words before each secret, by every method of :mod:`~evaluation.extraction.generation`."""

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "Carlini et al. 2019, 2021"

    def run(
        self, target: Target, secrets: Sequence[Secret], generator: np.random.Generator, tokenizer: Tokenizer | None = None
    ) -> list[Tries]:
        if tokenizer is not None:
            return [tokens.generate(target, tokenizer, one.before, PATTERNS[one.format], generator) for one in secrets]
        return [generate(target, one.before, PATTERNS[one.format], generator) for one in secrets]


def named(target: Target, secret: Secret, tokenizer: Tokenizer | None = None) -> str:
    """What the restricted search gives."""
    pattern = PATTERNS[secret.format]
    if tokenizer is not None:
        return tokens.restricted(target, tokenizer, secret.before, pattern)
    return restricted(target, secret.before, pattern)


def said(target: Target, secret: Secret, tokenizer: Tokenizer | None = None) -> str:
    """The most probable character, or token, after each other behind what stands before the secret: what a reader would see."""
    length = len(secret.secret)
    if tokenizer is not None:
        return tokens.greedy(target, tokenizer, secret.before, length)
    return greedy(target, secret.before, length)
