"""What the ledger says of a data set, as a result shows it.

shown(fingerprint)                  # a LedgerShown, or nothing where no ledger of these data is on this machine
"""

import dataclasses
from typing import Any, TypeVar

from dptrain.ledger import Statement, accounts
from evaluation.result import LedgerShown, SelectedShown, SpentShown

T = TypeVar("T")
UNTOLD: dict[str, Any] = {"entries": 0, "runs": 0, "failed": 0, "unfinished": 0, "without_guarantee": 0, "spent": ()}
"""In the place of what tells how many trainings a private selection had. `dptrain ledger` tells it to the data's owner."""
NO_NUMBERS: dict[str, Any] = {"runs": 0, "steps": 0}
"""The same, of a line of what was spent."""


def shown(fingerprint: str) -> tuple[LedgerShown, ...]:
    """What every run on the data with this fingerprint has spent, one entry an account; none where there is no account."""
    if not fingerprint:
        return ()
    return tuple(_shown(account.statement()) for account in accounts() if account.data == fingerprint)


def _shown(statement: Statement) -> LedgerShown:
    return LedgerShown(
        **{
            **_fields(statement, LedgerShown),
            "spent": tuple(SpentShown(**_fields(item, SpentShown)) for item in statement.spent),
            "only_selected": tuple(SpentShown(**_fields(item, SpentShown) | NO_NUMBERS) for item in statement.only_selected),
            "selected": tuple(SelectedShown(**_fields(item, SelectedShown)) for item in statement.selected),
            **(UNTOLD if statement.selected else {}),
        }
    )


def _fields(item: Any, kind: type[Any]) -> dict[str, Any]:
    return {field.name: getattr(item, field.name) for field in dataclasses.fields(kind)}
