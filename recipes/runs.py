"""Runs a comparison: every model trained, every checkpoint attacked, everything reported.

Nothing is written before data, plan and δ of every job have been checked. A finished job is not run again; a job that was
cut goes on from its checkpoint. A job that breaks is listed as such and does not stop the others.
"""

import contextlib
import dataclasses
import json
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import dptrain.data
from dptrain import distributed
from dptrain.checkpoint import unpack_json
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, split_of
from dptrain.errors import CheckpointError, ConfigError, DiskError, RankError
from dptrain.executor import EXECUTORS, Executor, Work
from dptrain.executor.work import described
from dptrain.files import write_file
from dptrain.locking import held
from dptrain.plain import as_plain, from_plain
from dptrain.plan import calibrations, take_up_calibrations
from dptrain.trainer import build_training
from dptrain.version import versions
from evaluation import runner, scripted
from evaluation.answered import with_answer
from evaluation.exchange import exchanged
from evaluation.guard_costs import guard_costs
from evaluation.result import ComparisonResult, Measure, write
from evaluation.summary import read_results, summarize, with_twins
from evaluation.utility import without_model
from recipes import audits, spending
from recipes.comparison import Comparison, Job, from_toml, plain, to_toml
from recipes.display import Display
from recipes.jobs import CALIBRATIONS, foreign, insecure_seed_of, is_complete, labelled, run_job, run_one, twin_of
from recipes.sweep import Sweep
from recipes.total import check_total

ABOUT = "comparison.json"
"""Beside comparison.toml: what a report needs and the comparison does not say."""
LOCK = ".lock"
"""Held by the process that is at work in the folder."""

