"""``dptrain ledger``: what each data set has spent, and who may not begin."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dptrain.data
from dptrain import Trainer, accounting
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, split_of
from dptrain.errors import PlanError
from dptrain.ledger import Account, Total, accounts
from dptrain.plan import PrivacyPlan
from dptrain.recipe import DataConfig, Recipe
from dptrain.trainer import Checkpoint
from recipes import comparison
from recipes.cli import main
from recipes.ledger import find, lines_of
from tests.conftest import leave_undrawn

SMALL = ["--seeds", "0", "--training.steps", "10", "--evaluation.attacks", "membership.threshold"]
PRIVATE = ["--epsilons", "8", "4", "--baselines"]
KEYS = {"data", "name", "entries", "runs", "without_guarantee", "failed", "unfinished", "spent", "selected", "only_selected"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledgers' folder after ``dptrain run digits``."""
    place = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPTRAIN_LEDGER", str(place / "ledgers"))
        leave_undrawn(patch)
        options = ["--epsilons", "inf", "8", "4", "--baselines"]
        assert main(["run", "digits", *options, *SMALL, "--output", str(place / "mine")]) == 0
    return place / "ledgers"


@pytest.fixture
def after_a_run(kept: Path, ledgers: Path) -> Path:
    shutil.copytree(kept, ledgers)
    return ledgers


def digits() -> DataSet:
    return dptrain.data.load(DataConfig(name="digits"))


def trainer(folder: Path, *flags: str, steps: int = 10, total: Total | None = None, callback: object = None) -> Trainer:
    options = ["--epsilons", "8", "--baselines", "--seeds", "0", "--training.steps", str(steps), *flags]
    (job,) = comparison.load("digits", options).jobs()
    data = digits()
    split: Split = split_of(data, job.recipe.data.split, 0, "example")
    given = () if callback is None else (callback,)
    return Trainer(
        job.recipe, data, split, seed=0, folder=folder, label="mine", progress=False, total=total, callbacks=given  # pyright: ignore
    )  # fmt: skip


def plan_of(recipe: Recipe) -> PrivacyPlan:
    return PrivacyPlan.from_config(recipe.privacy, recipe.training.steps)


# -- what it says -----------------------------------------------------------------------------------------------------


def test_every_data_set_is_listed_with_what_it_has_spent(after_a_run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["ledger"]) == 0
    said = capsys.readouterr().out
    assert "3 runs, of which 1 without a guarantee" in said
    assert "example, add_or_remove_one: ε = " in said
    assert "largest single ε 8.00" in said
    assert "no total is stated" in said
    assert main(["ledger", "--format", "json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert document.keys() >= KEYS
    (spent,) = document["spent"]
    assert 8.0 < spent["epsilon"] < 12.0
    assert spent["largest"] == pytest.approx(8.0, abs=0.02)
    assert (spent["runs"], spent["steps"]) == (2, 20)


def test_a_data_sets_runs_are_listed_one_a_line(after_a_run: Path, capsys: pytest.CaptureFixture[str]):
    (account,) = accounts()
    for word in ("digits", account.data[:8], account.data):
        assert main(["ledger", word]) == 0
        said = capsys.readouterr().out.splitlines()
        for label, epsilon in (("non_private/seed=0", "∞"), ("eps=08.00/seed=0", "8.00"), ("eps=04.00/seed=0", "4.00")):
            (line,) = [line for line in said if label in line]
            assert line.split()[-3:-2] == [epsilon]
            assert line.endswith("done")
        assert any("read without a training, by attacks: 3 times" in line for line in said)
    assert [entry["what"] for entry in account.entries() if entry["kind"] == "read"] == [
        "attacks on step 10: membership.threshold"
    ] * 3


def test_a_data_set_that_nothing_read_and_a_name_that_there_is_not(
    after_a_run: Path, capsys: pytest.CaptureFixture[str], shared_data: Path
):
    assert main(["ledger", "digit"]) == 2
    assert "did you mean 'digits'?" in capsys.readouterr().err
    assert main(["ledger", "sms"]) == 0
    assert "0 runs" in capsys.readouterr().out
    for wrong in (["ledger", "--epsilon", "3"], ["ledger", "digits", "--fromat", "json"]):
        assert main(wrong) == 2
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["digits"], "--epsilon and --delta are not given; type `dptrain ledger limit DATA"),
        (["digits", "--epsilon", "10"], "--delta is not given; type"),
        (["--epsilon", "10", "--delta", "1e-5"], "no data set is named; type"),
        (["digits", "sms", "--epsilon", "10", "--delta", "1e-5"], "2 data sets are named; type"),
    ],
)
def test_what_a_limit_lacks_is_said(typed: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["ledger", "limit", *typed]) == 2
    assert said in capsys.readouterr().err


