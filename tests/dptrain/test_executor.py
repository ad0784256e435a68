"""Executors: every job ends as one, whatever becomes of the others; Ctrl-C leaves checkpoints and no processes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dptrain.errors import ConfigError
from dptrain.executor import EXECUTORS, Finished, Options, Status, Work, read_statuses, threads_of, work
from dptrain.executor.status import StatusFile
from dptrain.executor.worker import line
from dptrain.progress import listening, say
from tests.dptrain.executed import do

ROOT = Path(__file__).parents[2]
ALL = [
    pytest.param("local", Options(jobs=2, threads=1), id="local"),
    pytest.param("ray", Options(jobs=2, threads=1), id="ray", marks=pytest.mark.slow),
    pytest.param("slurm", Options(jobs=2, threads=1, slurm_cluster="local"), id="slurm", marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(executor: str, options: Options, root: Path, labels: list[str]) -> dict[str, Finished]:
    found = list(EXECUTORS[executor](options).run(Work(do, root), labels))
    assert sorted(job.label for job in found) == sorted(labels)
    return {job.label: job for job in found}


def alive(root: Path) -> list[int]:
    """Processes of the jobs that were begun below ``root`` and still are."""
    found = []
    for path in (root / "begun").iterdir():
        try:
            state = Path(f"/proc/{path.suffix[1:]}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        found += [int(path.suffix[1:])] if state != "Z" else []
    return found


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


@pytest.mark.parametrize(("executor", "options"), ALL)
def test_a_job_that_breaks_or_dies_stops_no_other(executor: str, options: Options, tmp_path: Path):
    labels = ["done/seed=0", "breaks", "refused", "dies", "done-2", "done-3"]
    found = run(executor, options, tmp_path, labels)
    assert {label for label, job in found.items() if job.error is None} == {"done/seed=0", "done-2", "done-3"}
    assert found["breaks"].error == "RuntimeError: it broke"
    assert found["refused"].error == "this is not accepted; type that"
    said = {"local": "killed (SIGKILL)", "ray": "worker was lost", "slurm": "without a result"}[executor]
    assert said in (found["dies"].error or "")
    tries = len(list((tmp_path / "begun").glob("dies.*")))
    assert tries == (3 if executor == "ray" else 1)
    assert (tmp_path / "done-3.threads").read_text() == "1" or executor == "slurm"
    assert not read_statuses(tmp_path / "private" / "jobs")
    until(lambda: not alive(tmp_path), 20)


def sweep_in_a_process(executor: str, root: Path, labels: list[str]) -> subprocess.Popen[str]:
    """A process of its own, which can be sent what a terminal sends; it prints what became of each job."""
    script = f"""
        from pathlib import Path
        from dptrain.executor import EXECUTORS, Options, Work
        from tests.dptrain.executed import do
        options = Options(jobs=2, threads=1, slurm_cluster="local")
        try:
            for job in EXECUTORS[{executor!r}](options).run(Work(do, Path({str(root)!r})), {labels}):
                print(job.label, job.stopped, job.error, flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        start_new_session=True,
    )


