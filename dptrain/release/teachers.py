"""Teachers that vote: models of disjoint parts of the private data, so that one example changes one vote.

    parts = partition(split.members, 50, seed=0)
    ensemble = Ensemble([train(part) for part in parts])
    guard = fitted("noisy_max0.5", Owner(..., model="50 teachers, seed 0", sensitivity=ensemble.sensitivity))
    Guarded(ensemble, guard)(inputs)

PATE (Papernot, Abadi, Erlingsson, Goodfellow, Talwar 2017, "Semi-supervised Knowledge Transfer for Deep Learning from Private
Training Data"; Papernot et al. 2018, "Scalable Private Learning with PATE"), whose votes are here shown by report noisy max
with Gumbel noise (:mod:`dptrain.release.noisy_max`). PATE's account that depends on the votes, and its students, are not.

The bound on a vote share holds where a teacher is a function of its part and of nothing else private: its own batches, its own
stopping, and options that were not chosen by looking at all parts.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain.errors import UserError


class Ensemble(nn.Module):
    """Classifiers that have one vote each; an answer is the logarithm of each class's share of them, -inf of none.

    Raises:
        UserError: there are no teachers.
    """

    def __init__(self, teachers: Sequence[nn.Module]):
        super().__init__()
        if not teachers:
            raise UserError("an ensemble was given no teachers; give one model of each part of the data")
        self.teachers = nn.ModuleList(teachers)

    @property
    def sensitivity(self) -> float:
        """The most that one example more, less or other changes a vote share by: 1/teachers."""
        return 1.0 / len(self.teachers)

    def votes(self, inputs: Tensor) -> Int[Tensor, "examples classes"]:
        """How many teachers find each class the most probable; of equal ones the first."""
        with torch.no_grad():
            given = [teacher(inputs) for teacher in self.teachers]
        return sum(nn.functional.one_hot(logits.argmax(1), logits.shape[1]) for logits in given)  # pyright: ignore[reportReturnType]

    def forward(self, inputs: Tensor) -> Float[Tensor, "examples classes"]:
        return (self.votes(inputs).double() / len(self.teachers)).log()


def partition(indices: Int[np.ndarray, " examples"], teachers: int, seed: int) -> tuple[Int[np.ndarray, " part"], ...]:
    """Disjoint parts, in the order of the indices; where an example goes hangs on its index and the seed alone.

    One more or one less leaves the parts of all others as they were, which parts of equal size would not: so the parts differ
    in size as by independent draws. Where a person has several examples, give the persons' numbers and train on what is theirs.

    Raises:
        UserError: there is no teacher, an index comes twice, or a teacher would have nothing to learn from.
    """
    if teachers < 1:
        raise UserError(f"the number of teachers is {teachers}; give a whole number from 1 up, such as 50")
    if len(np.unique(indices)) != len(indices):
        raise UserError("an index comes twice, and an example must be in one part alone; give each index once")
    of = np.array([_teacher(int(index), teachers, seed) for index in indices], dtype=np.int64)
    parts = tuple(indices[of == teacher] for teacher in range(teachers))
    empty = sum(len(part) == 0 for part in parts)
    if empty:
        raise UserError(f"{empty} of {teachers} teachers would have none of the {len(indices)} examples; give fewer teachers")
    return parts


def _teacher(index: int, teachers: int, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed} {index}".encode(), digest_size=16, person=b"teachers").digest()
    return int.from_bytes(digest, "big") % teachers
