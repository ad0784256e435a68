"""A run of the command line that is watched from outside: what it truly does goes through a pipe as it happens.

The pipe's end is held by the parent, so that kill -9 takes nothing back. Lines:

    site WHERE                    a place at which it could be killed; see :mod:`tests.faults.sites`
    step LABEL NUMBER DIGEST      the optimizer of this model is about to move its weights, by gradients of this digest
    saved LABEL NUMBER            a checkpoint after this step is on the disk, and nothing after it may be asked to repeat it

A step is told by a hook of torch's own optimizer, before the weights move, and counted by nothing that dptrain counts: it is
the truth that ledgers and cards are held against.

    python -m tests.faults.watched FD BASE KILL... -- run digits --output BASE/run     as an interpreter of its own
"""

import dataclasses
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.sites import Kill, Sites


def watched(arguments: list[str], pipe: int, base: Path, kill: Kill | None = None, drawn: str = "charts") -> int:
    """The exit code of this command; the process does nothing else afterwards.

    Args:
        drawn: ``no charts`` leaves the report's charts empty, and TensorBoard's are speckles of about their size: to draw them
            takes half of the time and touches no file.
    """
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    import dptrain.fleet.cache
    from dptrain import checkpoint
    from dptrain.trainer import Trainer
    from evaluation import runner
    from recipes.cli import main

    torch.set_num_threads(1)
    write = os.write
    sites = Sites(base, lambda site: write(pipe, f"site {site}\n".encode()), kill)
    dptrain.fleet.cache.EVERY = 0.0  # shadow models take milliseconds here, and would never be written but all together
    labels: dict[int, str] = {}
    begin, save, attack = Trainer._start, checkpoint.write_folder, runner.run_attack

    def began(self: Trainer) -> None:
        labels[id(self.training.optimizer)] = self.label
        begin(self)
        _steps[self.label] = self.training.steps_taken

    def before(optimizer: Any, *_: Any) -> None:
        label = labels.get(id(optimizer))
        if label is None:
            sites.at("a shadow model's step")
            return
        sites.at(f"before a step of {label}")
        _steps[label] += 1
        write(pipe, f"step {label} {_steps[label]} {_digest(optimizer)}\n".encode())

    def after(optimizer: Any, *_: Any) -> None:
        if id(optimizer) in labels:
            sites.at(f"after a step of {labels[id(optimizer)]}")

    def saved(folder: Path, files: dict[str, bytes]) -> None:
        save(folder, files)
        if folder.name == "checkpoint":
            taken = json.loads(files["state.json"])["steps_taken"]
            write(pipe, f"saved {'/'.join(folder.parts[-4:-2])} {taken}\n".encode())

    def attacked(case: Any, name: str, fleets: Any) -> Any:
        sites.at(f"before {name}")
        result = attack(case, name, fleets)
        sites.at(f"after {name}")
        return result

    Trainer._start, checkpoint.write_folder, runner.run_attack = began, saved, attacked
    register_optimizer_step_pre_hook(before)
    register_optimizer_step_post_hook(after)
    if drawn == "no charts":
        from evaluation.report import figures

        figures.as_svg = lambda figure, name: "<svg></svg>"
        speckles = np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)
        figures.as_pixels = lambda figure: speckles
    sites.watch()
    return main(arguments)


_steps: dict[str, int] = {}


def _digest(optimizer: Any) -> str:
    """Of the gradients by which the weights are about to move."""
    digest = hashlib.sha256()
    for group in optimizer.param_groups:
        for value in group["params"]:
            digest.update(value.grad.numpy().tobytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    stop = None if given["kill"] is None else Kill(**given["kill"])
    sys.exit(watched(given["arguments"], given["pipe"], Path(given["base"]), stop))


def as_argument(arguments: list[str], pipe: int, base: Path, kill: Kill | None) -> str:
    """What an interpreter of its own is started with."""
    plain = None if kill is None else dataclasses.asdict(kill)
    return json.dumps({"arguments": arguments, "pipe": pipe, "base": str(base), "kill": plain})
