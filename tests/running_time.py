"""A clock for what a program may take at most: it stands still while the machine lets this process not run.

    with running_time() as seconds:
        ask()
    assert seconds() < 3

A thread looks every ``LOOK`` seconds, and counts no more than ``MOST`` for what lay between two looks. A program that hangs is
waited for by a process that runs, and so counts in full.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK, MOST = 0.02, 0.1


@contextmanager
def running_time() -> Iterator[Callable[[], float]]:
    """Seconds since the block began, as far as this process could run in them."""
    counted, over = [0.0], threading.Event()

    def count() -> None:
        latest = time.monotonic()
        while not over.wait(LOOK):
            now = time.monotonic()
            counted[0] += min(now - latest, MOST)
            latest = now

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield lambda: counted[0]
    finally:
        over.set()
        thread.join()
