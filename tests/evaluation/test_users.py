"""Where the unit is the user: one whose examples had coins of their own is guessed at example by example, and what holds of
one is what that is held against; one whose coin decided for all of them is guessed at whole."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, make_private
from dptrain.data import load
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, draw, split_of
from dptrain.fleet import draw_membership
from dptrain.recipe import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PrivacyConfig,
    Recipe,
    SecretsConfig,
    SplitConfig,
    TrainingConfig,
)
from dptrain.trainer import Trainer
from evaluation import analysis, evaluate, metrics, runner
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.attributes import largest_difference
from evaluation.baselines import blind_scores
from evaluation.membership import MembershipAttack
from evaluation.plan import EvaluationPlan
from evaluation.target import Target

pytestmark = pytest.mark.filterwarnings("ignore:delta is")

PLAN = PrivacyPlan(
    sampling_rate=1.0, expected_batch_size=2, steps=1, clipping_norm=1.0, delta=1e-3, noise_multiplier=1.0, unit="user",
    max_examples_per_unit=8,
)  # fmt: skip
WORDS = ["the", "king", "is", "here", "and", "so", "are", "all", "his", "men", "with", "horses"]
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
    (note,) = runner._of_units(case)
    assert "a user's contribution is exchanged for another" in note
    assert runner._of_units(dataclasses.replace(case, plan=dataclasses.replace(PLAN, noise_multiplier=0.0))) == ()


# -- one coin a user ------------------------------------------------------------------------------------------------


def users_world(users: int = 500, each: int = 4) -> tuple[DataSet, Split]:
    """Users of whom each says one word of their own again and again."""
    generator = torch.Generator().manual_seed(0)
    favourite = torch.randint(40, (users, 1), generator=generator).repeat_interleave(each, 0)
    targets = torch.where(torch.rand(users * each, 12, generator=generator) < 0.7, favourite, torch.arange(12) + 40)
    data = DataSet(
        "texts", targets, targets, tuple(map(str, range(52))), (0.0, 51.0), kind="text",
        users=torch.arange(users).repeat_interleave(each),
    )  # fmt: skip
    return data, split_of(data, SplitConfig(members=0.5, non_members=0.4, population=0.1, public=0.0), 0, "user")


def case_of(data: DataSet, split: Split) -> Case:
    target = Target(nn.Linear(3, 2), Access.WEIGHTS, bounds=data.bounds, classes=52, kind="language")
    return Case(target, None, data, split, PLAN, EvaluationPlan(attacks=("membership.threshold",)), 0)


def test_who_came_whole_is_guessed_at_whole_and_held_against_what_is_permitted_of_a_user():
    data, split = users_world()
    scores = np.random.default_rng(0).normal(size=len(data))
    scores[split.members] += 0.5
    result = analysis.membership(case_of(data, split), "membership.told", Told(scores))
    means = scores.reshape(-1, 4).mean(1)
    audited = split.audited[::4] // 4
    assert result.value == pytest.approx(metrics.area_under_roc(means[audited], np.isin(4 * audited, split.members)).value)
    assert result.value is not None
    assert result.value > 0.7  # four examples say more than one, whose AUC would be .64
    assert result.permitted == PLAN.permitted_auc()
    assert case_of(data, split).example_curve is PLAN.unit_curve()
    (note,) = runner._of_units(case_of(data, split))
    assert "membership attacks guess at users" in note


def test_users_of_equal_scores_are_told_apart_by_no_attack_and_by_as_many_as_they_are():
    data, split = users_world()
    noise = np.random.default_rng(1).normal(size=500).repeat(4)  # what is said of one example is said of all of them
    result = analysis.membership(case_of(data, split), "membership.told", Told(noise))
    assert result.low is not None
    assert result.high is not None
    assert result.low <= 0.5 <= result.high
    over_examples = metrics.area_under_roc(noise[split.audited], split.is_member)
    assert over_examples.low is not None
    assert over_examples.high is not None
    assert result.high - result.low > 1.8 * (over_examples.high - over_examples.low)


def test_a_blind_baseline_that_has_seen_the_user_already_is_no_baseline():
    """Users differ by themselves, members and non-members do not: only users whom it has not seen can show that."""
    data, split = users_world()
    blind = analysis._blind(data, split, 0)
    assert blind.low is not None
    assert blind.high is not None
    assert blind.low <= 0.5 <= blind.high
    index = torch.from_numpy(split.audited)
    mixed = blind_scores(data.inputs[index], data.targets[index], split.is_member, 52, 0)
    known = metrics.area_under_roc(*mixed)
    assert known.low is not None
    assert known.low > 0.55


def test_shadow_models_have_users_whole_as_the_target_has():
    users = np.array([3, 3, 9, 3, 9, 1, 1, 1])
    drawn = draw_membership(4000, 8, 0.3, test=np.array([5, 6, 7]), users=users)
    assert not drawn[:, 5:].any()
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 0] == drawn[:, 3]).all()
    assert (drawn[:, 2] == drawn[:, 4]).all()
    assert abs(drawn[:, 0].mean() - 0.3) < 0.03
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 2])[0, 1]) < 0.06


@pytest.mark.slow
def test_a_text_whose_users_are_known_is_trained_and_attacked_by_user_and_every_record_says_so(tmp_path: Path):
    generator = np.random.default_rng(0)
    with (tmp_path / "posts.csv").open("w") as handle:
        handle.write("author,body\n")
        handle.writelines(f"user {number % 60},{' '.join(generator.choice(WORDS, 12))}\n" for number in range(180))
    recipe = Recipe(
        data=DataConfig(
            name="text", path=str(tmp_path / "posts.csv"), text_column="body", user_column="author", sequence_length=32,
            secrets=SecretsConfig(each=3, insertions=(4,)),
            split=SplitConfig(members=0.5, non_members=0.5, population=0.0, public=0.0),
        ),
        model=ModelConfig(name="lstm", hidden=(8,)),
        optimizer=OptimizerConfig(name="adamw", learning_rate=0.01),
        privacy=PrivacyConfig(
            epsilon=8.0, delta=1e-3, unit="user", max_examples_per_unit=3, sampling_rate=0.5, expected_batch_size=16,
            clipping_norm=0.5,
        ),
        training=TrainingConfig(steps=3),
    )  # fmt: skip
    data = load(recipe.data)
    split = split_of(data, recipe.data.split, 0, "user")
    Trainer(recipe, data, split, seed=0, folder=tmp_path / "run", progress=False).run()
    card = json.loads((tmp_path / "run" / "release" / "card.json").read_text())
    assert card["guarantee"]["unit"] == "user"
    for said in (
        "differential privacy for one user",
        "sums one gradient a user",
        "of each user drawn at most 3 examples",
        "who is named in the column 'author'; no sequence is of two users",
        "under a made-up user of its own",
    ):
        assert said in card["guarantee"]["statement"]
    assert "several examples here" not in card["guarantee"]["statement"]
    attacks = ("membership.threshold", "membership.zlib", "membership.lira")
    result = evaluate(
        tmp_path / "run", data, plan=EvaluationPlan(attacks=attacks, shadow_models=4), recipe=recipe, progress=False
    )
    assert {attack.status for attack in result.attacks} == {"ok"}
    assert {attack.permitted for attack in result.attacks} == {PrivacyPlan.from_config(recipe.privacy, 3).permitted_auc()}
    assert any("membership attacks guess at users" in note for note in result.notes)
    assert result.guarantee is not None
    assert result.guarantee.unit == "user"


def test_a_hidden_column_is_held_against_what_is_permitted_of_one_example():
    assert largest_difference(PLAN) > largest_difference(dataclasses.replace(PLAN, unit="example", max_examples_per_unit=None))
