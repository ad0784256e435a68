"""Your own table: CSV or Parquet, one example a row.

    dptrain run my.toml --data.path patients.csv --data.target outcome --data.classes no yes \\
        --data.columns 'age:number[0,120]' 'sex:category[F,M]' 'weight:number[30,200]?'

Nothing is learned from the private rows: which classes and categories there are, and between which bounds numbers lie, is
what you know without looking, and you state it. (A mean, a standard deviation or a list of categories that is computed
from private data is not free.) A column is written as

    NAME:number[LOW,HIGH]         scaled so that LOW is −0.5 and HIGH is 0.5; a number outside is refused
    NAME:number[LOW,HIGH]^        the same, but a number outside is moved to the nearest bound
    NAME:category[A,B,C]          one input a category, 0 or 1; a category that is not listed is refused
    NAME:category[A,B,*]          the same, and every other category counts as *
    …?                            cells may be empty: one more input says so, and the others are 0 (mid-range for a number)

What is predicted is a category, whose values ``data.classes`` lists, or a number, stated like a column that has no empty cells:
``--data.target 'dose:number[0,150]' --data.unit 'mg a week' --training.loss squared_error``.

The name is the header's, to the letter, spaces and brackets included. A category that holds a comma is put into double
quotes: ``town:category["Bath, UK",York]``. Columns of the file that are not named are not used. Cells are what
:mod:`~dptrain.data.cells` reads: ``NA``, ``None`` and ``0`` are what they say, and only an empty cell is missing.
"""

import csv
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from dptrain.data.cells import Cells, column_names, read, require_column
from dptrain.data.dataset import DataSet
from dptrain.data.values import Values
from dptrain.errors import DataError
from dptrain.recipe import DataConfig

SPEC = re.compile(r"(?P<name>.+):(?P<kind>number|category)\[(?P<inside>.*)\](?P<marks>\^?\??|\?\^)", re.DOTALL)
EXAMPLES = "'age:number[0,120]' or 'sex:category[F,M]'"
NOT_FREE = "known without looking at the data (what is computed from private data is not free)"


@dataclass(frozen=True)
class Column:
    """What is publicly known of one column."""

    name: str
    kind: Literal["number", "category"]
    bounds: tuple[float, float] = (0.0, 1.0)
    categories: tuple[str, ...] = ()
    may_be_missing: bool = False
    clip: bool = False


def parse_column(text: str) -> Column:
    """A column from its text.

    Raises:
        DataError: it is not of the form that the module's text shows.
    """
    found = SPEC.fullmatch(text)
    if found is None:
        raise DataError(
            f"data.columns has {text!r}; write {EXAMPLES}, with ? at the end where cells may be empty, and ^ where numbers "
            "outside the bounds are to be moved to them"
        )
    name, marks = found["name"], found["marks"]
    missing, clip = "?" in marks, "^" in marks
    parts = [part.strip() for part in next(csv.reader([found["inside"]], skipinitialspace=True), [])]
    if found["kind"] == "category":
        if clip or not parts or len(set(parts)) != len(parts) or "" in parts:
            raise DataError(f"data.columns has {text!r}; list different categories, such as '{name}:category[F,M]'")
        return Column(name, "category", categories=tuple(parts), may_be_missing=missing)
    numbers = [_number(part) for part in parts]
    if len(numbers) != 2 or not numbers[0] < numbers[1] or not np.isfinite(numbers[1] - numbers[0]):
        raise DataError(
            f"data.columns has {text!r}: a number needs two public bounds, the lower first, {NOT_FREE}; write "
            f"'{name}:number[0,120]'"
        )
    return Column(name, "number", bounds=(numbers[0], numbers[1]), may_be_missing=missing, clip=clip)


def load(config: DataConfig) -> DataSet:
    """The table at ``config.path`` as inputs ``[examples, features]``, with what the recipe states of it.

    Raises:
        DataError: the file cannot be read, or a cell is not what was stated; it names the line.
    """
    path = _path(config)
    names = column_names(path)
    target, columns = _stated(config, names, path)
    lines, cells = read(path, names, [target.name, *(column.name for column in columns)])
    if not lines:
        raise DataError(f"{path} is empty: it has a header and no rows, and training needs at least 1")
    value, targets = None, torch.empty(0)
    if target.kind == "number":
        value = Values(target.name, config.unit, target.bounds, config.scale)
        found = _complete(target, cells[target.name], lines, path)
        targets = torch.from_numpy(value.encode(found)).float()
    else:
        targets = torch.from_numpy(_targets(target.name, cells[target.name], lines, config.classes, path))
    features, inputs, bounds = encode(columns, cells, lines, path)
    return DataSet(
        name=path.name,
        inputs=torch.from_numpy(inputs).float(),
        targets=targets,
        classes=config.classes,
        bounds=bounds,
        kind="table",
        features=features,
        columns=config.columns,
        value=value,
        source=f"{path.name}, given by the user",
    )


