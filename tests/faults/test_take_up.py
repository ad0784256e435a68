"""A run that goes on on another machine: that machine's account takes up what the run had spent before it came."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import dptrain.ledger as ledgers
from dptrain.checkpoint import load_release
from dptrain.ledger import Ledger
from tests.faults.small import FIRST, STEPS, cut, data, train

if not hasattr(ledgers, "accounts"):
    pytest.skip("needs accounts of data sets over all runs", allow_module_level=True)


def spent_in(place: Path) -> list[tuple[int, float]]:
    """Steps and ε of each kind of guarantee in a folder of accounts; all of one data set."""
    found: Any = ledgers
    [account] = found.accounts(place)
    statement = account.statement()
    assert statement.data == data().fingerprint
    return [(spent.steps, spent.epsilon) for spent in statement.spent]


def test_the_account_of_the_new_machine_says_what_was_spent_on_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here, there, run = tmp_path / "here", tmp_path / "there", tmp_path / "run"
    monkeypatch.setenv("DPTRAIN_LEDGER", str(here))
    cut(run)
    shutil.copytree(run, tmp_path / "elsewhere" / "run")
    monkeypatch.setenv("DPTRAIN_LEDGER", str(there))
    train(tmp_path / "elsewhere" / "run")
    [(steps, epsilon)] = spent_in(there)
    assert steps >= STEPS
    card = load_release(tmp_path / "elsewhere" / "run" / "release")[1]
    assert epsilon >= card["guarantee"]["epsilon"] - 1e-6
    assert [steps for steps, _ in spent_in(here)] == [FIRST]


def test_to_take_up_a_run_twice_counts_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is resumed there, cut, and resumed there again: what came along from the old machine came once."""
    here, there, run = tmp_path / "here", tmp_path / "there", tmp_path / "run"
    monkeypatch.setenv("DPTRAIN_LEDGER", str(here))
    cut(run)
    monkeypatch.setenv("DPTRAIN_LEDGER", str(there))
    train(run)
    train(run)
    taken = sum(last - first for _, first, last in Ledger(run / "private" / "ledger.jsonl").blocks())
    assert [steps for steps, _ in spent_in(there)] == [taken] == [STEPS]
