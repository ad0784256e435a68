"""One run's way to its data set's account.

spending = Spending(Account(data.fingerprint, data.name), {"label": "mine"})
spending.begin(plan, ledger)                 # the run is in the account; its own ledger's blocks are taken up
block = spending.reserve(plan, 0, 60, draw)  # on the disk before the first step
spending.settle(block, 30)
spending.close("stopped")
"""

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from dptrain.errors import UserError
from dptrain.ledger.account import Account, Ended
from dptrain.ledger.books import Total
from dptrain.ledger.training import Block, Ledger
from dptrain.plan import PrivacyPlan


class Spending:
    """A run and its account.

    Args:
        about: label, variant, folder and the like; what the plan says is added.
        total: that is held besides the one that is stated for the data set.
        run: its name, where it is gone on with.
    """

    def __init__(self, account: Account, about: dict[str, Any] | None = None, total: Total | None = None, run: str = ""):
        self.account, self.about, self.total, self.run = account, dict(about or {}), total, run
        self.closes_itself = True
        """Whether its end is where its iterator ends; a trainer knows better."""
        self._is_open = False

    def begin(self, plan: PrivacyPlan, ledger: Ledger | None = None, blocks: tuple[Block, ...] = ()) -> str:
        """The run's name in the account, where it stands from now on.

        Args:
            ledger: the run's own; what it announced elsewhere is taken up.
            blocks: what its checkpoint says was announced, wherever that was; taken up where it is not known here.
        """
        if self._is_open:
            return self.run
        about = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            **self.about,
            "unit": plan.unit,
            "relation": plan.relation,
            "delta": plan.delta,
            "steps": plan.steps,
            "guarantee": "private" if plan.is_private else "none",
        }
        self.run = self.account.open({**about, "run": self.run})
        self._is_open = True
        if ledger is not None:
            self.account.take_up(ledger, self.run)
        self.account.take_up_blocks(blocks, self.run)
        return self.run

    def where(self) -> dict[str, Any]:
        """The account and the run's name in it, to be kept with a checkpoint."""
        return {"account": self.account.data, "run": self.run}

    def reserve(self, plan: PrivacyPlan, first: int, last: int, draw: str = "", times: int = 1) -> str:
        return self.account.reserve(self.run, plan, first, last, draw, times=times, total=self.total)

    def settle(self, block: str, last: int) -> None:
        self.account.settle(self.run, block, last)

    def close(self, status: Ended, why: str = "") -> None:
        """Says how the run ended, where it had begun."""
        if self._is_open:
            self._is_open = False
            self.account.close(self.run, status, why)

    def close_quietly(self, status: Ended, why: str = "") -> None:
        """The same while an error is on its way, which is not to be hidden by another: left open, the run counts as much."""
        with suppress(UserError):
            self.close(status, why)


def note_read(folder: Path, account: Account, what: str) -> None:
    """Says that the model in a run's folder is attacked with the data at hand, in the account that the run stands in.

    Args:
        account: of these data, where the run does not say in which one it stands. A run that stands in none is noted nowhere.

    Raises:
        LedgerError: it cannot be written.
    """
    try:
        kept = json.loads((folder / "private" / "checkpoint" / "state.json").read_bytes())
    except (OSError, ValueError):  # released weights alone can be attacked as well
        kept = {}
    data, run = kept.get("account", account.data), kept.get("run")
    if data is None:
        return
    account = account if data == account.data else Account(str(data), place=account.place)
    account.read(str(run) if run else {"folder": str(folder.absolute())}, what)
