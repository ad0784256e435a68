"""The one-pass engine equals one-example-at-a-time gradients, and steps aside wherever it would not."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dptrain.clipping import Clipper
from dptrain.clipping.clipped import MARGIN, squared_lengths
from dptrain.clipping.contributions import Instantiated, OuterProducts, Rows
from dptrain.clipping.onepass import OnePass
from dptrain.clipping.rules import RULES, register_rule


def squares(model: nn.Module, batch: Any) -> Tensor:
    """A loss that weighs every output differently, so that no gradient is a constant."""
    out = model(batch[0])
    weights = torch.linspace(0.5, 1.5, out[0].numel(), dtype=out.dtype).view_as(out[0])
    return (weights * out.square()).flatten(1).sum(1) + out.flatten(1).sum(1)


def one_at_a_time(model: nn.Module, inputs: Tensor, clipping_norm: float, loss: Callable = squares) -> dict[str, Tensor]:
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for example in inputs:
        gradients = torch.autograd.grad(loss(model, (example[None],)).sum(), list(parameters.values()), allow_unused=True)
        norm = torch.stack([value.norm() for value in gradients if value is not None]).norm()
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and bool(torch.isfinite(norm)):
                total[name] += gradient * min(1.0, clipping_norm / float(norm))
    return total


def check(model: nn.Module, inputs: Tensor, clipping_norm: float = 0.7, *, loss: Callable = squares, fast: bool = True) -> None:
    model = model.double()
    truth = one_at_a_time(model, inputs, clipping_norm, loss)
    scale = math.sqrt(sum(float(value.square().sum()) for value in truth.values()))
    for chunk in (len(inputs), 2):
        clipper = Clipper(model, loss, clipping_norm)
        found = clipper.sum([(part,) for part in inputs.split(chunk)]).gradients
        assert (clipper.method == "one pass") == fast, clipper.method
        apart = math.sqrt(sum(float((found[name] - value).square().sum()) for name, value in truth.items()))
        assert apart <= 1e-10 * scale
        if fast:
            norms = clipper._one_pass((inputs,)).norms()  # pyright: ignore[reportOptionalMemberAccess]
            for index, example in enumerate(inputs):
                values = [value for value in model.parameters() if value.requires_grad]
                alone = torch.autograd.grad(loss(model, (example[None],)).sum(), values, allow_unused=True)
                norm = torch.stack([value.norm() for value in alone if value is not None]).norm()
                assert float(norms[index]) == pytest.approx(float(norm), rel=1e-10)
    assert all(value.grad is None for value in model.parameters())


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.tanh(self.a(x))
        return x + self.b(x) + self.a(x)  # a is called twice


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(7, 5), nn.Linear(5, 7, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.table(x)))


class Custom(nn.Module):
    """A parameter that no layer owns."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Patches(nn.Module):
    """A class token, a positional table that is cut to length, a scale by its logarithm, a table for all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(rand(1, 1, 8, seed=1))
        self.positions = nn.Parameter(rand(1, 6, 8, seed=2))
        self.logarithm = nn.Parameter(rand(8, seed=3))
        self.mixing = nn.Parameter(rand(8, 5, seed=4))
        self.shift = nn.Parameter(torch.tensor(0.3))
        self.layer, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.positions[:, : x.shape[1]]
        x = x + torch.tanh(self.layer(self.norm(x))) * self.logarithm.exp() - self.shift
        return (x @ self.mixing)[:, 0]


class WeightNorm(nn.Module):
    """Its weight is computed from two parameters, by hand and by torch's own parametrisation."""

    def __init__(self) -> None:
        super().__init__()
        self.direction, self.length = nn.Parameter(rand(3, 4, seed=1)), nn.Parameter(rand(3, 1, seed=2))
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.length * self.direction / self.direction.norm(dim=1, keepdim=True)
        return self.layer(torch.tanh(F.linear(x, weight)))


