"""Two processes with one file or folder: nothing of either is lost, and nothing is mixed."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dptrain.checkpoint import load_release, read_folder, write_folder
from dptrain.errors import CheckpointError
from dptrain.ledger import Ledger
from dptrain.plan import PrivacyPlan
from tests.faults.small import FIRST, STEPS, train

PLAN = PrivacyPlan(sampling_rate=0.5, expected_batch_size=200, steps=400, clipping_norm=0.5, delta=1e-5, noise_multiplier=1.0)


def child(work: Callable[[], object]) -> int:
    """A fork of this process that computes nothing."""
    number = os.fork()
    if number == 0:
        code = 70
        with contextlib.suppress(BaseException):
            work()
            code = 0
        os._exit(code)
    return number


def ended(*children: int) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in children]


def test_two_that_write_one_ledger_are_both_in_it(tmp_path: Path):
    def append(first: int) -> None:
        ledger = Ledger(tmp_path / "ledger.jsonl")
        for number in range(first, first + 50):
            ledger.reserve(PLAN, number, number + 1)

    assert ended(child(lambda: append(0)), child(lambda: append(100))) == [0, 0]
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert sorted(first for _, first, _ in ledger.blocks()) == [*range(50), *range(100, 150)]


def test_two_that_save_into_one_folder_mix_nothing(tmp_path: Path):
    """Each wrote its files into the other's new version, and put it there with its own manifest."""
    folder = tmp_path / "checkpoint"

    def save(letter: bytes) -> None:
        for _ in range(40):
            write_folder(folder, {"a": letter * 5000, "b": letter * 5000})

    write_folder(folder, {"a": b"0" * 5000, "b": b"0" * 5000})
    children = child(lambda: save(b"1")), child(lambda: save(b"2"))
    for _ in range(40):
        with contextlib.suppress(CheckpointError):  # it was put away while it was read
            found = read_folder(folder)
            assert found["a"] == found["b"]
    assert ended(*children) == [0, 0]
    found = read_folder(folder)
    assert found["a"] == found["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_second_training_of_one_folder_counts_for_itself(tmp_path: Path):
    """A run is taken up by another process while the first one is still at it: both branches are in the ledger."""

    def meanwhile(checkpoint: Any) -> None:
        if checkpoint.step == FIRST:
            train(tmp_path)

    train(tmp_path, meanwhile)
    taken = [(first, last) for _, first, last in Ledger(tmp_path / "private" / "ledger.jsonl").blocks()]
    assert sum(last - first for first, last in taken) == STEPS + STEPS - FIRST
    assert load_release(tmp_path / "release")[1]["steps_taken"] == STEPS
    assert json.loads(read_folder(tmp_path / "private" / "checkpoint")["state.json"])["steps_taken"] == STEPS
