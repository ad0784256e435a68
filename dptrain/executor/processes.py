"""``local``: jobs in processes of this machine, each of which does one after the other, with its share of the cores.

A worker is a fork of a process that has imported what jobs need and done nothing else (``nursery.py``); where processes are not
forked, it is a fresh interpreter that imports it for itself. In neither case does it know what the caller has loaded, or run
the caller's own script again. It loads once for all of its jobs, and what it comes from can begin before it is known that there
are any. It is in a session of its own, so that a terminal's Ctrl-C reaches it through this process alone, and once; and it ends
with its input, so that it does not outlive this process, however that one ends.

A worker that dies takes its one job with it; another one takes its place while there are jobs.
"""

import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Sequence
from typing import IO, Any

from dptrain.executor import nursery
from dptrain.executor.interrupt import asked_to_stop
from dptrain.executor.nursery import Born, Nursery, environment, is_possible
from dptrain.executor.work import STOPPED, Finished, Options, Work, threads_of
from dptrain.executor.worker import line

LOOK = 0.1
"""Seconds after which a wish to stop is seen."""


class _Worker:
    """One process and the job it has."""

    def __init__(
        self,
        work: Work,
        threads: int,
        nursery: Nursery | None,
        found: "queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]",
    ):
        self.label: str | None = None
        self.kind: str | None = None
        """Of its latest job."""
        self._nursery = nursery
        self.process: Born | subprocess.Popen[str]
        if nursery is not None:
            self.process = nursery.born()
            self._errors: IO[bytes] = self.process.stderr
        else:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by end()
            self.process = subprocess.Popen(
                [sys.executable, "-m", work.function.__module__, str(work.root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=environment(threads),
                start_new_session=True,
            )
        threading.Thread(target=self._listen, args=(found,), daemon=True).start()

    def _listen(self, found: "queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]") -> None:
        assert self.process.stdout is not None
        try:
            for said in self.process.stdout:
                with contextlib.suppress(ValueError):  # half a line of one that died
                    found.put((self, json.loads(said)))
            self.process.wait()
        finally:
            found.put((self, None))

    def give(self, work: Work, label: str) -> None:
        assert self.process.stdin is not None
        self.label, self.kind = label, kind_of(label)
        with contextlib.suppress(OSError):  # it has died, which its listener says
            self.process.stdin.write(line(work, label))
            self.process.stdin.flush()

    def is_replaced(self) -> bool:
        """Of one that has ended: whether another one would do better. It had a job, which its death is told of; or it was asked
        of a nursery that was about to end, and had worked."""
        if self.label is not None or self._nursery is None:
            return self.label is not None
        return isinstance(self.process, Born) and not self.process.is_born and self._nursery.has_borne()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def obituary(self) -> str:
        """How it ended, and the last that it said."""
        code, errors = self.process.returncode, self._errors
        if isinstance(self.process, Born) and not self.process.is_born and self._nursery is not None:
            code, errors = self._nursery.ended(), self._nursery.errors
        if code is None:
            return "its process ended, and nobody saw how"
        if code == -signal.SIGKILL:
            how = "its process was killed (SIGKILL): by hand, or by the system, which had no memory left"
        elif code < 0:
            how = f"its process was ended by {signal.Signals(-code).name}"
        else:
            how = f"its process ended with exit code {code}"
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
        return f"{how}; its last line: {lines[-1]}" if lines and code != -signal.SIGKILL else how

    def end(self) -> None:
        """At once, whatever it does."""
        if isinstance(self.process, Born):
            self.process.end()
            return
        self.process.kill()
        self.process.wait()
        self._errors.close()


def _next(worker: _Worker, workers: list[_Worker], waiting: deque[str]) -> str:
    """Takes what a worker is to do: rather another seed of what it did before, since it has computed what they share; and
    rather not what another one does that for."""
    mine, others = worker.kind, {other.kind for other in workers if other is not worker}
    label = min(waiting, key=lambda label: 0 if kind_of(label) == mine else 2 if kind_of(label) in others else 1)
    waiting.remove(label)
    return label


def kind_of(label: str) -> str:
    """What stands before a label's seed: ``eps=08.00`` of ``eps=08.00/seed=0``."""
    return label.rpartition("/")[0]


class Local:
    """See the module's text."""

    def __init__(self, options: Options):
        self._options = options
        self._threads = threads_of(options)
        self._found: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._nursery: Nursery | None = None
        self._stays = False

    def prepare(self, work: Work, count: int) -> None:
        self._stays = True
        self._hire(work, count)

    def _hire(self, work: Work, count: int) -> None:
        for _ in range(min(self._options.jobs, count) - len(self._workers)):
            if is_possible() and (self._nursery is None or self._nursery.is_over()):
                self._dismiss()
                self._nursery = nursery.taken(work.function.__module__, work.root, self._threads)
            self._workers.append(_Worker(work, self._threads, self._nursery, self._found))

    def _dismiss(self) -> None:
        if self._nursery is not None:
            self._nursery.close()
        self._nursery = None

    def close(self) -> None:
        self._end()
        self._dismiss()

    def _end(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def run(self, work: Work, labels: Sequence[str]) -> Generator[Finished, None, None]:
        waiting, workers, stopping = deque(labels), self._workers, False
        with asked_to_stop() as asked:
            try:
                self._hire(work, len(labels))
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
                    if worker not in workers:  # of an earlier work
                        continue
                    if said is None:
                        workers.remove(worker)
                        if worker.label is not None:
                            yield work.ended(worker.label, STOPPED if stopping else worker.obituary())
                        if worker.is_replaced():
                            self._hire(work, len(waiting) + len(workers))
                        elif not workers:  # it never began: nor would another one
                            while waiting:
                                yield work.ended(waiting.popleft(), worker.obituary())
                        worker.end()
                        continue
                    if "label" in said:
                        worker.label = None
                        yield Finished(**said)
                    if waiting and not said.get("stopped"):
                        worker.give(work, _next(worker, workers, waiting))
            finally:
                self._end()
                if not self._stays:
                    self._dismiss()
            if stopping:
                raise KeyboardInterrupt
