"""A fleet on disk: one file when it is whole, and beside it the models that are done while it is not.

    kept = Cache(folder, digest, membership)
    kept.whole()                # the fleet, or None
    with kept.alone():          # of several processes that want this fleet, one trains it; the others wait, and look again
        kept.add(answers)       # of some models; now and then, what was added goes to the disk
        kept.finish(answers)    # of all models

Everything stands under the fleet's hash. A file counts only if it says this hash, holds what it must hold in the right shapes,
and is undamaged (zip archives carry a checksum of each array); otherwise it is as if it were not there, and its models are
trained again. So it is with kept weights that do not fit the model as it is built now, whatever the hash says. Files take
their places whole, so that an interruption leaves none that is wrong.
"""

import math
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from torch import nn

from dptrain.files import whole_file
from dptrain.fleet.answers import Answers
from dptrain.locking import held

EVERY = 5.0
"""Seconds between writes of what is done so far."""
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
OF_WEIGHTS = "weights/"


class Cache:
    """The files of one fleet; none where there is no folder.

    Args:
        membership: which examples are in which model.
        views: whether answers to views are part of this fleet.
        weights: whether its models' weights are to be kept.
        untrained: a model of the fleet, whose state kept weights must fit; None where nobody builds one.
    """

    def __init__(
        self,
        folder: Path | None,
        digest: str,
        membership: Bool[np.ndarray, "models examples"],
        *,
        views: bool = False,
        weights: bool = False,
        untrained: nn.Module | None = None,
    ):
        self._digest, self._membership, self._views, self._weights = digest, membership, views, weights
        self._untrained = untrained
        self._file = None if folder is None else folder / f"{digest}.npz"
        self._parts = None if folder is None else folder / f"{digest}.parts"
        self._waiting: list[Answers] = []
        self._written = time.monotonic()
        self._finished = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Until the block ends, no other process trains this fleet: whoever comes second waits here, and then finds it."""
        if self._file is None:
            yield
            return
        with held(self._lock, busy=TimeoutError, wait=math.inf, remove=lambda: self._finished):
            yield

    @property
    def _lock(self) -> Path:
        assert self._file is not None
        return self._file.with_name(f".{self._digest}.lock")

    def whole(self) -> Answers | None:
        """All models, where the cache holds them."""
        answers = None if self._file is None else self._read(self._file)
        return answers if answers is not None and len(answers.models) == len(self._membership) else None

    def parts(self) -> list[Answers]:
        """Models that an interrupted fleet left."""
        found = [] if self._parts is None else [self._read(path) for path in sorted(self._parts.glob("*.npz"))]
        return [answers for answers in found if answers is not None]

    def add(self, answers: Answers) -> None:
        """Takes models that are done; every few seconds they are written."""
        if self._parts is None:
            return
        self._waiting.append(answers)
        if time.monotonic() - self._written > EVERY:
            self.flush()

    def flush(self) -> None:
        """Writes what was added."""
        if self._parts is not None and self._waiting:
            answers, self._waiting = Answers.joined(self._waiting), []
            self._write(self._parts / f"{int(answers.models[0]):06d}-{int(answers.models[-1]):06d}.npz", answers)
        self._written = time.monotonic()

    def finish(self, answers: Answers) -> None:
        """Writes the whole fleet, and removes its parts."""
        self._waiting = []
        if self._file is None or self._parts is None:
            return
        self._write(self._file, answers)
        self._tidied()

    def tidy(self) -> None:
        """Removes what a process left of a whole fleet that was killed while it finished it."""
        if self._parts is not None and (self._parts.exists() or self._lock.exists()):
            with self.alone():
                self._tidied()

    def _tidied(self) -> None:
        self._finished = True
        if self._parts is not None and self._parts.exists():
            for path in self._parts.glob("*.npz"):
                path.unlink(missing_ok=True)
            if not any(self._parts.iterdir()):
                self._parts.rmdir()

    def _write(self, path: Path, answers: Answers) -> None:
        write_answers(path, answers, self._digest, self._membership[answers.models])

    def _read(self, path: Path) -> Answers | None:
        answers = read_answers(path, self._digest, self._membership)
        if answers is None or (self._views and answers.views is None) or (self._weights and answers.weights is None):
            return None
        if self._untrained is not None and answers.weights is not None and not fit(answers.weights, self._untrained):
            return None
        return answers


def fit(weights: Mapping[str, np.ndarray], model: nn.Module) -> bool:
    """Whether ``[models, *shape]`` of every tensor are states of this model: the same names, shapes and types."""
    state = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    return weights.keys() == state.keys() and all(
        weights[name].shape[1:] == value.shape and weights[name].dtype == value.dtype for name, value in state.items()
    )


def write_answers(path: Path, answers: Answers, digest: str, membership: Bool[np.ndarray, "some examples"]) -> None:
    """Writes some models' answers under the hash of their fleet."""
    arrays: dict[str, Any] = {
        "digest": np.array(digest),
        "membership": membership,
        "models": answers.models,
        "logits": answers.logits,
    }
    if answers.views is not None:
        arrays["views"] = answers.views
    arrays |= {f"{OF_WEIGHTS}{name}": value for name, value in (answers.weights or {}).items()}
    with whole_file(path) as handle:
        np.savez(handle, allow_pickle=False, **arrays)


def read_answers(path: Path, digest: str, membership: Bool[np.ndarray, "models examples"]) -> Answers | None:
    """What such a file holds; None where it is damaged, or of another fleet."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["digest"]) != digest:
                return None
            models, logits = stored["models"], stored["logits"]
            views = stored["views"] if "views" in stored.files else None
            names = [name for name in stored.files if name.startswith(OF_WEIGHTS)]
            weights: Mapping[str, np.ndarray] = {name.removeprefix(OF_WEIGHTS): stored[name] for name in names}
            whose = stored["membership"]
    except UNREADABLE:
        return None
    known = models.ndim == 1 and len(models) > 0 and models.min() >= 0 and models.max() < len(membership)
    if not known or not np.array_equal(whose, membership[models]):
        return None
    arrays = [(logits, 1), *((value, None) for value in weights.values()), *([] if views is None else [(views, 2)])]
    for value, axis in arrays:
        if len(value) != len(models) or (axis is not None and value.shape[axis] != membership.shape[1]):
            return None
    return Answers(models, logits, views, weights or None)
