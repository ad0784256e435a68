"""How good a model is, as a number that may decide something: a count over units that one of them moves by at most 1, noised.

    score(target, data, split.held_out, unit="example", noise=6.3, generator=secret_generator())

A model's worth on private examples is a function of them, and whatever is decided by it releases some of it. Each unit counts
with a share from 0 to 1: whether the answer is right; of a value, whether it is near (:mod:`evaluation.utility`); of a
sequence, the share of its places that are right. A user counts with the mean of their examples. So adding, removing, blanking
or replacing one unit changes the sum by at most 1, and with Gaussian noise of standard deviation σ the score is a Gaussian
mechanism of noise multiplier σ (Dwork, Roth 2014, "The Algorithmic Foundations of Differential Privacy", appendix A). An answer
that is no number is wrong and nothing else: the bound holds also of a model that training lost.

A model of nodes answers for a node by what its neighbours are: one node moves the answers of others, and there is no score.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dptrain.data.dataset import DataSet
from dptrain.errors import ConfigError
from evaluation.access import Access
from evaluation.target import Target
from evaluation.utility import OFF_BY


def score(
    target: Target,
    data: DataSet,
    indices: Int[np.ndarray, " examples"],
    *,
    unit: str,
    noise: float,
    generator: np.random.Generator,
) -> float:
    """The sum of the units' shares, plus noise.

    Args:
        indices: the examples, none of which the model was trained on.
        noise: σ; 0 of public examples alone.
        generator: a secret one.
    """
    shares = shares_of(target, data, indices)
    if unit == "user":
        assert data.users is not None
        _, owner = np.unique(data.users.numpy()[indices], return_inverse=True)
        shares = np.bincount(owner, weights=shares) / np.bincount(owner)
    return float(np.clip(shares, 0.0, 1.0).sum() + noise * generator.standard_normal())


def check_can_score(data: DataSet) -> None:
    """Refuses what has no score of bounded sensitivity.

    Raises:
        ConfigError: the data set is a graph.
    """
    if data.graph is not None:
        raise ConfigError(
            f"the data set {data.name!r} is a graph, where one node moves the answers for others, so that no score of bounded "
            "sensitivity is known; choose by hand what needs no private data, or give another data set"
        )


def shares_of(target: Target, data: DataSet, indices: Int[np.ndarray, " examples"]) -> Float[np.ndarray, " examples"]:
    """Of each example a number from 0 to 1, by its own inputs and target alone."""
    index = torch.from_numpy(indices)
    inputs, targets = data.inputs[index], data.targets[index]
    if target.kind == "language":
        return (target.labels(inputs) == targets.numpy()).mean(1)
    outputs = target.behind(Access.LOGITS).logits(inputs)
    whole = np.isfinite(outputs).all(axis=1)
    if data.value is None:
        return (whole & (np.nan_to_num(outputs).argmax(1) == targets.numpy())).astype(float)
    return _near(np.where(whole, outputs[:, 0], 0.0), targets, data) * whole


def _near(outputs: Float[np.ndarray, " examples"], targets: Tensor, data: DataSet) -> Float[np.ndarray, " examples"]:
    """Whether a prediction is within 20% of the value, or where 0 means nothing, within a tenth of its range."""
    assert data.value is not None
    predicted, true = data.value.decode(outputs), data.value.decode(targets.numpy())
    low, high = data.value.bounds
    near = OFF_BY[0] * np.abs(true) if data.value.has_origin else np.full_like(true, 0.1 * (high - low))
    return (np.abs(predicted - true) <= near).astype(float)
