"""Augmentations of pictures as a fixed list of moves, the same for every picture. Imports no torch.

* ``shift``: moved by up to two pixels, edges repeated; 25 with the picture itself
* ``flip``: mirrored left to right; 2
* ``shift_flip``: both, each shift as it is and mirrored; 50

    >>> moves("shift")[:3]
    [(0, 0, False), (-1, 0, False), (0, -1, False)]
"""

from typing import Literal, get_args

from dptrain.errors import unknown_name

Augment = Literal["shift", "flip", "shift_flip"]

FURTHEST = 2
"""Pixels of the furthest shift."""

Move = tuple[int, int, bool]
"""Pixels down, pixels to the right, and whether the picture is mirrored first."""


def moves(augment: Augment) -> list[Move]:
    """All that there are of a kind: the picture itself first, then from the nearest shift on.

    Raises:
        ConfigError: there is no such kind.
    """
    if augment not in get_args(Augment):
        raise unknown_name("augmentation", augment, get_args(Augment))
    reach = (0,) if augment == "flip" else range(-FURTHEST, FURTHEST + 1)
    shifts = sorted(((down, right) for down in reach for right in reach), key=lambda at: (at[0] ** 2 + at[1] ** 2, at))
    return [(*shift, mirrored) for shift in shifts for mirrored in ((False,) if augment == "shift" else (False, True))]
