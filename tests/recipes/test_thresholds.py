"""``dptrain serve thresholds``: a monitor is calibrated on an operator's own examples, or on those that a run held out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dptrain.ledger import accounts
from dptrain.release.monitor import Thresholds
from recipes.cli import main
from recipes.thresholds import held_out_of
from tests.dptrain.release import served

EXAMPLES = np.random.default_rng(0).random((330, 8, 8)).astype("f4")


def says(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The one sentence that a mistake ends with."""
    assert main(["serve", "thresholds", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("dptrain: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.slow
def test_thresholds_come_from_an_operators_own_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, output = served.digits(tmp_path / "release"), tmp_path / "thresholds.json"
    np.save(tmp_path / "benign.npy", EXAMPLES)
    assert main(["serve", "thresholds", str(folder), "--inputs", str(tmp_path / "benign.npy"), "--output", str(output)]) == 0
    found = Thresholds.from_json(json.loads(output.read_bytes()))
    said = capsys.readouterr().out
    assert found.statement() in said
    assert f"--thresholds {output}" in said
    assert found.left_out is not None
    assert found.left_out.examples == 110
    assert output.stat().st_mode & 0o077 == 0


def test_what_is_no_benign_example_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, path = served.digits(tmp_path / "release"), tmp_path / "benign.npy"
    assert "cannot be read" in says(capsys, folder, "--inputs", path)
    np.save(path, np.array([{}]), allow_pickle=True)
    assert "cannot be read" in says(capsys, folder, "--inputs", path)
    np.save(path, EXAMPLES[:, :, :7])
    assert "(330, 8, 7); give numbers of shape (examples, 8, 8)" in says(capsys, folder, "--inputs", path)
    np.save(path, 16 * EXAMPLES)
    assert "outside the model's bounds, 0 to 1" in says(capsys, folder, "--inputs", path)
    np.save(path, EXAMPLES[:40])
    assert "examples" in says(capsys, folder, "--inputs", path)
    assert "--inputs FILE.npy" in says(capsys, folder)
    assert "--monitor off" in says(capsys, served.dose(tmp_path / "dose"), "--inputs", path)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.usefixtures("undrawn")
def test_the_held_out_examples_of_a_run_are_those_that_no_model_saw(tmp_path: Path):
    flags = ["--epsilons", "8", "--seeds", "0", "--baselines", "--training.steps", "2", "--evaluation.attacks"]
    flags += ["membership.threshold"]
    assert main(["run", "digits", *flags, "--output", str(tmp_path / "run")]) == 0
    import dptrain.data
    from dptrain.data.split import load as load_split
    from recipes import runs

    run = tmp_path / "run" / "eps=08.00" / "seed=0"
    data = dptrain.data.load(runs.load_run(tmp_path / "run").recipe.data).inputs.numpy()
    split = load_split(run / "private" / "split.npz")
    found = held_out_of(run)
    assert np.array_equal(found, data[split.held_out])
    assert not set(split.held_out.tolist()) & set(split.members.tolist())
    (account,) = accounts()
    assert account.books().reads[-1]["what"] == "thresholds of a monitor"
