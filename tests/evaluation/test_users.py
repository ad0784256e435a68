"""Where the unit is the user, attacks still guess at one example, and what they are held against is what holds of one."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, make_private
from dptrain.data.dataset import DataSet
from dptrain.data.split import draw
from dptrain.recipe import SplitConfig
from evaluation import analysis, metrics, runner
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.attributes import largest_difference
from evaluation.membership import MembershipAttack
from evaluation.plan import EvaluationPlan
from evaluation.target import Target

pytestmark = pytest.mark.filterwarnings("ignore:delta is")

PLAN = PrivacyPlan(
    sampling_rate=1.0, expected_batch_size=2, steps=1, clipping_norm=1.0, delta=1e-3, noise_multiplier=1.0, unit="user",
    max_examples_per_unit=8,
)  # fmt: skip
STAYS, MEMBER, ANOTHER = -2.0, 30.0, 1e-9
"""One user's examples, of which the second may be missing, and another user's. The gradient is the input."""


def contributed(member: bool) -> float:
    """What the first user adds to a sum, with or without the member, by the engine: the noise is next to none."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    inputs = torch.tensor([[STAYS], [MEMBER], [ANOTHER]] if member else [[STAYS], [ANOTHER]])
    users = np.array([0] * (len(inputs) - 1) + [1])
    training = make_private(
        model, torch.optim.SGD(model.parameters(), lr=1.0), TensorDataset(inputs, torch.zeros(len(inputs))),
        dataclasses.replace(PLAN, noise_multiplier=1e-4), loss=lambda model, batch: model(batch[0])[:, 0], units=users,
    )  # fmt: skip
    for batch in training.batches():
        training.step(batch)
    return -float(model.weight.detach()) * PLAN.expected_batch_size


def test_an_example_whose_user_stays_is_told_apart_better_than_the_user_and_no_better_than_an_exchange():
    """His gradient turns from −C to C: what is permitted of a user's presence is no bound on that, and of an exchange it is."""
    with_member, without = contributed(member=True), contributed(member=False)
    assert with_member - without == pytest.approx(2 * PLAN.clipping_norm, abs=0.01)
    trials = 1000
    is_member = np.arange(2 * trials) < trials
    deviation = PLAN.noise_multiplier * PLAN.sensitivity
    scores = np.where(is_member, with_member, without) + deviation * np.random.default_rng(0).normal(size=2 * trials)
    area = metrics.area_under_roc(scores, is_member)
    assert area.low is not None
    assert area.low > PLAN.permitted_auc()
    assert metrics.crossing(scores, is_member, PLAN.permitted_true_positive_rates) is not None
    assert area.low <= PLAN.example_curve().auc()
    assert metrics.crossing(scores, is_member, PLAN.example_curve().true_positive_rates) is None


@dataclasses.dataclass(frozen=True)
class Told(MembershipAttack):
    """Scores that are given to it."""

    scores: np.ndarray

    access: ClassVar[Access] = Access.LABEL
    paper: ClassVar[str] = "none"

    def run(self, target, examples, knowledge):
        return self.scores[examples.indices]


def test_a_membership_figure_is_held_against_what_is_permitted_of_one_example():
    """Scores that a sound mechanism can give: within the plan, where the curve of a user's presence says above it."""
    generator = torch.Generator().manual_seed(0)
    data = DataSet(
        "users", torch.rand(2000, 3, generator=generator), torch.arange(2000) % 2, ("a", "b"), (0.0, 1.0), kind="table",
        users=torch.arange(2000) // 4,
    )  # fmt: skip
    split = draw(len(data), SplitConfig(members=0.5, non_members=0.4, population=0.05, public=0.05), 0)
    scores = np.random.default_rng(0).normal(size=len(data))
    scores[split.members] += 1.8
    case = Case(
        Target(nn.Linear(3, 2), Access.WEIGHTS, bounds=data.bounds, classes=2), None, data, split, PLAN, EvaluationPlan(), 0
    )
    result = analysis.membership(case, "membership.told", Told(scores))
    curve = PLAN.example_curve()
    assert result.low is not None
    assert result.low > PLAN.permitted_auc()
    assert result.verdict == "within the plan"
    assert result.permitted == curve.auc()
    assert result.permitted_metrics == {"tpr_at_fpr_0.01": curve.true_positive_rate(0.01)}
    assert result.permitted_curve is not None
    drawn = result.permitted_curve
    again = curve.true_positive_rates(np.array(drawn.false_positive_rate))
    np.testing.assert_allclose(again, drawn.true_positive_rate, atol=1e-3)  # rates are kept to six digits
    (note,) = runner._of_examples(case)
    assert "a user's contribution is exchanged for another" in note
    assert runner._of_examples(dataclasses.replace(case, plan=dataclasses.replace(PLAN, noise_multiplier=0.0))) == ()


def test_a_hidden_column_is_held_against_what_is_permitted_of_one_example():
    assert largest_difference(PLAN) > largest_difference(dataclasses.replace(PLAN, unit="example", max_examples_per_unit=None))
