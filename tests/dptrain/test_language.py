"""A language model in training: what it reads, what its loss is, and what one example of it is to the clipping."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, make_private, models
from dptrain.clipping import Clipper
from dptrain.data import load
from dptrain.data.alphabet import CHARACTERS, LABELS, encode
from dptrain.data.dataset import DataSet
from dptrain.data.text import sequences, shifted
from dptrain.errors import ConfigError
from dptrain.models.lstm import CharacterLSTM
from dptrain.private import PrivateTraining
from dptrain.recipe import DataConfig, ModelConfig, Recipe, RegularizationConfig, TrainingConfig
from dptrain.regularization import cross_entropy
from dptrain.trainer import check_loss

PLAIN = RegularizationConfig()
SENTENCE = "What's in a name? that which we call a rose by any other name would smell as sweet. "


def small(dtype: torch.dtype = torch.float64, tokens: int = len(LABELS)) -> CharacterLSTM:
    torch.manual_seed(0)
    return CharacterLSTM(tokens, 12).to(dtype)


def batch(count: int = 6, length: int = 10) -> tuple[Tensor, Tensor]:
    targets = sequences(SENTENCE * 3, length)[:count]
    return shifted(targets), targets


def text() -> DataSet:
    inputs, targets = batch(12)
    return DataSet("t", inputs, targets, LABELS, (0.0, len(LABELS) - 1.0), kind="text")


def loss(model: nn.Module, given: Any) -> Tensor:
    return cross_entropy(model, given, PLAIN)


# -- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 3, 9])
def test_reading_in_parts_gives_what_reading_at_once_gives(cut: int):
    model, (tokens, _) = small(), batch()
    whole = model(tokens)
    first, state = model.read(tokens[:, :cut])
    second, _ = model.read(tokens[:, cut:], state)
    torch.testing.assert_close(first, whole[:, cut - 1], rtol=0, atol=1e-12)
    torch.testing.assert_close(second, whole[:, -1], rtol=0, atol=1e-12)


def test_what_is_said_of_a_place_does_not_depend_on_what_comes_after():
    model, (tokens, _) = small(), batch(2)
    other = tokens.clone()
    other[:, 5:] = encode("zzzzz")
    torch.testing.assert_close(model(other)[:, :5], model(tokens)[:, :5], rtol=0, atol=0)
    assert not torch.allclose(model(other)[:, 5:], model(tokens)[:, 5:])


def test_the_model_is_built_for_sequences_with_one_width():
    built = models.build(ModelConfig(name="lstm", hidden=(8,)), (10,), len(LABELS), PLAIN)
    assert built(batch()[0]).shape == (6, 10, len(LABELS))
    with pytest.raises(ConfigError, match="inputs are 1×8×8"):
        models.build(ModelConfig(name="lstm", hidden=(8,)), (1, 8, 8), 10, PLAIN)
    with pytest.raises(ConfigError, match="one width, such as 256"):
        models.build(ModelConfig(name="lstm", hidden=(8, 8)), (10,), len(LABELS), PLAIN)


# -- the loss -------------------------------------------------------------------------------------------------------


def test_the_loss_of_a_sequence_is_the_mean_over_its_places():
    model, (tokens, targets) = small(), batch()
    each = [[F.cross_entropy(model(tokens)[row, place], targets[row, place]) for place in range(10)] for row in range(6)]
    expected = torch.stack([torch.stack(places).mean() for places in each])
    torch.testing.assert_close(loss(model, (tokens, targets)), expected)


def test_smoothed_labels_are_smoothed_at_each_place():
    model, (tokens, targets) = small(), batch()
    smoothed = cross_entropy(model, (tokens, targets), RegularizationConfig(label_smoothing=0.1))
    expected = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(smoothed, expected.view(6, 10).mean(1))


@pytest.mark.parametrize(
    "option", ["mixup", "relax", "information_bottleneck", "bilateral_dependency", "freeze", "distillation"]
)
def test_what_is_of_one_class_an_example_is_refused(option: str):
    options: dict[str, Any] = {option: 1}
    regularization = RegularizationConfig(**options)
    recipe = Recipe(data=DataConfig(name="text"), model=ModelConfig(name="lstm"), regularization=regularization)
    with pytest.raises(ConfigError, match=rf"regularization\.{option} is of models that give an example one class"):
        check_loss(recipe, text())


def test_a_loss_for_values_is_refused():
    recipe = Recipe(data=DataConfig(name="text"), training=TrainingConfig(loss="squared_error"))
    with pytest.raises(ConfigError, match="give 'cross_entropy'"):
        check_loss(recipe, text())


# -- clipping -------------------------------------------------------------------------------------------------------


def gradients_of(model: nn.Module, given: tuple[Tensor, Tensor]) -> list[Tensor]:
    """The flat gradient of each example by ordinary autograd."""
    found = []
    for index in range(len(given[0])):
        one = given[0][index : index + 1], given[1][index : index + 1]
        found.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss(model, one).sum(), [*model.parameters()])]))
    return found


@pytest.mark.parametrize("norm", [0.05, 0.5, 100.0])
def test_sequences_are_clipped_in_one_pass_as_one_at_a_time(norm: float):
    model, given = small(), batch()
    clipper = Clipper(model, loss, norm)
    found = torch.cat([part.flatten() for part in clipper.sum([given]).gradients.values()])
    assert clipper.method == "one pass"
    expected = sum((part * min(1.0, norm / float(part.norm())) for part in gradients_of(model, given)), torch.zeros(1))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


# -- users ----------------------------------------------------------------------------------------------------------

OWNERS = np.array([0] * 7 + [1] * 2 + [2] + [3] * 4 + [4] * 6)
"""Five users with 7, 2, 1, 4 and 6 sequences."""
PLAN = PrivacyPlan(
    sampling_rate=1.0, expected_batch_size=5, steps=2, clipping_norm=0.3, delta=1e-3, noise_multiplier=0.0,
    unit="user", max_examples_per_unit=3,
)  # fmt: skip


def private_of(targets: Tensor, plan: PrivacyPlan, owners: np.ndarray = OWNERS) -> PrivateTraining:
    model = small(torch.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="delta is")
        return make_private(
            model,
            torch.optim.SGD(model.parameters(), lr=1.0),
            TensorDataset(shifted(targets), targets),
            plan,
            loss=loss,
            units=owners,
            insecure_seed=3,
        )


def clipped_sum(private: PrivateTraining, without: int | None = None) -> Tensor:
    """The clipped sum of a batch, flat; ``without`` one user, and with the same sequences of everyone else."""
    batch = next(private.batches())
    if without is not None:
        assert batch._offsets is not None
        taken = slice(batch._offsets[without], batch._offsets[without + 1])
        lengths = np.delete(np.diff(batch._offsets), without)
        batch = dataclasses.replace(
            batch, _positions=np.delete(batch._positions, taken), _offsets=np.concatenate([[0], np.cumsum(lengths)])
        )
    clipped = private._own_sum(batch)
    return torch.cat([part.flatten() for part in clipped.gradients.values()]).double() * clipped.divisor


def owned() -> Tensor:
    return sequences(SENTENCE * 3, 10)[: len(OWNERS)]


def rewritten(user: int, seed: int) -> Tensor:
    """The sequences of all, where one user wrote something else."""
    changed, generator = owned(), torch.Generator().manual_seed(seed)
    theirs = torch.from_numpy(user == OWNERS)
    changed[theirs] = torch.randint(len(LABELS), changed[theirs].shape, generator=generator)
    return changed


@pytest.mark.parametrize("user", range(5))
def test_one_user_more_or_less_moves_the_clipped_sum_by_at_most_its_sensitivity(user: int):
    """Sharp edge 22: whatever the user writes, and however many sequences are theirs."""
    stated = private_of(owned(), PLAN)._clipper.sensitivity * PLAN.expected_batch_size
    assert stated == pytest.approx(PLAN.clipping_norm)
    without = clipped_sum(private_of(owned(), PLAN), without=user)
    for targets in (owned(), rewritten(user, 0), rewritten(user, 1)):
        private = private_of(targets, PLAN)
        apart = float((clipped_sum(private) - without).norm())
        assert private._clipper.method == "one pass"
        assert 0.5 * stated < apart <= stated


@pytest.mark.parametrize("user", range(5))
def test_one_user_who_writes_something_else_is_one_less_and_one_more(user: int):
    before = clipped_sum(private_of(owned(), PLAN))
    apart = [float((clipped_sum(private_of(rewritten(user, seed), PLAN)) - before).norm()) for seed in range(3)]
    assert 0.2 * PLAN.clipping_norm < max(apart) <= 2 * PLAN.clipping_norm


def test_a_user_with_a_thousand_sequences_weighs_no_more_than_one_with_a_single_one():
    one, other = owned()[9:10], owned()[:1]
    alone = clipped_sum(private_of(torch.cat([other, one]), PLAN, np.array([0, 1])))
    many = clipped_sum(private_of(torch.cat([other, one.repeat(1000, 1)]), PLAN, np.array([0] + [1] * 1000)))
    torch.testing.assert_close(many, alone, rtol=1e-4, atol=1e-6)


@pytest.fixture
def spoken(speeches: Path) -> tuple[Tensor, np.ndarray]:
    """The first sequences of the first speakers of Shakespeare, at most five of each, and who says each."""
    options = {"text_column": "speech", "user_column": "speaker", "sequence_length": 10, "characters": 2000}
    data = load(DataConfig(name="text", path=str(speeches), **options))
    assert data.users is not None
    first = np.concatenate([np.flatnonzero(data.users.numpy() == user)[:5] for user in range(4)])
    return data.targets[first], data.users.numpy()[first]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(user=st.integers(0, 3), written=st.text(alphabet=CHARACTERS, min_size=10, max_size=90))
def test_whatever_a_speaker_of_shakespeare_says_moves_the_clipped_sum_by_at_most_what_is_stated(
    spoken: tuple[Tensor, np.ndarray], user: int, written: str
):
    """Real ids, through the loader and the engine: all sequences of a user change, in what they say and in how many they are.

    What is stated is of a user who is there or is not; one who says something else is one less and one more.
    """
    (targets, owners), plan = spoken, dataclasses.replace(PLAN, max_examples_per_unit=9)
    others, theirs = owners != user, sequences(written, 10)
    changed = torch.cat([targets[others], theirs]), np.concatenate([owners[others], np.full(len(theirs), user)])
    stated = private_of(targets, plan, owners)._clipper.sensitivity * plan.expected_batch_size
    before, without, after = (
        clipped_sum(private_of(found, plan, whose))
        for found, whose in ((targets, owners), (targets[others], owners[others]), changed)
    )
    assert stated == pytest.approx(plan.clipping_norm)
    assert 0.5 * stated < float((before - without).norm()) <= stated * (1 + 1e-6)
    assert 0.5 * stated < float((after - without).norm()) <= stated * (1 + 1e-6)
    assert float((after - before).norm()) <= 2 * stated * (1 + 1e-6)


def test_no_more_sequences_of_a_user_are_looked_at_than_the_cap_says():
    batch = next(private_of(owned(), PLAN).batches())
    assert batch._offsets is not None
    assert np.diff(batch._offsets).tolist() == [3, 2, 1, 3, 3]
