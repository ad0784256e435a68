"""The sms recipe keeps telling spam from ham under a budget, better than whoever always says ham (.874)."""

import copy
import math

import numpy as np
import pytest
import torch

import dptrain.data
from dptrain.data.split import split_of
from dptrain.trainer import build_training
from evaluation.access import Access
from evaluation.target import Target
from evaluation.utility import utility, without_model
from recipes.comparison import load

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_data", "same_keys")]
SEEDS = range(3)


@pytest.mark.parametrize(("epsilon", "least"), [(math.inf, 0.97), (8.0, 0.95), (1.0, 0.91)])
def test_spam_is_told_from_ham_under_a_budget(epsilon: float, least: float):
    comparison = load("sms", ["--epsilons", str(epsilon), "--baselines", "non_private"])
    job = next(job for job in comparison.jobs() if (job.variant == "dp") == math.isfinite(epsilon))
    data = dptrain.data.load(job.recipe.data)
    found, always_ham = [], []
    for seed in SEEDS:
        split = split_of(data, job.recipe.data.split, seed)
        training = build_training(job.recipe, data, split.members, seed)
        for batch in training.batches():
            training.step(batch)
        assert training._clipper.method == "one pass"
        if job.variant == "dp":
            assert training.guarantee().epsilon <= epsilon
        held_out = torch.from_numpy(split.held_out)
        with training.averaged() as model:
            target = Target(copy.deepcopy(model), Access.LOGITS, bounds=data.bounds, classes=2)
            (accuracy,) = utility(target, data.inputs[held_out], data.targets[held_out], data)
        (majority,) = without_model(data.targets[held_out], data)
        found.append(accuracy.value)
        always_ham.append(majority.value)
    assert np.mean(always_ham) == pytest.approx(0.874, abs=0.01)
    assert np.mean(found) >= least
