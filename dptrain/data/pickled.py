"""A pandas table out of its pickle, without unpickling: nothing of the file is ever run, and pandas is not needed.

    columns = read_table(Path("iwpc.pkl"))      # {"Age": ["60 - 69", None, ...], ...}

A pickle is a program for a small stack machine, and ``pickle.load`` calls whatever that program names. This reads the
instructions (``pickletools.genops``) and carries out those alone that put plain data together. Where the program names a
class or a function, a :class:`Made` is put in place of its result: a note of the name, the arguments and the state. A name
that is not in ``NAMES``, an instruction that is not known here, or more instructions than ``MOST`` is refused.

Layout of a table's pickle: pandas 1 and 2, ``BlockManager.__setstate__`` (format "0.14.1"); of an array's, numpy's
``ndarray.__setstate__``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickletools import genops
from typing import Any

import numpy as np

from dptrain.errors import DataError

NAMES = {
    "pandas.core.frame.DataFrame",
    "pandas.core.internals.managers.BlockManager",
    "pandas.core.indexes.base._new_Index",
    "pandas.core.indexes.base.Index",
    "pandas.core.indexes.range.RangeIndex",
    "numpy.core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "builtins.slice",
}
"""What a table's pickle may name."""
DTYPES = ("f8", "i8", "O8")
MOST = 10_000_000

Cell = str | int | float | None


@dataclass(eq=False)
class Name:
    """A class or function that the pickle names."""

    name: str


