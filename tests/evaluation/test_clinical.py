"""Which doses count as off, with intervals."""

import numpy as np
import pytest

from evaluation.clinical import clinical_cost, share_off
from evaluation.metrics import ScoreError


def test_a_dose_is_off_by_its_share_of_the_right_one():
    true = np.array([10.0, 10, 10, 10, 50])
    predicted = np.array([10.0, 12, 12.1, 7.9, 59])
    assert share_off(predicted, true, 0.2).value == pytest.approx(2 / 5)
    twenty, thirty_five = clinical_cost(predicted, true)
    assert (twenty.name, twenty.value) == ("off_by_more_than_20_percent", pytest.approx(2 / 5))
    assert (thirty_five.name, thirty_five.value) == ("off_by_more_than_35_percent", 0.0)


def test_the_interval_is_that_of_a_share():
    """Clopper–Pearson, 95%: none of 10 is at most 0.3085 (1 − 0.025^(1/10))."""
    measure = share_off(np.ones(10), np.ones(10), 0.2)
    assert (measure.low, measure.high) == (0.0, pytest.approx(1 - 0.025**0.1))


@pytest.mark.parametrize(
    ("predicted", "true"),
    [([1.0], [0.0]), ([np.nan], [1.0]), ([1.0, 2.0], [1.0]), ([], [])],
    ids=["zero", "nan", "shape", "none"],
)
def test_doses_that_cannot_be_compared_are_refused(predicted: list[float], true: list[float]):
    with pytest.raises(ScoreError):
        share_off(np.array(predicted), np.array(true), 0.2)
