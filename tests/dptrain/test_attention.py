"""An attention's deposits are the gradients of one example at a time, and its outputs are those of the module."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dptrain.clipping.attention import Stacked
from dptrain.clipping.rules import FORWARDS, Unfit
from tests.dptrain.stand_in import Deposits, Loss, check, one_at_a_time, rewritten_pass

EXAMPLES, TARGETS, SOURCES, SIZE, HEADS = 4, 3, 5, 8, 2


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(**options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(1)
    module = nn.MultiheadAttention(SIZE, HEADS, **options).double()
    for value in module.parameters():  # biases start at zero, which would hide what is wrong with them
        nn.init.normal_(value, std=0.4)
    return module


def padding(sources: int = SOURCES) -> Tensor:
    """Boolean, a different number of positions left out for each example."""
    return torch.arange(sources) >= torch.tensor([sources, 1, max(sources - 1, 1), max(sources - 2, 1)])[:, None]


def attending(kind: str, **options: Any) -> Loss:
    """``kind``: who looks at whom. A batch is query, key, value, and masks by example after these."""

    def loss(module: Any, batch: tuple[Tensor, ...]) -> Tensor:
        query, key, value, padded, *masks = batch
        given = {"self": (query,) * 3, "shared": (query, key, key), "cross": (query, key, value)}[kind]
        if not module.batch_first:
            turned = {id(each): each.transpose(0, 1) for each in given}
            given = tuple(turned[id(each)] for each in given)
        chosen = dict(options)
        if masks:
            chosen["attn_mask"] = masks[0].flatten(0, 1)
        if chosen.pop("pad", False):
            chosen["key_padding_mask"] = padded
        output, weights = module(*given, **chosen)
        output = output if module.batch_first else output.transpose(0, 1)
        scale = torch.linspace(0.5, 1.5, output[0].numel(), dtype=output.dtype).view_as(output[0])
        losses = (scale * output.square()).flatten(1).sum(1) + output.flatten(1).sum(1)
        if weights is not None:
            losses = losses + weights.square().flatten(1).sum(1)
        return losses

    return loss


def batch(kind: str, sources: int = SOURCES, kdim: int = SIZE, vdim: int = SIZE) -> tuple[Tensor, ...]:
    key, value = rand(EXAMPLES, sources, kdim, seed=2), rand(EXAMPLES, sources, vdim, seed=3)
    query = rand(EXAMPLES, sources if kind == "self" else TARGETS, SIZE, seed=1)
    return query, key, value, padding(sources)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no weights": {"need_weights": False},
    "weights by head": {"average_attn_weights": False},
    "padding": {"pad": True},
    "padding, no weights": {"pad": True, "need_weights": False},
}


@pytest.mark.parametrize("kind", ["self", "shared", "cross"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "build_options", [{}, {"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True, "add_bias_kv": True}]
)
def test_it_equals_one_example_at_a_time(kind: str, options: str, batch_first: bool, build_options: dict[str, Any]):
    module = build(batch_first=batch_first, **build_options)
    found = check(module, FORWARDS, attending(kind, **OPTIONS[options]), batch(kind))
    assert set(found) == {name for name, _ in module.named_parameters()}
    assert isinstance(found["in_proj_weight"], Stacked) == (kind != "self")


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kdim", "vdim"), [(6, 7), (SIZE, 7), (6, SIZE)])
def test_keys_and_values_may_have_sizes_of_their_own(options: str, batch_first: bool, bias: bool, kdim: int, vdim: int):
    module = build(batch_first=batch_first, bias=bias, kdim=kdim, vdim=vdim)
    found = check(module, FORWARDS, attending("cross", **OPTIONS[options]), batch("cross", kdim=kdim, vdim=vdim))
    assert set(found) == {name for name, _ in module.named_parameters()}


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("mask", ["causal", "causal hint", "float", "by example and head", "Boolean by example and head"])
def test_masks_are_those_of_the_module(mask: str, pad: bool, need_weights: bool):
    square = torch.ones(SOURCES, SOURCES, dtype=torch.bool).triu(1)
    additive = torch.zeros(SOURCES, SOURCES, dtype=torch.float64).masked_fill_(square, float("-inf"))
    options: dict[str, Any] = {"pad": pad, "need_weights": need_weights}
    inputs = batch("self")
    if mask == "causal":
        options["attn_mask"] = square
    elif mask == "causal hint":
        options |= {"attn_mask": additive, "is_causal": True}
    elif mask == "float":
        options["attn_mask"] = rand(SOURCES, SOURCES, seed=8)
    else:
        each = rand(EXAMPLES, HEADS, SOURCES, SOURCES, seed=9)
        inputs = (*inputs, each if mask.startswith("by") else (each > 0.5).triu(1))
    check(build(batch_first=True), FORWARDS, attending("self", **options), inputs)


@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from(["self", "shared", "cross"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_it_equals_one_example_at_a_time_for_any_sizes(
    heads: int, width: int, examples: int, targets: int, sources: int, kind: str, batch_first: bool, weights: bool, seed: int
):
    torch.manual_seed(seed)
    module = nn.MultiheadAttention(heads * width, heads, batch_first=batch_first).double()
    key, value = rand(examples, sources, heads * width, seed=seed), rand(examples, sources, heads * width, seed=seed + 1)
    inputs = rand(examples, targets, heads * width, seed=seed + 2), key, value, torch.zeros(examples, sources, dtype=torch.bool)
    check(module, FORWARDS, attending(kind, need_weights=weights), inputs)


@pytest.mark.parametrize("kind", ["self", "shared", "cross"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_outputs_and_dropout_are_the_modules_own(kind: str, dtype: torch.dtype, need_weights: bool, batch_first: bool):
    module = build(dropout=0.3, batch_first=batch_first, add_bias_kv=True).to(dtype)
    query, key, value = ((each if batch_first else each.transpose(0, 1).contiguous()).to(dtype) for each in batch(kind)[:3])
    given = {"self": (query,) * 3, "shared": (query, key, key), "cross": (query, key, value)}[kind]
    torch.manual_seed(5)
    theirs = module(*given, need_weights=need_weights)
    torch.manual_seed(5)
    mine = FORWARDS[nn.MultiheadAttention](module, given, {"need_weights": need_weights}, Deposits(frozenset()))
    for own, other in zip(mine, theirs, strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            torch.testing.assert_close(own, other, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("frozen", ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias", "bias_k"])
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_only_trained_parameters_are_deposited(frozen: str, kind: str):
    module = build(batch_first=True, add_bias_kv=True)
    dict(module.named_parameters())[frozen].requires_grad_(False)
    found = check(module, FORWARDS, attending(kind), batch(kind))
    assert set(found) == {name for name, value in module.named_parameters() if value.requires_grad}


class Twice(nn.Module):
    """A weight before the attention, and the attention twice, the second time across."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.attention = nn.Linear(SIZE, SIZE), build(batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs + self.before(inputs)
        mixed, _ = self.attention(inputs, inputs, inputs)
        again, _ = self.attention(mixed[:, ::2], inputs, inputs, need_weights=False)
        return again


