"""Scores of every class, from what a guard shows of them.

An attacker who knows the guard fills in what is withheld by the best that its text allows without further knowledge:

| shown | a class that is shown | a class that is withheld |
|---|---|---|
| scores of all | its score | |
| scores of k classes | its score | an even share of what is missing to 1 |
| k classes in order | C + 1 − rank, of C classes, over the sum of all ranks' | an even share of what is missing to 1 |
| a label | 1 | 0 |
| nothing | | 1/C |

The weights of ranks are those of Borda (1781): they fall with the rank, and every class that is withheld stands below every one
that is shown. Rounded scores are divided by their sum; where all are rounded to 0, each class has an even share.
"""

import numpy as np
from jaxtyping import Float

from dptrain.release.guard import Answers


def completed(answers: Answers) -> Float[np.ndarray, "examples classes"]:
    """Numbers from 0 to 1 that sum to 1, an example."""
    shown = answers.scores if answers.shows != "ranks" else _by_rank(answers)
    classes = shown.shape[1]
    if answers.shown is not None and answers.shown.shape[1] < classes and answers.shows != "label":
        is_shown = np.zeros(shown.shape, dtype=bool)
        np.put_along_axis(is_shown, answers.shown, values=True, axis=1)
        missing = np.maximum(0.0, 1.0 - shown.sum(1, keepdims=True))
        shown = np.where(is_shown, shown, missing / (classes - answers.shown.shape[1]))
    shown = np.where(answers.refused[:, None], 0.0, shown)
    total = shown.sum(1, keepdims=True)
    return np.where(total > 0, shown / np.where(total > 0, total, 1.0), 1.0 / classes)


def _by_rank(answers: Answers) -> Float[np.ndarray, "examples classes"]:
    assert answers.shown is not None  # ranks are those of the classes that are shown
    classes = answers.scores.shape[1]
    weights = np.arange(classes, 0, -1)[: answers.shown.shape[1]] / (classes * (classes + 1) / 2)
    found = np.zeros_like(answers.scores)
    np.put_along_axis(found, answers.shown, np.broadcast_to(weights, answers.shown.shape), axis=1)
    return found
