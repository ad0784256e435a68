"""What is released of a graph before the first update, by a model that reads edges through it.

    before = releases(model, data, members, seed, plan)
    private = make_private(..., plan, before=before)

:class:`~dptrain.private.PrivateTraining` calls it once, after the ledger has announced the first steps, with a secret
generator: the plan's event counts these releases with the first update.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from dptrain.data.dataset import DataSet
from dptrain.errors import PlanError
from dptrain.graph.aggregation import noised_sums
from dptrain.graph.encoder import Encoder
from dptrain.graph.perturbation import perturbed
from dptrain.models.gap import NoisedSums
from dptrain.models.gcn import GraphNetwork
from dptrain.models.on_graph import NodeModel, check_reads
from dptrain.plan import PrivacyPlan

Before = Callable[[np.random.Generator], None]


def releases(model: nn.Module, data: DataSet, members: np.ndarray, seed: int, plan: PrivacyPlan) -> Before | None:
    """What to do before the first update; None where nothing is released then.

    Args:
        seed: of the encoder that learns from the members' labels.

    Raises:
        PlanError: the plan does not cover what the model reads of the graph.
    """
    graph = data.graph
    if graph is None:
        if plan.unit in ("node", "edge") and plan.is_private:
            raise PlanError(
                f"privacy.unit is {plan.unit!r}, and the data set {data.name!r} is no graph; give 'example', or cora"
            )
        return None
    check_reads(model, plan, graph)
    if plan.unit == "edge" and plan.is_private and not graph.edges.shape[1]:
        raise PlanError("privacy.unit is 'edge', and the graph has no edge to hide; give one that has")
    if plan.is_private:
        plan.check_delta(graph.edges.shape[1] if plan.unit == "edge" else graph.nodes)
    if isinstance(model, GraphNetwork) and plan.edge_release != "none" and plan.is_private:
        return lambda generator: model.release(perturbed(graph.edges, graph.nodes, plan, generator))
    if not (isinstance(model, NodeModel) and isinstance(model.front, NoisedSums)):
        return None
    front = model.front
    _check_sums(front, plan)

    def sum_up(generator: np.random.Generator) -> None:
        if isinstance(front.encoder, Encoder):
            index = torch.from_numpy(members)
            front.encoder.learn(graph.features[index], data.targets[index], seed)
        front.release(noised_sums(front.encoder(graph.features), graph.edges, plan, generator))

    return sum_up


def _check_sums(front: NoisedSums, plan: PrivacyPlan) -> None:
    if plan.aggregations != front.hops:
        raise PlanError(
            f"model.hops is {front.hops} and privacy.aggregations is {plan.aggregations}; each hop's sums are released, so "
            "give both alike"
        )
    if plan.unit == "node" and plan.is_private and isinstance(front.encoder, Encoder):
        raise PlanError(
            "model.encoder is 'labels', which learns from features and labels without noise, and privacy.unit 'node' hides "
            "these too; give --model.encoder projection"
        )
