"""Guards: what stands between a model's outputs and whoever asks.

    owner = Owner(outputs=..., input_shape=(64,), bounds=(0.0, 1.0), classes=10, key=secret)
    guard = fitted("top5-rounded", owner)
    guard.answers(inputs, logits).scores        # [examples, classes]: what is shown in place of the softmax, 0 where withheld

A guard is no privacy guarantee unless its statement says of which ε, and one that is fitted on members reads them once more,
which the model's ε does not cover. It is made for one model by whoever owns it.

The same query gets the same answer, whatever else is asked with it and however often: what is drawn is drawn from a secret key
and the input, so that asking again averages nothing away. Two limits of that:

* A query that differs in the last bit of one number is another query, with draws of its own. Whoever asks many near-identical
  queries averages over the draws as if nothing were keyed; a guard does not see it, a monitor may.
* A model's outputs differ in their last digits with the size of the batch that they are computed in, and a guard does not hide
  it. Where an answer changes in a step (rounding, rejection, the order of two nearly equal classes), a query within that
  distance of the step may get either answer.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dptrain.errors import UserError
from dptrain.registry import GUARDS
from dptrain.release.parts import Part, needs_members, needs_model, parse

__all__ = [
    "Answers",
    "Chain",
    "Guard",
    "Owner",
    "Part",
    "draws",
    "fitted",
    "needs_members",
    "needs_model",
    "parse",
    "stated",
]

Logits = Float[np.ndarray, "examples classes"]
Scores = Float[np.ndarray, "examples classes"]

Shows = Literal["scores", "ranks", "label"]

NO_CLASS = -1
"""Where a query was refused."""
BITS = 52
"""Of a uniform number."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What is shown."""

    scores: Scores
    """From 0 to 1, and 0 for what is withheld. Of ranks, the k best classes carry k, k − 1, … over their sum; of a label, 1."""
    shown: Int[np.ndarray, "examples shown"] | None
    """The classes that are shown, best first; None where all are, in no order but that of their scores."""
    shows: Shows
    refused: Bool[np.ndarray, " examples"]
    """Their scores are all 0, and their shown classes -1."""

    @classmethod
    def of(cls, scores: Scores) -> "Answers":
        """Everything is shown."""
        return cls(scores, None, "scores", np.zeros(len(scores), dtype=bool))

    @classmethod
    def ranked(cls, best: Int[np.ndarray, "examples shown"], classes: int, shows: Shows) -> "Answers":
        """Classes are shown, best first, and no scores."""
        weights = np.arange(best.shape[1], 0, -1, dtype=float)
        scores = np.zeros((len(best), classes))
        np.put_along_axis(scores, best, np.tile(weights / max(weights.sum(), 1.0), (len(best), 1)), axis=1)
        return cls(scores, best, shows, np.zeros(len(best), dtype=bool))

    @property
    def labels(self) -> Int[np.ndarray, " examples"]:
        """The best class that is shown, of equal ones the first; -1 where refused."""
        best = self.scores.argmax(1) if self.shown is None else self.shown[:, 0]
        return np.where(self.refused, NO_CLASS, best)

    def best(self, count: int) -> Int[np.ndarray, "examples best"]:
        """The best classes of those that are shown, in order."""
        if self.shown is not None:
            return self.shown[:, :count]
        return np.argsort(-self.scores, axis=1, kind="stable")[:, :count]

    def take(self, rows: np.ndarray) -> "Answers":
        """Of these examples alone."""
        shown = None if self.shown is None else self.shown[rows]
        return Answers(self.scores[rows], shown, self.shows, self.refused[rows])

    def refusing(self, refused: Bool[np.ndarray, " examples"]) -> "Answers":
        """The same with these refused."""
        shown = None if self.shown is None else np.where(refused[:, None], NO_CLASS, self.shown)
        return Answers(np.where(refused[:, None], 0.0, self.scores), shown, self.shows, refused | self.refused)


@dataclass(frozen=True, eq=False)
class Owner:
    """What a guard may be fitted on."""

    outputs: Callable[[Tensor], Logits]
    """The model itself."""
    input_shape: tuple[int, ...]
    bounds: tuple[float, float]
    """Public lowest and highest value of an input."""
    classes: int
    key: bytes
    """Secret, and not empty."""
    members: Logits | None = None
    """The model's outputs on what it was trained on; None where that is not at hand, as on a server."""
    others: Logits | None = None
    """Its outputs on examples that were kept from it."""
    reads: Literal["numbers", "words"] = "numbers"
    """Whether inputs are measured, or are tokens or other numbers that name something."""
    sensitivity: float = 1.0
    """The most that one example more or less in training can change a score of the model by, whatever the input: 1 for a model
    of which nothing is known, 1/teachers for an :class:`~dptrain.release.teachers.Ensemble`."""