NOT_COVERED = (
    "The figures and pictures of this report: they are computed from members without noise.",
    "The choice of hyper-parameters, of the best seed and of the best budget: each look at private data that decides "
    "something is a release of its own, and this comparison's runs are not composed with one another.",
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
    ranks, sweep = distributed.current(), sweep or Sweep()
    if comparison.performance.threads is not None:
        torch.set_num_threads(comparison.performance.threads)
    root = Path(comparison.output).resolve()
    jobs = labelled(comparison, list(sweep.only)) if sweep.only else comparison.jobs()
    executor = None if sweep.is_here else executor_of(sweep, comparison)
    data = ranks.together("the data", lambda: dptrain.data.load(comparison.recipe.data))
    shares = comparison.recipe.data.split
    unit = comparison.recipe.privacy.unit
    splits = {seed: split_of(data, shares, seed, unit) for seed in comparison.seeds}
    if (root / CALIBRATIONS).is_file():
        take_up_calibrations(_read_json(root / CALIBRATIONS))
    ranks.together("the plans", lambda: check(jobs, data, splits))
    guard = comparison.recipe.release.guard
    ranks.together("the attacks", lambda: runner.check_plan(comparison.evaluation, data, guard, splits.values()))
    ranks.first("the total budget", lambda: check_total(comparison, data, to_come(comparison, root, data)))
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
        return report(root) if ranks.is_first else None


def here(
    jobs: list[Job],
    comparison: Comparison,
    root: Path,
    data: DataSet,
    splits: dict[int, Split],
    failures: dict[str, str],
    name: str,
    progress: bool,
) -> None:
    """One job after the other, in this process; with others, where several train each model together."""
    with Display(name, len(jobs), shown=progress) as display:
        for job in jobs:
            display.begins(job.label)
            began = time.monotonic()
            try:
                run_job(job, comparison, root, data, splits[job.seed], progress)
            except (RankError, DiskError):  # the next job would spend of its budget and could not be saved either
                raise
            except Exception as error:  # one broken job must not lose the others' hours
                failures[job.label] = described(error)
            display.ended(job.label, failures.get(job.label), False, time.monotonic() - began)


def elsewhere(
    executor: Executor,
    sweep: Sweep,
    jobs: list[Job],
    comparison: Comparison,
    root: Path,
    data: DataSet,
    failures: dict[str, str],
    name: str,
    progress: bool,
) -> None:
    """What is not complete, by an executor."""
    labels = [job.label for job in jobs if not is_complete(job, root / job.label, comparison.evaluation, data)]
    work = Work(run_one, root)
    shutil.rmtree(work.statuses, ignore_errors=True)  # of a sweep that was killed
    done = len(jobs) - len(labels)
    with Display(name, len(jobs), done, folder=work.statuses, lines=min(sweep.jobs, len(labels)), shown=progress) as display:
        try:
            with contextlib.closing(executor.run(work, labels)) as running:
                for job in running:
                    if job.error is not None:
                        failures[job.label] = job.error
                    display.ended(job.label, job.error, job.stopped, job.seconds)
        finally:
            shutil.rmtree(work.statuses, ignore_errors=True)


def executor_of(sweep: Sweep, comparison: Comparison) -> Executor:
    """The executor that a sweep names.

    Raises:
        ConfigError: it cannot run these jobs: something is known to this process alone, or several processes train each model.
    """
    how = f"--executor {sweep.executor}" if sweep.executor != "local" else f"--jobs {sweep.jobs}"
    if distributed.current().size > 1:
        raise ConfigError(f"{how} starts processes for its jobs, and this one trains together with others; give one of both")
    unknown = foreign(comparison)
    if unknown:
        raise ConfigError(
            f"{how} starts fresh processes, and the {unknown[0].kind} {unknown[0].name!r} is registered in this one alone; "
            f"leave {how.split()[0]} out, to run one job after the other here"
        )
    return EXECUTORS[sweep.executor](sweep.options(comparison.performance.threads))


def way_on(output: str, sweep: Sweep) -> str:
    """What stands behind `dptrain resume` to go on in the same way."""
    flags = [] if sweep.jobs == 1 else ["--jobs", str(sweep.jobs)]
    flags += [] if sweep.executor == "local" else ["--executor", sweep.executor]
    return shlex.join([output, *flags])


def _keep(failures: dict[str, str], jobs: list[Job], root: Path) -> None:
    """Writes what failed, beside what failed earlier of jobs that were not run this time."""
    path = root / "failures.json"
    before = _read_json(path) if path.exists() else {}
    others = {label: reason for label, reason in before.items() if label not in {job.label for job in jobs}}
    write_file(path, (json.dumps(others | failures, indent=1) + "\n").encode())


def to_come(comparison: Comparison, root: Path, data: DataSet) -> list[tuple[Job, Path]]:
    """The jobs that are not complete, and their folders."""
    jobs = [(job, root / job.label) for job in comparison.jobs()]
    return [(job, folder) for job, folder in jobs if not is_complete(job, folder, comparison.evaluation, data)]


def check(jobs: list[Job], data: DataSet, splits: dict[int, Split]) -> None:
    """Builds every job's plan, model and optimizer, so that what cannot be trained is refused before anything is."""
    for job in jobs:
        build_training(job.recipe, data, splits[job.seed].members, job.seed, public=splits[job.seed].public)


@contextlib.contextmanager
def claim(root: Path, comparison: Comparison, name: str, command: str, data: DataSet) -> Iterator[None]:
    """Takes the output folder for this comparison, and keeps other processes out of it for the block.

    Raises:
        ConfigError: the folder holds another comparison, one of other data, or something else; another process is at work in
            it; or the comparison would not be read back as it is.
    """
    path = root / "comparison.toml"
    text = to_toml(comparison)
    if plain(from_toml(text, path)) != plain(comparison):
        raise ConfigError("the comparison cannot be written down as TOML and read back the same; use simpler texts in it")
    if not path.exists():
        take(root)
    with locked(root):
        if path.exists():
            _check_same(root, comparison, data)
            first, _, _ = path.read_text(encoding="utf-8").partition("\n")
            if load_run(root).performance != comparison.performance:  # which workers read there
                write_file(path, f"{first}\n\n{text}".encode())
        else:
            _write_comparison(root, comparison, name, command, data)
        yield


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keeps other processes out of a run's folder. A lock of one that died holds nobody up.

    Raises:
        ConfigError: another one is at work there.
    """

    def busy(by: str) -> ConfigError:
        return ConfigError(f"{root} is in use by {by}; wait until that has ended, or type another folder with --output")

    with held(root / LOCK, busy=busy):
        yield


def _check_same(root: Path, comparison: Comparison, data: DataSet) -> None:
    if about_run(root)["data"].get("fingerprint") != data.fingerprint:
        raise ConfigError(
            f"{root} holds models of other data: {data.name} has changed since; type another folder, such as --output "
            f"{root}-2, or put the data back"
        )
    before, now = plain(load_run(root)), plain(comparison)
    if before != now:
        changed = ", ".join(sorted(_differences(before, now)))
        raise ConfigError(
            f"{root} holds another comparison ({changed} differ); type another folder, such as --output {root}-2, or remove it"
        )


def _write_comparison(root: Path, comparison: Comparison, name: str, command: str, data: DataSet) -> None:
    shares, unit = comparison.recipe.data.split, comparison.recipe.privacy.unit
    held_out = data.targets[split_of(data, shares, comparison.seeds[0], unit).held_out]
    about = {
        "name": name,
        "command": command,
        "data": {
            "name": data.name,
            "kind": data.kind,
            "classes": list(data.classes),
            "classes_are": data.classes_are,
            "value": None if data.value is None else as_plain(data.value),
            "input_shape": list(data.input_shape),
            "source": data.source,
            "fingerprint": data.fingerprint,
        },
        "without_model": as_plain(without_model(held_out, data)),
    }
    write_file(root / ABOUT, (json.dumps(about, indent=1) + "\n").encode())
    typed = "".join(letter if letter.isprintable() else " " for letter in command)
    write_file(root / "comparison.toml", f"# The resolved comparison. {typed}\n\n{to_toml(comparison)}".encode())


def take(root: Path) -> None:
    """Makes the folder, where there is none.

    Raises:
        ConfigError: it holds something else than a comparison and audits.
    """
    ours = {ABOUT, f".{ABOUT}", ".comparison.toml", LOCK, audits.FOLDER}
    if (root / "private" / "selection.json").is_file():  # a selection: `take` makes its chosen model a comparison of one
        ours.add("private")
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root} is a file; type another folder with --output")
    foreign = root.exists() and any(entry.name.rstrip("0123456789").rstrip(".") not in ours for entry in root.iterdir())
    if foreign and not (root / "comparison.toml").exists():
        raise ConfigError(f"{root} is not empty and holds no comparison; type another folder with --output")
    root.mkdir(parents=True, exist_ok=True)


def _differences(before: object, now: object, prefix: str = "") -> set[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before.keys() | now.keys()
        return {item for key in keys for item in _differences(before.get(key), now.get(key), f"{prefix}{key}.")}
    return set() if before == now else {prefix.rstrip(".").removeprefix("recipe.")}


def report(root: Path) -> ComparisonResult:
    """Gathers the results below ``root`` and writes results.json, report.html, the private page and the TensorBoard folder."""
    if scripted.is_there(root):
        return scripted.report(root)
    from evaluation.report import html, private, tensorboard

    result = gather(root)
    write(result, root / "results.json")
    tensorboard.write(result, root)
    private.write(result, root)
    html.write(result, root, root / "report.html")
    return result


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
    broken = _read_json(root / "failures.json") if (root / "failures.json").exists() else {}
    unfinished = {job.label: "not finished; `dptrain resume` goes on" for job in jobs if job.label not in done}
    failures = {**unfinished, **{label: reason for label, reason in broken.items() if label not in done}}
    audited, unread = audits.read(root)
    result = ComparisonResult(
        name=about["name"],
        title=comparison.title or about["name"],
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


def about_run(root: Path) -> dict[str, Any]:
    """Name of a run's recipe, the command that began it, and what must be known of its data.

    Raises:
        CheckpointError: the file that says it is missing or damaged.
    """
    about = _read_json(root / ABOUT)
    missing = {"name", "command", "data", "without_model"} - about.keys()
    if missing:
        raise CheckpointError(f"{root / ABOUT} lacks {', '.join(sorted(missing))}; restore it from a copy")
    return about


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return unpack_json(path.read_bytes(), path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; restore it from a copy, or run again into another folder") from None


def load_run(root: Path) -> Comparison:
    """The comparison that a run folder holds, with that folder as its output."""
    path = root / "comparison.toml"
    if not path.is_file():
        raise CheckpointError(f"{root} holds no comparison.toml, so it is not a run; name the folder that `dptrain run` made")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is not text; restore it from a copy") from None
    return dataclasses.replace(from_toml(text, path), output=str(root))


def command_line(arguments: list[str]) -> str:
    """What was typed, so that it can be typed again."""
    return shlex.join(["dptrain", *arguments])
