"""One job of a comparison, as a function of its folder and its label: what every executor calls.

    run_one(Path("runs/digits"), "eps=08.00/seed=0")

Everything else is read from the folder's comparison.toml. The same recipe, seed and split give the same job wherever it runs:
one that is complete is not run again, one that was cut goes on from its checkpoint, and two processes never work at one.

``python -m recipes.jobs runs/digits`` is a worker of the executor ``local``, which can also write the run's TensorBoard folder.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import dptrain.data
from dptrain import distributed
from dptrain.checkpoint import unpack_json
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, split_of
from dptrain.errors import CheckpointError, ConfigError, unknown_name
from dptrain.executor import worker
from dptrain.locking import held
from dptrain.plan import take_up_calibrations
from dptrain.recipe import Recipe
from dptrain.registry import DATASETS, GUARDS, LOSSES, MODELS, OPTIMIZERS, Registry
from dptrain.trainer import Trainer
from evaluation import runner
from evaluation.plan import ATTACKS, EvaluationPlan
from evaluation.result import read_run
from recipes.comparison import Comparison, Job, from_toml, parse
from recipes.notes import as_sentences

PATIENCE = 120.0
"""Seconds that a job waits for another process at the same one: of a sweep whose first process was killed, they end by
themselves after a step."""
CALIBRATIONS = "calibrations.json"
"""Below the run: the noise multipliers that were found for its budgets."""


def run_one(root: Path, label: str) -> None:
    """Trains and attacks one model of the comparison in ``root``, unless that was done.

    Raises:
        UserError: the folder holds no such job, or the data are not those of the run.
        KeyboardInterrupt: after Ctrl-C, with a checkpoint on disk.
    """
    begun = (root / "comparison.toml").stat().st_mtime_ns
    comparison, data = _opened(root, begun)
    job = labelled(comparison, [label])[0]
    run_job(job, comparison, root, data, _split(root, begun, job.seed), progress=False)


def board(root: Path, label: str) -> None:
    """Writes the TensorBoard folder of the run in ``root``; beside other reports, that are written meanwhile.

    Args:
        label: says nothing.
    """
    from recipes.runs import gather, write_tensorboard

    del label
    write_tensorboard(gather(root), root)


@functools.lru_cache(maxsize=1)
def _opened(root: Path, stamp: int) -> tuple[Comparison, DataSet]:
    """The comparison and its data, loaded once a process; its plans, as they were calibrated when it was begun."""
    path = root / "comparison.toml"
    comparison = from_toml(path.read_text(encoding="utf-8"), path)
    data = dptrain.data.load(comparison.recipe.data)
    begun = unpack_json((root / "comparison.json").read_bytes(), root / "comparison.json")
    if begun["data"].get("fingerprint") != data.fingerprint:
        raise CheckpointError(f"{root} holds models of other data: {data.name} has changed since; put the data back")
    if (root / CALIBRATIONS).is_file():
        take_up_calibrations(unpack_json((root / CALIBRATIONS).read_bytes(), root / CALIBRATIONS))
    return comparison, data


@functools.lru_cache(maxsize=32)
def _split(root: Path, stamp: int, seed: int) -> Split:
    """Of a seed, the same object for all budgets: what is computed of a split, such as its blind baseline, is kept by it."""
    comparison, data = _opened(root, stamp)
    return split_of(data, comparison.recipe.data.split, seed, comparison.recipe.privacy.unit)


def labelled(comparison: Comparison, labels: list[str]) -> list[Job]:
    """The jobs of these labels, in the comparison's order; ``eps=08.00`` stands for those of all its seeds.

    Raises:
        ConfigError: there is no such job; with the nearest one.
    """
    jobs = comparison.jobs()
    known = {job.label for job in jobs} | {job.label.partition("/")[0] for job in jobs}
    for label in labels:
        if label.strip("/") not in known:
            raise unknown_name("job", label, known)
    wanted = {label.strip("/") for label in labels}
    return [job for job in jobs if wanted & {job.label, job.label.partition("/")[0]}]


def run_job(job: Job, comparison: Comparison, root: Path, data: DataSet, split: Split, progress: bool) -> bool:
    """Trains and attacks one model, unless that was done; and whether it was not."""
    folder = root / job.label
    ranks = distributed.current()
    if ranks.first(job.label, lambda: is_complete(job, folder, comparison.evaluation, data)):
        return False
    if not ranks.is_first:
        _train(job, comparison, root, data, split, progress)
        return True
    busy = f"{job.label} is being trained by {{by}}; wait until it has ended, or end it"
    with held(folder / ".lock", busy=lambda by: ConfigError(busy.format(by=by)), wait=PATIENCE):
        _train(job, comparison, root, data, split, progress)
    return True


def _train(job: Job, comparison: Comparison, root: Path, data: DataSet, split: Split, progress: bool) -> None:
    fleet, twin = root / "private" / "fleet", twin_of(job, comparison)
    insecure_seed = insecure_seed_of(job, comparison)
    attack = runner.callback(comparison.evaluation, fleet, comparison.performance, progress, twin, insecure_seed)
    trainer = Trainer(
        job.recipe,
        data,
        split,
        seed=job.seed,
        folder=root / job.label,
        performance=comparison.performance,
        callbacks=(attack,),
        insecure_seed=insecure_seed,
        label=job.label,
        variant=job.variant,
        regularizer=job.regularizer,
        telemetry=telemetry_folder(root) / job.label,
        progress=progress,
        total=comparison.total(),
    )
    trainer.run()


def insecure_seed_of(job: Job, comparison: Comparison) -> int | None:
    """Of a job's batches and noise, and those of its shadow models; None where they are secret."""
    return None if comparison.insecure_seed is None else comparison.insecure_seed * 1000 + job.seed


