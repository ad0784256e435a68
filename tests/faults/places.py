"""Real places that are full or closed: a small file system of its own, and a folder that is mounted for reading alone.

Both need the right to mount, which root has in most containers; without it the disk's tests are skipped by name, and whoever is
not root is kept out of a folder by its permissions.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A file system that holds a few megabytes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Takes all space but so many bytes, rounded down to pages."""
        with open(self._ballast, "ab", buffering=0) as handle:
            for size in (1 << 16, 4096):
                while True:
                    left = os.statvfs(self.folder)
                    if left.f_bavail * left.f_frsize - size < leave:
                        break
                    handle.write(b"\0" * size)

    def free(self) -> None:
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, size: str = "8m") -> Iterator[SmallDisk]:
    """A small file system at ``folder``; the test is skipped where it cannot be mounted."""
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder), otherwise="needs the right to mount a small file system")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def closed(folder: Path) -> Iterator[Path]:
    """An existing folder that cannot be written meanwhile."""
    if os.geteuid():
        mode = folder.stat().st_mode
        folder.chmod(0o500)
        try:
            yield folder
        finally:
            folder.chmod(mode)
        return
    _mount("--bind", str(folder), str(folder), otherwise="root may write anywhere here: needs the right to mount")
    try:
        _mount("-o", "remount,bind,ro", str(folder), otherwise="needs the right to mount for reading alone")
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(*arguments: str, otherwise: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{otherwise}: {done.stderr.strip()}")
