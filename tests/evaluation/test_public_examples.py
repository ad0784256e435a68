"""A recipe that looks at public examples, from training to the summary: its shadow models do as the target does."""

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

import dptrain.data
from dptrain import stopping
from dptrain.data.dataset import DataSet
from dptrain.data.split import draw
from dptrain.plan import PrivacyPlan
from dptrain.recipe import DataConfig, PrivacyConfig, Recipe, RegularizationConfig, SplitConfig, TrainingConfig
from dptrain.trainer import Trainer, build_training
from evaluation import EvaluationPlan, evaluate
from evaluation.result import read_run
from evaluation.summary import read_results

SHARES = SplitConfig(members=0.4, non_members=0.3, population=0.1, public=0.2)
STEPS = 40


@pytest.mark.parametrize(
    "regularization", [RegularizationConfig(early_stopping=10), RegularizationConfig(distillation=10)], ids=["stop", "distil"]
)
def test_the_whole_way_from_training_to_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, regularization: RegularizationConfig
):
    """Shadow models see no public example, are as large as the target, and what ended early counts as finished."""
    digits = dptrain.data.load(DataConfig())
    split = draw(len(digits), SHARES, 0)
    made = Recipe(
        data=DataConfig(split=SHARES),
        privacy=PrivacyConfig(epsilon=4.0, expected_batch_size=700.0),
        regularization=regularization,
        training=TrainingConfig(steps=STEPS),
    )
    looks: list[int] = []

    def rising(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
        looks.append(len(inputs))
        return float(len(looks))

    monkeypatch.setattr(stopping, "public_loss", rising)
    trained: list[np.ndarray] = []

    def spied(recipe: Recipe, data: DataSet, members: np.ndarray, seed: int, **given):
        trained.append(members)
        return build_training(recipe, data, members, seed, **given)

    Trainer(made, digits, split, seed=0, folder=tmp_path / "run", progress=False).run()
    monkeypatch.setattr("dptrain.fleet.training.build_training", spied)
    plan = EvaluationPlan(attacks=("membership.lira",), shadow_models=8)
    result = evaluate(tmp_path / "run", digits, plan=plan, recipe=made, progress=False)
    assert result.attacks[0].status == "ok", result.attacks[0].reason
    assert len(trained) == 8
    assert not np.isin(np.concatenate(trained), split.public).any()
    assert np.mean([len(members) for members in trained]) == pytest.approx(len(split.members), rel=0.06)
    assert set(looks) <= {len(split.public)}
    assert len(looks) == (9 * 6 if regularization.early_stopping else 0)  # the target's and eight shadow models', to step 12
    assert result.step == result.steps == (12 if regularization.early_stopping else STEPS)
    assert read_results([tmp_path / "run"])[0] == (result,)
    stated = PrivacyPlan.from_config(made.privacy, STEPS)
    assert result.attacks[0].permitted == pytest.approx(stated.permitted_auc())
    assert read_run(tmp_path / "run" / "evaluation" / f"step={result.step:06d}" / "result.json") == result
