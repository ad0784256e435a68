"""Several processes of one command: started together, stopped together, one voice, one exit code."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from dptrain.distributed import RENDEZVOUS
from dptrain.errors import ConfigError
from recipes import launch
from tests.recipes.test_cli import here
from tests.recipes.unhurried import unhurried, until_stepped

SMALL = ["--epsilons", "8", "--seeds", "0", "--baselines", "--evaluation.attacks", "membership.threshold", "--output", "mine"]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import os, signal, sys, time\nrank = int(os.environ['RANK'])\n{code}"]


@pytest.mark.parametrize(
    ("typed", "split"),
    [
        (["digits"], (0, ["digits"])),
        (["digits", "--distributed", "2", "--seeds", "0"], (2, ["digits", "--seeds", "0"])),
        (["--distributed=3", "digits"], (3, ["digits"])),
    ],
)
def test_the_flag_is_taken_out_wherever_it_stands(typed: list[str], split: tuple[int, list[str]]):
    assert launch.split_flag(typed) == split


@pytest.mark.parametrize("typed", [["--distributed"], ["--distributed", "0"], ["--distributed=two"], ["--distributed", "-1"]])
def test_a_number_of_processes_that_is_none_is_refused(typed: list[str]):
    with pytest.raises(ConfigError, match="whole number from 1 up"):
        launch.split_flag(typed)


def test_a_script_that_was_typed_is_started_again_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A script registers its own models before it calls the command line, so every process must run it."""
    script = tmp_path / "mine.py"
    script.touch()
    given = ["run", "digits", "--distributed", "2"]
    main = ModuleType("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", [str(script), *given])
    assert launch.program(given) == [sys.executable, str(script), *given]
    assert launch.program(["resume", "x"])[1:] == ["-m", "recipes.cli", "resume", "x"]
    main.__spec__ = SimpleNamespace(name="recipes.cli")  # pyright: ignore[reportAttributeAccessIssue]
    assert launch.program(given)[1:] == ["-m", "recipes.cli", *given]


def test_every_process_knows_its_rank_and_where_to_meet(tmp_path: Path):
    names = ("LOCAL_RANK", "WORLD_SIZE", RENDEZVOUS)
    tell = f"open({str(tmp_path)!r} + f'/told-{{rank}}', 'w').write(' '.join(os.environ[name] for name in {names}))"
    assert launch.launch(python(tell), 3) == 0
    said = [(tmp_path / f"told-{rank}").read_text().split() for rank in range(3)]
    assert [words[:2] for words in said] == [["0", "3"], ["1", "3"], ["2", "3"]]
    assert len({words[2] for words in said}) == 1


def test_one_failure_is_the_commands_failure(capfd: pytest.CaptureFixture[str]):
    assert launch.launch(python("sys.exit(3 if rank == 1 else 0)"), 2) == 3
    assert launch.launch(python("sys.exit(2 - rank)"), 2) == 2
    assert launch.launch(python("os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else None"), 2) == 1
    assert "process 1 was ended by SIGKILL" in capfd.readouterr().err


def test_who_does_not_end_after_a_failure_is_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "GRACE", 0.5)
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)"
    begun = time.monotonic()
    assert launch.launch(python(f"sys.exit(4) if rank == 0 else None\n{stubborn}"), 2) == 4
    assert time.monotonic() - begun < 60


def test_ctrl_c_reaches_every_process_once(tmp_path: Path):
    count = (
        f"os.chdir({str(tmp_path)!r})\n"
        "signal.signal(signal.SIGINT, lambda *_: open(f'asked-{rank}', 'a').write('x'))\n"
        "open(f'ready-{rank}', 'w').close()\n"
        "while not os.path.exists(f'asked-{rank}'): time.sleep(0.02)\n"
        "time.sleep(0.5)\n"
        "sys.exit(130)"
    )

    def interrupt() -> None:
        while not all((tmp_path / f"ready-{rank}").exists() for rank in range(2)):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert launch.launch(python(count), 2) == 130
    assert [(tmp_path / f"asked-{rank}").read_text() for rank in range(2)] == ["x", "x"]


