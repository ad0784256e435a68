"""Audits by outputs alone: of many models with and without one canary, or of one model with many canaries.

* :func:`one_run`: m canaries, each in or out by its coin, and one training (Steinke, Nasr, Jagielski 2023). The score of a
  canary is the log-odds of its label.
* :func:`many_runs`: one canary, which is in each of many trainings by a coin; otherwise they share everything but batches
  and noise. The score of a *model* is its log-odds of the canary's label.

In both the observer asks each checkpoint of the recipe about the canary, once, and there is a game for each. What he asks is
what the recipe releases: the averaged weights or a student, after early stopping where there is any. Public examples that these
learn from are no canary and no spare example. ``initial``
weights are the auditor's to choose: ε promises something for every initialisation. Those of :func:`settled` have learnt from
other examples, so that the records say little and the canary a lot (Annamalai and De Cristofaro 2024, "Nearly Tight Black-Box
Auditing of Differentially Private Machine Learning").
"""

import dataclasses
import functools
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dptrain import models
from dptrain.data.dataset import DataSet
from dptrain.distillation import released_model
from dptrain.errors import UserError
from dptrain.noise import secret_generator
from dptrain.plan import PrivacyPlan
from dptrain.recipe import Performance, Recipe
from dptrain.registry import LOSSES
from dptrain.stopping import EarlyStopping
from dptrain.trainer import build_training
from evaluation.audit.canaries import Kind, make, worst_case
from evaluation.audit.game import Game, claim_of, coins, ended, played
from evaluation.membership.signal import signal

SETTLING = 200
"""Updates of :func:`settled`."""
SETTLING_BATCH = 512


@dataclass(frozen=True, eq=False)
class _Examples:
    """Members, public examples and canaries in one data set, in this order, and their indices."""

    data: DataSet
    members: np.ndarray
    public: np.ndarray
    canaries: np.ndarray

    @classmethod
    def of(cls, data: DataSet, members: np.ndarray, public: np.ndarray, inputs: Tensor, labels: Tensor) -> Self:
        index = torch.from_numpy(np.concatenate([members, public]))
        whole = dataclasses.replace(
            data,
            inputs=torch.cat([data.inputs[index], inputs]),
            targets=torch.cat([data.targets[index], labels]),
            published_test=0,
        )
        return cls(whole, *np.split(np.arange(len(whole)), [len(members), len(index)]))


def one_run(
    recipe: Recipe,
    data: DataSet,
    members: np.ndarray,
    spare: np.ndarray,
    *,
    public: np.ndarray | None = None,
    kind: Kind = "mislabelled",
    canaries: int = 1000,
    seed: int = 0,
    performance: Performance | None = None,
) -> list[Game]:
    """One training on ``members`` and the canaries whose coins said so.

    Args:
        spare: examples that canaries may be made of.
        public: indices of examples that everyone knows, for regularization that needs some.

    Raises:
        UserError: the recipe's plan promises nothing that could be audited, or there are too few spare examples.
        ConfigError: its regularization does not go with its plan, or needs public examples and has none.
    """
    plan, known = claim_of(recipe, public), _known(recipe, public)
    inputs, labels = make(kind, data, np.setdiff1d(spare, known), canaries, secret_generator())
    included = coins(canaries, secret_generator())
    examples = _Examples.of(data, members, known, inputs, labels)
    scores, end = _asked(recipe, examples, included, seed, performance=performance)
    what = f"{canaries} canaries, {kind}, in one training{end}"
    return [Game(found, included, until, "scores", what) for found, until in zip(scores, _plans(plan, recipe), strict=True)]


