"""Language models: what is read in pieces is what is read at once, and an example's gradient is its own."""

import pytest
import torch
from torch import Tensor, nn

from dptrain import models
from dptrain.clipping import Clipper
from dptrain.errors import ConfigError
from dptrain.recipe import ModelConfig, RegularizationConfig
from dptrain.regularization import cross_entropy
from tests.dptrain.test_clipping import flat

TOKENS, LENGTH = 11, 12
HIDDEN = {"lstm": (16,), "gpt": (48, 48)}


def model_of(name: str, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return models.build(
        ModelConfig(name=name, hidden=HIDDEN[name]), (LENGTH,), TOKENS, RegularizationConfig(dropout=dropout)
    ).eval()


def batch(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs, targets = (torch.randint(TOKENS, (count, LENGTH), generator=generator) for _ in range(2))
    return inputs, targets


@pytest.mark.parametrize("name", ["lstm", "gpt"])
def test_what_is_read_in_pieces_is_what_is_read_at_once(name: str):
    model, (tokens, _) = model_of(name), batch(5)
    whole = model(tokens)
    assert whole.shape == (5, LENGTH, TOKENS)
    logits, state = model.read(tokens[:, :4])  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(logits, whole[:, 3])
    logits, state = model.read(tokens[:, 4:5], state)  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(logits, whole[:, 4])
    logits, _ = model.read(tokens[:, 5:9], state)  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(logits, whole[:, 8])
    order = torch.tensor([3, 0, 0])
    some = tuple(part[:, order] for part in state)  # a state's second dimension is the sequences'
    logits, _ = model.read(tokens[order, 5:6], some)  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(logits, whole[order, 5])


@pytest.mark.parametrize("name", ["lstm", "gpt"])
def test_no_place_sees_what_comes_after_it(name: str):
    model, (tokens, _) = model_of(name), batch(5)
    other = tokens.clone()
    other[:, 7:] = (other[:, 7:] + 1) % TOKENS
    torch.testing.assert_close(model(other)[:, :7], model(tokens)[:, :7])
    assert not torch.allclose(model(other)[:, 7:], model(tokens)[:, 7:])


@pytest.mark.parametrize("name", ["lstm", "gpt"])
def test_the_clipped_sum_is_that_of_each_sequence_by_itself(name: str):
    model, examples = model_of(name).train(), batch(9)

    def loss(module: nn.Module, given: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(module, given, RegularizationConfig())

    clipper = Clipper(model, loss, 0.05)
    found = flat(clipper.sum([examples]).gradients)
    expected = torch.zeros_like(found)
    for index in range(9):
        one = tuple(part[index : index + 1] for part in examples)
        gradients = torch.autograd.grad(loss(model, one).sum(), list(model.parameters()))  # pyright: ignore[reportArgumentType]
        own = torch.cat([value.flatten() for value in gradients])
        expected += own * min(1.0, 0.05 / float(own.norm()))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert clipper.method == "one pass"


def test_the_loss_of_a_sequence_is_the_mean_over_its_places():
    model, (tokens, targets) = model_of("lstm"), batch(3)
    losses = cross_entropy(model, (tokens, targets), RegularizationConfig())
    own = -torch.log_softmax(model(tokens), 2).gather(2, targets[..., None])[..., 0]
    torch.testing.assert_close(losses, own.mean(1))


@pytest.mark.parametrize(
    ("name", "shape", "hidden", "message"),
    [
        ("lstm", (1, 28, 28), (16,), "reads sequences of tokens and the data set's inputs are 1×28×28"),
        ("gpt", (1, 28, 28), (48,), "reads sequences of tokens"),
        ("lstm", (12,), (16, 16), "has one layer; give one width"),
        ("gpt", (12,), (50,), "a multiple of 24"),
        ("gpt", (12,), (48, 96), "the same width"),
    ],
)
def test_what_is_no_language_model_is_refused_in_a_sentence(
    name: str, shape: tuple[int, ...], hidden: tuple[int, ...], message: str
):
    with pytest.raises(ConfigError, match=message):
        models.build(ModelConfig(name=name, hidden=hidden), shape, TOKENS, RegularizationConfig())
