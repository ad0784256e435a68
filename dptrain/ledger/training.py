"""What one training has spent, written down in its own folder before it is spent.

An append-only file (:mod:`dptrain.ledger.chain`), each line flushed to the disk before the steps that it announces begin:
after a crash the ledger says as much as was spent, or more, never less.

    {"kind": "reserve", "block": "9f…", "draw": "1a…", "first": 0, "last": 60, "plan": {…}, "data": "<fingerprint>", …}
    {"kind": "settle", "block": "9f…", "last": 30, …}     the block ended early; steps 30 to 59 were never taken

A second resume from one checkpoint reserves its steps a second time, so that both branches count; blocks of one draw that
follow each other are one.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dptrain.ledger.chain import Chain, Entry
from dptrain.plain import as_plain, from_plain
from dptrain.plan import PrivacyPlan

if TYPE_CHECKING:
    from dp_accounting import DpEvent


@dataclass(frozen=True)
class Block:
    """Steps of one plan that were announced, and that count unless they were settled."""

    name: str
    draw: str
    plan: PrivacyPlan
    first: int
    last: int
    """The step after the last one, as settled."""
    times: int = 1
    """How many trainings take these steps, each for itself."""
    settled: bool = False

    def event(self) -> "DpEvent":
        from dp_accounting import NoOpDpEvent, SelfComposedDpEvent

        if self.last <= self.first:
            return NoOpDpEvent()
        event = self.plan.event(self.last, self.first)
        return event if self.times == 1 else SelfComposedDpEvent(event, self.times)


@dataclass(frozen=True)
class Ledger:
    """The ledger of one training, in a file."""

    path: Path
    data: str = ""
    """Fingerprint of the data set."""

    def reserve(self, plan: PrivacyPlan, first: int, last: int, draw: str = "", block: str = "") -> str:
        """Announces the steps ``first`` to ``last - 1``, before they are taken; gives the block's name.

        Args:
            draw: names batches that are drawn in one go over several blocks; left out, the block stands for itself.
            block: its name in the data set's account; left out, a new one.
        """
        entry = announced(plan, first, last, draw, block)
        self._append(entry)
        return entry["block"]

    def settle(self, block: str, last: int) -> None:
        """Says that of this block no step from ``last`` on was taken."""
        self._append({"kind": "settle", "block": block, "last": last})

    def _append(self, entry: dict[str, Any]) -> None:
        Chain(self.path).append({**entry, "data": self.data})

    def entries(self) -> list[dict[str, Any]]:
        """All whole entries. A line that a crash cut off announces steps that had not begun, and is passed over.

        Raises:
            LedgerError: a line was changed or removed; it says which.
        """
        return Chain(self.path).entries()

    def blocks(self) -> list[tuple[PrivacyPlan, int, int]]:
        """Each reserved block as plan, first step, and the step after the last one, as settled."""
        return [(block.plan, block.first, block.last) for block in joined(blocks_of(self.entries(), str(self.path)))]

    def event(self) -> "DpEvent":
        """Everything that was reserved, composed."""
        from dp_accounting import ComposedDpEvent

        return ComposedDpEvent([plan.event(last, first) for plan, first, last in self.blocks() if last > first])


def announced(plan: PrivacyPlan, first: int, last: int, draw: str = "", block: str = "") -> Entry:
    """The entry that announces steps."""
    block = block or secrets.token_hex(8)
    return {"kind": "reserve", "block": block, "draw": draw or block, "first": first, "last": last, "plan": as_plain(plan)}


def blocks_of(entries: Iterable[Entry], where: str) -> list[Block]:
    """The blocks that these entries announce, in their order, as later entries settle them."""
    entries = list(entries)
    settled: dict[str, int] = {}
    for entry in entries:
        if entry["kind"] == "settle":  # said twice, the one that counts more holds
            settled[str(entry["block"])] = max(int(entry["last"]), settled.get(str(entry["block"]), 0))
    blocks = []
    for entry in entries:
        if entry["kind"] != "reserve":
            continue
        name, first, last = str(entry["block"]), int(entry["first"]), int(entry["last"])
        plan = from_plain(PrivacyPlan, entry["plan"], where)
        end = max(first, min(last, settled.get(name, last)))
        blocks.append(Block(name, str(entry["draw"]), plan, first, end, int(entry.get("times", 1)), name in settled))
    return blocks


def joined(blocks: Iterable[Block]) -> list[Block]:
    """Blocks of one draw that follow each other, as one."""
    found: list[Block] = []
    for block in blocks:
        before = found[-1] if found else None
        if before and (before.draw, before.plan, before.last, before.times) == (
            block.draw,
            block.plan,
            block.first,
            block.times,
        ):
            found[-1] = Block(block.name, block.draw, block.plan, before.first, block.last, block.times, block.settled)
        else:
            found.append(block)
    return found