def test_before_the_first_run_it_says_where_ledgers_will_be(ledgers: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["ledger"]) == 0
    assert str(ledgers) in capsys.readouterr().out
    assert main(["ledger", "check"]) == 0


# -- check ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["first", "middle", "last"])
def test_check_names_the_line_that_was_removed_and_its_exit_code_is_1(
    after_a_run: Path, line: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["ledger", "check"]) == 0
    assert "whole   digits" in capsys.readouterr().out
    (path,) = after_a_run.glob("*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    number = {"first": 1, "middle": 5, "last": len(lines)}[line]
    path.write_text("".join([*lines[: number - 1], *lines[number:]]))
    assert main(["ledger", "check"]) == 1
    named = "the last line was removed" if line == "last" else f"line {number} was removed"
    assert named in capsys.readouterr().out
    assert main(["ledger"]) == 1
    assert named in capsys.readouterr().err
    path.unlink()
    assert main(["ledger", "check", "--format", "json"]) == 1
    (document,) = json.loads(capsys.readouterr().out)
    assert f"the last {len(lines)} lines were removed" in document["error"]


# -- totals -----------------------------------------------------------------------------------------------------------


def test_a_comparison_that_would_pass_its_total_is_refused_before_anything_is_trained(
    after_a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "more"
    refused = ["run", "digits", *PRIVATE, *SMALL, "--output", str(output), "--total-epsilon", "12"]
    assert main([*refused, "--epsilons", "8", "inf"]) == 2
    assert "passed by any run without a guarantee" in capsys.readouterr().err
    assert main(refused) == 2
    assert "was passed by 1 earlier runs without a guarantee" in capsys.readouterr().err
    assert main([*refused, "--unprotected", "allowed"]) == 2
    said = capsys.readouterr().err
    assert "the total of ε = 12 that `--total-epsilon` states for the data set digits would be passed" in said
    assert not output.exists()
    assert accounts()[0].statement().runs == 3


@pytest.mark.usefixtures("undrawn")
def test_a_comparison_within_its_total_is_trained_and_goes_on_to_its_end(tmp_path: Path):
    options = [*PRIVATE, *SMALL, "--output", str(tmp_path / "mine")]
    wanted = comparison.load("digits", options)
    both = accounting.epsilon_pld(
        accounting.ComposedDpEvent([plan_of(job.recipe).event() for job in wanted.jobs()]), wanted.recipe.privacy.delta
    )
    assert main(["run", "digits", *options, "--total-epsilon", f"{both + 0.01}"]) == 0
    assert main(["resume", str(tmp_path / "mine")]) == 0  # all of it is spent, and none of it is to come
    shutil.rmtree(tmp_path / "mine" / "eps=04.00")
    assert main(["resume", str(tmp_path / "mine")]) == 2


def test_a_stated_total_refuses_a_run_that_starts_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["ledger", "limit", "digits", "--epsilon", "5", "--delta", "1e-4"]) == 0
    assert "total ε = 5 at δ = 0.0001: about 5 left" in capsys.readouterr().out
    refused = trainer(tmp_path / "mine")
    with pytest.raises(PlanError, match=r"`dptrain ledger limit` states for the data set digits would be passed"):
        refused.run()
    assert refused.training.steps_taken == 0
    assert accounts()[0].runs()[0].status == "failed"
    assert main(["run", "digits", *PRIVATE, *SMALL, "--output", str(tmp_path / "all")]) == 2
    assert not (tmp_path / "all").exists()
    assert main(["ledger", "limit", "digits", "--epsilon", "9", "--delta", "1e-4"]) == 2
    assert "--why" in capsys.readouterr().err
    assert main(["ledger", "limit", "digits", "--epsilon", "9", "--delta", "1e-4", "--why", "agreed"]) == 0
    trainer(tmp_path / "mine").run()
    (run,) = accounts()[0].runs()
    assert (run.status, run.steps) == ("done", 10)


# -- runs that do not end as they should --------------------------------------------------------------------------------


def test_failed_and_interrupted_runs_count_what_they_took(tmp_path: Path):
    def breaks(_: Checkpoint) -> None:
        raise RuntimeError("out of paper")

    def stops(_: Checkpoint) -> None:
        raise KeyboardInterrupt

    every = ["--training.checkpoint-every", "5"]
    with pytest.raises(RuntimeError):
        trainer(tmp_path / "a", *every, callback=breaks).run()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "b", *every, callback=stops).run()
    assert [(run.status, run.steps, run.why) for run in accounts()[0].runs()] == [
        ("failed", 5, "RuntimeError: out of paper"),
        ("stopped", 5, ""),
    ]
    trainer(tmp_path / "a", *every).run()
    assert [(run.status, run.steps) for run in accounts()[0].runs()] == [("done", 10), ("stopped", 5)]
    said = accounts()[0].statement()
    assert (said.runs, said.failed, said.spent[0].steps) == (2, 0, 15)


