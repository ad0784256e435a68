"""Workers are born with everything imported: of a process that has one thread, and they have as many as they are told."""

import ast
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dptrain.executor import EXECUTORS, Options, Work, nursery
from dptrain.executor.nursery import Nursery, is_possible
from dptrain.executor.work import cores
from tests.dptrain import executed_with_a_thread, executed_with_torch
from tests.dptrain.executed import do
from tests.dptrain.test_executor import ROOT, until
from tests.running_time import running_time

pytestmark = pytest.mark.skipif(not is_possible(), reason="processes are not forked here")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def finished(executor, work: Work, labels: list[str]) -> None:
    found = list(executor.run(work, labels))
    assert [(job.label, job.error) for job in sorted(found, key=lambda job: job.label)] == [(label, None) for label in labels]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_fork_computes_with_its_threads_and_draws_chance_of_its_own(threads: int, tmp_path: Path):
    if cores() < threads:
        pytest.skip("one core")
    labels = ["0", "1", "2"]
    finished(EXECUTORS["local"](Options(jobs=2, threads=threads)), Work(executed_with_torch.compute, tmp_path), labels)
    found = [ast.literal_eval((tmp_path / f"{label}.txt").read_text()) for label in labels]
    parents, before, after, told, totals, besides, chances = zip(*found, strict=True)
    assert len(set(parents)) == 1
    assert parents[0] != os.getpid()  # all of one nursery
    assert min(before) == 2 + (threads - 1)  # its own, the one that reads its input, and OpenBLAS'
    assert set(told) == {threads}
    assert min(after) >= threads + 1
    assert len({round(total, 2) for total in totals}) == 1
    assert set(besides) == {1500.0**3}
    assert len({number for chance in chances for number in chance}) == 6


def test_beside_a_thread_nothing_is_forked_and_a_fresh_interpreter_does_the_job(tmp_path: Path):
    work = Work(executed_with_a_thread.compute, tmp_path)
    finished(EXECUTORS["local"](Options(jobs=2, threads=1)), work, ["0", "1"])
    assert {(tmp_path / f"{label}.txt").read_text() for label in "01"} == {"3"}  # its own, the module's, and the input's


def test_one_that_was_begun_is_taken_by_who_asks_for_the_same_and_ends_otherwise(tmp_path: Path):
    module, work = executed_with_torch.__name__, Work(executed_with_torch.compute, tmp_path)
    with nursery.begun(module, tmp_path, 1):
        (early,) = nursery._begun.values()
        with nursery.begun(module, tmp_path / "another", 1):
            (_, unused) = nursery._begun.values()
            executor = EXECUTORS["local"](Options(jobs=2, threads=1))
            finished(executor, work, ["0"])
            (parent, *_) = ast.literal_eval((tmp_path / "0.txt").read_text())
            assert parent == early._process.pid
            assert unused.ended() is None
        assert unused.ended() is not None
    assert early.ended() is not None
    assert not nursery._begun
    with nursery.begun(module, tmp_path, 1):
        (early,) = nursery._begun.values()
        early._process.kill()
        early._process.wait()
        finished(EXECUTORS["local"](Options(jobs=1, threads=1)), work, ["1"])  # by a new one


def test_what_was_prepared_serves_one_work_after_the_other_until_it_is_closed(tmp_path: Path):
    executor = EXECUTORS["local"](Options(jobs=2, threads=1))
    work = Work(executed_with_torch.compute, tmp_path)
    executor.prepare(work, 2)
    try:
        for labels in (["0", "1"], ["2"], ["3", "4", "5"]):
            finished(executor, work, labels)
        parents = {ast.literal_eval(path.read_text())[0] for path in tmp_path.glob("*.txt")}
        assert len(parents) == 1
        nursery = parents.pop()
    finally:
        executor.close()
    assert not Path(f"/proc/{nursery}").exists()


def test_a_worker_goes_on_with_the_seeds_of_what_it_did_before(tmp_path: Path):
    labels = [f"done-{budget}/seed={seed}" for budget in (8, 4, 2, 1) for seed in range(3)]
    found = list(EXECUTORS["local"](Options(jobs=2, threads=1)).run(Work(do, tmp_path), labels))
    assert sorted(job.label for job in found) == sorted(labels)
    by_worker: dict[str, set[str]] = {}
    for path in (tmp_path / "begun").iterdir():
        by_worker.setdefault(path.suffix, set()).add(path.name.partition("_")[0])
    assert len(by_worker) == 2
    one, other = by_worker.values()
    assert one | other == {"done-8", "done-4", "done-2", "done-1"}
    assert len(one & other) <= 1  # the last of all is shared out


@pytest.mark.parametrize("when", ["before it is asked", "after it was asked"])
def test_a_nursery_that_is_killed_takes_no_job_along_and_another_one_takes_its_place(when: str, tmp_path: Path):
    executor = EXECUTORS["local"](Options(jobs=2, threads=1))
    running = executor.run(Work(do, tmp_path), ["waits-0", "dies", "done-1", "done-2"])
    died = next(running)
    assert died.label == "dies"
    until(lambda: (tmp_path / "waits-0.waits").exists())
    (begun,) = (tmp_path / "begun").glob("waits-0.*")
    status = Path(f"/proc/{begun.suffix[1:]}/status").read_text()
    nursery = int(status.partition("PPid:")[2].split()[0])
    if when == "before it is asked":
        os.kill(nursery, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{nursery}/cmdline").exists() or not Path(f"/proc/{nursery}/cmdline").read_bytes())
    else:  # for another worker, which it will not bear any more
        os.kill(nursery, signal.SIGSTOP)
        threading.Timer(1.0, os.kill, [nursery, signal.SIGKILL]).start()
    done = next(running)
    assert (done.label, done.error, done.stopped) == ("done-1", None, False)
    os.kill(int(begun.suffix[1:]), signal.SIGINT)
    rest = {job.label: (job.error, job.stopped) for job in running}
    assert rest == {"waits-0": (None, True), "done-2": (None, False)}
    assert (tmp_path / "waits-0.checkpoint").exists()


def test_processes_end_with_whoever_asked_for_them(tmp_path: Path):
    program = f"""
import sys, time
from pathlib import Path
from dptrain.executor.nursery import Nursery
nursery = Nursery("tests.dptrain.executed_with_torch", Path({str(tmp_path)!r}), 1)
born = nursery.born()
print(born.stdout.readline(), nursery._process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        nursery = int(process.stdout.readline())
        (child,) = Path(f"/proc/{nursery}/task/{nursery}/children").read_text().split()
        process.kill()
    until(lambda: not any(Path(f"/proc/{each}").exists() for each in (nursery, child)), 20)


def test_how_a_process_ended_is_told(tmp_path: Path):
    nursery = Nursery("tests.dptrain.executed_with_torch", tmp_path, 1)
    try:
        killed, ended = nursery.born(), nursery.born()
        assert "ready" in killed.stdout.readline()
        assert "ready" in ended.stdout.readline()
        killed.send_signal(signal.SIGKILL)
        ended.stdin.close()
        assert killed.wait() == -signal.SIGKILL
        assert ended.wait() == 0
        killed.send_signal(signal.SIGINT)  # it is over, and its number may be another one's
        for each in (killed, ended):
            each.end()
        late = nursery.born()
        late.end()  # before it is there
    finally:
        with running_time() as seconds:
            nursery.close()
        assert seconds() < 3
