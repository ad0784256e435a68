"""A table of texts: whose each sequence is, and that no sequence is of two users."""

import csv
import dataclasses
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dptrain.data import load
from dptrain.data.alphabet import CHARACTERS, decode
from dptrain.data.dataset import DataSet
from dptrain.data.split import split_of
from dptrain.data.text_table import read
from dptrain.errors import DataError
from dptrain.recipe import DataConfig, SecretsConfig, SplitConfig

ROWS = [
    ("Ada", "It rains."),
    ("Bela", "So it does, and more, they say."),
    (" Ada ", "Then I stay here, I think."),
    ("Cato", "Oh"),
]
COLUMNS = {"text_column": "text", "user_column": "user"}
SHARES = SplitConfig(members=0.5, non_members=0.25, population=0.25, public=0.0)


def table(path: Path, rows: list[tuple[str, str]]) -> Path:
    """The rows as the file's ending has them."""
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"id": 0, "user": user, "text": text}) for user, text in rows))
        return path
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(["id", "user", "text"])
        writer.writerows([0, user, text] for user, text in rows)
    return path


def config(path: Path, **options) -> DataConfig:
    return DataConfig(name="text", path=str(path), **{"sequence_length": 10, **COLUMNS, **options})


def users_of(data: DataSet) -> np.ndarray:
    assert data.users is not None
    return data.users.numpy()


