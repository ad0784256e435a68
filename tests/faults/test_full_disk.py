"""A disk that is full: one sentence says so, what was there is whole, and with some space the run goes on."""

import json
import resource
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dptrain.checkpoint import load_release, read_folder, write_folder
from dptrain.errors import DiskError
from dptrain.files import write_file, write_next
from dptrain.ledger import Ledger
from dptrain.plan import PrivacyPlan
from evaluation import runner
from recipes.cli import main
from tests.faults.places import SmallDisk, small_disk
from tests.faults.small import SMALL, train

PLAN = PrivacyPlan(sampling_rate=0.5, expected_batch_size=200, steps=6, clipping_norm=0.5, delta=1e-5, noise_multiplier=1.0)
RUN = ["run", "digits", "--epsilons", "8", "--baselines", "clip_only", *SMALL]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as found:
        yield found


@pytest.mark.parametrize("pages", [0, 1, 2, 3, 4, 5])
def test_a_checkpoint_stays_as_it_was(disk: SmallDisk, pages: int):
    """Wherever space runs out within it."""
    folder, old, new = disk.folder / "release", {"a": b"old", "b": b"old"}, {"a": b"new" * 3000, "b": b"new" * 3000}
    write_folder(folder, old)
    disk.fill(leave=4096 * pages)
    with pytest.raises(DiskError, match=r"release cannot be written \(No space left on device\): make space"):
        write_folder(folder, new)
    assert read_folder(folder) == old
    assert {path.name for path in disk.folder.iterdir()} == {"release", "ballast"}
    disk.free()
    write_folder(folder, new)
    assert read_folder(folder) == new


def test_a_file_stays_as_it_was(disk: SmallDisk):
    write_file(disk.folder / "result.json", b"old")
    disk.fill(leave=4096)
    with pytest.raises(DiskError, match=r"result\.json cannot be written"):
        write_file(disk.folder / "result.json", b"new" * 10000)
    with pytest.raises(DiskError, match="cannot be written"):
        write_next(disk.folder, ".json", b"new" * 10000)
    assert (disk.folder / "result.json").read_bytes() == b"old"
    assert {path.name for path in disk.folder.iterdir()} == {"result.json", "ballast"}


@pytest.mark.parametrize("room", [0, 1, 100, 400])
def test_what_the_ledger_cannot_hold_is_not_spent(tmp_path: Path, room: int):
    """A system may write a part of a line and call that success: the steps that the line announces must not begin.

    The bound is on the size of a file, which cuts a write as a full disk does, at any byte and with no right to mount.
    """
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.reserve(PLAN, 0, 2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (ledger.path.stat().st_size + room, before[1]))
        with pytest.raises((OSError, ValueError)):
            ledger.reserve(PLAN, 2, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heard)
    assert ledger.blocks() == [(PLAN, 0, 2)]
    ledger.reserve(PLAN, 4, 6)
    assert ledger.blocks() == [(PLAN, 0, 2), (PLAN, 4, 6)]


def test_a_training_keeps_its_checkpoint_and_its_account(disk: SmallDisk):
    """Space runs out after the first checkpoint: the next save says so; what was spent behind it is in the ledger."""
    run = disk.folder / "mine"
    with pytest.raises(DiskError, match="checkpoint cannot be written"):
        train(run, lambda checkpoint: disk.fill(leave=8192))
    assert load_release(run / "release")[1]["steps_taken"] == 2
    assert json.loads(read_folder(run / "private" / "checkpoint")["state.json"])["steps_taken"] == 2
    assert [(first, last) for _, first, last in Ledger(run / "private" / "ledger.jsonl").blocks()] == [(0, 4)]
    disk.free()
    train(run)
    assert load_release(run / "release")[1]["steps_taken"] == 4
    assert [(first, last) for _, first, last in Ledger(run / "private" / "ledger.jsonl").blocks()] == [(0, 4), (2, 4)]


def test_a_full_disk_stops_the_whole_run_in_a_sentence(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """And not one job after the other, each of which would spend of its budget, and be lost. First before anything is trained,
    then in the middle of an attack, then while the report is written."""
    root, steps, attack = disk.folder / "run", [], runner.run_attack
    monkeypatch.setattr("dptrain.private.PrivateTraining.step", _counted(steps))
    disk.fill()
    assert main([*RUN, "--output", str(root)]) == 2
    assert not steps
    _one_sentence(capsys)
    disk.free()

    def filled(*arguments: Any) -> Any:
        disk.fill()
        return attack(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(runner, "run_attack", filled)
        assert main([*RUN, "--output", str(root)]) == 2
    _one_sentence(capsys)
    assert len(steps) == 2  # of the first model, up to its first checkpoint
    disk.free()
    assert main(["resume", str(root)]) == 0
    page = (root / "report.html").read_bytes()
    capsys.readouterr()
    disk.fill()
    assert main(["report", str(root), "--format", "html"]) == 2
    _one_sentence(capsys)
    assert (root / "report.html").read_bytes() == page
    disk.free()
    assert main(["report", str(root), "--format", "html"]) == 0
    assert len(list((root / "tradeoff").glob("events.out.tfevents.*.dptrain"))) == 1


def _counted(steps: list[int]) -> Any:
    from dptrain.private import PrivateTraining

    real = PrivateTraining.step

    def step(self: PrivateTraining, batch: Any) -> None:
        if self._announced.ledger is not None:  # no shadow model
            steps.append(batch.step)
        real(self, batch)

    return step


def _one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert "cannot be written (No space left on device): make space" in said[0]


def test_curves_that_cannot_be_written_stop_no_training(disk: SmallDisk, tmp_path: Path):
    disk.fill()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(tmp_path / "run", variant="clip_only", telemetry=disk.folder / "curves")
    assert load_release(tmp_path / "run" / "release")[1]["steps_taken"] == 4
    found = [str(warning.message) for warning in said if "training curves" in str(warning.message)]
    assert len(found) == 1
    assert "No space left on device" in found[0]
