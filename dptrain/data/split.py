"""Who is trained on, who is held out, who helps the evaluator, who is public: drawn before anything is trained.

    split = draw(len(data), SplitConfig(), seed=0)
    save(split, Path("runs/mine/private/split.npz"))

Each example gets its part by a coin of its own. Exactly balanced designs bias leave-one-out attacks, and with independent
coins the bound that a privacy plan puts on a membership game holds for every example by itself.

The index lists are private. The digest proves later which split it was: it is salted, so that it tells nobody who is in
it. But a split that is drawn from a published seed over a public data set is as public as the seed.
"""

import hashlib
import os
import secrets
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from dptrain.errors import CheckpointError, DataError
from dptrain.recipe import SplitConfig

PARTS = ("members", "non_members", "population", "public")


@dataclass(frozen=True, eq=False)
class Split:
    """Four disjoint, sorted lists of indices that cover the data set."""

    members: Int[np.ndarray, " members"]
    non_members: Int[np.ndarray, " non_members"]
    population: Int[np.ndarray, " population"]
    public: Int[np.ndarray, " public"]
    salt: bytes = field(repr=False)
    """16 secret bytes."""
    seed: int | None = None

    def __post_init__(self) -> None:
        together = np.concatenate([getattr(self, part) for part in PARTS])
        if len(np.unique(together)) != len(together):
            raise DataError("the parts of a split overlap: an example may be in one of them alone")

    @property
    def size(self) -> int:
        """Examples in all parts together."""
        return sum(len(getattr(self, part)) for part in PARTS)

    @property
    def audited(self) -> Int[np.ndarray, " audited"]:
        """Indices of members and non-members together, sorted: those whose membership attacks guess."""
        return np.sort(np.concatenate([self.members, self.non_members]))

    @property
    def is_member(self) -> Bool[np.ndarray, " audited"]:
        """For each of ``audited``: was it trained on?"""
        return np.isin(self.audited, self.members)

    @property
    def digest(self) -> str:
        """A salted hash of the four lists."""
        content = hashlib.sha256(self.salt)
        for part in PARTS:
            indices = np.asarray(getattr(self, part), dtype="<i8")
            content.update(f"{part} {len(indices)}\n".encode())
            content.update(indices.tobytes())
        return content.hexdigest()


def draw(examples: int, shares: SplitConfig, seed: int) -> Split:
    """A split by independent coins; the same seed gives the same lists and a fresh salt.

    Raises:
        DataError: a part with a share above 0 came out empty.
    """
    generator = np.random.default_rng(np.random.SeedSequence([seed, *b"split"]))
    limits = np.cumsum([getattr(shares, part) for part in PARTS])
    part_of = np.searchsorted(limits[:-1], generator.random(examples), side="right")
    lists = {part: np.flatnonzero(part_of == number) for number, part in enumerate(PARTS)}
    for part, indices in lists.items():
        if getattr(shares, part) > 0 and len(indices) == 0:
            raise DataError(
                f"the data set has {examples} examples, too few: the {part} part of the split came out empty; give more "
                f"data, or another share with --data.split.{part}"
            )
    return Split(**lists, salt=secrets.token_bytes(16), seed=seed)


def save(split: Split, path: Path) -> None:
    """Writes the split so that a reader finds all of it or nothing; readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    lists = {part: getattr(split, part) for part in PARTS}
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as handle:
        seed = np.array(-1 if split.seed is None else split.seed)
        salt = np.frombuffer(split.salt, dtype=np.uint8)
        np.savez(handle, allow_pickle=False, salt=salt, seed=seed, digest=np.array(split.digest), **lists)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(partial, path)


def load(path: Path) -> Split:
    """The split from its file, checked against its digest.

    Raises:
        CheckpointError: the file is missing, changed, or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            lists = {part: stored[part] for part in PARTS}
            seed, digest = int(stored["seed"]), str(stored["digest"])
            split = Split(**lists, salt=stored["salt"].tobytes(), seed=None if seed < 0 else seed)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; restore it from a copy") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is not a whole split file ({error}); restore it from a copy") from None
    if split.digest != digest:
        raise CheckpointError(f"{path} is not what was saved: its digest differs; restore it from a copy")
    return split
