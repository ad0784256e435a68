"""Whether what a comparison is going to spend fits into what may be spent on its data, before anything is trained.

Each run is held against it once more when it announces its steps, under the lock of the data set's account: two comparisons
that start at once cannot both pass.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from dptrain.data.dataset import DataSet
from dptrain.ledger import Account
from dptrain.plan import PrivacyPlan
from recipes.comparison import Comparison, Job


def check_total(comparison: Comparison, data: DataSet, to_come: Sequence[tuple[Job, Path]]) -> None:
    """Refuses jobs that would together pass a total, of the data set or of the comparison.

    Args:
        to_come: the jobs that are not complete, and their folders. Of one that was begun, what it has announced is spent, and
            what its checkpoint has yet to take is to come.

    Raises:
        PlanError: they would; it says by how much.
        LedgerError: the account was changed.
    """
    account, total = Account(data.fingerprint, data.name), comparison.total()
    if not account.stated(total):
        return
    plans = [
        (PrivacyPlan.from_config(job.recipe.privacy, job.recipe.training.steps), _taken(folder)) for job, folder in to_come
    ]
    account.check(plans, total)


def _taken(folder: Path) -> int:
    """Steps that a job's checkpoint has taken."""
    try:
        return int(json.loads((folder / "private" / "checkpoint" / "state.json").read_bytes())["steps_taken"])
    except (OSError, ValueError, KeyError):
        return 0
