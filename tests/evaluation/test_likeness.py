"""How near pictures come to their class, beside how near that is without the model."""

import numpy as np
import pytest
import torch

from dptrain.data.dataset import DataSet, Others
from evaluation.likeness import NEARER_TO_MEMBERS, likeness, originals_of
from evaluation.result import Measure

CLASSES, EACH = 4, 50


def by_name(measures: tuple[Measure, ...]) -> dict[str, float]:
    return {measure.name: measure.value for measure in measures if measure.value is not None}


def numbers(others: Others | None = None) -> DataSet:
    """Four classes, each a number, lying sorted as in a folder of pictures: the first ones would all be of one class."""
    targets = torch.arange(CLASSES).repeat_interleave(EACH)
    inputs = targets.float()[:, None].repeat(1, 3)
    return DataSet("numbers", inputs, targets, tuple("abcd"), (-9.0, 9.0), kind="table", others=others)


def test_the_groups_of_a_pair_hold_as_many_of_each_class():
    data = numbers()
    members, held_out, public = (torch.arange(start, 200, 10) for start in (0, 1, 2))
    first, second, third = ((data.inputs[index], data.targets[index]) for index in (members, held_out[:-2], public[3:]))
    found = originals_of(data, first, second, third)
    for group in (found.private, found.public):
        assert group[:, 0].unique(return_counts=True)[1].tolist() == [2, 5, 5, 5]
    for places in found.drawn:
        for part, place in zip((first, second), places, strict=True):
            assert part[1][place].unique(return_counts=True)[1].tolist() == [5, 5, 5, 3]
    values = by_name(likeness(data.inputs[::EACH], found))
    assert values["distance_to_nearest_private"] == values["distance_to_nearest_public"] == 0.0


def test_of_people_as_many_public_faces_of_others_stand_beside_members():
    data = numbers(Others(torch.full((30, 3), -5.0), torch.arange(30) % 3))
    assert data.others is not None
    first, second = ((data.inputs[index], data.targets[index]) for index in (torch.arange(0, 200, 2), torch.arange(1, 200, 8)))
    found = originals_of(data, first, second, (data.others.inputs, data.others.groups))
    assert len(found.private) == len(found.public) == 30


def test_means_of_held_out_images_show_the_class_and_nothing_of_training():
    """They are nearer to members than to other people, though no member had a part in them."""
    generator = torch.Generator().manual_seed(0)
    data = numbers(Others(torch.full((100, 3), -5.0), torch.arange(100) % 4))
    assert data.others is not None
    noisy = data.inputs + torch.randn(data.inputs.shape, generator=generator) * 0.3
    even, odd = torch.arange(0, 200, 2), torch.arange(1, 200, 2)
    first, second = ((noisy[index], data.targets[index]) for index in (even, odd))
    found = originals_of(data, first, second, (data.others.inputs, data.others.groups))
    again = data.inputs + torch.randn(data.inputs.shape, generator=generator) * 0.3
    shown = torch.stack([again[data.targets == label].mean(0) for label in range(CLASSES)])
    of_others = {item.name: item for item in likeness(shown, found)}
    nearer = of_others[NEARER_TO_MEMBERS]
    assert nearer.low is not None
    assert nearer.high is not None
    assert nearer.low < 0 < nearer.high
    assert (of_others["distance_to_nearest_private"].value or 9) < (of_others["distance_to_nearest_public"].value or 0)
    copied = {item.name: item for item in likeness(first[0][::25], found)}
    assert (copied[NEARER_TO_MEMBERS].low or 0.0) > 0


def test_a_class_without_members_has_no_part_in_the_means():
    data = numbers()
    index = (data.targets != 2).nonzero()[:, 0]
    part = (data.inputs[index], data.targets[index])
    found = originals_of(data, part, part, (data.inputs, data.targets))
    pictures = data.inputs[::EACH].clone()
    pictures[2] = 9.0
    pictures[3] += 1.0
    values = by_name(likeness(pictures, found))
    assert values["distance_to_private_mean"] == pytest.approx(1 / 3)
    assert np.flatnonzero(found.known.numpy()).tolist() == [0, 1, 3]
