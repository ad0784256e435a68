"""Trains a fleet by the way that its first steps show to be the fastest.

Stacked models, over all examples or over each one's own batch, and models one after the other take a few steps each; the
fastest goes on from there, and what the others began is forgotten. What was found holds for the process's further fleets of as
many models and the same training, however much noise there is. The choice is a matter of speed alone: each way draws models
from the same distribution. Where there are more models than are trained at once, and the first ones show that it pays, other
processes on the other cores take part.

``torch.func.vmap`` over models is not among the ways: for convolutions it was slower than one model after the other, where it
was tried. Nor is ``torch.compile``, which needs a compiler that may not be there.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from tqdm import tqdm

from dptrain.data.dataset import DataSet
from dptrain.distillation import released_model
from dptrain.errors import UserError, is_out_of_memory
from dptrain.fleet.answers import Answers, Fleet, Views
from dptrain.fleet.cache import Cache
from dptrain.fleet.design import FIRST_SEED, NO_TEST, Train, draw_membership, fleet_digest, recipe_digest
from dptrain.fleet.layers import Unstackable
from dptrain.fleet.processes import shared_out, startable
from dptrain.fleet.stacked import Stack, models_in_a_stack
from dptrain.progress import say
from dptrain.recipe import Performance, Recipe
from dptrain.stopping import EarlyStopping
from dptrain.trainer import build_model, build_training

Way = Literal["masked", "gathered", "one by one"]
WAYS: tuple[Way, ...] = ("one by one", "gathered", "masked")

TIMED = 4
"""Steps of each way that are timed, after one that is not."""
HOPELESS = 8.0
"""A way whose step of two models takes this many times as long as the best one's is not tried with more."""
LONG = 0.5
"""Seconds after which a way was timed for long enough."""
WORTH_STARTING = 12.0
"""Seconds that are left to train from which on other processes are started; each takes about 4 until it trains."""


class Single:
    """One model, trained as the target was."""

    models = 1

    def __init__(
        self,
        recipe: Recipe,
        data: DataSet,
        members: Int[np.ndarray, " members"],
        seed: int,
        performance: Performance,
        public: Int[np.ndarray, " public"] | None = None,
        insecure_seed: int | None = None,
    ):
        self._recipe, self._data, self._seed, self._public = recipe, data, seed, public
        self._training = build_training(
            recipe, data, members, seed, performance=performance, public=public, insecure_seed=insecure_seed
        )
        self._stopping = EarlyStopping.of(recipe, data, public, self._training)
        self._batches = self._training.batches()
        self.ended = False
        """Whether its own early stopping ended it."""

    @property
    def taken(self) -> int:
        return self._training.steps_taken

    def step(self) -> None:
        if self.ended:
            return
        self._training.step(next(self._batches))
        self.ended = self._stopping.reached()

    def answers(self, numbers: Int[np.ndarray, " some"], views: Views | None, keep_weights: bool) -> Answers:
        model = released_model(self._recipe, self._data, self._public, self._training, self._seed)
        return Answers.of(model, int(numbers[0]), self._data, views, keep_weights)


