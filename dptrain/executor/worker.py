"""A process that does one job after the other: what ``python -m`` the work's module runs; see ``processes.py``.

It reads a label a line and answers with a JSON object a line. What is printed meanwhile goes to standard error. When its input
ends, whoever started it is gone or has enough: a job that is running is interrupted, so that it ends with a checkpoint.
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
from typing import Any

from dptrain.executor.interrupt import interrupt_on_termination
from dptrain.executor.work import STOPPED, Work, attempt


def serve(function: Callable[[Path, str], None], warm: Callable[[], object] = bool) -> None:
    """Does the jobs of the folder that is named on the command line, until its input ends.

    Args:
        warm: called before the first job, for what takes a while and needs none, such as imports.
    """
    said, sys.stdout = sys.stdout, sys.stderr
    interrupt_on_termination()
    work = Work(function, Path(sys.argv[1]))
    labels: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    busy, abandoned = threading.Event(), threading.Event()
    threading.Thread(target=_read, args=(labels, busy, abandoned), daemon=True).start()
    try:
        warm()
        print(json.dumps({"ready": True}), file=said, flush=True)
        while (label := labels.get()) is not None:
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


def _read(labels: "queue.SimpleQueue[str | None]", busy: threading.Event, abandoned: threading.Event) -> None:
    for given in sys.stdin:
        labels.put(json.loads(given))
    abandoned.set()
    labels.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGINT)


def line(value: Any) -> str:
    """What is written into a worker's input."""
    return json.dumps(value) + "\n"
