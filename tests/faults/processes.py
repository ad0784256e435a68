"""Starts a watched run as a forked child or as an interpreter of its own, hears what it does, and may kill it from outside.

A fork has torch imported and no thread but its own: whoever calls :func:`forked` has computed no gradient, since torch's engine
cannot be forked after that.
"""

import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.sites import Kill
from tests.faults.watched import as_argument, watched


@dataclass
class Outcome:
    """What a process did, as it said itself, and how it ended."""

    code: int = 0
    """Exit code, or the signal that ended it, below 0."""
    sites: list[str] = field(default_factory=list)
    steps: list[tuple[str, int, str]] = field(default_factory=list)
    """Model, number of the step, digest of the gradients that moved it."""
    saved: dict[str, int] = field(default_factory=dict)
    """The last step of each model that is on the disk."""

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    def hear(self, line: str) -> None:
        kind, _, rest = line.partition(" ")
        if kind == "site":
            self.sites.append(rest)
        elif kind == "step":
            label, number, digest = rest.split(" ")
            self.steps.append((label, int(number), digest))
        else:
            label, number = rest.split(" ")
            self.saved[label] = int(number)


@dataclass(frozen=True)
class At:
    """A kill from outside: so many seconds after the process said so many things, wherever it is then."""

    messages: int
    seconds: float

    def __str__(self) -> str:
        return f"{1000 * self.seconds:.0f} ms after its message {self.messages}"


def forked(arguments: list[str], base: Path, log: Path, kill: Kill | At | None = None) -> Outcome:
    """The command in a fork of this process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            code = watched(arguments, write, base, kill if isinstance(kill, Kill) else None, drawn="no charts")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(70)
    os.close(write)
    return _heard(read, kill, lambda number: os.kill(child, number), lambda: os.waitpid(child, 0)[1])


def started(arguments: list[str], base: Path, log: Path, kill: Kill | At | None = None) -> Outcome:
    """The command in an interpreter of its own."""
    read, write = os.pipe()
    given = as_argument(arguments, write, base, kill if isinstance(kill, Kill) else None)
    with log.open("ab") as said:
        command = [sys.executable, "-m", "tests.faults.watched", given]
        process = subprocess.Popen(command, pass_fds=[write], stdout=said, stderr=said)
        os.close(write)
        return _heard(read, kill, process.send_signal, lambda: _status(process))


def _status(process: "subprocess.Popen[bytes]") -> int:
    code = process.wait()
    return -code if code < 0 else code << 8


def _heard(read: int, kill: Kill | At | None, send: Callable[[int], object], wait: Callable[[], int]) -> Outcome:
    outcome, heard = Outcome(), 0
    with open(read, encoding="utf-8") as pipe:
        for line in pipe:
            outcome.hear(line.rstrip("\n"))
            heard += 1
            if isinstance(kill, At) and heard == kill.messages:
                time.sleep(kill.seconds)
                send(signal.SIGKILL)
    outcome.code = os.waitstatus_to_exitcode(wait())
    return outcome


def anywhere(messages: int, chance: random.Random) -> At:
    """A moment of a run that says so many things."""
    return At(chance.randint(1, messages), chance.random() * 0.05)
