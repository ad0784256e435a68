"""Runs a comparison: every model trained, every checkpoint attacked, everything reported.

Nothing is written before data, plan and δ of every job have been checked. A finished job is not run again; a job that was
cut goes on from its checkpoint. A job that breaks is listed as such and does not stop the others.
"""

import contextlib
import dataclasses
import json
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from tqdm import tqdm

import dptrain.data
from dptrain import distributed
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, split_of
from dptrain.errors import CheckpointError
from dptrain.executor import Executor, Finished, Work
from dptrain.executor.processes import Local
from dptrain.files import write_file, writing
from dptrain.plain import as_plain, from_plain
from dptrain.plan import calibrations, take_up_calibrations
from dptrain.telemetry import quiet_writers
from dptrain.trainer import build_training
from dptrain.version import versions
from evaluation import runner, scripted, spending
from evaluation.answered import with_answer
from evaluation.exchange import exchanged
from evaluation.guard_costs import guard_costs
from evaluation.result import ComparisonResult, Measure, write
from evaluation.summary import read_results, summarize, with_twins
from recipes import audits
from recipes.comparison import Comparison, Job
from recipes.folder import ABOUT, about_run, claim, load_run, locked, read_json
from recipes.jobs import CALIBRATIONS, board, insecure_seed_of, is_complete, labelled, run_one, twin_of
from recipes.sweep import Sweep, has_results
from recipes.sweeping import elsewhere, executor_of, here, way_on
from recipes.total import check_total

NOT_COVERED = (
    "The figures and pictures of this report: they are computed from members without noise.",
    "The choice of hyper-parameters, of the best seed and of the best budget: each look at private data that decides "
    "something is a release of its own. Each ε is of one model; what all runs together spend is what the ledger says.",
    "Telemetry in the .non_private folder (training loss, share of clipped examples): exact functions of private examples.",
    "Rounding in floating point, timing, and whoever can read the memory of the machine that trains.",
    "Attacks that were not run. Finding nothing is not a proof; the guarantee is.",
)
"""Whatever the unit is."""

SEVERAL_OF_ONE_PERSON = {
    "example": "People with several examples: the guarantee hides one example, and weakens with every further one of the same "
    "person.",
    "node": "People who are behind several nodes: the guarantee hides one node with its edges, and weakens with every further "
    "one of the same person.",
    "edge": "Everything but edges: the features and labels of nodes, and who is one of them, are hidden by nothing. Of several "
    "edges of one person the guarantee hides one, and weakens with every further one.",
    "user": "People whose examples are held under several users: the guarantee hides one user, and weakens with every further "
    "one of the same person.",
}
PUBLIC_ROSTER = "Who is among the classes: each of them is one person, and the list of classes is public."


def not_covered(unit: str, classes_are: str) -> tuple[str, ...]:
    """What a guarantee of this unit says nothing about, a sentence each, where classes are kinds of examples or users."""
    return SEVERAL_OF_ONE_PERSON[unit], *((PUBLIC_ROSTER,) if classes_are == "users" else ()), *NOT_COVERED


def run(
    comparison: Comparison, name: str, command: str, progress: bool = True, sweep: Sweep | None = None
) -> ComparisonResult | None:
    """Trains and attacks every job of the comparison into its output folder, and writes the reports there.

    Of several processes all train together; the first one alone writes, attacks and reports, and the others get None.

    Args:
        sweep: how many jobs run at once, where, and which; left out, all of them here, one after the other.

    Raises:
        UserError: something given cannot be used; nothing was written.
        KeyboardInterrupt: after Ctrl-C, with a checkpoint on disk.
        RankError: another process died or is elsewhere; no job can go on.
    """
    sweep = sweep or Sweep()
    if comparison.performance.threads is not None:
        torch.set_num_threads(comparison.performance.threads)
    root = Path(comparison.output).resolve()
    jobs = labelled(comparison, list(sweep.only)) if sweep.only else comparison.jobs()
    with contextlib.ExitStack() as stack:
        executor = None if sweep.is_here else stack.enter_context(contextlib.closing(executor_of(sweep, comparison)))
        if executor is not None:  # its processes import what they need while the plans are checked here
            executor.prepare(Work(run_one, root), sum(not has_results(root / job.label) for job in jobs))
        return _run(comparison, name, command, progress, sweep, jobs, root, executor)


