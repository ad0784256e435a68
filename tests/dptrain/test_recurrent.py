"""A recurrent layer's deposits are the gradients of one example at a time, and its outputs are those of the module."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from dptrain.clipping.recurrent import StepOutputs
from dptrain.clipping.rules import FORWARDS, Unfit
from tests.dptrain.stand_in import Deposits, Loss, check, one_at_a_time, rewritten_pass

KINDS: dict[str, Callable[..., nn.RNNBase]] = {
    "lstm": nn.LSTM,
    "projected": lambda *args, **options: nn.LSTM(*args, proj_size=2, **options),
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": lambda *args, **options: nn.RNN(*args, nonlinearity="relu", **options),
}
LENGTHS = torch.tensor([3, 6, 1, 4])


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(kind: str, *args: int, **options: Any) -> nn.RNNBase:
    torch.manual_seed(1)
    return KINDS[kind](*args, **options).double()


def reading(layout: str) -> Loss:
    """A loss on all outputs and last states, each weighed differently; initial states are given where the batch has them."""

    def loss(module: Any, batch: tuple[Tensor, ...]) -> Tensor:
        inputs, lengths, *given_states = batch
        states = [state.transpose(0, 1).contiguous() for state in given_states]
        given = None if not states else tuple(states) if isinstance(module, nn.LSTM) else states[0]
        if layout.startswith("packed"):
            turned = inputs if module.batch_first else inputs.transpose(0, 1)
            packed = pack_padded_sequence(turned, lengths, module.batch_first, enforce_sorted=layout == "packed by the user")
            output, last = module(packed, given)
            output, _ = pad_packed_sequence(output, batch_first=True, total_length=inputs.shape[1])
        elif module.batch_first:
            output, last = module(inputs, given)
        else:
            output, last = module(inputs.transpose(0, 1), given)
            output = output.transpose(0, 1)
        weights = torch.linspace(0.5, 1.5, output[0].numel(), dtype=output.dtype).view_as(output[0])
        losses = (weights * output.square()).flatten(1).sum(1) + output.flatten(1).sum(1)
        for number, state in enumerate(last if isinstance(last, tuple) else (last,)):
            losses = losses + (number + 1) * state.transpose(0, 1).flatten(1).sin().sum(1)
        return losses

    return loss


def initial_states(module: nn.RNNBase, examples: int) -> tuple[Tensor, ...]:
    count = module.num_layers * (2 if module.bidirectional else 1)
    hidden = rand(examples, count, module.proj_size or module.hidden_size, seed=5)
    return (hidden, rand(examples, count, module.hidden_size, seed=6)) if isinstance(module, nn.LSTM) else (hidden,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["batch first", "time first", "packed", "packed by the user"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (1, True), (2, False), (3, True)])
def test_it_equals_one_example_at_a_time(kind: str, layout: str, bias: bool, layers: int, bidirectional: bool):
    module = build(kind, 5, 4, layers, bias=bias, bidirectional=bidirectional, batch_first=layout != "time first")
    lengths = LENGTHS.sort(descending=True).values if layout == "packed by the user" else LENGTHS
    check(module, FORWARDS, reading(layout), (rand(4, 6, 5), lengths))
    check(module, FORWARDS, reading(layout), (rand(4, 6, 5), lengths, *initial_states(module, 4)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_outputs_are_the_modules_own(kind: str, dtype: torch.dtype, batch_first: bool, packed: bool):
    module = build(kind, 5, 7, 2, bidirectional=True, batch_first=batch_first).to(dtype)
    values = rand(4, 6, 5).to(dtype) if batch_first else rand(6, 4, 5).to(dtype)
    inputs = pack_padded_sequence(values, LENGTHS, batch_first, enforce_sorted=False) if packed else values
    mine = FORWARDS[type(module)](module, (inputs,), {}, Deposits(frozenset()))
    theirs = module(inputs)
    states = [each if isinstance(each, tuple) else (each,) for each in (mine[1], theirs[1])]
    pairs = [*zip(*states, strict=True)]
    if packed:
        assert isinstance(mine[0], PackedSequence)
        for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
            assert torch.equal(getattr(mine[0], name), getattr(theirs[0], name))
        pairs.append((mine[0].data, theirs[0].data))
    else:
        assert mine[0].stride() == theirs[0].stride()
        pairs.append((mine[0], theirs[0]))
    for own, other in pairs:
        assert own.dtype == other.dtype
        torch.testing.assert_close(own, other, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)


@given(
    st.sampled_from(sorted(KINDS)),
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.integers(1, 6),
    st.integers(3, 9),
    st.integers(1, 2),
    st.booleans(),
    st.booleans(),
    st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_it_equals_one_example_at_a_time_for_any_sizes(
    kind: str, lengths: list[int], features: int, size: int, layers: int, bidirectional: bool, batch_first: bool, seed: int
):
    module = build(kind, features, size, layers, bidirectional=bidirectional, batch_first=batch_first)
    batch = rand(len(lengths), max(lengths), features, seed=seed), torch.tensor(lengths)
    check(module, FORWARDS, reading("packed"), batch)
    check(module, FORWARDS, reading("batch first"), batch)


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
@pytest.mark.parametrize("steps", [1, 3, 40])
def test_norms_agree_whichever_way_they_are_computed(kind: str, steps: int):
    """One step, few steps (products of inputs and of gates) and many steps (instantiated)."""
    module = build(kind, 12, 16, batch_first=True)
    found = check(module, FORWARDS, reading("batch first"), (rand(3, steps, 12), LENGTHS[:3]))
    for part in found.values():
        torch.testing.assert_close(part.squared_norms(), part.instantiate().squared_norms(), rtol=1e-10, atol=1e-300)


@given(st.integers(2, 40), st.integers(0, 1000), st.sampled_from([0.0, 1e-3, 1.0]))
@settings(max_examples=60, deadline=None)
def test_float32_norms_never_come_out_short(steps: int, seed: int, spread: float):
    """Sharp edge 19: steps that cancel leave little but rounding, and a norm that is too small would clip too little."""
    generator = torch.Generator().manual_seed(seed)
    same = torch.randn(3, 1, 64, generator=generator) + spread * torch.randn(3, steps, 64, generator=generator)
    signs = (-1.0) ** torch.arange(steps)[:, None]
    gates = signs * torch.randn(3, 1, 128, generator=generator) + spread * torch.randn(3, steps, 128, generator=generator)
    found = StepOutputs(gates).products(same, (128, 64)).squared_norms()
    exact = torch.bmm(gates.double().mT, same.double()).flatten(1).square().sum(1)
    terms = (gates.double().norm(dim=2) * same.double().norm(dim=2)).sum(1).square()
    assert bool((found >= exact * (1 - 1e-6)).all())
    assert bool((found <= exact * (1 + 1e-6) + 1e-5 * terms).all())


class Reader(nn.Module):
    """A weight before the layer, the layer twice, and a trainable initial state."""

    def __init__(self, kind: str):
        super().__init__()
        self.before = nn.Linear(5, 5)
        self.layer = KINDS[kind](5, 5, batch_first=True)
        self.start = nn.Parameter(torch.randn(1, 1, 5))

    def forward(self, inputs: Tensor) -> Tensor:
        start = self.start.expand(1, len(inputs), 5).contiguous()
        given = (start, start.tanh()) if isinstance(self.layer, nn.LSTM) else start
        output, last = self.layer(self.before(inputs), given)
        again, _ = self.layer(output[:, ::2], last)
        return again


def squares(model: Any, batch: tuple[Tensor, ...]) -> Tensor:
    output = model(batch[0])
    weights = torch.linspace(0.5, 1.5, output[0].numel(), dtype=output.dtype).view_as(output[0])
    return (weights * output.square()).flatten(1).sum(1) + output.flatten(1).sum(1)


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh", "relu"])
def test_a_layer_called_twice_adds_up(kind: str):
    torch.manual_seed(0)
    found = check(Reader(kind).double(), FORWARDS, squares, (rand(4, 6, 5),))
    assert len(found) == 4


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
def test_what_comes_before_gets_ordinary_gradients(kind: str):
    torch.manual_seed(0)
    model = Reader(kind).double()
    for value in model.layer.parameters():
        value.requires_grad_(False)
    earlier = [*model.before.parameters(), model.start]
    truth = torch.autograd.grad(squares(model, (rand(4, 6, 5),)).sum(), earlier)
    model.layer.forward = lambda *args: FORWARDS[type(model.layer)](model.layer, args, {}, Deposits(frozenset()))
    found = torch.autograd.grad(squares(model, (rand(4, 6, 5),)).sum(), earlier)
    for mine, theirs in zip(found, truth, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", ["weight_ih_l0", "weight_hh_l1", "bias_ih_l0_reverse", "bias_hh_l1_reverse"])
def test_only_trained_parameters_are_deposited(kind: str, frozen: str):
    module = build(kind, 5, 4, 2, bidirectional=True, batch_first=True)
    dict(module.named_parameters())[frozen].requires_grad_(False)
    found = check(module, FORWARDS, reading("packed"), (rand(4, 6, 5), LENGTHS))
    assert frozen not in found
    assert len(found) == sum(value.requires_grad for value in module.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_steps_past_an_examples_end_are_exactly_zero(kind: str):
    module = build(kind, 5, 4, 2, bidirectional=True, batch_first=True)
    inputs = rand(4, 6, 5)
    inputs[torch.arange(6) >= LENGTHS[:, None]] = float("nan")  # padding that packing leaves out
    found = check(module, FORWARDS, reading("packed"), (inputs, LENGTHS))
    for name, part in found.items():
        if name.startswith("weight"):
            outputs: Tensor = part.outputs  # pyright: ignore[reportAttributeAccessIssue]
            assert not bool(outputs[torch.arange(6) >= LENGTHS[:, None]].any())
            assert bool(outputs[torch.arange(6) < LENGTHS[:, None]].any())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["batch first", "packed"])
def test_a_non_finite_example_stays_alone(kind: str, layout: str):
    """Sharp edge 6: its own gradient is not finite, all others are what they were, and it can be left out exactly."""
    module = build(kind, 5, 4, bidirectional=True, batch_first=True)
    inputs = rand(4, 6, 5)
    truth = one_at_a_time(module, reading(layout), (inputs, LENGTHS))
    inputs[2, 0] = float("nan")
    found, _ = rewritten_pass(module, FORWARDS, reading(layout), (inputs, LENGTHS))
    kept = torch.tensor([True, True, False, True])
    for name, part in found.items():
        assert bool(torch.isfinite(part.squared_norms()[kept]).all())
        total = part.keep(kept).weighted_sum(torch.ones(4, dtype=torch.float64))
        torch.testing.assert_close(total, sum(truth[index][name] for index in (0, 1, 3)), rtol=1e-9, atol=1e-10)
    assert not bool(torch.isfinite(found["weight_ih_l0"].squared_norms()[2]))


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_between_layers_draws_what_the_module_draws(kind: str):
    module = build(kind, 5, 4, 3, dropout=0.4, bidirectional=True, batch_first=True)
    torch.manual_seed(3)
    theirs, _ = module(rand(4, 6, 5))
    torch.manual_seed(3)
    mine, _ = FORWARDS[type(module)](module, (rand(4, 6, 5),), {}, Deposits(frozenset()))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    check(module.eval(), FORWARDS, reading("packed"), (rand(4, 6, 5), LENGTHS))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_may_be_changed_in_place(kind: str):
    def loss(module: Any, batch: tuple[Tensor, ...]) -> Tensor:
        output, _ = module(batch[0])
        return output.mul_(2).sin_().flatten(1).sum(1)

    check(build(kind, 5, 4, batch_first=True), FORWARDS, loss, (rand(4, 6, 5),))


@pytest.mark.parametrize("used", ["outputs", "last state", "last cell"])
def test_any_of_the_outputs_may_be_left_unused(used: str):
    def loss(module: Any, batch: tuple[Tensor, ...]) -> Tensor:
        output, (hidden, cell) = module(batch[0])
        return (
            {"outputs": output, "last state": hidden.transpose(0, 1), "last cell": cell.transpose(0, 1)}[used].flatten(1).sum(1)
        )

    check(build("lstm", 5, 4, 2, bidirectional=True, batch_first=True), FORWARDS, loss, (rand(4, 6, 5),))


def test_a_second_walk_back_is_refused():
    module = build("lstm", 5, 4, batch_first=True)
    deposits = Deposits(frozenset())
    output, _ = FORWARDS[nn.LSTM](module, (rand(4, 6, 5),), {}, deposits)
    torch.autograd.grad(output.sum(), deposits.leaves, allow_unused=True, retain_graph=True)
    with pytest.raises(RuntimeError, match="run the forward pass again"):
        torch.autograd.grad(output.sum(), deposits.leaves, allow_unused=True)


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
@pytest.mark.parametrize("packed", [True, False])
def test_gradients_are_float32_under_autocast(kind: str, packed: bool):
    """Sharp edge 19."""
    module = build(kind, 5, 4, batch_first=True).float()
    inputs = rand(4, 6, 5).float()
    given = pack_padded_sequence(inputs, LENGTHS, True, False) if packed else inputs
    deposits = Deposits(frozenset(key for key, _ in module.named_parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = FORWARDS[type(module)](module, (given,), {}, deposits)
        values = output.data if packed else output
        torch.autograd.grad(values.sum(), deposits.leaves, allow_unused=True)
    assert values.dtype == torch.bfloat16
    assert len(deposits.found) == 4
    assert all(part.weighted_sum(torch.ones(4)).dtype == torch.float32 for part in deposits.found.values())


@pytest.mark.parametrize(
    ("inputs", "states", "reason"),
    [
        (rand(6, 5), None, "without a batch dimension"),
        (rand(4, 0, 5), None, "no steps"),
        (rand(0, 6, 5), None, "no examples"),
        (rand(4, 6, 5), rand(1, 3, 4), "states of shapes"),
    ],
)
def test_what_is_not_covered_is_refused(inputs: Tensor, states: Tensor | None, reason: str):
    with pytest.raises(Unfit, match=reason):
        FORWARDS[nn.GRU](build("gru", 5, 4, batch_first=True), (inputs, states), {}, Deposits(frozenset()))
