"""Guards: what stands between a model's outputs and whoever asks.

    owner = Owner(outputs=..., input_shape=(64,), bounds=(0.0, 1.0), classes=10, key=secret, model="digits 3")
    guard = fitted("top5-rounded", owner)
    guard.answers(inputs, logits).scores        # [examples, classes]: what is shown in place of the softmax, 0 where withheld

A guard is no privacy guarantee unless its statement says of which ε, and one that is fitted on members reads them once more,
which the model's ε does not cover. It is made for one model by whoever owns it.

The same query gets the same answer, whatever else is asked with it and however often: what is drawn is drawn from a secret key
and the input (:mod:`dptrain.release.queries`), so that asking again averages nothing away. The key is made of the owner's
secret, the model's name, the whole text of the guard and the sensitivity, since noise that two models or two guards share is
none: that both answer the same, or do not, would be shown bare. Three limits of that:

* A query that differs in the last bit of one number is another query, with draws of its own. Whoever asks many near-identical
  queries averages over the draws as if nothing were keyed; a guard does not see it, a monitor may.
* A model's outputs differ in their last digits with the size of the batch that they are computed in, and a guard does not hide
  it. Where an answer changes in a step (rounding, rejection, the order of two nearly equal classes), a query within that
  distance of the step may get either answer.
* Another model, another guard or another secret draws afresh, so that a query asked there is one answer more.
"""

import hmac
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dptrain.errors import UserError
from dptrain.registry import GUARDS
from dptrain.release.parts import Part, needs_members, needs_model, parse
from dptrain.release.queries import draws

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
    "scores_of",
    "stated",
]

Logits = Float[np.ndarray, "examples classes"]
Scores = Float[np.ndarray, "examples classes"]

Shows = Literal["scores", "ranks", "label"]

NO_CLASS = -1
"""Where a query was refused."""


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
    model: str
    """What this model is called, and no other one under this key, such as a release's digest. A model that was trained on is
    another one."""
    members: Logits | None = None
    """The model's outputs on what it was trained on; None where that is not at hand, as on a server."""
    others: Logits | None = None
    """Its outputs on examples that were kept from it."""
    reads: Literal["numbers", "words"] = "numbers"
    """Whether inputs are measured, or are tokens or other numbers that name something."""
    sensitivity: float = 1.0
    """The most that one example more or less in training can change a score of the model by, whatever the input: 1 for a model
    of which nothing is known, 1/teachers for an :class:`~dptrain.release.teachers.Ensemble`. Scores that are no numbers
    count as even ones.

    Raises:
        UserError: it is not above 0 and at most 1, the key is empty, or the model has no name.
    """

    def __post_init__(self) -> None:
        if not 0 < self.sensitivity <= 1:
            raise UserError(
                f"the sensitivity is {self.sensitivity}, and a score changes by at most 1; give a number above 0 and at most "
                "1, such as 1/teachers"
            )
        if not self.key:
            raise UserError("the guard's key is empty, so that anyone could repeat what it draws; give 32 secret bytes")
        if not self.model:
            raise UserError("the model has no name, so that two of them would share their noise; give one, such as its digest")

    def key_of(self, text: str) -> bytes:
        """What a guard of this text draws with, and no other guard or model under the owner's secret.

        Raises:
            ConfigError: the text says no guard.
        """
        parts = [[part.name, None if part.number is None else float(part.number)] for part in parse(text)]
        said = json.dumps([self.model, parts, float(self.sensitivity)])
        return hmac.digest(self.key, said.encode(), "sha256")


class Guard(ABC):
    """What is shown in place of a classifier's softmax."""

    keeps_labels: ClassVar[bool] = False
    """Whether every answer's best class is the model's own."""
    needs_members: ClassVar[bool] = False
    """Whether it is fitted on private examples, so that a server, which does not hold them, cannot make it."""
    draws: ClassVar[bool] = True
    """Whether an answer hangs on what is drawn for its query, and not on the model's scores alone."""
    answers_all: ClassVar[bool] = False
    """Whether it answers a query of which the model gives no numbers as if its scores were even. Every other guard refuses it,
    which says without noise that the model has no answer there."""

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
        """The same guard before another model of the same owner; itself, where it was not made of the model's answers.

        It draws what this one draws, so it is for comparing two models, and not for showing both.
        """
        return self

    def answers(self, inputs: Tensor, logits: Logits) -> Answers:
        """What is shown in place of a model's outputs."""
        scores, sound = scores_of(logits)
        answers = self.through(inputs, Answers.of(scores))
        return answers if self.answers_all else answers.refusing(~sound)


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

    @property
    def draws(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return any(part.draws for part in self.parts)

    @property
    def answers_all(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return any(part.answers_all for part in self.parts)

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
    owner = replace(owner, key=owner.key_of(text))
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


def scores_of(logits: Logits) -> tuple[Scores, Bool[np.ndarray, " examples"]]:
    """The softmax, and of which examples it is one; of the others scores are even. A logit of -inf is a score of 0."""
    scores = softmax(logits)
    sound = np.asarray(np.isfinite(scores).all(1))
    return np.where(sound[:, None], scores, 1.0 / max(1, scores.shape[1])), sound


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
