"""A release as it is served: weights and card of one folder, checked, and nothing beside them.

    served = Served.load(find(Path("runs/digits/eps=08.00/seed=0")))
    served.model(inputs)
    served.card["guarantee"]["statement"]

What is served can be asked for by strangers, so more is refused than in a folder that only its owner reads: whatever lies below
``private/``, a file that the manifest does not name or that differs from it (:mod:`dptrain.checkpoint`), a link, and anything
that is no plain file. Nothing is unpickled. The folder is the operator's own word; no request names one.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from dptrain import models
from dptrain.checkpoint import MANIFEST, load_release
from dptrain.data.values import Values
from dptrain.errors import CheckpointError
from dptrain.models.hugging_face import LowRank
from dptrain.plain import from_plain
from dptrain.recipe import ModelConfig, RegularizationConfig

Kind = Literal["classification", "regression", "language"]
"""What a model gives: classes, one value, or what comes next at each place of a sequence."""

PRIVATE = "private"
PUBLISHED, RELEASE = "published", "release"
LISTED = 8
"""Folders that an error names, at most."""


@dataclass(frozen=True, eq=False)
class Served:
    """One whole version of a release."""

    model: nn.Module
    """In evaluation mode, its weights frozen."""
    card: dict[str, Any]
    folder: Path
    digest: str
    """SHA-256 of the manifest, which names every file with its own."""
    kind: Kind
    classes: tuple[str, ...]
    """Empty of a regression model."""
    input_shape: tuple[int, ...]
    bounds: tuple[float, float]
    whole: bool
    """Whether inputs are whole numbers: those of words, characters or tokens."""
    value: Values | None
    """Of a regression model, what it predicts."""

    @classmethod
    def load(cls, folder: Path) -> "Served":
        """The release at ``folder``.

        Raises:
            CheckpointError: it is private, incomplete, changed, holds what does not belong there, or cannot be served.
        """
        check_folder(folder)
        digest = _digest(folder)
        weights, card = load_release(folder)
        check_texts(card, folder)
        facts = _facts(card, folder)
        broken = sorted(name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all())
        if broken:
            raise CheckpointError(f"{folder}: {broken[0]} holds NaN or infinity, so the model has no answers; train it again")
        try:
            model = model_of(card, folder)
            model.load_state_dict(weights)
        except (RuntimeError, MemoryError, OverflowError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{folder} does not fit the model that its card describes: {reason}") from None
        return cls(model.eval().requires_grad_(False), card, folder, digest, **facts)

    def check_unchanged(self) -> None:
        """Raises CheckpointError where another release lies there by now, so that what was read since may be of that one."""
        if _digest(self.folder) != self.digest:
            raise CheckpointError(f"{self.folder} was changed while it was loaded; load it again")

    @property
    def form(self) -> tuple[Kind, tuple[int, ...], bool, tuple[str, ...]]:
        """What it reads and answers: a monitor is for one."""
        return self.kind, self.input_shape, self.whole, self.classes

    @property
    def stated_guard(self) -> str | None:
        """Behind which it was released, as its card says."""
        return guard_in(self.card)

    @property
    def tokenizer(self) -> str | None:
        """Of a model of tokens, whose they are."""
        return self.card["recipe"]["data"].get("tokenizer")


def _digest(folder: Path) -> str:
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        raise CheckpointError(f"{folder / MANIFEST} is missing, so the release is not complete; restore it") from None


def find(run: Path) -> Path:
    """The folder to serve of what the operator named: a release, or a run that holds one; what was published comes first.

    Raises:
        CheckpointError: there is none, or there are several.
    """
    for folder in (run, run / PUBLISHED, run / RELEASE):
        if (folder / MANIFEST).is_file():
            return folder
    if PRIVATE in run.absolute().parts:
        check_folder(run)
    found = sorted(path.parent for path in run.glob(f"*/seed=*/{RELEASE}") if path.is_dir()) if run.is_dir() else []
    if found:
        more = ", ..." if len(found) > LISTED else ""
        names = ", ".join(map(str, found[:LISTED]))
        raise CheckpointError(f"{run} holds the models of a comparison ({len(found)}); name one of them: {names}{more}")
    raise CheckpointError(f"there is no release at {run}; name a run's folder, such as runs/digits/eps=08.00/seed=0")


def check_folder(folder: Path) -> None:
    """Refuses a folder that is private or holds anything but plain files of its own.

    Raises:
        CheckpointError: it says which, and what to do.
    """
    if not folder.is_dir():
        raise CheckpointError(f"there is no release at {folder}; name a run's folder, such as runs/digits/eps=08.00/seed=0")
    if PRIVATE in folder.absolute().parts or PRIVATE in folder.resolve().parts:
        raise CheckpointError(f"{folder} lies below {PRIVATE}/, which is never served; name the run's {RELEASE}/ folder")
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            raise CheckpointError(f"{path} is a link, and what it leads to may change or be private; put the file itself there")
        if not path.is_file():
            raise CheckpointError(f"{path} does not belong there: a release holds plain files alone; remove it")


def check_texts(card: dict[str, Any], where: Path) -> None:
    """Refuses a card that cannot be sent: a class can be the name of a folder, which is any bytes.

    Raises:
        CheckpointError: a text in it is no Unicode, or a number no number.
    """
    try:
        json.dumps(card, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        part = error.object[error.object.rfind('"', 0, error.start) + 1 : error.end]
        raise CheckpointError(
            f"the card in {where} holds the text {part!a}, which is not UTF-8 and cannot be shown to anyone; rename the "
            "class, which may be a folder of the data, and train again"
        ) from None
    except ValueError:
        raise CheckpointError(f"the card in {where} holds NaN or infinity, which JSON does not know; restore it") from None


def guard_in(card: dict[str, Any]) -> str | None:
    """The text of the guard that a card states; None where it states none."""
    stated = card.get("guard")
    text = stated.get("text") if isinstance(stated, dict) else stated
    return None if text is None else str(text)


def _facts(card: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the card says of inputs and outputs.

    Raises:
        CheckpointError: it does not, or a server cannot answer for such a model.
    """
    try:
        data = card["data"]
        if data.get("graph") is not None:
            raise CheckpointError(
                f"{folder} is a model of a graph's nodes, which answers over the private graph itself; a server holds no "
                "graph, so such a model is not served"
            )
        value = None if data.get("value") is None else from_plain(Values, data["value"], f"the card in {folder}")
        low, high = map(float, data["bounds"])
        shape, classes = tuple(map(int, data["input_shape"])), tuple(map(str, data["classes"]))
        kind = data.get("models", "classification" if value is None else "regression")
        sound = min(shape) > 0 and math.isfinite(high - low) and bool(classes) == (kind != "regression")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"the card in {folder} does not say what its model reads and answers ({error})") from None
    if not sound or kind not in ("classification", "regression", "language"):
        raise CheckpointError(f"the card in {folder} states inputs of shape {shape} between {low} and {high}, and {kind!r}")
    return {
        "kind": kind,
        "classes": classes,
        "input_shape": shape,
        "bounds": (low, high),
        "whole": data.get("kind") == "text",
        "value": value,
    }


def model_of(card: dict[str, Any], where: Path) -> nn.Module:
    """The untrained model that a release card describes.

    Raises:
        CheckpointError: the card was written by a script with a model of its own, or what it was learned beside is not what
            lies there now.
        ConfigError: what it was learned beside is not there.
    """
    try:
        recipe, data = card["recipe"], card["data"]
        config = ModelConfig(**{**recipe["model"], "hidden": tuple(recipe["model"]["hidden"])})
        regularization = RegularizationConfig(**recipe["regularization"])
        shape, outputs = tuple(data["input_shape"]), len(data["classes"]) or 1
        if data.get("graph") is not None:
            return models.build(config, (data["graph"]["features"],), outputs, regularization, "nodes")
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"the card in {where} does not say how to build the model ({error}); pass the architecture as model=..."
        ) from None
    model = models.build(config, shape, outputs, regularization)
    if isinstance(model, LowRank) and "base" in card:
        model.check_base(card["base"])
    return model
