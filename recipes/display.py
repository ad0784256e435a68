"""The one progress display of a sweep, wherever its jobs run.

On a terminal: how many runs are done, and a line for each job that runs, with its step, the ε spent and what attacks it.
Anywhere else, such as in a log file: a line for each job that has ended, and nothing that is written over.
"""

import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from dptrain.executor.status import Status, read_statuses
from dptrain.rounding import up

EVERY = 0.5
"""Seconds between two looks at what the jobs say."""


class Display:
    """Shows a sweep while the block runs.

    Args:
        total: jobs altogether.
        done: that were complete beforehand.
        folder: where running jobs say what they do; None where they run in this process, with bars of their own.
        lines: of jobs that are shown at once.
    """

    def __init__(self, name: str, total: int, done: int = 0, *, folder: Path | None = None, lines: int = 0, shown: bool = True):
        self._total, self._done, self._folder, self._shown = total, done, folder, shown
        self._terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc=name, unit="run", disable=not self._terminal, file=sys.stderr)
        self._lines: list[tqdm] = []
        if self._terminal and folder is not None:
            self._lines = [
                tqdm(total=0, position=place + 1, bar_format="{desc}", leave=False, file=sys.stderr) for place in range(lines)
            ]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Display":
        if self._lines:
            self._thread.start()
        return self

    def begins(self, label: str) -> None:
        """A job in this process begins."""
        self._bar.set_postfix_str(label)

    def ended(self, label: str, error: str | None, stopped: bool, seconds: float | None) -> None:
        """A job has ended, this way or that. Seconds are None where it was complete beforehand."""
        self._done += not stopped
        self._bar.update(not stopped)
        done = "was complete" if seconds is None else f"done in {seconds:.1f} s"
        how = "stopped" if stopped else f"FAILED: {error}" if error is not None else done
        if self._terminal and error is not None:
            self._bar.write(f"{label}: {how}", file=sys.stderr)
        elif self._shown and not self._terminal:
            print(f"[{self._done}/{self._total}] {label}: {how}", file=sys.stderr, flush=True)

    def _follow(self) -> None:
        assert self._folder is not None
        while not self._over.wait(EVERY):
            texts = [described(status) for status in read_statuses(self._folder)]
            for place, line in enumerate(self._lines):
                line.set_description_str(f"  {texts[place]}" if place < len(texts) else "")

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._lines:
            self._thread.join()
        close: list[Callable[[], None]] = [line.close for line in self._lines]
        for done in (*close, self._bar.close):
            done()


def described(status: Status) -> str:
    """A running job in a line."""
    text = f"{status.label}  {status.phase}"
    text += f" {status.step}/{status.steps}" if status.steps else ""
    return text + (f"  ε ≤ {up(status.epsilon)}" if status.epsilon is not None else "")
