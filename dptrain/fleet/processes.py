"""Blocks of models, on several cores: each of these processes trains one after the other with one thread, and so does this one.

A worker is a fresh interpreter (``python -m dptrain.fleet.worker``): forking a process in which torch has threads can hang,
and ``multiprocessing`` would run the caller's own script again. It reads recipe, data and membership from a folder that only
this user can open, and which is gone when the fleet is done; then it is told one block after the other, and says where its
answers lie.

A worker that dies costs time alone: its models are trained here, and an error that killed it is raised here.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

import dptrain
from dptrain.data.dataset import DataSet
from dptrain.fleet.answers import Answers, Views
from dptrain.fleet.cache import read_answers
from dptrain.fleet.views import by_name
from dptrain.penalties import parse
from dptrain.plain import as_plain
from dptrain.recipe import Recipe
from dptrain.registry import LOSSES, MODELS, OPTIMIZERS, REGULARIZERS

if TYPE_CHECKING:
    from dptrain.fleet.training import Job, Way

JOB, INPUTS, TARGETS, MEMBERSHIP = "job.json", "inputs.npy", "targets.npy", "membership.npy"
FACTS = ("name", "classes", "bounds", "kind", "features", "source", "published_test")
WAIT = 0.5


def startable(recipe: Recipe, views: Views | None) -> bool:
    """Whether a fresh process knows all that is needed: names that came along, and no function of the caller's."""
    named = ((MODELS, recipe.model.name), (LOSSES, recipe.training.loss), (OPTIMIZERS, recipe.optimizer.name))
    named += tuple((REGULARIZERS, name) for name, _ in parse(recipe.regularization.penalty))
    known = views is None or by_name(views.name) is views
    return known and not any(registry.source(name) for registry, name in named)


def shared_out(job: "Job", way: "Way", blocks: list[list[int]], workers: int, bar: tqdm) -> Generator[Answers, None, None]:
    """These models, each block of them trained by whoever is free: ``workers`` other processes, and this one."""
    waiting, left = deque(blocks), len(blocks)
    found: queue.SimpleQueue[Answers] = queue.SimpleQueue()
    with _started(job, min(workers, len(blocks))) as processes:
        for process in processes:
            threading.Thread(target=_feed, args=(job, way, process, waiting, found), daemon=True).start()
        while left:
            while not found.empty():
                answers = found.get()
                bar.update(job.steps * len(answers.models))
                left -= 1
                yield answers
            try:
                numbers = waiting.popleft()
            except IndexError:  # the last ones are under way, or come back from a worker that died
                if left:
                    _wait(found)
                continue
            answers = job.train(way, numbers, bar)
            left -= 1
            yield answers


def _wait(found: "queue.SimpleQueue[Answers]") -> None:
    try:
        found.put(found.get(timeout=WAIT))
    except queue.Empty:
        return


def _feed(
    job: "Job",
    way: "Way",
    process: "subprocess.Popen[str]",
    waiting: "deque[list[int]]",
    found: "queue.SimpleQueue[Answers]",
) -> None:
    """Gives one worker a block after the other; what it could not train goes back."""
    assert process.stdin is not None
    assert process.stdout is not None
    while True:
        try:
            numbers = waiting.popleft()
        except IndexError:
            return
        try:
            process.stdin.write(json.dumps([way, numbers]) + "\n")
            process.stdin.flush()
            said = Path(process.stdout.readline().strip())
        except (OSError, ValueError):  # its pipe is broken or closed
            said = Path()
        answers = read_answers(said, job.digest, job.membership)
        if answers is None:
            waiting.append(numbers)
            return
        said.unlink(missing_ok=True)
        found.put(answers)


@contextmanager
def _started(job: "Job", count: int) -> Iterator[list["subprocess.Popen[str]"]]:
    """The workers, which end with the block however it ends."""
    processes: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory(prefix="dptrain-fleet-", ignore_cleanup_errors=True) as name:
        write_job(Path(name), job)
        paths = [str(Path(dptrain.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        try:
            for _ in range(count):
                processes.append(  # noqa: PERF401  each is ended below, also where the next one does not start
                    subprocess.Popen(
                        [sys.executable, "-m", "dptrain.fleet.worker", name],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL,
                        text=True,
                        env=environment,
                        start_new_session=True,  # Ctrl-C is for this process, which then ends them
                    )
                )
            yield processes
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()


def write_job(folder: Path, job: "Job") -> None:
    """All that a worker must know."""
    np.save(folder / INPUTS, job.data.inputs.numpy())
    np.save(folder / TARGETS, job.data.targets.numpy())
    np.save(folder / MEMBERSHIP, job.membership)
    plain = {
        "recipe": as_plain(job.recipe),
        "performance": as_plain(job.performance),
        "data": {name: as_plain(getattr(job.data, name)) for name in FACTS},
        "fingerprint": job.data.fingerprint,
        "steps": job.steps,
        "digest": job.digest,
        "keep_weights": job.keep_weights,
        "views": None if job.views is None else job.views.name,
        "public": None if job.public is None else job.public.tolist(),
        "insecure_seed": job.insecure_seed,
    }
    (folder / JOB).write_text(json.dumps(plain))


def read_job(folder: Path) -> "Job":
    """The same, read by the worker.

    Raises:
        ValueError: the data are not those that were written.
    """
    import torch

    from dptrain.fleet.training import Job
    from dptrain.plain import from_plain
    from dptrain.recipe import Performance

    plain: dict[str, Any] = json.loads((folder / JOB).read_text())
    inputs, targets = (torch.from_numpy(np.load(folder / file, mmap_mode="c")) for file in (INPUTS, TARGETS))
    facts: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in plain["data"].items()}
    facts["bounds"] = tuple(float(bound) for bound in facts["bounds"])
    data = DataSet(inputs=inputs, targets=targets, **facts)
    if data.fingerprint != plain["fingerprint"]:
        raise ValueError(f"{folder} does not hold the data that were written")
    return Job(
        from_plain(Recipe, plain["recipe"], str(folder)),
        data,
        np.load(folder / MEMBERSHIP),
        plain["steps"],
        plain["digest"],
        from_plain(Performance, plain["performance"], str(folder)),
        views=None if plain["views"] is None else by_name(plain["views"]),
        keep_weights=plain["keep_weights"],
        public=None if plain["public"] is None else np.array(plain["public"], dtype=np.int64),
        insecure_seed=plain["insecure_seed"],
    )
