"""Pairs of nodes are each counted once, and their figures have intervals that hold."""

import numpy as np
import pytest
from scipy.spatial import distance
from scipy.stats import norm

from evaluation.graph import pairs as pairs_module
from evaluation.graph.distances import DISTANCES
from evaluation.graph.figures import Contrast, dealt, precision_at_density
from evaluation.graph.pairs import Coverage, Table, keys
from evaluation.metrics import area_under_roc

NODES = 30


def covered(asked: int, answered: int = NODES) -> Coverage:
    """The first nodes are asked about, of those that answer."""
    numbers = np.arange(NODES)
    return Coverage(numbers < asked, numbers < answered)


@pytest.mark.parametrize("name", DISTANCES)
def test_each_distance_is_scipys(name: str):
    first, second = np.random.default_rng(0).dirichlet(np.ones(5), (2, 40))
    expected = [getattr(distance, name)(one, other) for one, other in zip(first, second, strict=True)]
    assert DISTANCES[name](first, second) == pytest.approx(expected)


@pytest.mark.parametrize("name", DISTANCES)
def test_each_distance_is_finite_where_nothing_varies(name: str):
    flat = np.zeros((3, 4))
    assert np.isfinite(DISTANCES[name](flat, flat)).all()


@pytest.mark.parametrize(("asked", "answered"), [(NODES, NODES), (7, NODES), (12, 12), (5, 20)])
def test_blocks_hold_every_pair_once(asked: int, answered: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pairs_module, "AT_ONCE", 40)
    coverage = covered(asked, answered)
    found = np.concatenate(
        [np.stack([rows[at], columns[to]], 1) for rows, columns, counts in coverage.blocks() for at, to in [counts.nonzero()]]
    )
    assert len(found) == coverage.count == len(np.unique(keys(found, NODES)))
    assert coverage.holds(found).all()
    every = np.stack(np.triu_indices(NODES, 1), 1)
    assert coverage.holds(every).sum() == coverage.count


def test_pairs_are_drawn_uniformly_and_never_an_edge(monkeypatch: pytest.MonkeyPatch):
    """Of nodes that were both asked about a pair comes up in two orders, and must not be drawn twice as often."""
    monkeypatch.setattr(pairs_module, "FEW", 0)
    coverage, generator, edges = covered(10), np.random.default_rng(0), np.array([[0, 1], [2, 29]])
    drawn = np.concatenate([coverage.draw(20, edges, generator) for _ in range(2000)])
    counts = np.bincount(keys(drawn, NODES), minlength=NODES**2)
    assert counts[keys(edges, NODES)].sum() == 0
    both = (drawn < 10).all(1)
    expected = (10 * 9 / 2 - 1) / (coverage.count - 2)
    assert both.mean() == pytest.approx(expected, abs=0.01)


def test_no_more_pairs_are_drawn_than_there_are():
    edges = np.stack(np.triu_indices(NODES, 1), 1)[:-3]
    assert len(covered(NODES).draw(100, edges, np.random.default_rng(0))) == 3


def test_a_table_takes_the_mean_of_both_directions_where_there_are_two():
    scores = np.arange(2.0 * NODES).reshape(2, NODES)
    table = Table(covered(2), scores)
    found = table.of(np.array([[0, 1], [1, 0], [0, 9], [9, 0], [5, 1]]))
    assert found.tolist() == [(1 + NODES) / 2, (1 + NODES) / 2, 9.0, 9.0, NODES + 5.0]


def table_of(generator: np.random.Generator, levels: int) -> Table:
    scores = generator.integers(0, levels, (NODES, NODES)).astype(float)
    return Table(covered(NODES), scores + scores.T)