def _bounds(columns: list[Column]) -> tuple[float, float]:
    """Between which values every input lies, by what was stated alone."""
    numbers = any(column.kind == "number" for column in columns)
    indicators = any(column.kind == "category" or column.may_be_missing for column in columns)
    return -0.5 if numbers else 0.0, 1.0 if indicators else 0.5


def _stated(config: DataConfig, names: list[str], path: Path) -> tuple[Column, list[Column]]:
    """The target and the columns that the recipe states, checked against the header."""
    target = _target(config, names, path)
    if not config.columns:
        others = " ".join(shlex.quote(f"{name}:number[LOW,HIGH]") for name in names if name and name != config.target)
        raise DataError(
            f"data.columns is not given; state each column's bounds or categories, {NOT_FREE}, as {EXAMPLES}; for {path} "
            f"type --data.columns {others}, and leave out what should not be used"
        )
    columns = [parse_column(text) for text in config.columns]
    for column in columns:
        require_column(column.name, names, "data.columns", path)
        if column.name == target.name:
            raise DataError(f"data.columns holds the target {target.name!r}; leave it out, or the model would be told")
    if len({column.name for column in columns}) != len(columns):
        raise DataError("data.columns names a column twice; name each once")
    return target, columns


def _target(config: DataConfig, names: list[str], path: Path) -> Column:
    """What is to be predicted: a category, of which the recipe lists the classes, or a number."""
    if config.target is None:
        raise DataError(f"data.target is not given; name the column to predict with --data.target, one of {', '.join(names)}")
    if config.target not in names and SPEC.fullmatch(config.target):
        target = parse_column(config.target)
        if target.kind == "category" or target.may_be_missing:
            raise DataError(
                f"data.target is {config.target!r}; write a number that each row has as '{target.name}:number[LOW,HIGH]', "
                "and of a category the name alone, with its values in --data.classes"
            )
        if config.classes:
            raise DataError(f"data.target is a number, and data.classes is {config.classes}; give one of the two")
        require_column(target.name, names, "data.target", path)
        return target
    require_column(config.target, names, "data.target", path)
    if config.unit or config.scale != "linear":
        raise DataError(f"data.unit and data.scale are of a number; write --data.target '{config.target}:number[LOW,HIGH]'")
    if len(config.classes) < 2 or len(set(config.classes)) != len(config.classes):
        raise DataError(
            f"data.classes is {config.classes}; list the two or more values that {config.target!r} can take, {NOT_FREE}, such "
            f"as --data.classes no yes; or write --data.target '{config.target}:number[LOW,HIGH]' for a number"
        )
    return Column(config.target, "category", categories=config.classes)


def _path(config: DataConfig) -> Path:
    if config.path is None:
        raise DataError("data.path is not given; name a .csv or .parquet file with --data.path")
    path = Path(config.path)
    if not path.exists():
        raise DataError(f"there is no file {path}; name a .csv or .parquet file with --data.path")
    if path.is_dir() or path.suffix.lower() not in (".csv", ".parquet"):
        what = "a folder" if path.is_dir() else f"a file that ends in {path.suffix or 'nothing'}"
        raise DataError(f"data.path is {path}, {what}; a table is a .csv or .parquet file")
    return path


def _number(text: str | None) -> float:
    """NaN where the text is no number. (Python would also read 1_000, which nobody writes into a table.)"""
    try:
        return float("nan" if text is None or "_" in text else text)
    except ValueError:
        return float("nan")


# Encoding: a column of texts becomes one or several inputs.


def _place(path: Path, lines: list[int], bad: np.ndarray) -> tuple[int, str]:
    """The index of the first bad row, and how to say where it is."""
    first = int(np.flatnonzero(bad)[0])
    others = int(bad.sum()) - 1
    more = f" (and {others} more rows)" if others > 1 else " (and 1 more row)" if others else ""
    return first, f"{path}, line {lines[first]}{more}"


def _complete(target: Column, cells: Cells, lines: list[int], path: Path) -> Float[np.ndarray, " examples"]:
    """The numbers to predict, between their bounds."""
    empty = np.array([cell is None for cell in cells])
    if empty.any():
        _, place = _place(path, lines, empty)
        raise DataError(f"{place}: the target {target.name!r} is empty; remove such rows")
    return np.clip(numbers_of(target, cells, lines, path), *target.bounds)


def _targets(name: str, cells: Cells, lines: list[int], classes: tuple[str, ...], path: Path) -> np.ndarray:
    number_of = {value: number for number, value in enumerate(classes)}
    bad = np.array([cell not in number_of for cell in cells])
    if bad.any():
        first, place = _place(path, lines, bad)
        what = "is empty" if cells[first] is None else f"holds {cells[first]!r}"
        raise DataError(
            f"{place}: the target {name!r} {what}; accepted: {', '.join(classes)}; remove such rows, or add the value to "
            "--data.classes"
        )
    return np.array([number_of[str(cell)] for cell in cells], dtype=np.int64)


