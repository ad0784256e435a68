"""A split is drawn once, by independent coins, and can be proved later without telling who is in it."""

import dataclasses
import os
import pickle
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dptrain.data.split import PARTS, SHARED, Split, draw, load, save
from dptrain.errors import CheckpointError, ConfigError, DataError
from dptrain.recipe import SplitConfig

DEFAULT = SplitConfig()


@st.composite
def shares(drawn: st.DrawFn) -> SplitConfig:
    parts = [drawn(st.integers(1, 10)), *(drawn(st.integers(0, 10)) for _ in range(3))]
    given: dict[str, Any] = {name: part / sum(parts) for name, part in zip(SHARED, parts, strict=True)}
    return SplitConfig(**given)


@given(examples=st.integers(1, 400), shares=shares(), seed=st.integers(0, 2**63))
@settings(deadline=None)
def test_every_example_is_in_exactly_one_part(examples: int, shares: SplitConfig, seed: int):
    try:
        split = draw(examples, shares, seed)
    except DataError:
        assume(False)
        return
    together = np.concatenate([getattr(split, part) for part in PARTS])
    assert np.array_equal(np.sort(together), np.arange(examples))
    assert split.size == examples
    assert len(split.test) == 0
    assert np.array_equal(split.held_out, split.non_members)
    for part in SHARED:
        indices = getattr(split, part)
        assert indices.dtype == np.int64
        assert np.all(np.diff(indices) > 0)
        assert (len(indices) > 0) == (getattr(shares, part) > 0)


def test_a_published_test_part_measures_utility_and_takes_part_in_nothing_else(tmp_path: Path):
    shares = SplitConfig(members=0.9, non_members=0.1, population=0.0, public=0.0, test="published")
    split = draw(1000, shares, 0, published_test=200)
    assert np.array_equal(split.test, np.arange(800, 1000))
    assert np.array_equal(split.held_out, split.test)
    assert np.array_equal(split.audited, np.arange(800))
    assert np.array_equal(np.sort(np.concatenate([split.members, split.non_members])), np.arange(800))
    save(split, tmp_path / "split.npz")
    assert load(tmp_path / "split.npz").is_same(split)
    assert not split.is_same(draw(1000, DEFAULT, 0, published_test=200))


def test_a_published_test_part_that_is_not_asked_for_is_split_like_the_rest():
    assert draw(1000, DEFAULT, 0, published_test=200).is_same(draw(1000, DEFAULT, 0))


def test_a_published_test_part_that_does_not_exist_is_refused():
    with pytest.raises(DataError, match=r"no test part of its own; give 'non_members'"):
        draw(1000, SplitConfig(test="published"), 0)


def test_membership_is_known_for_members_and_non_members_alone():
    split = draw(500, DEFAULT, 3)
    assert np.array_equal(split.audited[split.is_member], split.members)
    assert np.array_equal(split.audited[~split.is_member], split.non_members)
    assert not np.isin(split.audited, split.population).any()


def test_the_same_seed_gives_the_same_split_for_good():
    """The literal indices: another numpy, another computer, the same split."""
    first, second = draw(1000, DEFAULT, 7), draw(1000, DEFAULT, 7)
    for part in PARTS:
        assert np.array_equal(getattr(first, part), getattr(second, part))
    assert first.members[:12].tolist() == [1, 6, 9, 10, 11, 13, 14, 18, 20, 22, 23, 24]


def test_another_seed_gives_another_split():
    assert not np.array_equal(draw(1000, DEFAULT, 0).members, draw(1000, DEFAULT, 1).members)


def test_each_example_has_a_coin_of_its_own():
    """Sizes vary as independent coins make them vary, and one example tells nothing about another."""
    half = SplitConfig(members=0.5, non_members=0.5, population=0.0, public=0.0)
    table = np.zeros((800, 60))
    for seed in range(800):
        table[seed, draw(60, half, seed).members] = 1
    sizes = table.sum(axis=1)
    assert abs(sizes.mean() - 30) < 0.7
    assert sizes.var() == pytest.approx(60 * 0.25, rel=0.2)
    correlations = np.asarray(np.corrcoef(table.T))[np.triu_indices(60, 1)]
    assert abs(correlations.mean()) < 0.01


def test_shares_that_add_up_to_a_little_less_than_one_leave_no_gap(monkeypatch: pytest.MonkeyPatch):
    class Highest:
        def __init__(self, bits: object):
            del bits

        def random(self, size: int) -> np.ndarray:
            return np.linspace(0, np.nextafter(1, 0), size)

    monkeypatch.setattr(np.random, "Generator", Highest)
    split = draw(100, SplitConfig(members=0.7, non_members=0.2, population=0.1, public=0.0), 0)
    assert len(split.public) == 0


@pytest.mark.parametrize("examples", [0, 1, 3])
def test_a_data_set_too_small_for_its_parts_is_refused(examples: int):
    with pytest.raises(DataError, match=rf"{examples} examples.*too few.*--data\.split\."):
        draw(examples, DEFAULT, 0)


def test_a_negative_seed_is_refused():
    with pytest.raises(DataError, match=r"seed is -1"):
        draw(100, DEFAULT, -1)


def test_per_class_draws_as_many_members_of_each_class_and_holds_out_the_others(tmp_path: Path):
    targets = torch.arange(60) % 3
    split = draw(60, SplitConfig(per_class=7), 0, targets=targets)
    assert targets[split.members].bincount().tolist() == [7, 7, 7]
    assert targets[split.non_members].bincount().tolist() == [13, 13, 13]
    assert len(split.population) == len(split.public) == 0
    assert split.is_same(draw(60, SplitConfig(per_class=7), 0, targets=targets))
    assert not split.is_same(draw(60, SplitConfig(per_class=7), 1, targets=targets))
    save(split, tmp_path / "split.npz")
    assert load(tmp_path / "split.npz").drawn == split.drawn == "per_class"
    assert draw(60, DEFAULT, 0).drawn == "coins"


