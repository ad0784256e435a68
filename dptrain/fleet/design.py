"""Which example is in which model, how one model is trained, and the hash of everything that defines them all."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

import dptrain
from dptrain.data.dataset import DataSet
from dptrain.distillation import released_model
from dptrain.penalties import parse
from dptrain.recipe import Performance, Recipe, ReleaseConfig
from dptrain.registry import LOSSES, MODELS, OPTIMIZERS, REGULARIZERS
from dptrain.sources import PLAIN, source_of
from dptrain.stopping import EarlyStopping
from dptrain.trainer import build_training
from dptrain.version import versions

Train = Callable[[np.ndarray, int], nn.Module]
"""``train(members, seed)``: a new model by the target's own recipe, trained on these examples."""

NO_TEST = np.empty(0, dtype=np.int64)
FIRST_SEED = 1_000_000
"""Of a fleet's first model; the next one has the next seed. Targets have small ones."""


def draw_membership(
    models: int,
    examples: int,
    rate: float,
    seed: int = 0,
    test: Int[np.ndarray, " test"] = NO_TEST,
    users: Int[np.ndarray, " users"] | None = None,
) -> Bool[np.ndarray, "models examples"]:
    """Independent coins: a design with exactly balanced rows would bias leave-one-out attacks.

    Args:
        test: indices of examples that have no coin and are in no model.
        users: whose each example is, where the target's users had one coin each: so have those of its shadow models.
    """
    generator = np.random.default_rng(np.random.SeedSequence([seed, *b"fleet"]))
    has_coin = np.setdiff1d(np.arange(examples), test)
    membership = np.zeros((models, examples), dtype=bool)
    coin_of = np.arange(len(has_coin)) if users is None else np.unique(users[has_coin], return_inverse=True)[1]
    membership[:, has_coin] = (generator.random((models, int(coin_of.max(initial=-1)) + 1)) < rate)[:, coin_of]
    return membership


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


def recipe_digest(recipe: Recipe, untrained: nn.Module, steps: int, public: Int[np.ndarray, " public"] | None = None) -> str:
    """A hash of what :func:`recipe_trainer` does: the recipe, the updates, the public examples where it looks at them, the code
    behind names that users registered, and the model that they build.

    What it cannot see is code of further modules that a user's own file imports (:mod:`dptrain.sources`), unless it changes
    the model as built. Whoever changes such code and no more gets the old fleet, and should remove it.

    A guard trains nothing. A fleet keeps what its models say before one, and is put behind it where it is asked.

    Args:
        untrained: the recipe's model, always of the same seed.
    """
    recipe = dataclasses.replace(recipe, release=ReleaseConfig())
    named = ((MODELS, recipe.model.name), (LOSSES, recipe.training.loss), (OPTIMIZERS, recipe.optimizer.name))
    named += tuple((REGULARIZERS, name) for name, _ in parse(recipe.regularization.penalty))
    parts = (recipe.digest(), str(steps), *(registry.source(name) for registry, name in named), architecture_digest(untrained))
    if recipe.regularization.needs_public and public is not None:
        parts += ("public", *map(str, public.tolist()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def architecture_digest(model: nn.Module) -> str:
    """A hash of a built model: its ``repr``, its state (names, shapes, types and first values, so that weights from a file
    count), what of it is trained, and of every module its class's code and its own numbers and texts."""
    content = hashlib.sha256(repr(model).encode())
    for name, value in model.state_dict().items():
        content.update(f"\n{name} ".encode())
        if isinstance(value, Tensor):
            content.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            content.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            content.update(repr(value).encode())
    content.update(repr([(name, weight.requires_grad) for name, weight in model.named_parameters()]).encode())
    for name, part in model.named_modules():
        settings = {key: value for key, value in vars(part).items() if type(value) in PLAIN}
        content.update(f"\n{name} {settings}".encode())
    for kind in dict.fromkeys(type(part) for part in model.modules()):
        content.update(source_of(kind).encode())
    return content.hexdigest()


def fleet_digest(
    training: str,
    data: DataSet,
    models: int,
    rate: float,
    test: Int[np.ndarray, " test"],
    views: str | None = None,
    users: Int[np.ndarray, " users"] | None = None,
) -> str:
    """A hash of everything that defines a fleet, code version included.

    Of the data set the fingerprint is of inputs and labels alone, and stays so: ledgers are kept under it. How many classes
    there are decides the models' outputs, and bounds are there for a front or a loss to use, so both enter here. The classes'
    names do not: they are for reading, and train nothing.

    Args:
        training: of what trains one model, such as :func:`recipe_digest`.
        views: the name of the augmented views that the models answer to.
        users: whose each example is, where coins are theirs.
    """
    held_out, made_by = map(str, test.tolist()), (f"{name}={value}" for name, value in versions().items())
    facts = (
        data.fingerprint,
        f"{len(data.classes)} classes",
        f"value {data.value}",
        f"bounds {tuple(map(float, data.bounds))}",
    )
    by_user = () if users is None else ("users", *map(str, users.tolist()))
    parts = (training, *facts, str(models), repr(rate), repr(views), *held_out, *by_user, *made_by, code_digest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.cache
def code_digest() -> str:
    """A hash of this package's own code: a version number does not change while one works on it."""
    content = hashlib.sha256()
    for file in sorted(Path(dptrain.__file__).parent.rglob("*.py")):
        content.update(file.read_bytes())
    return content.hexdigest()
