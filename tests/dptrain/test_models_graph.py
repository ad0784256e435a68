"""Models of nodes: what each reads of the graph, and what its state holds of it."""

import copy
from typing import Any

import pytest
import torch

from dptrain import models
from dptrain.checks import released
from dptrain.data.dataset import DataSet
from dptrain.data.graph import Graph, undirected
from dptrain.errors import ConfigError, UserError
from dptrain.graph.encoder import Encoder
from dptrain.models.gap import NoisedSums
from dptrain.models.on_graph import OnGraph
from dptrain.recipe import ModelConfig, RegularizationConfig

NODES, FEATURES, CLASSES = 12, 5, ("a", "b", "c")


def small(seed: int = 0) -> DataSet:
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(NODES, FEATURES, generator=generator)
    edges = undirected(torch.randint(0, NODES, (2, 20), generator=generator))
    graph = Graph(features / features.norm(dim=1, keepdim=True), edges, torch.zeros(2, 0, dtype=torch.int64))
    return DataSet(
        name="small",
        inputs=torch.arange(NODES)[:, None],
        targets=torch.randint(0, 3, (NODES,), generator=generator),
        classes=CLASSES,
        bounds=(0.0, NODES - 1.0),
        kind="graph",
        graph=graph,
    )


def graph_of(data: DataSet) -> Graph:
    assert data.graph is not None
    return data.graph


def built(data: DataSet, name: str, **more: Any) -> Any:
    torch.manual_seed(0)
    model: Any = models.build_for(ModelConfig(name=name, hidden=(4,), **more), data, RegularizationConfig()).eval()
    if name == "gap":
        model.front.release(torch.rand(NODES, 1, model.front.sums.shape[2]))
    return model


def without_edge(graph: Graph, number: int) -> Graph:
    kept = torch.arange(graph.edges.shape[1]) != number
    return Graph(graph.features, graph.edges[:, kept], graph.held_out)


ALL = ("gcn", "sage", "gap", "stars", "mlp", "linear")


@pytest.mark.parametrize("name", ALL)
def test_a_model_answers_about_numbers_of_nodes_in_any_order(name: str):
    data = small()
    model = built(data, name)
    assert isinstance(model, OnGraph)
    model = built(data, name)
    whole = model(data.inputs)
    assert whole.shape == (NODES, 3)
    assert torch.allclose(model(data.inputs[[7, 2]]), whole[[7, 2]], atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_features_that_are_given_answer_as_the_graphs_own(name: str):
    data = small()
    model = built(data, name)
    assert torch.allclose(model.answers(graph_of(data).features), model(data.inputs), atol=1e-6)


@pytest.mark.parametrize(("name", "reads"), [("gcn", True), ("sage", True), ("stars", True), ("gap", False), ("mlp", False)])
def test_an_edge_changes_the_answers_of_those_that_read_exact_edges_alone(name: str, reads: bool):
    data = small()
    model = built(data, name)
    before = model(data.inputs)
    model.bind(without_edge(graph_of(data), 3))
    assert torch.equal(model(data.inputs), before) is not reads


@pytest.mark.parametrize("name", ["gcn", "sage", "stars"])
def test_what_a_release_holds_says_nothing_of_features_and_exact_edges(name: str):
    data = small()
    sizes = {tuple(value.shape) for value in released(built(data, name)).values() if value.numel()}
    assert not any(NODES in shape for shape in sizes)
    assert tuple(graph_of(data).edges.shape) not in sizes


@pytest.mark.parametrize("name", ["gcn", "sage"])
def test_a_dense_adjacency_gives_the_same_logits_as_the_edges(name: str):
    data = small()
    graph, model = graph_of(data), built(data, name)
    adjacency = torch.zeros(NODES, NODES)
    adjacency[graph.both_ways[0], graph.both_ways[1]] = 1.0
    assert torch.allclose(model.on_adjacency(graph.features, adjacency), model(data.inputs), atol=1e-5)


@pytest.mark.parametrize("name", ["gcn", "sage"])
def test_logits_over_a_dense_adjacency_can_be_differentiated(name: str):
    data = small()
    adjacency = torch.full((NODES, NODES), 0.1, requires_grad=True)
    built(data, name).on_adjacency(graph_of(data).features, adjacency).sum().backward()
    assert adjacency.grad is not None
    assert bool((adjacency.grad != 0).any())


def test_a_graph_convolution_is_the_one_that_was_published():
    """Of two nodes with an edge, each node's row of Â is (1/2, 1/2) (Kipf and Welling 2017)."""
    data = small()
    pair = Graph(torch.eye(NODES, FEATURES), torch.tensor([[0], [1]]), torch.zeros(2, 0, dtype=torch.int64))
    model = built(data, "gcn")
    model.bind(pair)
    first = model.layers[0]
    both = (first.lin(pair.features[:2]).mean(0) + first.bias).tanh()
    assert torch.allclose(model.embeddings(data.inputs[:2]), both.expand(2, -1), atol=1e-6)


def test_an_edge_that_was_released_takes_the_place_of_the_exact_ones_and_is_part_of_the_state():
    data = small()
    model = built(data, "gcn")
    exact = model(data.inputs)
    model.release(torch.tensor([[0, 2], [5, 3]]))
    over_released = model(data.inputs)
    assert not torch.equal(over_released, exact)
    again = built(data, "gcn")
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(data.inputs), over_released)


