"""Runs that somebody's own script made, as one comparison.

    result = gather(Path("runs/mine"))     # every run below, with twins, means over seeds and what budgets buy
    report(Path("runs/mine"))              # results.json, report.html, TensorBoard

:mod:`evaluation.attendance` makes these runs. A folder is known for theirs by its ``script.json``, which says what must be
known of the data, and which script it was. Whatever lies below it and was attended to is a run: ``runs/mine`` itself, or
``runs/mine/eps=8`` and its neighbours. Runs of one split are each other's twins, by the split's seed.
"""

import dataclasses
import hashlib
import shlex
import sys
from pathlib import Path
from typing import Any

from dptrain.checkpoint import MANIFEST, pack_json, unpack_json
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split
from dptrain.errors import CheckpointError, ConfigError
from dptrain.files import write_file
from dptrain.plain import as_plain, from_plain
from dptrain.version import versions
from evaluation import spending
from evaluation.answered import with_answer
from evaluation.exchange import exchanged
from evaluation.guard_costs import guard_costs
from evaluation.result import ComparisonResult, Measure, RunResult, read_run, write
from evaluation.summary import summarize, with_twins
from evaluation.utility import without_model

ABOUT = "script.json"

NOT_COVERED = (
    "Whoever has several examples, where the unit is the example: each further one weakens the guarantee.",
    "Examples that were held out of training. Whoever reads an accuracy on them to choose a checkpoint, a step size or the "
    "moment to stop releases something of them.",
    "The choice of hyper-parameters, of the best run and of the best budget by looking at private data. Each ε is of one "
    "model; what all runs together spend is what the ledger says.",
    "What the script itself prints, logs or saves: training losses are exact functions of private examples.",
    "The figures and pictures of this report: they are computed from members without noise.",
    "Rounding in floating point, timing, and whoever can read the memory of the machine that trains.",
    "Attacks that were not run. Finding nothing is not a proof; the guarantee is.",
)


def is_there(root: Path) -> bool:
    """Whether the folder holds runs of a script."""
    return (root / ABOUT).is_file()


def check(root: Path, data: DataSet) -> None:
    """Raises ConfigError where the folder holds runs on other data, or a comparison of the command line's."""
    if (root / "comparison.toml").exists():
        raise ConfigError(f"{root} holds a comparison of `dptrain run`; give another folder")
    if is_there(root) and _about(root)["data"].get("fingerprint") != data.fingerprint:
        raise ConfigError(f"{root} holds runs on other data than {data.name!r} is now; give another folder, or remove it")


def claim(root: Path, data: DataSet, split: Split) -> None:
    """Takes the folder for runs on these data.

    Raises:
        ConfigError: it holds others.
    """
    check(root, data)
    held_out = data.targets[split.held_out]
    about = {
        "name": root.name,
        "command": shlex.join(["python", *sys.argv]),
        "data": {**facts(data), "fingerprint": data.fingerprint},
        "without_model": as_plain(without_model(held_out, data)),
    }
    write_file(root / ABOUT, pack_json(about), mode=0o600)


def facts(data: DataSet) -> dict[str, Any]:
    """What is public of the data."""
    return {
        "name": data.name,
        "kind": data.kind,
        "classes": list(data.classes),
        "value": None if data.value is None else as_plain(data.value),
        **({"models": "language"} if data.is_language else {}),
        "input_shape": list(data.input_shape),
        "bounds": list(data.bounds),
        "source": data.source,
    }


def report(root: Path) -> ComparisonResult:
    """Gathers the runs below ``root`` and writes results.json, report.html, the private page and the TensorBoard files."""
    from evaluation.report import html, private, tensorboard

    result = gather(root)
    write(result, root / "results.json")
    tensorboard.write(result, root)
    private.write(result, root)
    html.write(result, root, root / "report.html")
    return result


def gather(root: Path) -> ComparisonResult:
    """The runs below ``root`` as one comparison; neither data nor script are needed.

    Raises:
        CheckpointError: no script's runs are there.
    """
    about = _about(root)
    found = [run for folder in _folders(root) for run in _of(folder, root)]
    runs = with_twins(tuple(sorted((run for run, is_last in found if is_last), key=lambda run: (-run.epsilon, run.label))))
    result = ComparisonResult(
        name=about["name"],
        title=about["name"],
        runs=runs,
        summary=summarize(runs),
        exchanges=exchanged(runs),
        guard_costs=guard_costs(runs),
        command=about["command"],
        data=about["data"],
        recipe={},
        versions=versions(),
        not_covered=NOT_COVERED,
        baselines=tuple(from_plain(Measure, item, str(root / ABOUT)) for item in about["without_model"]),
        checkpoints=tuple(run for run, is_last in found if not is_last),
        ledger=spending.shown(str(about["data"].get("fingerprint", ""))),
    )
    return with_answer(result)


def _folders(root: Path) -> list[Path]:
    """Of runs: those with a release and results, ``root`` itself or up to two levels below."""
    places = [root, *root.glob("*"), *root.glob("*/*")]
    return sorted({path for path in places if (path / "release").is_dir() and (path / "evaluation").is_dir()})


def _of(folder: Path, root: Path) -> list[tuple[RunResult, bool]]:
    """Results of a run's checkpoints, and which one is of the weights that lie there now."""
    manifest = folder / "release" / MANIFEST
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.exists() else ""
    results = [read_run(path) for path in sorted((folder / "evaluation").glob("step=*/result.json"))]
    label = folder.relative_to(root).as_posix()
    return [(dataclasses.replace(run, label=label), run.release_digest == digest) for run in results]


def _about(root: Path) -> dict[str, Any]:
    path = root / ABOUT
    try:
        return unpack_json(path.read_bytes(), path)
    except FileNotFoundError:
        raise CheckpointError(f"{root} holds no {ABOUT}, so no script's runs were attended to there") from None
