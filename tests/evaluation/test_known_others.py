"""At each ε the informed adversary names no more than the bound permits, and without a proof it names nothing."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from torch import nn

import dptrain.data
from dptrain.data.split import draw
from dptrain.plan import PrivacyPlan
from dptrain.recipe import DataConfig, SplitConfig
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.known_others import Informed, known_others, of_a_thousand
from evaluation.membership import NotApplicable
from evaluation.plan import EvaluationPlan
from evaluation.target import Target

pytestmark = pytest.mark.filterwarnings("ignore:delta is")
PLAN = PrivacyPlan(sampling_rate=1.0, expected_batch_size=10, steps=4, clipping_norm=1.0, delta=1e-5)


def case_of(plan: PrivacyPlan | None) -> Case:
    data = dptrain.data.load(DataConfig(name="digits"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    target = Target(model, Access.WEIGHTS, bounds=data.bounds, classes=10)
    return Case(target, None, data, draw(len(data), SplitConfig(), 0), plan, EvaluationPlan(attacks=()), 0)


@pytest.mark.parametrize("attack", [Informed(), of_a_thousand()])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 8.0, 100.0])
def test_no_success_lies_above_the_bound_beyond_its_interval(attack: Informed, epsilon: float):
    plan = PLAN.calibrate(epsilon=epsilon)
    found = known_others(case_of(plan), "inversion.informed", attack)
    assert found.low is not None
    assert found.permitted is not None
    assert found.low <= found.permitted
    assert found.chance == 1 / attack.candidates
    mu = np.sqrt(plan.steps) / plan.noise_multiplier
    assert found.permitted == pytest.approx(norm.cdf(norm.ppf(found.chance) + mu), rel=0.02)
    assert found.verdict in ("within the plan", "found nothing")


def test_the_trials_figures_at_ten_candidates():
    """Hayes et al.'s adversary in a trial: .142 of .155 at ε = 1, .539 of .650 at ε = 8, all at ε = 100."""
    values = [known_others(case_of(PLAN.calibrate(epsilon=e)), "x", Informed()).value for e in (1.0, 8.0, 100.0)]
    assert values == pytest.approx([0.1476, 0.5652, 1.0], abs=0.015)


def test_without_noise_the_example_is_named():
    bare = dataclasses.replace(PLAN, noise_multiplier=0.0)
    found = known_others(case_of(bare), "inversion.informed", Informed())
    assert (found.value, found.permitted, found.verdict) == (1.0, None, "leak")


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": "fixed_size", "max_examples": 10, "relation": "replace_one"},
        {"sampling": "balls_in_bins"},
    ],
)
def test_full_batches_are_full_batches_by_whatever_name(fields: dict[str, Any]):
    plan = dataclasses.replace(PLAN, noise_multiplier=2.0, **fields)
    found = known_others(case_of(plan), "inversion.informed", Informed())
    assert found.low is not None
    assert found.permitted is not None
    assert 0.1 < found.low <= found.permitted


def test_what_no_proof_covers_is_not_applicable():
    sampled = dataclasses.replace(PLAN.calibrate(epsilon=1.0), sampling_rate=0.1)
    with pytest.raises(NotApplicable, match="full batches with independent noise"):
        known_others(case_of(sampled), "inversion.informed", Informed())
    half: dict[str, Any] = {"sampling": "truncated_poisson", "max_batch_size": 5, "max_examples": 10}
    with pytest.raises(NotApplicable, match=r"sampling is 'truncated_poisson'.*full batches with independent noise"):
        known_others(case_of(dataclasses.replace(PLAN, noise_multiplier=2.0, **half)), "inversion.informed", Informed())
    with pytest.raises(NotApplicable, match="plan is not known"):
        known_others(case_of(None), "inversion.informed", Informed())
