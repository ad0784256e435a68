"""A bounded degree: never exceeded, never cut further than it must be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dptrain.errors import DataError
from dptrain.graph.bounded import bounded


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 6), st.floats(0, 1))
def test_no_node_has_more_and_no_edge_could_be_added(seed: int, nodes: int, most: int, density: float):
    chance = np.random.default_rng(seed)
    pairs = np.array([(u, v) for u in range(nodes) for v in range(u + 1, nodes) if chance.random() < density], dtype=np.int64)
    edges = torch.from_numpy(pairs.reshape(-1, 2).T.copy())
    kept = bounded(edges, nodes, most, chance)
    degrees = torch.bincount(kept.flatten(), minlength=nodes)
    assert int(degrees.max()) <= most
    remaining = {tuple(edge) for edge in kept.T.tolist()}
    assert remaining <= {tuple(edge) for edge in edges.T.tolist()}
    for first, second in edges.T.tolist():
        assert (first, second) in remaining or degrees[first] == most or degrees[second] == most


def test_a_graph_within_the_bound_stays_as_it_is():
    edges = torch.tensor([[0, 0, 1], [1, 2, 2]])
    assert torch.equal(bounded(edges, 4, 2, np.random.default_rng(0)), edges)


def test_which_edges_remain_is_drawn():
    """Of a star of four with room for one, each edge remains one time in four: a χ² of 3 degrees beyond 16.3 has p < 0.001."""
    star, chance = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4]]), np.random.default_rng(5)
    counts = np.bincount([int(bounded(star, 5, 1, chance)[1]) for _ in range(2000)], minlength=5)[1:]
    assert float(((counts - 500) ** 2 / 500).sum()) < 16.3


def test_one_blanked_node_can_change_the_neighbours_of_many_others():
    """Why ε does not cover the choice: along a path with room for one edge a node, every other edge takes the place of one."""
    path = torch.tensor([list(range(9)), list(range(1, 10))])

    class InOrder:
        def permutation(self, edges: np.ndarray) -> np.ndarray:
            return edges

    whole = bounded(path, 10, 1, InOrder())  # type: ignore[arg-type]
    blanked = bounded(path[:, 1:], 10, 1, InOrder())  # type: ignore[arg-type]
    assert whole.T.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert blanked.T.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]


def test_a_bound_of_nothing_is_refused():
    with pytest.raises(DataError, match="from 1 up"):
        bounded(torch.tensor([[0], [1]]), 2, 0, np.random.default_rng(0))
