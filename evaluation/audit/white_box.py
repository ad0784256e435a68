"""One run, white box: canaries of one coordinate each, through the engine that is audited.

The model is given m further weights that nothing else touches, and m canaries whose loss is a multiple of one of them:
each one's gradient is a Dirac, longer than C, so that the engine clips it to C. A canary that came in by its coin adds C to
its own coordinate of the sum in every batch that draws it. The observer sees what the mechanism releases, every noised
gradient g̃_t, and no more: the score of canary j is Σ_t g̃_t[j] (Nasr et al. 2023, "Tight Auditing of Differentially
Private Machine Learning"; Steinke, Nasr, Jagielski 2023, "Privacy Auditing with One (1) Training Run").

With B the expected batch size, Δ the sensitivity and T steps, one canary's game is that of Gaussians: the score is
Binomial(T, q) C / B, or 0, plus noise of standard deviation √T σ Δ / B.

**The mechanism is also held against its own words.** Coordinates of canaries that stayed out hold noise alone, and there are
T of each; coordinates of those that came in say how much one example contributed to a step, and how often it was drawn. Noise
that is smaller than stated, a contribution longer than C, or more draws than q says show there long before a bound on ε could
exceed what is claimed, since a bound from one run is far from tight.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2, norm
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dptrain import models
from dptrain.clipping import Clipping
from dptrain.data.dataset import DataSet
from dptrain.errors import UserError
from dptrain.models import front
from dptrain.noise import secret_generator
from dptrain.plan import PrivacyPlan
from dptrain.private import PrivateTraining, make_private
from dptrain.recipe import Performance, Recipe
from dptrain.registry import LOSSES, OPTIMIZERS
from evaluation.audit.game import Game, coins
from evaluation.result import AuditCheck, Measure

CERTAIN = 1e-5
"""The chance that a check of a sound mechanism fails, each."""
LENGTH = 100.0
"""Of a canary's gradient before it is clipped, in C."""


class WithCanaries(nn.Module):
    """A model beside ``canaries`` weights, ``[canaries + 1, 1]``, of which the last belongs to all that is no canary."""

    def __init__(self, model: nn.Module, canaries: int):
        super().__init__()
        self.model = model
        self.marks = nn.Embedding(canaries + 1, 1, padding_idx=canaries)
        nn.init.zeros_(self.marks.weight)

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


class _Observer:
    """Sees each released update's part on the canaries' weights, as the optimizer does."""

    def __init__(self, marks: Tensor, canaries: int, included: np.ndarray):
        self._marks, self._canaries = marks, canaries
        self._out = torch.from_numpy(~included)
        self.total = torch.zeros(canaries, dtype=torch.float64)
        self.squares, self.highest, self.steps = 0.0, -math.inf, 0

    def __call__(self, *_: Any) -> None:
        assert self._marks.grad is not None
        seen = self._marks.grad[: self._canaries, 0].detach().double().cpu()
        self.total += seen
        self.squares += float(seen[self._out].square().sum())
        self.highest = max(self.highest, float(seen.max()))
        self.steps += 1


def play(
    recipe: Recipe,
    data: DataSet,
    members: np.ndarray,
    *,
    canaries: int = 1000,
    seed: int = 0,
    performance: Performance | None = None,
    prepare: Callable[[PrivateTraining], None] | None = None,
) -> WhiteBox:
    """Trains the recipe once on ``members`` and the canaries whose coins said so.

    Args:
        members: indices of ordinary examples.
        prepare: is handed the training before its first step; a test breaks it there.

    Raises:
        UserError: the recipe's plan promises nothing, so there is nothing to audit.
    """
    plan = PrivacyPlan.from_config(recipe.privacy, recipe.training.steps)
    if not plan.is_private:
        raise UserError("this recipe promises nothing (no noise, or no clipping), so there is no ε to audit; give a budget")
    if canaries < 10:
        raise UserError(f"{canaries} canaries show nothing, whatever becomes of them; give at least 10, better 1000")
    included = coins(canaries, secret_generator())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = models.build(recipe.model, data.input_shape, len(data.classes), recipe.regularization)
        audited = WithCanaries(model, canaries).train()
    optimizer = OPTIMIZERS[recipe.optimizer.name](audited, recipe.optimizer, recipe.regularization)
    training = make_private(
        audited,
        optimizer,
        _examples(model, data, members, included),
        plan,
        loss=_loss(recipe, plan),
        performance=performance,
    )
    observer = _Observer(audited.marks.weight, canaries, included)
    optimizer.register_step_pre_hook(observer)
    if prepare is not None:
        prepare(training)
    games = []
    for batch in training.batches():
        training.step(batch)
        if training.steps_taken in recipe.training.stops:
            until = replace(plan, steps=training.steps_taken)
            what = f"{canaries} Dirac gradients, one coordinate each"
            games.append(Game(observer.total.numpy().copy(), included, until, "weights", what))
    return WhiteBox(tuple(games), _checks(observer, games[-1]))


