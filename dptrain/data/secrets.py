"""Made-up secrets that are put among the examples, to see whether a model repeats them.

    planted = plant(SecretsConfig(each=8, insertions=(1, 4, 16)), sequences, length=64)

A secret is a sentence that ends in something random, such as ``The PIN of Odo Fenn is 483920``; what stands before it is
known to everyone and no other secret begins so (Carlini, Liu, Erlingsson, Kos, Song 2019, "The Secret Sharer"). Each is
repeated as often as ``insertions`` says, every time at the beginning of a sequence of its own that goes on with some of the
text. Whether a secret is in the training set is decided by one coin for all of its repetitions, the same kind of coin as every
other example's (:func:`dptrain.data.split.draw`); those that lose are the controls.

Each repetition is an example, and ε for one example says of a secret that stands in n of them only what group privacy leaves,
which is little for n = 16.

Secrets, names and what follows are drawn from ``secrets.seed``, so that the data set is the same each time it is loaded. They
are nobody's.
"""

import string
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from dptrain.data.alphabet import encode
from dptrain.errors import DataError
from dptrain.recipe import SecretsConfig

DIGITS = string.digits
LETTERS = string.ascii_lowercase
FIRST = (
    "Ada",
    "Bela",
    "Cato",
    "Dina",
    "Egon",
    "Faye",
    "Gero",
    "Hedy",
    "Ines",
    "Jost",
    "Kira",
    "Levi",
    "Mona",
    "Nils",
    "Odo",
    "Pia",
)
LAST = (
    "Abt",
    "Bohl",
    "Cray",
    "Dorn",
    "Esch",
    "Fenn",
    "Gatz",
    "Hahn",
    "Igel",
    "Jahn",
    "Kolb",
    "Lutz",
    "Marx",
    "Nagl",
    "Ochs",
    "Pohl",
)


@dataclass(frozen=True)
class Pattern:
    """How secrets of one kind look."""

    before: str
    """What stands before the secret; ``{}`` is the name."""
    draw: Callable[[np.random.Generator], str]
    places: tuple[str, ...]
    """The characters that each place of the secret may hold."""

    @property
    def space(self) -> float:
        """How many secrets there could be."""
        return float(np.prod([float(len(place)) for place in self.places]))


def _each(places: tuple[str, ...]) -> Callable[[np.random.Generator], str]:
    return lambda generator: "".join(str(generator.choice(list(place))) for place in places)


def luhn(digits: str) -> int:
    """The check digit of a card number whose other digits these are (ISO/IEC 7812-1)."""
    doubled = [int(digit) * (2 - at % 2) for at, digit in enumerate(reversed(digits))]
    return -sum(value - 9 if value > 9 else value for value in doubled) % 10


def _card(generator: np.random.Generator) -> str:
    digits = "4" + "".join(map(str, generator.integers(10, size=14)))
    return digits + str(luhn(digits))


_PIN, _PASSWORD = (DIGITS,) * 6, (LETTERS + DIGITS,) * 8
_MAIL = (*(LETTERS,) * 6, "@", *(LETTERS,) * 4, ".", "o", "r", "g")
PATTERNS: dict[str, Pattern] = {
    "pin": Pattern("The PIN of {} is ", _each(_PIN), _PIN),
    "card": Pattern("The card of {} is ", _card, ("4", *(DIGITS,) * 14, DIGITS)),
    "email": Pattern("The address of {} is ", _each(_MAIL), _MAIL),
    "password": Pattern("The password of {} is ", _each(_PASSWORD), _PASSWORD),
}


@dataclass(frozen=True)
class Secret:
    """One made-up secret, and where it stands."""

    format: str
    """Of :data:`PATTERNS`."""
    before: str
    """Known to everyone."""
    secret: str
    examples: tuple[int, ...]
    """Indices of its repetitions in the data set."""

    @property
    def insertions(self) -> int:
        return len(self.examples)


@dataclass(frozen=True, eq=False)
class Planted:
    """Secrets, and the sequences that hold them."""

    secrets: tuple[Secret, ...]
    sequences: Int[Tensor, "sequences length"]
    """To be put behind the others."""


def plant(config: SecretsConfig, own: Int[Tensor, "sequences length"], length: int) -> Planted:
    """Secrets of each format, ``each`` for every number of repetitions.

    Raises:
        DataError: a sequence is too short to hold one, or there are more secrets than names.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([config.seed, *b"secrets"])))
    wanted = [(kind, times) for kind in config.formats for times in config.insertions for _ in range(config.each)]
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    if len(wanted) > len(names):
        raise DataError(
            f"data.secrets asks for {len(wanted)} secrets, and there are names for {len(names)}; give a smaller each"
        )
    chosen = generator.permutation(len(names))[: len(wanted)]
    secrets: list[Secret] = []
    rows: list[Tensor] = []
    for (kind, times), name in zip(wanted, chosen, strict=True):
        pattern = PATTERNS[kind]
        before, secret = pattern.before.format(names[name]), pattern.draw(generator)
        start = encode(f"{before}{secret}\n")
        if len(start) > length:
            raise DataError(
                f"data.sequence_length is {length}, and a secret such as {before + secret!r} has {len(start)} characters; give "
                "a larger length"
            )
        first = len(own) + len(rows)
        for _ in range(times):
            after = own[int(generator.integers(len(own)))]
            rows.append(torch.cat([start, after])[:length])
        secrets.append(Secret(kind, before, secret, tuple(range(first, first + times))))
    return Planted(tuple(secrets), torch.stack(rows))
