"""The digits, and what every data set in memory promises."""

import pytest
import torch

from dptrain import data
from dptrain.data.dataset import DataSet
from dptrain.errors import DataError
from dptrain.recipe import DataConfig


def two(inputs: torch.Tensor, targets: list[int] | None = None, bounds: tuple[float, float] = (0.0, 1.0)) -> DataSet:
    labels = torch.tensor([0, 1] if targets is None else targets, dtype=torch.int64)
    return DataSet(name="two", inputs=inputs, targets=labels, classes=("no", "yes"), bounds=bounds)


def test_digits_are_scaled_by_public_constants():
    digits = data.load(DataConfig(name="digits"))
    assert digits.inputs.shape == (1797, 1, 8, 8)
    assert digits.inputs.dtype == torch.float32
    assert digits.input_shape == (1, 8, 8)
    assert digits.bounds == (-0.3, 0.7)
    assert float(digits.inputs.min()) == pytest.approx(-0.3)
    assert float(digits.inputs.max()) == pytest.approx(0.7)
    assert digits.classes == tuple("0123456789")
    assert digits.targets.bincount().min() > 170
    assert "CC BY 4.0" in digits.source


def test_fingerprint_is_of_the_content():
    first, second = data.load(DataConfig(name="digits")), data.load(DataConfig(name="digits"))
    assert first.fingerprint == second.fingerprint
    zeros = two(torch.zeros(2, 3))
    assert zeros.fingerprint == two(torch.zeros(2, 3)).fingerprint
    others = [two(torch.zeros(2, 3), [1, 0]), two(torch.ones(2, 3)), two(torch.zeros(2, 3, 1))]
    assert len({zeros.fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (torch.zeros(0, 3), [], "empty: it has 0 examples"),
        (torch.zeros(2, 0), [0, 1], "no inputs"),
        (torch.zeros(3, 2), [0, 1], "3 inputs and 2 labels"),
        (torch.tensor([[0.0], [torch.nan]]), [0, 1], "NaN or infinity in 1 examples, the first at index 1"),
        (torch.tensor([[torch.inf], [0.0]]), [0, 1], "index 0"),
        (torch.tensor([[0.0], [1.5]]), [0, 1], "outside its public bounds"),
        (torch.zeros(2, 1), [0, 2], "labels outside its 2 classes"),
        (torch.zeros(2, 1), [0, -1], "labels outside its 2 classes"),
    ],
)
def test_a_data_set_that_cannot_be_trained_on_is_refused(inputs: torch.Tensor, targets: list[int], message: str):
    with pytest.raises(DataError, match=message):
        two(inputs, targets)
