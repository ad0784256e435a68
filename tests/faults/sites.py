"""Places at which a run can be killed, counted in the process itself: a kill there is exact, and no matter of timing.

    sites = Sites(base, say, kill=Kill("fsync clip_only/seed=0/private/.checkpoint.new/state.json", 2, half=False))
    sites.watch()

Every call that changes the disk below ``base`` is a site, before it is made: ``mkdir``, ``open`` of a file that is made,
``write``, ``fsync``, ``rename``, ``replace``, ``link``, ``unlink`` and ``rmdir``. What files written through Python's buffers
give to the system is seen where it is given (:class:`_Raw`), not where it was handed to the buffer. To be killed between two
such calls is to be killed before the second. A site is named by the call and the file, with what differs from run to run left
out, so that the n-th one of that name is the same one in each run. :meth:`Sites.at` adds sites of other kinds, such as a step.
"""

import builtins
import io
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGES = ("mkdir", "rename", "replace", "link", "unlink", "remove", "rmdir")
MAKES = os.O_CREAT | os.O_TRUNC
VARYING = (
    (re.compile(r"events\.out\.tfevents\.\S*?(\.dptrain)?$"), r"events\1"),
    (re.compile(r"(^|/)(\.[^/]*?)\.\d+$"), r"\1\2.N"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "DIGEST"),
)
"""Of a path: when, where and by which process it was written, and which code it was."""


@dataclass(frozen=True)
class Kill:
    """The n-th site of a name, counted from 1."""

    site: str
    number: int
    half: bool = False
    """Of a write: half of it is made first."""

    def __str__(self) -> str:
        return f"{'half of ' if self.half else ''}{self.site} #{self.number}"


class Sites:
    """Counts the sites of this process, says each, and kills the process at one of them.

    Args:
        base: folder below which the disk is watched.
        say: told of each site before it is passed.
        half: whether a write can be cut in its middle.
    """

    def __init__(self, base: Path, say: Callable[[str], object], kill: Kill | None = None):
        self._base, self._say, self._kill = str(base), say, kill
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def at(self, site: str, first: Callable[[], object] | None = None) -> None:
        """A site is reached.

        Args:
            first: makes half of what is about to be made.
        """
        with self._lock:
            self._seen[site] += 1
            self._say(site)
            if self._kill is not None and (site, self._seen[site]) == (self._kill.site, self._kill.number):
                if self._kill.half and first is not None:
                    first()
                os.kill(os.getpid(), signal.SIGKILL)

    def name(self, place: Any) -> str | None:
        """The path below the base, the same in each run; None where it is elsewhere."""
        try:
            path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.path.abspath(os.fspath(place))
        except (OSError, TypeError):
            return None
        path = path.decode() if isinstance(path, bytes) else path
        if not path.startswith(self._base):
            return None
        name = path[len(self._base) :].strip("/")
        for pattern, same in VARYING:
            name = pattern.sub(same, name)
        return name

    def watch(self) -> None:
        """From here on, for the rest of this process."""
        for call in CHANGES:
            setattr(os, call, self._changing(call, getattr(os, call)))
        write, fsync, opened = os.write, os.fsync, os.open

        def watched_write(handle: int, content: Any) -> int:
            name = self.name(handle)
            if name is not None:
                content = bytes(content)
                self.at(f"write {name}", lambda: write(handle, content[: len(content) // 2]))
            return write(handle, content)

        def watched_fsync(handle: Any) -> None:
            name = self.name(handle if isinstance(handle, int) else handle.fileno())
            if name is not None:
                self.at(f"fsync {name}")
            fsync(handle)

        def watched_open(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            name = self.name(path) if flags & MAKES else None
            if name is not None:
                self.at(f"open {name}")
            return opened(path, flags, *arguments, **options)

        os.write, os.fsync, os.open = watched_write, watched_fsync, watched_open
        builtins.open = io.open = self._opening(builtins.open)

    def _changing(self, call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, *arguments: Any, dir_fd: int | None = None, **options: Any) -> Any:
            where = path if dir_fd is None else Path(os.readlink(f"/proc/self/fd/{dir_fd}")) / path
            name = self.name(where)
            if name is not None:
                self.at(f"{call} {name}")
            return real(path, *arguments, **options, **({} if dir_fd is None else {"dir_fd": dir_fd}))

        return watched

    def _opening(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(file: Any, mode: str = "r", buffering: int = -1, *text: Any, **options: Any) -> Any:
            name = self.name(file) if set(mode) & set("wax+") else None
            if name is None:
                return real(file, mode, buffering, *text, **options)
            if not isinstance(file, int):
                self.at(f"open {name}")
            raw = _Raw(file, mode.replace("t", "").replace("b", ""), opener=options.pop("opener", None))
            raw.sites = self
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, *text, **options)

        return watched


class _Raw(io.FileIO):
    """Tells of what is given to the system."""

    sites: Sites

    def write(self, content: Any) -> int:
        content = bytes(content)
        name = self.sites.name(self.fileno())
        if name is not None:
            self.sites.at(f"write {name}", lambda: super(_Raw, self).write(content[: len(content) // 2]))
        return super().write(content)