def encode(
    columns: list[Column], cells: dict[str, Cells], lines: list[int], path: Path
) -> tuple[tuple[str, ...], Float[np.ndarray, "examples inputs"], tuple[float, float]]:
    """The name of each input, the inputs, and between which values every input lies by what was stated alone.

    Raises:
        DataError: a cell is not what was stated; it names the line.
    """
    encoded = [_encode(column, cells[column.name], lines, path) for column in columns]
    features = tuple(label for labels, _ in encoded for label in labels)
    return features, np.hstack([block for _, block in encoded]), _bounds(columns)


def _encode(column: Column, cells: Cells, lines: list[int], path: Path) -> tuple[list[str], np.ndarray]:
    """A column as named inputs ``[examples, inputs]``."""
    missing = np.array([cell is None for cell in cells])
    if missing.any() and not column.may_be_missing:
        _, place = _place(path, lines, missing)
        raise DataError(
            f"{place}: {column.name!r} is empty; fill the cells, or allow empty ones with ? at the end of the column's text"
        )
    encode = _numbers if column.kind == "number" else _categories
    labels, block = encode(column, cells, missing, lines, path)
    if column.may_be_missing:
        labels, block = [*labels, f"{column.name} is missing"], np.column_stack([block, missing])
    return labels, block.astype(np.float64)


def _numbers(column: Column, cells: Cells, missing: np.ndarray, lines: list[int], path: Path) -> tuple[list[str], np.ndarray]:
    low, high = column.bounds
    values = numbers_of(column, cells, lines, path)
    scaled = np.clip((np.clip(values, low, high) - low) / (high - low) - 0.5, -0.5, 0.5)
    return [column.name], np.where(missing, 0.0, scaled)[:, None]


def numbers_of(column: Column, cells: Cells, lines: list[int], path: Path) -> Float[np.ndarray, " examples"]:
    """The numbers of a column, as they stand there; NaN where a cell is missing.

    Raises:
        DataError: a cell is no finite number, or lies outside the bounds of a column that does not clip.
    """
    low, high = column.bounds
    missing = np.array([cell is None for cell in cells])
    values = np.array([_number(cell) for cell in cells])
    unreadable = ~missing & ~np.isfinite(values)
    if unreadable.any():
        first, place = _place(path, lines, unreadable)
        raise DataError(
            f"{place}: {column.name!r} holds {cells[first]!r}, which is no finite number; mend the cells, or "
            "leave the column out, as one of names or numbers of people should be"
        )
    outside = ~missing & ((values < low) | (values > high))
    if outside.any() and not column.clip:
        first, place = _place(path, lines, outside)
        raise DataError(
            f"{place}: {column.name!r} holds {cells[first]} and lies outside its public bounds [{low:.15g}, {high:.15g}] in "
            f"{int(outside.sum())} rows; state wider bounds, or move such numbers to the bounds with "
            f"'{column.name}:number[{low:.15g},{high:.15g}]^'"
        )
    return values


def _categories(
    column: Column, cells: Cells, missing: np.ndarray, lines: list[int], path: Path
) -> tuple[list[str], np.ndarray]:
    number_of = {name: number for number, name in enumerate(column.categories)}
    other = number_of.get("*", -1)
    numbers = np.array([number_of.get(str(cell), other) for cell in cells])
    unknown = ~missing & (numbers < 0)
    if unknown.any():
        first, place = _place(path, lines, unknown)
        cell = str(cells[first])
        quoted = f' (in double quotes, as it holds a comma: "{cell}")' if "," in cell else ""
        accepted = ", ".join(f'"{name}"' if "," in name else name for name in column.categories)
        raise DataError(
            f"{place}: {column.name!r} holds {cell!r}, which is none of {accepted}; add it to the list{quoted}, or add * for "
            "any other"
        )
    block = np.zeros((len(cells), len(column.categories)))
    present = np.flatnonzero(~missing)
    block[present, numbers[present]] = 1.0
    return [f"{column.name} is {name}" for name in column.categories], block


# Decoding: what a person would read in the row that a model was given.


def decode(columns: Sequence[str], inputs: Float[np.ndarray, "examples inputs"]) -> dict[str, list[str]]:
    """Each column's cells as texts, by its name: a number to six digits, as it was clipped; empty where it was missing.

    Args:
        columns: as they were stated, such as :attr:`DataSet.columns`.
    """
    cells: dict[str, list[str]] = {}
    at = 0
    for column in map(parse_column, columns):
        width = 1 if column.kind == "number" else len(column.categories)
        block, at = inputs[:, at : at + width], at + width
        if column.kind == "number":
            low, high = column.bounds
            texts = [f"{low + (float(value) + 0.5) * (high - low):.6g}" for value in block[:, 0]]
        else:
            texts = [column.categories[number] for number in block.argmax(1)]
        if column.may_be_missing:
            texts = ["" if missing > 0.5 else text for text, missing in zip(texts, inputs[:, at], strict=True)]
            at += 1
        cells[column.name] = texts
    return cells
