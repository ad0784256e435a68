"""`dptrain doctor`: a recipe's own model, without a look at a private example."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dptrain.data
from dptrain import models
from dptrain.data.split import draw
from dptrain.errors import PlanError
from dptrain.recipe import DataConfig, ModelConfig, RegularizationConfig
from dptrain.registry import MODELS
from recipes import comparison
from recipes.cli import main
from recipes.doctor import ENOUGH, examine, example_batch, stand_in


@pytest.fixture
def model_with_batch_norm() -> Iterator[str]:
    name = "with_batch_norm"

    @MODELS.register(name, "a model that no clipping makes private")
    def build(input_shape, classes, config, regularization):
        width = torch.Size(input_shape).numel()
        return nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, classes))

    yield name
    MODELS._added.pop(name)


def test_a_recipe_that_is_well_ends_with_0(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "digits", "--model.name", "mlp", "--privacy.clipping-norm", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "no errors" in printed
    assert "engine    one pass" in printed
    assert max(len(line) for line in printed.splitlines()) <= 100
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_is_not_well_ends_with_1_and_with_0_once_it_is_fixed(
    capsys: pytest.CaptureFixture[str], model_with_batch_norm: str
):
    assert main(["doctor", "digits", "--model.name", model_with_batch_norm]) == 1
    assert "ERROR     2 (BatchNorm1d)" in capsys.readouterr().out
    assert main(["doctor", "digits", "--fix", "--model.name", model_with_batch_norm]) == 0
    printed = capsys.readouterr().out
    assert "changed   2: BatchNorm1d(8" in printed
    assert "GroupNorm(1, 8" in printed


def test_json_is_one_document(capsys: pytest.CaptureFixture[str], model_with_batch_norm: str):
    assert main(["doctor", "digits", "--model.name", model_with_batch_norm, "--format", "json", "--seeds", "0"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "dptrain.diagnosis/1"
    assert document["ok"] is False
    assert document["findings"][0]["severity"] == "error"
    assert document["findings"][0]["where"] == "2 (BatchNorm1d)"


def test_only_examples_that_are_public_in_every_split_are_looked_at():
    """The public part of one seed's split is private in another's."""
    one = comparison.load("digits", ["--seeds", "4"])
    data = dptrain.data.load(one.recipe.data)
    (inputs, targets), source = example_batch(one, data)
    public = draw(len(data), one.recipe.data.split, 4).public
    assert torch.equal(inputs, data.inputs[torch.from_numpy(public)])
    assert torch.equal(targets, data.targets[torch.from_numpy(public)])
    assert "public examples" in source


def test_without_public_examples_random_ones_of_the_public_shape_serve():
    several = comparison.load("digits")
    data = dptrain.data.load(several.recipe.data)
    torch.manual_seed(0)
    (inputs, targets), source = example_batch(several, data)
    assert "random inputs" in source
    assert inputs.shape[1:] == data.inputs.shape[1:]
    assert len(inputs) == len(targets) >= ENOUGH
    assert data.bounds[0] <= float(inputs.min()) <= float(inputs.max()) <= data.bounds[1]
    assert 0 <= int(targets.min()) <= int(targets.max()) < len(data.classes)
    rows = {tuple(row.flatten().tolist()) for row in data.inputs}
    assert not rows & {tuple(row.flatten().tolist()) for row in inputs}


def test_the_recipes_own_regularization_is_examined():
    smoothed = comparison.load("digits", ["--regularization.dropout", "0.3", "--model.name", "mlp", "--seeds", "0"])
    diagnosis = examine(smoothed)
    assert diagnosis.ok, str(diagnosis)
    assert any("no budget spent" in finding.what for finding in diagnosis.findings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["doctor"], "needs a recipe"),
        (["doctor", "digit"], "did you mean 'digits'"),
        (["doctor", "digits", "--format", "html"], "accepted: json, text"),
        (["doctor", "digits", "--format"], "--format text|json"),
        (["doctor", "digits", "--fixed"], "no flag --fixed"),
        (["doctor", "digits", "--privacy.clipping_norm", "-1"], "clipping_norm"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize("recipe", ["cora", "cora_nodes"])
def test_a_model_of_a_graph_is_examined_on_a_random_graph_of_the_same_size(shared_data: Path, recipe: str):
    found = examine(comparison.load(recipe))
    assert found.errors == ()
    assert any("no private example was looked at" in finding.what for finding in found.findings)


def test_the_doctor_refuses_the_plan_that_training_refuses(shared_data: Path):
    with pytest.raises(PlanError, match=r"model.hops is 2 and privacy.aggregations is 1"):
        examine(comparison.load("cora", ["--model.hops", "2"]))


def test_the_doctor_looks_up_no_private_node(shared_data: Path):
    data = dptrain.data.load(DataConfig(name="cora"))
    assert data.graph is not None
    model: Any = models.build_for(ModelConfig(name="mlp", hidden=()), data, RegularizationConfig())
    stand_in(model, data.graph)
    shown = model(data.inputs)
    model.bind(data.graph)
    assert not torch.equal(model(data.inputs), shown)