@pytest.fixture(params=["local", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ray", "slurm"))])
def waiting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A sweep of which two jobs run and wait, and one has not begun."""
    executor = request.param
    process = sweep_in_a_process(executor, tmp_path, ["waits-0", "waits-1", "waits-2"])
    with process:
        try:
            until(lambda: all((tmp_path / f"waits-{n}.waits").exists() for n in range(2)), 120)
            yield process, tmp_path
        finally:
            process.kill()


def test_ctrl_c_ends_every_job_with_a_checkpoint_and_leaves_no_process(waiting: tuple[subprocess.Popen[str], Path]):
    process, root = waiting
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert sorted(said.splitlines()) == ["interrupted", "waits-0 True None", "waits-1 True None"], errors
    assert sorted(path.name for path in root.glob("*.checkpoint")) == ["waits-0.checkpoint", "waits-1.checkpoint"]
    assert "Traceback" not in errors
    until(lambda: not alive(root), 20)


def test_a_killed_sweep_leaves_checkpoints_and_no_process(tmp_path: Path):
    with sweep_in_a_process("local", tmp_path, ["waits-0", "waits-1"]) as process:
        until(lambda: all((tmp_path / f"waits-{n}.waits").exists() for n in range(2)))
        process.kill()
    until(lambda: not alive(tmp_path), 20)
    assert sorted(path.name for path in tmp_path.glob("*.checkpoint")) == ["waits-0.checkpoint", "waits-1.checkpoint"]


def test_a_second_ctrl_c_ends_all_at_once(tmp_path: Path):
    with sweep_in_a_process("local", tmp_path, ["deaf-0", "waits-1"]) as process:
        until(lambda: (tmp_path / "deaf-0.waits").exists() and (tmp_path / "waits-1.waits").exists())
        process.send_signal(signal.SIGINT)
        until(lambda: (tmp_path / "waits-1.checkpoint").exists())
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0].splitlines()[-1] == "interrupted"
    assert not alive(tmp_path)


def test_a_worker_that_cannot_begin_is_said_once_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(do, "__module__", "tests.dptrain.there_is_no_such_module")
    found = run("local", Options(jobs=2), tmp_path, ["done", "done-2", "done-3"])
    assert all("No module named" in (job.error or "") for job in found.values())


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(work, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_of(Options(jobs=3)) == 2
    assert threads_of(Options(jobs=20)) == 1
    assert threads_of(Options(jobs=3, threads=5)) == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads_of(Options(jobs=3)) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [({"jobs": 0}, "--jobs is 0"), ({"slurm_minutes": 0}, "--slurm.minutes"), ({"slurm_gigabytes": -1}, "--slurm.gigabytes")],
)
def test_options_that_mean_nothing_are_refused(given: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        Options(**given)


def test_an_executor_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'slurm'"):
        EXECUTORS["slrum"]


def test_slurm_without_slurm_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no srun"):
        list(EXECUTORS["slurm"](Options()).run(Work(do, tmp_path), ["done"]))


def test_a_status_is_there_while_the_job_runs_and_says_what_it_does(tmp_path: Path):
    spent = []

    def epsilon() -> float:
        spent.append(1)
        time.sleep(0.1)
        return 2.5

    with StatusFile(tmp_path, "eps=08.00/seed=0") as status, listening(status):
        assert read_statuses(tmp_path) == [Status("eps=08.00/seed=0")]
        say("training", 1, 60, epsilon)
        assert read_statuses(tmp_path) == [Status("eps=08.00/seed=0", "training", 1, 60)]
        say("membership.lira")
        assert read_statuses(tmp_path)[0].phase == "membership.lira"
        status._computed -= 100  # as if so many seconds had gone by
        say("training", 2, 60, epsilon)
        assert read_statuses(tmp_path)[0].epsilon == 2.5
        say("training again", 3, 60, epsilon)
        assert spent == [1]  # it takes a while to compute
    say("nobody listens")
    assert read_statuses(tmp_path) == []
    (tmp_path / "half.json").write_text('{"label": "x", "ph')
    assert read_statuses(tmp_path) == []


def test_a_status_that_cannot_be_written_stops_nothing(tmp_path: Path):
    (tmp_path / "file").touch()
    with StatusFile(tmp_path / "file", "label") as status:
        status._written = 0.0
        say("training")


def test_an_orphan_notices_that_its_input_has_ended(tmp_path: Path):
    """Whatever ends the first process, its pipe is closed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.dptrain.executed", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"ready": True}
        process.stdin.write(line(Work(do, tmp_path), "waits-0"))
        process.stdin.flush()
        until(lambda: (tmp_path / "waits-0.waits").exists())
        process.stdin.close()
        assert json.loads(process.stdout.readline())["stopped"]
        assert process.wait(20) == 0
