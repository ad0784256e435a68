"""Locks between processes: a file that one process holds, and that nobody holds any more once it has died.

    with held(root / ".lock", busy=lambda by: ConfigError(f"{root} is in use by {by}")):
        ...

The lock is the operating system's (``flock``), not the file's existence: a file that a killed process left blocks nothing. It
holds between the machines of a shared file system where that passes ``flock`` on, as NFS on Linux does.
"""

import fcntl
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dptrain.files import writing

LOOK = 0.1
"""Seconds between two tries."""


@contextmanager
def held(
    path: Path, *, busy: Callable[[str], Exception], wait: float = 0.0, remove: Callable[[], bool] = bool
) -> Iterator[None]:
    """Holds the lock for the block.

    Args:
        busy: makes the error where another process holds it; it is handed who that is.
        wait: seconds until then.
        remove: asked at the end of the block, whether the file is of no use to anyone any more and goes.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(handle, path, time.monotonic() + wait, busy)
        with writing(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {platform.node()}".encode(), 0)
        yield
        if remove():
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _take(handle: int, path: Path, until: float, busy: Callable[[str], Exception]) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise busy(path.read_text(errors="replace") or "another process") from None
        time.sleep(LOOK)
