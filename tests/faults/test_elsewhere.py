"""A run that goes on elsewhere: another folder, other threads, other owner and times of its files, the data at another path."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dptrain.checkpoint import load_release
from evaluation import runner
from evaluation.result import read_comparison
from recipes.cli import main
from tests.faults.small import SMALL, STEPS

COLUMNS = ["age:number[0,100]", "weight:number[0,100]"]
RUN = ["run", "digits", "--epsilons", "8", "--baselines", "clip_only", *SMALL, "--data.name", "table", "--data.target", "ill"]
RUN += ["--data.classes", "no", "yes", "--data.columns", *COLUMNS, "--evaluation.attacks", "membership.threshold"]
RUN += ["--privacy.expected-batch-size", "200", "--privacy.delta", "1e-4"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a table that was cut after its first checkpoint, with the table beside it."""
    here = tmp_path_factory.mktemp("here")
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 100, (400, 2), generator=generator)
    lines = [f"{age},{weight},{'yes' if age + weight > 100 else 'no'}" for age, weight in rows.tolist()]
    (here / "mine.csv").write_text("\n".join(["age,weight,ill", *lines]) + "\n")

    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runner, "run_attack", cut)
        assert main([*RUN, "--data.path", str(here / "mine.csv"), "--output", str(here / "run")]) == 130
    return here


@pytest.fixture
def moved(begun: Path, tmp_path: Path) -> Iterator[Path]:
    """All of it, on another machine as it were."""
    there = tmp_path / "there"
    shutil.copytree(begun, there, copy_function=shutil.copyfile)  # neither owner nor times
    for path in there.rglob("*"):
        os.utime(path, (0, 0))
    begun.joinpath("mine.csv").rename(begun / "gone.csv")
    try:
        yield there
    finally:
        begun.joinpath("gone.csv").rename(begun / "mine.csv")


def test_data_that_are_not_there_are_named_with_the_way_to_give_them(moved: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["resume", str(moved / "run")]) == 2
    said = capsys.readouterr().err
    assert "there is no file" in said
    assert "--data.path" in said


def test_data_that_changed_meanwhile_are_refused(moved: Path, capsys: pytest.CaptureFixture[str]):
    path = moved / "mine.csv"
    path.write_text(path.read_text().replace("yes", "no", 1))
    assert main(["resume", str(moved / "run"), "--data.path", str(path)]) == 2
    assert "holds models of other data" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_it_goes_on_there(moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DPTRAIN_LEDGER", str(tmp_path / "another ledger"))
    before, threads = torch.get_num_threads(), torch.set_num_threads
    threads(2)
    try:
        assert main(["resume", str(moved / "run"), "--data.path", str(moved / "mine.csv")]) == 0
    finally:
        threads(before)
    result = read_comparison(moved / "run" / "results.json")
    assert {run.step for run in result.runs} == {STEPS}
    for label in ("clip_only/seed=0", "eps=08.00/seed=0"):
        assert load_release(moved / "run" / label / "release")[1]["steps_taken"] == STEPS
    assert main(["resume", str(moved / "run")]) == 0  # it knows by now where they are
