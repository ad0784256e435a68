"""The warfarin recipe keeps its accuracy under a budget: a mean absolute error of at most 9.8 mg a week at ε = 5."""

import numpy as np
import pytest
import torch

import dptrain.data
from dptrain.data.split import draw
from dptrain.trainer import build_training
from evaluation.access import Access
from evaluation.target import Target
from evaluation.utility import ABSOLUTE_ERROR, by_statistics, utility
from recipes.comparison import load

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_data", "same_keys")]
SEEDS = range(5)


@pytest.mark.parametrize(("epsilon", "most"), [("inf", 9.6), ("5", 9.8)])
def test_doses_are_predicted_under_a_budget(epsilon: str, most: float):
    comparison = load("warfarin", ["--epsilons", epsilon, "--baselines", "non_private"])
    job = next(job for job in comparison.jobs() if (job.variant == "dp") == (epsilon != "inf"))
    data = dptrain.data.load(job.recipe.data)
    errors, beside = [], []
    for seed in SEEDS:
        split = draw(len(data), job.recipe.data.split, seed)
        training = build_training(job.recipe, data, split.members, seed)
        for batch in training.batches(job.recipe.training.steps):
            training.step(batch)
        target = Target(training.model, Access.SCORES, bounds=data.bounds, classes=0, kind="regression")
        held_out, members = torch.from_numpy(split.held_out), torch.from_numpy(split.members)
        found = {item.name: item.value for item in utility(target, data.inputs[held_out], data.targets[held_out], data)}
        errors.append(found[ABSOLUTE_ERROR])
        if job.variant == "dp":
            assert training.guarantee().epsilon <= 5.0
            statistics = by_statistics(data, members, held_out, 5.0, job.recipe.privacy.delta)
            assert statistics is not None
            beside.append(statistics.value)
    assert np.mean(errors) <= most
    if beside:
        assert 8.5 < np.mean(beside) < 10.5
