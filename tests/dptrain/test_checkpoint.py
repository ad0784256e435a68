"""A checkpoint is whole, unchanged, and cannot run code; or it is refused by name."""

import contextlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dptrain import checkpoint
from dptrain.errors import CheckpointError

WEIGHTS = {"linear.weight": torch.arange(6.0).view(2, 3), "linear.bias": torch.zeros(2)}


class Hostile:
    """Unpickling this makes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (os.system, (f"touch {self.mark}",))


def test_a_release_comes_back_as_it_was(tmp_path: Path):
    checkpoint.save_release(tmp_path / "release", WEIGHTS, {"plan": {"steps": 3}})
    weights, card = checkpoint.load_release(tmp_path / "release")
    assert card == {"plan": {"steps": 3}}
    assert all(torch.equal(weights[name], value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize("name", ["model.safetensors", "card.json"])
def test_one_flipped_bit_is_refused_by_the_files_name(tmp_path: Path, name: str):
    checkpoint.save_release(tmp_path / "release", WEIGHTS, {"a": 1})
    path = tmp_path / "release" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        checkpoint.load_release(tmp_path / "release")


def test_a_planted_pickle_never_runs(tmp_path: Path):
    """Sharp edge 18: in place of the weights, with a manifest that vouches for it, and beside them."""
    mark = tmp_path / "it-ran"
    evil = tmp_path / "evil.pt"
    torch.save(Hostile(mark), evil)
    release = tmp_path / "release"
    checkpoint.write_folder(release, {"model.safetensors": evil.read_bytes(), "card.json": b"{}"})
    with pytest.raises(CheckpointError, match="safetensors"):
        checkpoint.load_release(release)
    checkpoint.save_release(release, WEIGHTS, {})
    (release / "extra.pt").write_bytes(pickle.dumps(Hostile(mark)))
    with pytest.raises(CheckpointError, match=r"extra\.pt"):
        checkpoint.load_release(release)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Hostile(mark)))  # the trap itself works
    assert mark.exists()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "..", "a/b"])
def test_a_manifest_cannot_point_outside(tmp_path: Path, name: str):
    checkpoint.save_release(tmp_path / "release", WEIGHTS, {})
    path = tmp_path / "release" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="manifest"):
        checkpoint.load_release(tmp_path / "release")


@pytest.mark.parametrize("damage", ["missing file", "missing manifest", "torn manifest", "other format", "nothing"])
def test_what_is_not_whole_is_refused(tmp_path: Path, damage: str):
    release = tmp_path / "release"
    if damage != "nothing":
        checkpoint.save_release(release, WEIGHTS, {})
    if damage == "missing file":
        (release / "card.json").unlink()
    if damage == "missing manifest":
        (release / "manifest.json").unlink()
    if damage == "torn manifest":
        (release / "manifest.json").write_text('{"format": "dptrain')
    if damage == "other format":
        (release / "manifest.json").write_text('{"format": "dptrain.checkpoint/9", "files": {}}')
    with pytest.raises(CheckpointError):
        checkpoint.load_release(release)


@pytest.mark.parametrize("stop_after", range(1, 12))
def test_a_save_that_stops_anywhere_leaves_the_old_or_the_new_version(
    tmp_path: Path, stop_after: int, monkeypatch: pytest.MonkeyPatch
):
    """Every call that changes the disk is a place to die: the old version or the new one is read, whole."""
    folder = tmp_path / "release"
    checkpoint.write_folder(folder, {"a": b"old", "b": b"old"})
    calls = 0

    def counted(original):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == stop_after:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patched:
        for name in ("rename", "fsync"):
            patched.setattr(os, name, counted(getattr(os, name)))
        patched.setattr(checkpoint.shutil, "rmtree", counted(checkpoint.shutil.rmtree))
        with contextlib.suppress(KeyboardInterrupt):
            checkpoint.write_folder(folder, {"a": b"new", "b": b"new"})
    assert checkpoint.read_folder(folder) in ({"a": b"old", "b": b"old"}, {"a": b"new", "b": b"new"})
    checkpoint.write_folder(folder, {"a": b"third"})
    assert checkpoint.read_folder(folder) == {"a": b"third"}


WRITER = """
import sys
from pathlib import Path
from dptrain.checkpoint import write_folder
folder = Path(sys.argv[1])
number = 0
while True:
    number += 1
    content = str(number).encode() * 200_000
    write_folder(folder, {"a": content, "b": content, "c": content})
    print(number, flush=True)
"""


@pytest.mark.slow
def test_kill_9_during_a_save_never_leaves_a_checkpoint_that_loads_wrongly(tmp_path: Path):
    """A process that saves without pause is killed at random moments; what is read is one version, whole, and the last
    one that was announced, or the one after it."""
    folder = tmp_path / "release"
    chance = random.Random(0)
    for _ in range(12):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            announced = int(writer.stdout.readline())
            time.sleep(chance.random() * 0.15)
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split()
        announced = int(rest[-1]) if rest else announced
        files = checkpoint.read_folder(folder)
        assert files["a"] == files["b"] == files["c"]
        assert files["a"][: len(str(announced))] in (
            str(announced).encode(),
            str(announced + 1).encode()[: len(str(announced))],
        )
