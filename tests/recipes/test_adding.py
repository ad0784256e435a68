"""What README says of adding one's own runs from end to end: registered, trained, attacked, reported."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

from dptrain import MODELS, REGULARIZERS
from dptrain.errors import ConfigError
from dptrain.penalties import parse, penalty_of
from dptrain.recipe import RegularizationConfig
from evaluation.result import read_comparison
from tests.conftest import leave_undrawn
from tests.recipes.test_examples import code

ADDING = Path(__file__).parents[2] / "recipes" / "examples" / "adding"
NAMES = ["data_set", "model", "attack", "guard", "regularizer"]
DRAWN = ("attack", "guard", "regularizer")
"""Of which a page says something that it says of no other; the others' pages differ from those of digits in nothing."""
SMALL = ["--epsilons", "8", "--seeds", "0", "--training.steps", "8", "--evaluation.shadow-models", "4"]
THRESHOLD = ["--evaluation.attacks", "membership.threshold"]
FLAGS = {
    "data_set": ["--baselines", "--privacy.delta", "1e-4", *THRESHOLD],
    "model": ["--baselines", *THRESHOLD],
    "attack": ["--baselines"],
    "guard": ["--baselines", *THRESHOLD],
    "regularizer": ["--baselines", "regularized", *THRESHOLD],
}


@pytest.mark.parametrize("name", NAMES)
def test_one_of_ones_own_runs_from_end_to_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    output = tmp_path / name
    monkeypatch.chdir(tmp_path)
    if name not in DRAWN:
        leave_undrawn(monkeypatch)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *SMALL, *FLAGS[name], "--output", str(output)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ADDING / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    result = read_comparison(output / "results.json")
    run = next(run for run in result.runs if run.variant == "dp")
    assert all(attack.status == "ok" for attack in run.attacks)
    found = {
        "data_set": result.data["classes"] == ["malignant", "benign"],
        "model": "normalised" in MODELS.names(),
        "attack": "membership.margin" in [attack.name for attack in run.attacks],
        "guard": [item.guard for item in run.guarded] == ["clear0.3"] and not run.guarded[0].reason,
        "regularizer": "penalty=logit_norm0.01" in [one.regularizer for one in result.runs],
    }
    assert found[name]


@pytest.mark.parametrize("name", NAMES)
def test_one_of_ones_own_is_ten_to_thirty_lines(name: str):
    path = ADDING / f"{name}.py"
    assert 10 <= len(code(path)) <= 30
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_a_regularizer_is_said_with_its_strength():
    import torch

    if "spread" not in REGULARIZERS.names():
        REGULARIZERS.register("spread", "for this test")(lambda outputs, inputs, targets: outputs.var(1))
        REGULARIZERS.register("average", "for this test: no value an example")(lambda outputs, inputs, targets: outputs.mean())
    assert parse("spread0.5-spread1e-3") == (("spread", 0.5), ("spread", 0.001))
    outputs = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    assert penalty_of("spread0.5", outputs, None, outputs).tolist() == [1.0, 0.0]
    with pytest.raises(ConfigError, match=r"glue a number above 0 to it, such as spread0\.1"):
        RegularizationConfig(penalty="spread")
    with pytest.raises(ConfigError, match="did you mean 'spread'"):
        RegularizationConfig(penalty="spred0.1")
    with pytest.raises(ConfigError, match="give one value an example"):
        penalty_of("average1", outputs, None, outputs)
