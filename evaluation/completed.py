"""Scores of every class, from what a guard shows of them.

An attacker who knows the guard fills in what is withheld by the best that its text allows without further knowledge:

| shown | a class that is shown | a class that is withheld |
|---|---|---|
| scores of all | its score | |
| scores of k classes | its score, or the share of those withheld where that is more | an even share of what is missing to 1 |
| k classes in order | C + 1 − rank, of C classes, over the sum of all ranks' | an even share of what is missing to 1 |
| a label | 1 | 0 |
| nothing | | 1/C |

A class that is shown is no less probable than one that is withheld, and of two that are shown the first is the more probable
one. Where rounding has made scores small or equal, an even share alone would say the opposite: of .5, .3 and .0 the seven
classes that are withheld would have .03 each. So what is missing is poured over the least of the shown scores as well, to one
level (of these ten classes .025), and scores that are equal are told apart by :data:`TIE`.

The weights of ranks are those of Borda (1781): they fall with the rank, and every class that is withheld stands below every one
that is shown. Rounded scores are divided by their sum; where all are rounded to 0, each class has an even share.
"""

import numpy as np
from jaxtyping import Float

from dptrain.release.guard import Answers

TIE = 1e-12
"""Between two classes whose scores are shown equal and whose order is known."""


def completed(answers: Answers) -> Float[np.ndarray, "examples classes"]:
    """Numbers from 0 to 1 that sum to 1, an example."""
    scores = answers.scores if answers.shows != "ranks" else _by_rank(answers)
    if answers.shown is not None and answers.shows != "label":
        scores = scores.copy()
        kept = ~answers.refused
        scores[kept] = _filled(scores[kept], answers.shown[kept])
    scores = np.where(answers.refused[:, None], 0.0, scores)
    total = scores.sum(1, keepdims=True)
    return np.where(total > 0, scores / np.where(total > 0, total, 1.0), 1.0 / scores.shape[1])


def _by_rank(answers: Answers) -> Float[np.ndarray, "examples classes"]:
    assert answers.shown is not None  # ranks are those of the classes that are shown
    classes = answers.scores.shape[1]
    weights = np.arange(classes, 0, -1)[: answers.shown.shape[1]] / (classes * (classes + 1) / 2)
    found = np.zeros_like(answers.scores)
    np.put_along_axis(found, answers.shown, np.broadcast_to(weights, answers.shown.shape), axis=1)
    return found


def _filled(scores: Float[np.ndarray, "examples classes"], shown: np.ndarray) -> Float[np.ndarray, "examples classes"]:
    """With what is missing poured over the classes that are withheld and the least of the others, and in the known order."""
    values = np.take_along_axis(scores, shown, axis=1)
    withheld = scores.shape[1] - shown.shape[1]
    missing = np.maximum(0.0, 1.0 - values.sum(1))
    level = _level(values, withheld, missing) if withheld else np.zeros(len(scores))
    values = np.maximum(values, level[:, None])
    order = np.column_stack([values, level]) if withheld else values
    tied = np.any(order[:, 1:] >= order[:, :-1], axis=1, keepdims=True)
    values += np.where(tied, TIE * np.arange(shown.shape[1], 0, -1), 0.0)
    found = np.tile(level[:, None], scores.shape[1])
    np.put_along_axis(found, shown, values, axis=1)
    return found


def _level(
    values: Float[np.ndarray, "examples shown"], withheld: int, missing: Float[np.ndarray, " examples"]
) -> Float[np.ndarray, " examples"]:
    """To which the missing part rises where it is poured over so many classes of 0 and those that are lower than it."""
    rising = np.sort(values, axis=1)
    level = missing / withheld
    for count in range(1, rising.shape[1] + 1):
        over = level > rising[:, count - 1]
        if not over.any():
            break
        level = np.where(over, (missing + rising[:, :count].sum(1)) / (withheld + count), level)
    return level
