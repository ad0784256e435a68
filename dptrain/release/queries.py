"""Queries: what one is known by, and what is drawn for it.

    draws(inputs, key, "noisy_max", count=10)       # [examples, 10], uniform
    query_of(len(x), (x,), {"mask": mask})          # [examples, 32], one row for what each example's call says

What is drawn for a query is drawn from a secret key and the query alone, so that asking again averages nothing away. Noise that
two queries share is a leak where their scores differ: that their answers are equal, or are not, is then shown without noise. So
a query is everything that a model could tell apart: the type, the shape and every bit. Zero of either sign, or the same number
in another precision, is another query with draws of its own.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dptrain.errors import UserError

BITS = 52
"""Of a uniform number."""
DIGEST = 32
"""Bytes."""
PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
"""Types whose ``repr`` says all there is."""


def draws(inputs: Tensor, key: bytes, purpose: str, count: int = 1) -> Float[np.ndarray, "examples count"]:
    """Uniform numbers between 0 and 1 an example, from the key, the purpose and the example alone.

    Raises:
        UserError: the key is empty, or the inputs are no plain tensor.
    """
    if not key:
        raise UserError("the guard's key is empty, so that anyone could repeat what it draws; give 32 secret bytes")
    secret = hashlib.blake2b(key).digest()
    found = np.empty((len(inputs), count), dtype=np.uint64)
    head = _head(inputs, tuple(inputs.shape[1:]))
    for number, row in enumerate(_rows(inputs)):
        seed = hashlib.blake2b(head + row.tobytes(), key=secret, person=purpose.encode()[:16]).digest()
        found[number] = np.frombuffer(hashlib.shake_256(seed).digest(8 * count), dtype="<u8")
    return ((found >> np.uint64(64 - BITS)).astype(float) + 0.5) / 2.0**BITS


def query_of(examples: int, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> UInt8[Tensor, "examples digest"]:
    """Of each example of a call, a digest of the call as it would be for that example alone.

    Of a tensor with one row an example it takes that row, and everything else whole: other tensors, numbers and texts, in lists
    and dicts too, their names and their order.

    Raises:
        UserError: no tensor has a row an example, or something is passed that cannot be told apart from another of its type.
    """
    call = _Call(examples)
    call.add(inputs, "an input")
    for name, value in named.items():
        call.add(name, name)
        call.add(value, name)
    if not call.has_rows:
        raise UserError(f"the model was asked without a tensor of {examples} rows, from which a guard knows the query")
    said = call.said.digest()
    digests = [
        hashlib.blake2b(said + b"".join(rows[number].tobytes() for rows in call.rows), digest_size=DIGEST).digest()
        for number in range(examples)
    ]
    return torch.from_numpy(np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(examples, DIGEST).copy())


class _Call:
    """What is passed: what all examples share, and the rows of each."""

    def __init__(self, examples: int):
        self.examples = examples
        self.said = hashlib.blake2b()
        self.rows: list[UInt8[np.ndarray, "examples bytes"]] = []
        self.has_rows = False

    def add(self, value: Any, where: str) -> None:
        if isinstance(value, Tensor):
            self._tensor(value)
        elif type(value) in (list, tuple):
            self._say(f"{type(value).__name__} {len(value)}".encode())
            for one in value:
                self.add(one, where)
        elif type(value) is dict:
            self._say(f"dict {len(value)}".encode())
            for name, one in value.items():
                self.add(name, where)
                self.add(one, where)
        elif type(value) in PLAIN:
            self._say(f"{type(value).__name__} {value!r}".encode())
        else:
            raise UserError(
                f"the guard draws from all that its model is asked, and {where} is a {type(value).__name__}, of which it does "
                "not know what the model reads; give tensors, numbers, texts, or lists, tuples and dicts of them"
            )

    def _tensor(self, value: Tensor) -> None:
        """One row stands for every example, as it does where a model is asked for one alone."""
        if value.dim() > 0 and len(value) in (1, self.examples):
            self._say(b"row " + _head(value, tuple(value.shape[1:])))
            rows = _rows(value)
            self.rows.append(np.broadcast_to(rows, (self.examples, rows.shape[1])))
            self.has_rows = self.has_rows or len(value) == self.examples
        else:
            self._say(b"whole " + _head(value, tuple(value.shape)))
            self._say(_bytes(value).tobytes())

    def _say(self, part: bytes) -> None:
        self.said.update(len(part).to_bytes(8, "big") + part)


def _head(value: Tensor, shape: tuple[int, ...]) -> bytes:
    return f"{value.dtype} {shape}".encode()


def _rows(value: Tensor) -> UInt8[np.ndarray, "examples bytes"]:
    found = _bytes(value)
    return found.reshape(len(value), len(found) // len(value)) if len(value) else found.reshape(0, 0)


def _bytes(value: Tensor) -> UInt8[np.ndarray, " bytes"]:
    if value.layout is not torch.strided or value.is_quantized or value.is_nested:
        raise UserError(
            f"the guard draws from its model's inputs, and one is {value.layout} and no dense tensor; give .to_dense()"
        )
    whole = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return whole.reshape(-1).view(torch.uint8).numpy()