def test_where_no_edge_was_released_none_is_read():
    data = small()
    model = built(data, "gcn")
    model.release(torch.zeros(2, 0, dtype=torch.int64))
    nobody = Graph(graph_of(data).features, torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.int64))
    alone = built(data, "gcn")
    alone.bind(nobody)
    assert torch.equal(model(data.inputs), alone(data.inputs))


@pytest.mark.parametrize("name", ALL)
def test_embeddings_are_what_the_last_layer_is_given(name: str):
    data = small()
    model = built(data, name)
    found = model.embeddings(data.inputs[[3, 8]])
    assert len(found) == 2
    if name in ("gap", "stars", "mlp", "linear"):
        last = [module for module in model.head.modules() if isinstance(module, torch.nn.Linear)][-1]
        assert torch.allclose(last(found), model(data.inputs[[3, 8]]), atol=1e-6)


def test_a_star_is_the_mean_of_a_node_and_its_neighbours():
    data = small()
    graph = graph_of(data)
    neighbours = graph.both_ways[1][graph.both_ways[0] == 4]
    mean = torch.cat([graph.features[[4]], graph.features[neighbours]]).mean(0)
    assert torch.allclose(built(data, "stars").front(torch.tensor([[4]]))[0, 0], mean, atol=1e-6)


def test_sums_are_given_to_the_head_over_the_root_mean_square_of_their_lengths():
    data = small()
    model = built(data, "gap")
    front: NoisedSums = model.front
    given = front(data.inputs)
    assert torch.allclose(given[:, 3:].square().sum(1).mean(), torch.tensor(1.0), atol=1e-5)
    assert torch.allclose(given[:, :3].sum(1), torch.ones(NODES), atol=1e-5)


def test_a_projection_leaves_own_features_as_they_are_and_is_no_longer_than_one():
    data = small()
    model: Any = models.build_for(ModelConfig(name="gap", hidden=(), encoder="projection"), data, RegularizationConfig())
    model.front.release(torch.rand(NODES, 1, 32))
    assert torch.equal(model.front(data.inputs)[:, :FEATURES], graph_of(data).features)
    assert float(model.front.encoder(graph_of(data).features * 100).norm(dim=1).max()) <= 1 + 1e-6


def test_sums_that_were_not_made_are_not_answered_from():
    data = small()
    model: Any = models.build_for(ModelConfig(name="gap", hidden=()), data, RegularizationConfig())
    with pytest.raises(RuntimeError, match="not made yet"):
        model(data.inputs)


def test_a_released_model_of_sums_takes_their_shape_from_what_is_loaded():
    data = small()
    model = built(data, "gap")
    again: Any = models.build(ModelConfig(name="gap", hidden=(4,)), (FEATURES,), 3, RegularizationConfig(), "nodes").eval()
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    again.bind(graph_of(data))
    assert torch.equal(again(data.inputs), model(data.inputs))


def test_a_model_that_is_bound_to_no_graph_says_what_to_do():
    model: Any = models.build(ModelConfig(name="gcn", hidden=(4,)), (FEATURES,), 3, RegularizationConfig(), "nodes")
    with pytest.raises(UserError, match=r"model\.bind\(data\.graph\)"):
        model(torch.tensor([[0]]))


def test_a_graph_of_other_features_or_other_nodes_is_refused():
    data, model = small(), built(small(), "gap")
    wider = Graph(torch.eye(NODES), graph_of(data).edges, graph_of(data).held_out)
    with pytest.raises(ConfigError, match="5 features and the graph's have 12"):
        model.bind(wider)
    fewer = Graph(torch.rand(3, FEATURES), torch.tensor([[0], [1]]), torch.zeros(2, 0, dtype=torch.int64))
    with pytest.raises(ConfigError, match="12 nodes and the graph has 3"):
        model.bind(fewer)


@pytest.mark.parametrize("name", ["gcn", "sage", "gap", "stars"])
def test_a_model_of_nodes_is_refused_for_other_examples(name: str):
    with pytest.raises(ConfigError, match="give the data set cora or graph"):
        models.build(ModelConfig(name=name, hidden=(4,)), (8,), 3, RegularizationConfig())


def test_the_encoder_learns_the_same_from_the_same_seed():
    told = torch.arange(30) % 3
    features, found = torch.eye(3)[told], []
    for _ in range(2):
        encoder = Encoder(3, 64, 3)
        encoder.learn(features, told, 3)
        found.append(encoder(features))
    assert torch.equal(found[0], found[1])
    assert float(found[0].norm(dim=1).max()) <= 1.0
    assert torch.equal(found[0].argmax(1), told)
