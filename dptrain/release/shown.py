"""Guards that leave something out: classes, scores, decimals, answers.

| text | what is shown |
|---|---|
| ``label_only`` | the most probable class |
| ``top5`` | the 5 most probable classes with their scores |
| ``labels5`` | the 5 most probable classes in order, without scores |
| ``rounded2`` | scores to 2 decimals |
| ``temperature4`` | the softmax of the logits divided by 4 |
| ``reject0.6`` | nothing, where the highest score is below 0.6 |

Nothing is drawn and nothing is fitted, and none of it is a privacy guarantee.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dptrain.release.guard import Answers, Guard, Owner


@dataclass(frozen=True)
class LabelOnly(Guard):
    """The most probable class, and nothing else: its score is 1."""

    keeps_labels = True
    draws = False

    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        return Answers.ranked(answers.best(1), answers.scores.shape[1], "label")

    @classmethod
    def says(cls, number: float | None) -> str:
        return "Only the most probable class is shown. That is no privacy guarantee: labels alone tell members apart as well."

    def statement(self) -> str:
        return self.says(None)


@dataclass(frozen=True)
class Top(Guard):
    """The most probable classes with their scores."""

    count: int

    keeps_labels = True
    draws = False

    @classmethod
    def fit(cls, number: float | None, owner: Owner) -> "Top":
        return cls(int(number or 1))

    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        best = answers.best(self.count)
        scores = np.zeros_like(answers.scores)
        np.put_along_axis(scores, best, np.take_along_axis(answers.scores, best, axis=1), axis=1)
        return Answers(scores, best, answers.shows, answers.refused)

    @classmethod
    def says(cls, number: float | None) -> str:
        return (
            f"No more than the {number or 0:g} most probable classes are shown with their scores. That is no privacy "
            "guarantee: the scores of the best classes are most of what membership attacks read."
        )

    def statement(self) -> str:
        return self.says(self.count)


@dataclass(frozen=True)
class Labels(Guard):
    """The most probable classes in order, without scores."""

    count: int

    keeps_labels = True
    draws = False

    @classmethod
    def fit(cls, number: float | None, owner: Owner) -> "Labels":
        return cls(int(number or 1))

    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        return Answers.ranked(answers.best(self.count), answers.scores.shape[1], "ranks")

    @classmethod
    def says(cls, number: float | None) -> str:
        return (
            f"No more than the {number or 0:g} most probable classes are shown in order, without scores. That is no privacy "
            "guarantee: an order tells members apart as well."
        )

    def statement(self) -> str:
        return self.says(self.count)


@dataclass(frozen=True)
class Rounded(Guard):
    """Scores to some decimals, so that they need not sum to 1.

    Of classes that are shown in an order the best stays first. The others whose scores are now equal stand in the order of the
    classes, since which of them was more probable is what rounding withholds. Where all classes are shown there is no order but
    that of the scores, and of equal ones the first counts as best.
    """

    decimals: int

    draws = False

    @classmethod
    def fit(cls, number: float | None, owner: Owner) -> "Rounded":
        return cls(1 if number is None else int(number))

    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        scores, shown = np.round(answers.scores, self.decimals), answers.shown
        if shown is not None:
            others = np.sort(shown[:, 1:], axis=1)
            order = np.argsort(-np.take_along_axis(scores, others, axis=1), axis=1, kind="stable")
            shown = np.concatenate([shown[:, :1], np.take_along_axis(others, order, axis=1)], axis=1)
        return Answers(scores, shown, answers.shows, answers.refused)

    @classmethod
    def says(cls, number: float | None) -> str:
        return (
            f"Scores are rounded to {number or 0:g} decimals. That is no privacy guarantee: what rounding hides of one answer, "
            "answers to many inputs near it show."
        )

    def statement(self) -> str:
        return self.says(self.decimals)


@dataclass(frozen=True)
class Temperature(Guard):
    """The softmax of the logits divided by a temperature: scores^(1/T), normalised. Above 1 it flattens.

    A class whose logit is 745 or more below the highest has a score of 0 in float64, and keeps it.
    """

    temperature: float

    keeps_labels = True
    draws = False

    @classmethod
    def fit(cls, number: float | None, owner: Owner) -> "Temperature":
        return cls(1.0 if number is None else number)

    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        raised = (answers.scores / answers.scores.max(1, keepdims=True)) ** (1.0 / self.temperature)
        return Answers(raised / raised.sum(1, keepdims=True), answers.shown, answers.shows, answers.refused)

    @classmethod
    def says(cls, number: float | None) -> str:
        return (
            f"Logits are divided by {number or 0:g} before the softmax. That is no privacy guarantee: whoever knows or "
            "estimates the number undoes it."
        )

    def statement(self) -> str:
        return self.says(self.temperature)


@dataclass(frozen=True)
class Reject(Guard):
    """No answer where the highest score that is shown is below a threshold."""

    threshold: float

    draws = False

    @classmethod
    def fit(cls, number: float | None, owner: Owner) -> "Reject":
        return cls(number or 0.0)

    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        return answers.refusing(~(answers.scores.max(1) >= self.threshold))

    @classmethod
    def says(cls, number: float | None) -> str:
        return (
            f"A query whose highest score is below {number or 0:g} is not answered. That is no privacy guarantee: a refusal "
            "says that the model is unsure, which it is of non-members more often, and members are answered in full."
        )

    def statement(self) -> str:
        return self.says(self.threshold)
