"""Other models by the way that one was trained, without anybody having to write that way down twice.

    replay = Replay(private)              # before its first step
    ...                                   # anyone's own loop
    replay.model(members, seed=7)         # a model of other examples, trained as far as ``private`` has come

Nothing but :meth:`~dptrain.private.PrivateTraining.step` moves the weights of a private training: plan, loss, optimizer, and
the options that the optimizer had at each step say all of it. These are noted while it trains, so that a learning rate is
replayed as it was, whatever scheduler made it, and each module is in training mode where it was. What is replayed are the
choices, never batches or noise: those are drawn anew.

The others begin from *the same initial weights*. An attacker who learns from them is one who knows these weights, which no
guarantee takes to be secret. A model that was pretrained in public began there as well.

Two things are not seen: what the loop writes into modules (a dropout rate that it changes), and a choice that it made by
looking at the members (a learning rate that follows the training loss is replayed as it came out for this model).
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from dptrain.checkpoint import pack_json, unpack_json
from dptrain.data.examples import Examples
from dptrain.errors import ProtocolError
from dptrain.files import write_file
from dptrain.private import Batch, PrivateTraining

STEPS = "steps.json"
"""Below ``private/``: the options that the optimizer had, and from which step on."""

Noted = dict[str, Any]


class Replay:
    """Notes how a training goes, and trains others alike.

    Raises:
        ProtocolError: it has begun, and how its first steps were made is not known.
    """

    def __init__(self, training: PrivateTraining):
        if training.steps_taken:
            raise ProtocolError(
                f"the training has taken {training.steps_taken} steps, and how they were made was not noted; attend to it "
                "right after make_private(), before resume() and before the first batch"
            )
        self._training = training
        self._initial = _copied(training.model, training.optimizer)
        self._noted: list[Noted] = []
        self._kept: dict[int, _Shadow] = {}
        self._resumed = False
        """Whether steps of before a resume were taken up from the disk."""
        training.optimizer.register_step_pre_hook(self._note)

    @property
    def is_fresh(self) -> bool:
        """Whether this training began with its first step, and was not resumed."""
        return not self._resumed and (not self._noted or self._noted[0]["from"] == 0)

    @property
    def _known_from(self) -> int:
        return self._noted[0]["from"] if self._noted else self._training.steps_taken

    def _note(self, optimizer: Optimizer, *_: Any) -> None:
        step = self._training.steps_taken - 1  # a step is counted before the weights move
        modes = "".join("1" if module.training else "0" for module in self._training.model.modules())
        now = {"options": [_options(group) for group in optimizer.param_groups], "modes": modes}
        if not self._noted or {**self._noted[-1], "from": 0} != {**now, "from": 0}:
            self._noted.append({"from": step, **now})

    def save(self, folder: Path) -> None:
        """Keeps beside a checkpoint what was noted; takes from there what was noted before a resume."""
        path, first = folder / "private" / STEPS, self._known_from
        if first > 0 and path.exists():
            earlier = unpack_json(path.read_bytes(), path)["steps"]
            self._resumed = True
            self._noted = [_tuples(one) for one in earlier if one["from"] < first] + self._noted
        write_file(path, pack_json({"steps": self._noted}))

    def model(self, members: np.ndarray, seed: int, units: Any = None) -> nn.Module:
        """The model of these examples, after as many steps as the training has taken. Asked again later with the same seed, it
        goes on from there.

        Args:
            members: indices into the data set from which the training's examples were taken.
            units: whose each of them is, where the plan's unit is the user.
        """
        until = self._training.steps_taken
        kept = self._kept.get(seed)
        if kept is None or kept.training.steps_taken > until or not np.array_equal(kept.members, members):
            kept = self._kept[seed] = _Shadow(self, members, seed, units)
        return kept.model(until)

    def at(self, step: int) -> Noted:
        """What held when the update after ``step`` others was made.

        Raises:
            ProtocolError: it was made before a resume, and what was noted then is gone.
        """
        found = next((noted for noted in reversed(self._noted) if noted["from"] <= step), None)
        if found is None:
            raise ProtocolError(
                f"how the first {self._known_from} steps were made is not known, since private/{STEPS} of the run is "
                "missing; save into the folder that was resumed from, or give retrain="
            )
        return found

    def begin(self, examples: Examples) -> PrivateTraining:
        """A training like the noted one, of other examples."""
        model, optimizer = _copied(*self._initial)
        return self._training.again(model, optimizer, examples)

    @property
    def examples(self) -> Examples:
        """Of the training itself."""
        return self._training.examples


class _Shadow:
    """One model that is trained alike, as far as the other one has come."""

    def __init__(self, replay: Replay, members: np.ndarray, seed: int, units: Any):
        self.members = members
        self.training = replay.begin(replay.examples.others(members, units))
        self._replay = replay
        with _randomness(None) as begun:
            torch.manual_seed(seed)
        self._state = begun()
        self._batches: Iterator[Batch] = self.training.batches()

    def model(self, until: int) -> nn.Module:
        """Its weights after ``until`` steps, as they would be released."""
        training = self.training
        with _randomness(self._state) as state:
            while training.steps_taken < until:
                noted = self._replay.at(training.steps_taken)
                for group, options in zip(training.optimizer.param_groups, noted["options"], strict=True):
                    group.update(options)
                for module, mode in zip(training.model.modules(), noted["modes"], strict=True):
                    module.training = mode == "1"
                training.step(next(self._batches))
            self._state = state()
        with training.averaged() as model:
            return copy.deepcopy(model).eval()


@contextmanager
def _randomness(state: torch.Tensor | None) -> Iterator[Any]:
    """Torch's generator as it was left there, and afterwards as the caller's loop has it."""
    with torch.random.fork_rng(devices=[]):
        if state is not None:
            torch.set_rng_state(state)
        last: list[torch.Tensor] = []
        try:
            yield lambda: last[0] if last else torch.get_rng_state()
        finally:
            last.append(torch.get_rng_state())


def _copied(model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
    """Both anew, the one over the other's parameters. Torch copies no hooks of an optimizer, and no attributes of its own:
    plain ones, such as the noise that it is told of, are put back."""
    copied, moved = copy.deepcopy((model, optimizer))
    for name, value in vars(optimizer).items():
        if not hasattr(moved, name) and (value is None or isinstance(value, (int, float, str))):
            setattr(moved, name, value)
    return copied, moved


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in ("params", "param_names")}


def _tuples(noted: Noted) -> Noted:
    """JSON knows no tuples, and optimizers take pairs of numbers as such."""
    options = [{name: tuple(value) if isinstance(value, list) else value for name, value in group.items()}
               for group in noted["options"]]  # fmt: skip
    return {**noted, "options": options}
