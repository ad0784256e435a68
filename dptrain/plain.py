"""Frozen dataclasses as plain JSON values, and back.

Infinity, which JSON does not know, is the text ``"inf"``. Reading back is strict: an unknown key is an error, so that a file
of another version is never half understood.
"""

import dataclasses
import math
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from dptrain.errors import CheckpointError

T = TypeVar("T")


def as_plain(value: Any) -> Any:
    """A dataclass as dicts, lists, numbers and texts that JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def from_plain(kind: type[T], plain: Any, where: str) -> T:
    """The dataclass ``kind`` from what :func:`as_plain` made of it.

    Args:
        where: the file, for the error's text.

    Raises:
        CheckpointError: a key is unknown or missing.
    """
    return _build(kind, plain, where)


def _build(kind: Any, plain: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if plain is None else _build(next(item for item in arguments if item is not type(None)), plain, where)
    if origin is tuple:
        return tuple(_build(arguments[0], item, where) for item in plain)
    if kind is float and plain in ("inf", "-inf"):
        return float(plain)
    if not dataclasses.is_dataclass(kind):
        return plain
    if not isinstance(plain, dict):
        raise CheckpointError(f"{where} holds a {type(plain).__name__} where an object should be; restore it from a copy")
    hints = get_type_hints(kind)
    names = {item.name for item in dataclasses.fields(kind)}
    unknown = sorted(set(plain) - names)
    if unknown:
        raise CheckpointError(f"{where} has the unknown keys {', '.join(unknown)}; it was written by another version")
    made: Any = kind
    try:
        return made(**{name: _build(hints[name], value, where) for name, value in plain.items()})
    except TypeError as error:
        raise CheckpointError(f"{where} is not complete: {error}") from None
