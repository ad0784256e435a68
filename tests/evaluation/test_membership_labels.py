"""Attacks that see labels alone: distances and shares that are known in closed form."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from evaluation.access import Access, AccessError
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack, NotApplicable
from evaluation.membership.boundary import BoundaryDistance
from evaluation.membership.robustness import COPIES, NOISE, NoiseRobustness, ShiftRobustness
from evaluation.metrics import area_under_roc
from evaluation.target import Target

FREE = (-float("inf"), float("inf"))


def halfspace(width: int = 8) -> nn.Linear:
    """Class 1 where the first input is above 0."""
    linear = nn.Linear(width, 2)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    linear.weight.data[1, 0] = 1.0
    return linear


def distance_world(
    gap: float, seed: int = 0, count: int = 400, middle: float = 5.0
) -> tuple[Target, LabelledExamples, np.ndarray, np.ndarray]:
    """Distances to the boundary are N(middle, 1), of members N(middle + gap, 1): the best AUC is Φ(gap/√2)."""
    generator = np.random.default_rng(seed)
    is_member, labels = generator.random(count) < 0.5, generator.integers(0, 2, count)
    distance = middle + gap * is_member + generator.normal(size=count)
    inputs = generator.normal(size=(count, 8))
    inputs[:, 0] = (2 * labels - 1) * distance
    examples = LabelledExamples(torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(labels), np.arange(count))
    return Target(halfspace(), Access.LABEL, bounds=FREE, classes=2), examples, is_member, distance


def test_the_search_finds_the_distance_to_a_plane():
    target, examples, _, distance = distance_world(0.0)
    attack = BoundaryDistance()
    found = attack.run(target, examples, Knowledge())
    assert (found >= distance - 1e-3).all()
    assert np.median(found / distance) < 1.05
    assert np.quantile(found / distance, 0.99) < 1.2
    assert target.queries <= attack.queries * len(distance)


def test_more_queries_come_nearer():
    target, examples, _, distance = distance_world(0.0)
    few, many = (np.mean(BoundaryDistance(rounds=rounds).run(target, examples, Knowledge()) / distance) for rounds in (1, 8))
    assert many < few


def test_an_example_that_is_classified_wrongly_has_no_distance_and_bounds_are_kept():
    target, examples, _, _ = distance_world(0.0, count=60)
    turned = LabelledExamples(examples.inputs, 1 - examples.targets, examples.indices)
    assert (BoundaryDistance().run(target, turned, Knowledge()) == 0).all()

    seen: list[torch.Tensor] = []
    model = halfspace()
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    within = LabelledExamples(examples.inputs.clamp(-2, 2), examples.targets, examples.indices)
    BoundaryDistance(rounds=2).run(Target(model, Access.LABEL, bounds=(-2.0, 2.0), classes=2), within, Knowledge())
    assert max(float(given.abs().max()) for given in seen) <= 2.0 + 1e-6


def test_a_target_that_always_says_the_same_has_no_boundary():
    target, examples, _, _ = distance_world(0.0, count=20)
    examples.inputs[:, 0] = 3.0
    found = BoundaryDistance().run(target, examples, Knowledge())
    assert found.tolist() == examples.targets.double().tolist()


@pytest.mark.parametrize(("attack", "middle", "lost"), [(BoundaryDistance(), 5.0, 0.04), (NoiseRobustness(), 1.0, 0.1)])
def test_labels_alone_find_members_that_lie_further_from_the_boundary(attack: MembershipAttack, middle: float, lost: float):
    best, found = norm.cdf(1 / np.sqrt(2)), []
    for seed in range(3):
        target, examples, is_member, _ = distance_world(1.0, seed, middle=middle)
        found.append(area_under_roc(attack.run(target, examples, Knowledge()), is_member).value or 0.0)
    assert best - lost < np.mean(found) < best + 0.03


@pytest.mark.parametrize("attack", [BoundaryDistance(rounds=2), NoiseRobustness()])
def test_labels_alone_make_nothing_up(attack: MembershipAttack):
    found = []
    for seed in range(8):
        target, examples, is_member, _ = distance_world(0.0, seed)
        found.append(area_under_roc(attack.run(target, examples, Knowledge()), is_member).value or 0.0)
    assert np.mean(found) == pytest.approx(0.5, abs=0.025)


def test_noise_costs_what_it_says():
    target, examples, _, _ = distance_world(0.0, count=10)
    NoiseRobustness().run(target, examples, Knowledge())
    assert target.queries == 10 * (1 + len(NOISE) * COPIES)


class Column(nn.Module):
    """Class 1 where the middle column is bright."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        bright = inputs[:, 0, :, 3].mean(1) - 0.5
        return torch.stack([-bright, bright], dim=1)


def test_shifts_count_the_answers_that_stay_right():
    """A bright picture stands all 25; one bright column stands the 5 that move it up and down; a dark one none."""
    pictures = torch.zeros(3, 1, 7, 7)
    pictures[0], pictures[1, 0, :, 3] = 1.0, 1.0
    examples = LabelledExamples(pictures, torch.tensor([1, 1, 1]), np.arange(3))
    target = Target(Column(), Access.LABEL, bounds=(0.0, 1.0), classes=2)
    assert ShiftRobustness().run(target, examples, Knowledge()) == pytest.approx([1.0, 5 / 25, 0.0])


def test_label_attacks_ask_for_labels_and_nothing_else():
    target, examples, _, _ = distance_world(0.0, count=20)
    with pytest.raises(AccessError):
        target.scores(examples.inputs)
    for attack in (BoundaryDistance(rounds=1), NoiseRobustness()):
        assert attack.access is Access.LABEL
        assert np.isfinite(attack.run(target, examples, Knowledge())).all()


@pytest.mark.parametrize("attack", [BoundaryDistance(), NoiseRobustness(), ShiftRobustness()])
def test_a_model_of_values_has_no_labels(attack: MembershipAttack):
    line = Target(nn.Flatten(), Access.LABEL, bounds=(0.0, 1.0), classes=0, kind="regression")
    with pytest.raises(NotApplicable, match="value"):
        attack.run(line, LabelledExamples(torch.rand(4, 1, 1, 1), torch.rand(4), np.arange(4)), Knowledge())
    table = LabelledExamples(torch.rand(4, 3), torch.zeros(4, dtype=torch.long), np.arange(4))
    if isinstance(attack, ShiftRobustness):
        with pytest.raises(NotApplicable, match="pictures"):
            attack.run(Target(nn.Flatten(), Access.LABEL, bounds=(0.0, 1.0), classes=3), table, Knowledge())
