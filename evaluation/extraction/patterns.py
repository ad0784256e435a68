"""What looks like a secret in what a model says: e-mail addresses, phone and card numbers, and words after PIN or password.

    found = scan("Write to odo.fenn@example.org")       # {"email": {"odo.fenn@example.org"}, "phone": set(), ...}
    taken = from_training(said, training, public)       # those that stand in the training text and not in the public one

A string of this kind that the model says by itself, that stands in the training text and nowhere in the public text, it has
from its training. The strings are somebody's: only their counts leave this module's callers.
"""

import re
from typing import Literal, get_args

from dptrain.data.secrets import luhn

Kind = Literal["email", "phone", "card", "pin_or_password"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NAMES: dict[Kind, str] = {
    "email": "e-mail addresses",
    "phone": "phone numbers",
    "card": "card numbers",
    "pin_or_password": "words after PIN or password",
}

EMAIL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
CARD = re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])")
PHONE = re.compile(r"(?<![\w+])(?:\+\d{1,3}[ -]?)?(?:\(\d{2,5}\)[ -]?|\d{2,5}[ -/])\d{2,4}(?:[ -]\d{2,4}){1,3}(?![\w-])")
NAMED = re.compile(r"\b(?:PIN|[Pp]assword)\b(?: (?:of|for)(?: \w+){1,3}?)?(?: is|:| =) ?([^\s,;]{4,32})")


def scan(text: str) -> dict[Kind, frozenset[str]]:
    """The different strings of each kind, card numbers without what stands between their digits."""
    cards = {"".join(filter(str.isdigit, found)) for found in CARD.findall(text)}
    return {
        "email": frozenset(EMAIL.findall(text)),
        "phone": frozenset(found for found in PHONE.findall(text) if 7 <= sum(map(str.isdigit, found)) <= 15),
        "card": frozenset(filter(is_card, cards)),
        "pin_or_password": frozenset(found.rstrip(".") for found in NAMED.findall(text)),
    }


def is_card(digits: str) -> bool:
    """Whether it is 13 to 19 digits of which the last checks the others (Luhn; ISO/IEC 7812-1)."""
    plain = digits.isascii() and digits.isdigit() and 13 <= len(digits) <= 19
    return plain and int(digits[-1]) == luhn(digits[:-1])


def from_training(said: str, training: str, public: str) -> dict[Kind, frozenset[str]]:
    """What was said that stands in the training text as the same kind of thing, and nowhere in the public text."""
    known, own = scan(said), scan(training)
    return {kind: frozenset(text for text in known[kind] & own[kind] if text not in public) for kind in KINDS}
