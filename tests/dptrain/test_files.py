"""Numbered files: none takes another's place, whoever writes at the same time."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dptrain.files import write_next


def test_numbers_go_on_from_the_largest_and_gaps_stay(tmp_path: Path):
    (tmp_path / "007.json").write_text("earlier")
    (tmp_path / "notes.json").write_text("no number")
    assert write_next(tmp_path, ".json", b"one").name == "008.json"
    assert write_next(tmp_path / "new", ".json", b"one").name == "001.json"
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_many_at_once_keep_every_file(tmp_path: Path):
    with ThreadPoolExecutor(16) as pool:
        paths = list(pool.map(lambda number: write_next(tmp_path, ".json", str(number).encode()), range(64)))
    assert len(set(paths)) == 64
    assert sorted(int(path.read_text()) for path in paths) == list(range(64))
    assert len(list(tmp_path.iterdir())) == 64
