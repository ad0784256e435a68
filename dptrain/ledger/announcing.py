"""What one training says of its steps, before it takes them, to whoever keeps account.

    kept = Announcements(plan, ledger, spending)
    kept.opens(kept.reserve(0, 60, draw), draw, 0, 60)      # on the disk before the first step
    kept.settle(30)                                         # of these steps those from 30 on were not taken
    kept.pack(30)                                           # all that was announced for these weights, to be kept with them

There are two that keep account: the run's own ledger, and the account of its data set. Under torchrun both are the first
process'; the others are told what it wrote, and keep the same blocks.
"""

import dataclasses
import secrets
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from dptrain.errors import UserError
from dptrain.ledger.spending import Spending
from dptrain.ledger.training import Block, Ledger
from dptrain.plan import PrivacyPlan


class Announcements:
    """Of one training; see the module's text.

    Args:
        ledger: the run's own; None where it has none, or another process keeps it.
        spending: the way to the data set's account; None likewise.
    """

    def __init__(self, plan: PrivacyPlan, ledger: Ledger | None, spending: Spending | None):
        self._plan, self.ledger, self.spending = plan, ledger, spending
        self.until = 0
        """No step from here on may be taken: wherever account is kept, it is told of a step before that is taken."""
        self.blocks: tuple[Block, ...] = ()
        """All that was announced for these weights and is over, before a resume too."""
        self._open: Block | None = None
        """What was announced last, while an iterator is at it."""

    def open_account(self) -> None:
        """Says in the data set's account that this training reads the data, unless that was said."""
        if self.spending is not None:
            self.spending.begin(self._plan, self.ledger, self.blocks)

    def reserve(self, first: int, last: int, draw: str) -> str | None:
        """Announces steps: to the data set's account, and then to the run's own ledger. The block's name; None where neither is
        kept.

        Args:
            draw: names batches that are drawn in one go.
        """
        block = ""
        if self.spending is not None:
            self.open_account()
            block = self.spending.reserve(self._plan, first, last, draw)
        if self.ledger is not None and self._plan.is_private:
            try:
                block = self.ledger.reserve(self._plan, first, last, draw, block)
            except UserError:
                if self.spending is not None:
                    with suppress(UserError):
                        self.spending.settle(block, first)
                raise
        return block or None

    def opens(self, name: str | None, draw: str, first: int, last: int) -> None:
        """These steps may be taken from now on.

        Args:
            name: what :meth:`reserve` gave, in whichever process that was.
        """
        self._open = Block(name or secrets.token_hex(8), draw, self._plan, first, last)
        self.until = last

    def known(self, paid: int) -> tuple[Block, ...]:
        """Those that are over, and of the open one what is paid for by now.

        Args:
            paid: steps before this one count.
        """
        block = self._open
        if block is None or _end(block, paid) == block.first:
            return self.blocks
        return (*self.blocks, dataclasses.replace(block, last=_end(block, paid)))

    def settle(self, paid: int) -> None:
        """Says that of what was announced the rest was not taken. Where that cannot be said, all of it counts."""
        block, self.blocks = self._open, self.known(paid)
        self._open = None
        if block is None:
            return
        end = self.until = _end(block, paid)  # from here on nothing more is taken under this block
        try:
            if self.ledger is not None and self._plan.is_private and end < block.last:
                self.ledger.settle(block.name, end)
            if self.spending is not None:
                if end < block.last:
                    self.spending.settle(block.name, end)
                if self.spending.closes_itself and (end < block.last or end == self._plan.steps):
                    self.spending.close("done" if end == self._plan.steps else "stopped")
        except UserError as error:
            warnings.warn(f"steps that were announced and not taken count as taken: {error}", stacklevel=3)

    def pack(self, paid: int) -> dict[str, Any]:
        """What is kept beside the weights, so that it is known wherever they go."""
        blocks = [(block.name, block.draw, block.first, block.last) for block in self.known(paid)]
        return {"blocks": blocks, **({"account": None, "run": ""} if self.spending is None else self.spending.where())}

    def unpack(self, state: dict[str, Any]) -> None:
        """Goes on from what :meth:`pack` gave, among the other facts of a checkpoint."""
        self.until = int(state["steps_taken"])
        self.blocks = tuple(Block(name, draw, self._plan, first, last) for name, draw, first, last in _blocks_in(state))
        if self.spending is not None:
            self.spending.run = self.spending.run or str(state.get("run", ""))


def _end(block: Block, paid: int) -> int:
    return max(block.first, min(block.last, paid))


def _blocks_in(state: dict[str, Any]) -> Iterator[tuple[str, str, int, int]]:
    """What a checkpoint says was announced; one of an earlier version says which steps were drawn."""
    kept = state.get("blocks")
    if kept is None:
        run = str(state.get("run", "")) or secrets.token_hex(8)  # of no run: each resume counts what is known of none
        kept = [(f"{run}/{first}-{last}", "", first, last) for first, last in state["drawn"]]
    yield from ((str(name), str(draw) or str(name), int(first), int(last)) for name, draw, first, last in kept)
