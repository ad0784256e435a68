"""Canaries that an observer of outputs can find again: real examples, wrong labels, noise, and the worst case.

* ``natural``: examples of the data set that were not trained on otherwise: what an ordinary person risks.
* ``mislabelled``: the same with another class for a label, which a model has no other reason to give.
* ``noise``: uniform values between the public bounds, with a random class.
* ``worst_case``: one example at the corner of the bounds that lies farthest from 0, labelled as whatever the initial model
  finds least likely (after Annamalai and De Cristofaro 2024, "Nearly Tight Black-Box Auditing of Differentially Private
  Machine Learning", who take a blank image).
"""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from dptrain.data.dataset import DataSet
from dptrain.errors import ConfigError, UserError, unknown_name

Kind = Literal["natural", "mislabelled", "noise"]


def make(kind: Kind, data: DataSet, spare: np.ndarray, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """``count`` canaries: inputs and labels.

    Args:
        spare: indices of examples that are in no training otherwise.

    Raises:
        UserError: there are too few spare examples, or the data set has no public bounds to draw noise between.
    """
    if kind not in get_args(Kind):
        raise unknown_name("canary", kind, get_args(Kind), ConfigError)
    if kind == "noise":
        low, high = _bounds(data)
        values = low + (high - low) * generator.random((count, *data.input_shape))
        labels = torch.from_numpy(generator.integers(data.outputs, size=count))
        targets = labels if data.value is None else torch.from_numpy(generator.random(count) - 0.5).to(data.targets.dtype)
        return torch.from_numpy(values).to(data.inputs.dtype), targets
    if len(spare) < count:
        raise UserError(
            f"{count} {kind} canaries are wanted and only {len(spare)} examples are outside of the training; ask for fewer, or "
            "for canary = noise"
        )
    index = torch.from_numpy(generator.permutation(spare)[:count])
    inputs, labels = data.inputs[index], data.targets[index]
    if kind == "mislabelled" and data.value is not None:
        labels = torch.where(labels < 0, 0.5, -0.5).to(labels.dtype)  # the end of the bounds that is further away
    elif kind == "mislabelled":
        others = len(data.classes) - 1
        labels = (labels + torch.from_numpy(generator.integers(1, others + 1, size=count))) % len(data.classes)
    return inputs, labels


def worst_case(model: nn.Module, data: DataSet) -> tuple[Tensor, Tensor]:
    """One canary for a model whose initial weights the auditor chose, ``[1, ...]`` and ``[1]``."""
    low, high = _bounds(data)
    inputs = torch.full((1, *data.input_shape), high if abs(high) >= abs(low) else low, dtype=data.inputs.dtype)
    model.eval()
    with torch.no_grad():
        answer = model(inputs)
        return inputs, answer.argmin(1) if data.value is None else torch.where(answer[:, 0] < 0, 0.5, -0.5)


def _bounds(data: DataSet) -> tuple[float, float]:
    if not np.isfinite(data.bounds).all():
        raise UserError(f"the data set {data.name!r} has no finite public bounds, between which a canary could lie")
    return data.bounds
