"""Where a public data set lies: ``data.path``; else the folder of ``DPTRAIN_DATA``, where it has it; else ``~/.cache/dptrain``.
Imports no torch."""

import os
from collections.abc import Callable
from pathlib import Path

from dptrain.errors import DataError


def folder_of(path: str | None, title: str, is_there: Callable[[Path], bool], put: Callable[[Path], str]) -> Path:
    """The folder to read from; that of the cache may lack the data yet.

    Args:
        title: the data set, as a reader knows it.
        is_there: whether a folder holds it.
        put: what to put where, for a folder that was given and lacks it.

    Raises:
        DataError: ``path`` is given and holds no such data.
    """
    if path is not None:
        root = Path(path)
        if not is_there(root):
            what = f"lacks {title}" if root.is_dir() else "is no folder"
            raise DataError(
                f"data.path is {path!r}, which {what}; {put(root)}, name another folder with --data.path, or leave it out to "
                "download them"
            )
        return root
    shared = os.environ.get("DPTRAIN_DATA")
    if shared and is_there(Path(shared)):
        return Path(shared)
    return Path.home() / ".cache" / "dptrain"


def shared_file(name: str) -> Path | None:
    """A file in the folder of ``DPTRAIN_DATA``; None where that is not set, or lacks it."""
    shared = os.environ.get("DPTRAIN_DATA")
    return Path(shared) / name if shared and (Path(shared) / name).is_file() else None
