"""Whether a record that was read from a file holds what its fields may hold.

    check(result, "runs/mine/result.json")          # CheckpointError: ... gives verdict of membership.lira = ...

What is built from JSON is built by its keys alone. A misspelt status would leave an attack out of every check, and a text where
a number should be would end in a traceback far from its file. NaN is refused before, as JSON's own error (:func:`no_constant`).
"""

import dataclasses
import functools
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dptrain.errors import CheckpointError


def no_constant(name: str) -> None:
    """For ``json.loads(..., parse_constant=no_constant)``.

    Raises:
        ValueError: always: JSON knows no NaN and no infinity, and no record is written with one.
    """
    raise ValueError(f"it holds {name}, which is no JSON and no figure")


def check(record: Any, where: str) -> None:
    """Every field of a dataclass, and of those that it holds, against its type.

    Args:
        where: the file, for the error's text.

    Raises:
        CheckpointError: a value is of another type, or none of those that its ``Literal`` names.
    """
    of = getattr(record, "name", "")
    for name, kind in _hints(type(record)).items():
        said = f"{name} of {of}" if of and name != "name" else name
        _check(getattr(record, name), kind, where, said)


_hints = functools.cache(get_type_hints)


def _check(value: Any, kind: Any, where: str, name: str) -> None:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is not None:
            _check(value, next(item for item in arguments if item is not NoneType), where, name)
    elif origin is Literal:
        if value not in arguments:
            raise _wrong(value, ", ".join(arguments), where, name)
    elif origin is tuple:
        for item in value:
            _check(item, arguments[0], where, name)
    elif origin is dict:
        if not isinstance(value, dict):
            raise _wrong(value, "an object", where, name)
        for item in value.values():
            if item not in ("inf", "-inf"):  # so written by dptrain.plain, which reads back fields alone
                _check(item, arguments[1], where, name)
    elif dataclasses.is_dataclass(kind):
        check(value, where)
    elif kind in _SCALARS and (not isinstance(value, _SCALARS[kind]) or (isinstance(value, bool) and kind is not bool)):
        raise _wrong(value, _WORDS[kind], where, name)


_SCALARS: dict[Any, Any] = {float: (int, float), int: int, bool: bool, str: str}
_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def _wrong(value: Any, accepted: str, where: str, name: str) -> CheckpointError:
    return CheckpointError(f"{where} gives {name} = {value!r}; accepted: {accepted}; restore it from a copy, or make it again")