# -- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".CSV"])
def test_each_user_is_cut_by_themselves_in_the_order_of_the_table(tmp_path: Path, ending: str):
    data = load(config(table(tmp_path / f"posts{ending}", ROWS)))
    assert [decode(row) for row in data.targets] == [
        "It rains.\n", "Then I sta", "y here, I ", "So it does", ", and more", ", they say",
    ]  # fmt: skip
    assert users_of(data).tolist() == [0, 0, 0, 1, 1, 1]  # and Cato, who wrote less than one sequence, is in none
    assert data.is_language


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.text(alphabet=CHARACTERS, max_size=40)), min_size=1), st.integers(1, 12))
def test_no_sequence_is_of_two_users_and_nothing_of_a_user_is_twice(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], length: int
):
    written: dict[str, str] = defaultdict(str)
    for user, text in rows:
        written[user] += f"{text}\n"
    whole = [text[: len(text) // length * length] for text in written.values() if len(text) >= length]
    path = table(tmp_path_factory.mktemp("texts") / "posts.jsonl", rows)
    if not whole:
        with pytest.raises(DataError, match="no user with as many characters"):
            load(config(path, sequence_length=length))
        return
    data = load(config(path, sequence_length=length))
    owners = users_of(data)
    found = ["".join(decode(row) for row in data.targets[owners == user]) for user in np.unique(owners)]
    assert found == whole


def test_a_text_is_taken_as_it_stands_and_may_be_as_long_as_it_likes(tmp_path: Path):
    text = '  two  spaces, "quotes",\ttabs\n\n' + "x" * 200_000
    for ending in (".csv", ".tsv", ".jsonl"):
        before = csv.field_size_limit()
        assert read(table(tmp_path / f"long{ending}", [("Ada", text)]), config(tmp_path)).by_user == (f"{text}\n",)
        assert csv.field_size_limit() == before


def test_only_the_first_characters_of_the_table_are_used_where_that_is_asked_for(tmp_path: Path):
    path = table(tmp_path / "posts.csv", ROWS)
    assert read(path, config(path, characters=14)).by_user == ("It rains.\n", "So i")


def test_a_table_without_users_is_one_text(tmp_path: Path):
    data = load(config(table(tmp_path / "posts.csv", ROWS), user_column=None))
    assert data.users is None
    assert decode(data.targets.flatten()).startswith("It rains.\nSo it does, and more, they say.\n Then I"[:40])


def test_a_number_is_a_name_like_its_digits(tmp_path: Path):
    path = tmp_path / "posts.jsonl"
    path.write_text('{"user": 7, "text": "abcdefghi"}\n\n{"user": "7", "text": "jklmnopqr"}\n')
    assert read(path, config(path)).by_user == ("abcdefghi\njklmnopqr\n",)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", "user,text\nA,b\n", {"text_column": "texts"}, r"data\.text_column names 'texts'.*did you mean 'text'"),
        ("a.csv", "user,text\nA,b\n", {"user_column": "usr"}, r"data\.user_column names 'usr'.*did you mean 'user'"),
        ("a.jsonl", '{"text": "b"}\n', {}, r"data\.user_column names 'user', which .*line 1, does not have"),
        ("a.csv", "user,text\nA,b\n", {"user_column": "text"}, "name two columns"),
        ("a.csv", "user,text,text\nA,b,c\n", {}, "several columns named 'text'"),
        ("a.csv", "user,text\nA,b\n", {"text_column": None}, "a table by its ending, and data.text_column is not given"),
        ("a.txt", "user,text\nA,b\n", {}, r"data\.text_column is 'text' and .*no table by its ending"),
        ("a.txt", "user,text\nA,b\n", {"text_column": None}, r"data\.user_column is 'user' and .*no table by its ending"),
        ("a.csv", "user,text\n,b\n", {}, "line 2: 'user' holds '', and whose the text is must be known"),
        ("a.csv", "user,text\nA,b\nB\n", {}, "line 3: 1 cells, and the header has 2"),
        ("a.csv", 'user,text\nA,"b\n', {}, "cannot be read as a table of texts"),
        ("a.jsonl", '{"user": true, "text": "b"}', {}, "line 1: 'user' holds True"),
        ("a.jsonl", '{"user": "A", "text": 3}', {}, "line 1: 'text' holds 3, which is no text"),
        ("a.jsonl", "[]", {}, "line 1: no object"),
        ("a.jsonl", "{", {}, "cannot be read as a table of texts"),
        ("a.csv", "user,text\nA,b\n", {}, "no user with as many characters as data.sequence_length, 10"),
        ("a.csv", None, {}, "there is no file"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: str | None, options: dict, message: str):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        load(config(path, **options))


def test_who_speaks_in_shakespeare_is_known(speeches: Path):
    data = load(config(speeches, text_column="speech", user_column="speaker", sequence_length=64))
    owners = users_of(data)
    assert len(np.unique(owners)) > 200
    assert decode(data.targets[owners == 0].flatten()).startswith("Before we proceed any further, hear me speak.\n")
    assert len(data) > 12_000


# -- users, secrets and coins ---------------------------------------------------------------------------------------


@pytest.fixture
def secretive(tmp_path: Path) -> DataSet:
    rows = [(f"user {number % 40}", "Once more unto the breach, dear friends. " * (1 + number % 5)) for number in range(200)]
    path = table(tmp_path / "posts.csv", rows)
    return load(config(path, sequence_length=64, secrets=SecretsConfig(each=4, insertions=(1, 5))))


def test_a_secret_is_one_made_up_user_with_all_of_its_repetitions(secretive: DataSet):
    owners, secrets = users_of(secretive), secretive.planted
    assert secrets is not None
    theirs = [set(owners[list(secret.examples)].tolist()) for secret in secrets]
    assert all(len(users) == 1 for users in theirs)
    assert len(set.union(*theirs)) == len(secrets)
    real = np.setdiff1d(np.arange(len(secretive)), [index for secret in secrets for index in secret.examples])
    assert set.union(*theirs).isdisjoint(owners[real].tolist())


def test_where_the_unit_is_the_user_one_coin_decides_for_all_of_their_examples(secretive: DataSet):
    owners, names = users_of(secretive), np.unique(users_of(secretive))
    inside = np.zeros((300, len(names)))
    for seed in range(len(inside)):
        split = split_of(secretive, SHARES, seed, "user")
        assert split.drawn == "users"
        parts = [set(owners[part].tolist()) for part in (split.members, split.non_members, split.population, split.public)]
        assert sum(map(len, parts)) == len(names)
        inside[seed] = np.isin(names, list(parts[0]))
    planted = len(secretive.planted or ())
    assert np.abs(inside.mean(0) - 0.5).max() < 4 * 0.5 / np.sqrt(300)
    assert np.abs(np.corrcoef(inside.T) - np.eye(len(names))).max() < 4.5 / np.sqrt(300)
    assert len(names) == 40 + planted


def test_where_the_unit_is_the_example_users_are_taken_apart(secretive: DataSet):
    split, owners = split_of(secretive, SHARES, 0), users_of(secretive)
    assert split.drawn == "coins"
    assert set(owners[split.members]) & set(owners[split.non_members])
    nobodys = dataclasses.replace(secretive, users=None)
    assert split_of(nobodys, SHARES, 0).is_same(split)


@pytest.mark.parametrize("shares", [SplitConfig(per_class=3), SplitConfig(test="published")])
def test_a_split_that_would_take_users_apart_is_refused(secretive: DataSet, shares: SplitConfig):
    with pytest.raises(DataError, match=r"data\.split\.(per_class|test) is given and privacy\.unit is 'user'"):
        split_of(dataclasses.replace(secretive, published_test=10), shares, 0, "user")
