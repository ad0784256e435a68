"""Somebody's own script becomes private by ten lines or fewer, and its evaluation fires by itself."""

import ast
import difflib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dptrain.checkpoint import load_release
from evaluation.result import read_comparison, read_run

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "recipes" / "examples"
SCRIPTS = {"plain_loop": [60], "loader": [10, 20, 30, 40], "hugging_face": [30, 60]}
"""Each with the steps of its checkpoints."""


def code(path: Path) -> list[str]:
    """The lines of a script that are neither empty nor its module's text."""
    text = path.read_text(encoding="utf-8")
    first = ast.parse(text).body[0].end_lineno or 0
    return [line for line in text.splitlines()[first:] if line.strip()]


@pytest.mark.parametrize("name", SCRIPTS)
def test_ten_lines_or_fewer_change(name: str):
    difference = list(difflib.ndiff(code(EXAMPLES / "before" / f"{name}.py"), code(EXAMPLES / f"{name}.py")))
    written = [line for line in difference if line.startswith("+ ")]
    taken_out = [line for line in difference if line.startswith("- ")]
    assert 0 < len(written) <= 10, "\n".join(written)
    assert len(taken_out) <= 10, "\n".join(taken_out)


@pytest.mark.parametrize(
    "name", ["plain_loop", *(pytest.param(name, marks=pytest.mark.slow) for name in ("loader", "hugging_face"))]
)
def test_the_evaluation_of_a_script_fires_by_itself(name: str, tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = str(EXAMPLES / f"{name}.py")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / name
    weights, card = load_release(run / "release")  # against its manifest
    assert weights
    assert card["guarantee"]["epsilon"] <= (4.0 if name == "plain_loop" else 8.0)
    assert "held out of training are covered by nothing" in card["guarantee"]["statement"]
    found = [read_run(path) for path in sorted(run.glob("evaluation/step=*/result.json"))]
    assert [result.step for result in found] == SCRIPTS[name]
    for result in found:
        assert {attack.name: attack.status for attack in result.attacks} == dict.fromkeys(
            ("membership.threshold", "membership.lira", "membership.rmia"), "ok"
        )
        assert all(attack.verdict != "above the plan" for attack in result.attacks)
    assert found[-1].utility["test_accuracy"] > 0.25  # of ten classes: something was learned
    comparison = read_comparison(run / "results.json")
    assert [one.step for one in comparison.runs] == SCRIPTS[name][-1:]
    assert [one.step for one in comparison.checkpoints] == SCRIPTS[name][:-1]
    assert "<svg" in (run / "report.html").read_text(encoding="utf-8")
    assert list(run.glob("tradeoff/events.out.tfevents.*.dptrain"))
    assert {path.name for path in (run / "release").iterdir()} == {"model.safetensors", "card.json", "manifest.json"}
    foreign = [path for path in tmp_path.rglob("*") if path.is_file() and run not in path.parents]
    assert {path.parts[len(tmp_path.parts)] for path in foreign} <= {"published", "runs"}
    assert all("non_private" in str(path) or path.parent.name == "published" for path in foreign), foreign
