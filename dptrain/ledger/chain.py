"""One file that is only ever added to, by several processes at once, and that shows what was taken out of it or changed.

    chain = Chain(Path("ledger.jsonl"))
    chain.append({"kind": "reserve", "first": 0, "last": 60})
    with chain.held() as held:                # nobody else writes in between
        if room_for(held.entries()):
            held.append({"kind": "reserve", "first": 60, "last": 90})

One JSON object a line, flushed to the disk before :meth:`Chain.append` returns. Each holds its line's number, the hash of the
entry before it and its own, so that an entry is added without the file being read. A small file beside it, ``….head``, says
how many lines there are and the last one's hash, so that lines taken off the end are noticed as well; it is written after the
line, whole or not at all, and may be behind by what a crash cut off, never ahead.

**What is noticed.** A line that was edited, removed, doubled or put elsewhere is named by its number in the file. Whoever
rewrites all lines behind it *and* the head is not noticed: no secret is in the hashes. It is a seal against mishaps and against
edits by hand, not a signature.

**What may happen.** A line without its end was cut off by a crash or a full disk: it announced what had not begun, and is
passed over. Where a line cannot be written, :class:`~dptrain.errors.LedgerError` says so and the file stays readable. The clock
is told and never used for order; where it went back by more than :data:`SKEW`, a ``note`` says from where.

Locks are the operating system's (``flock``), which a process that dies lets go of. On a network file system they hold where
that one passes them on, as NFS does since version 4.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dptrain.errors import LedgerError
from dptrain.files import write_file

Entry = dict[str, Any]

SKEW = timedelta(minutes=1)
"""By which the clocks of machines that share a folder may differ."""
OWN = ("line", "previous", "hash", "time", "follows_torn")
"""Keys that the chain gives to each entry."""


@dataclass(frozen=True)
class _State:
    """Where a file ends."""

    lines: int = 0
    hash: str = ""
    """Of the last entry."""
    size: int = 0
    """In bytes; in a head 0 where the file is to be read anew before it is added to."""
    time: str = ""
    torn: bool = False
    """Whether what a crash cut off follows the last entry."""
    unended: bool = False
    """Whether that has no line end."""
    kept: list[bytes] = field(default_factory=list, repr=False)
    """The lines that are entries."""

    @property
    def entries(self) -> list[Entry]:
        """Each call makes its own: whoever changes one changes no other's."""
        made: list[Entry] = [json.loads(line) for line in self.kept]
        for entry in made:
            entry.pop("hash", None)
        return made


