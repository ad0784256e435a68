"""What a private training refuses before its first step.

    check_model(model, private=True)    # raises PlanError with the module's name and the fix

All modules and all buffers are looked at, trainable or not: a frozen or affine-free BatchNorm still mixes examples and
still writes un-noised statistics of private data into the ``state_dict``. What can only be seen by running the model is
:func:`dptrain.doctor`'s matter; what is watched while it runs is in :mod:`dptrain.guards`.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from dptrain.errors import PlanError
from dptrain.recipe import Performance

NOISED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of weights whose every bit of freedom gets noise. Of a complex one, only the real part would."""


@dataclass(frozen=True, eq=False)
class Obstacle:
    """A module that no clipping can make private."""

    name: str
    """Its path in the model; empty for the model itself."""
    module: nn.Module
    what: str
    fix: str

    @property
    def where(self) -> str:
        return f"module {self.name or 'itself'!r} ({type(self.module).__name__})"


def obstacles(model: nn.Module) -> Iterator[Obstacle]:
    """Every module that mixes examples, keeps statistics of them, or moves weights without noise."""
    for name, module in model.named_modules():
        if any(is_lazy(value) for value in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
            yield Obstacle(name, module, "has no weights yet", "run the model once on public or random inputs before")
        if isinstance(module, _BatchNorm):
            what = "mixes the examples of a batch and keeps their statistics, so one example's part cannot be bounded"
            yield Obstacle(
                name, module, what, "replace it by nn.GroupNorm (dptrain.doctor(model, loss, batch, fix=True) does that)"
            )
        if isinstance(module, _InstanceNorm) and (module.track_running_stats or module.running_mean is not None):
            what = "keeps running statistics of private examples without noise"
            yield Obstacle(name, module, what, "build it with track_running_stats=False")
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
            what = "shortens the rows that a batch uses, so private examples change its weights without noise"
            yield Obstacle(name, module, what, "build it with max_norm=None")
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            what = "puts a state of its own into the state_dict (get_extra_state), which nobody clips, noises or looks at"
            yield Obstacle(name, module, what, "keep what it needs in parameters or buffers, or outside of the model")


def check_model(model: nn.Module, *, private: bool) -> None:
    """Refuses what no clipping can make private.

    Raises:
        PlanError: nothing to train; or, where ``private``, a module that mixes examples or keeps statistics of them, or
            trainable weights of a type that gets no noise.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise PlanError(f"{type(model).__name__} has no trainable parameter; call requires_grad_(True) on what to train")
    if not private:
        return
    for found in obstacles(model):
        raise PlanError(f"{found.where} {found.what}; {found.fix}")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype not in NOISED:
            raise PlanError(
                f"parameter {name!r} is of the type {parameter.dtype}, and noise is drawn for real numbers alone; make it "
                "float16, bfloat16, float32 or float64 (a complex weight as two real ones), or freeze it"
            )


def released(model: nn.Module) -> dict[str, torch.Tensor]:
    """What of a model can be published: its parameters and persistent buffers, whatever else it puts into a ``state_dict``."""
    transient = {
        f"{name}.{key}" if name else key
        for name, module in model.named_modules(remove_duplicate=False)
        for key in module._non_persistent_buffers_set
    }
    buffers = {name: value for name, value in model.named_buffers(remove_duplicate=False) if name not in transient}
    return {**dict(model.named_parameters(remove_duplicate=False)), **buffers}


def check_parts(model: Any, optimizer: Any, loss: Any, augment: Any, performance: Any) -> None:
    """Refuses what is no model, no optimizer, no loss of a model and a batch, no augmentation.

    Raises:
        PlanError: it says what was given, and what to give.
    """
    if not isinstance(model, nn.Module):
        raise PlanError(f"model is {_kind(model)}; give a torch.nn.Module")
    if not isinstance(optimizer, Optimizer):
        raise PlanError(
            f"optimizer is {_kind(optimizer)}; give a torch.optim optimizer, such as SGD(model.parameters(), lr=0.1)"
        )
    if isinstance(loss, nn.Module) and type(loss).__module__ == "torch.nn.modules.loss":
        raise PlanError(
            f"loss is {_kind(loss)}, which takes outputs and targets and averages; give a function of (model, batch), such as "
            "dptrain.per_example(torch.nn.functional.cross_entropy)"
        )
    if getattr(loss, "__module__", "") == "torch.nn.functional":
        name = getattr(loss, "__name__", "it")
        raise PlanError(f"loss is torch's own {name}, which averages over a batch; give dptrain.per_example({name})")
    if not callable(loss):
        raise PlanError(
            f"loss is {_kind(loss)}; give a function of (model, batch) with one value an example, such as "
            "dptrain.per_example(torch.nn.functional.cross_entropy)"
        )
    if augment is not None and not callable(augment):
        raise PlanError(f"augment is {_kind(augment)}; give a function of collated rows, or leave it out")
    if performance is not None and not isinstance(performance, Performance):
        raise PlanError(f"performance is {_kind(performance)}; give a dptrain.recipe.Performance, or leave it out")


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def check_fresh_optimizer(optimizer: Optimizer) -> None:
    """Refuses an optimizer that could not be stepped, could not be saved, or brings gradients of its own along.

    Raises:
        PlanError: it holds state from earlier steps, needs a closure, or has an option that is no plain value.
    """
    name = type(optimizer).__name__
    if any(state and not _unused(state) for state in optimizer.state.values()):
        raise PlanError(
            f"{name} already holds state, such as momentum, of earlier steps, which would reach the weights without noise; "
            "build a new optimizer"
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise PlanError(f"{name} evaluates the loss several times a step, which no plan counts; use SGD, Adam or the like")
    for group in optimizer.param_groups:
        for option, value in group.items():
            if isinstance(value, torch.Tensor):
                raise PlanError(f"{name} has {option} as a tensor, which a checkpoint cannot keep; give a plain number")


def _unused(state: dict[str, Any]) -> bool:
    """Whether no step was made with it: Adagrad makes its state when it is built, of a constant."""
    return "step" in state and float(state["step"]) == 0


def check_optimizer(model: nn.Module, optimizer: Optimizer) -> None:
    """Every trainable weight must be in the optimizer, and nothing else.

    Raises:
        PlanError: it names the weights that would never move, or move without being accounted for.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trainable = {id(value): name for name, value in model.named_parameters() if value.requires_grad}
    missing = [name for key, name in trainable.items() if key not in held]
    if missing:
        raise PlanError(
            f"the optimizer does not hold {', '.join(missing)}, so these would never move; add them, or freeze them with "
            "requires_grad_(False)"
        )
    if len(held - set(trainable)):
        raise PlanError(
            f"the optimizer holds {len(held - set(trainable))} tensors that are not trainable parameters of the model; "
            "build it from model.parameters() after freezing"
        )
