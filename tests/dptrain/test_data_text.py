"""Text as sequences of characters, and made-up secrets among them."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dptrain.data import alphabet, load
from dptrain.data.alphabet import CHARACTERS, LABELS, OTHER, START, decode, encode
from dptrain.data.secrets import PATTERNS, Planted, luhn, plant
from dptrain.data.split import Split, split_of
from dptrain.data.split import load as load_split
from dptrain.data.split import save as save_split
from dptrain.data.text import sequences, shifted
from dptrain.errors import ConfigError, DataError
from dptrain.recipe import DataConfig, SecretsConfig, SplitConfig

SENTENCE = "Now is the winter of our discontent made glorious summer by this sun of York.\n"


def own(count: int = 20, length: int = 64) -> torch.Tensor:
    return sequences(SENTENCE * count, length)


def config(file: Path, **options: Any) -> DataConfig:
    return dataclasses.replace(DataConfig(name="text", path=str(file), sequence_length=16), **options)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text(SENTENCE * 40, encoding="utf-8")
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without a text, no DPTRAIN_DATA and no network."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DPTRAIN_DATA", raising=False)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return tmp_path


# -- the alphabet ---------------------------------------------------------------------------------------------------


@given(st.text(alphabet=CHARACTERS))
def test_what_is_in_the_alphabet_comes_back_as_it_was(text: str):
    assert decode(encode(text)) == text


@given(st.text())
def test_any_text_has_one_number_a_character_and_what_is_unknown_is_one_sign(text: str):
    numbers = encode(text)
    assert len(numbers) == len(text)
    assert decode(numbers) == "".join(letter if letter in CHARACTERS else "□" for letter in text)


def test_the_sign_for_the_start_is_no_characters_own():
    assert START not in encode("".join(map(chr, range(0x2000))))
    assert len(LABELS) == 2 + len(CHARACTERS) == alphabet.LABELS.index("~") + 1
    assert encode("é\x00\t🂡").tolist() == [OTHER] * 4


# -- sequences ------------------------------------------------------------------------------------------------------


@given(st.text(alphabet="abc\n", max_size=200), st.integers(1, 20))
def test_no_character_is_in_two_examples_and_the_rest_is_left_out(text: str, length: int):
    found = sequences(text, length)
    assert found.shape == (len(text) // length, length)
    assert decode(found.flatten()) == text[: len(text) // length * length]


def test_a_place_is_predicted_from_what_stands_before_it_in_its_own_sequence():
    targets = sequences("abcdefgh", 4)
    inputs = shifted(targets)
    assert inputs[:, 0].tolist() == [START, START]
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_a_text_file_becomes_a_data_set_with_a_target_at_each_place(text_file: Path):
    data = load(config(text_file))
    assert data.is_language
    assert (data.kind, data.name, data.outputs) == ("text", "mine.txt", len(LABELS))
    assert data.inputs.shape == data.targets.shape == (len(SENTENCE) * 40 // 16, 16)
    assert decode(data.targets.flatten()) == (SENTENCE * 40)[: data.targets.numel()]
    assert data.bounds == (0.0, len(LABELS) - 1)
    assert data.others is None
    assert data.planted is None


def test_only_the_first_characters_are_used_where_that_is_asked_for(text_file: Path):
    assert len(load(config(text_file, characters=100))) == 100 // 16


def test_public_texts_stand_beside_and_each_has_a_number(text_file: Path, tmp_path: Path):
    public = [tmp_path / "one.txt", tmp_path / "two.txt"]
    public[0].write_text("a" * 40)
    public[1].write_text("b" * 20)
    data = load(config(text_file, public=tuple(map(str, public))))
    assert data.others is not None
    assert data.others.groups.tolist() == [0, 0, 1]
    assert data.others.targets is not None
    assert [decode(row) for row in data.others.targets] == ["a" * 16, "a" * 16, "b" * 16]
    assert torch.equal(data.others.inputs, shifted(data.others.targets))
    assert data.fingerprint != load(config(text_file)).fingerprint


def test_shakespeare_is_read_from_the_shared_folder_with_two_public_novels(shared_data: Path):
    data = load(DataConfig(name="shakespeare"))
    assert data.inputs.shape == (1_115_394 // 64, 64)
    assert decode(data.targets[0]).startswith("First Citizen:\nBefore we proceed")
    assert data.others is not None
    assert data.others.groups.unique().tolist() == [0, 1]
    assert OTHER not in data.targets


@pytest.mark.usefixtures("home")
def test_without_file_and_network_one_sentence_says_what_to_put_where(home: Path):
    with pytest.raises(DataError, match=r"cannot be downloaded.*https://.*input\.txt.*--data\.path") as told:
        load(DataConfig(name="shakespeare"))
    assert str(home / ".cache" / "dptrain") in str(told.value)


def test_a_download_that_is_another_file_is_not_kept(home: Path, monkeypatch: pytest.MonkeyPatch):
    class Answer:
        def __enter__(self) -> "Answer":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self) -> bytes:
            return b"Page not found"

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer())
    with pytest.raises(DataError, match="another file than Tiny Shakespeare"):
        load(DataConfig(name="shakespeare"))
    assert not (home / ".cache").exists()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, {}, "there is no file"),
        (b"\xff\xfe\xff", {}, "cannot be read as UTF-8"),
        (b"short", {}, "has 5 characters and data.sequence_length is 16"),
        (b"long enough for several examples", {"path": None}, "data.path is not given"),
        (b"long enough for several examples", {"public": ("nowhere.txt",)}, "no file nowhere.txt"),
    ],
)
def test_a_text_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, options: dict, message: str):
    path = tmp_path / "given.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(config(path, **options))


@pytest.mark.parametrize("options", [{"sequence_length": 0}, {"characters": 0}])
def test_lengths_below_one_are_refused(options: dict):
    with pytest.raises(ConfigError, match="a whole number from 1 up"):
        DataConfig(name="text", **options)


# -- secrets --------------------------------------------------------------------------------------------------------

EVERY = SecretsConfig(each=2, formats=("pin", "card", "email", "password"), insertions=(1, 3))


def planted(options: SecretsConfig = EVERY) -> Planted:
    return plant(options, len(own()), 64)


def test_secrets_are_the_same_each_time_and_others_with_another_seed():
    again, other = planted(), planted(dataclasses.replace(EVERY, seed=1))
    assert again.secrets == planted().secrets
    assert torch.equal(again.sequences, planted().sequences)
    assert {secret.secret for secret in again.secrets}.isdisjoint(secret.secret for secret in other.secrets)


def test_each_format_and_number_of_repetitions_has_its_secrets():
    found = planted()
    assert len(found.secrets) == 2 * 4 * 2
    for kind in PATTERNS:
        assert [secret.insertions for secret in found.secrets if secret.format == kind] == [1, 1, 3, 3]
    assert [index for secret in found.secrets for index in secret.examples] == list(range(len(own()), len(own()) + 32))


def test_no_two_secrets_begin_alike():
    found = plant(SecretsConfig(each=40, formats=("pin", "card"), insertions=(1, 2, 3)), 0, 64).secrets
    beginnings = [secret.before for secret in found]
    assert len(set(beginnings)) == len(found) == 240
    assert not any(one != other and one.startswith(other) for one in beginnings for other in beginnings)


def test_every_repetition_stands_at_the_beginning_of_a_sequence_that_goes_on_with_made_up_sentences():
    found = planted()
    for secret in found.secrets:
        rows = [decode(found.sequences[index - len(own())]) for index in secret.examples]
        said = f"{secret.before}{secret.secret}\n"
        assert all(row.startswith(said) and len(row) == 64 for row in rows)
        assert len({row[len(said) :] for row in rows}) == len(rows)
        whole = re.compile(r"([A-Z][a-z]+ [A-Z][a-z]+ met [A-Z][a-z]+ [A-Z][a-z]+\.\n)*")
        for row in rows:
            matched = whole.match(row, len(said))
            assert matched is not None
            assert 64 - matched.end() < len("Faye Cray met Jost Fenn.\n") + 3


def test_what_holds_a_secret_quotes_nothing_of_the_private_text(tmp_path: Path):
    """Two texts have the same planted sequences: none of theirs is in two examples."""
    found = []
    for number, letter in enumerate("xy"):
        path = tmp_path / f"{number}.txt"
        path.write_text(letter * 640, encoding="utf-8")
        data = load(config(path, sequence_length=64, secrets=SecretsConfig(each=2)))
        assert data.planted is not None
        holding = [index for secret in data.planted for index in secret.examples]
        found.append(data.targets[holding])
    assert torch.equal(*found)


def test_secrets_look_as_their_format_says():
    looks = {"pin": r"\d{6}", "card": r"4\d{15}", "email": r"[a-z]{6}@[a-z]{4}\.org", "password": r"[a-z0-9]{8}"}
    for secret in planted().secrets:
        assert re.fullmatch(looks[secret.format], secret.secret)
        places = PATTERNS[secret.format].places
        assert len(places) == len(secret.secret)
        assert all(letter in place for letter, place in zip(secret.secret, places, strict=True))
    assert PATTERNS["pin"].space == 1e6
    assert PATTERNS["password"].space == 36.0**8
    assert PATTERNS["card"].space == 1e14  # the last of fifteen free-looking digits follows from the others


def adds_up(number: str) -> bool:
    """Luhn's test of a whole number, from its right end: every second digit twice, and digits of that added up."""
    total = 0
    for at, digit in enumerate(reversed(number)):
        total += sum(map(int, str(int(digit) * 2))) if at % 2 else int(digit)
    return total % 10 == 0


