"""The code behind a thing that a user registered, as a text: two things with one text do the same.

    source_of(build)        # of a function, a class, a functools.partial, …

The text has the hash of the whole file in which a function or a class is written, since a factory says nothing of the class
that it builds; the values that a closure holds, default arguments, and numbers and texts among the globals, which one file
can have from a command line; and, of a class, the same of its bases and methods.

What cannot be read (something typed at a prompt, a file that was changed after this process began and so need not be what
runs, a closure over an object of any other kind) gets a text that no other has, in this process or another. It is then never
taken for the same, which costs time and nothing else.

**What is not seen**: the code of further modules that such a file imports, other than that of the classes themselves, and
globals that are neither numbers nor texts. Python's own modules and ``KNOWN`` ones are told apart by name alone; who compares
these texts compares versions as well.
"""

import dataclasses
import functools
import hashlib
import inspect
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

STARTED = time.time() - 0.1
"""A little before this process read its files: the clock by which they are stamped is coarse."""
PLAIN = (type(None), bool, int, float, complex, str, bytes)
"""Whose ``repr`` says all of them."""
KNOWN = frozenset({"dptrain", "torch", "numpy", *sys.stdlib_module_names})


def source_of(thing: Any) -> str:
    """The text of a thing; equal texts, equal code."""
    return "\n".join(_lines(thing, {}))


def _lines(thing: Any, seen: dict[int, int]) -> Iterator[str]:
    """
    Args:
        seen: ids of what has been described, numbered; all of it is held by the thing, so that no id is given to another.
    """
    if type(thing) in PLAIN:
        yield repr(thing)
    elif id(thing) in seen:
        yield f"number {seen[id(thing)]} again"
    else:
        seen[id(thing)] = len(seen)
        yield from _of_object(thing, seen)


def _of_object(thing: Any, seen: dict[int, int]) -> Iterator[str]:
    yield f"{type(thing).__module__}.{type(thing).__qualname__}"
    match thing:
        case FunctionType():
            if not _is_known(thing.__globals__.get("__name__")):
                yield _file_of(thing)
            yield from _of_function(thing, seen)
        case type():
            yield from _of_class(thing, seen)
        case MethodType():
            yield from _lines(thing.__func__, seen)
            yield from _lines(thing.__self__, seen)
        case BuiltinFunctionType() if isinstance(thing.__self__, ModuleType | type | None):
            yield f"{thing.__module__}.{thing.__qualname__}"
        case ModuleType():
            yield thing.__name__
        case functools.partial() if type(thing) is functools.partial:
            for part in (thing.func, thing.args, thing.keywords):
                yield from _lines(part, seen)
        case tuple() | list() if type(thing) in (tuple, list):
            yield str(len(thing))
            for item in thing:
                yield from _lines(item, seen)
        case dict() if type(thing) is dict:
            yield str(len(thing))
            for key, value in thing.items():
                yield from _lines(key, seen)
                yield from _lines(value, seen)
        case _ if _is_record(thing):
            yield from _of_class(type(thing), seen)
            for value in vars(thing).values():
                yield from _lines(value, seen)
        case _:
            yield _never_again()


def _of_function(function: FunctionType, seen: dict[int, int]) -> Iterator[str]:
    """Which one it is, and what it holds. Of a decorator of a known package the function that it wraps: the rest is written
    where it decorates."""
    code, wraps = function.__code__, _is_known(function.__globals__.get("__name__"))
    yield f"{function.__module__}.{function.__qualname__} {code.co_firstlineno} {code.co_code.hex()}"
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield name
        try:
            held = cell.cell_contents
        except ValueError:
            yield "empty"
            continue
        if not wraps or type(held) in PLAIN or (isinstance(held, FunctionType | type) and not _is_generated(held)):
            yield from _lines(held, seen)
    if wraps:
        return
    yield from _lines(function.__defaults__, seen)
    yield from _lines(function.__kwdefaults__, seen)
    for name in sorted(set(_names(code)) & function.__globals__.keys()):
        if type(function.__globals__[name]) in PLAIN:
            yield f"{name} = {function.__globals__[name]!r}"


def _of_class(kind: type, seen: dict[int, int]) -> Iterator[str]:
    for part in kind.__mro__:
        yield f"{part.__module__}.{part.__qualname__}"
        if _is_known(part.__module__):
            continue
        yield _file_of(part)
        for name, member in vars(part).items():
            function = getattr(member, "__func__", member)  # of a static method or one of the class
            if type(member) in PLAIN or (isinstance(function, FunctionType) and not _is_generated(function)):
                yield name
                yield from _lines(function, seen)


def _is_record(thing: Any) -> bool:
    """A dataclass that holds its fields and nothing else."""
    held = getattr(thing, "__dict__", None)
    return (
        held is not None and dataclasses.is_dataclass(thing) and set(held) == {item.name for item in dataclasses.fields(thing)}
    )


def _is_generated(thing: FunctionType | type) -> bool:
    """A method that ``dataclasses`` wrote, from what the class's file says."""
    written = isinstance(thing, FunctionType) and thing.__code__.co_filename == "<string>"
    return written and thing.__name__.startswith("__")


def _names(code: CodeType) -> Iterator[str]:
    """Of globals, among others, that a function and those inside it use."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _file_of(thing: Any) -> str:
    try:
        path = Path(inspect.getsourcefile(thing) or "")
        return _never_again() if path.stat().st_mtime > STARTED else hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, TypeError):
        return _never_again()


def _is_known(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] in KNOWN


def _never_again() -> str:
    return uuid.uuid4().hex
