"""The examples of the private page: the right members, as they are, in a file that is whole and for its owner alone."""

import dataclasses
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from dptrain.data import alphabet
from dptrain.data.dataset import DataSet
from dptrain.errors import CheckpointError
from evaluation.membership.gallery import MOST_COLUMNS, SHOWN, choose, load, save
from evaluation.membership.vulnerability import Vulnerability, vulnerability


def found(examples: int = 60, leaking: int = 10) -> Vulnerability:
    """The examples 100 to 159 of a data set; the first ten leak, and every second one is a member."""
    generator = np.random.default_rng(0)
    inside = generator.random((64, examples)) < 0.5
    signals = 4.0 * inside * (np.arange(examples) < leaking) + generator.normal(size=inside.shape)
    is_member = np.arange(examples) % 2 == 0
    return vulnerability(signals, inside, np.arange(100, 100 + examples), is_member, np.arange(examples) / 10)


def images(channels: int = 1, side: int = 4) -> DataSet:
    pixels = torch.rand((200, channels, side, side), generator=torch.Generator().manual_seed(0)) - 0.5
    return DataSet("drawn", pixels, torch.arange(200) % 3, ("a", "b", "c"), (-0.5, 0.5))


def test_the_most_exposed_members_stand_between_their_controls():
    kept = choose(found(), images(), release_digest="d")
    groups = {name: kept.index[np.array(kept.group) == name] for name in ("most", "random", "least")}
    assert all(len(group) == SHOWN for group in groups.values())
    assert set(groups["most"][:5]) == {100, 102, 104, 106, 108}
    assert all((index - 100) % 2 == 0 for index in kept.index)
    assert kept.is_flagged[:5].all()
    assert not kept.is_flagged[-SHOWN:].any()
    assert kept.rate[:SHOWN, 0].min() > kept.rate[-SHOWN:, 0].max()
    assert (kept.rate[:, 1] <= kept.rate[:, 0]).all()
    assert (kept.rate[:, 0] <= kept.rate[:, 2]).all()
    assert (kept.members, kept.flagged_members) == (30, 5)
    assert kept.score == pytest.approx((kept.index - 100) / 10)
    assert [int(index) % 3 for index in kept.index] == [("a", "b", "c").index(label) for label in kept.label]


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_the_examples_own_pixels(channels: int):
    data = images(channels)
    kept = choose(found(), data, release_digest="d")
    assert kept.pictures is not None
    expected = np.rint((data.inputs[int(kept.index[3])].numpy() + 0.5) * 255).transpose(1, 2, 0)
    assert (kept.pictures[3] == expected).all()


def test_sequences_of_a_text_are_shown_as_they_read():
    lines = [f"line {number:03}\nof 200" for number in range(200)]
    targets = torch.stack([alphabet.encode(line) for line in lines])
    bounds = (0.0, float(len(alphabet.LABELS) - 1))
    kept = choose(found(), DataSet("read", targets, targets, alphabet.LABELS, bounds, kind="text"), release_digest="d")
    assert kept.columns == ("text",)
    assert kept.cells[3] == (f"line {int(kept.index[3]):03}\\nof 200",)


@pytest.mark.parametrize("shape", [(2, 4, 4), (16,)])
def test_what_is_no_picture_is_known_by_its_index(shape: tuple[int, ...]):
    data = DataSet("drawn", torch.zeros(200, *shape), torch.arange(200) % 3, ("a", "b", "c"), (-0.5, 0.5))
    kept = choose(found(), data, release_digest="d")
    assert kept.pictures is None
    assert len(kept.index) == 3 * SHOWN


def test_a_tables_rows_are_read_back_as_they_were_written():
    inputs = torch.zeros(200, 3)
    inputs[:, 0] = torch.arange(200) / 200 - 0.5
    inputs[torch.arange(200), 1 + torch.arange(200) % 2] = 1.0
    data = DataSet(
        "patients", inputs, torch.arange(200) % 2, ("no", "yes"), (-0.5, 1.0), kind="table",
        features=("age", "sex is F", "sex is M"), columns=("age:number[0,200]", "sex:category[F,M]"),
    )  # fmt: skip
    kept = choose(found(), data, release_digest="d")
    assert kept.columns == ("age", "sex")
    assert kept.cells == tuple((str(index), "FM"[index % 2]) for index in kept.index.tolist())
    of_a_script = choose(found(), dataclasses.replace(data, columns=()), release_digest="d")
    assert of_a_script.columns == ("age", "sex is F", "sex is M")
    assert of_a_script.cells[0][1:] == ("1", "0")


def test_a_wide_table_is_cut_and_says_so():
    data = DataSet("wide", torch.zeros(200, 100), torch.zeros(200).long(), ("a", "b"), (0.0, 1.0), kind="table")
    kept = choose(found(), data, release_digest="d")
    assert (len(kept.columns), len(kept.cells[0]), kept.all_columns) == (MOST_COLUMNS, MOST_COLUMNS, 100)


@pytest.mark.parametrize("kind", ["image", "table"])
def test_the_file_gives_back_what_was_saved_and_is_for_its_owner_alone(tmp_path: Path, kind: str):
    table = DataSet("t", torch.rand(200, 2), torch.zeros(200).long(), ("ä", "b"), (0.0, 1.0), kind="table", features=("x", "ÿ"))
    kept = choose(found(), images() if kind == "image" else table, release_digest="d")
    save(kept, tmp_path / "private" / "v.npz")
    assert stat.S_IMODE((tmp_path / "private" / "v.npz").stat().st_mode) == 0o600
    again = load(tmp_path / "private" / "v.npz")
    for item in dataclasses.fields(kept):
        before, after = getattr(kept, item.name), getattr(again, item.name)
        assert type(before) is type(after), item.name
        assert np.array_equal(before, after) if isinstance(before, np.ndarray) else before == after, item.name


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"not an archive"])
def test_a_damaged_file_says_what_to_type(tmp_path: Path, content: bytes):
    (tmp_path / "v.npz").write_bytes(content)
    with pytest.raises(CheckpointError, match="dptrain evaluate"):
        load(tmp_path / "v.npz")


def test_a_file_of_other_parts_is_refused(tmp_path: Path):
    kept = choose(found(), images(), release_digest="d")
    save(dataclasses.replace(kept, label=kept.label[:-1]), tmp_path / "v.npz")
    with pytest.raises(CheckpointError, match="same examples"):
        load(tmp_path / "v.npz")
    with pytest.raises(CheckpointError, match="missing"):
        load(tmp_path / "gone.npz")
