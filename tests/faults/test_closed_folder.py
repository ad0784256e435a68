"""A folder that cannot be written: said in a sentence before anything is trained, and nothing is spent."""

from pathlib import Path

import pytest

from dptrain.errors import DiskError
from dptrain.files import write_file
from dptrain.private import PrivateTraining
from recipes.cli import main
from tests.faults.places import closed
from tests.faults.small import FIRST, SMALL, cut, train


@pytest.fixture
def no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: object) -> None:
        raise AssertionError("it trained")

    monkeypatch.setattr(PrivateTraining, "step", step)


def test_a_file_says_where_and_what_to_do(tmp_path: Path):
    with closed(tmp_path), pytest.raises(DiskError, match=r"result.json cannot be written \(.*\): make it writable, or give"):
        write_file(tmp_path / "result.json", b"new")


@pytest.mark.usefixtures("no_step")
def test_a_run_is_refused_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with closed(tmp_path):
        assert main(["run", "digits", *SMALL, "--output", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "cannot be written" in said[0]
    assert "--output" in said[0]


def test_a_resume_is_refused_before_anything_is_spent(tmp_path: Path, request: pytest.FixtureRequest):
    cut(tmp_path)
    ledger = (tmp_path / "private" / "ledger.jsonl").read_bytes()
    request.getfixturevalue("no_step")
    with closed(tmp_path), pytest.raises(DiskError, match="cannot be written"):
        train(tmp_path)
    assert (tmp_path / "private" / "ledger.jsonl").read_bytes() == ledger


def test_it_goes_on_where_it_can_be_written_again(tmp_path: Path):
    cut(tmp_path)
    with closed(tmp_path), pytest.raises(DiskError):
        train(tmp_path)
    training = train(tmp_path)
    assert training._first == FIRST
