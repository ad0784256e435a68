"""What a run has spent, written down before it is spent.

An append-only file of one JSON object a line, each flushed to the disk before the steps that it announces begin: after a
crash the ledger says as much as was spent, or more, never less.

    {"kind": "reserve", "block": "9f…", "draw": "1a…", "first": 0, "last": 60, "plan": {…}, "data": "<fingerprint>", …}
    {"kind": "settle", "block": "9f…", "last": 30, …}     the block ended early; steps 30 to 59 were never taken

A second resume from one checkpoint reserves its steps a second time, so that both branches count; blocks of one draw that
follow each other are one. Each line holds a hash of itself and of all that stands before it, so that a changed line, or one
taken out of the middle, is noticed. A line without its end can only be the last one, cut off by a crash; the next entry
then says that it follows such a line.
"""

import fcntl
import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dptrain.errors import CheckpointError
from dptrain.plain import as_plain, from_plain
from dptrain.plan import PrivacyPlan

if TYPE_CHECKING:
    from dp_accounting import DpEvent


@dataclass(frozen=True)
class Ledger:
    """The ledger of one training, in a file."""

    path: Path
    data: str = ""
    """Fingerprint of the data set."""

    def reserve(self, plan: PrivacyPlan, first: int, last: int, draw: str = "") -> str:
        """Announces the steps ``first`` to ``last - 1``, before they are taken; gives the block's name.

        Args:
            draw: names batches that are drawn in one go over several blocks; left out, the block stands for itself.
        """
        block = secrets.token_hex(8)
        entry = {"kind": "reserve", "block": block, "draw": draw or block, "first": first, "last": last}
        self._append({**entry, "plan": as_plain(plan)})
        return block

    def settle(self, block: str, last: int) -> None:
        """Says that of this block no step from ``last`` on was taken."""
        self._append({"kind": "settle", "block": block, "last": last})

    def _append(self, entry: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            before = self.path.read_bytes()
            torn = bool(before) and not before.endswith(b"\n")
            entry |= {"data": self.data, "time": datetime.now(UTC).isoformat(timespec="seconds"), "follows_torn": torn}
            before += b"\n" if torn else b""
            line = json.dumps({**entry, "hash": _hash(before, entry)}, sort_keys=True) + "\n"
            os.write(handle, (b"\n" if torn else b"") + line.encode())
            os.fsync(handle)
        finally:
            os.close(handle)

    def entries(self) -> list[dict[str, Any]]:
        """All whole entries. A line that a crash cut off announces steps that had not begun, and is passed over.

        Raises:
            CheckpointError: a line was changed, or one before it was changed or taken away; it says which.
        """
        if not self.path.exists():
            return []
        entries: list[dict[str, Any]] = []
        content = self.path.read_bytes()
        start, unread = 0, 0
        for number, line in enumerate(content.split(b"\n")[:-1], 1):  # what follows the last line end is torn, or nothing
            entry = _parse(line)
            if entry is None:
                unread = unread or number
            else:
                stated = entry.pop("hash", None)
                if stated != _hash(content[:start], entry) or bool(unread) != entry["follows_torn"]:
                    raise CheckpointError(f"{self.path} was changed at or before line {unread or number}; restore it")
                entries.append(entry)
                unread = 0
            start += len(line) + 1
        if unread:
            raise CheckpointError(f"{self.path}, line {unread}, is not a ledger entry; restore it")
        return entries

    def blocks(self) -> list[tuple[PrivacyPlan, int, int]]:
        """Each reserved block as plan, first step, and the step after the last one, as settled."""
        settled = {entry["block"]: int(entry["last"]) for entry in self.entries() if entry["kind"] == "settle"}
        blocks: list[tuple[str, PrivacyPlan, int, int]] = []
        for entry in self.entries():
            if entry["kind"] != "reserve":
                continue
            plan = from_plain(PrivacyPlan, entry["plan"], str(self.path))
            first, last = int(entry["first"]), int(entry["last"])
            last = max(first, min(last, settled.get(entry["block"], last)))
            if blocks and blocks[-1][0] == entry["draw"] and blocks[-1][1] == plan and blocks[-1][3] == first:
                first = blocks.pop()[2]
            blocks.append((entry["draw"], plan, first, last))
        return [(plan, first, last) for _, plan, first, last in blocks]

    def event(self) -> "DpEvent":
        """Everything that was reserved, composed."""
        from dp_accounting import ComposedDpEvent

        return ComposedDpEvent([plan.event(last, first) for plan, first, last in self.blocks() if last > first])


def _hash(before: bytes, entry: dict[str, Any]) -> str:
    return hashlib.sha256(before + json.dumps(entry, sort_keys=True).encode()).hexdigest()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "follows_torn" in entry else None