def twin_of(job: Job, comparison: Comparison) -> Recipe | None:
    """The recipe of the comparison's non-private model of the same seed; None where it has none."""
    return next((other.recipe for other in comparison.jobs() if (other.variant, other.seed) == ("non_private", job.seed)), None)


def telemetry_folder(root: Path) -> Path:
    """The log directory for exact training curves: beside the comparison's, never inside it."""
    return root.with_name(f"{root.name}.non_private")


def is_complete(job: Job, folder: Path, plan: EvaluationPlan, data: DataSet) -> bool:
    """Whether the last checkpoint of the job was trained on these data, and no attack on it is missing or failed, through no
    guard either."""
    results = map(read_run, sorted((folder / "evaluation").glob("step=*/result.json")))
    found = next((result for result in results if result.step == result.steps), None)
    if found is None or found.recipe_digest != job.recipe.digest() or found.data_fingerprint != data.fingerprint:
        return False
    done = {attack.name for attack in found.attacks if attack.status != "failed"}
    through = {item.guard for item in found.guarded if all(attack.status != "failed" for attack in item.attacks)}
    return done.issuperset(plan.attacks) and through.issuperset(plan.guards)


@dataclass(frozen=True)
class Foreign:
    """Something that a user's script registered."""

    kind: str
    name: str


def foreign(comparison: Comparison) -> list[Foreign]:
    """What a comparison names that a fresh process does not know, since a script registered it in this one."""
    from dptrain.release.parts import parse

    recipe, plan = comparison.recipe, comparison.evaluation
    guards = [text for text in (recipe.release.guard, *plan.guards) if text is not None]
    named: list[tuple[Registry, str]] = [
        (DATASETS, recipe.data.name),
        (MODELS, recipe.model.name),
        (LOSSES, recipe.training.loss),
        (OPTIMIZERS, recipe.optimizer.name),
        (OPTIMIZERS, comparison.non_private_optimizer.name),
        *((ATTACKS, name) for name in plan.attacks),
        *((GUARDS, part.name) for text in guards for part in parse(text)),
    ]
    return [Foreign(registry.kind, name) for registry, name in named if not registry.came_along(name)]


def warm() -> None:
    """Imports what jobs and reports import where they first need it, and has the parser read the flags' own source once."""
    import dp_accounting.pld.pld_privacy_accountant  # noqa: F401
    import opacus.accountants  # noqa: F401
    import sklearn.ensemble  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    import evaluation.report.figures
    import evaluation.report.tensorboard  # noqa: F401
    import recipes.runs  # noqa: F401

    parse([])


if __name__ == "__main__":
    with as_sentences():
        worker.serve(run_one, board, warm=warm)
