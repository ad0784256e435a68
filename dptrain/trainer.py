"""The loop that the recipes use: one recipe, one seed, one model.

    trainer = Trainer(recipe, data, split, seed=0, folder=Path("runs/mine"))
    trainer.run()

It shows progress with the ε spent, keeps checkpoints, calls back on each of them, and stops at a step's end on Ctrl-C (or
SIGTERM, or SIGHUP) with a checkpoint that resumes. Telemetry that is computed from private examples without noise (training
loss, share of clipped examples) is written only where ``telemetry`` names a log directory for it, under ``non_private/``: the
guarantee does not cover it.
"""

import functools
import hashlib
import math
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dptrain import checkpoint, models
from dptrain.clipping.fallback import LossFunction
from dptrain.data.dataset import DataSet
from dptrain.data.examples import Examples
from dptrain.data.split import Split
from dptrain.data.split import load as load_split
from dptrain.data.split import save as save_split
from dptrain.distillation import released_model
from dptrain.distributed import Ranks
from dptrain.errors import CheckpointError, ConfigError, DataError, PlanError
from dptrain.files import write_file
from dptrain.graph.release import releases
from dptrain.ledger import Account, Spending, Total
from dptrain.models import front
from dptrain.models.hugging_face import LowRank
from dptrain.optimizers import follow_schedule
from dptrain.plain import as_plain, from_plain
from dptrain.plan import PrivacyPlan
from dptrain.pretraining import pretrained
from dptrain.private import NO_ACCOUNT, PrivateTraining, make_private
from dptrain.progress import say
from dptrain.qualifications import qualifications
from dptrain.recipe import Performance, Recipe
from dptrain.registry import LOSSES, OPTIMIZERS
from dptrain.regularization import check_regularization
from dptrain.release.guard import stated
from dptrain.rounding import up
from dptrain.stopping import EarlyStopping
from dptrain.telemetry import Telemetry

Extension = Callable[[nn.Module, Examples, LossFunction], tuple[nn.Module, Any, LossFunction]]
"""Puts something beside a recipe's model, examples and loss, such as an audit's canaries."""


