"""What was spent, written down before it is spent, for good.

* :class:`Ledger`, :class:`Block`: one training's, in its own folder, and the steps that it announces
* :class:`Announcements`: what one training says of its steps, to both
* :class:`Account`, :func:`accounts`, :func:`folder`: a data set's, over all runs
* :class:`Statement`, :class:`Spent`, :class:`Selected`, :class:`Total`: what an account says
* :class:`Spending`, :func:`note_read`: one run's way to its account, and an attack's
* :class:`Chain`: the file that all of them are
"""

from dptrain.ledger.account import Account, accounts, folder, named
from dptrain.ledger.announcing import Announcements
from dptrain.ledger.books import Books, Run, Selected, Spent, Statement, Total
from dptrain.ledger.chain import Chain
from dptrain.ledger.spending import Spending, note_read
from dptrain.ledger.training import Block, Ledger

__all__ = [
    "Account",
    "Announcements",
    "Block",
    "Books",
    "Chain",
    "Ledger",
    "Run",
    "Selected",
    "Spending",
    "Spent",
    "Statement",
    "Total",
    "accounts",
    "folder",
    "named",
    "note_read",
]
