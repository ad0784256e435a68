"""Ways in which a wrong gradient once passed for a right one, or a right one for a wrong one."""

import math
import threading
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dptrain.clipping import Chunk, Clipper, Clipping, onepass
from dptrain.clipping.contributions import OuterProducts
from dptrain.clipping.onepass import OnePass
from dptrain.clipping.precise import in_float64, wide, widened
from dptrain.errors import PlanError, ProtocolError, UserError
from tests.dptrain.test_clipping import flat
from tests.dptrain.test_onepass import rand, squares


class Coupled(nn.Module):
    """Adds a little of the batch's mean to each example."""

    def __init__(self, share: float):
        super().__init__()
        self.share, self.layer = share, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + self.share * x.mean(0, keepdim=True) if self.share and len(x) > 1 else x)


class Conditional(nn.Module):
    """One example that is not finite blanks all others."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        return out if bool(torch.isfinite(out).all()) else out.nan_to_num() * 0


@pytest.mark.parametrize("build", [lambda: Coupled(2e-4), lambda: Coupled(1.0), Conditional])
@pytest.mark.parametrize("group", [1, 4])
def test_a_model_whose_examples_look_at_each_other_is_never_trusted(build: Callable[[], nn.Module], group: int):
    """Also where coupling is weak, where it begins with an odd example, and where the first rows are views of one example."""
    torch.manual_seed(0)
    engine = OnePass(build(), squares)
    inputs = torch.randn(8, 4).repeat_interleave(group, 0)
    assert engine((inputs,), group, torch.full((len(inputs),), 1 / group)) is None
    assert "depends on the other" in engine.reason or "one at a time" in engine.reason


def test_coupling_that_begins_after_steps_were_taken_ends_the_training(monkeypatch: pytest.MonkeyPatch):
    """A silent change to another method would leave the steps before with a false ε."""
    torch.manual_seed(0)
    model = Coupled(0.0)
    clipper = Clipper(model, squares, 1.0)
    batch = torch.randn(8, 4)
    clipper.sum([(batch,)])
    assert clipper.method == "one pass"
    model.share = 0.1
    monkeypatch.setattr(onepass, "AGAIN", 1)
    with pytest.raises(ProtocolError, match="no guarantee"):
        clipper.sum([(batch,)])


def cancelling(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(count, 4, 64, generator=generator)
    return torch.cat([base, -base + 0.02 * torch.randn(count, 4, 64, generator=generator)], 1)


def test_autocast_around_the_step_leaves_norms_in_float32(monkeypatch: pytest.MonkeyPatch):
    """Sharp edge 19: eight bits in a ghost norm let an example contribute six times C; also where nothing is compared."""
    monkeypatch.setattr(onepass, "HALF_TOLERANCE", 1e9)
    torch.manual_seed(0)
    model = nn.Linear(64, 48, bias=False)

    def loss(module: nn.Module, batch: tuple[Tensor]) -> Tensor:
        return module(batch[0]).float().flatten(1).sum(1) * 3

    inputs = cancelling(12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        clipper = Clipper(model, loss, 1.0)
        whole = flat(clipper.sum([(inputs,)]).gradients).double()
        part = OuterProducts(inputs, torch.ones(12, 8, 48), (48, 64))
        for index in range(12):
            kept = [i for i in range(12) if i != index]
            apart = whole - flat(clipper.sum([(inputs[kept],)]).gradients).double()
            assert float(apart.norm()) <= 1.0 + 1e-4
    assert bool((part.squared_norms() >= part.instantiate().squared_norms() * (1 - 1e-4)).all())
    assert clipper.method == "one pass"


def test_complex_weights_are_refused_before_anything_is_summed():
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.k = nn.Linear(4, 4), nn.Parameter(torch.randn(3, dtype=torch.cfloat))

        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.irfft(torch.fft.rfft(self.layer(x)) * self.k, 4)

    with pytest.raises(PlanError, match="complex64"):
        Clipper(Spectral(), squares, 1.0).sum([(torch.randn(5, 4),)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clipping_norm": math.nan}, "clipping_norm is nan"),
        ({"clipping_norm": -1.0}, "clipping_norm is -1"),
        ({"clipping_norm": 1.0, "rule": "automatic", "stability": 0.0}, "stability is 0"),
        ({"clipping_norm": 1.0, "relation": "replace-one"}, "did you mean 'replace_one'"),
    ],
)
def test_a_clipping_that_has_no_sensitivity_is_refused(arguments: dict[str, Any], message: str):
    with pytest.raises(PlanError, match=message):
        Clipping(**arguments)


def test_the_margin_is_that_of_the_coarsest_type():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
            self.layer = nn.Linear(50, 40)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.scale

    torch.manual_seed(0)
    model, inputs = Mixed(), torch.randn(20, 50)
    for index in range(20):
        total = Clipper(model, squares, 0.7).sum([(inputs[index : index + 1],)])
        assert float(torch.cat([value.double().flatten() for value in total.gradients.values()]).norm()) <= 0.7


def reads(module: nn.Module, batch: tuple[Tensor]) -> Tensor:
    out = module(batch[0])
    return (out[0] if isinstance(out, tuple) else out).square().flatten(1).sum(1)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_weight_that_is_computed_from_others_before_the_forward_steps_aside():
    torch.manual_seed(0)
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3))).double()
    clipper = Clipper(model, squares, 0.7)
    clipper.sum([(rand(5, 4),)])
    assert clipper.method.startswith("torch.func")


def test_a_gradient_inside_of_the_loss_is_not_mistaken_for_the_losses_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()

    def penalised(module: nn.Module, batch: tuple[Tensor]) -> Tensor:
        x = batch[0].clone().requires_grad_()
        out = module(x).sum()
        (slope,) = torch.autograd.grad(out, x, create_graph=True)
        return slope.square().sum(1)

    engine = OnePass(model, penalised)
    assert engine((rand(5, 4),)) is None
    assert engine.reason


def test_examples_that_require_a_gradient_are_examples_all_the_same():
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    clipper = Clipper(model, squares, 0.7)
    found = clipper.sum([(rand(5, 4).requires_grad_(),)])
    assert clipper.method == "one pass"
    torch.testing.assert_close(flat(found.gradients), flat(Clipper(model, squares, 0.7).sum([(rand(5, 4),)]).gradients))


def test_a_branch_without_gradients_does_not_hide_the_engine():
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                target = self.layer(-x)
            return self.layer(x) - target

    torch.manual_seed(0)
    model = Siamese().double()
    clipper = Clipper(model, squares, 1e6)
    found = clipper.sum([(rand(5, 4),)])
    assert clipper.method == "one pass"
    truth = torch.autograd.grad(squares(model, (rand(5, 4),)).sum(), [model.layer.weight])[0]
    torch.testing.assert_close(found.gradients["layer.weight"], truth, rtol=1e-9, atol=1e-9)


def test_long_sequences_keep_the_engine():
    """Ghost norms are enlarged by their rounding, which grows with the sequence: that is no sign of a wrong gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, 64), nn.Linear(64, 8))
    clipper = Clipper(model, squares, 1.0)
    clipper.sum([(torch.randint(50, (4, 1024)),)])
    assert clipper.method == "one pass"