def test_per_class_holds_one_of_each_class_out_and_must_know_the_classes():
    with pytest.raises(DataError, match="class 2 has 3 examples, of which one at least is held out"):
        draw(11, SplitConfig(per_class=3), 0, targets=torch.arange(11) % 3)
    with pytest.raises(DataError, match=r"targets=data\.targets"):
        draw(10, SplitConfig(per_class=3), 0)
    with pytest.raises(ConfigError, match="per_class is 0"):
        SplitConfig(per_class=0)
    with pytest.raises(ConfigError, match="the non-members measure utility"):
        SplitConfig(per_class=3, test="published")


def test_the_digest_tells_nobody_who_is_in_it():
    """Same lists, another salt: another digest, so a guess of the lists cannot be confirmed without the salt."""
    split = draw(100, DEFAULT, 0)
    again = draw(100, DEFAULT, 0)
    assert len(split.salt) == 16
    assert split.salt != again.salt
    assert split.digest != again.digest
    assert dataclasses.replace(again, salt=split.salt).digest == split.digest


def test_the_digest_depends_on_every_list():
    split = draw(100, DEFAULT, 0)
    swapped = dataclasses.replace(split, members=split.non_members, non_members=split.members)
    moved = dataclasses.replace(
        split, members=split.members[1:], public=np.sort(np.concatenate([split.public, split.members[:1]]))
    )
    assert len({split.digest, swapped.digest, moved.digest}) == 3


def test_the_salt_is_not_printed():
    split = draw(100, DEFAULT, 0)
    assert "salt" not in repr(split)
    assert repr(split.salt) not in repr(split)


def two_parts(members: list[int], non_members: list[int], salt: bytes = bytes(16)) -> Split:
    empty = np.array([], dtype=np.int64)
    return Split(members=np.array(members), non_members=np.array(non_members), population=empty, public=empty, salt=salt)


@pytest.mark.parametrize(
    ("members", "non_members", "message"),
    [
        ([0, 1], [1, 2], "not disjoint"),
        ([0, 1], [3], "leave examples out"),
        ([1, 0], [2], "not sorted"),
        ([0, 0], [1], "twice"),
        ([-1, 0], [1], "disjoint"),
    ],
)
def test_lists_that_are_no_split_are_refused(members: list[int], non_members: list[int], message: str):
    with pytest.raises(DataError, match=message):
        two_parts(members, non_members)


def test_a_short_salt_is_refused():
    with pytest.raises(DataError, match="salt has 3 bytes"):
        two_parts([0], [1], salt=b"abc")


@pytest.mark.parametrize("seed", [0, 2**40, None])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, seed: int | None):
    split = dataclasses.replace(draw(300, DEFAULT, 5), seed=seed)
    path = tmp_path / "private" / "split.npz"
    save(split, path)
    loaded = load(path)
    assert loaded.digest == split.digest
    assert loaded.seed == seed
    assert loaded.salt == split.salt


def test_a_saved_split_is_for_its_owner_alone(tmp_path: Path):
    path = tmp_path / "split.npz"
    save(draw(300, DEFAULT, 5), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["split.npz"]


def test_a_writer_that_dies_leaves_the_old_split_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "split.npz"
    old = draw(300, DEFAULT, 5)
    save(old, path)

    def full_disk(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(draw(300, DEFAULT, 6), path)
    assert load(path).digest == old.digest
    assert os.listdir(tmp_path) == ["split.npz"]


def test_a_missing_split_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"gone\.npz is missing"):
        load(tmp_path / "gone.npz")


def test_a_truncated_split_is_refused_at_every_length(tmp_path: Path):
    path = tmp_path / "split.npz"
    save(draw(300, DEFAULT, 5), path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"split\.npz"):
            load(path)


@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(deadline=None, max_examples=200)
def test_a_changed_split_is_refused_or_still_says_the_same(tmp_path_factory: pytest.TempPathFactory, place: float, flip: int):
    """Some bytes of a zip archive mean nothing, such as time stamps; no other change goes unseen."""
    path = tmp_path_factory.mktemp("split") / "split.npz"
    split = draw(60, DEFAULT, 5)
    save(split, path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= flip
    path.write_bytes(content)
    try:
        loaded = load(path)
    except CheckpointError:
        return
    assert loaded.digest == split.digest


def test_a_split_that_someone_edited_is_refused(tmp_path: Path):
    path = tmp_path / "split.npz"
    save(draw(300, DEFAULT, 5), path)
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    arrays["members"], arrays["non_members"] = arrays["non_members"], arrays["members"]
    np.savez(path, allow_pickle=False, **arrays)
    with pytest.raises(CheckpointError, match="digest differs"):
        load(path)


class Harmful:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("container", ["zip", "npy", "pickle"])
def test_nothing_in_a_split_file_is_unpickled(tmp_path: Path, container: str):
    path, trap = tmp_path / "split.npz", tmp_path / "trap"
    payload = np.array([Harmful(trap)], dtype=object)
    if container == "zip":
        save(draw(300, DEFAULT, 5), path)
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        np.savez(path, **{**arrays, "members": payload})
    elif container == "npy":
        with path.open("wb") as handle:
            np.save(handle, payload)
    else:
        path.write_bytes(pickle.dumps(Harmful(trap)))
    assert zipfile.is_zipfile(path) == (container == "zip")
    with pytest.raises(CheckpointError, match=r"split\.npz"):
        load(path)
    assert not trap.exists()
