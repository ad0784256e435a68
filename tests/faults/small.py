"""A small training of digits: four steps, a checkpoint after the second and the last."""

import functools
import shlex
from pathlib import Path
from typing import Any

from dptrain.data import load
from dptrain.data.dataset import DataSet
from dptrain.data.split import split_of
from dptrain.private import PrivateTraining
from dptrain.trainer import Trainer
from evaluation.result import Variant
from recipes import comparison
from recipes.comparison import Job

SMALL = shlex.split(
    "--seeds 0 --training.steps 4 --training.checkpoint-every 2 --evaluation.attacks membership.threshold "
    "--evaluation.shadow-models 4"
)
STEPS, FIRST = 4, 2


@functools.cache
def job(variant: Variant) -> Job:
    wanted = comparison.load("digits", ["--epsilons", "8", *SMALL])
    return next(each for each in wanted.jobs() if each.variant == variant)


@functools.cache
def data() -> DataSet:
    return load(job("dp").recipe.data)


def trainer(
    folder: Path, *callbacks: Any, variant: Variant = "dp", telemetry: Path | None = None, progress: bool = False
) -> Trainer:
    recipe = job(variant).recipe
    split = split_of(data(), recipe.data.split, 0, "example")
    return Trainer(
        recipe,
        data(),
        split,
        seed=0,
        folder=folder,
        callbacks=callbacks,
        telemetry=telemetry,
        progress=progress,
        variant=variant,
    )


def train(folder: Path, *callbacks: Any, **options: Any) -> PrivateTraining:
    """Goes on with what the folder holds, to the last step."""
    return trainer(folder, *callbacks, **options).run()


def cut(folder: Path, **options: Any) -> None:
    """Trains up to the first checkpoint, and is cut while it is attacked."""

    def interrupt(checkpoint: Any) -> None:
        raise KeyboardInterrupt

    try:
        train(folder, interrupt, **options)
    except KeyboardInterrupt:
        return
    raise AssertionError("it was not cut")
