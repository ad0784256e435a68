"""``local``: jobs in processes of this machine, each of which does one after the other, with its share of the cores.

A worker is a fresh interpreter: forking a process in which torch has threads can hang, and ``multiprocessing`` would run the
caller's own script again. It imports and loads once for all of its jobs, and can begin to before it is known that there are
any. It is in a session of its own, so that a terminal's Ctrl-C reaches it through this process alone, and once; and it ends
with its input, so that it does not outlive this process, however that one ends.

A worker that dies takes its one job with it; another one takes its place while there are jobs.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Any

import dptrain
from dptrain.executor.interrupt import asked_to_stop
from dptrain.executor.work import STOPPED, Finished, Options, Work, threads_of
from dptrain.executor.worker import line

LOOK = 0.1
"""Seconds after which a wish to stop is seen."""


class _Worker:
    """One process and the job it has."""

    def __init__(self, work: Work, threads: int, found: "queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]"):
        self.label: str | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by end()
        paths = [str(Path(dptrain.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        self.process = subprocess.Popen(
            [sys.executable, "-m", work.function.__module__, str(work.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **limits, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(found,), daemon=True).start()

    def _listen(self, found: "queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]") -> None:
        assert self.process.stdout is not None
        for said in self.process.stdout:
            with contextlib.suppress(ValueError):  # half a line of one that died
                found.put((self, json.loads(said)))
        self.process.wait()
        found.put((self, None))

    def give(self, label: str) -> None:
        assert self.process.stdin is not None
        self.label = label
        with contextlib.suppress(OSError):  # it has died, which its listener says
            self.process.stdin.write(line(label))
            self.process.stdin.flush()

    def interrupt(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def obituary(self) -> str:
        """How it ended, and the last that it said."""
        code = self.process.returncode
        if code == -signal.SIGKILL:
            how = "its process was killed (SIGKILL): by hand, or by the system, which had no memory left"
        elif code < 0:
            how = f"its process was ended by {signal.Signals(-code).name}"
        else:
            how = f"its process ended with exit code {code}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"{how}; its last line: {lines[-1]}" if lines and code != -signal.SIGKILL else how

    def end(self) -> None:
        """At once, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._errors.close()


class Local:
    """See the module's text."""

    def __init__(self, options: Options):
        self._options = options
        self._found: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []

    def prepare(self, work: Work, count: int) -> None:
        for _ in range(min(self._options.jobs, count) - len(self._workers)):
            self._workers.append(_Worker(work, threads_of(self._options), self._found))

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def run(self, work: Work, labels: Sequence[str]) -> Generator[Finished, None, None]:
        waiting, workers, stopping = deque(labels), self._workers, False
        with asked_to_stop() as asked:
            try:
                self.prepare(work, len(labels))
                while waiting or any(worker.label is not None for worker in workers):
                    if asked() and not stopping:
                        stopping = True
                        waiting.clear()
                        for worker in workers:
                            worker.interrupt()
                    try:
                        worker, said = self._found.get(timeout=LOOK)
                    except queue.Empty:
                        continue
                    if said is None:
                        workers.remove(worker)
                        if worker.label is not None:
                            yield work.ended(worker.label, STOPPED if stopping else worker.obituary())
                            self.prepare(work, len(waiting) + len(workers))
                        elif not workers:  # it never began: nor would another one
                            while waiting:
                                yield work.ended(waiting.popleft(), worker.obituary())
                        worker.end()
                        continue
                    if "label" in said:
                        worker.label = None
                        yield Finished(**said)
                    if waiting and not said.get("stopped"):
                        worker.give(waiting.popleft())
            finally:
                self.close()
            if stopping:
                raise KeyboardInterrupt
