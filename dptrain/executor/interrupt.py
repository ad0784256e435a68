"""Ctrl-C while others work: the first is a wish, which the loop passes on; the second one stops at once.

    with asked_to_stop() as asked:
        while running:
            if asked():
                ...         # tell them, and go on waiting

SIGTERM is the same wish, so that ``kill`` and a batch system's own end leave checkpoints as well.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether it was asked, for the block. Outside of the main thread signals are not this one's to take."""
    asked = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def unchanged_signals() -> Iterator[None]:
    """Whatever a library does to SIGINT and SIGTERM in the block is undone behind it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None is one that C has set, and Python cannot
                signal.signal(number, handler)


def interrupt_on_termination() -> None:
    """In a process that does a job: the first SIGTERM becomes the interrupt after which a training ends with a checkpoint.
    Further ones, of a batch system that asks again, change nothing: a second interrupt would end it at once."""
    asked = threading.Event()

    def interrupt(number: int, frame: Any) -> None:
        if not asked.is_set():
            asked.set()
            signal.raise_signal(signal.SIGINT)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, interrupt)
