"""``ray``: jobs on a Ray cluster that runs already (``--ray.address``), or on one that is started on this machine.

All of its machines must see the run's folder and the data, under the same paths. A job is given its share of the cores as
``num_cpus``; one whose worker is lost (killed, out of memory, its machine gone) is tried again, twice, and goes on from its
checkpoint. Ray's processes of a cluster that was started here end with the sweep.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import dptrain
from dptrain.errors import ConfigError
from dptrain.executor.interrupt import asked_to_stop, interrupt_on_termination, unchanged_signals
from dptrain.executor.work import STOPPED, Finished, Options, Work, attempt, cores, threads_of

LOOK = 0.2
"""Seconds after which a wish to stop is seen."""
RETRIES = 2
"""Of a job whose worker was lost."""
CARRIED = ("DPTRAIN_DATA", "DPTRAIN_LEDGER", "XDG_STATE_HOME", "HF_HOME", "HF_HUB_OFFLINE")
"""Environment variables that a job's machine is told."""


class OnRay:
    """See the module's text."""

    def __init__(self, options: Options):
        self._options = options
        self._threads = threads_of(options)

    def prepare(self, work: Work, count: int) -> None:
        """Nothing: a cluster is not started for what may be refused."""

    def close(self) -> None:
        """Nothing is left open."""

    def run(self, work: Work, labels: Sequence[str]) -> Generator[Finished, None, None]:
        ray = _ray()
        if ray.is_initialized():
            yield from self._run(ray, work, labels)
            return
        with unchanged_signals():  # Ray takes SIGTERM for itself, for good
            self._connect(ray)
            try:
                yield from self._run(ray, work, labels)
            finally:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        address, quiet = self._options.ray_address, {"log_to_driver": False, "logging_level": logging.ERROR}
        # Ray's workers begin in other folders, and with an environment of their own.
        paths = [str(Path(dptrain.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        carried = {name: os.environ[name] for name in CARRIED if name in os.environ}
        environment = {"env_vars": {**carried, "PYTHONPATH": os.pathsep.join(paths)}}
        try:
            if address is None:
                os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
                ray.init(
                    address="local",
                    num_cpus=max(cores(), self._threads * self._options.jobs),
                    include_dashboard=False,
                    runtime_env=environment,
                    **quiet,
                )
            else:
                ray.init(address=address, runtime_env=environment, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"--ray.address is {address!r}, where no Ray cluster answers ({error}); start one by `ray start --head`, or "
                "leave it out"
            ) from None

    def _run(self, ray: Any, work: Work, labels: Sequence[str]) -> Generator[Finished, None, None]:
        remote = ray.remote(_attempt).options(num_cpus=self._threads, max_retries=RETRIES, retry_exceptions=False)
        waiting, running, stopping = deque(labels), dict[Any, tuple[str, float]](), False
        with asked_to_stop() as asked:
            try:
                while running or (waiting and not stopping):
                    if asked() and not stopping:
                        stopping = True
                        waiting.clear()
                        for job in running:
                            ray.cancel(job, force=False)
                    while waiting and len(running) < self._options.jobs:
                        label = waiting.popleft()
                        running[remote.remote(work, label, self._threads)] = label, time.monotonic()
                    ready, _ = ray.wait(list(running), num_returns=1, timeout=LOOK) if running else ([], [])
                    for job in ready:
                        label, began = running.pop(job)
                        yield work.ended(label, _outcome(ray, job, stopping), time.monotonic() - began)
            finally:
                for job in running:
                    ray.cancel(job, force=True)
            if stopping:
                raise KeyboardInterrupt


def _outcome(ray: Any, job: Any, stopping: bool) -> str | None:
    try:
        return ray.get(job)
    except (ray.exceptions.TaskCancelledError, KeyboardInterrupt):
        return STOPPED
    except ray.exceptions.RayError as error:
        if stopping:
            return STOPPED
        first = str(error).strip().splitlines()
        reason = first[0] if first else "no reason given"
        return f"its Ray worker was lost {RETRIES + 1} times ({type(error).__name__}: {reason})"


def _attempt(work: Work, label: str, threads: int) -> str | None:
    """On a machine of the cluster."""
    interrupt_on_termination()
    if not work.root.is_dir():
        return f"{os.uname().nodename} does not see {work.root}; put the run on a file system that all machines share"
    return attempt(work, label, threads)


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("--executor is 'ray', which is not installed; type `pip install 'dptrain[cluster]'`") from None
    return ray