# -- the command line ---------------------------------------------------------------------------------------------------


def dptrain(*arguments: str, cwd: Path, before: tuple[str, ...] = ("-m", "recipes.cli")) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *before, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def card(folder: Path) -> dict:
    return json.loads((folder / "eps=08.00" / "seed=0" / "release" / "card.json").read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_two_processes_make_the_run_of_one(tmp_path: Path):
    """Same guarantee and same card, but for what is drawn anew in each run; and nothing says it twice."""
    short = [*SMALL[:-1], "one", "--training.steps", "10"]
    alone = here("run", "digits", *short, cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    short[short.index("one")] = "two"
    together = dptrain("run", "digits", *short, "--distributed", "2", cwd=tmp_path)
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("report.html") == 1
    one, two = card(tmp_path / "one"), card(tmp_path / "two")
    for drawn in (one, two):
        del drawn["split_commitment"], drawn["data"]["commitment"]
    # An accountant's sums are added up in another order where it has other threads.
    alone_epsilon, together_epsilon = (drawn["guarantee"].pop("epsilon") for drawn in (one, two))
    assert together_epsilon == pytest.approx(alone_epsilon, abs=1e-9)
    assert one == two
    private = [tmp_path / name / "eps=08.00" / "seed=0" / "private" for name in ("one", "two")]
    assert [path.name for path in sorted(private[0].iterdir())] == [path.name for path in sorted(private[1].iterdir())]
    assert len((private[1] / "ledger.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_torchrun_runs_a_recipe(tmp_path: Path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "recipes.cli")
    done = dptrain("run", "digits", *SMALL, "--training.steps", "10", cwd=tmp_path, before=torchrun)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report.html") == 1
    assert card(tmp_path / "mine")["steps_taken"] == 10


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_resumes_on_another_number_of_processes(tmp_path: Path):
    command = [sys.executable, "-m", "recipes.cli", "run", "digits", *SMALL, "--training.steps", "600", "--distributed", "2"]
    ledger = tmp_path / "mine" / "eps=08.00" / "seed=0" / "private" / "ledger.jsonl"
    slow, piped = tmp_path / "slow", subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=unhurried(slow, 0.05), stdout=piped, stderr=piped, text=True) as process:
        until_stepped(slow, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.count("dptrain resume mine") == 1
    assert "Traceback" not in errors
    folder = tmp_path / "mine" / "eps=08.00" / "seed=0" / "private" / "checkpoint"
    stopped = json.loads((folder / "state.json").read_text())["steps_taken"]
    assert 0 < stopped < 600
    done = dptrain("resume", "mine", "--distributed", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert card(tmp_path / "mine")["steps_taken"] == 600
    assert card(tmp_path / "mine")["guarantee"]["epsilon"] <= 8.0
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [entry["kind"] for entry in entries] == ["reserve", "settle", "reserve"]
    assert entries[1]["last"] == entries[2]["first"] == stopped


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run_with_a_sentence(tmp_path: Path):
    command = [sys.executable, "-m", "recipes.cli", "run", "digits", *SMALL, "--training.steps", "5000", "--distributed", "2"]
    ledger = tmp_path / "mine" / "eps=08.00" / "seed=0" / "private" / "ledger.jsonl"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not ledger.exists() and process.poll() is None:
            time.sleep(0.1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        second = next(int(pid) for pid in children if b"RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
        os.kill(second, signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "rank 0 lost another process" in errors
    assert "process 1 was ended by SIGKILL" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_mistake_is_told_once(tmp_path: Path):
    done = dptrain("run", "digits", *SMALL, "--privacy.delta", "0.01", "--distributed", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("below 1/N") == 1
    assert list(tmp_path.iterdir()) == []
