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
    …?                            cells may be empty: one more input says so, and the others are 0

Columns of the file that are not named are not used. Lines are counted from 1, the header being line 1.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dptrain.data.dataset import DataSet
from dptrain.errors import DataError, nearest
from dptrain.recipe import DataConfig

SPEC = re.compile(r"^(?P<name>.+):(?P<kind>number|category)\[(?P<inside>.*)\](?P<marks>[?^]{0,2})$")
EXAMPLES = "'age:number[0,120]' or 'sex:category[F,M]'"


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
    found = SPEC.match(text)
    if found is None:
        raise DataError(f"data.columns has {text!r}; write {EXAMPLES}, with ? at the end where cells may be empty")
    name, kind, marks = found["name"], found["kind"], found["marks"]
    parts = [part.strip() for part in found["inside"].split(",")]
    missing, clip = "?" in marks, "^" in marks
    if kind == "category":
        if clip or len(set(parts)) != len(parts) or "" in parts:
            raise DataError(f"data.columns has {text!r}; list different categories, such as '{name}:category[F,M]'")
        return Column(name, "category", categories=tuple(parts), may_be_missing=missing)
    try:
        low, high = (float(part) for part in parts)
        sound = np.isfinite([low, high]).all() and low < high
    except ValueError:
        low = high = 0.0
        sound = False
    if not sound:
        raise DataError(
            f"data.columns has {text!r}: a number needs two public bounds, lower first, known without looking at the data "
            f"(a minimum computed from private data is not free); write '{name}:number[0,120]'"
        )
    return Column(name, "number", bounds=(low, high), may_be_missing=missing, clip=clip)


def load(config: DataConfig) -> DataSet:
    """The table at ``config.path`` as inputs ``[examples, features]``, with what the recipe states of it.

    Raises:
        DataError: the file cannot be read, or a cell is not what was stated; it names the line.
    """
    path = _path(config)
    frame = _read(path)
    names = [str(name) for name in frame.columns]
    if config.target is None:
        raise DataError(f"data.target is not given; name the column to predict with --data.target, one of {', '.join(names)}")
    _require_column(config.target, names, "data.target", path)
    if not config.columns:
        others = ", ".join(f"'{name}:number[LOW,HIGH]'" for name in names if name != config.target)
        raise DataError(
            f"data.columns is not given: bounds and categories that are computed from private data are not free, so state "
            f"them, as {EXAMPLES}; the columns of {path} are {others}"
        )
    columns = [parse_column(text) for text in config.columns]
    if len({column.name for column in columns}) != len(columns):
        raise DataError("data.columns names a column twice; name each once")
    for column in columns:
        _require_column(column.name, names, "data.columns", path)
        if column.name == config.target:
            raise DataError(f"data.columns holds the target {config.target!r}; leave it out, or the model would be told")
    if not len(frame):
        raise DataError(f"{path} is empty: it has a header and no rows, and training needs at least 1")
    targets = _targets(frame[config.target], config, path)
    features: list[str] = []
    blocks: list[np.ndarray] = []
    for column in columns:
        labels, block = _encode(column, frame[column.name], path)
        features += labels
        blocks.append(block)
    return DataSet(
        name=path.name,
        inputs=torch.from_numpy(np.hstack(blocks)).float(),
        targets=torch.from_numpy(targets),
        classes=config.classes,
        bounds=(-0.5, 1.0),
        kind="table",
        features=tuple(features),
        source=f"{path.name}, given by the user",
    )


def _path(config: DataConfig) -> Path:
    if config.path is None:
        raise DataError("data.path is not given; name a .csv or .parquet file with --data.path")
    path = Path(config.path)
    if not path.exists():
        raise DataError(f"there is no file {path}; name a .csv or .parquet file with --data.path")
    if path.is_dir() or path.suffix.lower() not in (".csv", ".parquet"):
        what = "a folder" if path.is_dir() else f"a {path.suffix or 'nameless'} file"
        raise DataError(f"data.path is {path}, {what}; a table is a .csv or .parquet file")
    return path


