"""Files that are whole or not there: written beside their place, flushed, and put there by renaming. Imports no torch."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_file(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Writes a single file so that a reader finds the old one or this one, whole, also after a crash.

    Args:
        mode: its permissions, before the process's mask; 0o600 is for the owner alone.
    """
    with whole_file(path, mode) as handle:
        handle.write(content)


def write_next(folder: Path, suffix: str, content: bytes) -> Path:
    """Writes a file under the next free number, ``001`` on; none takes another's place, also where several write at once."""
    taken = [int(path.stem) for path in folder.glob(f"*{suffix}") if path.stem.isdecimal()]
    number = 1 + max(taken, default=0)
    complete = folder / f".next.{os.getpid()}.{threading.get_ident()}"
    write_file(complete, content)
    try:
        while True:
            path = folder / f"{number:03d}{suffix}"
            try:
                os.link(complete, path)
                return path
            except FileExistsError:
                number += 1
    finally:
        complete.unlink()


@contextmanager
def whole_file(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write, which takes its place when the block ends; where the block raises, nothing does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode), "w+b") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
