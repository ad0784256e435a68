"""The ledger never says less than was spent."""

from pathlib import Path

import pytest

from dptrain.errors import CheckpointError
from dptrain.ledger import Ledger
from dptrain.plan import PrivacyPlan

PLAN = PrivacyPlan(sampling_rate=0.5, expected_batch_size=200, steps=6, clipping_norm=0.5, delta=1e-5, noise_multiplier=1.0)


def test_blocks_come_back_as_they_were_reserved(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.jsonl", data="abc")
    block = ledger.reserve(PLAN, 0, 4)
    ledger.settle(block, 2)
    ledger.reserve(PLAN, 2, 6)
    assert ledger.blocks() == [(PLAN, 0, 2), (PLAN, 2, 6)]
    assert {entry["data"] for entry in ledger.entries()} == {"abc"}


def test_a_crash_leaves_the_whole_block_charged(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.reserve(PLAN, 0, 6)  # and the process dies: nothing is settled
    ledger.reserve(PLAN, 0, 6)
    assert ledger.blocks() == [(PLAN, 0, 6), (PLAN, 0, 6)]


def test_a_torn_last_line_announces_steps_that_never_began(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.reserve(PLAN, 0, 4)
    with open(ledger.path, "a") as handle:
        handle.write('{"kind": "reserve", "fir')
    assert ledger.blocks() == [(PLAN, 0, 4)]
    ledger.reserve(PLAN, 4, 6)
    assert ledger.blocks() == [(PLAN, 0, 4), (PLAN, 4, 6)]


def test_an_edited_line_is_named(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.reserve(PLAN, 0, 4)
    ledger.reserve(PLAN, 4, 6)
    ledger.path.write_text(ledger.path.read_text().replace('"first"', "first", 1))
    with pytest.raises(CheckpointError, match="line 1"):
        ledger.blocks()


def test_a_block_is_settled_by_its_own_training_alone(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    first = ledger.reserve(PLAN, 0, 6)
    ledger.reserve(PLAN, 0, 6)  # another training, in the same file
    ledger.settle(first, 1)
    assert ledger.blocks() == [(PLAN, 0, 1), (PLAN, 0, 6)]


def test_blocks_of_one_draw_are_one(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.reserve(PLAN, 0, 3, draw="a")
    ledger.reserve(PLAN, 3, 6, draw="a")
    ledger.reserve(PLAN, 3, 6, draw="b")
    assert ledger.blocks() == [(PLAN, 0, 6), (PLAN, 3, 6)]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_damaged_or_missing_line_never_makes_the_spending_less(tmp_path: Path, line: int):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for first in (0, 2, 4):
        ledger.reserve(PLAN, first, first + 2)
    lines = ledger.path.read_text().splitlines()
    for damaged in (lines[line][:-1] + "|", lines[line].replace('"last": ', '"last": -'), lines[line][: len(lines[line]) // 2]):
        ledger.path.write_text("\n".join([*lines[:line], damaged, *lines[line + 1 :]]) + "\n")
        with pytest.raises(CheckpointError, match=r"ledger\.jsonl.*line [123]"):
            ledger.blocks()
    if line < 2:
        ledger.path.write_text("\n".join([*lines[:line], *lines[line + 1 :]]) + "\n")
        with pytest.raises(CheckpointError, match=f"line {line + 1} was removed"):
            ledger.blocks()


def test_the_file_is_its_owners_alone(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.reserve(PLAN, 0, 4)
    assert ledger.path.stat().st_mode & 0o077 == 0


def test_a_ledger_of_before_a_plans_later_fields_is_read_and_charged(tmp_path: Path):
    """Sharp edge 17: what an earlier version wrote down was spent all the same."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    before = {
        "sampling_rate": 0.5, "expected_batch_size": 200, "steps": 6, "clipping_norm": 0.5, "delta": 1e-5,
        "noise_multiplier": 1.0, "unit": "example", "relation": "add_or_remove_one", "sampling": "poisson",
    }  # fmt: skip
    ledger._append({"kind": "reserve", "block": "b", "draw": "d", "first": 0, "last": 4, "plan": before})
    assert ledger.blocks() == [(PLAN, 0, 4)]