def build_model(recipe: Recipe, data: DataSet, seed: int) -> nn.Module:
    """The recipe's model with the initial weights that ``seed`` decides, or public text has taught it, in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also notes where it was called, for each kind of device
        model = models.build_for(recipe.model, data, recipe.regularization)
    if recipe.pretraining.steps:
        model.load_state_dict(pretrained(recipe, data))
    return model.train()


def check_loss(recipe: Recipe, data: DataSet) -> None:
    """Refuses a loss for classes where a value is to be predicted, and the other way round.

    Raises:
        ConfigError: that, or a student (whose teacher must give classes) of a model that predicts a value.
    """
    of_classes, of_values = "cross_entropy", "squared_error"
    wrong, right = (of_classes, of_values) if data.value is not None else (of_values, of_classes)
    if recipe.training.loss == wrong:
        what = f"the value {data.value.name!r}" if data.value is not None else f"{len(data.classes)} classes"
        raise ConfigError(f"training.loss is {wrong!r} and the data set {data.name!r} has {what} to predict; give {right!r}")
    unfit = ("mixup", "relax", "information_bottleneck", "bilateral_dependency", "freeze", "distillation")
    given = [name for name in unfit if getattr(recipe.regularization, name)]
    if data.is_language and given:
        raise ConfigError(
            f"regularization.{given[0]} is of models that give an example one class, and a model of {data.name!r} says what "
            "comes next at each place of a sequence; leave it out"
        )
    given = [name for name in ("mixup", "bilateral_dependency") if getattr(recipe.regularization, name)]
    if not data.inputs.is_floating_point() and given:
        raise ConfigError(
            f"regularization.{given[0]} computes with an example's inputs, and those of {data.name!r} are words, whose numbers "
            "mean nothing; leave it out"
        )
    if data.value is not None and recipe.regularization.distillation:
        raise ConfigError(
            "regularization.distillation teaches a student the classes' scores, and this model predicts a value; leave it out"
        )


def _users(plan: PrivacyPlan, data: DataSet, members: np.ndarray) -> np.ndarray | None:
    """Whose each member is, where the unit is the user; None where each example stands for itself."""
    if plan.unit != "user":
        return None
    if data.users is None:
        raise ConfigError(
            f"privacy.unit is 'user', and the data set {data.name!r} does not say whose each example is; give 'example', or "
            "train in a script with make_private(..., units=...)"
        )
    return data.users[torch.from_numpy(members)].numpy()


def build_training(
    recipe: Recipe,
    data: DataSet,
    members: np.ndarray,
    seed: int,
    *,
    public: np.ndarray | None = None,
    performance: Performance | None = None,
    ledger: Path | None = None,
    insecure_seed: int | None = None,
    initial: Mapping[str, Tensor] | None = None,
    extend: Extension | None = None,
    spending: Spending | None = None,
) -> PrivateTraining:
    """A training of the recipe on the examples ``members``, not yet begun; ``seed`` decides the initial weights, unless
    ``initial`` gives them.

    Targets, baselines and shadow models all come from here, so that none of them can differ in anything but the recipe.

    Args:
        public: indices of examples that everyone knows, for regularization that needs some.
        extend: is handed the model, its examples and their loss, and gives those that are trained in their place.
        spending: the way to the data set's account; left out, the caller answers for that this training stands in it, as for
            shadow models, whose attack is noted there.

    Raises:
        ConfigError: the recipe's regularization does not go with its plan, or needs public examples and has none.
        DataError: such an example is a member as well.
    """
    plan, regularization = PrivacyPlan.from_config(recipe.privacy, recipe.training.steps), recipe.regularization
    known = np.empty(0, dtype=np.int64) if public is None else public
    check_regularization(regularization, clipped=math.isfinite(plan.clipping_norm), public=len(known))
    if regularization.needs_public and np.isin(known, members).any():
        raise DataError("some public examples are members as well, and would not be public; train on others")
    check_loss(recipe, data)
    model = build_model(recipe, data, seed)
    if initial is not None:
        model.load_state_dict(initial)
    before = releases(model, data, members, seed, plan)
    if plan.is_private and plan.unit == "edge" and recipe.data.max_degree is not None:
        raise PlanError(
            f"data.max_degree is {recipe.data.max_degree} and privacy.unit is 'edge': which edges of a node are left out can "
            "hang on one of them, so that ε would not hold for it; leave data.max_degree out"
        )
    inputs = functools.partial(front.made, model.front, data) if isinstance(model, front.WithFront) else None
    examples: Any = Examples(data, members, units=_users(plan, data, members), inputs=inputs)
    loss_function = LOSSES[recipe.training.loss]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        if regularization.relax:
            return loss_function(model, batch, regularization, int(training.steps_taken * plan.sampling_rate + 1e-9))
        return loss_function(model, batch, regularization)

    trained, examples, trained_loss = (model, examples, loss) if extend is None else extend(model, examples, loss)
    optimizer = OPTIMIZERS[recipe.optimizer.name](trained, recipe.optimizer, regularization)
    training = make_private(
        trained,
        optimizer,
        examples,
        plan,
        loss=trained_loss,
        performance=performance,
        ledger=ledger,
        average=recipe.training.average,
        account=NO_ACCOUNT if spending is None else spending,
        before=before,
        insecure_seed=insecure_seed,
    )
    follow_schedule(optimizer, recipe.optimizer, plan.steps, lambda: training.steps_taken - 1)  # counted before it is made
    if plan.is_private:
        training.qualify(*qualifications(recipe, plan, model, data))
    return training


@dataclass(frozen=True)
class Checkpoint:
    """What a callback is told: a checkpoint was just written."""

    folder: Path
    """The run's folder, with ``release/`` and ``private/``."""
    step: int
    recipe: Recipe
    data: DataSet
    split: Split
    seed: int
    training: PrivateTraining


