"""Views that have a name: a fixed list, the picture itself first, the same for the target, its shadows and other processes."""

import pytest
import torch

from dptrain.augmentation import Augment, moves
from dptrain.errors import ConfigError
from dptrain.fleet.views import by_name, moved, named_views


@pytest.mark.parametrize(("augment", "count"), [("shift", 25), ("flip", 2), ("shift_flip", 50)])
def test_moves_are_different_and_begin_with_the_picture_itself(augment: Augment, count: int):
    known = moves(augment)
    assert len(set(known)) == len(known) == count
    assert known[0] == (0, 0, False)
    lengths = [down**2 + right**2 for down, right, _ in known]
    assert lengths == sorted(lengths)


def test_a_move_is_what_it_says():
    picture = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert torch.equal(moved(picture, (0, 0, False)), picture)
    assert torch.equal(moved(picture, (0, 0, True)), picture.flip(3))
    down = moved(picture, (1, 0, False))[0, 0]
    assert torch.equal(down, picture[0, 0][[0, 0, 1]])
    left = moved(picture, (0, -2, False))[0, 0]
    assert torch.equal(left, picture[0, 0][:, [2, 3, 3, 3]])


def test_views_are_the_first_moves_without_the_picture_itself():
    pictures = torch.randn(5, 3, 6, 6)
    views = named_views("shift_flip", 4)
    assert views is not None
    made = views.of(pictures)
    assert made.shape == (3, 5, 3, 6, 6)
    for view, move in zip(made, moves("shift_flip")[1:4], strict=True):
        assert torch.equal(view, moved(pictures, move))
    assert named_views("shift", 1) is None
    with pytest.raises(ConfigError, match="1 to 2"):
        named_views("flip", 3)


def test_a_name_gives_the_same_views_back():
    names = set()
    for augment, count in (("shift", 25), ("flip", 2), ("shift_flip", 7), ("shift", 7)):
        views = named_views(augment, count)
        assert views is not None
        assert by_name(views.name) is views
        names.add(views.name)
    assert len(names) == 4
    for name in ("mirrored", "shift", "shift 1", "shift 26", "shift -3", "flip 2 2", ""):
        assert by_name(name) is None
