"""One run, white box: canaries of one coordinate each, through the engine that is audited.

The model is given m further weights that nothing else touches, and m canaries whose loss is a multiple of one of them:
each one's gradient is a Dirac, longer than C, so that the engine clips it to C. A canary that came in by its coin adds C to
its own coordinate of the sum in every batch that draws it. The observer sees what the mechanism releases, every noised
gradient g̃_t, and no more: the score of canary j is Σ_t g̃_t[j] (Nasr et al. 2023, "Tight Auditing of Differentially
Private Machine Learning"; Steinke, Nasr, Jagielski 2023, "Privacy Auditing with One (1) Training Run").

With B the expected batch size, Δ the sensitivity and T steps, one canary's game is that of Gaussians: in units of C / B the
score is Binomial(T, q), or 0, plus noise of standard deviation √T σ Δ / C. Under banded noise, and batches in which groups take
turns, both are smaller (:mod:`~evaluation.audit.mechanism`).

The training is the recipe's own, by ``build_training``: optimizer, schedule, average, regularization and early stopping are as
it states them. One part is left out. A student (``distillation``) is not made: it is made of weights that this observer sees
already, and what is claimed of it is what is claimed of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dptrain.clipping.fallback import LossFunction
from dptrain.data.dataset import DataSet
from dptrain.data.examples import Examples
from dptrain.errors import UserError
from dptrain.noise import secret_generator
from dptrain.private import PrivateTraining
from dptrain.recipe import Performance, Recipe
from dptrain.stopping import EarlyStopping
from dptrain.trainer import build_training
from evaluation.audit.game import Game, claim_of, coins, ended, played
from evaluation.audit.mechanism import Observer
from evaluation.result import AuditCheck

LENGTH = 100.0
"""Of a canary's gradient before it is clipped, in C."""


class WithCanaries(nn.Module):
    """A model beside ``canaries`` weights, ``[canaries + 1, 1]``, of which the last belongs to all that is no canary."""

    def __init__(self, model: nn.Module, canaries: int):
        super().__init__()
        self.model = model
        self.marks = nn.Embedding.from_pretrained(torch.zeros(canaries + 1, 1), freeze=False, padding_idx=canaries)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs)


@dataclass(frozen=True, eq=False)
class WhiteBox:
    """A game at each checkpoint, and the mechanism held against its own words over all steps."""

    games: tuple[Game, ...]
    checks: tuple[AuditCheck, ...]

    @property
    def game(self) -> Game:
        """At the last step."""
        return self.games[-1]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def play(
    recipe: Recipe,
    data: DataSet,
    members: np.ndarray,
    *,
    public: np.ndarray | None = None,
    canaries: int = 1000,
    seed: int = 0,
    performance: Performance | None = None,
    prepare: Callable[[PrivateTraining], None] | None = None,
) -> WhiteBox:
    """Trains the recipe once on ``members`` and the canaries whose coins said so.

    Args:
        members: indices of ordinary examples.
        public: indices of examples that everyone knows, for regularization that needs some.
        prepare: is handed the training before its first step; a test breaks it there.

    Raises:
        UserError: the recipe's plan promises nothing that could be audited.
        ConfigError: its regularization does not go with its plan, or needs public examples and has none.
    """
    plan = claim_of(recipe, public)
    if canaries < 10:
        raise UserError(f"{canaries} canaries show nothing, whatever becomes of them; give at least 10, better 1000")
    included = coins(canaries, secret_generator())

    def extend(model: nn.Module, examples: Examples, loss: LossFunction) -> tuple[nn.Module, TensorDataset, LossFunction]:
        audited = WithCanaries(model, canaries).train()
        return audited, _examples(examples, included), _loss(loss, LENGTH * plan.clipping_norm)

    training = build_training(recipe, data, members, seed, public=public, performance=performance, extend=extend)
    audited = training.model
    assert isinstance(audited, WithCanaries)
    observer = Observer(audited.marks.weight, included, plan)
    training.optimizer.register_step_pre_hook(observer)
    if prepare is not None:
        prepare(training)
    stopping = EarlyStopping.of(recipe, data, public, training)
    games = []
    for stop in played(training, stopping, recipe.training.stops):
        what = f"{canaries} Dirac gradients, one coordinate each{ended(training, stopping)}"
        games.append(Game(observer.total.numpy().copy(), included, replace(plan, steps=stop), "weights", what))
    return WhiteBox(tuple(games), observer.checks())


def _examples(ordinary: Examples, included: np.ndarray) -> TensorDataset:
    """Canaries first; their inputs are zeros and their labels the first class, which nothing reads."""
    inputs, targets = ordinary.take(np.arange(len(ordinary)))
    inside = torch.from_numpy(np.flatnonzero(included))
    none = torch.full((len(ordinary),), len(included))
    return TensorDataset(
        torch.cat([inputs.new_zeros(len(inside), *inputs.shape[1:]), inputs]),
        torch.cat([targets.new_zeros(len(inside)), targets]),
        torch.cat([inside, none]),
    )


def _loss(ordinary: LossFunction, length: float) -> LossFunction:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs, targets, mark = batch
        assert isinstance(model, WithCanaries)
        dirac = length * model.marks(mark)[:, 0]
        is_canary = mark < model.marks.num_embeddings - 1
        return torch.where(is_canary, dirac, ordinary(model, (inputs, targets)))

    return loss
