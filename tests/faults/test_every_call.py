"""Killed before any call that writes, and in the middle of any write: what is read afterwards is the old version or the new
one, whole, and nothing is left over when the next one has been written."""

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from dptrain.checkpoint import read_folder, write_folder
from dptrain.files import write_file, write_next
from dptrain.ledger import Ledger
from dptrain.plan import PrivacyPlan
from tests.faults.sites import Kill, Sites

PLAN = PrivacyPlan(sampling_rate=0.5, expected_batch_size=200, steps=6, clipping_norm=0.5, delta=1e-5, noise_multiplier=1.0)


def in_a_child(folder: Path, work: Callable[[], object], kill: Kill | None = None) -> tuple[Counter[str], bool]:
    """The sites that a fork of this process passes, and whether it was killed. It computes nothing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        real = os.write
        try:
            Sites(folder, lambda site: real(write, f"{site}\n".encode()), kill).watch()
            work()
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(70)
    os.close(write)
    with open(read) as pipe:
        sites = Counter(pipe.read().splitlines())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -9)
    return sites, code == -9


def kills(sites: Counter[str]) -> list[Kill]:
    found = [Kill(site, number) for site, times in sites.items() for number in range(1, times + 1)]
    return found + [Kill(kill.site, kill.number, half=True) for kill in found if kill.site.startswith("write")]


@pytest.mark.parametrize("earlier", ["none", "one"])
def test_a_folder(tmp_path: Path, earlier: str):
    old, new = {"a": b"old" * 1000, "b": b"old"}, {"a": b"new" * 1000, "b": b"new", "c": b"new"}
    if earlier == "one":
        write_folder(tmp_path / "dry", old)
    sites, _ = in_a_child(tmp_path, lambda: write_folder(tmp_path / "dry", new))
    count = 0
    for kill in kills(sites):
        folder = tmp_path / f"{earlier}{count}" / "dry"
        if earlier == "one":
            write_folder(folder, old)
        _, killed = in_a_child(folder.parent, lambda folder=folder: write_folder(folder, new), kill)
        count += killed
        if earlier == "one":
            assert read_folder(folder) in (old, new), str(kill)
        elif folder.exists():
            assert read_folder(folder) == new, str(kill)
        write_folder(folder, {"a": b"third"})
        assert read_folder(folder) == {"a": b"third"}
        assert [path.name for path in folder.parent.iterdir()] == ["dry"], str(kill)
    assert count == len(kills(sites))


def test_a_file(tmp_path: Path):
    path = tmp_path / "report.html"
    sites, _ = in_a_child(tmp_path, lambda: write_file(path, b"dry"))
    for kill in kills(sites):
        write_file(path, b"old" * 1000)
        _, killed = in_a_child(tmp_path, lambda: write_file(path, b"new" * 1000), kill)
        assert killed
        assert path.read_bytes() in (b"old" * 1000, b"new" * 1000), str(kill)
        write_file(path, b"third")
        assert path.read_bytes() == b"third"
        assert [item.name for item in tmp_path.iterdir()] == ["report.html"], str(kill)


def test_a_numbered_file(tmp_path: Path):
    sites, _ = in_a_child(tmp_path, lambda: write_next(tmp_path / "dry", ".json", b"dry"))
    for number, kill in enumerate(kills(sites)):
        folder = tmp_path / str(number) / "dry"
        first = write_next(folder, ".json", b"first")
        in_a_child(folder.parent, lambda folder=folder: write_next(folder, ".json", b"second"), kill)
        write_next(folder, ".json", b"third")
        found = sorted(folder.iterdir())
        assert found[0] == first
        assert [path.read_bytes() for path in found] in ([b"first", b"third"], [b"first", b"second", b"third"]), str(kill)


def test_the_ledger(tmp_path: Path):
    """What a killed process was about to announce is announced or not; what comes after it is, and so is what came before."""
    sites, _ = in_a_child(tmp_path, lambda: Ledger(tmp_path / "dry" / "ledger.jsonl").reserve(PLAN, 0, 2))
    count = 0
    for number, kill in enumerate(kills(sites)):
        ledger = Ledger(tmp_path / str(number) / "dry" / "ledger.jsonl")
        ledger.reserve(PLAN, 0, 2)
        count += in_a_child(tmp_path / str(number), lambda ledger=ledger: ledger.reserve(PLAN, 2, 4), kill)[1]
        assert ledger.blocks()[0] == (PLAN, 0, 2), str(kill)
        ledger.reserve(PLAN, 4, 6)
        assert ledger.blocks() in ([(PLAN, 0, 2), (PLAN, 4, 6)], [(PLAN, 0, 2), (PLAN, 2, 4), (PLAN, 4, 6)]), str(kill)
    assert count >= 4  # to open it, to write it, in the middle of that, to flush it


def test_a_file_under_way_is_no_leftover(tmp_path: Path):
    """Another writer's half is removed only where that writer is dead."""
    from dptrain.files import whole_file

    with whole_file(tmp_path / "one") as slow:
        slow.write(b"slow")
        write_file(tmp_path / "one", b"quick")
        assert (tmp_path / "one").read_bytes() == b"quick"
    assert (tmp_path / "one").read_bytes() == b"slow"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
