"""What all executors share: the work, its options, what comes back, and how one job is done in whatever process it is."""

import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from dptrain import progress
from dptrain.errors import ConfigError, UserError
from dptrain.executor.status import StatusFile, forget

STOPPED = "stopped"
"""Of a job that was interrupted: not an error, and not done."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep is run; nothing here changes what comes out."""

    jobs: int = 1
    """Jobs that run at once."""
    threads: int | None = None
    """CPU threads of a job; left out, an even share of this machine's cores."""
    ray_address: str | None = None
    """Of a Ray cluster that runs already, such as `auto` or `ray://head:10001`; left out, one is started on this machine."""
    slurm_cluster: Literal["slurm", "local"] = "slurm"
    """`local` is submitit's own stand-in for a cluster, on this machine: to try what Slurm would be given."""
    slurm_partition: str | None = None
    """Left out, the cluster's own choice."""
    slurm_minutes: int = 240
    """After which Slurm ends a job."""
    slurm_gigabytes: float = 4.0
    """Memory of a job."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ConfigError(f"--jobs is {self.jobs}; give a whole number from 1 up, such as 2")
        if self.slurm_minutes < 1:
            raise ConfigError(f"--slurm.minutes is {self.slurm_minutes}; give a whole number from 1 up, such as 240")
        if not self.slurm_gigabytes > 0:
            raise ConfigError(f"--slurm.gigabytes is {self.slurm_gigabytes:g}; give a number above 0, such as 4")
        if self.slurm_cluster not in ("slurm", "local"):
            raise ConfigError(f"--slurm.cluster is {self.slurm_cluster!r}; accepted: local, slurm")


@dataclass(frozen=True)
class Work:
    """One function of a folder and a label.

    A worker process begins as ``python -m`` the function's module and the folder, whose last lines must therefore be, with all
    functions of it that are a work's::

        if __name__ == "__main__":
            worker.serve(run_one)
    """

    function: Callable[[Path, str], None]
    """Importable by its name in any process."""
    root: Path

    @property
    def statuses(self) -> Path:
        """Where running jobs say what they do."""
        return self.root / "private" / "jobs"

    def ended(self, label: str, outcome: str | None, seconds: float = 0.0) -> "Finished":
        """Of a job that is over: what :func:`attempt` gave, or what is said of it where its process died."""
        forget(self.statuses, label)
        stopped = outcome == STOPPED
        return Finished(label, None if stopped else outcome, stopped, seconds)


@dataclass(frozen=True)
class Finished:
    """A job that is no longer running."""

    label: str
    error: str | None = None
    """A sentence; None where it is done, and where it was stopped."""
    stopped: bool = False
    seconds: float = 0.0


class Executor(Protocol):
    """Runs jobs; one is made from :class:`Options`."""

    def prepare(self, work: Work, count: int) -> None:
        """Begins what takes a while, such as processes, before it is known whether so many jobs can be done at all. It stays
        for further works of the same module and folder, until whoever asked for it calls :meth:`close`."""
        ...

    def close(self) -> None:
        """Ends what was prepared."""
        ...

    def run(self, work: Work, labels: Sequence[str]) -> Generator[Finished, None, None]:
        """Each job as it ends, in whatever order.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once no job is running any more.
            ConfigError: there is nothing that could run them, such as a package that is not installed.
        """
        ...


def cores() -> int:
    """Of this machine, that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(options: Options) -> int:
    """Threads of one of several jobs on this machine: an even share of its cores, and no more than the environment allows."""
    if options.threads is not None:
        return options.threads
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, cores() // options.jobs)
    return min(share, int(allowed)) if allowed.isdecimal() and int(allowed) > 0 else share


def attempt(work: Work, label: str, threads: int | None = None) -> str | None:
    """Does one job here; None where it is done, :data:`STOPPED`, or what went wrong in a sentence."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    try:
        with StatusFile(work.statuses, label) as status, progress.listening(status):
            work.function(work.root, label)
    except KeyboardInterrupt:
        return STOPPED
    except Exception as error:  # a broken job must not lose the others' hours
        return described(error)
    return None


def described(error: Exception) -> str:
    """An error in a sentence."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