Callback = Callable[[Checkpoint], None]


def commitment_of(data: DataSet, split: Split) -> str:
    """What a card says of the data's content: it can be checked by who holds data and split, and guessed by no one."""
    return hashlib.sha256(split.salt + data.fingerprint.encode()).hexdigest()


IDENTITY = "run.json"
"""Below ``private/``: label, variant, regularizer and seed of a run."""
STOPPING = "stopping.json"
"""Beside it, where the recipe stops early: what was seen of the public loss, for the last two checkpoints by their steps."""

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals by which a person or a cluster's scheduler asks a run to stop."""


class Trainer:
    """Trains one recipe with one seed into one folder.

    A folder that holds a checkpoint of the same plan is resumed. :meth:`run` raises ``KeyboardInterrupt`` after Ctrl-C,
    once the checkpoint is on disk.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: DataSet,
        split: Split,
        *,
        seed: int,
        folder: Path,
        performance: Performance | None = None,
        callbacks: tuple[Callback, ...] = (),
        insecure_seed: int | None = None,
        label: str = "",
        variant: str | None = None,
        regularizer: str = "",
        telemetry: Path | None = None,
        progress: bool = True,
        total: Total | None = None,
        selection: str = "",
    ):
        self.recipe, self.data, self.split, self.seed, self.folder = recipe, data, split, seed, folder
        self.callbacks = callbacks
        self.label = label or folder.name
        self.variant, self.regularizer = variant, regularizer
        self.selection = selection
        """The private selection that this is one training of."""
        spending = Spending(Account(data.fingerprint, data.name), self._entry(), total)
        spending.closes_itself = False
        self.training = build_training(
            recipe,
            data,
            split.members,
            seed,
            public=split.public,
            performance=performance,
            ledger=folder / "private" / "ledger.jsonl",
            insecure_seed=insecure_seed,
            spending=spending,
        )
        self.stopping = EarlyStopping.of(recipe, data, split.public, self.training)
        self.telemetry = telemetry if self.training.ranks.is_first else None
        self.progress = progress and self.training.ranks.is_first

    def run(self) -> PrivateTraining:
        """Trains to the plan's last step, or to where early stopping ends it, from the latest checkpoint if there is one."""
        self._start()
        try:
            self._train()
        except BaseException as error:
            self._close(error)
            raise
        self._close(None)
        return self.training

    def _train(self) -> None:
        with self._bar() as bar, Telemetry(self.telemetry, self.training) as telemetry:
            for until in self._stops():
                with stop_at_step_end(self.training.ranks) as asked_to_stop:
                    for batch in self.training.batches(until):
                        self.training.step(batch)
                        telemetry.write()
                        bar.update()
                        self._show_epsilon(bar)
                        self._say()
                        if self.stopping.reached() | asked_to_stop():
                            break
                    self._save()
                if asked_to_stop():
                    raise KeyboardInterrupt
                for callback in self.callbacks:  # Ctrl-C stops these at once: the checkpoint is on the disk
                    self.training.ranks.first("a callback", partial(self._call, callback))
                if self.stopping.stopped:
                    break

    def _close(self, error: BaseException | None) -> None:
        """Says in the account how the run ended: all of its steps count, however that was."""
        spending = self.training.spending
        if spending is None:
            return
        if error is None or self.training.steps_taken == self.training.plan.steps:
            spending.close("done") if error is None else spending.close_quietly("done")
        elif isinstance(error, KeyboardInterrupt):
            spending.close_quietly("stopped")
        else:
            spending.close_quietly("failed", f"{type(error).__name__}: {error}")

    def _entry(self) -> dict[str, Any]:
        """What the account is told of this run."""
        return {
            "label": self.label,
            "variant": self.variant,
            "regularizer": self.regularizer,
            "seed": self.seed,
            "folder": str(self.folder.absolute()),
            "recipe_digest": self.recipe.digest(),
            **({"selection": self.selection} if self.selection else {}),
        }

    def about(self) -> dict[str, Any]:
        """Public facts of the run, for the release card.

        Fingerprint and split are there as salted commitments: the content's own hash would let someone who knows all
        examples but one test a guess for the last. The seed, from which the split is drawn, and the path stay private.
        """
        guard = self.recipe.release.guard
        return {
            "recipe": as_plain(self.recipe.unlocated()),
            "recipe_digest": self.recipe.digest(),
            "early_stopping": self.stopping.state() if self.recipe.regularization.early_stopping else None,
            "data": {
                "name": self.data.name,
                "kind": self.data.kind,
                "classes": list(self.data.classes),
                "value": None if self.data.value is None else as_plain(self.data.value),
                **({"models": "language"} if self.data.is_language else {}),
                "input_shape": list(self.data.input_shape),
                "bounds": list(self.data.bounds),
                "features": list(self.data.features),
                "source": self.data.source,
                **({} if self.data.graph is None else {"graph": {"features": self.data.graph.features.shape[1]}}),
                "commitment": commitment_of(self.data, self.split),
            },
            **({"base": self.training.model.stated()} if isinstance(self.training.model, LowRank) else {}),
            "split_commitment": self.split.digest,
            **({} if guard is None else {"guard": {"text": guard, "statement": stated(guard)}}),
        }

    def _student(self) -> Callable[[], nn.Module] | None:
        """What makes the model that is released in place of the trained one, where the recipe has it so."""
        if not self.recipe.regularization.distillation:
            return None
        return lambda: released_model(self.recipe, self.data, self.split.public, self.training, self.seed)

    def _start(self) -> None:
        self._resume()
        self.training.ranks.first("the data set's account", self.training.open_account)

    def _resume(self) -> None:
        if self.training.ranks.first("the run's folder", self._take_up_folder):
            self.training.resume(self.folder)
            if self.recipe.regularization.early_stopping:
                state = self.training.ranks.first("early stopping", self._stopping_state)
                if state is not None:
                    self.stopping.go_on(state)

    def _save(self) -> None:
        """Writes the checkpoint, and what early stopping had seen by then."""
        if self.recipe.regularization.early_stopping:
            self.training.ranks.first("early stopping", self._keep_stopping_state)
        self.training.save(self.folder, self.about(), student=self._student())

    def _keep_stopping_state(self) -> None:
        """Before the checkpoint, beside the state of the one before: whichever is there after a crash finds its own."""
        path, step = self.folder / "private" / STOPPING, self.training.steps_taken
        before = checkpoint.unpack_json(path.read_bytes(), path) if path.exists() else {}
        earlier = sorted((int(taken) for taken in before if int(taken) < step), reverse=True)[:1]
        kept = {str(taken): before[str(taken)] for taken in earlier} | {str(step): self.stopping.state()}
        write_file(path, checkpoint.pack_json(kept))

    def _stopping_state(self) -> dict[str, Any] | None:
        """Of the checkpoint that is there; of one that an earlier version wrote, as the released card says it."""
        path, step = self.folder / "private" / STOPPING, self.training.steps_taken
        if path.exists():
            return checkpoint.unpack_json(path.read_bytes(), path).get(str(step))
        try:
            card = checkpoint.load_release(self.folder / "release")[1]
        except CheckpointError:
            return None
        return card["early_stopping"] if card["steps_taken"] == step else None

    def _take_up_folder(self) -> bool:
        """Takes up what the folder holds, and says whether a checkpoint is in it.

        A split drawn again from its seed has the same lists and another salt. A model that was chosen out of several is left
        alone: saved again, its card would state the ε of one training.
        """
        if checkpoint.is_there(self.folder / "release") and "selection" in checkpoint.load_release(self.folder / "release")[1]:
            raise CheckpointError(
                f"{self.folder} holds a model that was chosen out of several, and trains no further; give another folder"
            )
        split_file = self.folder / "private" / "split.npz"
        if split_file.exists():
            stored = load_split(split_file)
            if not stored.is_same(self.split):
                raise CheckpointError(f"{split_file} is another split than the one given; resume with the run's own split")
            self.split = stored
        else:
            save_split(self.split, split_file)
        self._check_identity(self.folder / "private" / IDENTITY)
        return checkpoint.is_there(self.folder / "private" / "checkpoint")

    def _check_identity(self, path: Path) -> None:
        """A checkpoint is gone on with by the recipe, the seed and the data that made it: its card states only one of each."""
        same = {"seed": self.seed, "recipe": as_plain(self.recipe), "data_fingerprint": self.data.fingerprint}
        begun = checkpoint.is_there(path.parent / "checkpoint")
        try:
            stored = checkpoint.unpack_json(path.read_bytes(), path) if path.exists() else {}
        except CheckpointError:
            if begun:
                raise
            stored = {}
        changed = [name for name, value in same.items() if _comparable(stored.get(name), path) != _comparable(value, path)]
        if begun and path.exists() and changed:
            raise CheckpointError(
                f"{self.folder} holds a training with another {' and another '.join(changed)}; give the one that it began "
                "with, or another folder"
            )
        run = str(stored.get("run", ""))
        spending = self.training.spending
        if spending is not None:  # known before it is opened: a run that is cut off goes on under its own name
            spending.run = run if run and not changed else secrets.token_hex(6)
            run = spending.run
        identity = {"label": self.label, "variant": self.variant, "regularizer": self.regularizer, **same, "run": run}
        write_file(path, checkpoint.pack_json(identity))

    def _stops(self) -> Iterator[int]:
        """Steps at which a checkpoint is kept. One that was reached before a stop is written and attacked again."""
        if self.stopping.stopped:
            yield self.training.steps_taken
            return
        *earlier, last = self.recipe.training.stops
        yield from (stop for stop in earlier if stop >= self.training.steps_taken)
        yield last

    def _call(self, callback: Callback) -> None:
        step = self.training.steps_taken
        callback(Checkpoint(self.folder, step, self.recipe, self.data, self.split, self.seed, self.training))

    def _bar(self) -> tqdm:
        total, done = self.training.plan.steps, self.training.steps_taken
        return tqdm(
            total=total, initial=done, desc=self.label, unit="step", disable=None if self.progress else True, leave=False
        )

    def _say(self) -> None:
        spent = self.training.epsilon if self.training.plan.is_private else None
        say("training", self.training.steps_taken, self.training.plan.steps, spent)

    def _show_epsilon(self, bar: tqdm) -> None:
        """ε takes up to a third of a second to compute: it is shown ten times a training, and only where it is seen."""
        taken, total = self.training.steps_taken, self.training.plan.steps
        if not bar.disable and self.training.plan.is_private and (taken * 10) // total > ((taken - 1) * 10) // total:
            bar.set_postfix_str(f"ε ≤ {up(self.training.epsilon())}")


def _comparable(value: Any, where: Path) -> Any:
    """A recipe as it is where its data lie elsewhere, with fields that came after it was kept; anything else as it is."""
    if not isinstance(value, dict) or not isinstance(value.get("data"), dict):
        return value
    plain = as_plain(from_plain(Recipe, value, str(where)))
    return {**plain, "data": {key: item for key, item in plain["data"].items() if key != "path"}}


@contextmanager
def stop_at_step_end(ranks: Ranks) -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a wish that the loop reads between steps; the second one stops at once.

    So it is with SIGTERM, which Slurm sends some time before it kills, and SIGHUP, which a closed terminal sends, unless it is
    ignored, as under ``nohup``; these are often sent twice, and stop at the step's end however often they come.

    Of several processes, what one was asked all are told: each reads the wish after the same step.
    """
    asked = threading.Event()

    def anyone_asked() -> bool:
        return ranks.any("a wish to stop", asked.is_set())

    def ask(number: int, frame: Any) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield anyone_asked
        return
    heard = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield anyone_asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
