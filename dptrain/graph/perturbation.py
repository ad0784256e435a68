"""A whole graph, perturbed once, so that its single edges are hidden from whoever reads it from then on.

    edges = perturbed(graph.edges, nodes, plan, secret_generator())

Baselines of edge privacy (Wu, Long, Zhang, Li 2022, "LinkTeller: Recovering Private Edges from Graph Neural Networks via
Influence Analysis"). A graph of n nodes is n (n−1)/2 cells, 1 where there is an edge; blanking an edge makes one cell 0. Both
ways are (ε, 0)-private to it, with ε = 1 / noise_multiplier of the plan.

* **Randomised response** (EdgeRand; Warner 1965): each cell is kept with probability e^ε/(1 + e^ε), else turned over. One cell
  that differs has outcomes whose chances have a ratio of e^ε. As nearly all cells are 0, false edges soon outnumber true ones:
  of Cora's 3,665,278 cells 0.27 at ε = 1. Their number is drawn first, binomially, and then where they are: the same
  distribution as one coin a cell.
* **Laplace** (LapGraph): the number of edges with noise of scale 1/ε₁, and of all cells with noise of scale 1/ε₂ that many
  largest, ε₁ = ε/100 and ε₂ = ε − ε₁. One edge changes the number by 1 and one cell by 1, and the two add up to ε (basic
  composition; the rest is computed from what these release).

Both read cells in real arithmetic: rounding in floating point is not part of the proof (Mironov 2012).
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import expit
from torch import Tensor

from dptrain.errors import PlanError
from dptrain.graph.aggregation import check_edges

if TYPE_CHECKING:
    from dptrain.plan import PrivacyPlan

CELLS_AT_ONCE = 1 << 22
"""Of ``laplace``, whose time grows with all cells, and its memory with those that it releases."""
SHARE_OF_COUNT = 0.01
"""ε₁/ε of ``laplace``, as in LinkTeller."""


def perturbed(
    edges: Int[Tensor, "2 edges"], nodes: int, plan: "PrivacyPlan", generator: np.random.Generator
) -> Int[Tensor, "2 released"]:
    """The graph as the plan releases it; as it is, where the plan promises nothing.

    Args:
        edges: undirected, each once, without self-loops.
        generator: a secret one, which nobody else draws from (:func:`dptrain.noise.secret_generator`).

    Returns:
        Edges, smaller node first, sorted.

    Raises:
        PlanError: a plan that releases no graph.
        DataError: a self-loop, or an edge given twice.
    """
    if plan.edge_release == "none":
        raise PlanError("edge_release is 'none', so no graph is released; give 'randomised_response' or 'laplace'")
    check_edges(edges, nodes)
    cells = np.sort(to_cells(np.sort(edges.numpy(force=True), axis=0), nodes))
    if plan.is_private:
        release = randomised_response if plan.edge_release == "randomised_response" else laplace
        cells = release(cells, nodes * (nodes - 1) // 2, 1 / plan.noise_multiplier, generator)
    return torch.from_numpy(from_cells(cells, nodes)).to(edges.device)


def randomised_response(
    ones: Int[np.ndarray, " edges"], cells: int, epsilon: float, generator: np.random.Generator
) -> Int[np.ndarray, " released"]:
    """Cells that hold 1 after each was turned over with probability 1/(1 + e^ε), sorted; ``ones`` are those before, sorted."""
    turned = float(expit(-epsilon))
    kept = ones[generator.random(len(ones)) >= turned]
    zeros = cells - len(ones)
    places = generator.choice(zeros, generator.binomial(zeros, turned), replace=False, shuffle=False)
    before = np.searchsorted(ones - np.arange(len(ones)), places, side="right")  # ones that lie before the k-th zero
    return np.sort(np.concatenate([kept, places + before]))


def laplace(
    ones: Int[np.ndarray, " edges"], cells: int, epsilon: float, generator: np.random.Generator
) -> Int[np.ndarray, " released"]:
    """The cells with the largest noised values, as many as there are edges with noise, sorted."""
    count = round(len(ones) + generator.laplace(scale=1 / (SHARE_OF_COUNT * epsilon)))
    count = min(max(count, 0), cells)
    if count == 0:
        return np.empty(0, np.int64)
    scale = 1 / ((1 - SHARE_OF_COUNT) * epsilon)
    largest, found = np.empty(0), np.empty(0, np.int64)
    for start in range(0, cells, CELLS_AT_ONCE):
        end = min(start + CELLS_AT_ONCE, cells)
        values: Float[np.ndarray, " cells"] = generator.laplace(scale=scale, size=end - start)
        values[ones[slice(*np.searchsorted(ones, (start, end)))] - start] += 1
        largest, found = np.append(largest, values), np.append(found, np.arange(start, end))
        if len(found) > count:
            kept = np.argpartition(largest, len(found) - count)[len(found) - count :]
            largest, found = largest[kept], found[kept]
    return np.sort(found)


def to_cells(pairs: Int[np.ndarray, "2 edges"], nodes: int) -> Int[np.ndarray, " edges"]:
    """The number of each edge's cell, row by row of the upper triangle."""
    first, second = pairs
    return _row_starts(nodes)[first] + second - first - 1


def from_cells(cells: Int[np.ndarray, " edges"], nodes: int) -> Int[np.ndarray, "2 edges"]:
    """The edges of cells, smaller node first."""
    starts = _row_starts(nodes)
    first = np.searchsorted(starts, cells, side="right") - 1
    return np.stack([first, cells - starts[first] + first + 1])


def _row_starts(nodes: int) -> Int[np.ndarray, " rows"]:
    """The number of each row's first cell. The last row has none."""
    first = np.arange(nodes - 1)
    return first * nodes - first * (first + 1) // 2
