"""Several processes of one command on this machine: what ``--distributed N`` starts.

    code = launch([sys.executable, "-m", "recipes.cli", "run", "digits"], processes=2)

Each is told its rank in the environment, as under torchrun, and :func:`dptrain.distributed.join` finds the others through a
file. Ctrl-C reaches each of them once: they stop together, after the same update. Where one of them dies, the others notice
and end by themselves; whoever does not is ended.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dptrain.distributed import RENDEZVOUS
from dptrain.errors import ConfigError

FLAG = "--distributed"
GRACE = 20.0
"""Seconds that processes have to end by themselves after one of them failed."""


def split_flag(arguments: list[str]) -> tuple[int, list[str]]:
    """How many processes the flag asks for, 0 where it is not there, and all other arguments.

    Raises:
        ConfigError: it is not a whole number from 1 up.
    """
    rest: list[str] = []
    processes = 0
    words = iter(arguments)
    for word in words:
        name, _, value = word.partition("=")
        if name != FLAG:
            rest.append(word)
            continue
        value = value or next(words, "")
        if not value.isdecimal() or int(value) < 1:
            raise ConfigError(f"{FLAG} is {value!r}; give the number of processes, a whole number from 1 up, such as 2")
        processes = int(value)
    return processes, rest


def is_launched() -> bool:
    """Whether this process is itself one of several, started here or by torchrun."""
    return "RANK" in os.environ


def program(given: list[str]) -> list[str]:
    """How to start this command again: the script that was typed, or the command line itself.

    A script that registers models of its own before it calls the command line must run in every process.
    """
    main: Any = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if given == sys.argv[1:] and spec is None and file is not None and Path(file).is_file():
        return [sys.executable, file, *given]
    return [sys.executable, "-m", "recipes.cli", *given]


def launch(command: list[str], processes: int) -> int:
    """Runs the command in so many processes; gives the first one's exit code, or another's where only that failed."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    with tempfile.TemporaryDirectory(prefix="dptrain-") as folder:
        shared = {
            "OMP_NUM_THREADS": str(threads),
            **os.environ,
            RENDEZVOUS: (Path(folder) / "processes").as_uri(),
            "WORLD_SIZE": str(processes),
        }
        workers: list[subprocess.Popen[bytes]] = []
        with _signals_to(workers):
            for rank in range(processes):
                environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                # A session of its own: a terminal's Ctrl-C reaches it through this process alone, and so once.
                workers.append(subprocess.Popen(command, env=environment, start_new_session=True))
            _wait(workers)
    for rank, worker in enumerate(workers):
        if worker.returncode < 0:
            print(f"dptrain: process {rank} was ended by {signal.Signals(-worker.returncode).name}", file=sys.stderr)
    codes = [worker.returncode if worker.returncode >= 0 else 1 for worker in workers]
    return codes[0] or next((code for code in codes if code), 0)


def _wait(workers: list[subprocess.Popen[bytes]]) -> None:
    """Until all have ended. After a failure, the others get some time, then SIGTERM, then SIGKILL."""
    failed: float | None = None
    ends: list[tuple[float, Callable[[subprocess.Popen[bytes]], None]]]
    ends = [(GRACE, subprocess.Popen.terminate), (GRACE + 5, subprocess.Popen.kill)]
    while any(worker.poll() is None for worker in workers):
        if failed is None and any(worker.returncode not in (None, 0) for worker in workers):
            failed = time.monotonic()
        if failed is not None and ends and time.monotonic() - failed > ends[0][0]:
            _, end = ends.pop(0)
            for worker in workers:
                if worker.poll() is None:
                    end(worker)
        time.sleep(0.05)


@contextmanager
def _signals_to(workers: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """What this process is asked, its workers are asked; from the third Ctrl-C on, they are ended."""
    asked = 0

    def send_on(number: int, frame: Any) -> None:
        nonlocal asked
        asked += 1
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number if asked < 3 else signal.SIGKILL)

    before = {number: signal.signal(number, send_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