def test_a_recurrent_layer_with_its_time_first_steps_aside():
    torch.manual_seed(0)
    engine = OnePass(nn.LSTM(4, 3).double(), reads)  # batch_first forgotten: it mixes examples
    assert engine((rand(5, 6, 4),)) is None
    assert engine.reason


def test_a_batch_of_one_group_is_served_where_its_kind_was_proved():
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    clipper = Clipper(model, squares, 0.7)
    clipper.sum([(rand(8, 4),)])
    calls = []
    clipper._per_example = lambda *args: calls.append(args)  # pyright: ignore[reportAttributeAccessIssue]
    clipper.sum([Chunk((rand(1, 4),))])
    assert calls == []


def test_dropout_by_function_is_left_to_torch_func():
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(40, 30)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.layer(x), 0.5, training=True)

    torch.manual_seed(0)
    clipper = Clipper(Dropping(), squares, 0.7)
    clipper.sum([(torch.randn(6, 40),)])
    assert clipper.method.startswith("torch.func")


def fitted(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def test_gradients_of_rounding_alone_end_no_training(monkeypatch: pytest.MonkeyPatch):
    """Where p - 1 is a few units of 2⁻²⁴, no two ways to compute it agree; the clipped sum does not notice."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 64), nn.Tanh(), nn.Linear(64, 3))
    inputs = torch.randn(40, 300)
    clipper = Clipper(model, fitted, 1.0)
    clipper.sum([(inputs, model(inputs).argmax(1))])
    assert clipper.method == "one pass"
    with torch.no_grad():
        for parameter in model[2].parameters():
            parameter.mul_(60)
    targets = model(inputs).argmax(1)
    sure = torch.softmax(model(inputs), 1).amax(1) > 1 - 3e-6
    assert 10 < int(sure.sum()) < 40
    monkeypatch.setattr(onepass, "AGAIN", 1)
    for _ in range(10):
        clipper.sum([(inputs[sure], targets[sure])])
    assert clipper.method == "one pass"


class OnTheKink(nn.Module):
    """Pre-activations that are 0 but for the rounding of one way to add up."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs.shape[1], 200), nn.Linear(200, 1)
        with torch.no_grad():
            self.first.bias.zero_()
            self.first.bias -= self.first(inputs)[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


def test_an_activation_that_rounding_pushes_over_a_kink_is_no_coupling(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    inputs = torch.randn(1000).expand(32, -1).contiguous()
    model = OnTheKink(inputs)
    engine = OnePass(model, lambda module, batch: module(batch[0])[:, 0])
    assert engine((inputs,)) is not None, engine.reason
    monkeypatch.setattr(onepass, "widened", lambda value: value)
    monkeypatch.setattr(onepass, "in_float64", lambda model: nullcontext())
    monkeypatch.setattr(onepass, "wide", lambda loss: loss)
    engine = OnePass(model, lambda module, batch: module(batch[0])[:, 0])
    assert engine((inputs,)) is None  # what would have been said without
    assert "one at a time" in engine.reason


def test_float64_reaches_what_the_loss_brings_along_and_what_asks_for_less():
    torch.manual_seed(0)
    model, weights = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)), torch.rand(3)

    def loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        scores = module(batch[0]).to(torch.float32).float() + torch.zeros(3)
        return F.cross_entropy(scores, batch[1], weights, reduction="none")

    batch = (torch.randn(6, 5), torch.randint(3, (6,)))
    before = dict(model.named_parameters())
    with in_float64(model):
        found = wide(loss)(model, widened(batch))
        exact = F.cross_entropy(model(batch[0].double()), batch[1], weights.double(), reduction="none")
    assert all(value is before[name] for name, value in model.named_parameters())
    assert found.dtype == torch.float64
    assert torch.equal(found, exact)
    assert loss(model, batch).dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in model.parameters())


