"""The audit of a recipe: how much of its ε can be shown, and whether more than that can.

    results = audit(comparison.load("digits", ["--epsilons", "4"]), how="white-box")

Every budget of the comparison is audited, and they share one permitted error. Each game is a training, or many, by the recipe
itself on the members of the comparison's first seed; the examples that canaries and worst-case weights are made of are among
those that are not members. What was learnt of the members stays on this machine, and so do the models.
"""

import math
import os
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

import dptrain.data
from dptrain.data.dataset import DataSet
from dptrain.data.split import draw
from dptrain.errors import ConfigError, unknown_name
from evaluation.audit import black_box, white_box
from evaluation.audit.canaries import Kind
from evaluation.audit.judge import Audit, judge
from recipes.comparison import Comparison, Job

How = Literal["white-box", "one-run", "many-runs", "worst-case"]
ABOUT: dict[How, str] = {
    "white-box": "one training; canaries of one weight each, seen in every released update",
    "one-run": "one training; many canaries, asked about at its end",
    "many-runs": "many trainings with and without one canary, each asked about it at its end",
    "worst-case": "the same, with initial weights and canary chosen to show the most",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an audit is made."""

    how: How = "white-box"
    canaries: int | None = None
    """Of one training; left out, 4000 white-box, where they get in nobody's way, and 500 where the model must learn them."""
    trainings: int = 1000
    """Of one canary."""
    canary: Kind = "mislabelled"
    """What canaries of `one-run` and `many-runs` are."""
    records: int | None = None
    """Members that are trained on; left out, all of the split's."""

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise unknown_name("--how", self.how, get_args(How))
        if self.canary not in get_args(Kind):
            raise unknown_name("--canary", self.canary, get_args(Kind))
        for name, least in (("canaries", 10), ("trainings", 20), ("records", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name} is {value}; give a whole number from {least} up")


def audit(comparison: Comparison, options: Options, *, progress: bool = True) -> list[Audit]:
    """One audit a budget, from the largest down.

    Raises:
        UserError: no budget is finite, or the data set has too few examples for the canaries.
    """
    jobs = [job for job in comparison.jobs() if job.variant == "dp" and job.seed == comparison.seeds[0]]
    if not jobs:
        raise ConfigError("no budget of this recipe is finite, so nothing is claimed; give one, such as --epsilons 4")
    if comparison.performance.threads is not None:
        torch.set_num_threads(comparison.performance.threads)
    data = dptrain.data.load(comparison.recipe.data)
    return [_one(job, data, options, len(jobs), comparison, progress) for job in jobs]


def _one(job: Job, data: DataSet, options: Options, comparisons: int, comparison: Comparison, progress: bool) -> Audit:
    published = data.published_test if job.recipe.data.split.test == "published" else 0
    split = draw(len(data), job.recipe.data.split, job.seed, published)
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
            job.recipe, data, members, canaries=options.canaries or 4000, seed=job.seed, performance=performance
        )
        return judge(found.game, found.checks, comparisons=comparisons)
    if options.how == "one-run":
        game = black_box.one_run(
            job.recipe,
            data,
            members,
            spare,
            kind=options.canary,
            canaries=options.canaries or 500,
            seed=job.seed,
            performance=performance,
        )
        return judge(game, comparisons=comparisons)
    game = black_box.many_runs(
        job.recipe,
        data,
        members,
        spare,
        kind=None if options.how == "worst-case" else options.canary,
        trainings=options.trainings,
        seed=job.seed,
        jobs=max(1, min(os.cpu_count() or 1, math.ceil(options.trainings / 50))),
        progress=progress,
    )
    return judge(game, comparisons=comparisons)


CONTRADICTED = (
    "This audit contradicts the claim of ε = {epsilon:.3f}: {what}. Do not release a model of this recipe: either the "
    "mechanism is not the one that was counted, or the account is wrong. A sound mechanism is accused like this in "
    "at most 6% of audits, and by what it says of itself in far fewer."
)


def render(found: list[Audit]) -> str:
    """Every audit, with a paragraph at the end: what was and what was not shown."""
    parts = [str(one) for one in found]
    broken = [one for one in found if not one.ok]
    if broken:
        parts += [CONTRADICTED.format(epsilon=one.epsilon, what="; ".join(one.contradictions)) for one in broken]
    else:
        parts.append(
            "Nothing here contradicts what is claimed. A bound says what was shown, not what there is: read it beside its "
            "ceiling, which is what a perfect attack on as many canaries would have shown."
        )
    return "\n\n".join(parts)
