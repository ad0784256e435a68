"""Worlds in which the best attack is known: models whose answers are drawn from Gaussians."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import norm
from torch import nn

from dptrain.fleet import Fleet, draw_membership
from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.metrics import area_under_roc
from evaluation.target import Kind, Target

KNOWING_EASE = float(norm.cdf(1 / np.sqrt(2)))
"""The best AUC for a gap of 1, .760."""
KNOWING_NOTHING = float(norm.cdf(1 / np.sqrt(2 * (1.5**2 + 1))))
"""The same where ease is not known, .652."""


class Table(nn.Module):
    """Answers example number i (its first input) with row i of a table of logits."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.logits[inputs[:, 0].long()]


def target_of(logits: np.ndarray, access: Access = Access.SCORES, kind: Kind = "classification") -> Target:
    table = Table(torch.tensor(logits, dtype=torch.float32))
    return Target(table, access, bounds=(0.0, 1e6), classes=logits.shape[1], kind=kind)


def numbered(count: int, targets: np.ndarray) -> LabelledExamples:
    indices = np.arange(count)
    return LabelledExamples(torch.arange(count, dtype=torch.float32)[:, None], torch.from_numpy(targets), indices)


@dataclass(frozen=True, eq=False)
class World:
    """A target, the examples whose membership is guessed, and all that an attacker may know."""

    target: Target
    examples: LabelledExamples
    knowledge: Knowledge
    is_member: np.ndarray

    def area(self, attack: MembershipAttack) -> float:
        scores = attack.run(self.target.behind(attack.access), self.examples, self.knowledge)
        assert scores.shape == self.is_member.shape
        return float(area_under_roc(scores, self.is_member).value or 0.0)


def mean_area(attack: MembershipAttack, worlds: list[World]) -> float:
    return float(np.mean([world.area(attack) for world in worlds]))


def _world(
    answers: np.ndarray, targets: torch.Tensor, inputs: torch.Tensor, membership: np.ndarray, audited: int, kind: Kind
) -> World:
    """The first model is the target, the first examples are audited, the others are the population."""
    everyone = np.arange(len(targets))
    parts = [LabelledExamples(inputs[index], targets[index], index) for index in (everyone[:audited], everyone[audited:])]
    knowledge = Knowledge(population=parts[1], fleet=Fleet(answers[1:], membership[1:], "digest"))
    return World(target_of(answers[0], kind=kind), parts[0], knowledge, membership[0, :audited])


def classes_world(
    gap: float,
    models: int = 48,
    examples: int = 800,
    population: int = 400,
    *,
    middle: float = -10.0,
    of_class: float = 0.0,
    of_input: float = 0.0,
    own: float = 1.5,
    seed: int = 0,
) -> World:
    """Two classes; log-odds of the true one are ease + gap · member + N(0, 1) in every model.

    The ease of an example is ``middle ± of_class + of_input · its input + own · N(0, 1)``. Knowing it, the best AUC is
    Φ(gap/√2); knowing nothing, where only ``own`` varies, Φ(gap/√(2 (own² + 1))). Where log-odds are far below 0 they are
    also the log-probability.
    """
    generator = np.random.default_rng(seed)
    count = examples + population
    labels, hidden = generator.integers(0, 2, count), generator.normal(size=count)
    ease = middle + of_class * (2 * labels - 1) + of_input * hidden + own * generator.normal(size=count)
    membership = draw_membership(models + 1, count, 0.5, seed)
    membership[0, examples:] = False
    odds = ease + gap * membership + generator.normal(size=membership.shape)
    answers = np.zeros((*odds.shape, 2))
    answers[:, np.arange(count), labels] = odds
    inputs = torch.from_numpy(np.stack([np.arange(count), hidden], axis=1).astype(np.float32))
    return _world(answers, torch.from_numpy(labels), inputs, membership, examples, "classification")


def values_world(gap: float, models: int = 48, examples: int = 800, population: int = 400, seed: int = 0) -> World:
    """Values to predict; the residual is N(±(ease − gap · member), 1) with an ease between 5 and 12, its sign the example's.

    Knowing ease and sign, the best AUC is Φ(gap/√2).
    """
    generator = np.random.default_rng(seed)
    count = examples + population
    ease, sign = generator.uniform(5, 12, count), generator.choice([-1.0, 1.0], count)
    membership = draw_membership(models + 1, count, 0.5, seed)
    membership[0, examples:] = False
    residual = sign * (ease - gap * membership) + generator.normal(size=membership.shape)
    targets = generator.normal(size=count).astype(np.float32)
    inputs = torch.from_numpy(np.stack([np.arange(count), ease], axis=1).astype(np.float32))
    answers = (targets + residual)[..., None]
    return _world(answers, torch.from_numpy(targets), inputs, membership, examples, "regression")
