"""Class inversion by differences of shown scores, and what rounding takes from it."""

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.access import Access
from evaluation.inversion.blackbox import ScoreInversion, stepped
from evaluation.inversion.estimated_gradient import EstimatedGradient
from evaluation.inversion.generators import linear
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.inversion.prior import margins
from evaluation.target import Target
from tests.evaluation.test_inversion_prior import WIDE, Rounded, world


def run(attack: EstimatedGradient | ScoreInversion, target: Target, knowledge: ClassKnowledge) -> Tensor:
    return attack.run(target, knowledge, torch.Generator().manual_seed(0))


def identified(found: Tensor, means: Tensor, knowledge: ClassKnowledge) -> list[int]:
    """For each class, whose mean the picture is nearest to in direction."""
    middle = knowledge.public.mean(0)
    alike = nn.functional.cosine_similarity((found - middle)[:, None], (means - middle)[None], dim=2)
    return alike.argmax(1).tolist()


def test_the_first_step_is_that_of_the_exact_derivative():
    """Of a linear model the margin's derivative at the mean face is known; differences of exact scores agree with it."""
    model, knowledge, _ = world()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 0.2  # scores away from 0 and 1, where they are exact
    attack = EstimatedGradient(steps=1, difference=1e-3)
    found = run(attack, Target(model, Access.SCORES, bounds=WIDE, classes=4), knowledge)
    prior = linear(knowledge.public, knowledge.public_groups, components=attack.components, temper=1.0)
    leaf = prior.mean.repeat(4, 1).requires_grad_(True)
    (gradient,) = torch.autograd.grad(margins(model(leaf), torch.arange(4)).sum(), leaf)
    latent = stepped(prior, prior.pull(torch.zeros(4, prior.dimensions), gradient), attack.temper)
    expected = prior.decode(attack.reach * latent)
    agreement = nn.functional.cosine_similarity(found - prior.mean, expected - prior.mean)
    assert float(agreement.min()) > 0.999


def test_rounding_stops_whoever_keeps_to_close_neighbours():
    """Within their distance a rounded score does not change, unless a step lies between them: most classes stay at the mean
    face, and what moves goes along the one component that crossed it."""
    model, knowledge, means = world()
    rounded = Rounded(model, Access.SCORES, bounds=WIDE, classes=4)
    middle = knowledge.public.mean(0)
    found = run(EstimatedGradient(doublings=0), rounded, knowledge)
    assert int(((found - middle).norm(dim=1) > 1e-4).sum()) <= 1
    assert float(nn.functional.cosine_similarity(found - middle, means - middle).mean()) < 0.3


def test_rounding_does_not_stop_whoever_asks_about_neighbours_further_apart():
    for seed, most in ((0, 4), (1, 3), (2, 4)):
        model, knowledge, means = world(seed=seed)
        exact = Target(model, Access.SCORES, bounds=WIDE, classes=4)
        rounded = Rounded(model, Access.SCORES, bounds=WIDE, classes=4)
        for target, least in ((exact, 4), (rounded, most)):
            named = identified(run(EstimatedGradient(), target, knowledge), means, knowledge)
            assert sum(one == other for one, other in enumerate(named)) >= least
        assert identified(run(ScoreInversion(budget=4000), rounded, knowledge), means, knowledge) == [0, 1, 2, 3]


class Asked(Target):
    """Keeps what it was asked."""

    seen: list[Tensor]

    def scores(self, inputs: Tensor) -> np.ndarray:
        self.seen = [*getattr(self, "seen", []), inputs]
        return super().scores(inputs)


def test_of_exact_scores_the_closest_neighbours_are_enough():
    model, knowledge, _ = world()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 0.2  # scores away from 0 and 1
    once, often = (Asked(model, Access.SCORES, bounds=WIDE, classes=4) for _ in range(2))
    assert torch.equal(run(EstimatedGradient(doublings=0), once, knowledge), run(EstimatedGradient(), often, knowledge))
    assert once.queries == often.queries


def test_no_more_is_asked_than_the_budget_says():
    model, knowledge, _ = world()
    for budget in (10, 500, 12_000):
        target = Target(model, Access.SCORES, bounds=WIDE, classes=4)
        prior = linear(knowledge.public, knowledge.public_groups, components=120, temper=1.0)
        run(EstimatedGradient(budget=budget), target, knowledge)
        assert target.queries <= max(budget, 2 * prior.dimensions)


def test_pictures_stay_within_the_bounds_and_are_the_same_each_time():
    model, knowledge, _ = world()
    target = Target(model, Access.SCORES, bounds=(-0.5, 0.5), classes=4)
    found = run(EstimatedGradient(), target, knowledge)
    assert float(found.abs().max()) <= 0.5
    assert torch.equal(found, run(EstimatedGradient(), target, knowledge))
