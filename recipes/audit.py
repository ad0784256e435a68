"""The audit of a recipe: how much of its ε can be shown, and whether more than that can.

    results = list(audit(comparison.load("digits", ["--epsilons", "4"]), Options(how="white-box")))

Every budget of the comparison is audited at each checkpoint that its recipe keeps, and all share one permitted error. Each
game is a training, or many, by the recipe itself on the members of the comparison's first seed; the examples that canaries and
worst-case weights are made of are among those that are not members. What was learnt of the members stays on this machine, and
so do the models.
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

import dptrain.data
from dptrain.data.dataset import DataSet
from dptrain.data.split import split_of
from dptrain.errors import ConfigError, unknown_name
from dptrain.fleet.processes import startable
from dptrain.ledger import Account, Spending
from dptrain.plan import PrivacyPlan
from dptrain.recipe import Recipe
from dptrain.rounding import up
from evaluation.audit import black_box, white_box
from evaluation.audit.canaries import Kind
from evaluation.audit.game import Game
from evaluation.audit.judge import OF_MANY_RUNS, OF_ONE_RUN, Bound, judge
from evaluation.result import AuditCheck, AuditResult
from recipes.comparison import Comparison, Job

How = Literal["white-box", "one-run", "many-runs", "worst-case"]
MISLABELLED: Kind = "mislabelled"
ABOUT: dict[How, str] = {
    "white-box": "one training; canaries of one weight each, seen in every released update",
    "one-run": "one training; many canaries, asked about at its end",
    "many-runs": "many trainings with and without one canary, each asked about it at its end",
    "worst-case": "the same, with initial weights and canary chosen to show the most",
}

OF: dict[str, tuple[How, ...]] = {
    "canaries": ("white-box", "one-run"),
    "trainings": ("many-runs", "worst-case"),
    "canary": ("one-run", "many-runs"),
}
"""The games that an option is for."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an audit is made."""

    how: How = "white-box"
    canaries: int | None = None
    """Of one training; left out, 4000 white-box, where they get in nobody's way, and 500 where the model must learn them."""
    trainings: int | None = None
    """Of one canary; left out, 1000."""
    canary: Kind | None = None
    """What canaries of `one-run` and `many-runs` are; left out, mislabelled examples."""
    bound: Bound | None = None
    """The only one that is computed, which then need not share its error with the other; left out, both of the game."""
    records: int | None = None
    """Members that are trained on; left out, all of the split's."""

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise unknown_name("--how", self.how, get_args(How))
        if self.canary is not None and self.canary not in get_args(Kind):
            raise unknown_name("--canary", self.canary, get_args(Kind))
        if self.bound is not None and self.bound not in self.bounds:
            raise unknown_name("--bound", self.bound, self.bounds)
        for name, games in OF.items():
            if getattr(self, name) is not None and self.how not in games:
                raise ConfigError(
                    f"--{name} says nothing to --how {self.how}; leave it out, or give --how {' or '.join(games)}"
                )
        for name, least in (("canaries", 10), ("trainings", 20), ("records", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name} is {value}; give a whole number from {least} up")

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """Of this game."""
        return OF_ONE_RUN if self.how in ("white-box", "one-run") else OF_MANY_RUNS


def audit(comparison: Comparison, options: Options, command: str = "", *, progress: bool = True) -> Iterator[AuditResult]:
    """One audit a budget, from the largest down, and checkpoint; each comes when it is judged.

    Args:
        command: what was typed, kept with each.

    Raises:
        UserError: no budget is finite, or the data set has too few examples for the canaries.
    """
    jobs = [job for job in comparison.jobs() if job.variant == "dp" and job.seed == comparison.seeds[0]]
    if not jobs:
        raise ConfigError("no budget of this recipe is finite, so nothing is claimed; give one, such as --epsilons 4")
    unit = comparison.recipe.privacy.unit
    if unit in ("node", "edge"):
        raise ConfigError(
            f"privacy.unit is {unit!r}, and an audit plays its games with examples that are added and left out; of a graph the "
            "attack figures auc_in_graph of `dptrain run cora` are what is held against the plan"
        )
    if comparison.performance.threads is not None:
        torch.set_num_threads(comparison.performance.threads)
    data = dptrain.data.load(comparison.recipe.data)
    comparisons = sum(len(job.recipe.training.stops) for job in jobs)
    for job in jobs:
        with _accounted(job, data, options, comparison):
            games, checks = _play(job, data, options, comparison, progress)
        for game in games:
            of_the_whole = checks if game is games[-1] else ()
            yield dataclasses.replace(
                judge(game, of_the_whole, comparisons=comparisons, bound=options.bound),
                how=options.how,
                budget=job.epsilon,
                steps=job.recipe.training.steps,
                recipe_digest=job.recipe.digest(),
                command=command,
            )


@contextmanager
def _accounted(job: Job, data: DataSet, options: Options, comparison: Comparison) -> Iterator[None]:
    """In the data set's account the trainings of a game stand before the first of them begins: they read members like any
    others, and what is said of them is learnt from what they released."""
    plan = PrivacyPlan.from_config(job.recipe.privacy, job.recipe.training.steps)
    trainings = 1 if options.how in OF["canaries"] else options.trainings or 1000
    about = {"label": f"audit {options.how} of {job.label}", "variant": "audit", "recipe_digest": job.recipe.digest()}
    spending = Spending(Account(data.fingerprint, data.name), about, comparison.total())
    spending.begin(plan)
    try:
        spending.reserve(plan, 0, plan.steps, times=trainings)
        yield
    except BaseException as error:
        stopped = isinstance(error, (KeyboardInterrupt, GeneratorExit))
        spending.close_quietly("stopped" if stopped else "failed", f"{type(error).__name__}: {error}")
        raise
    spending.close("done")


def _play(
    job: Job, data: DataSet, options: Options, comparison: Comparison, progress: bool
) -> tuple[Sequence[Game], tuple[AuditCheck, ...]]:
    split = split_of(data, job.recipe.data.split, job.seed, job.recipe.privacy.unit)
    members, performance = split.members, comparison.performance
    spare = np.setdiff1d(np.arange(len(data)), np.concatenate([members, split.test]))
    if options.records is not None:
        if options.records > len(members):
            raise ConfigError(
                f"--records is {options.records} and the split has {len(members)} members; give at most as many, or raise "
                "--data.split.members"
            )
        members = np.sort(np.random.default_rng(job.seed).permutation(members)[: options.records])
    if options.how == "white-box":
        found = white_box.play(
            job.recipe,
            data,
            members,
            public=split.public,
            canaries=options.canaries or 4000,
            seed=job.seed,
            performance=performance,
        )
        return found.games, found.checks
    if options.how == "one-run":
        games = black_box.one_run(
            job.recipe,
            data,
            members,
            spare,
            public=split.public,
            kind=options.canary or MISLABELLED,
            canaries=options.canaries or 500,
            seed=job.seed,
            performance=performance,
        )
        return games, ()
    trainings = options.trainings or 1000
    games = black_box.many_runs(
        job.recipe,
        data,
        members,
        spare,
        public=split.public,
        kind=None if options.how == "worst-case" else options.canary or MISLABELLED,
        trainings=trainings,
        seed=job.seed,
        jobs=_processes(job.recipe, trainings, comparison),
        progress=progress,
    )
    return games, ()


def _processes(recipe: Recipe, trainings: int, comparison: Comparison) -> int:
    """How many share the trainings out: at most ``performance.threads``, of one thread each; and this one alone where others
    would not know the recipe's model."""
    if not startable(recipe, None):
        return 1
    return max(1, min(comparison.performance.threads or os.cpu_count() or 1, math.ceil(trainings / 50)))


CONTRADICTED = (
    "This audit contradicts the claim of ε = {epsilon}: {what}. Do not release a model of this recipe: either the "
    "mechanism is not the one that was counted, or the account is wrong. A sound mechanism is accused like this in "
    "at most 6% of audits, and by what it says of itself in far fewer."
)


NOT_CONTRADICTED = (
    "Nothing here contradicts what is claimed. A bound says what was shown, not what there is: read it beside its ceiling, "
    "which is what a perfect attack on as many canaries would have shown."
)


def conclusion(found: list[AuditResult]) -> str:
    """What all audits together say of the claims."""
    broken = [one for one in found if not one.ok]
    said = [CONTRADICTED.format(epsilon=up(one.epsilon, 3), what="; ".join(one.contradictions)) for one in broken]
    return "\n\n".join(said or [NOT_CONTRADICTED])
