"""Rows of few columns repeat: who judges a class learns from those that nobody else has, or does not judge."""

import pytest
import torch

from dptrain import DataSet, draw
from evaluation.inversion.evaluator import hashes
from evaluation.jury import jury_of
from evaluation.membership import NotApplicable


def table(values: int) -> DataSet:
    """400 rows of one column that takes so many values."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(values, (400, 1), generator=generator) / values
    return DataSet.of(inputs, torch.arange(400) % 2, classes=2, bounds=(0.0, 1.0))


def test_a_judge_learns_from_rows_that_are_not_members_as_well():
    data = table(5000)
    split = draw(len(data))
    data.inputs[split.population[0]] = data.inputs[split.members[0]]  # of one row it is so by chance, and of another by hand
    judge: object = jury_of(data, split, 0).judge
    seen = judge.seen  # pyright: ignore[reportAttributeAccessIssue]
    assert not seen & hashes(data.inputs[split.members])
    assert len(seen) > 20


def test_where_all_rows_repeat_nobody_judges():
    data = table(5)
    with pytest.raises(NotApplicable, match="no independent judge"):
        jury_of(data, draw(len(data)), 0)
