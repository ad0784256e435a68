"""``slurm``: an array of Slurm's, through submitit; or on submitit's stand-in for a cluster (``--slurm.cluster local``).

The run's folder, the data and this Python must be on a file system that all nodes see, under the same paths. At most
``--jobs`` of them run at once. Each has ``--slurm.minutes`` and ``--slurm.gigabytes``; whoever takes more is ended by Slurm,
and is listed with the state that Slurm gives it; ``dptrain resume`` goes on from its last checkpoint. Ctrl-C cancels what
waits; what runs is sent SIGTERM, upon which it ends at its next step with a checkpoint.

submitit hands function and label over in a pickle below the run's ``private/jobs``, which only its owner writes, and which goes
with the sweep; nothing in it was read from anywhere else.
"""

import contextlib
import logging
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from dptrain.errors import ConfigError
from dptrain.executor.interrupt import asked_to_stop, interrupt_on_termination
from dptrain.executor.work import STOPPED, Finished, Options, Work, attempt, described, threads_of

LOOK = 0.5
"""Seconds after which a wish to stop is seen, and jobs are asked after."""
GRACE = 10.0
"""Seconds that cancelled jobs are waited for, where all is to end at once."""


class OnSlurm:
    """See the module's text."""

    def __init__(self, options: Options):
        self._options = options
        self._threads = threads_of(options)

    def prepare(self, work: Work, count: int) -> None:
        """Nothing: what may be refused is not submitted."""

    def close(self) -> None:
        """Nothing is left open."""

    def run(self, work: Work, labels: Sequence[str]) -> Generator[Finished, None, None]:
        folder = work.statuses / "submitted"
        cluster = self._cluster(folder)
        waiting, running, stopping = deque(labels), dict[str, tuple[Any, float]](), False
        with asked_to_stop() as asked:
            try:
                if self._options.slurm_cluster == "slurm":  # an array: Slurm itself lets so many run at once
                    jobs = cluster.map_array(_Job(work, self._threads), list(waiting))
                    running |= {label: (job, time.monotonic()) for label, job in zip(waiting, jobs, strict=True)}
                    waiting.clear()
                while running or waiting:
                    if asked():
                        waiting.clear()
                        for job, _ in running.values():
                            self._ask_to_stop(job, again=stopping)
                        stopping = True
                    while waiting and len(running) < self._options.jobs:
                        label = waiting.popleft()
                        running[label] = cluster.submit(_Job(work, self._threads), label), time.monotonic()
                    for label in [label for label, (job, _) in running.items() if job.done()]:
                        job, began = running.pop(label)
                        yield work.ended(label, _outcome(job, stopping), time.monotonic() - began)
                    if running:
                        time.sleep(LOOK)
            finally:
                for job, _ in running.values():
                    _cancel(job)
                until = time.monotonic() + GRACE
                while any(not job.done() for job, _ in running.values()) and time.monotonic() < until:
                    time.sleep(LOOK)
                shutil.rmtree(folder, ignore_errors=True)
            if stopping:
                raise KeyboardInterrupt

    def _ask_to_stop(self, job: Any, again: bool) -> None:
        """Slurm is asked once, and asks with SIGTERM itself. submitit's stand-in passes a SIGTERM on to its job, which may not
        yet listen for it; its own way to cancel would leave the job a second."""
        if self._options.slurm_cluster == "slurm":
            if not again:
                _cancel(job)
        elif not job.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)

    def _cluster(self, folder: Path) -> Any:
        try:
            import submitit
        except ImportError:
            raise ConfigError("--executor is 'slurm', which needs submitit; type `pip install 'dptrain[cluster]'`") from None
        logging.getLogger("submitit").setLevel(logging.ERROR)
        options = self._options
        if options.slurm_cluster == "slurm" and shutil.which("srun") is None:
            raise ConfigError(
                "--executor is 'slurm', and this machine has no srun; type it on a login node, or try it with "
                "--slurm.cluster local"
            )
        cluster = submitit.AutoExecutor(folder=folder, cluster=options.slurm_cluster)
        asked: dict[str, Any] = {"timeout_min": options.slurm_minutes}
        if options.slurm_cluster == "slurm":
            asked |= {"name": "dptrain", "mem_gb": options.slurm_gigabytes, "cpus_per_task": self._threads}
            asked |= {"slurm_array_parallelism": options.jobs}
            asked |= {} if options.slurm_partition is None else {"slurm_partition": options.slurm_partition}
        cluster.update_parameters(**asked)
        return cluster


class _Job:
    """What a node does; submitit calls it with a label."""

    def __init__(self, work: Work, threads: int):
        self.work, self.threads = work, threads

    def __call__(self, label: str) -> str | None:
        interrupt_on_termination()
        if not self.work.root.is_dir():
            return f"{os.uname().nodename} does not see {self.work.root}; put the run on a file system that all nodes share"
        return attempt(self.work, label, self.threads)


def _cancel(job: Any) -> None:
    with contextlib.suppress(Exception):  # it has just ended, or Slurm does not answer: there is nothing more to do
        job.cancel()


def _outcome(job: Any, stopping: bool) -> str | None:
    try:
        return job.result()
    except Exception as error:  # submitit's own, or whatever the job raised
        if stopping:
            return STOPPED
        ended = f"Slurm's job {job.job_id} ended as {job.state} without a result"
        return f"{ended} ({described(error).strip().splitlines()[-1]})"
