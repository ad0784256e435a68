"""What a stranger sends, as numbers, or a refusal that says what would be accepted.

    form = Form.of(served, most=256)
    inputs = form.read(body, "application/json")        # {"inputs": [[...], ...]}
    inputs = form.read(body, "application/x-npy")       # an array as numpy.save writes it
    (batch,) = inputs                                   # [examples, ...]; of a language model, one batch a length

Nothing is converted that was not meant: texts and truth values are no numbers, an unknown key is an error, and numbers that are
not finite or lie outside the model's public bounds are refused rather than moved to them, since an answer to other inputs than
those sent would mislead whoever asked. Of an array its header is read first, and no memory is taken for what the header merely
claims. Nothing is unpickled.

JSON is read in one go, in which no other thread runs: a body is as long as its most numbers can be, and one that opens more
lists, objects or texts than they need is refused unread.
"""

import io
import itertools
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from dptrain.data import alphabet
from dptrain.data.tokens import Tokenizer, tokenizer_of
from dptrain.release.loading import Kind, Served

JSON, NPY = "application/json", "application/x-npy"
SLACK = 1e-6
"""How far an input may lie outside the bounds, since it may have been rounded to 32 bits."""
MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 4096
LONGEST_TOKEN = 64
"""Characters, by which a text is refused before it is cut into tokens."""
LONGEST_NUMBER = len(", -2.2250738585072014e-308")
"""Bytes of a number in JSON that means one of 64 bits."""
BRACKETS = len("[], ")
ROOM = 16 * 1024
"""Bytes of a body beside its numbers."""
NUMBERS = frozenset(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)) | {"f2", "f4", "f8"}


class Refusal(Exception):
    """What is answered in place of a prediction.

    Args:
        status: of HTTP.
        accepted: what would have been accepted, or what to do.
        wait: seconds after which the same would be answered.
    """

    def __init__(self, status: int, error: str, accepted: str, wait: int | None = None):
        super().__init__(error)
        self.status, self.error, self.accepted, self.wait = status, error, accepted, wait