@dataclass(eq=False)
class Made:
    """What the pickle would have had made: by what, from which arguments, with which state."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


_MARK = object()


def read_table(path: Path) -> dict[str, list[Cell]]:
    """Every column of the table, in its order; None where a cell is empty.

    Raises:
        DataError: the file is no pickled table of the kind that is known here.
    """
    try:
        return _columns(_plain(path.read_bytes()))
    except DataError as error:
        raise DataError(f"{path} cannot be read as a pickled table: {error}") from None
    except Exception as error:  # a damaged or hostile file makes nearly any step of reading fail
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read as a pickled table: {type(error).__name__}: {reason}") from None


def _plain(program: bytes) -> Any:
    """What the program puts on its stack at the end, with a :class:`Made` for all that is no plain data."""
    stack: list[Any] = []
    memo: list[Any] = []
    argument: Any
    for count, (instruction, argument, _) in enumerate(genops(program)):
        name = instruction.name
        if count >= MOST:
            raise DataError(f"it has more than {MOST:,} instructions")
        if name == "STOP":
            return stack.pop()
        if name == "MEMOIZE":
            memo.append(stack[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _CONSTANTS:
            constant = _CONSTANTS[name]
            stack.append(argument if constant is None else constant())
        elif name in _STEPS:
            _STEPS[name](stack)
        elif name not in ("PROTO", "FRAME"):
            raise DataError(f"the instruction {name} is none of those that put plain data together")
    raise DataError("it ends before its end")


def _marked(stack: list[Any]) -> list[Any]:
    """The values above the last mark, taken off with it."""
    at = len(stack) - 1
    while stack[at] is not _MARK:
        at -= 1
        if at < 0:
            raise DataError("a mark is missing")
    values = stack[at + 1 :]
    del stack[at:]
    return values


def _named(stack: list[Any]) -> None:
    name, module = stack.pop(), stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise DataError("it names by something that is no text")
    full = f"{module}.{name}"
    if full not in NAMES:
        raise DataError(f"it names {full}, which no table needs")
    stack.append(Name(full))


def _made(stack: list[Any]) -> None:
    arguments, maker = stack.pop(), stack.pop()
    if not isinstance(maker, Name) or not isinstance(arguments, tuple):
        raise DataError("it calls what it did not name")
    stack.append(Made(maker.name, arguments))


def _built(stack: list[Any]) -> None:
    state = stack.pop()
    if not isinstance(stack[-1], Made):
        raise DataError("it gives a state to plain data")
    stack[-1].state = state


def _tuple_of(count: int) -> Callable[[list[Any]], None]:
    def step(stack: list[Any]) -> None:
        stack[-count:] = [tuple(stack[-count:])]

    return step


def _append(stack: list[Any]) -> None:
    value = stack.pop()
    stack[-1].append(value)


def _set_item(stack: list[Any]) -> None:
    value, key = stack.pop(), stack.pop()
    stack[-1][_key(key)] = value


def _extend(stack: list[Any]) -> None:
    values = _marked(stack)
    stack[-1].extend(values)


def _set_items(stack: list[Any]) -> None:
    values = _marked(stack)
    stack[-1].update(zip(map(_key, values[::2]), values[1::2], strict=True))


def _key(value: Any) -> str:
    """A key of plain data. Tuples that hold each other twice, many deep, would take for ever to hash, or to print."""
    if not isinstance(value, str):
        raise DataError("it has a key that is no text")
    return value


_CONSTANTS: dict[str, Callable[[], Any] | None] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINBYTES"), None),
    "SHORT_BINBYTES": None,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
"""Instructions that put one value on the stack; None for their own argument."""
_STEPS: dict[str, Callable[[list[Any]], None]] = {
    "TUPLE": lambda stack: stack.append(tuple(_marked(stack))),
    **{f"TUPLE{count}": _tuple_of(count) for count in (1, 2, 3)},
    "APPEND": _append,
    "APPENDS": _extend,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "STACK_GLOBAL": _named,
    "NEWOBJ": _made,
    "REDUCE": _made,
    "BUILD": _built,
}


# From the notes to a table.


def _expect(value: Any, name: str) -> Made:
    if not isinstance(value, Made) or value.name != name:
        raise DataError(f"there should be a {name}, and there is {getattr(value, 'name', type(value).__name__)}")
    return value


def _columns(frame: Any) -> dict[str, list[Cell]]:
    state = _expect(frame, "pandas.core.frame.DataFrame").state
    manager = _expect(state.get("_mgr", state.get("_data")), "pandas.core.internals.managers.BlockManager")
    layout = manager.state[3]["0.14.1"]
    index = _expect(layout["axes"][0], "pandas.core.indexes.base._new_Index")
    names = [_key(name) for name in _array(index.arguments[1]["data"])]
    columns: dict[str, list[Cell]] = {name: [] for name in names}
    filled: set[int] = set()
    for block in layout["blocks"]:
        for place, row in zip(_places(block["mgr_locs"]), _array(block["values"]), strict=True):
            columns[names[place]] = [_cell(value) for value in row.tolist()]
            filled.add(place)
    if filled != set(range(len(names))) or len(columns) != len(names):
        raise DataError(f"{len(names)} columns are named and {len(filled)} are filled")
    return columns


def _places(locations: Made) -> list[int]:
    """Which columns a block holds."""
    if locations.name == "builtins.slice":
        return list(range(*locations.arguments))
    return [int(place) for place in _array(locations)]


def _array(made: Any) -> np.ndarray:
    _, shape, dtype, by_columns, content = _expect(made, "numpy.core.multiarray._reconstruct").state
    kind = _expect(dtype, "numpy.dtype").arguments[0]
    if not isinstance(kind, str) or kind not in DTYPES or dtype.state[1] not in ("<", "|"):
        raise DataError(f"an array holds {kind!r}; accepted: {', '.join(DTYPES)}, little end first")
    if kind == "O8":
        flat = np.empty(len(content), dtype=object)
        flat[:] = content
    else:
        flat = np.frombuffer(content, dtype=f"<{kind}")
    return flat.reshape(shape, order="F" if by_columns else "C")


def _cell(value: Any) -> Cell:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str | int | float):
        raise DataError(f"a cell holds a {type(value).__name__}; cells are texts and numbers")
    return value
