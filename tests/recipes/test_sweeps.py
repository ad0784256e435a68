"""Sweeps as a user meets them: several models at once, the same results, one voice, and a way on from whatever happened."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from dptrain.errors import ConfigError
from dptrain.executor import read_statuses
from evaluation import analysis
from evaluation.result import read_run
from recipes.comparison import load
from recipes.display import Display, described
from recipes.jobs import foreign, labelled, run_one
from recipes.sweep import Sweep, split_flags
from tests.conftest import leave_undrawn
from tests.recipes.test_cli import dptrain, here

LABELS = ["non_private/seed=0", "eps=08.00/seed=0"]
SMALL = ["run", "digits", "--epsilons", "inf", "8", "--seeds", "0", "--baselines", "--training.steps", "4"]
SMALL += ["--evaluation.attacks", "membership.threshold", "membership.lira", "--evaluation.shadow-models", "4"]
FIXED = ["--insecure-seed", "3", "--performance.threads", "1", "--performance.fleet", "masked", "--performance.norms", "ghost"]
FIXED += ["--performance.layout", "contiguous"]
WAYS = {
    "here": [],
    "local": ["--jobs", "2"],
    "ray": ["--executor", "ray", "--jobs", "2"],
    "slurm": ["--executor", "slurm", "--jobs", "2", "--slurm.cluster", "local"],
}


# -- flags ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "seeds"),
    [(["0..4"], (0, 1, 2, 3, 4)), (["7", "0..2", "9"], (7, 0, 1, 2, 9)), (["3..3"], (3,)), (["1", "2"], (1, 2))],
)
def test_a_range_of_seeds_has_both_its_ends(typed: list[str], seeds: tuple[int, ...]):
    assert load("digits", ["--seeds", *typed]).seeds == seeds


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["4..0"], "smaller one first, such as 0..4"),
        (["0..2", "1"], "different whole numbers"),
        (["0.."], "first and the last"),
        (["..3"], "first and the last"),
        (["0..99999"], "1000 at most"),
        (["a..b"], "first and the last"),
    ],
)
def test_a_range_that_is_none_is_refused(typed: list[str], message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load("digits", ["--seeds", *typed])


@pytest.mark.parametrize("written", ['"0..2"', '["0..2"]', '"0 1..2"', "[0, 1, 2]", '["0..1", 2]'])
def test_a_toml_file_can_give_ranges(written: str, tmp_path: Path):
    (tmp_path / "mine.toml").write_text(f"seeds = {written}\n")
    assert load(str(tmp_path / "mine.toml")).seeds == (0, 1, 2)


def test_the_flags_of_a_sweep_stand_anywhere_and_are_no_part_of_the_comparison():
    sweep, rest = split_flags(["digits", "--jobs", "2", "--seeds", "0", "1", "--executor=ray", "--ray.address", "auto"])
    assert sweep == Sweep(executor="ray", jobs=2, ray_address="auto")
    assert rest == ["digits", "--seeds", "0", "1"]
    sweep, rest = split_flags(["runs/digits", "--only", "eps=08.00", "non_private/seed=0", "--jobs", "3"], only=True)
    assert sweep.only == ("eps=08.00", "non_private/seed=0")
    assert rest == ["runs/digits"]
    assert split_flags(sweep.flags(), only=True)[0] == sweep
    assert Sweep().flags() == []
    assert Sweep().is_here
    assert not sweep.is_here


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--jobs", "0"], "--jobs is 0"),
        (["--jobs", "two"], "--jobs is 'two'; give a whole number"),
        (["--jobs"], "--jobs needs a whole number"),
        (["--executor", "locl"], "did you mean 'local'"),
        (["--ray.address", "auto"], "add --executor ray"),
        (["--executor", "ray", "--slurm.minutes", "3"], "add --executor slurm"),
        (["--only", "--jobs", "2"], "--only needs the label"),
    ],
)
def test_a_flag_that_means_nothing_is_refused(typed: list[str], message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        split_flags(["digits", *typed], only=True)


def test_jobs_are_found_by_their_labels_and_by_what_stands_before_the_seed():
    comparison = load("digits", ["--seeds", "0..1", "--epsilons", "8", "2", "--baselines"])
    assert [job.label for job in labelled(comparison, ["eps=02.00"])] == ["eps=02.00/seed=0", "eps=02.00/seed=1"]
    assert [job.label for job in labelled(comparison, ["eps=08.00/seed=1"])] == ["eps=08.00/seed=1"]
    with pytest.raises(ConfigError, match=r"did you mean 'eps=08\.00"):
        labelled(comparison, ["eps=8.00/seed=0"])


def test_what_a_script_registered_is_known_to_be_its_own():
    from dptrain.registry import MODELS

    assert foreign(load("digits", ["--release.guard", "top5-rounded"])) == []
    MODELS.register("of_a_sweep", "mine")(lambda *_: None)
    (found,) = foreign(load("digits", ["--model.name", "of_a_sweep"]))
    assert (found.kind, found.name) == ("model", "of_a_sweep")


# -- the display ----------------------------------------------------------------------------------------------------


def test_a_log_file_has_a_line_a_job_and_nothing_that_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with Display("digits", 3, 1, folder=tmp_path, lines=2) as display:
        display.ended("eps=08.00/seed=0", None, False, 2.0)
        display.ended("eps=08.00/seed=1", "it broke", False, 2.0)
        display.ended("eps=08.00/seed=2", None, True, 2.0)
    said = capsys.readouterr().err
    assert said.splitlines() == [
        "[2/3] eps=08.00/seed=0: done in 2.0 s",
        "[3/3] eps=08.00/seed=1: FAILED: it broke",
        "[3/3] eps=08.00/seed=2: stopped",
    ]
    assert "\r" not in said


# -- one comparison, by every executor ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_each(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same comparison by each executor; without one in this process, and its page and pictures are not drawn."""
    folder = tmp_path_factory.mktemp("executors")
    for way, flags in WAYS.items():
        command = [*SMALL, *FIXED, *flags, "--output", way]
        if flags:
            done = dptrain(*command, cwd=folder, seconds=900)
        else:
            with pytest.MonkeyPatch.context() as patched:
                leave_undrawn(patched)
                done = here(*command, cwd=folder)
        assert done.returncode == 0, (way, done.stderr)
        for number, label in enumerate(sorted(LABELS, key=lambda label: done.stderr.index(label)), 1):
            assert re.search(rf"^\[{number}/2\] {label}: done in", done.stderr, re.MULTILINE), done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("way", ["local", "ray", "slurm"])
