"""Words as numbers, by a rule that is known without looking at any text: no vocabulary is learned.

    hashed("Call 0900 now!", 6)          # [numbers of "call", "0000", "now", "!", 0, 0]

A vocabulary that is read off private messages says which words are in them. Here a word's number is a hash of it, 1 to
:data:`BUCKETS`, so that some words share one ("hashing trick": Weinberger, Dasgupta, Langford, Smola, Attenberg 2009, "Feature
Hashing for Large Scale Multitask Learning"); 0 fills what is left of a sequence.

Text is brought to Unicode's compatibility form (NFKC) and to small letters, and every digit becomes a 0, so that telephone
numbers of one length are one word. Letters and digits that stand together are a word, every other sign but white space is one
by itself.
"""

import hashlib
import re
import unicodedata

import torch
from jaxtyping import Int
from torch import Tensor

PADDING = 0
BUCKETS = 4096
_WORD = re.compile(r"[^\W_]+|[^\w\s]|_")


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall("".join("0" if letter.isdigit() else letter for letter in plain))


def bucket(word: str) -> int:
    """A word's number, the same on every computer."""
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "little") % BUCKETS


def hashed(text: str, length: int) -> Int[Tensor, " length"]:
    """The numbers of the first ``length`` words, filled up with 0."""
    numbers = [bucket(word) for word in words(text)[:length]]
    return torch.tensor(numbers + [PADDING] * (length - len(numbers)), dtype=torch.long)
