"""What a run has spent, written down before it is spent.

An append-only file of one JSON object a line, each flushed to the disk before the steps that it announces begin: after a
crash the ledger says as much as was spent, or more, never less.

    {"kind": "reserve", "first": 0, "last": 60, "plan": {...}, "data": "<fingerprint>", "time": "..."}
    {"kind": "settle", "reserved": 60, "last": 30, ...}     the block ended early; steps 30 to 59 were never taken

A second resume from one checkpoint reserves its steps a second time, so that both branches count.
"""

import json
import os
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

    def reserve(self, plan: PrivacyPlan, first: int, last: int) -> None:
        """Announces the steps ``first`` to ``last - 1``, before they are taken."""
        self._append({"kind": "reserve", "first": first, "last": last, "plan": as_plain(plan)})

    def settle(self, reserved: int, last: int) -> None:
        """Says that of the block announced to ``reserved`` no step from ``last`` on was taken."""
        self._append({"kind": "settle", "reserved": reserved, "last": last})

    def _append(self, entry: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entry |= {"data": self.data, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        line = (json.dumps(entry, sort_keys=True) + "\n").encode()
        torn = self.path.exists() and self.path.stat().st_size > 0 and not self.path.read_bytes().endswith(b"\n")
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, b"\n" + line if torn else line)
            os.fsync(handle)
        finally:
            os.close(handle)

    def entries(self) -> list[dict[str, Any]]:
        """All whole entries. A torn last line announces steps that had not begun, and is passed over.

        Raises:
            CheckpointError: a line that is not an entry and is not the torn end of one.
        """
        if not self.path.exists():
            return []
        entries: list[dict[str, Any]] = []
        lines = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                entries.append(json.loads(line))
            except ValueError:
                torn = number == len(lines) or (number < len(lines) and line.startswith(b"{") and not line.endswith(b"}"))
                if not torn:
                    raise CheckpointError(f"{self.path}, line {number}, is not a ledger entry; restore it") from None
        return entries

    def blocks(self) -> list[tuple[PrivacyPlan, int, int]]:
        """Each reserved block as plan, first step, and the step after the last one, as settled."""
        blocks: list[tuple[PrivacyPlan, int, int]] = []
        for entry in self.entries():
            if entry["kind"] == "reserve":
                plan = from_plain(PrivacyPlan, entry["plan"], str(self.path))
                blocks.append((plan, int(entry["first"]), int(entry["last"])))
            elif entry["kind"] == "settle" and blocks and blocks[-1][2] == entry["reserved"]:
                plan, first, _ = blocks[-1]
                blocks[-1] = (plan, first, max(first, int(entry["last"])))
        return blocks

    def event(self) -> "DpEvent":
        """Everything that was reserved, composed."""
        from dp_accounting import ComposedDpEvent

        return ComposedDpEvent([plan.event(last, first) for plan, first, last in self.blocks() if last > first])
