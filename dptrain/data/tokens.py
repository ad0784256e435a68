"""Text as the tokens of a published model, in place of characters of the alphabet.

    tokenizer = tokenizer_of("HuggingFaceTB/SmolLM2-135M")     # a folder, or a name on the hub
    numbers = tokenizer.encode("To be")
    tokenizer.decode(numbers)                                   # "To be"
    tokenizer.characters(sequences)                             # how many characters each row of tokens writes

A tokenizer was made from other people's text and is public: that it is used says nothing of the private one. A text can be cut
into tokens in several ways; :meth:`Tokenizer.encode` gives the one that the tokenizer takes, and a model may say the same text
in others.

A token can be a part of a character: where a sequence ends within one, the character counts in the sequence that it begins in.
"""

import functools
import re
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from dptrain.errors import ConfigError
from dptrain.hub import check_folder, first_line, folder_of, text_extra

BROKEN = "�"
"""What stands for bytes that are no whole character."""
KEY = "data.tokenizer"


class Tokenizer:
    """See the module's text.

    Args:
        inner: a Hugging Face tokenizer.

    Raises:
        ConfigError: it has no sign that could stand before a text.
    """

    def __init__(self, inner: Any, name: str):
        self._inner, self.name = inner, name
        signs = (inner.bos_token_id, inner.eos_token_id, inner.cls_token_id)
        found = next((sign for sign in signs if sign is not None), None)
        if found is None:
            raise ConfigError(
                f"{KEY} is {name!r}, which has no sign for the start or end of a text (bos_token, eos_token); give another one"
            )
        self.start = int(found)
        """The number of what stands before a sequence."""
        self.labels = tuple(map(str, inner.convert_ids_to_tokens(list(range(len(inner))))))
        """What each number stands for, as the tokenizer writes it."""
        self._before = self._written([self.start])

    def encode(self, text: str) -> Int[Tensor, " tokens"]:
        """The tokens of a text, without signs for its start and end."""
        numbers = self._inner(text, add_special_tokens=False, verbose=False)["input_ids"]
        return torch.tensor(numbers, dtype=torch.int64)

    def decode(self, numbers: Int[Tensor, " tokens"]) -> str:
        """The text, as it stands after the start of a sequence."""
        return self._written([self.start, *numbers.tolist()])[len(self._before) :]

    def characters(self, sequences: Int[Tensor, "sequences length"]) -> Int[Tensor, " sequences"]:
        """How many characters begin in each sequence."""
        return self._begun[sequences].sum(1)

    @functools.cached_property
    def _begun(self) -> Int[Tensor, " tokens"]:
        """How many characters begin in each token."""
        pairs = zip(self.labels, self.pieces, strict=True)
        return torch.tensor([len(piece) if BROKEN not in piece else _beginnings(label, piece) for label, piece in pairs])

    @functools.cached_property
    def pieces(self) -> tuple[str, ...]:
        """The text that each token adds to what stands before it."""
        written = self._inner.batch_decode(
            [[self.start, number] for number in range(len(self.labels))],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        return tuple(text[len(self._before) :] for text in written)

    def _written(self, numbers: list[int]) -> str:
        return self._inner.decode(numbers, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _bytes_by_sign() -> dict[str, int]:
    """The byte that each sign stands for where a tokenizer writes bytes as letters: those that print as themselves, all others
    as letters from 256 up (Radford et al. 2019, the tokenizer of GPT-2)."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printing]
    return {chr(value): value for value in printing} | {chr(256 + place): value for place, value in enumerate(others)}


SIGNS = _bytes_by_sign()
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""One byte, as other tokenizers write it."""


def _beginnings(label: str, piece: str) -> int:
    """How many characters begin in a token that holds parts of some: bytes of UTF-8 that go on with none."""
    alone = BYTE.fullmatch(label)
    if alone is None and not all(sign in SIGNS for sign in label):
        return len(piece)
    held = [int(alone[1], 16)] if alone else [SIGNS[sign] for sign in label]
    return sum(value >> 6 != 0b10 for value in held)


def tokenizer_of(name: str) -> Tokenizer:
    """The tokenizer of a folder, or of a name on the hub.

    Raises:
        ConfigError: it cannot be found, fetched or read, or transformers is not installed.
    """
    folder = folder_of(name, KEY)
    check_folder(folder, {"tokenizer*": "the tokenizer"}, KEY)
    return _read(folder, name)


@functools.lru_cache(maxsize=4)
def _read(folder: Path, name: str) -> Tokenizer:
    with text_extra(KEY):
        from transformers import AutoTokenizer
    try:
        inner = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of many kinds: each tokenizer is a library's own class
        raise ConfigError(
            f"{KEY} is {name!r}, whose tokenizer cannot be read ({first_line(error)}); give a folder with a tokenizer.json"
        ) from None
    return Tokenizer(inner, name)
