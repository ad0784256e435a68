"""Augmented views that have a name, so that a recipe can ask for them and another process can make them.

views = named_views("shift", 8)     # seven, since the first of the eight is the picture itself
views.of(inputs)                    # [7, examples, channels, height, width]
"""

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dptrain.augmentation import FURTHEST, Augment, Move, moves
from dptrain.errors import ConfigError
from dptrain.fleet.answers import Views


def moved(
    inputs: Float[Tensor, "examples channels height width"], move: Move
) -> Float[Tensor, "examples channels height width"]:
    """The pictures after a move, edges repeated."""
    down, right, mirrored = move
    height, width = inputs.shape[2:]
    padded = F.pad(inputs.flip(3) if mirrored else inputs, (FURTHEST,) * 4, mode="replicate")
    return padded[:, :, FURTHEST - down : FURTHEST - down + height, FURTHEST - right : FURTHEST - right + width]


@functools.cache
def named_views(augment: Augment, count: int) -> Views | None:
    """The first ``count`` moves without the picture itself, which an attack asks about anyway; None where there is only that.

    Raises:
        ConfigError: there are not so many of this kind.
    """
    known = moves(augment)
    if not 1 <= count <= len(known):
        raise ConfigError(f"{count} views of each picture are asked for, and {augment!r} has 1 to {len(known)}")
    if count == 1:
        return None
    chosen = known[1:count]
    return Views(f"{augment} {count}", lambda inputs: torch.stack([moved(inputs, move) for move in chosen]))


def by_name(name: str) -> Views | None:
    """The views, one and the same object, that :func:`named_views` gives this name; None where nothing there has it."""
    for augment in ("shift", "flip", "shift_flip"):
        kind, _, count = name.partition(" ")
        if kind == augment and count.isdecimal() and 1 < int(count) <= len(moves(augment)):
            return named_views(augment, int(count))
    return None
