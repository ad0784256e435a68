"""Text in the tokens of a published model: nothing is lost, nothing is in two examples, characters are counted once."""

from pathlib import Path

import pytest
import torch

from dptrain.data import load
from dptrain.data.secrets import PATTERNS
from dptrain.data.tokens import Tokenizer, _beginnings, tokenizer_of
from dptrain.errors import ConfigError, DataError
from dptrain.recipe import DataConfig, SecretsConfig
from tests.dptrain.published import LINES, START, save_tokenizer

TEXT = "\n".join(LINES * 20) + "\nÀ côté: “naïve” 北京 🙂 and so on.\n" * 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(made)
    (made / "text.txt").write_text(TEXT, encoding="utf-8")
    return made


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return tokenizer_of(str(folder))


def config(folder: Path, **options) -> DataConfig:
    given = {"sequence_length": 16, "path": str(folder / "text.txt"), "tokenizer": str(folder), **options}
    return DataConfig(name="text", **given)


def test_what_is_decoded_is_what_was_encoded(tokenizer: Tokenizer):
    for text in (TEXT, " begins with a space", "two  spaces\n\n", "naïve 北京 🙂"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_no_sign_is_added_to_a_text(tokenizer: Tokenizer):
    assert tokenizer.start == tokenizer.labels.index(START)
    assert tokenizer.start not in tokenizer.encode(TEXT)


def test_pieces_are_what_tokens_write(tokenizer: Tokenizer):
    numbers = tokenizer.encode(" question: 48")
    assert "".join(tokenizer.pieces[number] for number in numbers) == " question: 48"


def test_each_token_is_the_target_of_one_example_and_the_next_ones_input(folder: Path, tokenizer: Tokenizer):
    data, numbers = load(config(folder)), tokenizer.encode(TEXT)
    assert torch.equal(data.targets.flatten(), numbers[: len(numbers) // 16 * 16])
    assert torch.equal(data.inputs[:, 1:], data.targets[:, :-1])
    assert (data.inputs[:, 0] == tokenizer.start).all()
    assert data.is_language
    assert data.classes == tokenizer.labels
    assert data.written(data.targets[0]) == TEXT[: len(data.written(data.targets[0]))]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 16])
def test_every_character_is_counted_once_also_where_a_sequence_ends_within_one(tokenizer: Tokenizer, length: int):
    """北 and 🙂 are several tokens each here."""
    text = "北京 🙂 naïve " * 40
    numbers = tokenizer.encode(text)
    assert len(numbers) > len(text)
    whole = numbers[: len(numbers) // length * length].view(-1, length)
    rest = numbers[len(whole) * length :][None]
    assert int(tokenizer.characters(whole).sum() + tokenizer.characters(rest).sum()) == len(text)


def test_a_byte_of_another_kind_of_tokenizer_is_a_byte_too():
    assert [_beginnings(label, "�") for label in ("<0xE5>", "<0x8C>", "åĮĹ", "ĮĹ", "Ġå", "no bytes □")] == [1, 0, 1, 0, 2, 1]


def test_public_text_is_in_the_same_tokens(folder: Path, tokenizer: Tokenizer):
    (folder / "public.txt").write_text("A sea of fortune, a sea of troubles, and nobler slings. " * 8)
    data = load(config(folder, public=(str(folder / "public.txt"),)))
    assert data.others is not None
    assert data.others.targets is not None
    assert tokenizer.decode(data.others.targets.flatten()).startswith("A sea of fortune, a sea of troubles")
    assert (data.others.inputs[:, 0] == tokenizer.start).all()


def test_a_secret_stands_whole_at_the_beginning_of_its_sequences(folder: Path):
    data = load(config(folder, sequence_length=40, secrets=SecretsConfig(each=2, insertions=(1, 3), formats=("pin", "card"))))
    assert data.planted is not None
    assert len(data.planted) == 8
    for secret in data.planted:
        assert len(secret.secret) == len(PATTERNS[secret.format].places)
        for index in secret.examples:
            assert data.written(data.targets[index]).startswith(f"{secret.before}{secret.secret}\n")


def test_a_sequence_too_short_for_a_secret_is_refused_in_tokens(folder: Path):
    with pytest.raises(DataError, match=r"has \d+ tokens; give a larger length"):
        load(config(folder, secrets=SecretsConfig(each=1)))


def test_a_text_too_short_for_a_sequence_is_refused_in_tokens(folder: Path):
    with pytest.raises(DataError, match=r"has \d+ tokens and data.sequence_length is 9000"):
        load(config(folder, sequence_length=9000))


def test_a_tokenizer_without_a_sign_for_the_start_is_refused(folder: Path, tmp_path: Path):
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no sign for the start or end of a text"):
        tokenizer_of(str(tmp_path))


def test_a_folder_without_a_tokenizer_is_told_so(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"lacks tokenizer\* \(the tokenizer\); put it there"):
        load(config(tmp_path))
