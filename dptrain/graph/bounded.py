"""A graph with at most so many edges a node: what a promise to one node needs before anything is summed.

    edges = bounded(graph.edges, nodes, plan.max_degree, secret_generator())

Edges are taken in a random order, each one if neither of its nodes has D already: a random subset to which no edge could be
added. A graph in which no node has more than D stays as it is.

**ε does not cover the choice.** Where a node is blanked all its edges go, and each makes room for an edge of a neighbour that
was full; that one takes the place of another at its other end, and so on. Such a chain changes the degrees of its ends alone,
which bounds what becomes of a degree histogram (Day, Li, Lyu 2016, "Publishing Graph Degree Distribution with Node
Differential Privacy"); but nothing bounds how many nodes it passes, whose neighbours are then others. To leave out every node
of a high degree is no better, as one node can decide about all its neighbours (Kasiviswanathan, Nissim, Raskhodnikova, Smith
2013, "Analyzing Graphs with Node Differential Privacy"). The promise is for the graph that remained: to a node, its features
and label and the edges that it has there.
"""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from dptrain.errors import DataError


def bounded(
    edges: Int[Tensor, "2 edges"], nodes: int, max_degree: int, generator: np.random.Generator
) -> Int[Tensor, "2 kept"]:
    """The edges that remain, in the order in which they are given.

    Args:
        edges: undirected, each once, without self-loops.
        max_degree: D, at least 1.

    Raises:
        DataError: no edge could remain.
    """
    if max_degree < 1:
        raise DataError(f"max_degree is {max_degree}, so no edge could remain; give a whole number from 1 up")
    pairs = edges.numpy(force=True)
    crowded = np.bincount(pairs.ravel(), minlength=nodes) > max_degree
    contested = np.flatnonzero(crowded[pairs].any(axis=0))  # of all other edges no node can ever be full
    kept = np.ones(pairs.shape[1], dtype=bool)
    room = np.where(crowded, max_degree, nodes)
    for edge in generator.permutation(contested):
        first, second = pairs[:, edge]
        kept[edge] = room[first] > 0 and room[second] > 0
        room[first] -= kept[edge]
        room[second] -= kept[edge]
    return edges[:, torch.from_numpy(kept).to(edges.device)]