Block = Single | Stack
"""Some models of a fleet, in training."""


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be trained, and what is to be kept of it."""

    recipe: Recipe
    data: DataSet
    membership: Bool[np.ndarray, "models examples"]
    steps: int
    digest: str
    performance: Performance
    views: Views | None = None
    keep_weights: bool = False
    public: Int[np.ndarray, " public"] | None = None
    insecure_seed: int | None = None

    def begin(self, way: Way, missing: list[int]) -> Block:
        """The next models, before their first step.

        Raises:
            Unstackable: they cannot be trained this way.
        """
        seed = FIRST_SEED + missing[0]
        insecure_seed = None if self.insecure_seed is None else self.insecure_seed + seed
        if way == "one by one":
            members = np.flatnonzero(self.membership[missing[0]])
            return Single(self.recipe, self.data, members, seed, self.performance, self.public, insecure_seed)
        numbers = missing[: models_in_a_stack(self.recipe, self.data, way)]
        seeds = [FIRST_SEED + number for number in numbers]
        return Stack(self.recipe, self.data, self.membership[numbers], seeds, way=way, insecure_seed=insecure_seed)

    def finish(self, block: Block, missing: list[int], bar: tqdm) -> Answers:
        """Trains these models to the end; they are no longer missing."""
        while block.taken < self.steps and not block.ended:
            block.step()
            bar.update(block.models)
        bar.update((self.steps - block.taken) * block.models)
        numbers = np.array(missing[: block.models])
        del missing[: block.models]
        return block.answers(numbers, self.views, self.keep_weights)

    def train(self, way: Way, numbers: list[int], bar: tqdm) -> Answers:
        """These models, from their beginning."""
        return self.finish(self.begin(way, numbers), list(numbers), bar)


def train_fleet(
    recipe: Recipe,
    data: DataSet,
    *,
    models: int,
    rate: float,
    steps: int | None = None,
    test: Int[np.ndarray, " test"] = NO_TEST,
    folder: Path | None = None,
    performance: Performance | None = None,
    keep_weights: bool = False,
    views: Views | None = None,
    public: Int[np.ndarray, " public"] | None = None,
    users: Int[np.ndarray, " users"] | None = None,
    progress: bool = True,
    insecure_seed: int | None = None,
) -> Fleet:
    """The fleet of a recipe, from the cache where it is complete, otherwise trained now.

    Args:
        models: how many; an attack that compares "in" with "out" needs several of each for every example.
        rate: the chance of an example outside of ``test`` to be in a model; the target's members over all such examples.
        steps: after how many updates of the plan to stop, for a target that is an earlier checkpoint.
        test: indices of the split's test part, on which no model is trained.
        folder: where the cache lies; without it nothing is kept. A fleet that is interrupted goes on from its finished models.
        performance: what may change the speed, never the models' distribution.
        keep_weights: keeps the models beside their answers; see :meth:`Fleet.model`.
        views: augmented views of the examples, to which the models answer as well.
        public: the target's own public examples, where the recipe looks at them; they must be among ``test``.
        users: whose each example is, where the target's users had one coin each.
        insecure_seed: repeatable batches and noise, for debugging alone. The same models come out where they are trained in the
            same way, which ``performance.fleet`` fixes.

    Raises:
        UserError: the model's outputs are not one a class.
    """
    steps = recipe.training.steps if steps is None else steps
    untrained = build_model(recipe, data, 0)
    trained = recipe_digest(recipe, untrained, steps, public)
    trained += "" if insecure_seed is None else f" insecure seed {insecure_seed}"
    digest = fleet_digest(trained, data, models, rate, test, views.name if views else None, users)
    membership = draw_membership(models, len(data), rate, test=test, users=users)
    job = Job(recipe, data, membership, steps, digest, performance or Performance(), views, keep_weights, public, insecure_seed)
    cache = Cache(folder, digest, membership, views=views is not None, weights=keep_weights, untrained=untrained)
    say(f"{models} shadow models")
    answers = cache.whole()
    if answers is None:
        with cache.alone(), _bar(models * steps, "update", progress) as bar:
            answers = cache.whole() or _gathered(cache, data, models, lambda missing: _trained(job, missing, bar))
    else:
        cache.tidy()
    weights = answers.weights if keep_weights else None
    return Fleet(answers.logits, membership, digest, answers.views, weights, functools.partial(build_model, recipe, data, 0))


def retrain_fleet(
    retrain: Train,
    data: DataSet,
    *,
    models: int,
    rate: float,
    digest: str = "",
    test: Int[np.ndarray, " test"] = NO_TEST,
    folder: Path | None = None,
    views: Views | None = None,
    users: Int[np.ndarray, " users"] | None = None,
    progress: bool = True,
) -> Fleet:
    """The same with anyone's own training, one model after the other.

    Args:
        retrain: see :data:`Train`.
        digest: of what ``retrain`` does, without which nothing is cached; data, numbers and code version are added to it.
        users: whose each example is, where the target's users had one coin each.

    Raises:
        UserError: a folder without a digest, or a model's outputs are not one a class.
    """
    if folder is not None and not digest:
        raise UserError("folder is given and digest is not, so nothing says what trained these models; give both, or neither")
    digest = fleet_digest(digest, data, models, rate, test, views.name if views else None, users)
    membership = draw_membership(models, len(data), rate, test=test, users=users)
    cache = Cache(folder, digest, membership, views=views is not None)

    def trained(missing: list[int]) -> Iterator[Answers]:
        with _bar(models, "model", progress) as bar:
            bar.update(models - len(missing))
            for number in missing:
                yield Answers.of(retrain(np.flatnonzero(membership[number]), FIRST_SEED + number), number, data, views)
                bar.update()

    answers = cache.whole()
    if answers is None:
        with cache.alone():
            answers = cache.whole() or _gathered(cache, data, models, trained)
    return Fleet(answers.logits, membership, digest, answers.views)


def _gathered(cache: Cache, data: DataSet, models: int, train: Callable[[list[int]], Iterator[Answers]]) -> Answers:
    """All models: those that the cache has kept, and those that are trained now. What is done when this is interrupted is
    written.

    Raises:
        UserError: a model's outputs are not one a class.
    """
    done = cache.parts()
    missing = sorted(set(range(models)).difference(*(part.models.tolist() for part in done)))
    try:
        for answers in train(missing):
            _check_outputs(answers, data)
            done.append(answers)
            cache.add(answers)
    finally:
        cache.flush()
    answers = Answers.joined(done)
    cache.finish(answers)
    return answers


def _check_outputs(answers: Answers, data: DataSet) -> None:
    outputs = answers.logits.shape[2:]
    if data.is_language and outputs == data.targets.shape[1:]:
        return
    if outputs != (data.outputs,):
        given = f"{outputs[0]} outputs" if len(outputs) == 1 else f"outputs of shape {tuple(outputs)}"
        raise UserError(
            f"a shadow model gives {given} an example, and data set {data.name!r} has {len(data.classes) or 'no'} classes; "
            f"give a model with {data.outputs} outputs, one a class, or one where a value is predicted"
        )


def _trained(job: Job, missing: list[int], bar: tqdm) -> Iterator[Answers]:
    bar.update((len(job.membership) - len(missing)) * job.steps)
    if not missing:
        return
    way, block = _fastest(job, missing, bar)
    began = time.perf_counter()
    yield job.finish(block, missing, bar)
    blocks = [missing[start : start + block.models] for start in range(0, len(missing), block.models)]
    yield from _others(job, way, blocks, bar, time.perf_counter() - began)


def _others(job: Job, way: Way, blocks: list[list[int]], bar: tqdm, seconds: float) -> Iterator[Answers]:
    """What is left, on all cores that torch may use, where a block that one of them trains says that this is faster.

    Args:
        seconds: that one block took with all threads.
    """
    cores = torch.get_num_threads()
    if cores > 1 and len(blocks) > 1 and startable(job.recipe, job.views) and seconds * len(blocks) > WORTH_STARTING:
        torch.set_num_threads(1)
        try:
            began = time.perf_counter()
            yield job.train(way, blocks.pop(0), bar)
            alone = time.perf_counter() - began
            if alone / cores < seconds and alone * len(blocks) > WORTH_STARTING:
                yield from shared_out(job, way, blocks, cores - 1, bar)
                return
        finally:
            torch.set_num_threads(cores)
    for numbers in blocks:
        yield job.train(way, numbers, bar)


def _bar(total: int, unit: str, progress: bool) -> tqdm:
    return tqdm(total=total, desc="shadow models", unit=unit, disable=None if progress else True, leave=False)


_known: dict[tuple[Any, ...], Way] = {}
"""The fastest way, by what the speed of a step depends on."""


def _kind_of(job: Job, missing: list[int]) -> tuple[Any, ...]:
    """What the speed of a step depends on. Of a budget, that there is one; of who is in which model, the share."""
    privacy = job.recipe.privacy
    if privacy.epsilon is not None and math.isfinite(privacy.epsilon):
        privacy = dataclasses.replace(privacy, epsilon=1.0)
    recipe = dataclasses.replace(job.recipe, privacy=privacy).digest()
    share = round(float(job.membership.mean()), 1)
    return recipe, job.performance, job.data.fingerprint, share, len(missing), torch.get_num_threads()


def _remembered(job: Job, kind: tuple[Any, ...], missing: list[int], bar: tqdm) -> tuple[Way, Block] | None:
    """The way that an earlier fleet of this kind showed to be the fastest, with its models begun; None where there was none,
    and where there is not the memory for it now."""
    way = _known.get(kind)
    if way is None or job.steps < 1:
        return None
    try:
        block = job.begin(way, missing)
        block.step()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        del _known[kind]
        return None
    bar.update(block.models)
    return way, block


def _fastest(job: Job, missing: list[int], bar: tqdm) -> tuple[Way, Block]:
    """The way that takes the least time for a step of a model, and the models that it has begun."""
    wanted = job.performance.fleet
    if wanted != "measured":
        try:
            return wanted, job.begin(wanted, missing)
        except Unstackable:
            return "one by one", job.begin("one by one", missing)
    kind = _kind_of(job, missing)
    if (remembered := _remembered(job, kind, missing, bar)) is not None:
        return remembered
    blocks: dict[Way, Block] = {}
    times: dict[Way, float] = {}
    for way in WAYS:
        try:
            if times and _seconds(job.begin(way, missing[:2]), min(2, job.steps)) > HOPELESS * min(times.values()):
                continue
            blocks[way] = job.begin(way, missing)
            times[way] = _seconds(blocks[way], job.steps)
        except Unstackable:
            continue
        except (RuntimeError, MemoryError) as error:
            if way == "one by one" or not is_out_of_memory(error):
                raise
    fastest = min(times, key=lambda way: times[way])
    if job.steps > 1:  # of one alone, what only a first step costs would be taken for the way's
        _known[kind] = fastest
    bar.update(blocks[fastest].taken * blocks[fastest].models)
    return fastest, blocks[fastest]


def _seconds(block: Block, steps: int) -> float:
    """For a step of one model: the least of the first few, after one that is not timed where there are more."""
    began, least = time.perf_counter(), float("inf")
    for _ in range(min(1 + TIMED, steps)):
        before = time.perf_counter()
        block.step()
        now = time.perf_counter()
        if block.taken > 1 or steps == 1:
            least = min(least, (now - before) / block.models)
        if block.taken > 2 and now - began > LONG:
            break
    return least
