"""The examples that a private page shows of one checkpoint: the most exposed members, others at random, the least exposed.

    gallery = choose(found, data, release_digest=digest)
    save(gallery, run / "private" / name_of(step))

It is made when the checkpoint is attacked, so that a page can be drawn again where the data are not at hand. Members drawn
at random are the control: what looks remarkable about the most exposed is to be missing there. The least exposed are a
second one, since the members on which chance alone acts are found at both ends of the order.

**It holds members' examples as they are.** The file is for its owner alone, and its place is below ``private/``.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dptrain.arrays import read_arrays, write_arrays
from dptrain.data.dataset import DataSet
from dptrain.data.table import decode
from evaluation.membership.vulnerability import FALSE_POSITIVE_RATE, Vulnerability

Group = Literal["most", "random", "least"]
GROUPS: tuple[Group, ...] = get_args(Group)
SHOWN = 8
"""Examples of a group, at most."""
MOST_COLUMNS = 24
"""Of a table, that are kept."""
LONGEST = 40
"""Letters of a table's cell that are kept."""
LONGEST_TEXT = 160
"""Letters of a sequence that are kept; a line break is written \\n."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Members of one checkpoint, group after group. Private."""

    group: tuple[Group, ...]
    index: Int[np.ndarray, " shown"]
    """In the data set, from 0."""
    label: tuple[str, ...]
    score: Float[np.ndarray, " shown"]
    """Of an attack on the checkpoint itself; NaN where there is none."""
    auc: Float[np.ndarray, "shown 3"]
    """Of the example alone, over shadow models: the value, and the lower and upper end of its interval (95%)."""
    rate: Float[np.ndarray, "shown 3"]
    """The same of its true positive rate at ``FALSE_POSITIVE_RATE``."""
    false_discovery_rate: Float[np.ndarray, " shown"]
    """At which it would be flagged."""
    is_flagged: Bool[np.ndarray, " shown"]
    models_in: Int[np.ndarray, " shown"]
    models_out: Int[np.ndarray, " shown"]
    members: int
    """From how many they were chosen."""
    flagged_members: int
    release_digest: str
    """Of the weights that were attacked."""
    pictures: UInt8[np.ndarray, "shown height width channels"] | None = None
    columns: tuple[str, ...] = ()
    """Of a table: the first ``MOST_COLUMNS``."""
    all_columns: int = 0
    """How many the table has."""
    cells: tuple[tuple[str, ...], ...] = ()


def name_of(step: int) -> str:
    """Of a checkpoint's file."""
    return f"vulnerable-step={step:06d}.npz"


def choose(found: Vulnerability, data: DataSet, *, release_digest: str, seed: int = 0, shown: int = SHOWN) -> Gallery:
    """The members to show, with what is known of each."""
    order = found.most(len(found.indices))
    generator = np.random.default_rng(np.random.SeedSequence([seed, *b"gallery"]))
    groups = {
        "most": order[:shown],
        "random": generator.permutation(order)[:shown],
        "least": order[::-1][:shown],
    }
    places = np.concatenate([groups[name] for name in GROUPS])
    index = found.indices[places]
    inputs = data.inputs[torch.from_numpy(index)].numpy()
    table = _table(data, inputs) if data.kind == "table" else {}
    if data.is_language:
        table = {"text": [repr(data.written(row))[1:-1] for row in data.targets[torch.from_numpy(index)]]}
    longest = LONGEST_TEXT if data.is_language else LONGEST
    cells = [[cell[:longest] for cell in column] for column in list(table.values())[:MOST_COLUMNS]]
    flagged = found.is_flagged
    return Gallery(
        group=tuple(name for name in GROUPS for _ in groups[name]),
        index=index,
        label=tuple(_label(data, target)[:LONGEST] for target in data.targets[torch.from_numpy(index)]),
        score=np.full(len(places), np.nan) if found.score is None else found.score[places],
        auc=np.stack([found.auc, *found.auc_interval], axis=1)[places],
        rate=np.stack([found.rate_at(FALSE_POSITIVE_RATE), *found.rate_interval(FALSE_POSITIVE_RATE)], axis=1)[places],
        false_discovery_rate=found.false_discovery_rate[places],
        is_flagged=flagged[places],
        models_in=found.models_in[places],
        models_out=found.models_out[places],
        members=len(order),
        flagged_members=int(flagged[order].sum()),
        release_digest=release_digest,
        pictures=_pictures(data, inputs) if data.kind == "image" else None,
        columns=tuple(name[:LONGEST] for name in list(table)[:MOST_COLUMNS]),
        all_columns=len(table),
        cells=tuple(zip(*cells, strict=True)),
    )


