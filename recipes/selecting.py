"""A selection under way: draws, trains, scores, keeps the best, removes the others, attacks and reports.

    outcome = select(Asked.of(["digits", "--epsilon", "4", "--candidates", "optimizer.learning_rate=1,2"]), command)

What must hold of it, and why it may be stopped and resumed, is said in :mod:`recipes.select`. Every part is done once, or again
to the same end, so that it can be cut at any moment.
"""

import contextlib
import dataclasses
import fcntl
import math
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

import dptrain.data
from dptrain import distributed
from dptrain.checkpoint import load_release, save_release
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, split_of
from dptrain.errors import CheckpointError, ConfigError, RankError, is_out_of_memory
from dptrain.noise import secret_generator
from dptrain.plan import PrivacyPlan
from dptrain.selected import Selection, as_selected
from dptrain.trainer import Trainer
from evaluation import runner
from evaluation.access import Access
from evaluation.result import ComparisonResult
from evaluation.score import check_can_score, score
from evaluation.target import Target
from recipes import runs
from recipes.comparison import Comparison
from recipes.folder import claim
from recipes.jobs import is_complete
from recipes.selection import Asked, Drawn, candidates_of, read, write
from recipes.selection_account import announce, run_of, scored, tell
from recipes.selection_budget import planned

FAILED = -math.inf
LEDGER = "ledger.jsonl"
"""Of a training, below its ``private/``; its head lies beside it."""


@dataclass(frozen=True)
class Outcome:
    """What came of a selection."""

    selection: Selection
    epsilon: float
    """Of the choice."""
    result: ComparisonResult | None
    """None where nothing is released: no training was drawn, or none of them ended."""
    chosen: str = ""
    """The candidate."""
    folder: Path | None = None
    """The chosen model's."""
    composed: float = 0.0
    """ε of all trainings that ran, if all were shown. It tells K, and is for whoever holds the data."""


def select(asked: Asked, command: str, progress: bool = True) -> Outcome:
    """Everything, or the rest of it where it was begun.

    Raises:
        UserError: something given cannot be used; nothing was written. Or a training cannot go on.
        KeyboardInterrupt: after Ctrl-C, with what was drawn and a checkpoint on disk.
    """
    root = asked.root
    if distributed.current().size > 1:
        raise ConfigError("a selection trains one model at a time in one process; type it without --distributed and torchrun")
    data = dptrain.data.load(asked.comparison.recipe.data)
    check_can_score(data)
    split = _split(asked.comparison, data)
    with _alone(root):
        drawn = _drawn(asked, data, split, command)
        _train(drawn, data, split, progress)
        return _finish(drawn, data, progress)


def is_selection(root: Path) -> bool:
    """Whether a selection was begun there."""
    return (root / "private" / "selection.json").is_file()


def resume(root: Path, progress: bool = True) -> Outcome:
    """Goes on with a selection: with the number of runs and the candidates that were drawn."""
    drawn = read(root)
    return select(drawn.asked, drawn.command, progress)


def _split(comparison: Comparison, data: DataSet) -> Split:
    shares, unit = comparison.recipe.data.split, comparison.recipe.privacy.unit
    return split_of(data, shares, comparison.seeds[0], unit)


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process at a time: two would train the same runs twice."""
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root} is a file; type another folder with --output")
    if (
        root.exists()
        and any(root.iterdir())
        and not is_selection(root)
        and {item.name for item in root.iterdir()} != {"private"}
    ):
        raise ConfigError(f"{root} is not empty and holds no selection; type another folder with --output")
    private = root / "private"
    private.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(private / "lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another process is selecting in {root}; wait for it, or give another --output") from None
        yield


def _drawn(asked: Asked, data: DataSet, split: Split, command: str) -> Drawn:
    """What was drawn before, or is drawn now, once."""
    if is_selection(asked.root):
        before = read(asked.root)
        if before.asked.as_plain() != asked.as_plain():
            way_on = f"type another --output, or `dptrain resume {asked.root}` to go on with it"
            raise ConfigError(f"{asked.root} holds another selection; {way_on}")
        if before.data != data.fingerprint:
            raise ConfigError(f"{asked.root} was begun on other data; put it back, or give another --output")
        announce(before.identity, asked, before.selection, before.each, data)  # the account of this machine may not know it
        return before
    selection, each = planned(asked, data, split)
    _check(asked, each, data, split)
    runner.check_plan(asked.comparison.evaluation, data, asked.comparison.recipe.release.guard, [split])
    identity = secrets.token_hex(8)
    announce(identity, asked, selection, each, data)
    generator = secret_generator(asked.comparison.insecure_seed, "the number of runs and their candidates")
    number = selection.runs.draw(generator)
    candidates = tuple(int(index) for index in generator.integers(0, len(each), number))
    drawn = Drawn(
        asked=asked,
        command=command,
        data=data.fingerprint,
        selection=selection,
        each=each,
        candidates=candidates,
        identity=identity,
    )
    write(drawn)
    return drawn


def _check(asked: Asked, each: tuple[float, ...], data: DataSet, split: Split) -> None:
    """Builds every candidate's model, so that one that cannot be trained is refused before K is drawn."""
    for recipe in candidates_of(asked, each):
        job = _comparison(asked.comparison, recipe).jobs()[0]
        runs.check([job], data, {job.seed: split})


def _comparison(comparison: Comparison, recipe: Any) -> Comparison:
    """Of one candidate alone; ``recipe`` states ε of one training."""
    epsilon = recipe.privacy.epsilon
    bare = dataclasses.replace(recipe, privacy=dataclasses.replace(recipe.privacy, epsilon=None))
    title = f"{recipe.data.name}: a model that was chosen out of several trainings"
    alone = {"recipe": bare, "epsilons": (epsilon,), "seeds": comparison.seeds[:1], "baselines": (), "title": title}
    return dataclasses.replace(comparison, **alone)