def test_a_run_that_was_killed_is_unfinished_and_counts_all_that_it_announced(tmp_path: Path, ledgers: Path):
    command = [sys.executable, "-m", "recipes.cli", "run", "digits", *PRIVATE[:2], "--baselines", "--seeds", "0"]
    command += ["--training.steps", "40000", "--evaluation.attacks", "membership.threshold", "--output", str(tmp_path / "mine")]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    own = tmp_path / "mine" / "eps=08.00" / "seed=0" / "private" / "ledger.jsonl"
    for _ in range(3000):
        if own.exists() and own.read_bytes().endswith(b"\n"):
            break
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    account = accounts()[0]
    said, (run,) = account.statement(), account.runs()
    assert (said.runs, said.unfinished) == (1, 1)
    assert (run.status, run.steps) == ("unfinished", 40000)
    assert said.spent[0].epsilon == pytest.approx(8.0, abs=0.02)
    assert "1 under way or killed" in "\n".join(lines_of(said))


def test_a_run_that_goes_on_on_another_machine_is_taken_up_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stops(checkpoint: Checkpoint) -> None:
        if checkpoint.step == 5:
            raise KeyboardInterrupt

    every = ["--training.checkpoint-every", "5"]
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "mine", *every, callback=stops).run()
    here = accounts()[0].runs()[0]
    shutil.copytree(tmp_path / "mine", tmp_path / "copy")
    monkeypatch.setenv("DPTRAIN_LEDGER", str(tmp_path / "elsewhere"))
    trainer(tmp_path / "copy", *every).run()
    (there,) = accounts()[0].runs()
    assert there.name == here.name
    assert [(block.first, block.last) for block in there.blocks] == [(0, 5), (5, 10)]
    assert (there.status, there.steps) == ("done", 10)


@pytest.mark.usefixtures("same_keys")  # a check of what is sound fails once in 100,000
def test_an_audit_counts_as_what_it_trains(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    options = ["--epsilons", "4", "--baselines", "--seeds", "0", "--training.steps", "4", "--output", str(tmp_path / "mine")]
    assert main(["audit", "digits", "--canaries", "50", *options]) == 0
    (run,) = accounts()[0].runs()
    assert (run.status, run.steps) == ("done", 4)
    assert run.about["label"] == "audit white-box of eps=04.00/seed=0"
    account = Account("0" * 64)
    wanted = comparison.load("digits", options)
    many = account.open({})
    account.reserve(many, plan_of(wanted.jobs()[0].recipe), 0, 4, times=20)
    assert account.statement().spent[0].steps == 80


def test_a_total_is_part_of_a_comparison_and_of_its_toml(tmp_path: Path):
    wanted = comparison.load("digits", ["--total-epsilon", "20", "--unprotected", "allowed"])
    assert comparison.from_toml(comparison.to_toml(wanted), tmp_path) == wanted
    total = wanted.total()
    assert total is not None
    assert (total.epsilon, total.delta, total.unprotected) == (20.0, wanted.recipe.privacy.delta, "allowed")
    assert dataclasses.replace(wanted, total_epsilon=None).total() is None
    for wrong in (["--total-epsilon", "0"], ["--unprotected", "perhaps"]):
        assert main(["show", "digits", *wrong]) == 2


def test_a_recipes_name_stands_for_its_data(shared_data: Path):
    (account,) = find("sms")
    assert account.name == "sms"
