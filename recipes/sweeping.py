"""A comparison's jobs: here, one after the other, or by an executor. What fails is told by its label, and stops no other."""

import contextlib
import shlex
import shutil
import time
from pathlib import Path

from dptrain import distributed
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split
from dptrain.errors import ConfigError, DiskError, RankError
from dptrain.executor import EXECUTORS, Executor, Work
from dptrain.executor.work import described
from recipes.comparison import Comparison, Job
from recipes.display import Display
from recipes.jobs import foreign, is_complete, run_job, run_one
from recipes.sweep import Sweep


def here(
    jobs: list[Job],
    comparison: Comparison,
    root: Path,
    data: DataSet,
    splits: dict[int, Split],
    failures: dict[str, str],
    name: str,
    progress: bool,
) -> None:
    """One job after the other, in this process; with others, where several train each model together."""
    with Display(name, len(jobs), shown=progress) as display:
        for job in jobs:
            display.begins(job.label)
            began, is_new = time.monotonic(), True
            try:
                is_new = run_job(job, comparison, root, data, splits[job.seed], progress)
            except (RankError, DiskError):  # the next job would spend of its budget and could not be saved either
                raise
            except Exception as error:  # one broken job must not lose the others' hours
                failures[job.label] = described(error)
            display.ended(job.label, failures.get(job.label), False, time.monotonic() - began if is_new else None)


def elsewhere(
    executor: Executor,
    sweep: Sweep,
    jobs: list[Job],
    comparison: Comparison,
    root: Path,
    data: DataSet,
    failures: dict[str, str],
    name: str,
    progress: bool,
) -> None:
    """What is not complete, by an executor."""
    labels = [job.label for job in jobs if not is_complete(job, root / job.label, comparison.evaluation, data)]
    work = Work(run_one, root)
    shutil.rmtree(work.statuses, ignore_errors=True)  # of a sweep that was killed
    done = len(jobs) - len(labels)
    with Display(name, len(jobs), done, folder=work.statuses, lines=min(sweep.jobs, len(labels)), shown=progress) as display:
        try:
            with contextlib.closing(executor.run(work, labels)) as running:
                for job in running:
                    if job.error is not None:
                        failures[job.label] = job.error
                    display.ended(job.label, job.error, job.stopped, job.seconds)
        finally:
            shutil.rmtree(work.statuses, ignore_errors=True)


def executor_of(sweep: Sweep, comparison: Comparison) -> Executor:
    """The executor that a sweep names.

    Raises:
        ConfigError: it cannot run these jobs: something is known to this process alone, or several processes train each model.
    """
    how = f"--executor {sweep.executor}" if sweep.executor != "local" else f"--jobs {sweep.jobs}"
    if distributed.current().size > 1:
        raise ConfigError(f"{how} starts processes for its jobs, and this one trains together with others; give one of both")
    unknown = foreign(comparison)
    if unknown:
        raise ConfigError(
            f"{how} starts fresh processes, and the {unknown[0].kind} {unknown[0].name!r} is registered in this one alone; "
            f"leave {how.split()[0]} out, to run one job after the other here"
        )
    return EXECUTORS[sweep.executor](sweep.options(comparison.performance.threads))


def way_on(output: str, sweep: Sweep) -> str:
    """What stands behind `dptrain resume` to go on in the same way."""
    return shlex.join([output, *sweep.flags()])
