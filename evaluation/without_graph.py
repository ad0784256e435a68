"""A model of the same nodes that never saw an edge: the floor of a graph model, and what attacks on edges are held against.

Homophily makes neighbours alike, so that whoever knows features, or answers of a model that learned from features alone,
guesses edges better than chance. And where noise has eaten what the edges say, a model that ignores them is the better one:
then the graph is not worth its noise, and the report says so.

Where the plan hides nothing of features and labels (the unit ``edge``, or no guarantee), it is the network of
:mod:`dptrain.graph.encoder`. Under the unit ``node`` it is a linear model of the features by the recipe's own optimizer, steps
and budget, all of which features then have for themselves. It is trained for this comparison alone, and released by nobody.
"""

import dataclasses
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from dptrain.data.dataset import DataSet
from dptrain.data.split import Split
from dptrain.graph.encoder import HIDDEN, Encoder
from dptrain.models.on_graph import Features, NodeModel
from dptrain.recipe import ModelConfig, Recipe
from dptrain.trainer import build_training
from evaluation.access import Access
from evaluation.metrics import paired_difference, proportion
from evaluation.result import Measure
from evaluation.target import Target

FLOOR, GAINED = "accuracy_without_the_graph", "accuracy_by_the_graph"


def without_graph(recipe: Recipe | None, data: DataSet, split: Split, seed: int) -> Target:
    """The model, trained on the split's members.

    Args:
        recipe: of the graph model, whose budget it has; None where that is not known, and then it has none.
    """
    private = recipe is not None and recipe.privacy.mechanism == "gaussian" and recipe.privacy.unit == "node"
    model = _under_budget(recipe, data, split, seed) if recipe is not None and private else _of_features(data, split, seed)
    return Target(model, Access.WEIGHTS, bounds=data.bounds, classes=len(data.classes))


@lru_cache(maxsize=16)
def _of_features(data: DataSet, split: Split, seed: int) -> nn.Module:
    assert data.graph is not None
    features, index = data.graph.features, torch.from_numpy(split.members)
    encoder = Encoder(features.shape[1], HIDDEN, len(data.classes))
    encoder.learn(features[index], data.targets[index], seed)
    model = NodeModel(Features(features.shape[1]), _Logits(encoder))
    model.bind(data.graph)
    return model


class _Logits(nn.Module):
    """An encoder as the head of a model."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def embeddings(self, features: Tensor) -> Tensor:
        return self.encoder.hidden(features)

    def forward(self, features: Tensor) -> Tensor:
        return self.encoder.logits(features)


@lru_cache(maxsize=16)
def _under_budget(recipe: Recipe, data: DataSet, split: Split, seed: int) -> nn.Module:
    privacy = dataclasses.replace(recipe.privacy, aggregations=0, aggregation_noise=1.0, occurrences=0)
    alone = dataclasses.replace(recipe, model=ModelConfig(name="linear", hidden=()), privacy=privacy)
    training = build_training(alone, data, split.members, seed)
    for batch in training.batches():
        training.step(batch)
    with training.averaged() as model:
        return model.eval()


def floor(target: Target, beside: Target, inputs: Tensor, targets: Tensor) -> tuple[Measure, Measure]:
    """The accuracy of the model without the graph, and how much more the graph model has, on the same held-out nodes."""
    right = np.stack([model.labels(inputs) == targets.numpy() for model in (target, beside)])
    floored = proportion(int(right[1].sum()), len(targets), FLOOR)
    return floored, paired_difference(right[0], right[1], GAINED)


def worth(gained: Measure, is_private: bool) -> str | None:
    """That the graph is not worth its noise, or not shown to be, in a sentence; None where it is."""
    if gained.value is None or gained.low is None or gained.low > 0:
        return None
    what = "its noise" if is_private else "being looked at"
    shown = "is not shown to be worth" if gained.value > 0 else "is not worth"
    return (
        f"The graph {shown} {what} here: the model is {100 * gained.value:+.1f} points [{100 * gained.low:+.1f}, "
        f"{100 * (gained.high or 0):+.1f}] more accurate than one of the same members that ignores all edges."
    )
