"""The cells of a table on disk, CSV or Parquet, as texts: a header, then one example a row.

    names = column_names(path)
    lines, cells = read(path, names, ["age", "sex"])        # cells["age"][i] stands on line lines[i]

Both kinds of file become texts, so that one set of rules reads the cells: without the spaces around them, None where empty
(null in Parquet). Lines are counted from 1, the header being line 1; empty lines are skipped.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dptrain.errors import DataError, nearest

Cells = list[str | None]
"""A column's cells as texts; None is a missing one."""


def column_names(path: Path) -> list[str]:
    """The column names of the file, in its order."""
    if path.suffix.lower() == ".parquet":
        with _parquet(path) as file:
            names = list(file.schema_arrow.names)
    else:
        names = next((row for _, row in _csv_rows(path)), [])
    if not any(names):
        raise DataError(f"{path} is empty and cannot be read as a table, which starts with a line of column names")
    for separator in ";\t":
        if len(names) == 1 and separator in names[0]:
            raise DataError(f"{path} is separated by {separator!r}; write it again with commas between the cells")
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise DataError(f"{path} has several columns named {twice[0]!r}; rename all but one")
    return names


def read_columns(path: Path, wanted: list[str], who: str) -> tuple[list[int], dict[str, Cells]]:
    """The line of each row of a table, and the wanted columns; ``who`` wants them.

    Raises:
        DataError: the file cannot be read, or lacks a column.
    """
    names = column_names(path)
    for name in wanted:
        require_column(name, names, who, path)
    return read(path, names, wanted)


def read(path: Path, names: list[str], wanted: list[str]) -> tuple[list[int], dict[str, Cells]]:
    """The line of each row, and the wanted columns."""
    if path.suffix.lower() == ".parquet":
        with _parquet(path) as file:
            table = file.read(columns=wanted)
            cells = {name: [_text(cell) for cell in table.column(name).to_pylist()] for name in wanted}
        return list(range(2, table.num_rows + 2)), cells
    places = {name: names.index(name) for name in wanted}
    lines: list[int] = []
    columns: dict[str, Cells] = {name: [] for name in wanted}
    rows = _csv_rows(path)
    next(rows)
    for line, row in rows:
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {line}: {len(row)} cells, and the header has {len(names)}; mend the line (a cell that holds a "
                "comma is put into double quotes)"
            )
        lines.append(line)
        for name, place in places.items():
            columns[name].append(_text(row[place]))
    return lines, columns


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, with the line on which it starts."""
    start = 1
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.reader(handle, strict=True)
            for row in reader:
                if row:
                    yield start, row
                start = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); write it again as UTF-8") from None
    except (csv.Error, OSError) as error:
        raise DataError(f"{path} cannot be read as CSV: line {start}: {error}; mend the line") from None


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(f"{path} is a Parquet file, which needs pyarrow; type pip install 'dptrain[parquet]'") from None
    try:
        with ParquetFile(path) as file:
            yield file
    except Exception as error:  # a damaged file raises nearly anything: pyarrow's own errors, OSError, NotImplementedError
        raise DataError(f"{path} cannot be read as PARQUET ({' '.join(str(error).split())}); write it again") from None


def _text(cell: Any) -> str | None:
    """A cell as trimmed text; a whole float from Parquet reads like the integer that it is."""
    if cell is None:
        return None
    return (str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()) or None


def require_column(name: str, names: list[str], field: str, path: Path) -> None:
    if name not in names:
        guess = nearest(name, names)
        hint = f"did you mean {guess!r}? " if guess else ""
        raise DataError(f"{field} names {name!r}, which {path} does not have; {hint}its columns are {', '.join(names)}")
