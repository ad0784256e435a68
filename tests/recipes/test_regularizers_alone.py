"""Each regularizer in a model of its own: trained, attacked, compared and gone on with like every other row."""

import dataclasses
import json
from pathlib import Path

import pytest

from dptrain.errors import ConfigError
from dptrain.recipe import RegularizationConfig
from evaluation.report import terminal
from evaluation.result import ComparisonResult
from recipes import jobs, runs
from recipes.comparison import Comparison, load

FLAGS = "--seeds 0 --epsilons 8 --baselines non_private regularized --regularizers alone --training.steps 3"
FLAGS += " --evaluation.attacks membership.threshold"
ALONE = ("dropout=0.2", "weight_decay=0.001", "label_smoothing=0.1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, ComparisonResult, Path]:
    root = tmp_path_factory.mktemp("alone") / "run"
    made = dataclasses.replace(load("digits", FLAGS.split()), output=str(root))
    result = runs.run(made, "digits", "dptrain run digits", progress=False)
    assert result is not None
    return made, result, root


def test_each_is_a_row_and_a_folder_of_its_own(finished: tuple[Comparison, ComparisonResult, Path]):
    _, result, root = finished
    assert [item.regularizer for item in result.summary] == ["", *ALONE, ""]
    for name in ALONE:
        folder = root / f"regularized-{name}" / "seed=0"
        option, value = name.split("=")
        card = json.loads((folder / "release" / "card.json").read_text())
        options = RegularizationConfig(**card["recipe"]["regularization"])
        assert options == dataclasses.replace(RegularizationConfig(), **{option: float(value)})
        assert json.loads((folder / "private" / "run.json").read_text())["regularizer"] == name
    assert len({run.recipe_digest for run in result.runs}) == 5


def test_what_they_buy_stands_beside_dp(finished: tuple[Comparison, ComparisonResult, Path]):
    _, result, _ = finished
    (exchange,) = result.exchanges
    assert [row.regularizer for row in exchange.rows] == [*ALONE, ""]
    assert [row.dp_at_equal_accuracy is None for row in exchange.rows] == [False, False, False, True]
    text = terminal.render(result, 120)
    assert "label smoothing 0.1" in text
    assert "What each regularizer and each budget buys" in text


@pytest.mark.usefixtures("undrawn")
def test_a_finished_comparison_is_gathered_again_the_same_and_nothing_is_trained(
    finished: tuple[Comparison, ComparisonResult, Path], ledgers_of_fixtures: Path, monkeypatch: pytest.MonkeyPatch
):
    made, result, root = finished
    monkeypatch.setenv("DPTRAIN_LEDGER", str(ledgers_of_fixtures))  # where its account is

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr(jobs, "Trainer", never)
    assert runs.run(made, "digits", "dptrain run digits", progress=False) == result
    assert runs.load_run(root) == made


def test_a_comparison_of_all_together_is_another_one(finished: tuple[Comparison, ComparisonResult, Path]):
    made, _, _ = finished
    with pytest.raises(ConfigError, match=r"holds another comparison \(regularizers differ\)"):
        runs.run(dataclasses.replace(made, regularizers="together"), "digits", "dptrain run digits", progress=False)