def _label(data: DataSet, target: Tensor) -> str:
    if data.is_language:
        return ""
    if data.value is None:
        return data.classes[int(target)]
    return f"{float(data.value.decode(target.numpy())):.4g} {data.value.unit}"


def _pictures(data: DataSet, inputs: Float[np.ndarray, "shown ..."]) -> UInt8[np.ndarray, "shown height width channels"] | None:
    """Grey or colour pixels; None for inputs of another shape, of which the index alone can be shown."""
    low, high = data.bounds
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3) or not np.isfinite(high - low):
        return None
    return np.rint(np.clip((inputs - low) / (high - low), 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def _table(data: DataSet, inputs: Float[np.ndarray, "shown ..."]) -> dict[str, list[str]]:
    """Column to cells: as the table's columns say, or, of a table that somebody's script made, the inputs as they are."""
    if data.columns:
        return decode(data.columns, inputs)
    flat = inputs.reshape(len(inputs), -1)
    names = data.features or [f"input {number}" for number in range(flat.shape[1])]
    return {name: [f"{value:.6g}" for value in column] for name, column in zip(names, flat.T, strict=True)}


def save(gallery: Gallery, path: Path) -> None:
    """Writes the file so that a reader finds all of it or nothing; readable by its owner alone."""
    arrays = {item.name: getattr(gallery, item.name) for item in fields(gallery)}
    write_arrays(path, {name: np.asarray(value) for name, value in arrays.items() if value is not None})


def load(path: Path) -> Gallery:
    """The gallery from its file.

    Raises:
        CheckpointError: the file is missing, damaged, or something else.
    """
    make = "type `dptrain evaluate RUN` to make it"
    with read_arrays(path, "whole", missing=make, damaged=f"{make} again") as arrays:
        gallery = Gallery(**{item.name: _read(item.name, arrays) for item in fields(Gallery)})
        _check(gallery)
    return gallery


TEXTS = ("group", "label", "columns")
NUMBERS = ("members", "flagged_members", "all_columns")


def _read(name: str, arrays: dict[str, np.ndarray]) -> Any:
    if name == "pictures":
        return arrays.get(name)
    value = arrays[name]
    if name in TEXTS:
        return tuple(str(text) for text in value)
    if name in NUMBERS:
        return int(value)
    if name == "cells":
        return tuple(tuple(str(text) for text in row) for row in value)
    return str(value) if name == "release_digest" else value


def _check(gallery: Gallery) -> None:
    """Raises ValueError where the parts are not of the same examples."""
    shown = len(gallery.group)
    each = [getattr(gallery, name) for name in ("index", "label", "score", "auc", "rate", "false_discovery_rate")]
    each += [gallery.is_flagged, gallery.models_in, gallery.models_out]
    if gallery.pictures is not None:
        each.append(gallery.pictures)
    if gallery.columns:
        each.append(gallery.cells)
    widths = {len(row) for row in gallery.cells} | {len(gallery.columns)}
    if any(len(part) != shown for part in each) or not set(gallery.group) <= set(GROUPS) or len(widths) != 1:
        raise ValueError("its parts are not of the same examples")
