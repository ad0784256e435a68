"""Sums over neighbours: no node and no edge can move them by more than the noise is made for."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dptrain.errors import DataError, PlanError
from dptrain.graph.aggregation import at_most_unit, noised_sums, sensitivity, sums, unit
from dptrain.noise import secret_generator
from dptrain.plan import PrivacyPlan

NODE = PrivacyPlan(
    unit="node", relation="zero_out_one", max_degree=4, aggregations=2, aggregation_noise=1.5, sampling_rate=0.5,
    expected_batch_size=100, steps=10, clipping_norm=1.0, delta=1e-4, noise_multiplier=2.0,
)  # fmt: skip
EDGE = PrivacyPlan(
    unit="edge", relation="zero_out_one", aggregations=1, sampling_rate=1.0, expected_batch_size=200, steps=10,
    clipping_norm=math.inf, delta=1e-4, noise_multiplier=2.0,
)  # fmt: skip


def random_graph(seed: int, nodes: int, max_degree: int) -> Tensor:
    """Edges of a graph with at most ``max_degree`` a node, and often with exactly as many."""
    chance = np.random.default_rng(seed)
    degrees, kept = np.zeros(nodes, int), list[tuple[int, int]]()
    for first, second in chance.permutation([(u, v) for u in range(nodes) for v in range(u + 1, nodes)]):
        if max(degrees[first], degrees[second]) < max_degree:
            degrees[[first, second]] += 1
            kept.append((int(first), int(second)))
    return torch.tensor(sorted(kept)).T


def random_rows(seed: int, nodes: int, alike: bool) -> Tensor:
    """Rows of length at most 1; where they are alike, sums are as long as they can be."""
    chance = torch.Generator().manual_seed(seed)
    rows = torch.randn(1 if alike else nodes, 3, generator=chance, dtype=torch.float64)
    return at_most_unit(3 * rows).expand(nodes, 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 5), st.booleans())
def test_one_edge_moves_a_hops_sums_by_at_most_its_sensitivity(seed: int, nodes: int, most: int, alike: bool):
    """Group privacy of an edge: √2 under its own plan, and no more under one for nodes, whose noise is for √(2 D)."""
    edges, rows = random_graph(seed, nodes, most), random_rows(seed, nodes, alike)
    one = seed % edges.shape[1]
    fewer = torch.cat([edges[:, :one], edges[:, one + 1 :]], dim=1)
    assert (sums(rows, edges) - sums(rows, fewer)).norm() <= sensitivity(EDGE) + 1e-9
    assert (sums(rows, edges, most) - sums(rows, fewer, most)).norm() <= math.sqrt(2) + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 5), st.booleans())
def test_one_node_and_its_neighbourhood_move_a_hops_sums_by_at_most_their_sensitivity(
    seed: int, nodes: int, most: int, alike: bool
):
    """Group privacy of a node: its features and all its edges, its own row and its neighbours', in the first hop and later."""
    edges, rows = random_graph(seed, nodes, most), random_rows(seed, nodes, alike)
    node = seed % nodes
    fewer, blank = edges[:, (edges != node).all(dim=0)], rows.clone()
    blank[node] = 0
    bound = sensitivity(dataclasses.replace(NODE, max_degree=most)) + 1e-9
    first_hop = sums(rows, edges, most) - sums(blank, fewer, most)
    later_hop = sums(rows, edges, most) - sums(rows, fewer, most)
    assert first_hop.norm() <= bound
    assert later_hop.norm() <= bound


def test_the_sensitivities_are_reached():
    """A star whose rows are alike, and one edge: nothing smaller would do."""
    star = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4]])
    alike, nothing = torch.tensor([[1.0, 0.0]]).double().expand(5, 2), torch.empty(2, 0, dtype=torch.int64)
    moved = sums(alike, star, 4) - sums(alike, nothing, 4)
    assert float(moved.norm()) == pytest.approx(sensitivity(NODE), abs=1e-12)
    assert float(sums(alike, star[:, :1]).norm()) == pytest.approx(sensitivity(EDGE), abs=1e-12)


