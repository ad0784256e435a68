"""Training on a graph: what is released before the first update is made once, announced before and counted once."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dptrain.accounting import epsilon
from dptrain.checkpoint import load_release
from dptrain.data import load
from dptrain.data.dataset import DataSet
from dptrain.data.graph import Graph
from dptrain.errors import ConfigError, PlanError
from dptrain.ledger import Ledger
from dptrain.private import make_private
from dptrain.recipe import DataConfig, ModelConfig, OptimizerConfig, PrivacyConfig, Recipe, TrainingConfig
from dptrain.trainer import build_training
from tests.dptrain.test_models_graph import NODES, graph_of, small

EDGE = PrivacyConfig(
    unit="edge", relation="zero_out_one", aggregations=1, epsilon=2.0, delta=1e-3, sampling_rate=1.0, expected_batch_size=8.0
)
NODE = PrivacyConfig(
    unit="node",
    relation="zero_out_one",
    max_degree=8,
    aggregations=1,
    epsilon=2.0,
    delta=1e-3,
    sampling_rate=1.0,
    expected_batch_size=8.0,
    clipping_norm=1.0,
)
MEMBERS = np.arange(8)


def recipe(privacy: PrivacyConfig, name: str = "gap", **model: Any) -> Recipe:
    encoder = "projection" if privacy.unit == "node" and name == "gap" else "labels"
    return Recipe(
        model=ModelConfig(name=name, **{"hidden": (), "encoder": encoder, **model}),
        optimizer=OptimizerConfig(learning_rate=0.1),
        privacy=privacy,
        training=TrainingConfig(steps=3),
    )


def built(privacy: PrivacyConfig, data: DataSet | None = None, name: str = "gap", ledger: Path | None = None, **model: Any):
    return build_training(recipe(privacy, name, **model), data or small(), MEMBERS, 0, ledger=ledger)


def finish(training: Any) -> Any:
    for batch in training.batches():
        training.step(batch)
    return training


def sums_of(training: Any) -> torch.Tensor:
    return training.model.front.sums


@pytest.mark.parametrize("privacy", [EDGE, NODE], ids=["edge", "node"])
def test_a_training_spends_its_budget_with_what_it_releases_first(privacy: PrivacyConfig):
    training = finish(built(privacy))
    assert 1.9 < training.guarantee().epsilon <= 2.0
    assert training.guarantee().unit == privacy.unit


def test_sums_are_made_once_and_never_again():
    training = built(EDGE)
    assert sums_of(training).shape == (0, 1, 3)
    steps = training.batches()
    training.step(next(steps))
    made = sums_of(training).clone()
    for batch in steps:
        training.step(batch)
    assert torch.equal(sums_of(training), made)
    assert made.shape == (NODES, 1, 3)


def test_sums_are_announced_in_the_ledger_before_they_are_made(tmp_path: Path):
    training = built(EDGE, ledger=tmp_path / "ledger.jsonl")
    seen: list[float] = []
    make = training._before
    assert make is not None

    def watched(generator: np.random.Generator) -> None:
        seen.append(epsilon(Ledger(tmp_path / "ledger.jsonl").event(), 1e-3))
        make(generator)

    training._before = watched
    finish(training)
    assert len(seen) == 1
    assert 1.9 < seen[0] <= 2.0


def test_what_was_released_first_counts_also_where_no_update_followed(tmp_path: Path):
    training = built(EDGE)
    next(training.batches())
    assert training.steps_taken == 0
    assert 1.9 < training.guarantee().epsilon <= 2.0
    training.save(tmp_path)
    assert load_release(tmp_path / "release")[1]["guarantee"]["epsilon"] > 1.9


def test_the_ledger_keeps_what_was_released_first_also_where_no_update_followed(tmp_path: Path):
    training = built(EDGE, ledger=tmp_path / "ledger.jsonl")
    steps = training.batches()
    next(steps)
    steps.close()
    assert epsilon(Ledger(tmp_path / "ledger.jsonl").event(), 1e-3) > 1.9


def test_a_training_that_is_resumed_reads_the_sums_that_were_made(tmp_path: Path):
    training = built(EDGE)
    for batch in training.batches(until=2):
        training.step(batch)
    training.save(tmp_path)
    again = built(EDGE)
    again.resume(tmp_path)
    finish(again)
    assert torch.equal(sums_of(again), sums_of(training))
    assert 1.9 < again.guarantee().epsilon <= 2.0


def test_a_training_that_is_resumed_before_its_first_update_pays_for_new_sums(tmp_path: Path):
    training = built(EDGE)
    next(training.batches())
    training.save(tmp_path)
    again = built(EDGE)
    again.resume(tmp_path)
    finish(again)
    assert not torch.equal(sums_of(again), sums_of(training))
    assert again.guarantee().epsilon > 2.5


def test_an_interrupt_while_sums_are_made_lets_them_be_made_again():
    training = built(EDGE)
    make, calls = training._before, [0]
    assert make is not None

    def interrupted(generator: np.random.Generator) -> None:
        calls[0] += 1
        if calls[0] == 1:
            raise KeyboardInterrupt
        make(generator)

    training._before = interrupted
    with pytest.raises(KeyboardInterrupt):
        next(training.batches())
    assert training.guarantee().epsilon > 1.9
    finish(training)
    assert calls[0] == 2


def test_a_release_holds_the_sums_and_neither_features_nor_edges(tmp_path: Path):
    training = finish(built(NODE))
    training.save(tmp_path)
    weights, _ = load_release(tmp_path / "release")
    assert weights["front.sums"].shape == (NODES, 1, 32)
    features = graph_of(small()).features
    assert not any(value.shape == features.shape and torch.equal(value, features) for value in weights.values())


def test_under_an_edge_nothing_is_clipped_and_nothing_is_noised_but_the_sums():
    """Two trainings from one table have the same weights: no noise is drawn in an update."""
    first, second = built(EDGE), built(EDGE)
    batches = first.batches()
    next(batches)
    table = sums_of(first).clone()
    front: Any = second.model.front

    def given(_: np.random.Generator) -> None:
        front.encoder = first.model.front.encoder  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
        front.release(table)

    second._before = given
    finish(first)
    finish(second)
    assert all(torch.equal(one, other) for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("privacy", "name", "said"),
    [
        (PrivacyConfig(epsilon=2.0, delta=1e-3, expected_batch_size=8.0), "mlp", "give 'node' or 'edge'"),
        (EDGE, "gcn", "reads edges as they are"),
        (EDGE, "stars", "reads its neighbours' features"),
        (NODE, "gcn", "reads edges as they are"),
        (NODE, "stars", "reads its neighbours' features"),
        (dataclasses.replace(NODE, aggregations=0, occurrences=8), "mlp", "reads no edges"),
        (dataclasses.replace(NODE, aggregations=0), "stars", "reads its neighbours' features"),
        (dataclasses.replace(NODE, aggregations=0, occurrences=1), "stars", "reads its neighbours' features"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.unit,
)
def test_a_plan_that_does_not_cover_what_the_model_reads_is_refused(privacy: PrivacyConfig, name: str, said: str):
    with pytest.raises(PlanError, match=said):
        built(privacy, name=name, hidden=(4,))


def test_without_a_guarantee_every_model_trains_on_a_graph():
    for name in ("gcn", "sage", "gap", "stars", "mlp"):
        privacy = dataclasses.replace(EDGE, mechanism="none", epsilon=None)
        finish(built(privacy, name=name, hidden=(4,)))


def test_a_node_with_more_edges_than_the_plan_states_is_refused():
    with pytest.raises(PlanError, match=r"--data.max-degree 2"):
        built(dataclasses.replace(NODE, max_degree=2))


def test_hops_and_aggregations_must_agree():
    with pytest.raises(PlanError, match=r"model.hops is 2 and privacy.aggregations is 1"):
        built(EDGE, hops=2)


def test_an_encoder_that_learned_from_labels_is_refused_where_nodes_are_hidden():
    with pytest.raises(PlanError, match=r"--model.encoder projection"):
        built(NODE, encoder="labels")


def test_a_delta_is_held_against_the_number_of_edges():
    edges = graph_of(small()).edges.shape[1]
    with pytest.raises(PlanError, match="delta is"):
        built(dataclasses.replace(EDGE, delta=1.01 / edges))


def test_a_delta_is_held_against_all_nodes_not_the_labelled_ones_alone():
    nodes = graph_of(small()).nodes
    assert NODE.expected_batch_size / NODE.sampling_rate < nodes  # of which fewer are labelled
    with pytest.raises(PlanError, match=f"1/N = {1 / nodes:.3g}"):
        built(dataclasses.replace(NODE, delta=1.01 / nodes))


def test_a_script_whose_plan_counts_a_release_must_say_who_makes_it():
    training = built(EDGE)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.utils.data.TensorDataset(torch.rand(8, 2))
    with pytest.raises(PlanError, match="give before="):
        make_private(model, optimizer, data, training.plan, loss=lambda model, batch: model(batch[0])[:, 0])


@pytest.mark.parametrize("name", ["stars", "mlp"])
def test_a_model_of_nodes_is_clipped_node_by_node(name: str):
    privacy = dataclasses.replace(NODE, aggregations=0, occurrences=8 if name == "stars" else 0)
    training = finish(built(privacy, name=name, hidden=(4,)))
    assert 1.9 < training.guarantee().epsilon <= 2.0


def test_edges_beyond_a_degree_are_not_left_out_where_an_edge_is_the_unit():
    bounded = dataclasses.replace(recipe(EDGE), data=DataConfig(name="cora", max_degree=8))
    with pytest.raises(PlanError, match=r"leave data\.max_degree out"):
        build_training(bounded, small(), MEMBERS, 0)


def test_a_graph_without_edges_has_none_to_hide():
    data = small()
    nobody = torch.zeros(2, 0, dtype=torch.int64)
    with pytest.raises(PlanError, match="no edge to hide"):
        built(EDGE, dataclasses.replace(data, graph=Graph(graph_of(data).features, nobody, nobody)))


def test_a_unit_of_graphs_is_refused_for_other_data():
    digits = load(DataConfig(name="digits"))
    with pytest.raises(PlanError, match="is no graph"):
        build_training(recipe(EDGE, "mlp", hidden=(4,)), digits, MEMBERS, 0)


@pytest.mark.parametrize("name", ["lstm", "embedding_bag"])
def test_a_model_of_sequences_is_refused_for_nodes(name: str):
    with pytest.raises(ConfigError, match="reads sequences"):
        built(EDGE, name=name, hidden=(4,))
