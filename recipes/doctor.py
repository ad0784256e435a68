"""The doctor's visit to a recipe: its own model, loss and clipping norm.

    diagnosis = examine(comparison.load("digits"))

No private example is looked at, so nothing is spent. The model is run on examples that are public in every split that the
comparison draws; where there are too few of those, on random inputs between the public bounds, with random labels: both of
the shape that the data set's loader states. Loading checks the data file as every command does, and none of it is shown.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import dptrain.data
from dptrain import models
from dptrain.data.dataset import DataSet
from dptrain.data.graph import Graph, undirected
from dptrain.data.split import split_of
from dptrain.diagnosis import Diagnosis, Finding, doctor
from dptrain.graph.release import releases
from dptrain.models.gap import NoisedSums
from dptrain.plan import PrivacyPlan
from dptrain.recipe import Recipe
from dptrain.registry import LOSSES
from recipes.comparison import Comparison

MOST = 256
"""Examples in the batch that is timed, where the plan expects as many."""
ENOUGH = 8


def examine(comparison: Comparison, *, fix: bool = False) -> Diagnosis:
    """The diagnosis of the comparison's model; with ``fix``, of a copy in which BatchNorm was replaced.

    Raises:
        UserError: the recipe, its data or its plan cannot be used.
    """
    if comparison.performance.threads is not None:
        torch.set_num_threads(comparison.performance.threads)
    recipe = comparison.recipe
    data = dptrain.data.load(recipe.data)
    without_noise = dataclasses.replace(recipe.privacy, mechanism="clip_only", epsilon=None)
    plan = PrivacyPlan.from_config(without_noise, recipe.training.steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(comparison.seeds[0])
        model = models.build_for(recipe.model, data, recipe.regularization)
        if data.graph is not None:
            _check_plan(comparison, model, data, plan)
            stand_in(model, data.graph)
        batch, source = example_batch(comparison, data)
    function = LOSSES[recipe.training.loss]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return function(model, batch, recipe.regularization)

    diagnosis = doctor(model, loss, batch, plan=plan, fix=fix)
    note = Finding(severity="note", what=f"examined on {source}: no private example was looked at, and no budget spent")
    return dataclasses.replace(diagnosis, findings=(*diagnosis.findings, note))


def _check_plan(comparison: Comparison, model: nn.Module, data: DataSet, plan: PrivacyPlan) -> None:
    """Refuses what training would refuse: a plan that does not cover what the model reads of the graph.

    Nothing is released here, and only the number of nodes or edges is looked at.

    Raises:
        PlanError: as :func:`dptrain.graph.release.releases`.
    """
    if any(np.isfinite(comparison.epsilons)):
        releases(model, data, np.empty(0, dtype=np.int64), comparison.seeds[0], dataclasses.replace(plan, noise_multiplier=1.0))


def stand_in(model: Any, graph: Graph) -> None:
    """Binds a model of nodes to a random graph of the same size: a node's number would be looked up in the private one."""
    nodes, features = graph.features.shape
    rows = torch.rand(nodes, features)
    edges = undirected(torch.randint(nodes, (2, max(1, graph.edges.shape[1]))))
    model.bind(Graph(rows / rows.norm(dim=1, keepdim=True), edges, torch.zeros(2, 0, dtype=torch.int64)))
    if isinstance(getattr(model, "front", None), NoisedSums):
        model.front.release(torch.randn(nodes, *model.front.sums.shape[1:]))


def example_batch(comparison: Comparison, data: DataSet) -> tuple[tuple[Tensor, Tensor], str]:
    """Public or random examples, as many as a step expects but at most 256; and in words, which."""
    wanted = _size(comparison.recipe, comparison.performance.max_physical_batch)
    public = set(range(len(data)))
    for seed in comparison.seeds:
        public &= set(split_of(data, comparison.recipe.data.split, seed, comparison.recipe.privacy.unit).public.tolist())
    if len(public) >= ENOUGH:
        chosen = np.sort(np.fromiter(public, dtype=np.int64))[:wanted]
        index = torch.from_numpy(chosen)
        return (data.inputs[index], data.targets[index]), f"{len(chosen)} public examples"
    low, high = data.bounds
    inputs = (low + (high - low) * torch.rand(wanted, *data.input_shape)).to(data.inputs.dtype)
    shape = (wanted, *data.targets.shape[1:])
    targets = torch.rand(shape) - 0.5 if data.value is not None else torch.randint(data.outputs, shape)
    return (inputs, targets), "random inputs of the data's shape"


def _size(recipe: Recipe, most: int) -> int:
    return max(ENOUGH, min(MOST, most, math.ceil(recipe.privacy.expected_batch_size)))
