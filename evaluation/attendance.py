"""Attacks each checkpoint of anyone's own training the moment it is saved.

    from evaluation import attend

    data = DataSet.of(inputs, targets, classes=10, bounds=(0.0, 1.0))
    split = draw(len(data))                                   # before anything is trained
    private = make_private(model, optimizer, data[split.members], plan, loss=loss)
    attend(private, data, split)
    ...                                                       # the loop
    private.save("runs/mine")                                 # and the evaluation fires

What comes of it lies beside the checkpoint: ``evaluation/step=…/result.json``, ``report.html``, TensorBoard files. Runs that
a loop over budgets saves as ``runs/mine/eps=8``, ``runs/mine/eps=2`` stand together with ``report="runs/mine"``; ``dptrain
report runs/mine`` shows them again.

Attacks that compare with shadow models get them by :mod:`dptrain.replay`, which trains them as the model itself was trained,
step size by step size. They go on from one checkpoint to the next and stay in memory in between, ``shadow_models`` times the
weights and the optimizer's state. ``retrain=`` trains them in a way of your own.
"""

import dataclasses
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dptrain.checkpoint import pack_json
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split
from dptrain.errors import ConfigError, DataError
from dptrain.files import write_file
from dptrain.private import PrivateTraining, Saved
from dptrain.replay import Replay
from dptrain.rounding import significant
from dptrain.trainer import IDENTITY, commitment_of
from evaluation import scripted
from evaluation.plan import EvaluationPlan
from evaluation.result import RunResult, write
from evaluation.runner import check_plan, evaluate

ATTACKS = ("membership.threshold", "membership.lira", "membership.rmia")
SHADOW_MODELS = 16

HELD_OUT = (
    "Examples that were held out of training are covered by nothing: an accuracy on them that decides which checkpoint is "
    "released, how large a step is or when training stops, tells something of them."
)
REPLAYED = "Shadow models were trained as this model was, from its own initial weights: the attacker is one who knows them."

Retrain = Callable[[np.ndarray, int], nn.Module]


def attend(
    private: PrivateTraining,
    data: DataSet,
    split: Split,
    *,
    attacks: Sequence[str] | None = None,
    shadow_models: int | None = None,
    plan: EvaluationPlan | None = None,
    retrain: Retrain | None = None,
    report: str | Path | None = None,
    progress: bool = True,
) -> None:
    """From here on every ``private.save(folder)`` keeps the split, attacks what it saved, and writes the reports.

    Args:
        data: all examples, members and others, index for index those that the split was drawn of.
        attacks: which; `dptrain list` names them. Left out, loss threshold, LiRA and RMIA.
        shadow_models: how many.
        plan: everything that an evaluation plan says, in place of these two.
        retrain: ``retrain(members, seed)`` trains one shadow model on those examples of ``data``, in place of a replay.
        report: folder of the report; left out, that of the run. A folder above several runs compares them.

    Raises:
        DataError: what is trained on is not what the split calls members.
        ConfigError: both a plan and parts of one are given, an attack does not exist, or the report's folder is of other data.
        ProtocolError: the training has begun.
    """
    if plan is not None and (attacks is not None or shadow_models is not None):
        raise ConfigError("plan is given beside attacks or shadow_models; say them in the EvaluationPlan")
    if plan is None:
        plan = EvaluationPlan(
            attacks=tuple(ATTACKS if attacks is None else attacks), shadow_models=shadow_models or SHADOW_MODELS
        )
    check_plan(plan, data)
    _check_members(private, data, split)
    if report is not None and Path(report).exists():
        scripted.check(Path(report), data)
    attendant = _Attendant(private, data, split, plan, retrain, None if report is None else Path(report), progress)
    if private.plan.is_private:
        private.qualify(HELD_OUT)
    about = {"data": {**scripted.facts(data), "commitment": commitment_of(data, split)}}
    private.on_save(attendant, split=split, about=about)


def _check_members(private: PrivateTraining, data: DataSet, split: Split) -> None:
    """Raises DataError unless the training's examples are those that the split calls members."""
    if split.size != len(data):
        raise DataError(f"the split is of {split.size} examples and the data set has {len(data)}; give draw(len(data))")
    examples = private.examples
    if len(examples.dataset) == len(data) and np.array_equal(np.sort(examples.indices), split.members):
        return
    raise DataError(
        f"the training has {len(examples)} examples of a data set of {len(examples.dataset)}, and they are not the "
        f"{len(split.members)} members of the split among {len(data)}: attacks would be told wrong who was in it; give "
        "make_private() data[split.members], or a Subset of your own data set by split.members"
    )


class _Attendant:
    """What is called back."""

    def __init__(
        self,
        private: PrivateTraining,
        data: DataSet,
        split: Split,
        plan: EvaluationPlan,
        retrain: Retrain | None,
        report: Path | None,
        progress: bool,
    ):
        self._private, self._data, self._split = private, data, split
        self._plan, self._retrain, self._report, self._progress = plan, retrain, report, progress
        self._replay = Replay(private)
        self._has_saved = False

    def __call__(self, saved: Saved) -> None:
        with torch.random.fork_rng(devices=[]):  # the loop goes on as if nobody had looked
            self._attack(saved)

    def _attack(self, saved: Saved) -> None:
        folder = saved.folder
        first, self._has_saved = not self._has_saved, True
        self._replay.save(folder)
        if first and self._replay.is_fresh and (folder / "evaluation").exists():
            shutil.rmtree(folder / "evaluation")  # of an earlier training, whose weights this one has just replaced
        root = self._report or folder
        scripted.claim(root, self._data, self._split)
        write_file(folder / "private" / IDENTITY, pack_json(self._identity(folder)))
        result = evaluate(
            folder,
            self._data,
            plan=self._plan,
            model=answering(self._private.model),
            retrain=self._shadow,
            progress=self._progress,
        )
        if self._retrain is None:
            self._note(result, folder)
        scripted.report(root)
        if self._progress:
            print(f"step {saved.step} was attacked: {root / 'report.html'}", file=sys.stderr)

    def _identity(self, folder: Path) -> dict[str, object]:
        plan = self._private.plan
        identity: dict[str, object] = {"label": folder.name, "seed": self._split.seed or 0}
        if plan.is_private:
            identity["epsilon"] = float(significant(plan.guarantee().epsilon, 3))
        return identity

    def _note(self, result: RunResult, folder: Path) -> None:
        path = folder / "evaluation" / f"step={result.step:06d}" / "result.json"
        write(dataclasses.replace(result, notes=(*result.notes, REPLAYED)), path)

    def _shadow(self, members: np.ndarray, seed: int) -> nn.Module:
        if self._retrain is not None:
            return answering(self._retrain(members, seed))
        units = None
        if self._private.plan.unit == "user":
            if self._data.users is None:
                raise DataError("whose each example is stands in no DataSet.users; give it there, or retrain=")
            units = self._data.users.numpy()[members]
        return answering(self._replay.model(members, seed, units))


def answering(model: nn.Module) -> nn.Module:
    """The model as attacks ask it: inputs in, one tensor of outputs back. One of Hugging Face's takes its inputs by name."""
    if not (hasattr(model, "main_input_name") and hasattr(model, "config")):
        return model
    from dptrain.hugging_face import Answering

    return Answering(model)
