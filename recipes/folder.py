"""A comparison's folder: who may write into it, and what stands in it beside its runs.

with claim(root, comparison, name, command, data):      # refused where it holds something else, or somebody is at work
    ...
load_run(root), about_run(root)
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dptrain.checkpoint import unpack_json
from dptrain.data.dataset import DataSet
from dptrain.data.split import split_of
from dptrain.errors import CheckpointError, ConfigError
from dptrain.files import write_file, writing
from dptrain.locking import held
from dptrain.plain import as_plain
from evaluation.utility import without_model
from recipes import audits
from recipes.comparison import Comparison, from_toml, plain, to_toml

ABOUT = "comparison.json"
"""Beside comparison.toml: what a report needs and the comparison does not say."""
LOCK = ".lock"
"""Held by the process that is at work in the folder."""


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
            before = load_run(root)
            moved = before.recipe.data.path != comparison.recipe.data.path  # the same data, as its fingerprint says
            if moved or before.performance != comparison.performance:  # workers read both there
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
    for each in (before, now):
        each["recipe"]["data"].pop("path")
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
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)


def _differences(before: object, now: object, prefix: str = "") -> set[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before.keys() | now.keys()
        return {item for key in keys for item in _differences(before.get(key), now.get(key), f"{prefix}{key}.")}
    return set() if before == now else {prefix.rstrip(".").removeprefix("recipe.")}


def about_run(root: Path) -> dict[str, Any]:
    """Name of a run's recipe, the command that began it, and what must be known of its data.

    Raises:
        CheckpointError: the file that says it is missing or damaged.
    """
    about = read_json(root / ABOUT)
    missing = {"name", "command", "data", "without_model"} - about.keys()
    if missing:
        raise CheckpointError(f"{root / ABOUT} lacks {', '.join(sorted(missing))}; restore it from a copy")
    return about


def read_json(path: Path) -> dict[str, Any]:
    try:
        return unpack_json(path.read_bytes(), path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; restore it from a copy, or run again into another folder") from None


def load_run(root: Path, data_path: str | None = None) -> Comparison:
    """The comparison that a run folder holds, with that folder as its output.

    Args:
        data_path: where its data lie now, if elsewhere than when it began.
    """
    path = root / "comparison.toml"
    if not path.is_file():
        raise CheckpointError(f"{root} holds no comparison.toml, so it is not a run; name the folder that `dptrain run` made")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is not text; restore it from a copy") from None
    comparison = dataclasses.replace(from_toml(text, path), output=str(root))
    if data_path is None:
        return comparison
    data = dataclasses.replace(comparison.recipe.data, path=str(Path(data_path).expanduser().resolve()))
    return dataclasses.replace(comparison, recipe=dataclasses.replace(comparison.recipe, data=data))