class Doubled(nn.Linear):
    """A subclass computes something else than its base."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(2 * input) * 3


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "linear": (lambda: nn.Linear(4, 3), rand(5, 4)),
    "linear over positions": (lambda: nn.Linear(4, 3), rand(5, 2, 3, 4)),
    "ghost norm": (lambda: nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 20)), rand(5, 3, 40)),
    "two layers": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3, bias=False)), rand(5, 4)),
    "in place": (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)), rand(5, 4)),
    "in place later": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)),
        rand(5, 4),
    ),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 2, dilation=2)),
        rand(5, 2, 9, 9),
    ),
    "grouped convolution": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1, bias=False), rand(5, 4, 6, 6)),
    "1d convolution": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=2), rand(5, 3, 11)),
    "3d convolution": (lambda: nn.Conv3d(2, 3, 2, padding=1), rand(5, 2, 4, 4, 4)),
    "group norm": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh()), rand(5, 2, 6, 6)),
    "group norm of vectors": (lambda: nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(3, 6)), rand(5, 4)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2)), rand(5, 3, 4)),
    "layer norm, no bias": (lambda: nn.LayerNorm([3, 4], bias=False), rand(5, 3, 4)),
    "rms norm": (lambda: nn.Sequential(nn.Linear(4, 6), nn.RMSNorm(6)), rand(5, 3, 4)),
    "instance norm": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.InstanceNorm1d(4, affine=True)), rand(5, 2, 8)),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(7, 5, padding_idx=2), nn.Tanh(), nn.Linear(5, 3)),
        torch.tensor([[1, 1, 2], [3, 4, 3], [6, 6, 6], [0, 2, 5]]),
    ),
    "called twice": (Residual, rand(5, 4)),
    "a parameter of its own": (lambda: nn.Sequential(nn.Linear(4, 4), Custom()), rand(5, 4)),
    "a subclass": (lambda: Doubled(4, 3), rand(5, 4)),
    "reflected": (lambda: nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), rand(4, 1, 5, 5)),
    "same": (lambda: nn.Conv2d(2, 3, (2, 3), padding="same", dilation=(2, 1)), rand(4, 2, 5, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), rand(4, 2, 4, 5)),
    "transposed, groups": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2, dilation=2), rand(4, 4, 5)),
    "transposed, 3d": (lambda: nn.ConvTranspose3d(2, 3, 2, stride=(1, 2, 1), bias=False), rand(3, 2, 3, 3, 3)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), rand(4, 4, 6, 6)),
    "rows of a kernel": (lambda: nn.Conv2d(2, 4, 4, stride=2, padding=1), rand(4, 2, 9, 8)),
    "bags": (
        lambda: nn.Sequential(nn.EmbeddingBag(7, 5, mode="mean", padding_idx=2), nn.Tanh(), nn.Linear(5, 3)),
        torch.tensor([[1, 1, 2], [3, 4, 3], [6, 6, 6], [2, 2, 2]]),
    ),
    "vision transformer": (Patches, rand(4, 3, 8)),
    "computed weights": (WeightNorm, rand(5, 4)),
    "tied": (Tied, torch.tensor([[1, 1, 2], [3, 4, 3], [6, 6, 6], [0, 2, 5]])),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("clipping_norm", [0.7, 1e6])
def test_it_equals_one_example_at_a_time(name: str, clipping_norm: float):
    torch.manual_seed(0)
    build, inputs = MODELS[name]
    check(build(), inputs, clipping_norm)


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 3), width=st.integers(1, 3), kernel=st.integers(1, 3), stride=st.integers(1, 3),
    padding=st.integers(0, 2), dilation=st.integers(1, 2), groups=st.integers(1, 2), size=st.integers(5, 8),
    dimensions=st.integers(1, 3), bias=st.booleans(),
)  # fmt: skip
def test_convolutions_of_any_geometry(channels, width, kernel, stride, padding, dilation, groups, size, dimensions, bias):
    torch.manual_seed(0)
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    layer = kind(channels * groups, width * groups, kernel, stride, padding, dilation, groups, bias)
    check(layer, rand(3, channels * groups, *(size,) * dimensions))


def test_frozen_and_unused_weights_are_left_alone():
    torch.manual_seed(0)

    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.used, self.unused = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 3)
            self.frozen.requires_grad_(False)
            self.used.bias.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(torch.tanh(self.frozen(x)))

    model = Partly()
    check(model, rand(5, 4))
    assert not model.frozen.weight.requires_grad
    assert not model.used.bias.requires_grad


def test_a_low_rank_adapter():
    torch.manual_seed(0)

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.down, self.up = nn.Linear(6, 5), nn.Linear(6, 2, bias=False), nn.Linear(2, 5, bias=False)
            self.base.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + self.up(self.down(x))

    check(nn.Sequential(Adapted(), nn.Tanh(), nn.Linear(5, 3)), rand(5, 6))


class Elsewhere(nn.Module):
    """Uses a layer's weight outside of the layer, which no hook sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + F.linear(x, self.layer.weight)


class TimeFirst(nn.Module):
    """Its layer sees ``[time, examples, features]``, with as many times as there are examples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


class Sorted(nn.Module):
    """Uses a parameter in a function that is not followed."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fmax(x, self.scale)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (Elsewhere, (5, 4)),
        (TimeFirst, (5, 5, 4)),
        (TimeFirst, (3, 3, 4)),
        (Sorted, (5, 4)),
    ],
)
def test_it_steps_aside_where_it_would_be_wrong(build: Callable[[], nn.Module], shape: tuple[int, ...]):
    """And torch.func, which knows nothing of layers, gives the right sum."""
    torch.manual_seed(0)
    check(build(), rand(*shape), fast=False)