# -- training -------------------------------------------------------------------------------------------------------


def _train(drawn: Drawn, data: DataSet, split: Split, progress: bool) -> None:
    """Every training that has no score yet. The display tells neither how many there are nor how they went: time alone."""
    recipes = candidates_of(drawn.asked, drawn.each)
    with tqdm(desc="select", disable=None if progress else True, file=sys.stderr, bar_format="{desc}: {elapsed}") as bar:
        for number, candidate in enumerate(drawn.candidates):
            if drawn.chosen is None and drawn.scores[number] is None:
                drawn.scores[number] = _scored(drawn, number, recipes[candidate], data, split)
                write(drawn)
            bar.refresh()


def _scored(drawn: Drawn, number: int, recipe: Any, data: DataSet, split: Split) -> float:
    comparison = _comparison(drawn.asked.comparison, recipe)
    job, folder = comparison.jobs()[0], drawn.folder(number)
    insecure = None if comparison.insecure_seed is None else comparison.insecure_seed * 100_003 + number
    try:
        Trainer(
            job.recipe,
            data,
            split,
            seed=job.seed,
            folder=folder,
            performance=comparison.performance,
            insecure_seed=insecure,
            label=job.label,
            variant=job.variant,
            progress=False,
            selection=drawn.identity,
        ).run()
        with scored(drawn, folder):
            return _score(folder, drawn, data, split, insecure)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(str(drawn.asked.root)) from None
    except (CheckpointError, OSError, MemoryError, RankError):
        raise  # of the machine or of the files, not of the data
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # Whatever it is, it may hang on one example: it is an output, and the worst one.
        print(f"dptrain: a training ended with {type(error).__name__}; it counts, with the lowest score", file=sys.stderr)
        return FAILED


def _score(folder: Path, drawn: Drawn, data: DataSet, split: Split, insecure: int | None) -> float:
    target = Target.open(folder / "release", Access.WEIGHTS)
    target.bounds, target.classes = data.bounds, len(data.classes)
    of = split.public if drawn.selection.scorer == "public" else split.held_out
    unit = drawn.asked.comparison.recipe.privacy.unit
    generator = secret_generator(insecure, "score")
    return score(target, data, of, unit=unit, noise=drawn.selection.score_noise, generator=generator)


# -- the best of them -----------------------------------------------------------------------------------------------


def _finish(drawn: Drawn, data: DataSet, progress: bool) -> Outcome:
    """Keeps the best, removes the others, attacks and reports. Each part is done once, or again to the same end."""
    epsilon = drawn.selection.counted().epsilon
    composed = _composed(drawn)
    if drawn.chosen is None:
        scores = [FAILED if value is None else value for value in drawn.scores]
        # Of equals the first: as trainings are drawn alike, that is one of them at random.
        best = max(range(len(scores)), key=lambda number: scores[number], default=-1)
        drawn.chosen = -1 if best < 0 or scores[best] == FAILED else best
        write(drawn)
    if drawn.chosen < 0:
        _remove(drawn)
        tell(drawn, epsilon, "")
        return Outcome(drawn.selection, epsilon, None, composed=composed)
    recipe = candidates_of(drawn.asked, drawn.each)[drawn.candidates[drawn.chosen]]
    comparison = _comparison(drawn.asked.comparison, recipe)
    job, root = comparison.jobs()[0], drawn.asked.root
    folder = root / job.label
    if not folder.exists():
        _state(drawn.folder(drawn.chosen) / "release", drawn.selection)
        with claim(root, comparison, drawn.asked.name, drawn.command, data):
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.rename(drawn.folder(drawn.chosen), folder)
    _remove(drawn)
    tell(drawn, epsilon, run_of(folder))
    if not is_complete(job, folder, comparison.evaluation, data):
        runner.evaluate(
            folder,
            data,  # with the split that it was trained with: one that was drawn again has another salt
            plan=comparison.evaluation,
            recipe=job.recipe,
            fleet_folder=root / "private" / "fleet",
            performance=comparison.performance,
            keep_others=True,
            progress=progress,
        )
    chosen = drawn.asked.names[drawn.candidates[drawn.chosen]]
    return Outcome(drawn.selection, epsilon, runs.report(root), chosen=chosen, folder=folder, composed=composed)


def _state(release: Path, selection: Selection) -> None:
    """From here on the model's card states the choice's ε. It says nothing less at any moment: it is written whole."""
    weights, card = load_release(release)
    save_release(release, weights, as_selected(card, selection))


def _remove(drawn: Drawn) -> None:
    """All that is left of the others, but their ledgers: what was spent was spent."""
    for number in range(len(drawn.candidates)):
        folder = drawn.folder(number)
        for place in folder.iterdir() if folder.is_dir() else ():
            if place.name != "private":
                _delete(place)
        for place in (folder / "private").iterdir() if (folder / "private").is_dir() else ():
            if not place.name.startswith(LEDGER):
                _delete(place)
    drawn.scores[:] = [None] * len(drawn.scores)
    write(drawn)


def _delete(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def _composed(drawn: Drawn) -> float:
    """ε of all that ran, were all of it shown."""
    from dp_accounting import ComposedDpEvent

    from dptrain import accounting

    recipes = candidates_of(drawn.asked, drawn.each)
    plans = [PrivacyPlan.from_config(recipes[index].privacy, recipes[index].training.steps) for index in drawn.candidates]
    events = drawn.selection.events(tuple(plans))
    plan = drawn.selection.plans[0]
    return accounting.epsilon(ComposedDpEvent(events), plan.delta, plan.relation) if events else 0.0
