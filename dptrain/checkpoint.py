"""The format on disk, and how to be killed while writing it.

A training is two folders, each with a ``manifest.json`` that names every file in it with its SHA-256:

    release/              model.safetensors  card.json  manifest.json        can be published whole
    private/checkpoint/   state.safetensors  state.json  manifest.json       resumes the training; can not

Tensors are in safetensors, the rest is JSON: nothing is ever unpickled. A folder is written beside its place, flushed,
and put there by renaming, so that at every moment one whole version exists: the old, or the new. What does not match its
manifest to the bit is refused by name, and so is a file that the manifest does not name.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import Tensor
from torch.optim import Optimizer

from dptrain.errors import CheckpointError
from dptrain.files import writing

FORMAT = "dptrain.checkpoint/1"
MANIFEST = "manifest.json"


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Puts the files and their manifest at ``folder``; whoever reads finds the old version or this one, whole.

    Raises:
        DiskError: the disk is full, or the place is closed to writing; the old version is there as it was.
    """
    new, old = _beside(folder, "new"), _beside(folder, "old")
    with writing(folder), _alone(folder.parent):
        _settle(folder)
        shutil.rmtree(new, ignore_errors=True)
        try:
            _fill(new, files)
        except OSError:  # where space ran out, half a version takes none of it
            shutil.rmtree(new, ignore_errors=True)
            raise
        if folder.exists():
            os.rename(folder, old)
        os.rename(new, folder)
        _flush(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """One writer at a time in a folder, also where two processes were given the same one: both would fill one new version."""
    parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _fill(new: Path, files: dict[str, bytes]) -> None:
    new.mkdir()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = json.dumps({"format": FORMAT, "files": digests}, indent=1, sort_keys=True).encode()
    for name, content in {**files, MANIFEST: manifest}.items():
        with open(new / name, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
    _flush(new)


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file that the manifest names, each checked against its digest.

    Raises:
        CheckpointError: nothing complete is there, or a file was changed, added or removed; it is named.
    """
    place = _present(folder)
    manifest = _manifest(place)
    files: dict[str, bytes] = {}
    for name, digest in manifest.items():
        path = place / name
        try:
            content = path.read_bytes()
        except OSError:
            raise CheckpointError(f"{path} is missing, although the manifest names it; restore it from a copy") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise CheckpointError(f"{path} is not what was saved: its SHA-256 differs from the manifest's; restore it")
        files[name] = content
    strangers = sorted(path.name for path in place.iterdir() if path.name not in {*manifest, MANIFEST})
    if strangers:
        raise CheckpointError(f"{place / strangers[0]} does not belong there: the manifest does not name it; remove it")
    return files


def _manifest(place: Path) -> dict[str, str]:
    path = place / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        kind, files = manifest["format"], manifest["files"]
        sound = isinstance(files, dict) and all(
            isinstance(value, str) and Path(name).name == name and name not in ("", ".", "..") for name, value in files.items()
        )
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing, so the checkpoint is not complete; restore it from a copy") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path} is not a manifest; restore it from a copy") from None
    if kind != FORMAT or not sound:
        raise CheckpointError(f"{path} has the format {kind!r}, and this version reads {FORMAT!r}")
    return files


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}.{suffix}")


def _present(folder: Path) -> Path:
    """Where the version in force lies. Between the two renames of a save that was killed it is the new one."""
    for place in (folder, _beside(folder, "new"), _beside(folder, "old")):
        if place == folder and place.exists():
            return place
        if place.exists() and (place / MANIFEST).exists() and _beside(folder, "old").exists():
            return place
    raise CheckpointError(f"there is no complete checkpoint at {folder}; train again, or name another folder")


def is_there(folder: Path) -> bool:
    """Whether a whole version exists, also one whose renaming was cut off."""
    try:
        _present(folder)
    except CheckpointError:
        return False
    return True


def _settle(folder: Path) -> None:
    """Finishes the renames of a save that was killed between them."""
    old = _beside(folder, "old")
    if not folder.exists() and old.exists():
        os.rename(_present(folder), folder)
    shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def pack_tensors(tensors: dict[str, Tensor]) -> bytes:
    """Tensors as safetensors; tied weights are stored once a name."""
    return safetensors_save({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()})


def unpack_tensors(content: bytes, where: Path) -> dict[str, Tensor]:
    """Tensors from safetensors.

    Raises:
        CheckpointError: it is something else, such as a pickle; nothing in it is run.
    """
    try:
        return safetensors_load(content)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{where} is not in safetensors format ({error}); restore it from a copy") from None


def pack_json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def unpack_json(content: bytes, where: Path) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise CheckpointError(f"{where} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} holds a {type(value).__name__}, not an object")
    return value


def save_release(folder: Path, weights: dict[str, Tensor], card: dict[str, Any]) -> None:
    """Writes ``release/``: weights and card, nothing else."""
    write_folder(folder, {"model.safetensors": pack_tensors(weights), "card.json": pack_json(card)})


def load_release(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and card of ``release/``; errors as in :func:`read_folder`."""
    files = read_folder(folder)
    for name in ("model.safetensors", "card.json"):
        if name not in files:
            raise CheckpointError(f"{folder} holds no {name}, so it is not a release")
    weights = unpack_tensors(files["model.safetensors"], folder / "model.safetensors")
    return weights, unpack_json(files["card.json"], folder / "card.json")


def pack_optimizer(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors and JSON."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, entry in state["state"].items():
        for key, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    return tensors, {"state": plain, "groups": state["param_groups"]}


def unpack_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """Puts a packed state back into an optimizer over the same parameters."""
    state: dict[int, dict[str, Any]] = {int(index): dict(entry) for index, entry in plain["state"].items()}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/", 2)
            state.setdefault(int(index), {})[key] = value
    groups = [
        {key: tuple(value) if isinstance(value, list) and key != "params" else value for key, value in group.items()}
        for group in plain["groups"]
    ]
    try:
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except ValueError as error:
        raise CheckpointError(f"the saved optimizer does not fit the one given: {error}") from None
