"""The clipped sum: bounded per example, exact, and independent of how it is computed."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dptrain.clipping import Clipper, Clipping
from dptrain.errors import ProtocolError


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def small_model(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)


def examples(count: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(count, 5, generator=generator, dtype=dtype), torch.randint(3, (count,), generator=generator)


def one_at_a_time(model: nn.Module, batch: tuple[Tensor, Tensor], norm: float) -> dict[str, Tensor]:
    """The reference: a loop over examples with ordinary gradients."""
    total = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for index in range(len(batch[1])):
        one = (batch[0][index : index + 1], batch[1][index : index + 1])
        gradients = torch.autograd.grad(loss(model, one).sum(), list(model.parameters()))
        length = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        for name, gradient in zip(total, gradients, strict=True):
            total[name] += gradient * min(1.0, norm / length)
    return total


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients.values()])


@pytest.mark.parametrize("norm", [0.05, 0.5, 100.0])
def test_the_sum_equals_one_example_at_a_time(norm: float):
    model, batch = small_model(), examples(12)
    total = Clipper(model, loss, norm).sum([batch])
    torch.testing.assert_close(flat(total.gradients), flat(one_at_a_time(model, batch, norm)), rtol=2e-6, atol=1e-9)
    assert total.sensitivity == norm


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_result_does_not_depend_on_chunk_size(sizes: list[int]):
    """Sharp edge 9."""
    model, batch = small_model(), examples(sum(sizes))
    whole = Clipper(model, loss, 0.3).sum([batch])
    chunked = Clipper(model, loss, 0.3).sum(zip(batch[0].split(sizes), batch[1].split(sizes), strict=True))
    torch.testing.assert_close(flat(chunked.gradients), flat(whole.gradients), rtol=1e-10, atol=1e-12)
    assert chunked.counts.examples == whole.counts.examples == sum(sizes)


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-6, 1e4), st.floats(1e-3, 1e3), st.integers(0, 10_000))
def test_no_example_contributes_more_than_the_clipping_norm(scale: float, norm: float, seed: int):
    model = small_model(torch.float32)
    generator = torch.Generator().manual_seed(seed)
    one = (scale * torch.randn(1, 5, generator=generator), torch.tensor([seed % 3]))
    total = Clipper(model, loss, norm).sum([one])
    assert float(flat(total.gradients).double().norm()) <= norm


def test_adding_an_example_moves_the_sum_by_at_most_the_sensitivity():
    model, batch = small_model(), examples(9)
    clipper = Clipper(model, loss, 0.2)
    all_of_them, without = clipper.sum([batch]), clipper.sum([(batch[0][:-1], batch[1][:-1])])
    moved = float((flat(all_of_them.gradients) - flat(without.gradients)).norm())
    assert 0.19 < moved <= clipper.sensitivity


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e38])
def test_an_example_that_is_not_finite_contributes_nothing(poison: float):
    """Sharp edge 6."""
    model, batch = small_model(torch.float32), examples(6, torch.float32)
    poisoned = (batch[0].clone(), batch[1])
    poisoned[0][2] = poison
    total = Clipper(model, loss, 0.5).sum([poisoned])
    kept = [0, 1, 3, 4, 5]
    rest = Clipper(model, loss, 0.5).sum([(batch[0][kept], batch[1][kept])])
    assert bool(torch.isfinite(flat(total.gradients)).all())
    if not math.isfinite(poison):
        assert total.counts.non_finite == 1
        torch.testing.assert_close(flat(total.gradients), flat(rest.gradients))
    assert math.isfinite(total.counts.loss)


def test_an_empty_batch_is_a_sum_of_zeros():
    """Sharp edge 5."""
    total = Clipper(small_model(), loss, 0.5).sum([])
    assert float(flat(total.gradients).abs().max()) == 0.0
    assert total.sensitivity == 0.5


def test_an_infinite_norm_sums_ordinary_gradients():
    model, batch = small_model(), examples(7)
    total = Clipper(model, loss, math.inf).sum([batch])
    torch.testing.assert_close(flat(total.gradients), flat(one_at_a_time(model, batch, math.inf)))
    assert math.isinf(total.sensitivity)


def test_frozen_weights_are_left_out_and_tied_ones_counted_once():
    torch.manual_seed(0)
    first, second = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
    second.weight = first.weight
    first.bias.requires_grad_(False)
    model = nn.Sequential(first, second)
    batch = (torch.randn(5, 4, dtype=torch.float64), torch.randint(4, (5,)))
    total = Clipper(model, loss, 1e6).sum([batch])
    assert set(total.gradients) == {"0.weight", "1.bias"}
    expected = torch.autograd.grad(loss(model, batch).sum(), [first.weight, second.bias])
    torch.testing.assert_close(total.gradients["0.weight"], expected[0], rtol=1e-5, atol=1e-8)


def test_a_loss_that_averages_is_refused_with_the_fix():
    def averaged(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    for norm in (1.0, math.inf):
        with pytest.raises(ProtocolError, match="reduction='none'"):
            Clipper(small_model(), averaged, norm).sum([examples(4)])


def test_factors_are_zero_for_what_is_not_finite_and_one_for_what_is_short():
    norms = torch.tensor([[0.0, 0.5, 2.0, float("nan"), float("inf")]], dtype=torch.float64)
    factors, finite, long = Clipping(1.0).factors(norms.square(), torch.float32)
    assert finite.tolist() == [True, True, True, False, False]
    assert long.tolist() == [False, False, True, False, False]
    assert factors[0, :2].tolist() == [1.0, 1.0]
    assert float(factors[0, 2]) == pytest.approx(0.5, rel=1e-4)
    assert float(factors[0, 2]) * 2.0 < 1.0
    assert factors[0, 3:].tolist() == [0.0, 0.0]
