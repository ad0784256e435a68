"""A table of texts on disk, and whose each is: ``.csv``, ``.tsv`` or ``.jsonl``, one text a row.

    texts = read(Path("posts.csv"), DataConfig(name="text", text_column="body", user_column="author"))
    texts.by_user[0]                     # all that the user of the first row wrote, a line each

A ``.csv`` or ``.tsv`` begins with a line of column names, and a text that holds the separator, a line break or a double quote
is put into double quotes; a line of a ``.jsonl`` is one object. Texts are taken as they stand. Users are told apart by their
name without the spaces around it, to the letter; a whole number in a ``.jsonl`` is the name that its digits are. A row without
a user is refused: to whom would the promise be?
"""

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dptrain.data.cells import require_column
from dptrain.errors import DataError
from dptrain.recipe import DataConfig

SEPARATORS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (*SEPARATORS, ".jsonl")


@dataclass(frozen=True)
class Texts:
    """What stands in a table of texts."""

    by_user: tuple[str, ...]
    """All that one user wrote, a line each, in order of the users' first rows; of unknown users all in one."""
    known: bool
    """Whether the table says whose each text is."""


def is_table(path: Path, config: DataConfig) -> bool:
    """Whether the file is a table of texts, by its ending.

    Raises:
        DataError: it is and no column is named, or it is not and one is.
    """
    table = path.suffix.lower() in ENDINGS
    if table and config.text_column is None:
        raise DataError(
            f"data.path is {path}, a table by its ending, and data.text_column is not given; name the column that holds the "
            "texts with --data.text-column, or give a plain text another ending, such as .txt"
        )
    for name in ("text_column", "user_column"):
        if not table and getattr(config, name) is not None:
            raise DataError(
                f"data.{name} is {getattr(config, name)!r} and {path} is no table by its ending; give a file that ends in "
                f"{', '.join(ENDINGS)}, or leave it out"
            )
    return table


def read(path: Path, config: DataConfig) -> Texts:
    """The texts of a table, each user's together; of all of them the first ``data.characters``.

    Raises:
        DataError: the file cannot be read, lacks a column, or a row lacks what it needs; it names the line.
    """
    text_column, user_column = config.text_column, config.user_column
    assert text_column is not None
    wanted = [text_column] if user_column is None else [text_column, user_column]
    with _as_data_errors(path):
        parts: dict[str, list[str]] = {}
        left = sys.maxsize if config.characters is None else config.characters
        for line, row in _rows(path, wanted):
            text, user = _text(row[text_column], text_column, path, line), ""
            if user_column is not None:
                user = _user(row[user_column], user_column, path, line)
            parts.setdefault(user, []).append(f"{text}\n"[:left])
            left -= len(parts[user][-1])
            if not left:
                break
    return Texts(tuple("".join(own) for own in parts.values()), user_column is not None)


def _text(cell: object, column: str, path: Path, line: int) -> str:
    if not isinstance(cell, str):
        raise DataError(f"{path}, line {line}: {column!r} holds {cell!r}, which is no text; mend the row")
    return cell


def _user(cell: object, column: str, path: Path, line: int) -> str:
    user = str(cell).strip() if isinstance(cell, (str, int)) and not isinstance(cell, bool) else ""
    if not user:
        raise DataError(
            f"{path}, line {line}: {column!r} holds {cell!r}, and whose the text is must be known; fill it, or remove such rows"
        )
    return user


def _rows(path: Path, wanted: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with the line on which it starts; that it has the wanted columns was checked."""
    if path.suffix.lower() == ".jsonl":
        yield from _objects(path, wanted)
        return
    with path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.reader(handle, delimiter=SEPARATORS[path.suffix.lower()], strict=True)
        names = next(reader, [])
        _require(wanted, names, path)
        start = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(names):
                raise DataError(
                    f"{path}, line {start}: {len(row)} cells, and the header has {len(names)}; mend the line (a text that "
                    "holds the separator is put into double quotes)"
                )
            if row:
                yield start, dict(zip(names, row, strict=True))
            start = reader.line_num + 1


def _objects(path: Path, wanted: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as handle:
        for line, content in enumerate(handle, 1):
            if not content.strip():
                continue
            row = json.loads(content)
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {line}: no object; write each row as one, such as {{{wanted[0]!r}: ...}}")
            _require(wanted, list(row), path, f", line {line},")
            yield line, row


def _require(wanted: list[str], names: list[str], path: Path, where: str = "") -> None:
    fields = ("data.text_column", "data.user_column")
    for name, field in zip(wanted, fields, strict=False):
        require_column(name, names, field, Path(f"{path}{where}"))
    if len(set(wanted)) != len(wanted):
        raise DataError(f"data.text_column and data.user_column are both {wanted[0]!r}; name two columns")
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise DataError(f"{path} has several columns named {twice[0]!r}; rename all but one")


@contextmanager
def _as_data_errors(path: Path) -> Iterator[None]:
    """Texts of any length are read, and whatever cannot be read is said in one sentence."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; name a text file with --data.path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}); write it again as UTF-8") from None
    except (csv.Error, json.JSONDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as a table of texts ({error}); write it again") from None
    finally:
        csv.field_size_limit(before)
