"""Cora: a graph convolutional network is as good, and gives away as many edges, as was published; and under a budget for edges
no model is worse than one that ignores them without saying so.

Published (two layers, Planetoid split): accuracy .818; AUC of links by correlation .938, by labels .847, features alone .802
(He et al. 2021, "Stealing Links from Graph Neural Networks", and Kipf and Welling 2017).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dptrain.data
from dptrain.data.split import split_of
from dptrain.trainer import Trainer
from evaluation.plan import EvaluationPlan
from evaluation.result import AttackResult, RunResult
from evaluation.runner import evaluate
from evaluation.without_graph import FLOOR
from recipes.comparison import load

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_data", "same_keys")]


def run(name: str, epsilon: float, seed: int, folder: Path, attacks: tuple[str, ...]) -> RunResult:
    comparison = load(name, ["--epsilons", str(epsilon), "--baselines", *(["non_private"] if math.isinf(epsilon) else [])])
    job = comparison.jobs()[0]
    data = dptrain.data.load(job.recipe.data)
    split = split_of(data, job.recipe.data.split, seed)
    Trainer(job.recipe, data, split, seed=seed, folder=folder, variant=job.variant, progress=False).run()
    return evaluate(folder, data, split=split, plan=EvaluationPlan(attacks=attacks), recipe=job.recipe, progress=False)


def figures(attack: AttackResult) -> dict[str, Any]:
    beside = (*attack.metrics, *attack.baselines, *attack.controls)
    return {attack.metric: attack.value} | {item.name: item.value for item in beside}


def test_a_network_over_exact_edges_is_as_good_and_as_talkative_as_published(tmp_path: Path):
    result = run("cora_planetoid", math.inf, 0, tmp_path, ("link.posteriors", "link.labels"))
    scores, labels = (figures(attack) for attack in result.attacks)
    assert result.utility["test_accuracy"] >= 0.79
    assert scores["auc"] >= 0.92
    assert labels["auc"] == pytest.approx(0.85, abs=0.02)
    assert scores["features"] == pytest.approx(0.80, abs=0.01)
    assert scores["without_graph"] < scores["features"]
    assert 0.08 <= scores["precision_at_density"] <= 0.13
    assert scores["permuted"] == pytest.approx(0.5, abs=0.02)
    assert all(attack.verdict == "leak" for attack in result.attacks)


@pytest.mark.parametrize("epsilon", [8.0, 1.0])
def test_under_a_budget_for_edges_a_model_keeps_what_features_say(tmp_path: Path, epsilon: float):
    found = [run("cora", epsilon, seed, tmp_path / str(seed), ("link.release",)) for seed in range(2)]
    for result in found:
        assert result.guarantee is not None
        assert 0.99 * epsilon < result.guarantee.epsilon <= epsilon
        assert result.guarantee.unit == "edge"
        assert result.attacks[0].verdict != "above the plan"
        assert result.attacks[0].permitted_metrics["auc_in_graph"] < (0.9 if epsilon == 8.0 else 0.6)
        gained = result.utility["accuracy_by_the_graph_low"]
        assert (gained <= 0) == any("worth its noise here" in note for note in result.notes)
    accuracy, floor = (np.mean([result.utility[name] for result in found]) for name in ("test_accuracy", FLOOR))
    assert accuracy >= floor - 0.01
    assert floor >= 0.70
    if epsilon == 8.0:
        assert accuracy > floor
