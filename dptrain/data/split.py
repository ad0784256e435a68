"""Who is trained on, who is held out, who helps the evaluator, who is public: drawn before anything is trained.

    split = split_of(data, SplitConfig(), seed=0)
    save(split, Path("runs/mine/private/split.npz"))

Each example gets its part by a coin of its own. Exactly balanced designs bias leave-one-out attacks, and with independent
coins the bound that a privacy plan puts on a membership game holds for every example by itself.

Where a class must be learned from few examples (``per_class``), as many of each are drawn instead: the parts are balanced, one
example's part tells something of the others', and membership attacks on such a split are not judged.

Where the unit of privacy is the user, the coin is the user's and decides for all of their examples (``unit="user"``): an
example that was held out while its user was trained on would be no non-member of a promise to users. Members and non-members
are then users, and so are those who are public and the population. Where the classes are themselves the users, whose list is
public, each example has its coin.

Made-up secrets that are repeated among the examples get one fair coin each, for all of their repetitions: they are members or
non-members, and neither audited nor used to measure utility.

The index lists are private. The digest proves later which split it was: it is salted, so that it tells nobody who is in
it. But a split that is drawn from a published seed over a public data set is as public as the seed.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from dptrain.arrays import read_arrays, write_arrays
from dptrain.data.dataset import DataSet
from dptrain.errors import CheckpointError, DataError
from dptrain.recipe import SplitConfig, Unit

SHARED = ("members", "non_members", "population", "public")
"""The parts that coins decide on."""
PARTS = (*SHARED, "test")
SALT_BYTES = 16

Drawn = Literal["coins", "users", "per_class", "published"]
"""How it was decided who is a member."""


@dataclass(frozen=True, eq=False)
class Split:
    """Disjoint, sorted lists of indices that cover the data set.

    Raises:
        DataError: the lists are not that, or the salt is too short to keep a guess of the lists from being confirmed.
    """

    members: Int[np.ndarray, " members"]
    non_members: Int[np.ndarray, " non_members"]
    population: Int[np.ndarray, " population"]
    public: Int[np.ndarray, " public"]
    salt: bytes = field(repr=False)
    """At least 16 secret bytes."""
    seed: int | None = None
    drawn: Drawn = "coins"
    """`coins`: one for each example. `users`: one for each user, whose examples all share it. `per_class`: so many members of
    each class; one example's part then tells something of the others'. `published`: the data set's own training part."""
    test: Int[np.ndarray, " test"] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """The data set's published test part, where it is used for utility and for nothing else."""
    planted: Int[np.ndarray, " planted"] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Those of the members and non-members that hold made-up secrets."""

    def __post_init__(self) -> None:
        if self.drawn not in get_args(Drawn):
            raise DataError(f"the split was drawn by {self.drawn!r}; give {' or '.join(get_args(Drawn))}")
        if len(self.salt) < SALT_BYTES:
            raise DataError(f"the split's salt has {len(self.salt)} bytes; give {SALT_BYTES} from secrets.token_bytes")
        lists = [np.asarray(getattr(self, part)) for part in PARTS]
        if any(np.any(np.diff(indices) < 1) for indices in lists):
            raise DataError("a part of a split is not sorted, or names an example twice; give each part as numpy.unique does")
        together = np.concatenate(lists)
        if not np.array_equal(np.sort(together), np.arange(len(together))):
            raise DataError(
                f"the parts of a split are not disjoint or leave examples out: they hold {len(together)} indices and should "
                f"hold each of 0 to {len(together) - 1} once"
            )
        if len(np.setdiff1d(self.planted, np.concatenate([self.members, self.non_members]))):
            raise DataError("a split's planted examples are among its members and non-members; give no others")

    @property
    def size(self) -> int:
        """Examples in all parts together."""
        return sum(len(getattr(self, part)) for part in PARTS)

    @property
    def audited(self) -> Int[np.ndarray, " audited"]:
        """Indices of members and non-members together, sorted: those whose membership attacks guess."""
        return np.setdiff1d(np.concatenate([self.members, self.non_members]), self.planted)

    @property
    def held_out(self) -> Int[np.ndarray, " held_out"]:
        """Indices of those that measure utility: the published test part where it is kept for that, or the non-members."""
        return self.test if len(self.test) else np.setdiff1d(self.non_members, self.planted)

    @property
    def is_member(self) -> Bool[np.ndarray, " audited"]:
        """For each of ``audited``: was it trained on?"""
        return np.isin(self.audited, self.members)

    def is_same(self, other: "Split") -> bool:
        """Whether both hold the same lists; salt and seed do not matter."""
        return all(np.array_equal(getattr(self, part), getattr(other, part)) for part in PARTS)

    @property
    def digest(self) -> str:
        """A salted hash of the lists."""
        content = hashlib.sha256(self.salt)
        for part in PARTS:
            indices = np.asarray(getattr(self, part), dtype="<i8")
            content.update(f"{part} {len(indices)}\n".encode())
            content.update(indices.tobytes())
        if len(self.planted):
            content.update(b"planted\n" + np.asarray(self.planted, dtype="<i8").tobytes())
        return content.hexdigest()


def split_of(data: DataSet, shares: SplitConfig, seed: int, unit: Unit = "example") -> Split:
    """A split of a data set by its examples or by its users; see :func:`draw`."""
    if shares.members_are == "published":
        return _published(data, seed)
    planted = [] if data.planted is None else [secret.examples for secret in data.planted]
    users = data.users if unit == "user" and data.classes_are == "kinds" else None
    return draw(len(data), shares, seed, data.published_test, data.targets, planted, users)


def draw(
    examples: int,
    shares: SplitConfig | None = None,
    seed: int = 0,
    published_test: int = 0,
    targets: Tensor | None = None,
    planted: Sequence[Sequence[int]] = (),
    users: Tensor | None = None,
) -> Split:
    """A split by independent coins, or by ``per_class``; the same seed gives the same lists and a fresh salt.

    Args:
        published_test: how many examples, the last ones, the data set was published with as its test part.
        targets: the class of each example, for ``per_class``.
        planted: the examples of each made-up secret, which share one coin.
        users: whose each example is, where coins are theirs.

    Raises:
        DataError: a part with a share above 0 came out empty: the data set is too small. Or the seed is below 0, or there
            is no published test part and the shares ask for one; or a class has too few examples for ``per_class``. Or users
            are to be kept together, and the split is one that takes them apart.
    """
    shares = shares or SplitConfig()
    if shares.test == "published" and not published_test:
        raise DataError("data.split.test is 'published' and this data set has no test part of its own; give 'non_members'")
    if users is not None and (shares.per_class is not None or shares.test == "published"):
        which = "per_class" if shares.per_class is not None else "test"
        raise DataError(
            f"data.split.{which} is given and privacy.unit is 'user': it would put some examples of a user among the members "
            "and others not; leave it out"
        )
    first_of_test = examples - (published_test if shares.test == "published" else 0)
    if seed < 0:
        raise DataError(f"the split's seed is {seed}; give a whole number from 0 up")
    # PCG64 by name: numpy may change its default, and the same seed must give the same split for good.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *b"split"])))
    if shares.per_class is not None:
        return Split(**_balanced(examples, shares.per_class, targets, generator), salt=_salt(), seed=seed, drawn="per_class")
    limits = np.cumsum([getattr(shares, part) for part in SHARED])
    limits /= limits[-1]  # shares of 0.7, 0.2 and 0.1 add up to a little less than 1
    owner = np.arange(first_of_test) if users is None else np.unique(users.numpy(), return_inverse=True)[1]
    coins = int(owner.max(initial=-1)) + 1
    part_of = np.searchsorted(limits[:-1], generator.random(coins), side="right")[owner]
    for repetitions in planted:
        part_of[list(repetitions)] = SHARED.index("members" if generator.random() < 0.5 else "non_members")
    lists = {part: np.flatnonzero(part_of == number) for number, part in enumerate(SHARED)}
    for part, indices in lists.items():
        if getattr(shares, part) > 0 and len(indices) == 0:
            raise DataError(
                f"the data set has {coins} {'examples' if users is None else 'users'}, too few: the {part} part of the split "
                f"came out empty; give more data, or another share with --data.split.{part}"
            )
    hold = np.array(sorted(index for repetitions in planted for index in repetitions), dtype=np.int64)
    drawn: Drawn = "coins" if users is None else "users"
    return Split(**lists, salt=_salt(), seed=seed, drawn=drawn, test=np.arange(first_of_test, examples), planted=hold)


def _published(data: DataSet, seed: int) -> Split:
    """The training part as members, the validation part as population, the test part for utility, the others held out."""
    if not data.published_members or not data.published_test:
        raise DataError(
            f"data.split.members_are is 'published', and the data set {data.name!r} came without a training and a test part of "
            "its own; give 'drawn'"
        )
    first, last = data.published_members, len(data) - data.published_test
    parts = np.split(np.arange(len(data)), [first, first + data.published_validation, last])
    nobody = np.empty(0, dtype=np.int64)
    lists = {"members": parts[0], "population": parts[1], "non_members": parts[2], "test": parts[3], "public": nobody}
    return Split(**lists, salt=_salt(), seed=seed, drawn="published")


def _balanced(
    examples: int, per_class: int, targets: Tensor | None, generator: np.random.Generator
) -> dict[str, Int[np.ndarray, " part"]]:
    """So many members of each class; all others are non-members."""
    if targets is None or len(targets) != examples or targets.is_floating_point():
        raise DataError("data.split.per_class needs the class of each example; draw the split with targets=data.targets")
    labels = targets.numpy()
    kinds, counts = np.unique(labels, return_counts=True)
    if counts.min() <= per_class:
        raise DataError(
            f"data.split.per_class is {per_class}, and the class {kinds[counts.argmin()]} has {counts.min()} examples, of "
            "which one at least is held out; give a smaller number, or more data"
        )
    members = np.sort(np.concatenate([generator.permutation(np.flatnonzero(labels == kind))[:per_class] for kind in kinds]))
    nobody = np.empty(0, dtype=np.int64)
    held_out = np.setdiff1d(np.arange(examples), members)
    return {"members": members, "non_members": held_out, "population": nobody, "public": nobody}


def _salt() -> bytes:
    return secrets.token_bytes(SALT_BYTES)


def save(split: Split, path: Path) -> None:
    """Writes the split so that a reader finds all of it or nothing; readable by its owner alone."""
    lists = {part: getattr(split, part) for part in PARTS}
    seed = np.array(-1 if split.seed is None else split.seed)
    salt = np.frombuffer(split.salt, dtype=np.uint8)
    how = {"seed": seed, "digest": np.array(split.digest), "drawn": np.array(split.drawn), "planted": split.planted}
    write_arrays(path, {"salt": salt, **how, **lists})


def load(path: Path) -> Split:
    """The split from its file, checked against its digest.

    Raises:
        CheckpointError: the file is missing, changed, or something else.
    """
    again = "restore it from a copy"
    with read_arrays(path, "a whole split file", missing=again, damaged=again) as stored:
        lists = {part: stored[part] for part in PARTS}
        seed, digest = int(stored["seed"]), str(stored["digest"])
        drawn: Any = str(stored.get("drawn", "coins"))  # splits of before there was another way do not say
        planted = stored["planted"] if "planted" in stored else np.empty(0, dtype=np.int64)
        split = Split(**lists, salt=stored["salt"].tobytes(), seed=None if seed < 0 else seed, drawn=drawn, planted=planted)
    if split.digest != digest:
        raise CheckpointError(f"{path} is not what was saved: its digest differs; {again}")
    return split