def test_a_norm_shorter_than_what_goes_into_the_sum_is_wrong(monkeypatch: pytest.MonkeyPatch):
    """Whatever float64 would say: the bound C rests on it."""
    torch.manual_seed(0)
    monkeypatch.setattr(OuterProducts, "squared_norms", lambda self: torch.full((self.examples,), 1e-9, dtype=torch.float64))
    engine = OnePass(nn.Linear(4, 3), lambda module, batch: module(batch[0]).sum(1), floor=1.0)
    assert engine((torch.randn(6, 4),)) is None
    assert "not those of its per-example gradients" in engine.reason


def test_gradients_whose_squares_underflow_end_no_training(monkeypatch: pytest.MonkeyPatch):
    """p of all other classes at 1e-25, and p - 1 exactly 0: the gradient is there and its norm is not."""
    torch.manual_seed(0)
    model = nn.Linear(30, 3)
    monkeypatch.setattr(onepass, "AGAIN", 1)
    inputs = torch.randn(20, 30)
    clipper = Clipper(model, fitted, 1e-3)
    clipper.sum([(inputs, model(inputs).argmax(1))])
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([58.0, 0.0, 0.0]))
    for _ in range(5):
        clipper.sum([(inputs, torch.zeros(20, dtype=torch.long))])
    assert clipper.method == "one pass"


