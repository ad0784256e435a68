"""What a model is worth: known answers, and numbers that come back as they were."""

import numpy as np
import pytest
import torch
from torch import nn

from dptrain.data.dataset import DataSet
from dptrain.data.values import Values
from evaluation.access import Access
from evaluation.metrics import ScoreError, mean, over_seeds
from evaluation.result import Measure
from evaluation.target import Target
from evaluation.utility import as_measures, as_numbers, of_values, utility, without_model

DOSE = Values("dose", "mg a week", (0.0, 400.0), scale="square_root")


def test_predictions_are_held_against_values_in_their_own_unit():
    """Off by 20% exactly, by 30% and by 40% of 10, 20 and 30."""
    within, off_20, off_35, error = of_values(np.array([12.0, 14.0, 42.0, 50.0]), np.array([10.0, 20.0, 30.0, 50.0]), DOSE)
    assert [item.value for item in (within, off_20, off_35, error)] == [0.5, 0.5, 0.25, pytest.approx((2 + 6 + 12) / 4)]
    assert (within.name, error.name) == ("within_20_percent", "mean_absolute_error")


def test_of_what_may_be_negative_no_share_of_the_value_is_taken():
    """Of a range of 50 degrees a tenth is 5."""
    warmth = Values("warmth", "°C", (-10.0, 40.0))
    near, error = of_values(np.array([0.0, 6.0, 4.9]), np.array([0.1, 0.0, 0.0]), warmth)
    assert (near.name, near.value) == ("within_a_tenth_of_the_range", pytest.approx(2 / 3))
    assert error.value == pytest.approx(11 / 3)


def test_a_model_that_predicts_a_value_is_measured_after_decoding():
    class Middle(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.new_zeros(len(inputs), 1)

    targets = torch.from_numpy(DOSE.encode(np.array([100.0, 110.0, 200.0]))).float()
    data = DataSet("doses", torch.zeros(3, 2), targets, (), (0.0, 1.0), value=DOSE)
    target = Target(Middle(), Access.SCORES, bounds=(0.0, 1.0), classes=0, kind="regression")
    found = {item.name: item.value for item in utility(target, data.inputs, targets, data)}
    assert found["within_20_percent"] == pytest.approx(2 / 3)
    assert found["mean_absolute_error"] == pytest.approx(110 / 3, rel=1e-4)
    median = {item.name: item.value for item in without_model(targets, data)}
    assert median["median_mean_absolute_error"] == pytest.approx(100 / 3, rel=1e-4)


@pytest.mark.parametrize("value", [DOSE, None])
def test_a_model_that_was_lost_in_training_is_not_a_safe_one(value: Values | None):
    class Lost(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.new_full((len(inputs), 1 if value else 3), float("nan"))

    targets = torch.zeros(4) if value else torch.tensor([0, 1, 2, 0])
    data = DataSet("lost", torch.zeros(4, 2), targets, () if value else ("a", "b", "c"), (0.0, 1.0), value=value)
    kind = "regression" if value else "classification"
    target = Target(Lost(), Access.WEIGHTS, bounds=(0.0, 1.0), classes=len(data.classes), kind=kind)
    with pytest.raises(ScoreError, match=r"hold NaN or infinity.*lower optimizer\.learning_rate"):
        utility(target, data.inputs, targets, data)


def test_measures_come_back_from_numbers_as_they_were():
    given = of_values(np.array([12.0, 14.0]), np.array([10.0, 20.0]), DOSE)
    assert as_measures(as_numbers(given)) == given
    bare = (Measure(name="mean_absolute_error", value=3.0),)
    assert as_measures(as_numbers(bare)) == bare


def test_the_mean_has_students_interval_and_seeds_of_no_share_may_exceed_one():
    found = mean(np.array([1.0, 2.0, 3.0, 4.0]), "error")
    assert (found.value, found.low) == (2.5, pytest.approx(2.5 - 3.1824 * 1.29099 / 2, abs=1e-3))
    several = over_seeds(
        [Measure(name="e", value=8.8, low=8.0, high=9.6), Measure(name="e", value=9.0, low=8.2, high=9.8)], "e", most=np.inf
    )
    assert several.high is not None
    assert several.high > 9.0
