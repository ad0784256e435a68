"""The audit of a recipe: how much of its ε can be shown, and whether more than that can.

    results = audit(comparison.load("digits", ["--epsilons", "4"]), Options(how="white-box"))

Every budget of the comparison is audited at each checkpoint that its recipe keeps, and all share one permitted error. Each
game is a training, or many, by the recipe itself on the members of the comparison's first seed; the examples that canaries and
worst-case weights are made of are among those that are not members. What was learnt of the members stays on this machine, and
so do the models.
"""

import dataclasses
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

import dptrain.data
from dptrain.data.dataset import DataSet
from dptrain.data.split import draw
from dptrain.errors import ConfigError, unknown_name
from evaluation.audit import black_box, white_box
from evaluation.audit.canaries import Kind
from evaluation.audit.game import Game
from evaluation.audit.judge import judge
from evaluation.report import terminal
from evaluation.result import AuditCheck, AuditResult, read_audit, write
from recipes.comparison import Comparison, Job

FOLDER = "audit"
"""Of a comparison's audits, below its own."""

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


def audit(comparison: Comparison, options: Options, command: str = "", *, progress: bool = True) -> list[AuditResult]:
    """One audit a budget, from the largest down, and checkpoint.

    Args:
        command: what was typed, kept with each.

    Raises:
        UserError: no budget is finite, or the data set has too few examples for the canaries.
    """
    jobs = [job for job in comparison.jobs() if job.variant == "dp" and job.seed == comparison.seeds[0]]
    if not jobs:
        raise ConfigError("no budget of this recipe is finite, so nothing is claimed; give one, such as --epsilons 4")
    if comparison.performance.threads is not None:
        torch.set_num_threads(comparison.performance.threads)
    data = dptrain.data.load(comparison.recipe.data)
    comparisons = sum(len(job.recipe.training.stops) for job in jobs)
    found = []
    for job in jobs:
        games, checks = _play(job, data, options, comparison, progress)
        for game in games:
            of_the_whole = checks if game is games[-1] else ()
            found.append(
                dataclasses.replace(
                    judge(game, of_the_whole, comparisons=comparisons),
                    how=options.how,
                    budget=job.epsilon,
                    steps=job.recipe.training.steps,
                    recipe_digest=job.recipe.digest(),
                    command=command,
                )
            )
    return found


def _play(
    job: Job, data: DataSet, options: Options, comparison: Comparison, progress: bool
) -> tuple[Sequence[Game], tuple[AuditCheck, ...]]:
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
        return found.games, found.checks
    if options.how == "one-run":
        games = black_box.one_run(
            job.recipe,
            data,
            members,
            spare,
            kind=options.canary,
            canaries=options.canaries or 500,
            seed=job.seed,
            performance=performance,
        )
        return games, ()
    games = black_box.many_runs(
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
    return games, ()


def save(found: list[AuditResult], root: Path) -> list[Path]:
    """Keeps each audit below ``root``, where reports find it. None takes the place of an earlier one: an audit that is repeated
    until it says what one likes to hear stands there with all its forerunners."""
    paths = []
    for one in found:
        folder = root / FOLDER / f"{one.how}-eps={one.budget:05.2f}-step={one.step:06d}"
        number = 1 + max((int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal()), default=0)
        paths.append(folder / f"{number:03d}.json")
        write(one, paths[-1])
    return paths


def read(root: Path, digests: Collection[str]) -> tuple[AuditResult, ...]:
    """The audits below ``root`` of recipes with these digests, from the largest budget down, in the order they were made.

    Raises:
        CheckpointError: a file is damaged.
    """
    paths = sorted((root / FOLDER).glob("*/*.json"))
    found = [one for one in map(read_audit, paths) if one.recipe_digest in digests]
    return tuple(sorted(found, key=lambda one: (-(one.budget or 0.0), one.how, one.step)))


CONTRADICTED = (
    "This audit contradicts the claim of ε = {epsilon:.3f}: {what}. Do not release a model of this recipe: either the "
    "mechanism is not the one that was counted, or the account is wrong. A sound mechanism is accused like this in "
    "at most 6% of audits, and by what it says of itself in far fewer."
)


def render(found: list[AuditResult]) -> str:
    """Every audit, with a paragraph at the end: what was and what was not shown."""
    parts = [terminal.audit(one) for one in found]
    broken = [one for one in found if not one.ok]
    if broken:
        parts += [CONTRADICTED.format(epsilon=one.epsilon, what="; ".join(one.contradictions)) for one in broken]
    else:
        parts.append(
            "Nothing here contradicts what is claimed. A bound says what was shown, not what there is: read it beside its "
            "ceiling, which is what a perfect attack on as many canaries would have shown."
        )
    return "\n\n".join(parts)