def largest_change(clipper: Clipper, batch: tuple[Tensor, ...], more: tuple[Tensor, ...]) -> float:
    """What one more example changes, over what is stated."""
    before = flat(clipper.sum([batch]).gradients).double().clone()
    after = flat(clipper.sum([tuple(torch.cat(pair) for pair in zip(batch, more, strict=True))]).gradients).double()
    return float((after - before).norm()) / clipper.sensitivity


def distances(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]).square().flatten(1).sum(1)


@pytest.mark.parametrize("rule", ["flat", "automatic"])
def test_a_gradient_whose_squares_underflow_is_clipped_all_the_same(rule: Any):
    """Factors 1e19 and 1e-23 of one product: each square, or its sum, is lost in float32, the gradient is not."""
    width = 1000
    model = nn.Linear(4, width, bias=False)
    nn.init.zeros_(model.weight)
    odd = torch.zeros(1, 4)
    odd[0, 0] = 1.8e19
    clipper = Clipper(model, distances, Clipping(1e-2, rule))
    batch = torch.randn(64, 4), torch.randn(64, width)
    assert largest_change(clipper, batch, (odd, torch.full((1, width), 1.25e-23))) <= 1


def test_the_same_over_positions():
    model = nn.Linear(300, 300, bias=False)
    nn.init.zeros_(model.weight)
    odd = torch.zeros(1, 40, 300)
    odd[..., 0] = 1.8e19
    clipper = Clipper(model, distances, Clipping(1e-2))
    batch = torch.randn(8, 40, 300), torch.randn(8, 40, 300)
    assert largest_change(clipper, batch, (odd, torch.full((1, 40, 300), 1.25e-23))) <= 1


@pytest.mark.parametrize(("bound", "divisor"), [(1.0, 1e4), (0.1, 1e5), (0.01, 5e4)])
def test_a_factor_too_small_for_its_type_counts_as_none(bound: float, divisor: float):
    """A denormal factor is rounded by up to half of itself, upwards too."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.9)
    clipper = Clipper(model, distances, Clipping(bound), divisor=divisor)
    batch = torch.randn(64, 1), torch.randn(64, 1)
    for size in torch.linspace(0.3, 1.2, 20):
        assert largest_change(clipper, batch, (torch.full((1, 1), 1e19 * float(size)), torch.zeros(1, 1))) <= 1


class StochasticDepth(nn.Module):
    """Skips a branch by a coin: one a row, or one a batch."""

    def __init__(self, by_row: bool) -> None:
        super().__init__()
        self.by_row, self.first, self.branch, self.last = by_row, nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        kept = (torch.rand(len(x) if self.by_row else 1, 1) < 0.9).float()
        hidden = self.first(x)
        return self.last(hidden + kept * torch.relu(self.branch(hidden)))


@pytest.mark.parametrize("by_row", [True, False])
def test_a_model_that_draws_random_numbers_is_not_accused(by_row: bool, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    monkeypatch.setattr(onepass, "AGAIN", 2)
    clipper = Clipper(StochasticDepth(by_row), fitted, 1.0)
    for size in (32, 33, 30, 45, 20, 60, 16, 32, 12):
        state = torch.get_rng_state()
        clipper.sum([(torch.randn(size, 10), torch.randint(3, (size,)))])
        assert not torch.equal(state, torch.get_rng_state())
    if by_row:
        assert "random numbers for each row" in clipper.method
    else:
        assert clipper.method == "one pass"


class Decay(nn.Module):
    """A learned rate over positions, of which there may be as many as examples."""

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.layer = nn.Parameter(torch.tensor(0.1)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.exp(-self.rate * torch.arange(x.shape[1]))
        return self.layer((x * weights[None, :, None]).sum(1))


@pytest.mark.parametrize("first", [32, 20])
def test_a_constant_as_long_as_a_batch_is_no_coupling(first: int):
    torch.manual_seed(0)
    clipper = Clipper(Decay(), fitted, 1.0)
    for size in (first, 33, 32, 31, 1, 32):
        batch = torch.randn(size, 32, 4), torch.randint(3, (size,))
        ours = flat(clipper.sum([batch]).gradients)
        parts = [flat(clipper.sum([tuple(part[i : i + 1] for part in batch)]).gradients) for i in range(size)]
        assert torch.allclose(ours, torch.stack(parts).sum(0), atol=1e-4)
    assert clipper.method == "one pass"


class Keeps(nn.Module):
    """Holds what no copy can be made of, and an activation of its latest pass."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.inner, self.lock, self.latest = OnTheKink(inputs), threading.Lock(), torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        self.latest = torch.relu(self.inner.first(x))
        return self.inner.second(self.latest)


