"""Graphs whose nodes are the examples: what is read, what is left out, what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dptrain.data import load
from dptrain.data.dataset import DataSet
from dptrain.data.graph import Graph, coins, undirected
from dptrain.data.split import split_of
from dptrain.errors import ConfigError, DataError
from dptrain.recipe import DataConfig, SplitConfig

CLASSES = ("a", "b")


def written(folder: Path, **changed: object) -> str:
    """A graph of four nodes and three edges, one of them given both ways, beside a loop."""
    content: dict[str, object] = {
        "x": np.array([[1, 0, 0], [0, 2, 0], [0, 3, 4], [0, 0, 0]]),
        "y": np.array([0, 1, 1, 0]),
        "edge_index": np.array([[0, 1, 2, 3, 2], [1, 0, 1, 2, 2]]),
    }
    content |= changed
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in content.items() if value is not None}
    np.savez(folder / "graph.npz", **arrays)
    return str(folder / "graph.npz")


def read(path: str, **more: object) -> DataSet:
    return load(DataConfig(name="graph", path=path, classes=CLASSES, **more))  # pyright: ignore[reportArgumentType]


def graph_of(data: DataSet) -> Graph:
    assert data.graph is not None
    return data.graph


def test_every_edge_counts_once_and_a_loop_not_at_all(tmp_path: Path):
    assert graph_of(read(written(tmp_path))).edges.tolist() == [[0, 1, 2], [1, 2, 3]]


def test_every_row_of_features_is_scaled_by_itself(tmp_path: Path):
    features = graph_of(read(written(tmp_path))).features
    assert torch.allclose(features, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0.6, 0.8], [0, 0, 0]]))


def test_an_example_is_the_number_of_its_node(tmp_path: Path):
    assert read(written(tmp_path)).inputs.tolist() == [[0], [1], [2], [3]]


def test_nodes_of_the_published_parts_come_first_and_last_with_their_edges(tmp_path: Path):
    masks = {"train_mask": [0, 0, 0, 1], "val_mask": [0, 1, 0, 0], "test_mask": [1, 0, 0, 0]}
    data = read(written(tmp_path, **masks))
    assert data.targets.tolist() == [0, 1, 1, 0]  # of the nodes 3, 1, 2 and 0 of the file
    assert graph_of(data).edges.tolist() == [[0, 1, 1], [2, 2, 3]]
    assert (data.published_members, data.published_validation, data.published_test) == (1, 1, 1)


def test_the_published_split_is_the_one_of_the_masks(tmp_path: Path):
    masks = {"train_mask": [0, 0, 0, 1], "val_mask": [0, 1, 0, 0], "test_mask": [1, 0, 0, 0]}
    split = split_of(read(written(tmp_path, **masks)), SplitConfig(members_are="published", test="published"), 0)
    assert [part.tolist() for part in (split.members, split.population, split.non_members, split.test)] == [[0], [1], [2], [3]]
    assert split.drawn == "published"


def test_the_published_members_go_with_the_published_test_part_alone():
    with pytest.raises(ConfigError, match=r"give data.split.test = 'published'"):
        SplitConfig(members_are="published")


def test_a_published_split_of_data_that_came_without_one_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="came without a training and a test part"):
        split_of(read(written(tmp_path)), SplitConfig(members_are="published", test="published"), 0)


def test_held_out_edges_are_real_ones_that_no_model_has(shared_data: Path):
    whole, part = (graph_of(load(DataConfig(name="cora", held_out_edges=share))) for share in (0.0, 0.1))
    assert whole.edges.shape == (2, 5278)
    assert whole.held_out.shape == (2, 0)
    assert torch.equal(undirected(torch.cat([part.edges, part.held_out], 1)), whole.edges)
    assert 430 < part.held_out.shape[1] < 630  # 528 expected, deviation 22


def test_the_same_edges_are_held_out_each_time(shared_data: Path):
    first, second = (load(DataConfig(name="cora", held_out_edges=0.1)) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != load(DataConfig(name="cora")).fingerprint


def test_no_node_has_more_edges_than_it_may(shared_data: Path):
    graph = graph_of(load(DataConfig(name="cora", max_degree=5)))
    assert int(graph.degrees.max()) == 5
    assert int(graph_of(load(DataConfig(name="cora"))).degrees.max()) == 168


def test_cora_is_the_planetoid_version(shared_data: Path):
    data = load(DataConfig(name="cora"))
    assert (len(data), len(data.classes), graph_of(data).features.shape[1]) == (2708, 7, 1433)
    split = split_of(data, SplitConfig(members_are="published", test="published"), 0)
    assert (len(split.members), len(split.population), len(split.test)) == (140, 500, 1000)
    assert np.bincount(data.targets[torch.from_numpy(split.members)].numpy()).tolist() == [20] * 7


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"y": None}, "lacks y"),
        ({"y": [0, 1]}, "one label a node"),
        ({"y": [0, 1, 2, 0]}, "labels outside its 2 classes"),
        ({"x": [[1, 0, 0], [0, np.nan, 0], [0, 3, 4], [0, 0, 0]]}, "finite numbers"),
        ({"x": [1, 2, 3, 4]}, r"\[nodes, features\]"),
        ({"edge_index": [[0, 1], [1, 9]]}, "numbers from 0 to 3"),
        ({"train_mask": [1, 0, 0, 0], "val_mask": [1, 0, 0, 0], "test_mask": [0, 1, 0, 0]}, "masks that overlap"),
    ],
)
def test_a_file_that_is_no_graph_is_refused_with_what_is_wrong(tmp_path: Path, changed: dict[str, object], said: str):
    with pytest.raises(DataError, match=said):
        read(written(tmp_path, **changed))


def test_a_file_that_is_not_there_or_damaged_is_said_so(tmp_path: Path):
    with pytest.raises(DataError, match="there is no file"):
        read(str(tmp_path / "graph.npz"))
    (tmp_path / "graph.npz").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(DataError, match=r"cannot be read as .npz"):
        read(str(tmp_path / "graph.npz"))


def test_a_graph_of_ones_own_needs_a_path_and_the_names_of_its_classes(tmp_path: Path):
    with pytest.raises(DataError, match=r"--data.path"):
        load(DataConfig(name="graph"))
    with pytest.raises(DataError, match=r"--data.classes"):
        load(DataConfig(name="graph", path=written(tmp_path)))


def test_cora_that_is_not_there_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DPTRAIN_DATA", raising=False)
    with pytest.raises(DataError, match=r"github.com/kimiyoung/planetoid"):
        load(DataConfig(name="cora"))


@pytest.mark.parametrize(("field", "value"), [("held_out_edges", 1.0), ("held_out_edges", -0.1), ("max_degree", 0)])
def test_a_share_or_a_degree_that_cannot_be_is_refused(field: str, value: float):
    with pytest.raises(ConfigError, match=f"data.{field} is"):
        DataConfig(name="cora", **{field: value})  # pyright: ignore[reportArgumentType]


def test_a_graph_refuses_edges_that_are_not_in_order_or_held_out_twice():
    features = torch.eye(3)
    nothing = torch.zeros(2, 0, dtype=torch.int64)
    with pytest.raises(DataError, match="not in order"):
        Graph(features, torch.tensor([[1], [0]]), nothing)
    with pytest.raises(DataError, match="name nodes outside"):
        Graph(features, torch.tensor([[0], [3]]), nothing)
    with pytest.raises(DataError, match="held-out edges are among its edges"):
        Graph(features, torch.tensor([[0], [1]]), torch.tensor([[0], [1]]))


def test_a_data_set_of_a_graph_holds_one_and_only_such_a_data_set(tmp_path: Path):
    data = read(written(tmp_path))
    with pytest.raises(DataError, match="give both"):
        dataclasses.replace(data, graph=None)
    with pytest.raises(DataError, match="not the numbers"):
        dataclasses.replace(data, inputs=data.inputs.flip(0))


def test_one_edge_less_in_the_file_is_one_edge_less_in_the_graph(shared_data: Path, tmp_path: Path):
    """A coin hangs on its own edge alone: else ε for one edge would be false from the file on."""
    whole = graph_of(load(DataConfig(name="cora", held_out_edges=0.1)))
    with np.load(shared_data / "cora.npz") as stored:
        content: dict[str, Any] = dict(stored)
    one = content["edge_index"][:, 100]
    is_it = ((content["edge_index"] == one[:, None]) | (content["edge_index"] == one[::-1, None])).all(0)
    np.savez(tmp_path / "less.npz", **(content | {"edge_index": content["edge_index"][:, ~is_it]}))
    less = graph_of(load(DataConfig(name="cora", path=str(tmp_path / "less.npz"), held_out_edges=0.1)))
    before, after = ({tuple(edge) for edge in graph.edges.T.tolist()} for graph in (whole, less))
    assert len(before ^ after) <= 1
    held = [{tuple(edge) for edge in graph.held_out.T.tolist()} for graph in (whole, less)]
    assert len(before ^ after) + len(held[0] ^ held[1]) == 1


def test_edges_of_one_coin_are_spread_evenly(shared_data: Path):
    drawn = coins(graph_of(load(DataConfig(name="cora"))).edges, 2708)
    assert abs(float(drawn.mean()) - 0.5) < 0.02  # five deviations of a uniform mean of 5,278
    assert np.histogram(drawn, 10, (0, 1))[0].min() > 420


def test_edges_held_out_are_bounded_as_the_others_are(shared_data: Path):
    graph = graph_of(load(DataConfig(name="cora", held_out_edges=0.1, max_degree=5)))
    both = torch.cat([graph.edges, graph.held_out], 1)
    assert int(torch.bincount(both.flatten()).max()) == 5


def test_labels_and_edges_that_are_no_whole_numbers_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="edge_index of the type float64"):
        read(written(tmp_path, edge_index=[[0.7, 1.2], [1.1, 2.0]]))
    with pytest.raises(DataError, match="y of the type float64"):
        read(written(tmp_path, y=[0.5, 1.0, 1.0, 0.0]))
