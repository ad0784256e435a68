"""Private arrays: whole, for their owner alone, and never code."""

import pickle
import stat
from pathlib import Path

import numpy as np
import pytest

from dptrain.arrays import read_arrays, write_arrays
from dptrain.errors import CheckpointError


def read(path: Path, name: str = "a") -> np.ndarray:
    with read_arrays(path, "a whole thing", missing="look for it", damaged="make it again") as arrays:
        return arrays[name]


def test_what_was_written_is_read_and_is_for_its_owner_alone(tmp_path: Path):
    write_arrays(tmp_path / "below" / "it.npz", {"a": np.arange(3), "b": np.array("ü")})
    assert read(tmp_path / "below" / "it.npz").tolist() == [0, 1, 2]
    assert str(read(tmp_path / "below" / "it.npz", "b")) == "ü"
    assert stat.S_IMODE((tmp_path / "below" / "it.npz").stat().st_mode) == 0o600


def test_objects_are_neither_written_nor_read(tmp_path: Path):
    with pytest.raises(ValueError, match="allow_pickle"):
        write_arrays(tmp_path / "it.npz", {"a": np.array([Path()], dtype=object)})
    assert not list(tmp_path.iterdir())
    np.savez(tmp_path / "it.npz", a=np.arange(3), unused=np.array([Path()], dtype=object))
    with pytest.raises(CheckpointError, match=r"not a whole thing .*; make it again"):
        read(tmp_path / "it.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", pickle.dumps([1])])
def test_what_is_no_archive_says_what_to_do(tmp_path: Path, content: bytes):
    (tmp_path / "it.npz").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"it\.npz is not a whole thing \(.+\); make it again"):
        read(tmp_path / "it.npz")
    with pytest.raises(CheckpointError, match=r"gone\.npz is missing; look for it"):
        read(tmp_path / "gone.npz")


def test_an_array_that_is_not_there_says_that_the_file_is_not_whole(tmp_path: Path):
    write_arrays(tmp_path / "it.npz", {"a": np.arange(3)})
    with pytest.raises(CheckpointError, match=r"'b'\); make it again"):
        read(tmp_path / "it.npz", "b")


def test_who_interrupts_reading_is_heard(tmp_path: Path):
    write_arrays(tmp_path / "it.npz", {"a": np.arange(3)})
    with pytest.raises(KeyboardInterrupt), read_arrays(tmp_path / "it.npz", "whole", missing="", damaged=""):
        raise KeyboardInterrupt
