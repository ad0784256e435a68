"""An attribute inference is judged where it means something, and refused where it means nothing."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dptrain import PrivacyPlan
from dptrain.data.dataset import DataSet
from dptrain.data.split import draw
from dptrain.data.values import Values
from dptrain.errors import ConfigError
from dptrain.recipe import SplitConfig
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.attributes import check_hidden, largest_difference
from evaluation.plan import EvaluationPlan
from evaluation.report.wording import beside, findings, levels
from evaluation.result import AttackResult, ComparisonResult, RunResult
from evaluation.runner import check_plan, run_attack
from evaluation.summary import summarize
from evaluation.target import Target

COLUMNS = ("gene:category[A,B,C]", "age:number[0,100]")
SHARES = SplitConfig(members=0.4, non_members=0.3, population=0.3, public=0.0)
EFFECTS = torch.tensor([-0.3, 0.0, 0.3, 0.2])


class Model(nn.Module):
    """The outcome, or the logits of its being at most 0 and of its being above it."""

    def __init__(self, classes: bool):
        super().__init__()
        self.classes = classes

    def forward(self, inputs: Tensor) -> Tensor:
        outcome = inputs @ EFFECTS
        return torch.stack([-40 * outcome, 40 * outcome], 1) if self.classes else outcome[:, None]


def attacked(name: str, classes: bool) -> AttackResult:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.cat(
        [torch.eye(3)[torch.randint(3, (600,), generator=generator)], torch.rand(600, 1, generator=generator)], 1
    )
    inputs[:, 3] -= 0.5
    outcome = inputs @ EFFECTS
    targets = (outcome > 0).long() if classes else outcome
    data = DataSet(
        "people", inputs, targets, ("low", "high") if classes else (), (-0.5, 1.0), kind="table", columns=COLUMNS,
        value=None if classes else Values("dose", "mg", (0.0, 1.0)),
    )  # fmt: skip
    kind = "classification" if classes else "regression"
    target = Target(Model(classes), Access.WEIGHTS, bounds=data.bounds, classes=len(data.classes), kind=kind)
    case = Case(
        target=target, untrained=None, data=data, split=draw(600, SHARES, 0), plan=None,
        evaluation=EvaluationPlan(attacks=(name,), hidden="gene"), seed=0,
    )  # fmt: skip
    return run_attack(case, name, lambda: None)


@pytest.mark.parametrize(
    ("name", "classes"),
    [("attribute.confidence", False), ("attribute.labels", False), ("attribute.first_order", True)],
)
def test_an_attack_on_another_kind_of_model_is_not_applicable_and_finds_nothing_safe(name: str, classes: bool):
    found = attacked(name, classes)
    assert (found.status, found.verdict, found.value) == ("not_applicable", "none", None)
    assert ("predicts classes" if classes else "predicts a value") in found.reason


@pytest.mark.parametrize("name", ["attribute.map", "attribute.conditional"])
def test_a_classifier_is_attacked_through_the_score_of_the_true_class(name: str):
    """The gene is told by the class but for the middle one, which either class may have: 2/3 and a little more. Of scores
    that are taken for a value, the attack would look for the wrong end."""
    found = attacked(name, classes=True)
    assert found.status == "ok"
    assert found.value is not None
    assert found.value > 0.6
    assert found.verdict == "of the population"


@pytest.mark.parametrize("name", ["attribute.map", "attribute.conditional", "attribute.first_order"])
def test_a_value_that_follows_from_the_gene_gives_it_away(name: str):
    found = attacked(name, classes=False)
    assert found.value == 1.0


def test_a_column_that_is_known_twice_is_refused_before_anything_is_trained():
    data = DataSet(
        "people", torch.zeros(3, 4), torch.zeros(3).long(), ("low", "high"), (-0.5, 1.0), kind="table", columns=COLUMNS
    )
    plan = EvaluationPlan(attacks=("attribute.map",), hidden="gene", known=("age", "age"))
    with pytest.raises(ConfigError, match="names one column twice"):
        check_hidden(plan, data)


@pytest.mark.parametrize("guard", ["label_only", "memguard"])
def test_a_guard_of_scores_before_a_model_that_predicts_a_value_is_refused_before_anything_is_trained(guard: str):
    dose = Values("dose", "mg", (0.0, 1.0))
    data = DataSet("people", torch.zeros(3, 4), torch.zeros(3), (), (-0.5, 1.0), kind="table", columns=COLUMNS, value=dose)
    with pytest.raises(ConfigError, match=f"release.guard is '{guard}'.*predicts a value"):
        check_plan(EvaluationPlan(attacks=()), data, guard)


@pytest.mark.parametrize("noise_multiplier", [0.05, 0.3, 2.0])
def test_the_permitted_difference_is_never_less_than_the_largest_distance_from_the_diagonal(noise_multiplier: float):
    plan = PrivacyPlan(
        sampling_rate=1.0, expected_batch_size=1000.0, steps=1, clipping_norm=1.0, delta=1e-5, noise_multiplier=noise_multiplier
    )
    rates = np.concatenate([np.geomspace(1e-12, 1e-3, 400), np.linspace(1e-3, 1, 7919)])
    largest = float(np.max(plan.permitted_true_positive_rates(rates) - rates))
    assert largest <= largest_difference(plan) <= min(1.0, largest + 0.001 + 1e-6)


def test_those_without_a_model_stand_beside_the_guesses_of_the_people_they_are_of():
    run = RunResult(
        label="non_private/seed=0", variant="non_private", epsilon=float("inf"), delta=None, seed=0, step=1, steps=1,
        utility={"within_20_percent": 0.5}, attacks=(attacked("attribute.map", classes=False),),
    )  # fmt: skip
    result = ComparisonResult(
        name="x",
        title="x",
        runs=(run,),
        summary=summarize((run,)),
        command="x",
        data={},
        recipe={},
        versions={},
        not_covered=(),
    )
    of_members, of_held_out = (levels(result, f"attribute.map/{name}") for name in ("guessed", "guessed_held_out"))
    assert set(of_held_out) == {"prior", "imputation", "imputation with outcome", "ideal"}
    assert of_held_out == of_members
    assert levels(result, "attribute.map/train_minus_held_out") == {}
    said = " ".join(findings(result))
    assert "The hidden column is guessed for" in said
    assert "what holds of the population" in said
    own, apart = (beside(result.summary[0], "attribute.map", name) for name in ("grown_tree", "grown_tree_held_out"))
    assert own is not None
    assert apart is not None
    assert f"gives them away: {100 * own:.0f}% of them against {100 * apart:.0f}% of others" in said