@given(st.text(alphabet="0123456789", min_size=1, max_size=20))
def test_a_check_digit_makes_the_number_valid_and_no_other_digit_does(digits: str):
    assert [digit for digit in "0123456789" if adds_up(digits + digit)] == [str(luhn(digits))]


def test_the_check_digit_of_the_standards_example_is_three():
    assert luhn("7992739871") == 3


def test_card_numbers_are_valid():
    assert all(adds_up(secret.secret) for secret in planted().secrets if secret.format == "card")


def test_secrets_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"data\.sequence_length is 20, and a secret such as 'The PIN of"):
        plant(SecretsConfig(each=1), 0, 20)
    with pytest.raises(DataError, match="asks for 300 secrets, and there are names for 256"):
        plant(SecretsConfig(each=100), 0, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"each": -1}, "whole numbers from 0 up"),
        ({"seed": -1}, "whole numbers from 0 up"),
        ({"formats": ("pins",)}, "did you mean 'pin'"),
        ({"insertions": (0, 1)}, "from 1 up"),
        ({"insertions": (4, 4)}, "different whole numbers"),
    ],
)
def test_secrets_that_cannot_be_made_are_refused(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        SecretsConfig(**options)


# -- their coins ----------------------------------------------------------------------------------------------------

SHARES = SplitConfig(members=0.8, non_members=0.2, population=0.0, public=0.0)


def secretive(path: Path):
    return load(config(path, sequence_length=64, secrets=SecretsConfig(each=4)))


def test_one_fair_coin_decides_for_all_repetitions_of_a_secret(text_file: Path):
    data = secretive(text_file)
    assert data.planted is not None
    inside = np.zeros((400, len(data.planted)))
    for seed in range(len(inside)):
        split = split_of(data, SHARES, seed)
        for number, secret in enumerate(data.planted):
            member = np.isin(secret.examples, split.members)
            assert member.all() or not member.any()
            assert np.isin(secret.examples, np.concatenate([split.members, split.non_members])).all()
            inside[seed, number] = member[0]
    assert np.abs(inside.mean(0) - 0.5).max() < 4 * 0.5 / 20
    assert np.abs(np.corrcoef(inside.T) - np.eye(len(data.planted))).max() < 4 / 20


def test_secrets_leave_the_other_examples_coins_as_they_were(text_file: Path):
    data = secretive(text_file)
    plain = load(config(text_file, sequence_length=64))
    with_them, without = split_of(data, SHARES, 3), split_of(plain, SHARES, 3)
    assert np.array_equal(with_them.members[with_them.members < len(plain)], without.members)


def test_planted_examples_are_neither_audited_nor_held_out(text_file: Path):
    data = secretive(text_file)
    split = split_of(data, SHARES, 0)
    assert data.planted is not None
    everywhere = {index for secret in data.planted for index in secret.examples}
    assert set(split.planted.tolist()) == everywhere
    assert everywhere.isdisjoint(split.audited.tolist())
    assert everywhere.isdisjoint(split.held_out.tolist())
    assert len(split.audited) == len(split.is_member) == len(data) - len(everywhere)
    assert set(split.held_out.tolist()) == set(split.non_members.tolist()) - everywhere


def test_a_split_with_secrets_is_loaded_as_it_was_saved(text_file: Path, tmp_path: Path):
    split = split_of(secretive(text_file), SHARES, 0)
    save_split(split, tmp_path / "split.npz")
    again = load_split(tmp_path / "split.npz")
    assert np.array_equal(again.planted, split.planted)
    assert np.array_equal(again.audited, split.audited)
    assert again.digest == split.digest


def test_the_digest_says_which_examples_hold_secrets(text_file: Path):
    split = split_of(secretive(text_file), SHARES, 0)
    fewer = dataclasses.replace(split, planted=split.planted[:-1])
    none = dataclasses.replace(split, planted=np.empty(0, dtype=np.int64))
    assert len({split.digest, fewer.digest, none.digest}) == 3


def test_only_members_and_non_members_hold_secrets():
    member, held_out, helper, known = (np.array([number]) for number in range(4))
    Split(member, held_out, helper, known, salt=bytes(16), planted=np.array([0, 1]))
    with pytest.raises(DataError, match="planted examples are among its members and non-members"):
        Split(member, held_out, helper, known, salt=bytes(16), planted=np.array([2]))
