"""Attribute inference in a comparison: what is a leak of training, what is knowledge of the population, and what is neither."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from dptrain.data.dataset import DataSet
from dptrain.data.split import draw
from dptrain.data.values import Values
from dptrain.errors import ConfigError
from dptrain.plan import PrivacyPlan
from dptrain.recipe import SplitConfig
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.attributes import attributes, check_hidden, largest_difference
from evaluation.inversion.attribute import MaximumAPosteriori
from evaluation.inversion.tree import TreeCounts, TreeModel
from evaluation.membership import NotApplicable
from evaluation.plan import EvaluationPlan
from evaluation.result import Measure
from evaluation.target import Target
from evaluation.verdicts import above_plan, of_attribute

COLUMNS = ("gene:category[A,B,C]", "age:number[0,100]", "weight:number[40,160]")
PLAN = EvaluationPlan(attacks=("attribute.map",), hidden="gene")


def patients(effect: float, count: int = 1200) -> DataSet:
    """A dose that depends on a gene, which nothing else tells, on age, and on chance."""
    generator = np.random.default_rng(0)
    gene, age = generator.integers(3, size=count), generator.random(count) - 0.5
    weight = generator.random(count) - 0.5
    dose = np.clip(effect * (gene - 1) + 0.1 * age + 0.03 * generator.normal(size=count), -0.5, 0.5)
    inputs = torch.from_numpy(np.column_stack([np.eye(3)[gene], age, weight])).float()
    value = Values("dose", "mg", (0.0, 1.0))
    targets = torch.from_numpy(dose).float()
    return DataSet("patients", inputs, targets, (), (-0.5, 1.0), kind="table", columns=COLUMNS, value=value)


def case_of(data: DataSet, model: nn.Module, **changes) -> Case:
    split = draw(len(data), SplitConfig(members=0.4, non_members=0.3, population=0.3, public=0.0), 0)
    target, untrained = (
        Target(each, Access.WEIGHTS, bounds=data.bounds, classes=0, kind="regression") for each in (model, nn.Linear(5, 1))
    )
    return Case(target, untrained, data, split, None, dataclasses.replace(PLAN, **changes), 0)


def fitted(data: DataSet) -> nn.Module:
    rows = np.column_stack([data.inputs.numpy(), np.ones(len(data))])
    weights, *_ = np.linalg.lstsq(rows, data.targets.numpy(), rcond=None)
    model = nn.Linear(5, 1)
    model.weight.data, model.bias.data = torch.from_numpy(weights[None, :5]).float(), torch.tensor([float(weights[5])])
    return model


def test_a_linear_model_gives_away_the_population_and_the_grown_tree_beside_it_its_members():
    data = patients(effect=0.2)
    result = attributes(case_of(data, fitted(data)), "attribute.map", MaximumAPosteriori())
    assert result.status == "ok"
    assert (result.verdict, result.metric) == ("of the population", "guessed")
    found = {item.name: item.value or 0.0 for item in (*result.metrics, *result.baselines, *result.controls)}
    assert (result.value or 0) > 0.95
    assert found["guessed_held_out"] > 0.95
    assert max(found["prior"], found["imputation"]) < 0.5
    assert found["grown_tree"] > 0.9


def test_a_model_that_keeps_its_members_leaks():
    from sklearn.tree import DecisionTreeRegressor

    data = patients(effect=0.02)
    case = case_of(data, nn.Linear(5, 1))
    members = torch.from_numpy(case.split.members)
    tree = DecisionTreeRegressor(random_state=0).fit(data.inputs[members].numpy(), data.targets[members].numpy())
    target = Target(TreeModel(tree), Access.WEIGHTS, bounds=data.bounds, classes=0, kind="regression")
    result = attributes(dataclasses.replace(case, target=target, untrained=None), "attribute.tree", TreeCounts())
    assert result.verdict == "leak"
    assert (result.value or 0) > 0.8


def test_where_nothing_depends_on_the_column_nothing_is_found():
    data = patients(effect=0.0)
    result = attributes(case_of(data, fitted(data)), "attribute.map", MaximumAPosteriori())
    assert result.verdict == "nothing beyond public"


@pytest.mark.filterwarnings("ignore:delta is")
def test_the_permitted_difference_is_that_of_the_gaussian_curve():
    """One step, q = 1: μ = 1/σ, and Φ(Φ⁻¹(x) + μ) − x is largest where it is 2 Φ(μ/2) − 1."""
    plan = PrivacyPlan(sampling_rate=1.0, expected_batch_size=10, steps=1, clipping_norm=1.0, delta=1e-5, noise_multiplier=2.0)
    assert largest_difference(plan) == pytest.approx(2 * norm.cdf(0.25) - 1, abs=2e-3)


def test_a_plan_is_accused_at_the_confidence_of_the_gate():
    """3.29 standard errors in place of 1.96: Φ⁻¹(.9995) and Φ⁻¹(.975)."""
    figure = Measure(name="auc", value=0.6, low=0.6 - 0.0196, high=0.6 + 0.0196)
    assert above_plan(figure, 0.6 - 0.034) == pytest.approx(0.6 - 0.0329, abs=1e-4)
    assert above_plan(figure, 0.6 - 0.032) is None
    assert above_plan(figure, None) is None
    of_seeds = dataclasses.replace(figure, degrees_of_freedom=2)  # 31.6 in place of 4.30, so 7.34 times as far out
    assert above_plan(of_seeds, 0.6 - 0.15) == pytest.approx(0.6 - 0.0196 * 7.344, abs=1e-4)
    assert above_plan(of_seeds, 0.6 - 0.14) is None
    assert above_plan(Measure(name="auc", value=0.9), 0.5) is None  # without an interval nothing is accused


@pytest.mark.parametrize(
    ("leaked", "beyond", "permitted", "verdict"),
    [
        ((0.20, 0.15, 0.25), -0.1, None, "leak"),
        ((0.20, 0.15, 0.25), -0.1, 0.3, "within the plan"),
        ((0.20, 0.15, 0.25), -0.1, 0.1, "above the plan"),
        ((0.00, -0.02, 0.02), 0.1, None, "of the population"),
        ((0.00, -0.02, 0.02), 0.01, None, "nothing beyond public"),
    ],
)
def test_the_verdict_says_whose_secret_it_was(leaked, beyond: float, permitted: float | None, verdict: str):
    value, low, high = leaked
    found, _ = of_attribute(
        Measure(name="beyond", value=beyond, low=beyond - 0.02, high=beyond + 0.02),
        Measure(name="imputation", value=0.6),
        Measure(name="difference", value=value, low=low, high=high),
        permitted,
    )
    assert found == verdict


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (
            dataclasses.replace(PLAN, hidden=None),
            "evaluation.hidden is not given; name the column to be guessed, one of 'gene'",
        ),
        (dataclasses.replace(PLAN, hidden="jene"), "did you mean 'gene'"),
        (dataclasses.replace(PLAN, known=("agee",)), "did you mean 'age'"),
        (dataclasses.replace(PLAN, known=("gene",)), "names the hidden column 'gene'; leave it out"),
    ],
)
def test_a_column_that_is_not_there_is_answered_before_anything_is_trained(plan: EvaluationPlan, said: str):
    with pytest.raises(ConfigError, match=said):
        check_hidden(plan, patients(0.1))
    check_hidden(PLAN, patients(0.1))
    with pytest.raises(ConfigError, match="has no columns; give a table"):
        check_hidden(PLAN, dataclasses.replace(patients(0.1), columns=()))


def test_without_a_population_nothing_is_made_up():
    data = patients(0.2)
    case = case_of(data, fitted(data))
    split = draw(len(data), SplitConfig(members=0.5, non_members=0.5, population=0.0, public=0.0), 0)
    with pytest.raises(NotApplicable, match=r"raise data\.split\.population"):
        attributes(dataclasses.replace(case, split=split), "attribute.map", MaximumAPosteriori())
