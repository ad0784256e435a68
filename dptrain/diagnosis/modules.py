"""What can be seen of a model without running it, and what a module is replaced by.

    for finding in scan(model): ...
    fixed, changes = replaced(model)

BatchNorm becomes GroupNorm and statistics of InstanceNorm are dropped, through Opacus' fixers (``ModuleValidator``). Three of
their habits are mended here: they pass by modules without a trainable parameter of their own (a frozen or affine-free
BatchNorm), an InstanceNorm that they have "fixed" still writes into its running statistics, and a small BatchNorm1d becomes
a GroupNorm that gives zeros. Layers that Opacus would also replace, LSTM and attention, are left as they are: the one-pass
engine has rules for them.
"""

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from dptrain.checks import obstacles
from dptrain.diagnosis.result import Finding
from dptrain.errors import PlanError

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
HALF_RANGE = {torch.float16: "above 65504 or below 6e-8", torch.bfloat16: "to 8 bits"}


def named(name: str, module: nn.Module) -> str:
    return f"{name or 'the model itself'} ({type(module).__name__})"


def blocking(model: nn.Module) -> list[Finding]:
    """What keeps a model from being run, or even copied, here."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, WRAPPERS):
            what = "wraps a model, so that gradients are summed over devices before anyone can clip them"
            found.append(Finding(severity="error", what=what, where=named(name, module), fix="give its .module"))
    lazy = [obstacle for obstacle in obstacles(model) if _is_lazy(obstacle.module)]
    return found + [
        Finding(severity="error", what=obstacle.what, where=named(obstacle.name, obstacle.module), fix=obstacle.fix)
        for obstacle in lazy
    ]


def _is_lazy(module: nn.Module) -> bool:
    return any(is_lazy(value) for value in (*module.parameters(recurse=False), *module.buffers(recurse=False)))


def scan(model: nn.Module) -> Iterator[Finding]:
    """What is known to be wrong, or to matter, by a module's type and options alone."""
    for obstacle in obstacles(model):
        where = named(obstacle.name, obstacle.module)
        yield Finding(severity="error", what=obstacle.what, where=where, fix=obstacle.fix)
    for name, module in model.named_modules():
        yield from _options(named(name, module), module)
    yield from _parameters(model)


def _options(where: str, module: nn.Module) -> Iterator[Finding]:
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        if module.scale_grad_by_freq:
            what = "divides each row's gradient by how often the whole batch uses it, so examples change each other's"
            yield Finding(severity="error", what=what, where=where, fix="build it with scale_grad_by_freq=False")
        if module.sparse:
            what = "asks for sparse gradients, and noise falls on every row: the private gradient is dense"
            fix = "build it with sparse=False, and use no SparseAdam"
            yield Finding(severity="note", what=what, where=where, fix=fix)
    for key, value in vars(module).items():
        if isinstance(value, (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)):
            what = f"draws from a generator of its own, {key}, which goes on from call to call and is in no checkpoint"
            yield Finding(severity="warning", what=what, where=where, fix="draw from torch's own generator, as nn.Dropout does")


def _parameters(model: nn.Module) -> Iterator[Finding]:
    names: dict[int, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(value), []).append(name)
    shared = [" = ".join(several) for several in names.values() if len(several) > 1]
    if shared:
        what = "one weight under several names: its gradients are added up before they are clipped, and it is saved once"
        yield Finding(severity="note", what=what, where="; ".join(shared))
    for dtype, lost in HALF_RANGE.items():
        these = [name for name, value in model.named_parameters() if value.requires_grad and value.dtype == dtype]
        if these:
            kind = str(dtype).removeprefix("torch.")
            what = f"trained in {kind}: gradients are rounded, or lost, {lost} before they are clipped"
            fix = "keep weights in float32 and compute under torch.autocast: model.float()"
            yield Finding(severity="warning", what=what, where=_list(these), fix=fix)


def _list(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


# -- replacements ---------------------------------------------------------------------------------------------------


def replaced(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy in which every module that has a private counterpart is replaced by it; and what was replaced, in words.

    A GroupNorm keeps scale and shift of the BatchNorm whose place it takes, and is trainable where that one was. It computes
    something else all the same: a model that was trained with BatchNorm has to be trained further.

    Raises:
        PlanError: the model cannot be copied.
    """
    try:
        fixed = copy.deepcopy(model)
    except Exception as error:
        raise PlanError(f"{type(model).__name__} cannot be copied, so nothing was replaced: {error}") from None
    made: dict[nn.Module, nn.Module] = {}
    changes = []
    for name, module in list(fixed.named_modules(remove_duplicate=False)):
        replace = _replacement(module)
        if replace is None:
            continue
        if module not in made:
            made[module] = replace(module)
        new = made[module]
        changes.append(f"{name or 'the model itself'}: {module} becomes {new}")
        if not name:
            return new, tuple(changes)
        parent, _, key = name.rpartition(".")
        setattr(fixed.get_submodule(parent), key, new)
    return fixed, tuple(changes)


def _replacement(module: nn.Module) -> Callable[[Any], nn.Module] | None:
    if isinstance(module, _BatchNorm):
        return _group_norm
    if isinstance(module, _InstanceNorm) and (module.track_running_stats or module.running_mean is not None):
        return _instance_norm_without_statistics
    return None


def _fixer(module: nn.Module) -> Callable[..., nn.Module]:
    from opacus.validators import ModuleValidator

    kind: Any = next((base for base in type(module).__mro__ if base in ModuleValidator.FIXERS), None)
    if kind is not None:
        return ModuleValidator.FIXERS[kind]
    from opacus.validators.batch_norm import fix

    return fix


CHANNELS = 16
"""At least so many values are normalised together where an example has no positions (Wu, He 2018, "Group Normalization")."""


def _group_norm(module: _BatchNorm) -> nn.Module:
    """Opacus takes up to 32 groups. Over vectors, as BatchNorm1d sees them, that leaves one value a group for small layers,
    which normalises to 0 and ends all learning."""
    features, vectors = module.num_features, not isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d))
    most = max(features // CHANNELS, 1) if vectors else features
    groups = next(count for count in range(min(32, most), 0, -1) if features % count == 0)
    new = _fixer(module)(module, num_groups=groups)
    old, made = dict(module.named_parameters()), dict(new.named_parameters())
    for key, value in made.items():
        value.data = old[key].detach().clone()
        value.requires_grad_(old[key].requires_grad)
    return new.train(module.training)


def _instance_norm_without_statistics(module: _InstanceNorm) -> nn.Module:
    new: Any = _fixer(module)(module)
    new.track_running_stats = False
    new.running_mean = new.running_var = new.num_batches_tracked = None
    return new
