"""Audits of a comparison, kept below its folder: each in a file of its own, none in the place of another.

    save(found, Path("runs/digits"))
    audits, troubles = read(Path("runs/digits"))

An audit that is repeated until it says what one likes to hear stands there with all its forerunners. Imports no torch.
"""

from pathlib import Path

from dptrain.errors import CheckpointError
from dptrain.files import write_next
from evaluation.result import AuditResult, read_audit, to_json

FOLDER = "audit"
"""Below the comparison's."""


def save(found: AuditResult, root: Path) -> Path:
    """Keeps an audit, and says where."""
    folder = root / FOLDER / f"{found.how}-eps={found.budget or 0.0:05.2f}-step={found.step:06d}"
    return write_next(folder, ".json", to_json(found).encode())


def read(root: Path) -> tuple[tuple[AuditResult, ...], tuple[str, ...]]:
    """The audits below ``root``, from the largest budget down, in the order they were made; and a sentence for each that cannot
    be read."""
    found, troubles = [], []
    for path in sorted((root / FOLDER).glob("*/*.json")):
        try:
            found.append(read_audit(path))
        except CheckpointError as error:
            troubles.append(f"{error}; restore it from a copy, or remove it")
    return tuple(sorted(found, key=lambda one: (-(one.budget or 0.0), one.how, one.step))), tuple(troubles)
