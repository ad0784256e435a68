"""The text that says a guard, such as ``top5-rounded``.

    parse("memguard0.5-top3-rounded2")      # (Part("memguard", 0.5), Part("top", 3.0), Part("rounded", 2.0))

Parts stand from left to right as an answer goes through them, joined by ``-``. Each is a registered name, and glued to it its
number. A part has to find what it works on: what a part withholds, none behind it can use. This module imports no torch, since
a recipe checks its guard when it is read.
"""

import re
from dataclasses import dataclass
from typing import Literal

from dptrain.errors import ConfigError
from dptrain.registry import GUARDS

Left = Literal["nothing", "some", "all", "own"]
"""What is left of the scores: none, those of some classes or not as they were, one of every class, or all as the model gave
them."""

_ORDER: tuple[Left, ...] = ("nothing", "some", "all", "own")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Number:
    """What may be glued to a name."""

    meaning: str
    low: float
    high: float
    example: float
    default: float | None = None
    """Where none is glued; None where one has to be."""
    kind: Literal["whole", "decimal"] = "decimal"

    def check(self, name: str, given: float | None) -> float:
        """The number that holds.

        Raises:
            ConfigError: there is none and none is the default, or it is not one of those that are accepted.
        """
        kind = "a whole number" if self.kind == "whole" else "a number"
        accepted = f"glue {kind} from {self.low:g} to {self.high:g} to it ({self.meaning}), such as {name}{self.example:g}"
        if given is None:
            if self.default is None:
                raise ConfigError(f"the guard {name!r} has no number; {accepted}")
            return self.default
        if not self.low <= given <= self.high or (self.kind == "whole" and given != int(given)):
            raise ConfigError(f"the guard {name!r} has the number {given:g}; {accepted}")
        return given


@dataclass(frozen=True)
class Terms:
    """How a part is said, what it has to find and what it leaves, and what it is fitted on.

    A guard that a user registers says them as its attribute ``terms``.
    """

    number: Number | None = None
    finds: Left = "all"
    leaves: Left = "all"
    fitted_on: Literal["nothing", "members", "model"] = "nothing"
    """Members and others, the model's answers to inputs of its owner's choice, or nothing."""


_CLASSES = {"low": 1, "high": 1_000_000, "example": 5, "kind": "whole"}

TERMS: dict[str, Terms] = {
    "label_only": Terms(finds="nothing", leaves="nothing"),
    "top": Terms(Number("how many classes are shown", **_CLASSES), finds="some", leaves="some"),
    "labels": Terms(Number("how many classes are shown", **_CLASSES), finds="some", leaves="nothing"),
    "rounded": Terms(
        Number("decimals", 0, 15, example=2, default=1, kind="whole"),
        finds="some",
        leaves="some",
    ),
    "temperature": Terms(Number("what logits are divided by", 0.01, 1000, example=4)),
    "reject": Terms(Number("the lowest confidence that is answered", 0, 1, example=0.6), finds="some"),
    "hamp": Terms(finds="own", fitted_on="model"),
    "memguard": Terms(
        Number("the most that scores change by, summed over classes and on average", 0, 2, example=0.5, default=0.5),
        finds="own",
        fitted_on="members",
    ),
    "noisy_max": Terms(Number("ε of each answer", 0.001, 1000, example=8), finds="own", leaves="nothing"),
}
"""Of the guards that came along."""


@dataclass(frozen=True)
class Part:
    """A guard's name and its number."""

    name: str
    number: float | None = None

    @property
    def text(self) -> str:
        return self.name if self.number is None else f"{self.name}{self.number:.15g}"


def terms_of(name: str) -> Terms:
    """Of a registered guard.

    Raises:
        ConfigError: there is none of this name.
    """
    if name in TERMS:
        return TERMS[name]
    return getattr(GUARDS[name], "terms", Terms())


def parse(text: str) -> tuple[Part, ...]:
    """The parts of a guard, from left to right; a number that is left out is the default.

    Raises:
        ConfigError: a part is unknown, its number is missing or not accepted, or it stands behind one that leaves it nothing to
            work on.
    """
    parts: list[Part] = []
    left: Left = "own"
    for said in text.split("-"):
        part = _part(said, text)
        terms = terms_of(part.name)
        if _ORDER.index(left) < _ORDER.index(terms.finds):
            raise ConfigError(_misplaced(text, part.name, parts, terms.finds))
        left = _ORDER[min(_ORDER.index(left), _ORDER.index("all"), _ORDER.index(terms.leaves))]
        parts.append(part)
    return tuple(parts)


def needs_members(text: str) -> bool:
    """Whether a part is fitted on private examples, so that nobody can make it who does not hold them.

    Raises:
        ConfigError: as of :func:`parse`.
    """
    return any(terms_of(part.name).fitted_on == "members" for part in parse(text))


def needs_model(text: str) -> bool:
    """Whether a part is fitted on the model's answers to inputs of its owner's choice.

    Raises:
        ConfigError: as of :func:`parse`.
    """
    return any(terms_of(part.name).fitted_on == "model" for part in parse(text))


def _part(said: str, text: str) -> Part:
    name, glued = _split(said)
    if not name:
        raise ConfigError(
            f"the guard {text!r} has a part {said!r} without a name; join names by '-', each with its number glued to it, such "
            "as top5-rounded"
        )
    GUARDS.check(name)
    number, given = terms_of(name).number, float(glued) if glued else None
    if number is not None:
        return Part(name, number.check(name, given))
    if given is not None and name in TERMS:
        raise ConfigError(f"the guard {name!r} takes no number, and {said!r} has one; give {name}")
    return Part(name, given)


def _split(said: str) -> tuple[str, str]:
    """Name and number, either of them empty; the longest registered name that leaves a number, since one may end in digits."""
    for name in sorted(GUARDS.names(), key=len, reverse=True):
        number = said.removeprefix(name)
        if said.startswith(name) and (not number or _NUMBER.fullmatch(number)):
            return name, number
    name = said.rstrip("0123456789.")
    return name, said[len(name) :]


def _misplaced(text: str, name: str, before: list[Part], finds: Left) -> str:
    said = f"the guard {text!r} has {name} behind {before[-1].text}"
    if finds == "own":
        return f"{said}, and {name} is made for the model's own scores; put it first, or leave one of them out"
    lacking = "no score of every class" if finds == "all" else "no scores"
    return f"{said}, which leaves it {lacking}; put {name} before {before[-1].text}, or leave one of them out"
