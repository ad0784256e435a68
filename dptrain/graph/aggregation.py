"""Sums over neighbours with noise, made once, which a model may then read as often as it likes.

    table = noised_sums(graph.features, graph.edges, plan, secret_generator())      # [nodes, hops, width]

Aggregation perturbation (Sajadmanesh, Shamsabadi, Bellet, Gatica-Perez 2023, "GAP: Differentially Private Graph Neural
Networks with Aggregation Perturbation"). With A the symmetric matrix of edges, 0 or 1 and without self-loops, and X the
features, the hops k = 1 to K of a plan release

    S_k = A H_k + N(0, (σ_a Δ)²),    H_1 = X, rows scaled to length at most 1,    H_{k+1} = S_k, rows scaled to length 1.

**Given what was released before, H_k is the same for both neighbours.** From the second hop on it is a function of released
sums. In the first it is the features, which blanking a node changes in one row alone; that row is read over the node's
edges, and they go with it. So hops compose adaptively, and in each of them neighbours differ by edges alone:

* **One edge** between u and v: row u loses h_v and row v loses h_u. Δ = √2.
* **One node** with at most D edges: each of its neighbours' rows loses a vector of length at most 1, and its own row becomes
  0. Rows of A H are projected onto the ball of radius √D before the noise, which moves no two of them further apart
  (Euclidean projection onto a convex set), so that its own row changes by at most √D. Δ = √(D + D) = √(2 D).

The whole table may be published, a node's own row included. The paper's Δ = √D counts the neighbours' rows alone.

σ_a = aggregation_noise · noise_multiplier, and the noise is enlarged by 2⁻²⁰ as that of updates is (``dptrain.noise``). Sums
are made and noised in float64. A table is made once: a second one from the same graph would be a second release.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dptrain.errors import DataError, PlanError
from dptrain.noise.ahead import NormalSource
from dptrain.noise.mechanism import ROUNDING_MARGIN

if TYPE_CHECKING:
    from dptrain.plan import PrivacyPlan


def noised_sums(
    features: Float[Tensor, "nodes width"],
    edges: Int[Tensor, "2 edges"],
    plan: "PrivacyPlan",
    generator: np.random.Generator,
) -> Float[Tensor, "nodes hops width"]:
    """The released sums of each hop, unscaled, in the features' type; without noise where the plan promises nothing.

    Args:
        edges: undirected, each once, without self-loops.
        generator: a secret one, which nobody else draws from (:func:`dptrain.noise.secret_generator`).

    Raises:
        PlanError: a plan without aggregations.
        DataError: edges that are not each once, or a node with more of them than the plan's ``max_degree``.
    """
    if not plan.aggregations:
        raise PlanError(f"aggregations is {plan.aggregations}, so no sum is released; give the number of hops, such as 2")
    check_edges(edges, len(features), plan.max_degree)
    noise = NormalSource(generator, ahead=False)
    scale = ROUNDING_MARGIN * plan.aggregation_noise * plan.noise_multiplier * sensitivity(plan) if plan.is_private else 0.0
    rows, hops = at_most_unit(features.detach().double()), list[Tensor]()
    for _ in range(plan.aggregations):
        table = sums(rows, edges, plan.max_degree)
        if scale:
            drawn = noise.draw(table.numel(), torch.float64, torch.device("cpu")).view(table.shape)
            table = table + scale * drawn.to(table.device)
        hops.append(table)
        rows = unit(table)
    return torch.stack(hops, dim=1).to(features.dtype)


def sensitivity(plan: "PrivacyPlan") -> float:
    """Δ, the most by which one hop's sums of neighbours differ, in L2 norm over the whole table."""
    return math.sqrt(2) if plan.max_degree is None else math.sqrt(2 * plan.max_degree)


def sums(
    rows: Float[Tensor, "nodes width"], edges: Int[Tensor, "2 edges"], max_degree: int | None = None
) -> Float[Tensor, "nodes width"]:
    """A H for rows of length at most 1; under a bounded degree D, with each row projected onto the ball of radius √D."""
    first, second = edges
    table = torch.zeros_like(rows).index_add_(0, first, rows[second]).index_add_(0, second, rows[first])
    return table if max_degree is None else math.sqrt(max_degree) * at_most_unit(table / math.sqrt(max_degree))


def at_most_unit(rows: Float[Tensor, "nodes width"]) -> Float[Tensor, "nodes width"]:
    """Rows projected onto the unit ball; one that is not finite becomes 0, as it could not be bounded."""
    finite = torch.isfinite(rows).all(dim=1, keepdim=True)
    rows = torch.where(finite, rows, 0.0)
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1.0)


def unit(rows: Float[Tensor, "nodes width"]) -> Float[Tensor, "nodes width"]:
    """Rows scaled to length 1; a row of zeros stays."""
    return torch.nn.functional.normalize(rows, dim=1)


def check_edges(edges: Int[Tensor, "2 edges"], nodes: int, max_degree: int | None = None) -> None:
    """Refuses edges for which no sensitivity is stated.

    Raises:
        DataError: a self-loop, an edge given twice, or a node with more than ``max_degree`` edges.
    """
    low, high = edges.min(dim=0).values, edges.max(dim=0).values
    if bool((low == high).any()):
        raise DataError("an edge leads from a node to itself; leave self-loops out, a model adds its own")
    if len(torch.unique(low * nodes + high)) != edges.shape[1]:
        raise DataError("an edge is given more than once, or in both directions; give each once, the smaller node first")
    degrees = torch.bincount(edges.flatten(), minlength=nodes)
    if max_degree is not None and int(degrees.max()) > max_degree:
        raise DataError(
            f"max_degree is {max_degree}, and a node has {int(degrees.max())} edges; leave edges out beforehand by "
            "dptrain.graph.bounded.bounded(edges, nodes, max_degree, generator)"
        )
