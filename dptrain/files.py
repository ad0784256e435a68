"""Files that are whole or not there: written beside their place, flushed, and put there by renaming. Imports no torch."""

import os
from pathlib import Path


def write_file(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Writes a single file so that a reader finds the old one or this one, whole, also after a crash.

    Args:
        mode: its permissions, before the process's mask; 0o600 is for the owner alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
