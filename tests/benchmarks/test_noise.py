"""The noise benchmark runs, and writes what it prints."""

import json
import sys
from pathlib import Path

import pytest

from tests.benchmarks import noise


def test_the_benchmark_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(noise, "PARAMETERS", {"W1": 200_000})
    monkeypatch.setattr(sys, "argv", ["noise", "--rounds", "2", "--json", str(tmp_path / "noise.json")])
    noise.main()
    figures = json.loads((tmp_path / "noise.json").read_text())["workloads"]["W1"]
    printed = capsys.readouterr().out
    for key in ("drawn", "ziggurat", "foreground_at_once", "foreground_ahead", "process_ahead"):
        assert set(figures[key]) == {"median", "low", "high"}
        assert f"{figures[key]['median']:.2f}" in printed
