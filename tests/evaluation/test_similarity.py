"""Structural similarity against answers that follow from its formula."""

import pytest
import torch
from torch import Tensor

from dptrain.errors import DataError
from evaluation.similarity import structural_similarity


def images(count: int = 3, size: int = 20) -> Tensor:
    return torch.rand(count, 2, size, size, generator=torch.Generator().manual_seed(count))


def test_an_image_is_wholly_similar_to_itself_and_to_nothing_else():
    one = images()
    assert structural_similarity(one, one, value_range=1.0) == pytest.approx([1.0] * 3, abs=1e-12)
    assert (structural_similarity(one, one.flip(-1), value_range=1.0) < 0.5).all()


def test_it_is_symmetric():
    one, other = images(3), images(3).flip(0)
    there = structural_similarity(one, other, value_range=1.0)
    assert there == pytest.approx(structural_similarity(other, one, value_range=1.0).tolist(), abs=1e-12)


def test_flat_images_differ_in_luminance_alone():
    flat = torch.ones(1, 1, 15, 15, dtype=torch.float64)
    c1 = 0.01**2
    expected = (2 * 0.2 * 0.7 + c1) / (0.2**2 + 0.7**2 + c1)
    assert structural_similarity(0.2 * flat, 0.7 * flat, value_range=1.0).item() == pytest.approx(expected, abs=1e-9)


def test_a_constant_shift_leaves_structure_as_it_is():
    """One window only, so that the formula's luminance term is that of two weighted means."""
    one = images(1, 11)[:, :1]
    offsets = torch.arange(11.0, dtype=torch.float64) - 5
    weights = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / 4.5)
    mean = float((one[0, 0].double() * weights).sum() / weights.sum())
    expected = (2 * mean * (mean + 0.3) + 1e-4) / (mean**2 + (mean + 0.3) ** 2 + 1e-4)
    assert structural_similarity(one, one + 0.3, value_range=1.0).item() == pytest.approx(expected, abs=1e-6)


def test_a_negative_is_as_dissimilar_as_can_be_and_noise_is_nothing():
    one = 0.5 + 0.4 * torch.randn(1, 1, 60, 60, generator=torch.Generator().manual_seed(0))
    other = 0.5 + 0.4 * torch.randn(1, 1, 60, 60, generator=torch.Generator().manual_seed(1))
    assert structural_similarity(one, 1 - one, value_range=1.0).item() < -0.7
    assert abs(structural_similarity(one, other, value_range=1.0).item()) < 0.05


def test_the_unit_of_pixels_does_not_matter():
    one, other = images(2), images(2).flip(0)
    bytes_ = structural_similarity(255 * one, 255 * other, value_range=255.0)
    assert bytes_ == pytest.approx(structural_similarity(one, other, value_range=1.0).tolist(), abs=1e-6)


def test_images_smaller_than_the_window_are_refused_with_the_window_that_fits():
    with pytest.raises(DataError, match=r"20 × 20 pixels and the window 21.*at most 20"):
        structural_similarity(images(), images(), value_range=1.0, window=21)


@pytest.mark.parametrize(("pixels", "named"), [(9, 7), (6, 5), (5, 5), (1, 1)])
def test_the_window_that_is_named_for_small_images_fits_them(pixels: int, named: int):
    image = torch.rand(1, 1, pixels, pixels)
    with pytest.raises(DataError, match=f"such as window={named}$"):
        structural_similarity(image, image, value_range=1.0)
    assert structural_similarity(image, image, value_range=1.0, window=named).item() == pytest.approx(1.0)