def squares(model: Any, batch: tuple[Tensor, ...]) -> Tensor:
    output = model(batch[0])
    weights = torch.linspace(0.5, 1.5, output[0].numel(), dtype=output.dtype).view_as(output[0])
    return (weights * output.square()).flatten(1).sum(1) + output.flatten(1).sum(1)


def test_an_attention_called_twice_adds_up():
    torch.manual_seed(0)
    found = check(Twice().double(), FORWARDS, squares, (rand(4, 5, SIZE),))
    assert len(found) == 4


def test_what_comes_before_gets_ordinary_gradients():
    torch.manual_seed(0)
    model = Twice().double()
    for value in model.attention.parameters():
        value.requires_grad_(False)
    earlier = [*model.before.parameters()]
    truth = torch.autograd.grad(squares(model, (rand(4, 5, SIZE),)).sum(), earlier)
    model.attention.forward = lambda *args, **kwargs: FORWARDS[nn.MultiheadAttention](
        model.attention, args, kwargs, Deposits(frozenset())
    )
    found = torch.autograd.grad(squares(model, (rand(4, 5, SIZE),)).sum(), earlier)
    for mine, theirs in zip(found, truth, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_a_loss_on_the_weights_alone_leaves_values_out():
    def loss(module: Any, batch: tuple[Tensor, ...]) -> Tensor:
        return module(*batch[:3])[1].square().flatten(1).sum(1)

    found = check(build(batch_first=True), FORWARDS, loss, batch("cross"))
    assert set(found) == {"in_proj_weight", "in_proj_bias"}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_layers_in_training_go_through_the_attentions_own_forward(batch_first: bool, norm_first: bool):
    """Their fused path is for evaluation only; a decoder layer attends to itself and across."""

    def loss(model: Any, batch: tuple[Tensor, ...]) -> Tensor:
        inputs, memory = (each if batch_first else each.transpose(0, 1) for each in batch[:2])
        length = inputs.shape[1 if batch_first else 0]
        causal = nn.Transformer.generate_square_subsequent_mask(length, dtype=torch.float64)
        encoded = model[0](memory, src_key_padding_mask=batch[2].double().mul(-1e9))
        decoded = model[1](inputs, encoded, tgt_mask=causal, tgt_is_causal=True)
        decoded = decoded if batch_first else decoded.transpose(0, 1)
        weights = torch.linspace(0.5, 1.5, decoded[0].numel(), dtype=decoded.dtype).view_as(decoded[0])
        return (weights * decoded.square()).flatten(1).sum(1)

    torch.manual_seed(2)
    options: dict[str, Any] = {"dropout": 0.0, "batch_first": batch_first, "norm_first": norm_first}
    layers = nn.TransformerEncoderLayer(SIZE, HEADS, 12, **options), nn.TransformerDecoderLayer(SIZE, HEADS, 12, **options)
    inputs = rand(EXAMPLES, TARGETS, SIZE), rand(EXAMPLES, SOURCES, SIZE, seed=1), padding()
    found = check(nn.ModuleList(layers).double(), FORWARDS, loss, inputs, tolerance=1e-9)
    assert len(found) == 12


def test_a_non_finite_example_stays_alone():
    """Sharp edge 6."""
    module, inputs = build(batch_first=True), batch("cross")
    truth = one_at_a_time(module, attending("cross"), inputs)
    inputs[1][2, 0] = float("inf")
    found, _ = rewritten_pass(module, FORWARDS, attending("cross"), inputs)
    kept = torch.tensor([True, True, False, True])
    for name, part in found.items():
        assert bool(torch.isfinite(part.squared_norms()[kept]).all())
        total = part.keep(kept).weighted_sum(torch.ones(4, dtype=torch.float64))
        torch.testing.assert_close(total, sum(truth[index][name] for index in (0, 1, 3)), rtol=1e-9, atol=1e-10)
    assert not bool(torch.isfinite(found["in_proj_weight"].squared_norms()[2]))


@pytest.mark.parametrize("kind", ["self", "shared", "cross"])
def test_gradients_are_float32_under_autocast(kind: str):
    """Sharp edge 19."""
    module = build(batch_first=True, add_bias_kv=True).float()
    inputs = tuple(each.float() for each in batch(kind)[:3])
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = rewritten_pass(module, FORWARDS, attending(kind), (*inputs, padding()))
    assert set(found) == {name for name, _ in module.named_parameters()}
    assert all(part.weighted_sum(torch.ones(4)).dtype == torch.float32 for part in found.values())


@pytest.mark.parametrize(
    ("given", "options", "reason"),
    [
        ((rand(3, SIZE),) * 3, {}, "something other than"),
        ((rand(4, 3, SIZE), rand(1, 5, SIZE), rand(1, 5, SIZE)), {}, "not of the same examples"),
        ((rand(4, 3, SIZE),) * 3, {"is_causal": True}, "without the mask"),
        ((rand(4, 3, SIZE),) * 3, {"attn_mask": torch.zeros(3, 3, dtype=torch.int64)}, "int64"),
        ((rand(4, 3, SIZE),) * 3, {"attn_mask": torch.zeros(HEADS, 3, 3)}, "neither for all examples"),
        ((rand(4, 3, SIZE),) * 3, {"key_padding_mask": torch.zeros(1, 3)}, "a padding mask"),
    ],
)
def test_what_is_not_covered_is_refused(given: tuple[Tensor, ...], options: dict[str, Any], reason: str):
    with pytest.raises(Unfit, match=reason):
        FORWARDS[nn.MultiheadAttention](build(batch_first=True), given, options, Deposits(frozenset()))