def test_without_the_projection_a_nodes_own_row_would_move_too_far():
    star = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4]])
    alike = torch.tensor([[1.0, 0.0]]).double().expand(5, 2)
    assert float(sums(alike, star).norm()) > sensitivity(NODE) + 1


@pytest.mark.parametrize("plan", [NODE, EDGE])
def test_the_noise_has_the_deviation_that_is_counted(plan: PrivacyPlan):
    """Of a graph without edges nothing but noise is released: σ_a Δ, with σ_a = aggregation_noise · noise_multiplier."""
    nothing = torch.empty(2, 0, dtype=torch.int64)
    table = noised_sums(torch.zeros(300, 200), nothing, plan, secret_generator(insecure_seed=3))
    assert table.shape == (300, plan.aggregations, 200)
    deviation = plan.aggregation_noise * plan.noise_multiplier * sensitivity(plan)
    for hop in range(plan.aggregations):
        assert float(table[:, hop].std()) == pytest.approx(deviation, rel=0.012)  # 60,000 variates: 4 standard errors
        assert abs(float(table[:, hop].mean())) < 4 * deviation / math.sqrt(60_000)


def test_hops_have_noise_of_their_own_and_each_table_another():
    nothing, rows = torch.empty(2, 0, dtype=torch.int64), torch.zeros(200, 50)
    first, second = (noised_sums(rows, nothing, NODE, secret_generator()) for _ in range(2))
    for one, other in ((first[:, 0], first[:, 1]), (first[:, 0], second[:, 0])):
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.05


def test_a_later_hop_reads_nothing_but_what_was_released():
    """Sums of the released rows, scaled to length 1: of the same noise, the second hop is a function of the first."""
    edges = random_graph(1, 30, 4)
    quiet = dataclasses.replace(NODE, noise_multiplier=0.0)
    table = noised_sums(torch.randn(30, 5, dtype=torch.float64), edges, quiet, secret_generator())
    torch.testing.assert_close(table[:, 1], sums(unit(table[:, 0]), edges, 4))
    noised = noised_sums(torch.randn(30, 20, dtype=torch.float64), edges, NODE, secret_generator())
    exact = sums(unit(noised[:, 0]), edges, 4)
    left = (noised[:, 1] - exact).norm() / math.sqrt(600) / (3.0 * sensitivity(NODE))  # 600 variates: 8 standard errors
    assert 0.75 < float(left) < 1.25


def test_without_noise_sums_are_those_of_neighbours_and_large_features_count_no_more_than_small_ones():
    edges = torch.tensor([[0, 0], [1, 2]])
    features = torch.tensor([[30.0, 40.0], [0.3, 0.0], [float("nan"), 0.0]])
    table = noised_sums(features, edges, dataclasses.replace(EDGE, noise_multiplier=0.0), secret_generator())
    torch.testing.assert_close(table[:, 0], torch.tensor([[0.3, 0.0], [0.6, 0.8], [0.6, 0.8]]))
    assert table.dtype == torch.float32


@pytest.mark.parametrize(
    ("edges", "plan", "error", "said"),
    [
        ([[0, 0, 0, 0, 0], [1, 2, 3, 4, 5]], NODE, DataError, "max_degree is 4, and a node has 5 edges"),
        ([[0, 1], [1, 0]], EDGE, DataError, "in both directions"),
        ([[1], [1]], EDGE, DataError, "to itself"),
        ([[0], [1]], dataclasses.replace(EDGE, aggregations=0, noise_multiplier=0.0), PlanError, "number of hops"),
    ],
)
def test_what_would_move_sums_further_is_refused(edges: list[list[int]], plan: PrivacyPlan, error: type, said: str):
    with pytest.raises(error, match=said):
        noised_sums(torch.ones(6, 2), torch.tensor(edges), plan, secret_generator())
