"""What a running job says of itself: a small file a job, which every machine of a shared file system can read.

    with StatusFile(folder, label) as status, progress.listening(status):
        train()
    read_statuses(folder)       # in another process: label, phase, step, ε

The files are for showing. One that is missing, old or half read is a job of which nothing is shown; they go when it ends.
"""

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from dptrain.progress import Told

EVERY = 0.3
"""Seconds between two writes."""
EXPENSIVE = 0.3
"""Seconds that ε takes to compute, until it was computed once."""
SHARE = 50
"""ε is computed anew when the job has run this many times as long as that takes: it costs two hundredths."""


@dataclass(frozen=True)
class Status:
    """What one job says."""

    label: str
    phase: str = "starting"
    step: int = 0
    steps: int = 0
    epsilon: float | None = None
    """That was spent, at the last step at which it was computed."""


class StatusFile:
    """Writes a job's status now and then; the file is gone after the block."""

    def __init__(self, folder: Path, label: str):
        self._label = label
        self._folder, self._path = folder, _path(folder, label)
        self._phase, self._written = "", 0.0
        self._epsilon: float | None = None
        self._cost, self._computed = EXPENSIVE, time.monotonic()

    def __enter__(self) -> "StatusFile":
        self._write(Status(self._label))
        return self

    def __call__(self, told: Told) -> None:
        now = time.monotonic()
        if told.phase == self._phase and now - self._written < EVERY:
            return
        if told.epsilon is not None and now - self._computed > SHARE * self._cost:
            self._epsilon = told.epsilon()
            self._computed = time.monotonic()
            self._cost = self._computed - now
        self._phase, self._written = told.phase, now
        self._write(Status(self._label, told.phase, told.step, told.steps, self._epsilon))

    def _write(self, status: Status) -> None:
        """Beside its place, then there; not flushed to the disk, since it means nothing after a crash."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            partial.write_text(json.dumps(asdict(status)))
            os.replace(partial, self._path)
        except OSError:  # a full disk is the training's to report
            return

    def __exit__(self, *_: object) -> None:
        forget(self._folder, self._label)


def _path(folder: Path, label: str) -> Path:
    return folder / f"{label.replace('/', '_')}.json"


def forget(folder: Path, label: str) -> None:
    """Removes the status of a job that is over."""
    with contextlib.suppress(OSError):
        _path(folder, label).unlink()


def read_statuses(folder: Path) -> list[Status]:
    """Of all jobs that say something, in the order of their labels."""
    found: list[Status] = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(Status(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):  # it has just ended, or is of another version
            continue
    return found