def test_the_same_job_gives_the_same_result_wherever_it_runs(by_each: Path, way: str):
    for label in LABELS:
        here, there = (load_file(by_each / each / label / "release" / "model.safetensors") for each in ("here", way))
        assert here.keys() == there.keys()
        assert all(np.array_equal(here[name], there[name]) for name in here)
        one, other = (read_run(by_each / each / label / "evaluation" / "step=000004" / "result.json") for each in ("here", way))
        assert one.utility == other.utility
        assert {attack.name: attack.status for attack in one.attacks} == dict.fromkeys(
            ["membership.threshold", "membership.lira"], "ok"
        )
        for mine, theirs in zip(one.attacks, other.attacks, strict=True):
            assert (mine.name, mine.value, mine.low, mine.high) == (theirs.name, theirs.value, theirs.low, theirs.high)


@pytest.mark.slow
@pytest.mark.parametrize("way", list(WAYS))
def test_nothing_of_a_sweep_is_left_but_its_results(by_each: Path, way: str):
    root = by_each / way
    assert {path.name for path in (root / "private").iterdir()} <= {"fleet", "vulnerable.html"}
    assert {path.suffix for path in (root / "private" / "fleet").iterdir()} == {".npz"}
    assert json.loads((root / "failures.json").read_text()) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_complete_sweep_starts_nothing_and_a_part_of_it_can_be_repeated(by_each: Path, tmp_path: Path):
    shutil.copytree(by_each / "local", tmp_path / "mine")
    again = here("resume", "mine", "--jobs", "2", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "done in" not in again.stderr
    for label in LABELS:
        shutil.rmtree(tmp_path / "mine" / label)
    part = here("resume", "mine", "--only", LABELS[1], cwd=tmp_path)
    assert part.returncode == 1
    assert (tmp_path / "mine" / LABELS[1] / "release" / "card.json").exists()
    assert not (tmp_path / "mine" / LABELS[0]).exists()
    assert f"dptrain resume mine --only {LABELS[0]}" in part.stderr


@pytest.mark.slow
def test_a_process_computes_once_what_all_budgets_of_a_seed_share(
    by_each: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root, seen = tmp_path / "mine", []
    shutil.copytree(by_each / "here", root)
    for label in LABELS:
        shutil.rmtree(root / label)
    blind = analysis.blind_scores
    monkeypatch.setattr(analysis, "blind_scores", lambda *given: seen.append(given) or blind(*given))
    for label in LABELS:
        run_one(root, label)
        assert read_run(root / label / "evaluation" / "step=000004" / "result.json").attacks[0].status == "ok"
    assert len(seen) == 1


# -- what goes wrong ------------------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """Processes that this one started, and those that they did."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def steps_taken(root: Path, label: str) -> int:
    path = root / label / "private" / "checkpoint" / "state.json"
    return json.loads(path.read_text())["steps_taken"] if path.exists() else -1


def steps_said(root: Path, label: str) -> int:
    """The step that a running job says it has taken."""
    statuses = read_statuses(root / "private" / "jobs")
    return max((status.step for status in statuses if (status.label, status.phase) == (label, "training")), default=0)


LONG = ["run", "digits", "--epsilons", "8", "4", "2", "--seeds", "0", "--baselines", "--training.steps", "2000", "--output"]
LONG += ["mine", "--evaluation.attacks", "membership.threshold", "--jobs", "2", "--model.name", "mlp"]
LONG += ["--model.hidden", "1024", "1024"]


@pytest.mark.slow
def test_a_killed_worker_fails_its_job_alone_and_ctrl_c_leaves_checkpoints_and_a_way_on(tmp_path: Path):
    """One worker is killed as the system does it that has no memory left; then Ctrl-C, while a third job is under way."""
    shared_out = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # as on a user's machine
    with subprocess.Popen(
        [sys.executable, "-m", "recipes.cli", *LONG],
        cwd=tmp_path,
        env=shared_out,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        root = tmp_path / "mine"
        ledgers = [root / f"eps={budget}.00" / "seed=0" / "private" / "ledger.jsonl" for budget in ("08", "04", "02")]

        def until(condition) -> None:
            end = time.monotonic() + 200
            while not condition():
                assert time.monotonic() < end
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.1)

        until(lambda: all(ledger.exists() for ledger in ledgers[:2]))
        second = here(*LONG, cwd=tmp_path)
        assert second.returncode == 2
        assert "in use by process" in second.stderr
        holder = re.search(r"process (\d+)", (root / ledgers[0].parent.parent / ".lock").read_text())
        assert holder is not None
        os.kill(int(holder[1]), signal.SIGKILL)
        until(lambda: steps_said(root, "eps=04.00/seed=0") > 1 and steps_said(root, "eps=02.00/seed=0") > 1)
        started = children(process.pid)
        assert len(started) >= 2
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "dptrain resume mine --jobs 2" in errors
    assert "Traceback" not in errors
    assert "SIGKILL" in json.loads((root / "failures.json").read_text())["eps=08.00/seed=0"]
    assert 0 < steps_taken(root, "eps=04.00/seed=0") < 2000
    assert 0 < steps_taken(root, "eps=02.00/seed=0") < 2000
    end = time.monotonic() + 60
    while any(is_alive(pid) for pid in started):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_a_model_of_a_users_script_is_refused_before_anything_is_written(tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "import sys\n"
        "from torch import nn\n"
        "from dptrain import MODELS\n"
        "from recipes.cli import main\n"
        "@MODELS.register('wide', 'my own')\n"
        "def wide(input_shape, classes, config, regularization):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "mine.py", *SMALL, "--model.name", "wide", "--jobs", "2", "--output", "mine"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 2
    assert "the model 'wide' is registered in this one alone; leave --jobs out" in done.stderr
    assert not (tmp_path / "mine").exists()


def test_several_processes_a_model_and_several_models_at_once_are_not_mixed(tmp_path: Path):
    done = here("run", "digits", "--jobs", "2", "--distributed", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert "give one of both" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_running_job_is_described_in_a_line():
    from dptrain.executor import Status

    assert described(Status("eps=08.00/seed=0", "training", 30, 60, 2.345)) == "eps=08.00/seed=0  training 30/60  ε ≤ 2.35"
    assert described(Status("eps=08.00/seed=0", "membership.lira")) == "eps=08.00/seed=0  membership.lira"
