"""The random numbers that a model may draw: who draws them, and how two passes can be given the same ones."""

import random
from typing import Any

import numpy as np
import torch
from torch import nn


class Draws(nn.Module):
    """A layer that draws random numbers for each example by itself in training, and none otherwise: a base class.

    By it the checks that compare an example alone with the same one in a batch know whom to switch out of training meanwhile,
    as they do with dropout. Such a layer has no weights.
    """


class RandomState:
    """What torch, numpy and ``random`` would draw next, as it is now."""

    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
        self._numpy: Any = np.random.get_state()  # noqa: NPY002  the stream that a model uses unasked
        self._python = random.getstate()

    def restore(self) -> None:
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        np.random.set_state(self._numpy)  # noqa: NPY002
        random.setstate(self._python)

    def drew_as(self, other: "RandomState") -> bool:
        """Whether torch and numpy have come as far in both. ``random`` is not asked: type checkers that look at one item of
        a list draw from it."""
        mine, theirs = self._numpy, other._numpy
        return (
            torch.equal(self._torch, other._torch)
            and len(self._cuda) == len(other._cuda)
            and all(map(torch.equal, self._cuda, other._cuda))
            and mine[2:] == theirs[2:]
            and np.array_equal(mine[1], theirs[1])
        )
