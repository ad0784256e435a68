"""Text messages as sequences of hashed words: no vocabulary, no repeats, and a model that reads them."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dptrain import models
from dptrain.clipping import Clipper
from dptrain.data import load
from dptrain.data.words import BUCKETS, PADDING, bucket, hashed, words
from dptrain.errors import ConfigError, DataError
from dptrain.models.embedding_bag import EmbeddingBag
from dptrain.recipe import DataConfig, ModelConfig, Recipe, RegularizationConfig
from dptrain.regularization import cross_entropy
from dptrain.trainer import check_loss

PLAIN = RegularizationConfig()


@pytest.fixture
def few(tmp_path: Path) -> DataConfig:
    path = tmp_path / "SMSSpamCollection"
    path.write_text("ham\tOk lar... Joking\nspam\tCall 0900!\nham\tOk lar... Joking\nham\tok LAR... joking\n")
    return DataConfig(name="sms", path=str(path), sequence_length=8)


# -- words ----------------------------------------------------------------------------------------------------------


def test_words_are_small_digits_are_noughts_and_signs_stand_alone():
    assert words("Call 0900-12 NOW!! it's £5\tok_then") == [
        "call", "0000", "-", "00", "now", "!", "!", "it", "'", "s", "£", "0", "ok", "_", "then",
    ]  # fmt: skip
    assert words("") == words(" \n\t") == []


@given(st.text())
def test_white_space_is_in_no_word_and_around_none(text: str):
    assert words(f"  {text}\n") == words(text)
    assert "".join(words(text)).split() == (["".join(words(text))] if words(text) else [])


@given(st.text(), st.integers(1, 12))
def test_a_text_is_as_many_numbers_as_asked_for_and_the_end_is_filled_up(text: str, length: int):
    found = hashed(text, length)
    count = min(length, len(words(text)))
    assert found.shape == (length,)
    assert (found[count:] == PADDING).all()
    assert ((found[:count] > 0) & (found[:count] <= BUCKETS)).all()


def test_a_words_number_is_the_same_for_good():
    """Whoever loads a released model next year must find its words where they were."""
    assert [bucket(word) for word in ("free", "call", "0000", "£")] == [1294, 2779, 101, 418]


def test_numbers_of_words_are_spread_evenly():
    counts = torch.bincount(torch.tensor([bucket(f"w{number}") for number in range(20 * BUCKETS)]), minlength=BUCKETS + 1)
    assert counts[PADDING] == 0
    assert float(((counts[1:] - 20.0) ** 2 / 20).sum()) == pytest.approx(BUCKETS, abs=6 * (2 * BUCKETS) ** 0.5)


# -- the data set ---------------------------------------------------------------------------------------------------


def test_the_collection_has_5171_messages_after_403_repeats(shared_data: Path):
    data = load(DataConfig(name="sms", path=str(shared_data / "text" / "SMSSpamCollection")))
    assert data.inputs.shape == (5171, 64)
    assert data.targets.bincount().tolist() == [4518, 653]
    assert len(data.inputs.unique(dim=0)) == 5171 - 33
    assert (data.kind, data.is_language, data.bounds) == ("text", False, (0.0, 4096.0))
    again = load(DataConfig(name="sms"))
    assert again.fingerprint == data.fingerprint


def test_repeats_are_left_out_and_what_differs_in_case_stays(few: DataConfig):
    data = load(few)
    assert data.targets.tolist() == [0, 1, 0]
    assert torch.equal(data.inputs[0], data.inputs[2])
    assert torch.equal(data.inputs[1], hashed("call 0000 !", 8))


def test_a_vocabulary_is_not_learned(few: DataConfig, tmp_path: Path):
    """What one message becomes does not depend on the others."""
    alone = tmp_path / "alone"
    alone.write_text("spam\tCall 0900!\nham\tquite another vocabulary\n")
    other = load(DataConfig(name="sms", path=str(alone), sequence_length=8))
    assert torch.equal(other.inputs[0], load(few).inputs[1])


def test_without_the_file_one_sentence_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DPTRAIN_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=r"download and unpack it from https://\S+, and name.*--data\.path.*DPTRAIN_DATA"
    ) as told:
        load(DataConfig(name="sms"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file.*download"),
        (b"ham\tfine\nsmap\tno\n", "line 2 of"),
        (b"ham\tfine\nham and no tab\n", "line 2 of"),
        (b"ham\t\xff\n", "cannot be read as UTF-8"),
    ],
)
def test_a_file_that_is_something_else_is_named(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "given"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(DataConfig(name="sms", path=str(path)))


# -- the model ------------------------------------------------------------------------------------------------------


def bag(hidden: tuple[int, ...] = (6, 5), dtype: torch.dtype = torch.float64) -> EmbeddingBag:
    torch.manual_seed(0)
    return EmbeddingBag(hidden, 2, nn.Tanh).to(dtype)


def messages() -> torch.Tensor:
    said = ("free entry in a free draw", "ok", "call me when you are there please call", "", "win win win £ 100")
    return torch.stack([hashed(text, 10) for text in said])


def test_what_fills_a_message_up_and_the_order_of_words_count_for_nothing():
    model, tokens = bag(), messages()
    longer = F.pad(tokens, (0, 30), value=PADDING)
    torch.testing.assert_close(model(longer), model(tokens), rtol=0, atol=1e-14)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(tokens[:, order]), model(tokens), rtol=0, atol=1e-14)


def test_a_message_is_the_mean_of_its_words():
    model = bag()
    embedded = model.words.weight[[bucket("win"), bucket("win"), bucket("win"), bucket("£"), bucket("000")]].mean(0)
    torch.testing.assert_close(model.words(messages())[4], embedded)
    assert (model.words(messages())[3] == 0).all()


@pytest.mark.parametrize("hidden", [(6,), (6, 5)])
@pytest.mark.parametrize("norm", [0.01, 0.2, 100.0])
def test_messages_are_clipped_in_one_pass_as_one_at_a_time(hidden: tuple[int, ...], norm: float):
    model, given = bag(hidden), (messages(), torch.tensor([1, 0, 0, 0, 1]))

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return cross_entropy(model, batch, PLAIN)

    clipper = Clipper(model, loss, norm)
    found = torch.cat([part.flatten() for part in clipper.sum([given]).gradients.values()])
    assert clipper.method == "one pass"
    expected = torch.zeros_like(found)
    for index in range(5):
        one = tuple(part[index : index + 1] for part in given)
        flat = torch.cat([part.flatten() for part in torch.autograd.grad(loss(model, one).sum(), [*model.parameters()])])
        expected += flat * min(1.0, norm / float(flat.norm()))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_the_model_is_built_by_its_name():
    built = models.build(ModelConfig(name="embedding_bag", hidden=(4, 3)), (10,), 2, RegularizationConfig(dropout=0.5))
    assert built(messages()).shape == (5, 2)
    assert sum(isinstance(module, nn.Dropout) for module in built.modules()) == 2
    with pytest.raises(ConfigError, match="inputs are 1×8×8"):
        models.build(ModelConfig(name="embedding_bag"), (1, 8, 8), 2, PLAIN)
    with pytest.raises(ConfigError, match="needs the width of an embedding"):
        models.build(ModelConfig(name="embedding_bag", hidden=()), (10,), 2, PLAIN)


@pytest.mark.parametrize("option", ["mixup", "bilateral_dependency"])
def test_words_are_not_mixed_or_compared_as_numbers(few: DataConfig, option: str):
    options: dict[str, Any] = {option: 0.5}
    recipe = Recipe(data=few, model=ModelConfig(name="embedding_bag"), regularization=RegularizationConfig(**options))
    with pytest.raises(ConfigError, match=rf"regularization\.{option} computes with an example's inputs.*words"):
        check_loss(recipe, load(few))