def many_runs(
    recipe: Recipe,
    data: DataSet,
    members: np.ndarray,
    spare: np.ndarray,
    *,
    public: np.ndarray | None = None,
    kind: Kind | None = None,
    trainings: int = 1000,
    seed: int = 0,
    jobs: int = 1,
    progress: bool = True,
) -> list[Game]:
    """Many trainings on ``members``, and in each by a coin the same one canary.

    Args:
        kind: of the canary, with the recipe's own initial weights; left out, initial weights and canary are the worst case.
        spare: examples that the initial weights, or the canary, may be made of.
        public: indices of examples that everyone knows, for regularization that needs some.
        jobs: processes that share the trainings out.

    Raises:
        UserError, ConfigError: as in :func:`one_run`.
    """
    plan, known = claim_of(recipe, public), _known(recipe, public)
    spare = np.setdiff1d(spare, known)
    initial: dict[str, Tensor] | None = None
    if kind is None:
        model = settled(recipe, data, spare, seed)
        inputs, labels = worst_case(model, data)
        initial = {name: value.detach().clone() for name, value in model.state_dict().items()}
    else:
        inputs, labels = make(kind, data, spare, 1, secret_generator())
    included = coins(trainings, secret_generator())
    play = functools.partial(_play, recipe, _Examples.of(data, members, known, inputs, labels), initial, seed)
    scores = np.empty((len(recipe.training.stops), trainings))
    bar = tqdm(total=trainings, desc="audited models", unit="model", disable=None if progress else True, leave=False)
    with bar:
        if jobs == 1:
            for index in range(trainings):
                scores[:, index] = play(bool(included[index]))
                bar.update()
        else:
            with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _alone) as pool:
                for index, found in enumerate(pool.map(play, included.tolist(), chunksize=8)):
                    scores[:, index] = found
                    bar.update()
    what = "worst-case initial weights and example" if kind is None else f"one {kind} canary"
    what += f", in {trainings} trainings"
    return [
        Game(found, included, until, "scores", what, many_runs=True)
        for found, until in zip(scores, _plans(plan, recipe), strict=True)
    ]


def _play(recipe: Recipe, examples: _Examples, initial: Mapping[str, Tensor] | None, seed: int, is_in: bool) -> list[float]:
    """One training with or without its one canary, and its score at each checkpoint."""
    scores, _ = _asked(recipe, examples, np.array([is_in]), seed, initial=initial)
    return [float(found[0]) for found in scores]


def _asked(
    recipe: Recipe,
    examples: _Examples,
    included: np.ndarray,
    seed: int,
    *,
    initial: Mapping[str, Tensor] | None = None,
    performance: Performance | None = None,
) -> tuple[list[np.ndarray], str]:
    """Trains to the end; what is released at each checkpoint gives the log-odds of the canaries, ``[canaries]``. Also where
    early stopping ended it, in words."""
    data, public, canaries = examples.data, examples.public, examples.canaries
    members = np.concatenate([examples.members, canaries[included]])
    training = build_training(recipe, data, members, seed, public=public, performance=performance, initial=initial)
    stopping = EarlyStopping.of(recipe, data, public, training)
    inputs, labels = data.inputs[canaries[0] :], data.targets[canaries[0] :]
    scores = [
        log_odds(released_model(recipe, data, public, training, seed), inputs, labels)
        for _ in played(training, stopping, recipe.training.stops)
    ]
    return scores, ended(training, stopping)


def _plans(plan: PrivacyPlan, recipe: Recipe) -> list[PrivacyPlan]:
    """What is claimed at each checkpoint."""
    return [dataclasses.replace(plan, steps=stop) for stop in recipe.training.stops]


def _alone() -> None:
    torch.set_num_threads(1)


def log_odds(model: nn.Module, inputs: Tensor, labels: Tensor) -> np.ndarray:
    """log p_y / (1 − p_y) of each canary, ``[canaries]``."""
    model.eval()
    with torch.no_grad():
        return signal(model(inputs).double().numpy(), labels)


def settled(recipe: Recipe, data: DataSet, spare: np.ndarray, seed: int) -> nn.Module:
    """The recipe's architecture after ordinary training on spare examples, so that further ones teach it little."""
    if not len(spare):
        raise UserError("worst-case initial weights are made from examples outside of the training, and there are none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = models.build_for(recipe.model, data, recipe.regularization).train()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(SETTLING):
            index = torch.from_numpy(spare)[torch.randint(len(spare), (SETTLING_BATCH,))]
            losses = LOSSES[recipe.training.loss](model, (data.inputs[index], data.targets[index]), recipe.regularization)
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
    return model


def _known(recipe: Recipe, public: np.ndarray | None) -> np.ndarray:
    """The public examples that the recipe looks at; all that it leaves alone may be canaries."""
    return np.empty(0, dtype=np.int64) if public is None or not recipe.regularization.needs_public else public