def _examples(model: nn.Module, data: DataSet, members: np.ndarray, included: np.ndarray) -> TensorDataset:
    """Canaries first; their inputs are zeros and their labels the first class, which nothing reads."""
    inputs = front.made(model.front, data) if isinstance(model, front.WithFront) else data.inputs
    inside = torch.from_numpy(np.flatnonzero(included))
    ordinary = torch.from_numpy(members)
    none = torch.full((len(members),), len(included))
    return TensorDataset(
        torch.cat([inputs.new_zeros(len(inside), *inputs.shape[1:]), inputs[ordinary]]),
        torch.cat([data.targets.new_zeros(len(inside)), data.targets[ordinary]]),
        torch.cat([inside, none]),
    )


def _loss(recipe: Recipe, plan: PrivacyPlan) -> Callable[[nn.Module, Any], Tensor]:
    ordinary = LOSSES[recipe.training.loss]
    length = LENGTH * plan.clipping_norm

    def loss(model: nn.Module, batch: Any) -> Tensor:
        inputs, targets, mark = batch
        assert isinstance(model, WithCanaries)
        dirac = length * model.marks(mark)[:, 0]
        is_canary = mark < model.marks.num_embeddings - 1
        return torch.where(is_canary, dirac, ordinary(model, (inputs, targets), recipe.regularization))

    return loss


def _checks(observer: _Observer, game: Game) -> tuple[AuditCheck, ...]:
    """In units of C / B, in which one example's contribution to a step is at most 1.

    * noise: T times the number of canaries that stayed out squares of N(0, s²), so that their sum over s² is χ².
    * length: no coordinate of any step exceeds 1 + s z with z the quantile for all of them together.
    * draws: the mean score of those that came in is at most q T with variance (q (1 − q) T + s² T) over their number.
    """
    plan, steps = game.plan, observer.steps
    unit = plan.clipping_norm / plan.expected_batch_size
    deviation = plan.noise_multiplier * Clipping.of(plan).sensitivity / plan.clipping_norm
    found = []
    samples = int((~game.included).sum()) * steps
    if samples and plan.noise == "independent":
        squares = observer.squares / unit**2
        low, high = (math.sqrt(squares / chi2.ppf(tail, samples)) for tail in (1 - CERTAIN, CERTAIN))
        seen = Measure(name="noise", value=math.sqrt(squares / samples), low=low, high=high, confidence=1 - 2 * CERTAIN)
        what = "standard deviation of the noise in each coordinate of a step, in clipping norms, is not below what is stated"
        found.append(AuditCheck(name="noise", stated=deviation, seen=seen, ok=high >= deviation, what=what))
    most = 1 + deviation * float(norm.isf(CERTAIN / (len(game.scores) * steps)))
    peak = Measure(name="contribution", value=observer.highest / unit)
    what = "no example adds more than the clipping norm to a step, beyond what the noise explains"
    found.append(AuditCheck(name="contribution", stated=most, seen=peak, ok=observer.highest / unit <= most, what=what))
    count = int(game.included.sum())
    if count:
        rate = plan.sampling_rate
        mean = float(game.scores[game.included].mean()) / unit / steps
        spread = math.sqrt((rate * (1 - rate) + deviation**2) / (steps * count))
        half = float(norm.isf(CERTAIN)) * spread
        seen = Measure(name="draws", value=mean, low=mean - half, high=mean + half, confidence=1 - 2 * CERTAIN)
        what = "an example contributes to no larger share of the steps than the sampling rate says"
        found.append(AuditCheck(name="draws", stated=rate, seen=seen, ok=mean - half <= rate, what=what))
    return tuple(found)