@dataclass(frozen=True, eq=False)
class Form:
    """What a served model reads."""

    kind: Kind
    shape: tuple[int, ...]
    """Of one example; of a language model, of the longest sequence."""
    bounds: tuple[float, float]
    whole: bool
    most: int
    """Examples in one request."""
    tokenizer: Tokenizer | None = None

    @classmethod
    def of(cls, served: Served, most: int) -> "Form":
        """Raises ConfigError where the model's tokenizer cannot be had."""
        named = served.tokenizer if served.kind == "language" else None
        tokenizer = None if named is None else tokenizer_of(named)
        return cls(served.kind, served.input_shape, served.bounds, served.whole, most, tokenizer)

    @property
    def longest(self) -> int:
        """Characters of a text, at most: more are not even cut into tokens, which takes time."""
        return self.shape[0] - 1 if self.tokenizer is None else LONGEST_TOKEN * self.shape[0]

    @property
    def most_of_json(self) -> int:
        """Bytes of a body in JSON: of all numbers at their longest, or of texts as long as these."""
        return self.most * self._bytes_of_one + ROOM

    def worth(self, size: int) -> int:
        """How many examples a body of so many bytes could have held, from 1 to the most of a request."""
        return max(1, min(self.most, size // self._bytes_of_one))

    @property
    def _lists(self) -> int:
        """That one example is written as."""
        return sum(math.prod(self.shape[:depth]) for depth in range(len(self.shape)))

    @property
    def _bytes_of_one(self) -> int:
        return math.prod(self.shape) * LONGEST_NUMBER + self._lists * BRACKETS

    @property
    def said(self) -> str:
        """What is accepted, as a person reads it."""
        low, high = self.bounds
        numbers = f"{'whole numbers' if self.whole else 'finite numbers'} from {low:g} to {high:g}"
        if self.kind == "language":
            length = self.shape[0]
            return (
                f'{{"tokens": [[...], ...]}} with 1 to {self.most} sequences of 1 to {length} {numbers}, or {{"texts": ["...", '
                f"...]}} with as many texts of at most {length - 1} {'characters' if self.tokenizer is None else 'tokens'}, "
                f"or an array of numpy.save of shape (1 to {self.most}, 1 to {length})"
            )
        each = " × ".join(map(str, self.shape))
        return (
            f'{{"inputs": [...]}} with 1 to {self.most} examples of {each} {numbers}, or an array of numpy.save of shape '
            f"(1 to {self.most}, {', '.join(map(str, self.shape))})"
        )

    def read(self, body: bytes, content_type: str) -> tuple[Tensor, ...]:
        """Batches of examples; of a language model, sequences of one length each, in the order given.

        Raises:
            Refusal: they are not what is accepted.
        """
        if is_array(content_type):
            return (self._checked(self._array(body)),)
        if _kind(content_type) != JSON:
            raise Refusal(415, f"the content type is {content_type[:80]!r}", f"{JSON} or {NPY}")
        self._check_parts(body)
        given = _json(body, self.said)
        if self.kind == "language":
            return self._sequences(given)
        return (self._checked(self._nested(self._taken(given, "inputs")[1])),)

    def _check_parts(self, body: bytes) -> None:
        """Twice of what is needed is read, for the sake of a better answer to a batch that is a little too large."""
        plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
        few = plain.count(b'"') <= 4 * (self.most + 1)
        outside = plain.split(b'"')[::2] if few else []
        if not few or sum(part.count(b"[") + part.count(b"{") for part in outside) > 2 * (self.most * self._lists + 2):
            raise self.refusal("the JSON holds more lists, objects or texts than so many examples need")

    def refusal(self, error: str, status: int = 422) -> Refusal:
        return Refusal(status, error, self.said)

    def _taken(self, given: Any, *keys: str) -> tuple[str, list[Any]]:
        """The one key that is given, and the list below it."""
        wanted = " or ".join(f'"{key}"' for key in keys)
        if not isinstance(given, dict):
            raise self.refusal(f"the JSON is no object with the key {wanted}")
        if len(given) != 1 or next(iter(given)) not in keys:
            raise self.refusal(f"the JSON object must have the one key {wanted}")
        key, rows = next(iter(given.items()))
        if not isinstance(rows, list) or not rows:
            raise self.refusal(f'"{key}" is no list, or an empty one')
        if len(rows) > self.most:
            raise self.refusal(f'"{key}" has {len(rows)} examples, and {self.most} are answered at once')
        return key, rows

    def _nested(self, rows: list[Any]) -> Shaped[np.ndarray, "examples ..."]:
        """Lists within lists as an array of the one shape."""
        flat: list[Any] = rows
        for length in self.shape:
            if not all(type(part) is list and len(part) == length for part in flat):
                raise self.refusal(f"an example is not of shape {self.shape}")
            flat = list(itertools.chain.from_iterable(flat))
        return self._numbers(flat).reshape(len(rows), *self.shape)

    def _numbers(self, flat: list[Any]) -> np.ndarray:
        if not set(map(type, flat)) <= {int, float}:
            raise self.refusal("something else than a number stands among the numbers")
        try:
            return np.array(flat, dtype=np.float64)
        except OverflowError:
            raise self.refusal("a number is too large for 64 bits") from None

    def _sequences(self, given: Any) -> tuple[Tensor, ...]:
        """Neighbours of the same length stand in one batch."""
        key, rows = self._taken(given, "tokens", "texts")
        length = self.shape[0]
        rows = rows if key == "tokens" else [self._written(text) for text in rows]
        if not all(type(row) is list and 1 <= len(row) <= length for row in rows):
            raise self.refusal(f"a sequence is no list of 1 to {length} numbers")
        parts = [list(group) for _, group in itertools.groupby(rows, key=len)]
        flat = [self._numbers(list(itertools.chain.from_iterable(part))) for part in parts]
        return tuple(self._checked(row.reshape(len(part), -1)) for row, part in zip(flat, parts, strict=True))

    def _written(self, text: Any) -> list[int]:
        """A text's numbers, behind the sign for the start."""
        if not isinstance(text, str):
            raise self.refusal("something else than a text stands among the texts")
        if len(text) > self.longest:
            raise self.refusal(f"a text has {len(text)} characters")
        try:
            if self.tokenizer is None:
                numbers, start = alphabet.encode(text), alphabet.START
            else:
                numbers, start = self.tokenizer.encode(text), self.tokenizer.start
        except UnicodeEncodeError:
            raise self.refusal("a text holds half a character (a lone surrogate)") from None
        if len(numbers) >= self.shape[0]:
            raise self.refusal(f"a text has {len(numbers)} tokens")
        return [start, *numbers.tolist()]

    def _array(self, body: bytes) -> np.ndarray:
        """The array of a ``.npy`` file."""
        shape, fortran, kind, start = self._header(body)
        if (
            kind.hasobject
            or kind.names is not None
            or kind.subdtype is not None
            or kind.kind + str(kind.itemsize) not in NUMBERS
        ):
            raise self.refusal(f"the array holds {str(kind)[:80]}, and numbers of at most 64 bits are accepted")
        language = self.kind == "language"
        alike = len(shape) == 1 + len(self.shape) and 1 <= shape[0] <= self.most
        if not alike or not (1 <= shape[1] <= self.shape[0] if language else shape[1:] == self.shape):
            raise self.refusal(f"the array is of shape {str(shape)[:80]}")
        if len(body) - start != math.prod(shape) * kind.itemsize:
            raise self.refusal(f"the header states an array of shape {shape}, and {len(body) - start} bytes follow", 400)
        flat = np.frombuffer(body, dtype=kind, offset=start)
        return flat.reshape(shape, order="F" if fortran else "C").astype(np.float64)

    def _header(self, body: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
        """Shape, order, kind of number, and where the numbers begin."""
        if body[:6] != MAGIC or body[6:8] not in (b"\x01\x00", b"\x02\x00"):
            raise self.refusal("the body is no array in the format .npy, version 1 or 2", 400)
        first = body[6] == 1
        length = int.from_bytes(body[8 : 10 if first else 12], "little")
        if length > LONGEST_HEADER:
            raise self.refusal(f"the array's header has {length} bytes, and {LONGEST_HEADER} are read", 400)
        handle = io.BytesIO(body)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        try:
            np.lib.format.read_magic(handle)
            shape, fortran, kind = read(handle, max_header_size=LONGEST_HEADER)
        except Exception:  # of many kinds: numpy reads it as a literal of Python, and a damaged one breaks its tokenizer
            raise self.refusal("the array's header cannot be read", 400) from None
        return tuple(map(int, shape)), bool(fortran), kind, handle.tell()

    def _checked(self, given: Shaped[np.ndarray, "examples ..."]) -> Shaped[Tensor, "examples ..."]:
        """Numbers that the model may be given, as it was trained on them; −0 and 0 are one number."""
        low, high = self.bounds
        if not np.isfinite(given).all():
            raise self.refusal("the inputs hold NaN or infinity")
        if given.min() < low - SLACK or given.max() > high + SLACK:
            raise self.refusal(f"the inputs lie between {given.min():g} and {given.max():g}, outside the model's bounds")
        if not self.whole:
            return torch.from_numpy(given).float() + 0.0  # what is too small for 32 bits becomes a zero with its sign
        if (given != np.floor(given)).any():
            raise self.refusal("the inputs hold numbers that are not whole")
        return torch.from_numpy(given.astype(np.int64))


def is_array(content_type: str) -> bool:
    return _kind(content_type) == NPY


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _json(body: bytes, accepted: str) -> Any:
    """What strict JSON says: without NaN and without infinity.

    Raises:
        Refusal: it is none.
    """
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise Refusal(400, "the JSON is nested too deeply", accepted) from None
    except UnicodeDecodeError:
        raise Refusal(400, "the body is not UTF-8", accepted) from None
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON: {str(error)[:120]}", accepted) from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
