"""A clock that goes back: what came later stays later, and composes as before."""

import os
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dptrain.checkpoint import load_release
from dptrain.ledger import Ledger
from dptrain.plan import PrivacyPlan
from tests.faults.small import FIRST, STEPS, cut, train

PLAN = PrivacyPlan(sampling_rate=0.5, expected_batch_size=200, steps=6, clipping_norm=0.5, delta=1e-5, noise_multiplier=1.0)


class HourBack(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.now(tz) - timedelta(hours=1)


def set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an hour, for all that dptrain reads."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    for name, module in list(sys.modules.items()):
        if name.startswith("dptrain.") and getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", HourBack)


def test_the_ledger_keeps_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.reserve(PLAN, 0, 2, draw="one")
    before = ledger.event()
    set_back(monkeypatch)
    block = ledger.reserve(PLAN, 2, 6, draw="one")
    ledger.settle(block, 4)
    assert ledger.blocks() == [(PLAN, 0, 4)]
    assert ledger.event() != before
    monkeypatch.undo()
    ledger.reserve(PLAN, 4, 6)
    assert ledger.blocks() == [(PLAN, 0, 4), (PLAN, 4, 6)]
    times = [entry["time"] for entry in ledger.entries() if entry["kind"] in ("reserve", "settle")]
    assert times[1] < times[0]  # it was told of a clock that went back


def test_a_resume_takes_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Files are from tomorrow, and the clock is an hour behind the one that wrote them."""
    train(tmp_path / "whole", variant="clip_only")
    cut(tmp_path / "cut", variant="clip_only")
    cut(tmp_path / "noisy")
    tomorrow = time.time() + 86400
    for path in tmp_path.rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    set_back(monkeypatch)
    train(tmp_path / "cut", variant="clip_only", telemetry=tmp_path / "curves")
    found, expected = (load_release(tmp_path / name / "release")[0] for name in ("cut", "whole"))
    assert all(np.array_equal(found[name].numpy(), value.numpy()) for name, value in expected.items())
    train(tmp_path / "noisy")
    blocks = Ledger(tmp_path / "noisy" / "private" / "ledger.jsonl").blocks()
    assert [(first, last) for _, first, last in blocks] == [(0, FIRST), (FIRST, STEPS)]
