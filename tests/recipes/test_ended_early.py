"""A model whose training ended early is a finished one."""

import dataclasses
from pathlib import Path

import pytest

from dptrain.recipe import OptimizerConfig, RegularizationConfig
from recipes import jobs, runs
from recipes.comparison import load
from tests.conftest import leave_undrawn


def test_a_model_that_ended_early_is_in_the_report_and_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A step size of 60 overshoots at once: public examples are never fitted better than in the beginning."""
    made = load("digits", ["--seeds", "0", "--epsilons", "inf", "--baselines", "--evaluation.attacks", "membership.threshold"])
    regularization = RegularizationConfig(early_stopping=5)
    made = dataclasses.replace(
        made,
        recipe=dataclasses.replace(made.recipe, regularization=regularization),
        non_private_optimizer=OptimizerConfig(learning_rate=60.0),
        output=str(tmp_path / "run"),
    )
    result = runs.run(made, "digits", "dptrain run digits", progress=False)
    assert result is not None
    (run,) = result.runs
    assert run.step == run.steps < made.recipe.training.steps
    assert result.failures == ()
    leave_undrawn(monkeypatch)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr(jobs, "Trainer", never)
    again = runs.run(made, "digits", "dptrain run digits", progress=False)
    assert again is not None
    assert again.runs == result.runs
