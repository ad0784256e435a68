"""Files that are whole or not there: written beside their place, flushed, and put there by renaming. Imports no torch.

Whoever writes holds a lock on the file beside the place, ``.NAME.NUMBER``, which the system lets go when the process ends, also
by kill -9. So the next one who writes at that place knows which such files nobody writes any more, and removes them: halves of
files, which may be private, do not gather. A disk that is full or cannot be written is a :class:`~dptrain.errors.DiskError`.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dptrain.errors import DiskError

DIGITS = 18
"""Of the number in the name of a file that is being written."""


def write_file(path: Path, content: bytes, mode: int = 0o666, meanwhile: str = "") -> None:
    """Writes a single file so that a reader finds the old one or this one, whole, also after a crash.

    Args:
        mode: its permissions, before the process's mask; 0o600 is for the owner alone.
        meanwhile: what stands for its name until it is whole, where others would read a file whose name has a part of its own.

    Raises:
        DiskError: the disk is full, or the place is closed to writing; the old file is there as it was.
    """
    with whole_file(path, mode, meanwhile) as handle:
        handle.write(content)


def write_next(folder: Path, suffix: str, content: bytes) -> Path:
    """Writes a file under the next free number, ``001`` on; none takes another's place, also where several write at once."""
    taken = [int(path.stem) for path in folder.glob(f"*{suffix}") if path.stem.isdecimal()]
    number = 1 + max(taken, default=0)
    with _beside(folder / f"next{suffix}", 0o666) as (handle, complete):
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
        while True:
            path = folder / f"{number:03d}{suffix}"
            try:
                os.link(complete, path)
                return path
            except FileExistsError:
                number += 1


@contextmanager
def whole_file(path: Path, mode: int = 0o666, meanwhile: str = "") -> Iterator[BinaryIO]:
    """A file to write, which takes its place when the block ends; where the block raises, nothing does.

    Raises:
        DiskError: as in :func:`write_file`.
    """
    with _beside(path.with_name(meanwhile or path.name), mode) as (handle, partial):
        yield handle
        handle.flush()
        os.fsync(handle.fileno())
        os.replace(partial, path)  # while it is locked: nobody takes it for one that was left


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says in a sentence that ``path`` cannot be written.

    Raises:
        DiskError: in place of the system's own error, where the disk is full or closed to writing.
    """
    try:
        yield
    except OSError as error:
        said = None if isinstance(error, DiskError) else DiskError.of(error, path)
        if said is None:
            raise
        raise said from error


@contextmanager
def _beside(path: Path, mode: int) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside its place, locked while it is written; it is gone afterwards, unless it was put there."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        handle, partial = _locked(path, mode)
        try:
            with handle:
                yield handle, partial
        finally:
            partial.unlink(missing_ok=True)


def _locked(path: Path, mode: int) -> tuple[BinaryIO, Path]:
    while True:
        partial = path.with_name(f".{path.name}.{secrets.randbelow(10**DIGITS):0{DIGITS}d}")
        handle = open(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), "w+b")  # noqa: SIM115  given away open
        with contextlib.suppress(OSError):  # a file system without locks: then nothing is removed either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if partial.exists():  # another one took it for left behind, before it was locked
            return handle, partial
        handle.close()


def _remove_abandoned(path: Path) -> None:
    """Of files beside the place, those whose writers are dead."""
    for partial in path.parent.iterdir():
        head, _, number = partial.name.rpartition(".")
        if head != f".{path.name}" or not number.isdecimal():
            continue
        with contextlib.suppress(OSError), open(partial, "r+b") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink(missing_ok=True)