def _read(path: Path) -> Any:
    """The file as a frame of texts (CSV) or typed values (Parquet); an empty text is a missing cell, and nothing else is."""
    import pandas

    try:
        if path.suffix.lower() == ".parquet":
            frame = pandas.read_parquet(path)
        else:
            # header=None: pandas would rename a second column of one name, and silently.
            frame = pandas.read_csv(path, dtype=str, keep_default_na=False, na_values=[""], header=None, skip_blank_lines=False)
            header = [str(name) for name in frame.iloc[0]]
            frame = frame.iloc[1:].reset_index(drop=True)
            frame.columns = header
    except ImportError:
        raise DataError(f"{path} is a Parquet file, which needs pyarrow; type pip install 'dptrain[parquet]'") from None
    except (ValueError, OSError, IndexError, pandas.errors.ParserError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read as {path.suffix[1:].upper()} ({reason}); write it again as UTF-8") from None
    except Exception as error:  # pyarrow raises errors of its own, which are not importable where it is missing
        raise DataError(f"{path} cannot be read as {path.suffix[1:].upper()} ({error}); write it again") from None
    names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has several columns named {twice[0]!r}; rename all but one")
    frame.columns = names
    return frame


def _require_column(name: str, names: list[str], field: str, path: Path) -> None:
    if name not in names:
        guess = nearest(name, names)
        hint = f"did you mean {guess!r}? " if guess else ""
        raise DataError(f"{field} names {name!r}, which {path} does not have; {hint}its columns are {', '.join(names)}")


def _line(bad: np.ndarray) -> int:
    """The line of the first bad row: the header is line 1."""
    return int(np.flatnonzero(bad)[0]) + 2


def _texts(cells: Any) -> np.ndarray:
    """Cells as text, trimmed; a whole float from Parquet reads like the integer that it is."""

    def text(cell: Any) -> str:
        return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()

    return np.array([text(cell) for cell in cells], dtype=object)


def _targets(cells: Any, config: DataConfig, path: Path) -> np.ndarray:
    if len(config.classes) < 2 or len(set(config.classes)) != len(config.classes):
        raise DataError(
            f"data.classes is {config.classes}; list the values that {config.target!r} can take, known without looking at "
            "the data, such as --data.classes no yes"
        )
    number_of = {name: number for number, name in enumerate(config.classes)}
    missing = cells.isna().to_numpy()
    texts = _texts(cells)
    bad = missing | np.array([text not in number_of for text in texts])
    if bad.any():
        line = _line(bad)
        what = "is empty" if missing[line - 2] else f"holds {texts[line - 2]!r}"
        raise DataError(
            f"{path}, line {line}: the target {config.target!r} {what} (and {int(bad.sum()) - 1} more rows); accepted: "
            f"{', '.join(config.classes)}; remove such rows or add the class to data.classes"
        )
    return np.array([number_of[text] for text in texts], dtype=np.int64)


def _encode(column: Column, cells: Any, path: Path) -> tuple[list[str], np.ndarray]:
    """A column as named inputs ``[examples, inputs]``."""
    missing = cells.isna().to_numpy()
    if missing.any() and not column.may_be_missing:
        raise DataError(
            f"{path}, line {_line(missing)}: {column.name!r} is empty (in {int(missing.sum())} rows); fill the cells, or "
            "allow it with ? at the end of the column's text"
        )
    labels, block = (
        _numbers(column, cells, missing, path) if column.kind == "number" else _categories(column, cells, missing, path)
    )
    if column.may_be_missing:
        labels, block = [*labels, f"{column.name} is missing"], np.column_stack([block, missing])
    return labels, block.astype(np.float64)


def _numbers(column: Column, cells: Any, missing: np.ndarray, path: Path) -> tuple[list[str], np.ndarray]:
    import pandas

    low, high = column.bounds
    read: Any = pandas.to_numeric(cells, errors="coerce")
    values = np.asarray(read, dtype=float)
    unreadable = ~missing & ~np.isfinite(values)
    if unreadable.any():
        line = _line(unreadable)
        raise DataError(
            f"{path}, line {line}: {column.name!r} holds {cells.iloc[line - 2]!r}, which is no finite number (and "
            f"{int(unreadable.sum()) - 1} more rows); mend the cells"
        )
    outside = ~missing & ((values < low) | (values > high))
    if outside.any() and not column.clip:
        raise DataError(
            f"{path}, line {_line(outside)}: {column.name!r} lies outside its public bounds [{low:g}, {high:g}] in "
            f"{int(outside.sum())} rows; state wider bounds, or write ^ behind the bracket to move such numbers to the bound"
        )
    scaled = (np.clip(values, low, high) - low) / (high - low) - 0.5
    return [column.name], np.where(missing, 0.0, scaled)[:, None]


def _categories(column: Column, cells: Any, missing: np.ndarray, path: Path) -> tuple[list[str], np.ndarray]:
    texts = _texts(cells)
    number_of = {name: number for number, name in enumerate(column.categories)}
    other = number_of.get("*")
    unknown = ~missing & np.array([text not in number_of for text in texts])
    if unknown.any() and other is None:
        line = _line(unknown)
        raise DataError(
            f"{path}, line {line}: {column.name!r} holds {texts[line - 2]!r}, which is none of "
            f"{', '.join(column.categories)} (and {int(unknown.sum()) - 1} more rows); add it, or * for any other"
        )
    block = np.zeros((len(texts), len(column.categories)))
    for row, text in enumerate(texts):
        place = number_of.get(text, other)
        if not missing[row] and place is not None:
            block[row, place] = 1.0
    return [f"{column.name} is {name}" for name in column.categories], block