def test_precision_is_that_of_the_first_pairs_of_a_full_ranking(monkeypatch: pytest.MonkeyPatch):
    generator = np.random.default_rng(1)
    table, every = table_of(generator, 10**9), np.stack(np.triu_indices(NODES, 1), 1)
    chosen = generator.permutation(len(every))
    edges, without = every[chosen[:40]], every[chosen[40:50]]
    ranked = every[np.sort(chosen[~np.isin(chosen, chosen[40:50])])]
    best = ranked[np.argsort(-table.of(ranked))[:40]]
    expected = np.isin(keys(best, NODES), keys(edges, NODES)).mean()
    for at_once in (50, 10**6):
        monkeypatch.setattr(pairs_module, "AT_ONCE", at_once)
        found = precision_at_density(
            table, edges, without, dealt(NODES, np.random.default_rng(0), 10), np.random.default_rng(0)
        )
        assert found.value == pytest.approx(expected)


def test_ties_are_broken_at_random_so_that_equal_scores_have_the_precision_of_chance(monkeypatch: pytest.MonkeyPatch):
    """Edges come first in every order that a sort would keep."""
    monkeypatch.setattr(pairs_module, "AT_ONCE", 100)
    flat, every = Table(covered(NODES), np.zeros((NODES, NODES))), np.stack(np.triu_indices(NODES, 1), 1)
    group, nothing = dealt(NODES, np.random.default_rng(0)), np.empty((0, 2), dtype=np.int64)
    found = [
        precision_at_density(flat, every[:60], nothing, group, np.random.default_rng(seed)).value or 0.0 for seed in range(60)
    ]
    assert np.mean(found) == pytest.approx(60 / len(every), abs=0.02)


def drawn_contrast(seed: int, effect: float, nodes: int = 150) -> tuple[Contrast, np.ndarray]:
    """Scores gap · linked + effect of either node + noise: the AUC over graphs is Φ(gap/√(2(2 effect² + 1)))."""
    generator = np.random.default_rng(seed)
    every = np.stack(np.triu_indices(nodes, 1), 1)
    rate = generator.beta(1, 4, nodes)
    linked = generator.random(len(every)) < rate[every].prod(1)
    others = every[~linked][generator.permutation(int((~linked).sum()))[: int(linked.sum())]]
    contrast = Contrast.of(every[linked], others, dealt(nodes, generator))
    of_node = effect * generator.normal(size=nodes)
    return contrast, contrast.positive + of_node[contrast.pairs].sum(1) + generator.normal(size=len(contrast.pairs))


@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_the_interval_of_an_area_covers_it_where_pairs_share_nodes(effect: float):
    truth, held, plain = norm.cdf(1 / np.sqrt(2 * (2 * effect**2 + 1))), 0, 0
    for seed in range(100):
        contrast, scores = drawn_contrast(seed, effect)
        found, over_pairs = contrast.area(scores, "auc"), area_under_roc(scores, contrast.positive)
        held += (found.low or 0.0) <= truth <= (found.high or 1.0)
        plain += (over_pairs.low or 0.0) <= truth <= (over_pairs.high or 1.0)
    assert held >= 90
    if effect:
        assert plain <= 85, "an interval over pairs would do as well, and nodes need not be left out"


def test_the_interval_of_a_difference_covers_none():
    """Two scores of the same quality, whose nodes err together."""
    held = 0
    for seed in range(60):
        contrast, scores = drawn_contrast(seed, 1.0)
        noise = np.random.default_rng([seed, 1]).normal(size=(2, len(scores)))
        found = contrast.difference(scores + noise[0], scores + noise[1], "difference")
        held += (found.low or 0.0) <= 0 <= (found.high or 0.0)
    assert held >= 54


def test_an_area_of_one_still_has_an_interval():
    contrast, _ = drawn_contrast(0, 0.0)
    found = contrast.area(contrast.positive.astype(float), "auc")
    assert found.value == 1.0
    assert found.low is not None
    assert 0.9 < found.low < 1.0


def test_too_few_pairs_are_not_measured():
    every = np.stack(np.triu_indices(NODES, 1), 1)
    contrast = Contrast.of(every[:5], every[5:100], dealt(NODES, np.random.default_rng(0)))
    found = contrast.area(np.arange(100.0), "auc")
    assert found.value is None
    assert "fewer than 10" in found.note