@dataclass(frozen=True)
class Chain:
    """An append-only file."""

    path: Path
    way_out: str = "free some space, or give a folder that can be written"
    """What to do where it cannot be written."""
    folder_mode: int = 0o777
    """Permissions of its folder where that is made, before the process's mask."""

    @property
    def head(self) -> Path:
        """Beside it: how many lines there are, and the last one's hash."""
        return self.path.with_name(f"{self.path.name}.head")

    def append(self, entry: Entry) -> None:
        """Adds an entry, on the disk when this returns.

        Raises:
            LedgerError: it could not be written; or lines at the end of the file were removed.
        """
        with self.held() as held:
            held.append(entry)

    @contextmanager
    def held(self) -> Iterator["Held"]:
        """The file, for this process alone until the block ends."""
        with self._said():
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=self.folder_mode)
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            with self._said():
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield Held(self, handle)
        finally:
            os.close(handle)

    def entries(self) -> list[Entry]:
        """All whole entries, each checked against the one before it.

        Raises:
            LedgerError: a line was changed or removed; it says which.
        """
        if not self.path.exists():
            return _read(self, b"", self._read_head()).entries
        try:
            with open(self.path, "rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH)
                return _read(self, handle.read(), self._read_head()).entries
        except OSError as error:
            raise LedgerError(f"{self.path} cannot be read ({error.strerror or error}); it is its owner's alone") from error

    def _read_head(self) -> _State | None:
        try:
            stated = json.loads(self.head.read_bytes())
            return _State(int(stated["lines"]), str(stated["hash"]), int(stated["size"]), str(stated["time"]))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerError(f"{self.head} cannot be read ({error.strerror or error}); it is its owner's alone") from error
        except (ValueError, TypeError, KeyError):
            raise LedgerError(
                f"{self.head} is damaged, and says how long {self.path.name} is; restore both from a copy"
            ) from None

    @contextmanager
    def _said(self) -> Iterator[None]:
        """What the operating system refuses, as an error that says what it means here."""
        try:
            yield
        except OSError as error:
            raise LedgerError(
                f"{self.path} cannot be written ({error.strerror or error}), and nothing is done before it stands there; "
                f"{self.way_out}"
            ) from error


@dataclass(frozen=True)
class Held:
    """A chain that no other process writes meanwhile; made by :meth:`Chain.held`."""

    chain: Chain
    _handle: int

    def entries(self) -> list[Entry]:
        """As :meth:`Chain.entries`."""
        return self._state().entries

    def append(self, entry: Entry) -> None:
        """As :meth:`Chain.append`."""
        unfit = [key for key in OWN if key in entry]
        if unfit:
            raise ValueError(f"the entry has a key {unfit[0]!r} of its own; the chain gives it")
        chain, head = self.chain, self.chain._read_head()
        size = os.fstat(self._handle).st_size
        at = head if head is not None and head.size == size else self._state()
        now = datetime.now(UTC)
        with chain._said():
            if head is None:  # before the first line: from then on a missing head says that one was removed
                _write_head(chain, at)
            if at.time and datetime.fromisoformat(at.time) - now > SKEW:
                at = self._write(at, {"kind": "note", "what": "clock", "was": at.time}, now)
            at = self._write(at, entry, now)
            _write_head(chain, at)
            if size == 0:
                _flush(chain.path.parent)

    def _write(self, at: _State, entry: Entry, now: datetime) -> _State:
        """The file's end after one more line. What was written of a line that does not fit is taken back."""
        number = at.lines + at.unended + 1
        body = {
            **entry,
            "line": number,
            "previous": at.hash,
            "time": now.isoformat(timespec="seconds"),
            "follows_torn": at.torn,
        }
        whole = {**body, "hash": _hash(body)}
        content = b"\n" * at.unended + _line(whole) + b"\n"
        size = os.fstat(self._handle).st_size
        try:
            written = 0
            while written < len(content):
                written += os.write(self._handle, content[written:])
        except OSError:
            with contextlib.suppress(OSError):  # where this fails too, the line has no end, and is passed over
                os.ftruncate(self._handle, size)
            raise
        os.fsync(self._handle)
        return _State(number, whole["hash"], size + len(content), body["time"])

    def _state(self) -> _State:
        size = os.fstat(self._handle).st_size
        return _read(self.chain, os.pread(self._handle, size, 0), self.chain._read_head())


def _flush(folder: Path) -> None:
    """Brings a folder's list of files to the disk: a new file is there after a power cut only if its name is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_head(chain: Chain, at: _State) -> None:
    stated = {"lines": at.lines, "hash": at.hash, "size": 0 if at.torn else at.size, "time": at.time}
    write_file(chain.head, json.dumps(stated).encode() + b"\n", 0o600)


def _read(chain: Chain, content: bytes, head: _State | None) -> _State:
    """Reads a file from where this process last saw it unchanged, each line against the one before it, and its end against the
    head.

    Raises:
        LedgerError: a line was changed or removed.
    """
    path, walk = chain.path, _taken_up(chain.path, content)
    *lines, rest = content[walk.size :].split(b"\n")
    for line in lines:
        walk.on(path, line)
    _keep(path, walk)
    if head is None and walk.chained:
        raise LedgerError(
            f"{path} lacks {chain.head.name}, without which lines that were removed at its end would not be noticed; restore "
            "both from a copy"
        )
    counted = 0 if head is None else head.lines
    if head is not None:
        _check_end(path, walk.number, bool(rest), walk.hashes, head)
    if walk.unread and (head is None or walk.unread <= counted):
        raise LedgerError(f"{path}: line {walk.unread} was changed; {RESTORE}")
    torn = bool(rest or walk.unread)
    return _State(walk.number, walk.previous, len(content), walk.time, torn, bool(rest), list(walk.kept))


@dataclass
class _Walk:
    """How far a file was read, each line against the one before it."""

    number: int = 0
    """Of the last line."""
    size: int = 0
    """In bytes, up to that line's end."""
    before: Any = field(default_factory=hashlib.sha256)
    """Hash of all of them."""
    kept: list[bytes] = field(default_factory=list)
    """Those of them that are entries."""
    hashes: list[str] = field(default_factory=lambda: [""])
    """Of the last entry up to each line."""
    unread: int = 0
    """The first of the last lines that are no entries; 0 where there are none."""
    time: str = ""
    chained: bool = False

    @property
    def previous(self) -> str:
        return self.hashes[-1]

    def copy(self) -> "_Walk":
        return replace(self, before=self.before.copy(), kept=list(self.kept), hashes=list(self.hashes))

    def on(self, path: Path, line: bytes) -> None:
        """One line further.

        Raises:
            LedgerError: it was changed, or is not the one that follows.
        """
        self.number += 1
        entry, stated = _parse(line), self.previous
        if entry is None:
            self.unread = self.unread or self.number
        else:
            stated = str(entry.pop("hash", ""))
            if "previous" in entry:
                self.chained = True
                _check(path, self.number, line, {**entry, "hash": stated}, self.previous, self.unread)
            elif stated != _hash(entry, self.before) or bool(self.unread) != entry["follows_torn"]:
                raise LedgerError(f"{path}: line {self.unread or self.number} was changed, or one before it; {RESTORE}")
            self.kept.append(line)
            self.unread, self.time = 0, str(entry.get("time", ""))
        self.hashes.append(stated)
        self.before.update(line + b"\n")
        self.size += len(line) + 1


_MOST_WALKS = 16
_walking = threading.Lock()
_walks: dict[Path, _Walk] = {}
"""The latest files that this process has read, by their path: only what was added since is checked line by line."""


def _keep(path: Path, walk: _Walk) -> None:
    with _walking:
        _walks.pop(path, None)
        _walks[path] = walk
        while len(_walks) > _MOST_WALKS:
            del _walks[next(iter(_walks))]


def _taken_up(path: Path, content: bytes) -> _Walk:
    """The walk through a file as far as it is byte by byte what was checked before; or one from its beginning."""
    known = _walks.get(path)
    if known is not None and hashlib.sha256(content[: known.size]).digest() == known.before.digest():
        return known.copy()
    return _Walk()


RESTORE = "restore it from a copy: what it counted can be known in no other way"


def _check(path: Path, number: int, line: bytes, entry: Entry, previous: str, unread: int) -> None:
    """One line against itself and the entry before it.

    Args:
        unread: the first of the lines just before it that are no entries; 0 where there are none.
    """
    body = {key: value for key, value in entry.items() if key != "hash"}
    if entry["hash"] != _hash(body) or line != _line(entry):
        raise LedgerError(f"{path}: line {number} was changed; {RESTORE}")
    said = int(entry["line"])
    if said > number:
        which = f"line {number} was" if said == number + 1 else f"lines {number} to {said - 1} were"
        follows = f"line {number - 1} is followed by line {said}" if number > 1 else f"it begins with line {said}"
        raise LedgerError(f"{path}: {which} removed ({follows}); {RESTORE}")
    if said < number:
        raise LedgerError(f"{path}: line {number} was added (it is a copy of line {said}, or one before it is new); {RESTORE}")
    if entry["previous"] != previous or bool(unread) != entry["follows_torn"]:
        raise LedgerError(f"{path}: line {unread or max(1, number - 1)} was changed; {RESTORE}")


def _check_end(path: Path, lines: int, cut: bool, hashes: list[str], head: _State) -> None:
    missing = head.lines - lines
    if missing > 0:
        if missing == 1 and cut:
            raise LedgerError(f"{path}: line {head.lines} was changed, it has lost its end; {RESTORE}")
        which = "the last line was" if missing == 1 else f"the last {missing} lines were"
        raise LedgerError(f"{path}: {which} removed ({path.name}.head counts {head.lines}); {RESTORE}")
    if hashes[head.lines] != head.hash:
        raise LedgerError(f"{path}: line {head.lines} was changed; {RESTORE}")


def _hash(entry: Entry, before: Any = None) -> str:
    """Of an entry; in a file of an earlier version, of all that stands before it as well."""
    hashed = hashlib.sha256() if before is None else before.copy()
    hashed.update(_line(entry))
    return hashed.hexdigest()


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, sort_keys=True).encode()


def _parse(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "follows_torn" in entry else None
