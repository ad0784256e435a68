"""Files that are whole or not there: written beside their place, flushed, and put there by renaming. Imports no torch."""

import os
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