def test_a_model_that_looks_across_examples_is_not_trusted():
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x - x.mean(0, keepdim=True) * (len(x) > 1))

    torch.manual_seed(0)
    engine = OnePass(Mixing(), squares)
    assert engine((torch.randn(5, 4),)) is None
    assert "one at a time" in engine.reason


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_example_contributes_nothing(value: float):
    """Sharp edge 6, with the new engine."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(32, 3)).double()
    inputs = rand(6, 1, 6, 6)
    clipper = Clipper(model, squares, 0.5)
    without = clipper.sum([(inputs[:5],)])
    inputs[5, 0, 2, 2] = value
    found = clipper.sum([(inputs,)])
    assert clipper.method == "one pass"
    assert found.counts.non_finite == 1
    for name, gradient in without.gradients.items():
        assert torch.allclose(found.gradients[name], gradient, rtol=1e-12, atol=1e-12)


def test_cancelling_positions_do_not_slip_under_the_norm():
    """Where an example's positions cancel, the ghost norm's rounding is added: never a norm that is too small."""
    generator = torch.Generator().manual_seed(0)
    base, out = torch.randn(50, 1, 300, generator=generator), torch.randn(50, 1, 200, generator=generator)
    inputs = torch.cat([base, base], 1) + 1e-5 * torch.randn(50, 2, 300, generator=generator)
    part = OuterProducts(inputs, torch.cat([out, -out], 1), (200, 300))
    truth = torch.bmm(part.outputs.double().mT, part.inputs.double()).flatten(1).norm(dim=1)
    assert bool((part.squared_norms().sqrt() >= truth * (1 - 1e-6)).all())
    rows = Rows(torch.zeros(50, 2, dtype=torch.long), torch.cat([out, -out * (1 + 1e-6)], 1), 3)
    truth = rows.outputs.double().sum(1).norm(dim=1)
    assert bool((rows.squared_norms().sqrt() >= truth * (1 - 1e-6)).all())


def test_weights_are_trainable_again_after_an_error():
    model = nn.Linear(4, 3)

    def breaks(module: nn.Module, batch: Any) -> Tensor:
        module(batch[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        OnePass(model, breaks)((torch.ones(3, 4),))
    assert model.weight.requires_grad
    assert not model._forward_hooks


def test_users_register_rules_of_their_own():
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5, 3.0]))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    @register_rule(Scale)
    def scale(module, calls):
        return {"weight": Instantiated(torch.stack([(a * g).reshape(len(a), -1, 4).sum(1) for a, g in calls]).sum(0))}

    try:
        check(nn.Sequential(nn.Linear(4, 4), Scale()), rand(5, 4))
    finally:
        del RULES[Scale]


def test_dropout_does_not_hide_the_engine():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    clipper = Clipper(model, squares, 1.0)
    clipper.sum([(torch.randn(6, 4),)])
    assert clipper.method == "one pass"
    assert model[1].training


@pytest.mark.parametrize("count", [3, 127, 128, 1000, 4096, 100_003])
def test_lengths_in_blocks_are_as_exact_as_the_margin_allows(count: int):
    """One value far above the others, and the others adding up to as much: what a long float32 sum would lose."""
    values = torch.randn(4, count, generator=torch.Generator().manual_seed(count))
    values[1, 0] = 1e4 * count**0.5
    values[2] = 0.1
    values[3] = 1e-12
    truth = values.double().square().sum(1).sqrt()
    found = squared_lengths(values).sqrt()
    assert bool(((found - truth).abs() <= truth * (1 - MARGIN[torch.float32]) / 2).all())
    values[0, count // 2] = math.nan
    assert torch.isfinite(squared_lengths(values)).tolist() == [False, True, True, True]


def test_a_parameter_that_becomes_trainable_later_is_noticed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Custom()).double()
    model[1].requires_grad_(False)
    clipper = Clipper(model, squares, 0.7)
    assert set(clipper.sum([(rand(5, 4),)]).gradients) == {"0.weight", "0.bias"}
    model[1].requires_grad_(True)
    found = clipper.sum([(rand(5, 4),)]).gradients
    truth = one_at_a_time(model, rand(5, 4), 0.7)
    assert torch.allclose(found["1.scale"], truth["1.scale"], rtol=1e-10)


def test_a_forward_that_somebody_put_in_place_is_neither_bypassed_nor_lost():
    torch.manual_seed(0)
    model = nn.Sequential(nn.LSTM(4, 3, batch_first=True)).double()
    inner = model[0].forward
    model[0].forward = patched = lambda x: inner(2 * x)

    def loss(module: nn.Module, batch: Any) -> Tensor:
        return module(batch[0])[0].square().flatten(1).sum(1)

    engine = OnePass(model, loss)
    assert engine((rand(3, 5, 4),)) is None
    assert "somebody put in its place" in engine.reason
    assert model[0].forward is patched


def test_what_was_measured_for_one_model_serves_the_next():
    generator = torch.Generator().manual_seed(0)
    batch = (torch.randn(6, 40, 30, generator=generator),)
    clippers = [Clipper(nn.Sequential(nn.Linear(30, 50), nn.Tanh(), nn.Linear(50, 41)), squares, 1.0) for _ in range(2)]
    clippers[0].sum([batch])
    known = dict(clippers[0].choice.known())
    assert any(key[0][:4] == ("products", 40, 30, 50) for key in known)  # pyright: ignore[reportIndexIssue]
    clippers[1].sum([batch])
    assert clippers[1].choice.known() == known
