"""Attacks on models whose leak is known: a signal is found, its absence is not made up."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dptrain.errors import DataError, UserError
from dptrain.fleet import Fleet, draw_membership
from evaluation.access import Access, AccessError
from evaluation.baselines import blind_scores, permuted
from evaluation.inversion.class_ import ClassInversion
from evaluation.inversion.evaluator import Judge, class_means, nearest_distance
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.inversion.logit import LogitInversion
from evaluation.inversion.pictures import SMOOTHED, variation_gradient
from evaluation.membership import Knowledge
from evaluation.membership.lira import Lira, log_likelihood_ratio
from evaluation.membership.signal import log_softmax, rescaled
from evaluation.membership.threshold import LossThreshold
from evaluation.metrics import area_under_roc
from evaluation.target import Target
from tests.evaluation.worlds import numbered, target_of

# -- access ---------------------------------------------------------------------------------------------------------


def test_an_attacker_gets_his_level_and_no_more():
    logits = np.array([[2.0, 1.0, 0.0]])
    inputs = torch.zeros(1, 1)
    for access in Access:
        target = target_of(logits, access)
        calls = {
            Access.LABEL: lambda t=target: t.labels(inputs),
            Access.SCORES: lambda t=target: t.scores(inputs),
            Access.LOGITS: lambda t=target: t.logits(inputs),
            Access.WEIGHTS: lambda t=target: t.weights(),
        }
        for needed, call in calls.items():
            if access >= needed:
                call()
            else:
                with pytest.raises(AccessError, match=access.word):
                    call()


def test_gradients_need_their_own_level():
    model = nn.Linear(2, 3)
    target = Target(model, Access.LOGITS, bounds=(0.0, 1.0), classes=3)
    with pytest.raises(AccessError, match="gradients"):
        target.gradient(torch.zeros(1, 2), lambda logits: logits[:, 0])
    gradient, value = target.behind(Access.GRADIENTS).gradient(torch.zeros(1, 2), lambda logits: logits[:, 0])
    torch.testing.assert_close(gradient[0], model.weight[0].detach())
    torch.testing.assert_close(value, model.bias[:1].detach())


def test_scores_are_probabilities_also_where_float32_would_round_them_to_one():
    scores = target_of(np.array([[60.0, 0.0, 0.0]])).scores(torch.zeros(1, 1))
    assert scores.sum() == pytest.approx(1.0)
    assert scores[0, 1] == pytest.approx(np.exp(-60), rel=1e-6)


# -- membership -----------------------------------------------------------------------------------------------------


def test_the_rescaled_logit_is_log_odds_without_cancellation():
    logits = np.array([[2.0, 1.0, -1.0], [300.0, 0.0, 0.0], [0.0, 300.0, 0.0]])
    phi = rescaled(log_softmax(logits), np.array([0, 0, 0]))
    probability = np.exp(2) / np.exp([2.0, 1.0, -1.0]).sum()
    assert phi[0] == pytest.approx(np.log(probability / (1 - probability)))
    assert phi[1] == pytest.approx(300 - np.log(2), abs=1e-6)
    assert phi[2] == pytest.approx(-300, abs=1e-6)
    assert np.isfinite(phi).all()


def test_scores_of_exactly_zero_and_one_give_finite_log_odds():
    with np.errstate(divide="ignore"):
        phi = rescaled(np.log(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])), np.array([0, 0]))
    assert np.isfinite(phi).all()
    assert phi[0] > 700
    assert phi[1] < -700


def gaussian_world(gap: float, models: int, examples: int = 600, seed: int = 0) -> tuple[np.ndarray, Fleet, np.ndarray]:
    """Binary logits: hard and easy examples, and members higher by ``gap``. Gives target logits, fleet, membership."""
    generator = np.random.default_rng(seed)
    ease = 3 * generator.normal(size=examples)
    membership = draw_membership(models + 1, examples, 0.5, seed)
    phi = ease + gap * membership + generator.normal(size=membership.shape)
    logits = np.stack([phi, np.zeros_like(phi)], axis=-1)
    return logits[0], Fleet(logits[1:], membership[1:], "digest"), membership[0]


@pytest.mark.parametrize("models", [16, 128])
def test_lira_finds_what_the_threshold_cannot(models: int):
    """The likelihood ratio of N(μ+1, 1) against N(μ, 1) has AUC Φ(1/√2) = .760; the loss alone sees hardness first."""
    logits, fleet, is_member = gaussian_world(1.0, models)
    examples = numbered(600, np.zeros(600, dtype=np.int64))
    lira = Lira().run(target_of(logits), examples, Knowledge(fleet=fleet))
    loss = LossThreshold().run(target_of(logits), examples, Knowledge())
    assert area_under_roc(lira, is_member).value == pytest.approx(0.760, abs=0.05)
    assert (area_under_roc(loss, is_member).value or 1.0) < 0.65


def test_lira_makes_nothing_up():
    """No gap between members and non-members: chance, on average over targets."""
    found = []
    for seed in range(12):
        logits, fleet, is_member = gaussian_world(0.0, 16, seed=seed)
        scores = Lira().run(target_of(logits), numbered(600, np.zeros(600, dtype=np.int64)), Knowledge(fleet=fleet))
        found.append(area_under_roc(scores, is_member).value)
    assert np.mean(found) == pytest.approx(0.5, abs=0.015)


def test_lira_needs_models_with_and_without_and_says_so():
    logits, fleet, is_member = gaussian_world(1.0, 1)
    examples = numbered(600, np.zeros(600, dtype=np.int64))
    scores = Lira().run(target_of(logits), examples, Knowledge(fleet=fleet))  # one model is enough
    assert (area_under_roc(scores, is_member).value or 0.0) > 0.55
    nothing = dataclasses.replace(fleet, membership=np.zeros_like(fleet.membership))
    with pytest.raises(UserError, match="shadow_models"):
        Lira().run(target_of(logits), examples, Knowledge(fleet=nothing))
    with pytest.raises(UserError, match="retrain"):
        Lira().run(target_of(logits), examples, Knowledge())


def test_the_ratio_is_that_of_two_gaussians():
    shadows = np.tile(np.array([[3.0], [5.0], [0.0], [2.0]]), 12)
    inside = np.tile(np.array([[True], [True], [False], [False]]), 12)
    found = log_likelihood_ratio(np.full(12, 3.0), shadows, inside)
    # Pooled: mean 4 in, mean 1 out, variance 2 each. −(3−4)²/4 + (3−1)²/4
    assert found == pytest.approx(np.full(12, -0.25 + 1.0))


def test_an_example_that_no_shadow_model_had_borrows_the_mean_gap():
    shadows = np.tile(np.array([[3.0], [5.0], [0.0], [2.0]]), 14)
    inside = np.tile(np.array([[True], [True], [False], [False]]), 14)
    shadows[:, 13], inside[:, 13] = [0.0, 2.0, 0.0, 2.0], False
    found = log_likelihood_ratio(np.full(14, 3.0), shadows, inside)
    assert found[13] == pytest.approx(-((3 - 4) ** 2) / (2 * 2) + (3 - 1) ** 2 / (2 * 2), abs=0.1)


def test_a_blind_classifier_sees_a_shift_and_nothing_else():
    """Rule 2."""
    generator = np.random.default_rng(0)
    is_member = generator.random(800) < 0.5
    inputs = generator.normal(size=(800, 6)).astype(np.float32)
    targets = torch.from_numpy(generator.integers(0, 3, 800))
    same = blind_scores(torch.from_numpy(inputs), targets, is_member, 3, 0)
    inputs[is_member, 2] += 1.5
    shifted = blind_scores(torch.from_numpy(inputs), targets, is_member, 3, 0)
    assert area_under_roc(*same).value == pytest.approx(0.5, abs=0.08)
    assert (area_under_roc(*shifted).low or 0.0) > 0.7


def test_the_blind_interval_covers_chance_as_often_as_it_says():
    """No shift: the 95% interval holds .5 in about 95 of 100 splits, so that the gate does not withhold by accident."""
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(100):
        inputs = torch.from_numpy(generator.normal(size=(200, 3)).astype(np.float32))
        targets = torch.from_numpy(generator.integers(0, 2, 200))
        found = area_under_roc(*blind_scores(inputs, targets, generator.random(200) < 0.5, 2, seed))
        covered += (found.low or 0.0) <= 0.5 <= (found.high or 1.0)
    assert covered >= 89


def test_permuted_membership_keeps_the_numbers():
    is_member = np.arange(100) < 30
    dealt = permuted(is_member, 1)
    assert dealt.sum() == 30
    assert not np.array_equal(dealt, is_member)


# -- inversion ------------------------------------------------------------------------------------------------------


def template_model(scale: float = 4.0) -> tuple[nn.Sequential, torch.Tensor]:
    """A linear model whose score for class k is highest at template k."""
    templates = torch.eye(4).repeat_interleave(4, dim=1)  # [4, 16]
    linear = nn.Linear(16, 4)
    linear.weight.data, linear.bias.data = scale * (templates - 0.25), torch.zeros(4)
    return nn.Sequential(nn.Flatten(), linear), templates.view(4, 1, 4, 4)


NOTHING_PUBLIC = ClassKnowledge((1, 4, 4), torch.empty(0, 1, 4, 4))


def test_inversion_finds_the_templates_of_a_linear_model():
    model, templates = template_model()
    target = Target(model, Access.GRADIENTS, bounds=(0.0, 1.0), classes=4)
    found = ClassInversion(steps=200, restarts=2, enough=1e-4).run(target, NOTHING_PUBLIC, torch.Generator().manual_seed(0))
    assert found.shape == (4, 1, 4, 4)
    assert float(found.min()) >= 0.0
    assert float(found.max()) <= 1.0
    apart = torch.cdist(found.flatten(1), templates.flatten(1))
    assert apart.argmin(1).tolist() == [0, 1, 2, 3]
    assert model(found).softmax(1).diagonal().min() > 0.99


def test_inversion_needs_gradients_and_leaves_the_weights_alone():
    model, _ = template_model()
    with pytest.raises(AccessError):
        ClassInversion().run(
            Target(model, Access.SCORES, bounds=(0.0, 1.0), classes=4),
            NOTHING_PUBLIC,
            torch.Generator(),
        )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    target = Target(model, Access.GRADIENTS, bounds=(0.0, 1.0), classes=4)
    ClassInversion(steps=5).run(target, NOTHING_PUBLIC, torch.Generator())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters())


def test_inversion_stops_when_it_is_sure_and_when_it_gets_no_further():
    """MI-Face stops when the cost is low enough, or has not fallen for a while (ART has the second inverted)."""
    model, _ = template_model(scale=40.0)
    target = Target(model, Access.GRADIENTS, bounds=(0.0, 1.0), classes=4)
    ClassInversion(steps=5000, restarts=1).run(target, NOTHING_PUBLIC, torch.Generator())
    assert 0 < target.queries < 4 * 100
    linear = nn.Linear(16, 4)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    stuck = Target(nn.Sequential(nn.Flatten(), linear), Access.GRADIENTS, bounds=(0.0, 1.0), classes=4)
    attack = ClassInversion(steps=5000, restarts=1, patience=10)
    attack._descend(stuck, torch.full((4, 1, 4, 4), 0.5))
    assert stuck.queries <= 4 * 12


def test_inversion_through_logits_goes_to_the_corner_that_a_linear_class_asks_for_and_draws_nothing():
    """Of logits Wx the derivative is W's row: every number ends at the bound on the side of its weight's sign."""
    linear = nn.Linear(9, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, -1, 1, -1, 1, -1, 1, -1, 1], [-1, -1, -1, 1, 1, 1, 2, 2, -2]]))
    target = Target(nn.Sequential(nn.Flatten(), linear), Access.GRADIENTS, bounds=(-0.5, 0.5), classes=2)
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    found = LogitInversion(reach=40.0).run(target, ClassKnowledge((1, 3, 3), torch.zeros(0, 1, 3, 3)), generator)
    assert torch.equal(found.flatten(1), linear.weight.detach().sign() / 2)
    assert torch.equal(generator.get_state(), before)
    assert target.queries == 2 * 120


def test_the_derivative_of_total_variation_is_the_formulas():
    """Of a step of height 1 between two halves: nothing but the two columns at the step feels it, with opposite signs."""
    step = torch.zeros(1, 1, 4, 6)
    step[..., 3:] = 1.0
    gradient = variation_gradient(step)
    expected = 1 / math.sqrt(1 + SMOOTHED**2) / step.numel()
    assert gradient[0, 0, :, 3] == pytest.approx(expected)
    assert gradient[0, 0, :, 2] == pytest.approx(-expected)
    assert float(gradient[..., [0, 1, 4, 5]].abs().max()) == 0
    assert float(variation_gradient(torch.full((2, 1, 5, 5), 0.3)).abs().max()) == 0


def test_priors_of_pictures_smooth_large_pictures_and_leave_small_ones_alone():
    generator = torch.Generator().manual_seed(0)

    def found(side: int, **options: Any) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(side * side, 3))
        target = Target(model, Access.GRADIENTS, bounds=(0.0, 1.0), classes=3)
        knowledge = ClassKnowledge((1, side, side), torch.zeros(0, 1, side, side))
        return ClassInversion(steps=40, restarts=1, enough=0.0, **options).run(target, knowledge, generator)

    def roughness(pictures: torch.Tensor) -> float:
        return float((pictures[..., 1:] - pictures[..., :-1]).abs().mean())

    plain = found(16, total_variation=0.0, blur=0.0)
    assert roughness(found(16, blur=0.0)) < 0.8 * roughness(plain)
    assert roughness(found(16, total_variation=0.0)) < 0.8 * roughness(plain)
    assert torch.equal(found(15), found(15, total_variation=0.0, blur=0.0))


def test_the_judge_is_another_architecture_and_prints_its_own_accuracy():
    """Rule 8."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(4).repeat(30)
    inputs = template_model()[1][targets] + 0.2 * torch.randn(120, 1, 4, 4, generator=generator)
    judge = Judge.train(inputs[:80], targets[:80], 4)
    assert not isinstance(judge.model, nn.Module)
    accuracy = judge.accuracy(inputs[80:], targets[80:])
    assert accuracy.value == 1.0
    assert accuracy.low is not None
    assert accuracy.low < 1.0
    with pytest.raises(DataError, match=r"finds 0 examples of class 2 to learn from.*more examples of each class"):
        Judge.train(inputs[targets != 2], targets[targets != 2], 4)


def test_distances_and_means_are_per_input():
    inputs = torch.tensor([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]])
    assert class_means(inputs, torch.tensor([0, 0, 1]), 2).tolist() == [[1.0, 1.0], [4.0, 4.0]]
    assert nearest_distance(torch.tensor([[3.0, 3.5]]), inputs)[0] == pytest.approx(np.sqrt((1 + 0.25) / 2))