class Guard(ABC):
    """What is shown in place of a classifier's softmax."""

    keeps_labels: ClassVar[bool] = False
    """Whether every answer's best class is the model's own."""
    needs_members: ClassVar[bool] = False
    """Whether it is fitted on private examples, so that a server, which does not hold them, cannot make it."""

    @classmethod
    def fit(cls, number: float | None, owner: Owner) -> "Guard":
        """For the owner's model.

        Args:
            number: what is glued to the name, or its default; None where the name takes none.

        Raises:
            UserError: the owner lacks what it is fitted on.
        """
        return cls()

    @abstractmethod
    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        """What is shown in place of these answers, none of which is refused."""

    @classmethod
    def says(cls, number: float | None) -> str:
        """What such a guard does and does not do, in public facts alone, so that a card can say it before one is fitted."""
        return f"A guard of its owner's own, {cls.__name__}, of which no privacy guarantee is known."

    @abstractmethod
    def statement(self) -> str:
        """What this one does and does not do."""

    def before(self, outputs: Callable[[Tensor], Logits]) -> "Guard":
        """The same guard before another model of the same owner; itself, where it was not made of the model's answers."""
        return self

    def answers(self, inputs: Tensor, logits: Logits) -> Answers:
        """What is shown in place of a model's outputs."""
        return self.through(inputs, Answers.of(softmax(logits)))


@dataclass(frozen=True, eq=False)
class Chain(Guard):
    """Guards one behind the other; without any, everything is shown. A refused query goes through none of the rest."""

    parts: tuple[Guard, ...] = ()

    @property
    def keeps_labels(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]  of a chain it depends on its parts
        return all(part.keeps_labels for part in self.parts)

    @property
    def needs_members(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return any(part.needs_members for part in self.parts)

    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        for part in self.parts:
            answers = _behind(part, inputs, answers)
        return answers

    def before(self, outputs: Callable[[Tensor], Logits]) -> "Chain":
        return Chain(tuple(part.before(outputs) for part in self.parts))

    def statement(self) -> str:
        return " ".join(part.statement() for part in self.parts) or "Scores are shown as they are."


def fitted(text: str, owner: Owner) -> Guard:
    """The guard that a text says, for one model; of one part, that part itself.

    Raises:
        ConfigError: the text says none.
        UserError: there is nothing to fit it on.
    """
    made = tuple(GUARDS[part.name].fit(part.number, owner) for part in parse(text))
    return made[0] if len(made) == 1 else Chain(made)


def stated(text: str) -> str:
    """What the guard that a text says does and does not do, for the release card.

    Raises:
        ConfigError: the text says none.
    """
    return " ".join(GUARDS[part.name].says(part.number) for part in parse(text))


def softmax(logits: Logits) -> Scores:
    """In float64, whatever the model computes in."""
    return torch.from_numpy(np.asarray(logits, dtype=np.float64)).softmax(1).numpy()


def draws(inputs: Tensor, key: bytes, purpose: str, count: int = 1) -> Float[np.ndarray, "examples count"]:
    """Uniform numbers between 0 and 1 an example, from the key, the purpose and the example alone.

    What a model cannot tell apart is one query: a number in another precision, zero with either sign.

    Raises:
        UserError: the key is empty.
    """
    if not key:
        raise UserError("the guard's key is empty, so that anyone could repeat what it draws; give 32 secret bytes")
    secret = hashlib.blake2b(key).digest()
    found = np.empty((len(inputs), count), dtype=np.uint64)
    for number, row in enumerate(_rows(inputs)):
        seed = hashlib.blake2b(row.tobytes(), key=secret, person=purpose.encode()[:16]).digest()
        found[number] = np.frombuffer(hashlib.shake_256(seed).digest(8 * count), dtype="<u8")
    return ((found >> np.uint64(64 - BITS)).astype(float) + 0.5) / 2.0**BITS


def _rows(inputs: Tensor) -> np.ndarray:
    exact = inputs.detach().cpu().double() + 0.0 if inputs.is_floating_point() else inputs.detach().cpu().long()
    return np.ascontiguousarray(exact.numpy()).reshape(len(inputs), -1)


def _behind(part: Guard, inputs: Tensor, answers: Answers) -> Answers:
    """Of a chain's next part, which does not see what was refused before it."""
    refused = answers.refused
    if not refused.any():
        return part.through(inputs, answers)
    rows = np.flatnonzero(~refused)
    passed = part.through(inputs[rows.tolist()], answers.take(rows))
    scores = np.zeros((len(refused), passed.scores.shape[1]))
    scores[rows] = passed.scores
    shown = None
    if passed.shown is not None:
        shown = np.full((len(refused), passed.shown.shape[1]), NO_CLASS)
        shown[rows] = passed.shown
    then = refused.copy()
    then[rows] = passed.refused
    return Answers(scores, shown, passed.shows, then)
