"""A process that does one job after the other: what ``python -m`` the work's module runs; see ``processes.py``.

It reads the name of a function and a label a line and answers with a JSON object a line. What is printed meanwhile goes to
standard error. When its input ends, whoever started it is gone or has enough: a job that is running is interrupted, so that it
ends with a checkpoint.

With a further word on its command line, the number of a channel, the process is a nursery (``nursery.py``), of which each fork
does this.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dptrain.executor import nursery
from dptrain.executor.interrupt import interrupt_on_termination
from dptrain.executor.work import STOPPED, Work, attempt


def serve(*functions: Callable[[Path, str], None], warm: Callable[[], object] = bool) -> None:
    """Does the jobs of the folder that is named on the command line, until its input ends.

    Args:
        functions: of a folder and a label, each by its name.
        warm: called before the first job, for what takes a while and needs none, such as imports; with one thread alone.
    """
    if len(sys.argv) > 2:
        nursery.tend(int(sys.argv[2]), warm)
        warm = bool
    said, sys.stdout = sys.stdout, sys.stderr
    interrupt_on_termination()
    works = {function.__name__: Work(function, Path(sys.argv[1])) for function in functions}
    labels: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
    busy, abandoned = threading.Event(), threading.Event()
    threading.Thread(target=_read, args=(labels, busy, abandoned), daemon=True).start()
    try:
        warm()
        print(json.dumps({"ready": True}), file=said, flush=True)
        while (given := labels.get()) is not None:
            name, label = given
            work = works[name]
            busy.set()
            if abandoned.is_set():
                return
            began = time.monotonic()
            outcome = attempt(work, label)
            busy.clear()
            print(json.dumps(vars(work.ended(label, outcome, time.monotonic() - began))), file=said, flush=True)
            if outcome == STOPPED:
                return
    except KeyboardInterrupt:  # between two jobs
        return
    except BrokenPipeError:
        os._exit(1)


def _read(labels: "queue.SimpleQueue[list[str] | None]", busy: threading.Event, abandoned: threading.Event) -> None:
    for given in sys.stdin:
        labels.put(json.loads(given))
    abandoned.set()
    labels.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGINT)


def line(work: Work, label: str) -> str:
    """What is written into a worker's input."""
    return json.dumps([work.function.__name__, label]) + "\n"
