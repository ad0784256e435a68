"""Made-up secrets that are put among the examples, to see whether a model repeats them.

    planted = plant(SecretsConfig(each=8, insertions=(1, 4, 16)), first=len(sequences), length=64)

A secret is a sentence that ends in something random, such as ``The PIN of Odo Fenn is 483920``; what stands before it is
known to everyone and no other secret begins so (Carlini, Liu, Erlingsson, Kos, Song 2019, "The Secret Sharer"). Each is
repeated as often as ``insertions`` says, every time at the beginning of a sequence of its own that goes on with made-up
sentences. Nothing of the private text is in it: a sequence that were quoted there would be in two examples, of which one could
be trained on where the other is held out. Whether a secret is in the training set is decided by one fair coin for all of its
repetitions (:func:`dptrain.data.split.draw`); those that lose are the controls.

Each repetition is an example, and ε for one example says of a secret that stands in n of them only what group privacy leaves,
which is little for n = 16. Where the text says whose each sequence is, a secret is a made-up user, whose sequences are its
repetitions and no others: ε for one user is of all of them together.

Secrets, names and what follows are drawn from ``secrets.seed``, so that the data set is the same each time it is loaded. They
are nobody's.
"""

import string
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from dptrain.data.alphabet import encode
from dptrain.errors import DataError
from dptrain.recipe import SecretsConfig

DIGITS = string.digits
LETTERS = string.ascii_lowercase
NAMES = (
    "Ada Bela Cato Dina Egon Faye Gero Hedy Ines Jost Kira Levi Mona Nils Odo Pia",
    "Abt Bohl Cray Dorn Esch Fenn Gatz Hahn Igel Jahn Kolb Lutz Marx Nagl Ochs Pohl",
)
"""First and last ones, of people who do not exist."""


@dataclass(frozen=True)
class Pattern:
    """How secrets of one kind look."""

    before: str
    """What stands before the secret; ``{}`` is the name."""
    draw: Callable[[np.random.Generator], str]
    places: tuple[str, ...]
    """The characters that each place of the secret may hold."""
    last: Literal["free", "check digit"] = "free"
    """Whether the last place holds anything of its own, or what Luhn's rule makes of the others."""

    @property
    def space(self) -> float:
        """How many secrets there could be."""
        free = self.places if self.last == "free" else self.places[:-1]
        return float(np.prod([float(len(place)) for place in free]))


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
    "card": Pattern("The card of {} is ", _card, ("4", *(DIGITS,) * 14, DIGITS), "check digit"),
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

    @property
    def owners(self) -> Int[Tensor, " sequences"]:
        """The number of the secret that stands in each sequence, counted from 0."""
        return torch.repeat_interleave(torch.tensor([secret.insertions for secret in self.secrets]))


Written = Callable[[str], Int[Tensor, " numbers"]]
"""A text as numbers: of an alphabet, or of a tokenizer."""


def plant(config: SecretsConfig, first: int, length: int, written: Written = encode) -> Planted:
    """Secrets of each format, ``each`` for every number of repetitions.

    Args:
        first: the index that their first sequence will have in the data set.
        length: of a sequence, in characters or tokens.

    Raises:
        DataError: a sequence is too short to hold one, or there are more secrets than names.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([config.seed, *b"secrets"])))
    wanted = [(kind, times) for kind in config.formats for times in config.insertions for _ in range(config.each)]
    names = [f"{first} {last}" for first, last in product(*map(str.split, NAMES))]
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
        start = f"{before}{secret}\n"
        needed = len(written(start))
        if needed > length:
            unit = "characters" if written is encode else "tokens"
            raise DataError(
                f"data.sequence_length is {length}, and a secret such as {before + secret!r} has {needed} {unit}; give a "
                "larger length"
            )
        at = first + len(rows)
        rows += [written(start + _small_talk(generator, names, length, written))[:length] for _ in range(times)]
        secrets.append(Secret(kind, before, secret, tuple(range(at, at + times))))
    return Planted(tuple(secrets), torch.stack(rows))


def _small_talk(generator: np.random.Generator, names: list[str], length: int, written: Written) -> str:
    """Sentences of at least so many characters or tokens, about nobody."""
    text = ""
    while len(written(text)) < length:
        one, other = generator.choice(names, size=2)
        text += f"{one} met {other}.\n"
    return text
