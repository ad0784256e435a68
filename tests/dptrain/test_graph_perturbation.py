"""Perturbed graphs have exactly the distribution that their ε is stated for."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2

from dptrain.errors import DataError, PlanError
from dptrain.graph.perturbation import from_cells, laplace, perturbed, randomised_response, to_cells
from dptrain.noise import secret_generator
from dptrain.plan import PrivacyPlan
from dptrain.recipe import EdgeRelease

PLAN = PrivacyPlan(
    unit="edge", relation="zero_out_one", edge_release="randomised_response", sampling_rate=1.0, expected_batch_size=4,
    steps=10, clipping_norm=math.inf, delta=1e-4, noise_multiplier=0.5,
)  # fmt: skip


@given(st.integers(2, 60))
def test_cells_are_the_upper_triangle_row_by_row(nodes: int):
    pairs = np.array(list(itertools.combinations(range(nodes), 2))).T
    assert to_cells(pairs, nodes).tolist() == list(range(nodes * (nodes - 1) // 2))
    assert (from_cells(np.arange(pairs.shape[1]), nodes) == pairs).all()


@pytest.mark.parametrize("ones", [[], [0], [2, 5], [0, 1, 2, 3, 4, 5]])
def test_every_graph_comes_out_with_the_chance_of_one_coin_a_cell(ones: list[int]):
    """All 64 graphs of 4 nodes, against Π p or 1 − p; by χ², wrong one time in ten thousand."""
    epsilon, draws, generator = 1.2, 20_000, secret_generator(insecure_seed=1)
    kept = math.exp(epsilon) / (1 + math.exp(epsilon))
    seen = np.zeros(64)
    for _ in range(draws):
        seen[int(sum(1 << cell for cell in randomised_response(np.array(ones, int), 6, epsilon, generator)))] += 1
    truth = sum(1 << cell for cell in ones)
    turned = np.array([(graph ^ truth).bit_count() for graph in range(64)])
    expected = draws * kept ** (6 - turned) * (1 - kept) ** turned
    assert expected.sum() == pytest.approx(draws)
    assert float(((seen - expected) ** 2 / expected).sum()) < chi2.ppf(1 - 1e-4, 63)


def test_of_many_cells_as_many_are_turned_over_as_a_coin_a_cell_would():
    nodes, epsilon, generator = 400, 3.0, secret_generator(insecure_seed=2)
    cells = nodes * (nodes - 1) // 2
    ones = np.sort(generator.choice(cells, 900, replace=False))
    released = randomised_response(ones, cells, epsilon, generator)
    assert (np.diff(released) > 0).all()
    false, missed = len(np.setdiff1d(released, ones)), len(np.setdiff1d(ones, released))
    turned = 1 / (1 + math.exp(epsilon))
    for count, of in ((false, cells - 900), (missed, 900)):
        assert binom.ppf(1e-5, of, turned) <= count <= binom.ppf(1 - 1e-5, of, turned)


def test_laplace_keeps_about_as_many_edges_as_there_are_and_more_of_the_true_ones_as_epsilon_grows():
    nodes, generator = 200, secret_generator(insecure_seed=3)
    cells = nodes * (nodes - 1) // 2
    ones = np.sort(generator.choice(cells, 500, replace=False))
    kept = []
    for epsilon in (1.0, 4.0, 12.0):
        released = laplace(ones, cells, epsilon, generator)
        assert abs(len(released) - 500) < 12 * 100 / epsilon  # e⁻¹² of its noise lies further out
        assert (np.diff(released) > 0).all()
        kept.append(len(np.intersect1d(ones, released)) / max(len(released), 1))
    assert kept[0] < kept[1] < kept[2]
    assert kept[2] > 0.9


def test_laplace_finds_the_largest_of_all_cells_however_many_it_looks_at_at_once(monkeypatch: pytest.MonkeyPatch):
    """With next to no noise the released edges are the true ones; with much, each part of the cells has its share."""
    cells, ones = 19_900, np.arange(100, 19_900, 40)
    monkeypatch.setattr("dptrain.graph.perturbation.CELLS_AT_ONCE", 1000)
    exact = laplace(ones, cells, 1e4, secret_generator(insecure_seed=5))
    assert exact.tolist() == ones.tolist()
    noise = laplace(np.arange(5000), cells, 1e-9, secret_generator(insecure_seed=6))
    assert len(noise) in (0, cells)  # a number of edges of scale 1e11 is far below 0 or beyond all cells
    drawn = [laplace(np.arange(5000), cells, 0.05, secret_generator(insecure_seed=seed)) for seed in range(40)]
    half = [abs(np.mean(found < cells / 2) - 0.5) for found in drawn if 1000 < len(found) < cells - 1000]
    assert len(half) > 5
    assert max(half) < 0.1


def test_no_outcome_of_laplace_is_likelier_with_an_edge_than_its_epsilon_allows():
    """All 8 graphs of 3 nodes, each with and without one edge, to 5 standard errors; and the edge is told apart somewhere."""
    epsilon, draws, generator = 1.5, 20_000, secret_generator(insecure_seed=4)
    without, with_one = np.zeros(8), np.zeros(8)
    for seen, ones in ((without, []), (with_one, [1])):
        for _ in range(draws):
            seen[int(sum(1 << cell for cell in laplace(np.array(ones, int), 3, epsilon, generator)))] += 1
    for one, other in ((without, with_one), (with_one, without)):
        assert (one <= math.exp(epsilon) * other + 5 * np.sqrt(one + math.exp(2 * epsilon) * other + 1)).all()
    assert with_one[2] > 1.5 * with_one[1]


@pytest.mark.parametrize("release", ["randomised_response", "laplace"])
def test_a_plan_is_released_as_its_noise_says(release: EdgeRelease):
    """ε = 1 / noise_multiplier, exactly; and a plan without noise releases the graph itself."""
    plan = dataclasses.replace(PLAN, edge_release=release)
    assert plan.guarantee().epsilon == 2.0
    assert plan.guarantee(0).epsilon == 0.0
    assert plan.calibrate(epsilon=3.0).noise_multiplier == pytest.approx(1 / 3, rel=2e-4)
    edges = torch.tensor([[1, 0, 2], [3, 2, 3]])
    released = perturbed(edges, 4, plan, secret_generator())
    assert released.dtype == torch.int64
    assert (released[0] < released[1]).all()
    exact = dataclasses.replace(plan, noise_multiplier=0.0)
    assert perturbed(edges, 4, exact, secret_generator()).T.tolist() == [[0, 2], [1, 3], [2, 3]]


def test_released_graphs_are_not_repeated():
    edges = torch.tensor([[0, 0, 1], [1, 2, 2]])
    graphs = {str(perturbed(edges, 30, PLAN, secret_generator()).tolist()) for _ in range(3)}
    assert len(graphs) == 3


@pytest.mark.parametrize(("edges", "said"), [([[0, 1], [1, 0]], "more than once"), ([[2], [2]], "to itself")])
def test_an_edge_that_stands_in_more_than_one_cell_is_refused(edges: list[list[int]], said: str):
    with pytest.raises(DataError, match=said):
        perturbed(torch.tensor(edges), 4, PLAN, secret_generator())


def test_either_order_of_an_edges_nodes_is_the_same_edge():
    exact = dataclasses.replace(PLAN, noise_multiplier=0.0)
    assert perturbed(torch.tensor([[3, 0], [1, 2]]), 4, exact, secret_generator()).T.tolist() == [[0, 2], [1, 3]]


def test_a_plan_that_releases_no_graph_is_refused():
    plan = dataclasses.replace(PLAN, edge_release="none", aggregations=1)
    with pytest.raises(PlanError, match="'randomised_response' or 'laplace'"):
        perturbed(torch.tensor([[0], [1]]), 2, plan, secret_generator())
