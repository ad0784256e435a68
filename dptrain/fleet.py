"""Many models of one recipe: the shadow models of a membership attack.

Each model is trained by the target's own recipe (architecture, optimizer, loss, plan, noise and all) on its own subset of
the data set, drawn by independent coins whose rate makes the expected set size that of the target. A test part that is kept
for utility alone has no coins: no shadow model is trained on it. What attacks need is kept: which example was in which model,
and each model's logits on every example.

    fleet = train_fleet(recipe_trainer(recipe, data), data, models=32, rate=0.5, digest=recipe_digest(recipe, steps))
    fleet.logits      # [models, examples, classes]
    fleet.membership  # [models, examples]

A fleet is cached under the hash of everything that defines it; a file that is incomplete or of another hash is not used.
It was made from private examples, so its place is under ``private/``.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import nn
from tqdm import tqdm

from dptrain.data.dataset import DataSet
from dptrain.distillation import released_model
from dptrain.errors import UserError
from dptrain.files import write_file
from dptrain.recipe import Performance, Recipe
from dptrain.registry import LOSSES, MODELS, OPTIMIZERS
from dptrain.stopping import EarlyStopping
from dptrain.trainer import build_training
from dptrain.version import versions


@dataclass(frozen=True, eq=False)
class Fleet:
    """What shadow models say about every example, and which of them had seen it."""

    logits: Float[np.ndarray, "models examples classes"]
    """Of regression models, one output; otherwise before the softmax."""
    membership: Bool[np.ndarray, "models examples"]
    digest: str
    views: Float[np.ndarray, "models views examples classes"] | None = None
    """The same for augmented views of every example, where the attack asks several questions about each."""
    weights: Mapping[str, np.ndarray] | None = None
    """Every tensor of the models' state, ``[models, *shape]``; None where they were not kept."""
    build: Callable[[], nn.Module] | None = None
    """An untrained model of the same architecture."""

    def model(self, index: int) -> nn.Module:
        """One of the models, in evaluation mode.

        Raises:
            UserError: the weights of this fleet were not kept.
        """
        if self.weights is None or self.build is None:
            raise UserError("this fleet kept its models' answers and not their weights; train it anew with weights kept")
        model = self.build()
        model.load_state_dict({name: torch.from_numpy(np.asarray(value[index])) for name, value in self.weights.items()})
        return model.eval()


Train = Callable[[np.ndarray, int], nn.Module]
"""``train(members, seed)``: a new model by the target's own recipe, trained on these examples."""


def recipe_trainer(
    recipe: Recipe,
    data: DataSet,
    performance: Performance | None = None,
    steps: int | None = None,
    public: Int[np.ndarray, " public"] | None = None,
) -> Train:
    """How a recipe trains one model: with its plan, its noise and everything else that the target had.

    Args:
        steps: after how many updates of the plan to stop, for a target that is an earlier checkpoint.
        public: the target's own public examples, where the recipe looks at them; they must be in no model's training set.
    """

    def train(members: np.ndarray, seed: int) -> nn.Module:
        training = build_training(recipe, data, members, seed, performance=performance, public=public)
        stopping = EarlyStopping.of(recipe, data, public, training)
        for batch in training.batches(steps):
            training.step(batch)
            if stopping.reached():
                break
        return released_model(recipe, data, public, training, seed)

    return train


def recipe_digest(recipe: Recipe, steps: int, public: Int[np.ndarray, " public"] | None = None) -> str:
    """A hash of what :func:`recipe_trainer` does: the recipe, the updates, the public examples where it looks at them, and the
    code behind names that users registered."""
    named = ((MODELS, recipe.model.name), (LOSSES, recipe.training.loss), (OPTIMIZERS, recipe.optimizer.name))
    parts = (recipe.digest(), str(steps), *(registry.source(name) for registry, name in named))
    if recipe.regularization.needs_public and public is not None:
        parts += ("public", *map(str, public.tolist()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def fleet_digest(training: str, data: DataSet, models: int, rate: float, test: Int[np.ndarray, " test"]) -> str:
    """A hash of everything that defines a fleet, code version included."""
    held_out, made_by = map(str, test.tolist()), (f"{name}={value}" for name, value in versions().items())
    parts = (training, data.fingerprint, str(models), repr(rate), *held_out, *made_by)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


NO_TEST = np.empty(0, dtype=np.int64)


def draw_membership(
    models: int, examples: int, rate: float, seed: int = 0, test: Int[np.ndarray, " test"] = NO_TEST
) -> Bool[np.ndarray, "models examples"]:
    """Independent coins: a design with exactly balanced rows would bias leave-one-out attacks.

    Args:
        test: indices of examples that have no coin and are in no model.
    """
    generator = np.random.default_rng(np.random.SeedSequence([seed, *b"fleet"]))
    has_coin = np.setdiff1d(np.arange(examples), test)
    membership = np.zeros((models, examples), dtype=bool)
    membership[:, has_coin] = generator.random((models, len(has_coin))) < rate
    return membership


def logits_of(model: nn.Module, data: DataSet, chunk: int = 4096) -> Float[np.ndarray, "examples classes"]:
    """The model's outputs on every example, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        parts = [model(data.inputs[start : start + chunk]) for start in range(0, len(data), chunk)]
    return torch.cat(parts).double().numpy()


def train_fleet(
    train: Train,
    data: DataSet,
    *,
    models: int,
    rate: float,
    digest: str,
    test: Int[np.ndarray, " test"] = NO_TEST,
    folder: Path | None = None,
    progress: bool = True,
) -> Fleet:
    """The fleet of a recipe, from the cache where it is complete, otherwise trained now.

    Args:
        train: see :data:`Train`; :func:`recipe_trainer` gives a recipe's.
        models: how many; an attack that compares "in" with "out" needs several of each for every example.
        rate: the chance of an example outside of ``test`` to be in a model; the target's members over all such examples.
        digest: of what ``train`` does, such as :func:`recipe_digest`; data, numbers and code version are added to it.
        test: indices of the split's test part, on which no model is trained.
        folder: where the cache lies; without it nothing is kept.
    """
    digest = fleet_digest(digest, data, models, rate, test)
    path = folder / f"{digest}.npz" if folder is not None else None
    if path is not None and (cached := _read(path, digest)) is not None:
        return cached
    membership = draw_membership(models, len(data), rate, test=test)
    logits = np.empty((models, len(data), len(data.classes)))
    for index in tqdm(range(models), desc="shadow models", unit="model", disable=None if progress else True, leave=False):
        logits[index] = logits_of(train(np.flatnonzero(membership[index]), 1_000_000 + index), data)
    fleet = Fleet(logits, membership, digest)
    if path is not None:
        _write(path, fleet)
    return fleet


def _write(path: Path, fleet: Fleet) -> None:
    content = io.BytesIO()
    arrays = {"logits": fleet.logits, "membership": fleet.membership, "digest": np.array(fleet.digest)}
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_file(path, content.getvalue())


def _read(path: Path, digest: str) -> Fleet | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["digest"]) != digest:
                return None
            return Fleet(stored["logits"], stored["membership"], digest)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
