"""Guards: what stands between a model's outputs and whoever asks.

    guard = fitted(ReleaseConfig(guard="memguard", distortion=0.5), members=..., others=..., key=secret)
    guard.answers(inputs, logits)       # [examples, classes], what is shown in place of the softmax

A guard is no privacy guarantee, and one that is fitted on members reads them once more, which ε does not cover. It is made for
one model by whoever owns it. The same query gets the same answer, whatever else is asked with it and however often: what is
drawn is drawn from a secret key and the input, so that asking again averages nothing away.
"""

import hashlib
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from dptrain.errors import UserError
from dptrain.recipe import ReleaseConfig
from dptrain.registry import GUARDS

Logits = Float[np.ndarray, "examples classes"]
Scores = Float[np.ndarray, "examples classes"]


class Guard(ABC):
    """What is shown in place of a classifier's softmax."""

    keeps_labels: ClassVar[bool]
    """Whether the most probable class is always the model's own."""

    @classmethod
    @abstractmethod
    def fit(cls, config: ReleaseConfig, members: Logits, others: Logits, key: bytes) -> "Guard":
        """For the owner's model.

        Args:
            members: its outputs on what it was trained on.
            others: its outputs on examples that the owner has kept from it.
            key: secret; from it and the input comes whatever is drawn.
        """

    @abstractmethod
    def answers(self, inputs: Tensor, logits: Logits) -> Scores:
        """What is shown: numbers from 0 to 1 that sum to 1, an example."""

    @abstractmethod
    def statement(self) -> str:
        """What the guard does and does not do, for the release card."""


class LabelOnly(Guard):
    """The most probable class, and nothing else: its score is 1."""

    keeps_labels = True

    @classmethod
    def fit(cls, config: ReleaseConfig, members: Logits, others: Logits, key: bytes) -> "LabelOnly":
        return cls()

    def answers(self, inputs: Tensor, logits: Logits) -> Scores:
        return np.eye(logits.shape[1])[logits.argmax(1)]

    def statement(self) -> str:
        return "Only the most probable class is shown. That is no privacy guarantee: labels alone tell members apart as well."


def fitted(config: ReleaseConfig, members: Logits, others: Logits, key: bytes) -> Guard:
    """The guard that a recipe names, for one model.

    Raises:
        UserError: it names none, or there is nothing to fit it on.
    """
    if config.guard is None:
        raise UserError("release.guard is not given, so there is no guard to fit; give one, such as memguard")
    if len(members) == 0 or len(others) == 0:
        raise UserError(
            "a guard is fitted on members and on examples kept from the model, and one of them is empty; raise "
            "data.split.population, such as to 0.1"
        )
    return GUARDS[config.guard].fit(config, members, others, key)


def draws(inputs: Tensor, key: bytes) -> Float[np.ndarray, " examples"]:
    """A uniform number an example, from the key and the example alone."""
    rows = np.ascontiguousarray(inputs.detach().cpu().numpy()).reshape(len(inputs), -1)
    found = [hashlib.blake2b(row.tobytes(), key=key[:64], digest_size=8).digest() for row in rows]
    return np.array([int.from_bytes(digest, "big") for digest in found], dtype=float) / 2.0**64