@pytest.mark.parametrize("bound", [True, False])
def test_a_model_that_cannot_be_copied_is_looked_at_in_float64_too(bound: bool):
    """Also where the loss holds the model itself."""
    torch.manual_seed(0)
    inputs = torch.randn(1000).expand(32, -1).contiguous()
    model = Keeps(inputs)
    engine = OnePass(model, lambda module, batch: (model if bound else module)(batch[0])[:, 0])
    assert engine((inputs,)) is not None, engine.reason


@pytest.mark.parametrize("strength", [1e-4, 5e-4])
def test_a_penalty_inside_of_the_loss_is_not_lost(strength: float):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))

    def penalised(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return fitted(module, batch) + strength * torch.stack([value.square().sum() for value in module.parameters()]).sum()

    batch = torch.randn(32, 100), torch.randint(10, (32,))
    with_it, without = Clipper(model, penalised, 1.0), Clipper(model, fitted, 1.0)
    assert not torch.equal(flat(with_it.sum([batch]).gradients), flat(without.sum([batch]).gradients))
    assert with_it.method.startswith("torch.func")


def test_a_column_that_is_a_category_needs_no_numbers_out_of_range():
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.names, self.layer = nn.Embedding(7, 4), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.cat([self.names(x[:, 0].long()), x[:, 1:]], 1))

    clipper = Clipper(Table(), fitted, 1.0)
    clipper.sum([(torch.cat([torch.randint(7, (20, 1)).float(), torch.randn(20, 2)], 1), torch.randint(3, (20,)))])
    assert clipper.method == "one pass"


@pytest.mark.parametrize("marked_first", [False, True])
def test_a_token_that_marks_the_whole_batch_is_found_among_whole_numbers(marked_first: bool, monkeypatch: pytest.MonkeyPatch):
    """Also where the example that is drawn first is the one that holds it, and sees the same batch whatever is beside it."""

    class Marked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.names, self.layer = nn.Embedding(50, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.names(x).mean(1)) * (1 + 5e-4 * (x == 49).any())

    torch.manual_seed(0)
    tokens = torch.randint(49, (30, 6))
    tokens[3] = 49
    drawn = [3, *(index for index in range(30) if index != 3)] if marked_first else list(range(30))
    monkeypatch.setattr("dptrain.clipping.onepass._CHANCE", SimpleNamespace(sample=lambda *_: drawn, random=lambda: 1.0))
    engine = OnePass(Marked(), fitted, floor=1.0)
    engine((tokens, torch.zeros(30, dtype=torch.long)))
    assert "depends on the other" in engine.reason or "one at a time" in engine.reason


def test_a_loss_of_another_model_is_an_error_and_no_training_on_noise():
    other = nn.Linear(4, 3)
    for loss in (lambda module, batch: fitted(other, batch), lambda module, batch: fitted(module, batch).detach()):
        with pytest.raises(UserError, match="does not depend on any trainable weight"):
            Clipper(nn.Linear(4, 3), loss, 1.0).sum([(torch.randn(8, 4), torch.randint(3, (8,)))])
