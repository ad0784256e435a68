"""Characters as numbers, by a list that is known without looking at any text: the line break and what ASCII prints.

    encode("To be")                      # [Tensor of 5 numbers]
    decode(encode("To be"))              # "To be"

An alphabet that is read off a private text says which characters are in it. Whatever is not on the list becomes one and the
same sign, written □. The number 0 stands before the first character of a sequence and nowhere else.
"""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

START = 0
OTHER = 1
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
LABELS = ("start of the sequence", "□", "line break", *CHARACTERS[1:])
"""What each number stands for, as a person would read it."""
_FIRST = 2
_NUMBER_OF = np.full(128, OTHER, dtype=np.int64)
_NUMBER_OF[[ord(character) for character in CHARACTERS]] = np.arange(_FIRST, _FIRST + len(CHARACTERS))


def encode(text: str) -> Int[Tensor, " characters"]:
    """One number a character."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    return torch.from_numpy(np.where(codes < 128, _NUMBER_OF[np.minimum(codes, 127)], OTHER))


def decode(numbers: Int[Tensor, " characters"]) -> str:
    """The text; nothing where a sequence starts."""
    signs = ("", "□", *CHARACTERS)
    return "".join(signs[number] for number in numbers.tolist())
