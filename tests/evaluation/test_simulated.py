"""Whose answers can be made of whose: what is said is true of the answers themselves."""

import numpy as np
import pytest
import torch

from dptrain.release.guard import Answers, Owner, fitted
from evaluation.simulated import simulates

GUARDS = ("label_only", "labels1", "labels3", "labels5", "top1", "top3", "top5", "top5-top3", "rounded", "top5-rounded")
GUARDS += (
    "top3-rounded",
    "rounded-top3",
    "rounded-labels3",
    "temperature4",
    "temperature4-top3",
    "reject0.5",
    "top5-reject0.5",
)
CLASSES = 8


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ("", "label_only"),
        ("", "top5-rounded"),
        ("", "noisy_max8"),
        ("", "hamp"),
        ("top5", "label_only"),
        ("top5", "top5-rounded2"),
        ("top5", "top3-rounded2"),
        ("top5", "labels5"),
        ("top5-rounded", "top3-rounded"),
        ("top5-rounded", "labels5"),
        ("top5-rounded", "label_only"),
        ("labels5", "labels3"),
        ("hamp", "label_only"),
        ("memguard0.5", "label_only"),
        ("memguard0.5", "memguard0.5-top5"),
    ],
)
def test_less_can_be_made_of_more(own: str, other: str):
    assert simulates(own, other)
    assert simulates(own, own)
    assert not simulates(other, "")


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ("", "memguard0.5"),
        ("", "memguard0.5-label_only"),
        ("label_only", "labels5"),
        ("labels5", "top5"),
        ("top3", "top5"),
        ("top3", "labels5"),
        ("top5-top3", "labels5"),
        ("rounded", "label_only"),
        ("rounded", "top5-rounded"),
        ("rounded2", "rounded"),
        ("reject0.5", "label_only"),
        ("noisy_max8", "label_only"),
        ("noisy_max8", "noisy_max4"),
        ("", "somebody_elses"),
    ],
)
def test_more_cannot_be_made_of_less_nor_what_needs_members(own: str, other: str):
    assert not simulates(own, other)


def rows_of(found: Answers) -> list[bytes]:
    shown = np.full((len(found.scores), 1), 0) if found.shown is None else found.shown
    return [a.tobytes() + b.tobytes() for a, b in zip(found.scores, shown, strict=True)]


@pytest.mark.parametrize("own", GUARDS)
def test_what_is_said_to_follow_from_an_answer_is_the_same_wherever_that_answer_is(own: str):
    """Of many queries, two that get one answer behind the first guard get one behind the other."""
    generator = np.random.default_rng(0)
    logits = 1.5 * generator.integers(0, 3, size=(4000, CLASSES)) + 0.01 * np.arange(CLASSES)
    owner = Owner(lambda inputs: np.zeros((len(inputs), CLASSES)), (2,), (0.0, 1.0), CLASSES, b"secret", "a model")
    inputs = torch.zeros(len(logits), 2)
    mine = rows_of(fitted(own, owner).answers(inputs, logits))
    assert len(set(mine)) < len(mine)
    for other in (text for text in GUARDS if simulates(own, text)):
        theirs = rows_of(fitted(other, owner).answers(inputs, logits))
        assert len(set(zip(mine, theirs, strict=True))) == len(set(mine)), other