def _run(
    comparison: Comparison,
    name: str,
    command: str,
    progress: bool,
    sweep: Sweep,
    jobs: list[Job],
    root: Path,
    executor: Executor | None,
) -> ComparisonResult | None:
    ranks = distributed.current()
    data = ranks.together("the data", lambda: dptrain.data.load(comparison.recipe.data))
    shares = comparison.recipe.data.split
    unit = comparison.recipe.privacy.unit
    splits = {seed: split_of(data, shares, seed, unit) for seed in comparison.seeds}
    if (root / CALIBRATIONS).is_file():
        take_up_calibrations(read_json(root / CALIBRATIONS))
    ranks.together("the plans", lambda: check(jobs, data, splits))
    guard = comparison.recipe.release.guard
    ranks.together("the attacks", lambda: runner.check_plan(comparison.evaluation, data, guard, splits.values()))
    ranks.first("the total budget", lambda: check_total(comparison, data, to_come(jobs, comparison, root, data)))
    with contextlib.ExitStack() as stack:

        def claimed() -> None:
            stack.enter_context(claim(root, comparison, name, command, data))
            write_file(root / CALIBRATIONS, (json.dumps(calibrations(), indent=1) + "\n").encode())

        ranks.first("the output folder", claimed)
        failures: dict[str, str] = {}
        try:
            if executor is None:
                here(jobs, comparison, root, data, splits, failures, name, progress and ranks.is_first)
            else:
                elsewhere(executor, sweep, jobs, comparison, root, data, failures, name, progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(way_on(comparison.output, sweep)) from None
        finally:
            if ranks.is_first:
                _keep(failures, jobs, root)
        return report(root, executor) if ranks.is_first else None


def _keep(failures: dict[str, str], jobs: list[Job], root: Path) -> None:
    """Writes what failed, beside what failed earlier of jobs that were not run this time."""
    path = root / "failures.json"
    before = read_json(path) if path.exists() else {}
    others = {label: reason for label, reason in before.items() if label not in {job.label for job in jobs}}
    write_file(path, (json.dumps(others | failures, indent=1) + "\n").encode())


def to_come(jobs: list[Job], comparison: Comparison, root: Path, data: DataSet) -> list[tuple[Job, Path]]:
    """The jobs that are not complete, and their folders."""
    folders = [(job, root / job.label) for job in jobs]
    return [(job, folder) for job, folder in folders if not is_complete(job, folder, comparison.evaluation, data)]


def check(jobs: list[Job], data: DataSet, splits: dict[int, Split]) -> None:
    """Builds every job's plan, model and optimizer, so that what cannot be trained is refused before anything is."""
    for job in jobs:
        build_training(job.recipe, data, splits[job.seed].members, job.seed, public=splits[job.seed].public)


def report(root: Path, executor: Executor | None = None) -> ComparisonResult:
    """Gathers the results below ``root`` and writes results.json, report.html, the private page and the TensorBoard folder.

    Args:
        executor: ``local`` with processes that are there already, of which one writes the TensorBoard folder meanwhile; where
            it fails, that is done here.
    """
    if scripted.is_there(root):
        return scripted.report(root)
    from evaluation.report import html, private

    result = gather(root)
    write(result, root / "results.json")
    with _beside(root, executor) as written:
        private.write(result, root)
        html.write(result, root, root / "report.html")
        if not written():
            write_tensorboard(result, root)
    return result


@contextlib.contextmanager
def _beside(root: Path, executor: Executor | None) -> Iterator[Callable[[], bool]]:
    """Lets a process of the executor write the TensorBoard folder. What it gives waits for that, and says whether it was done;
    the process ends with the block."""
    if not isinstance(executor, Local):
        yield lambda: False
        return
    work, done = Work(board, root), list[Finished]()
    thread = threading.Thread(target=lambda: done.extend(executor.run(work, ["tensorboard"])), daemon=True)
    thread.start()

    def written() -> bool:
        thread.join()
        shutil.rmtree(work.statuses, ignore_errors=True)
        return all(job.error is None for job in done) and bool(done)

    try:
        yield written
    finally:
        executor.close()


def write_tensorboard(result: ComparisonResult, root: Path) -> None:
    """The TensorBoard folder of a run."""
    from evaluation.report import tensorboard

    with writing(root / "tradeoff"), quiet_writers():
        tensorboard.write(result, root)


def titled(recipe: str, data: str) -> str:
    """Of a comparison that has none of its own: its recipe, and the data where they are not those that it is called after."""
    return recipe if data.split(".")[0].replace("-", "_") in recipe else f"{data}, by the recipe {recipe}"


def gather(root: Path) -> ComparisonResult:
    """The comparison's result from the results of its runs; the data set itself is not needed.

    Raises:
        CheckpointError: the folder holds no comparison.
    """
    if scripted.is_there(root):
        return scripted.gather(root)
    comparison = load_run(root)
    about = about_run(root)
    jobs = comparison.jobs()
    last, earlier = read_results(root / job.label for job in jobs)
    runs = with_twins(last)
    done = {run.label for run in last}
    broken = read_json(root / "failures.json") if (root / "failures.json").exists() else {}
    unfinished = {job.label: "not finished; `dptrain resume` goes on" for job in jobs if job.label not in done}
    failures = {**unfinished, **{label: reason for label, reason in broken.items() if label not in done}}
    audited, unread = audits.read(root)
    result = ComparisonResult(
        name=about["name"],
        title=comparison.title or titled(about["name"], about["data"]["name"]),
        runs=runs,
        summary=summarize(runs),
        exchanges=exchanged(runs),
        guard_costs=guard_costs(runs),
        command=about["command"],
        data=about["data"],
        recipe=as_plain(comparison.recipe),
        versions=versions(),
        not_covered=not_covered(comparison.recipe.privacy.unit, about["data"].get("classes_are", "kinds")),
        baselines=tuple(from_plain(Measure, item, str(root / ABOUT)) for item in about["without_model"]),
        checkpoints=earlier,
        failures=(*(f"{label}: {reason}" for label, reason in sorted(failures.items())), *unread),
        audits=audited,
        evaluation=as_plain(comparison.evaluation),
        ledger=spending.shown(str(about["data"].get("fingerprint", ""))),
    )
    return with_answer(result)


def evaluate_again(root: Path, attacks: list[str], progress: bool = True) -> ComparisonResult:
    """Attacks every last checkpoint below ``root`` again.

    Args:
        attacks: which; none means those of the comparison.
    """
    comparison = load_run(root)
    plan = dataclasses.replace(comparison.evaluation, attacks=tuple(attacks)) if attacks else comparison.evaluation
    data = dptrain.data.load(comparison.recipe.data)
    jobs = [job for job in comparison.jobs() if (root / job.label / "release").exists()]
    if not jobs:
        raise CheckpointError(f"{root} holds no checkpoint yet; type `dptrain resume {root}`")
    with locked(root):
        for job in tqdm(jobs, desc="evaluate", unit="run", disable=None if progress else True):
            runner.evaluate(
                root / job.label,
                data,
                plan=plan,
                recipe=job.recipe,
                twin=twin_of(job, comparison),
                fleet_folder=root / "private" / "fleet",
                performance=comparison.performance,
                keep_others=True,
                progress=progress,
                insecure_seed=insecure_seed_of(job, comparison),
            )
        return report(root)


def command_line(arguments: list[str]) -> str:
    """What was typed, so that it can be typed again."""
    return shlex.join(["dptrain", *arguments])
