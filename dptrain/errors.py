"""Errors that a user can act on.

Each message is one sentence that says what was given, what is accepted, and what to type next. The command line prints
it and exits with code 2; in a script it is a ``ValueError`` like any other.
"""

import difflib
import errno
import os
from collections.abc import Iterable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


class UserError(ValueError):
    """Something that the caller gave cannot be used. The message alone is enough to mend it."""


class ConfigError(UserError):
    """A recipe, a comparison or a flag is wrong."""


class DataError(UserError):
    """A data set is missing, empty, or holds what it must not hold."""


class PlanError(UserError):
    """A privacy plan would not mean what it says."""


class CheckpointError(UserError):
    """A checkpoint is missing, incomplete, or not what was saved."""


class LedgerError(CheckpointError):
    """A ledger was changed by hand, or cannot be written."""


class ProtocolError(UserError):
    """The calls came in an order for which the account of the budget would be false."""


class ElsewhereError(UserError):
    """Another process of the same training failed, and this one stops with it."""


class DiskError(UserError, OSError):
    """A file cannot be written: the disk is full, or the place is closed to writing. Going on would lose more work, and what
    is on the disk is whole."""

    @classmethod
    def of(cls, error: OSError, path: object) -> "DiskError | None":
        """What to say of an error of the system while ``path`` was written; None where it is of another kind."""
        if error.errno in FULL:
            what = "make space, and go on with `dptrain resume`; what was there before is whole"
        elif error.errno in CLOSED:
            what = "make it writable, or give another folder, such as with --output"
        else:
            return None
        said = cls(f"{path} cannot be written ({os.strerror(error.errno)}): {what}")
        said.errno, said.filename = error.errno, str(path)
        return said

    def __str__(self) -> str:
        return str(self.args[0])  # an OSError that has a number says that one


class RankError(RuntimeError):
    """Another process of the same training died, is silent, or is elsewhere: nothing can go on."""


def nearest(given: str, accepted: Iterable[str]) -> str | None:
    """The accepted name closest to ``given``, or None where nothing is close."""
    close = difflib.get_close_matches(given, list(accepted), n=1, cutoff=0.6)
    return close[0] if close else None


def unknown_name(kind: str, given: str, accepted: Iterable[str], error: type[UserError] = ConfigError) -> UserError:
    """An error for a name that no one registered: it offers the nearest one, and lists what is accepted."""
    names = sorted(accepted)
    guess = nearest(given, names)
    hint = f"did you mean {guess!r}? " if guess else ""
    return error(f"there is no {kind} {given!r}; {hint}accepted: {', '.join(names)}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory did not suffice, of a GPU or of the machine."""
    said = str(error)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in said
