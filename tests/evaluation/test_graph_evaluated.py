"""A model of a graph from training to result: what stands beside it, and what is said of several seeds."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dptrain.data.dataset import DataSet
from dptrain.data.graph import Graph, undirected
from dptrain.data.split import Split, split_of
from dptrain.recipe import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PrivacyConfig,
    Recipe,
    ReleaseConfig,
    SplitConfig,
    TrainingConfig,
)
from dptrain.trainer import Trainer
from evaluation.graph.pairs import Coverage
from evaluation.graph.released import FromSums
from evaluation.plan import EvaluationPlan
from evaluation.result import AttackResult, Measure, RunResult
from evaluation.runner import callback, evaluate
from evaluation.summary import summarize
from evaluation.without_graph import FLOOR, GAINED, without_graph, worth

pytestmark = pytest.mark.usefixtures("same_keys")  # one control of 1,000 withholds a verdict by chance
NODES, CLASSES = 300, ("a", "b", "c")
SHARES = SplitConfig(members=0.5, non_members=0.3, population=0.2, public=0.0)


def communities(seed: int = 0) -> DataSet:
    """Three communities, whose nodes have words of their own and edges mostly among themselves."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(NODES) % 3
    words = torch.rand(NODES, 30, generator=generator) < torch.where(torch.arange(30) % 3 == labels[:, None], 0.25, 0.15)
    features = words.float()
    same = labels[:, None] == labels
    drawn = torch.rand(NODES, NODES, generator=generator) < torch.where(same, 0.05, 0.002)
    edges = undirected(drawn.nonzero().T)
    out = torch.rand(edges.shape[1], generator=generator) < 0.2
    graph = Graph(features / features.norm(dim=1, keepdim=True).clamp_min(1e-12), edges[:, ~out], edges[:, out])
    return DataSet(
        name="cora",
        inputs=torch.arange(NODES)[:, None],
        targets=labels,
        classes=CLASSES,
        bounds=(0.0, NODES - 1.0),
        kind="graph",
        graph=graph,
    )


def recipe(name: str, privacy: PrivacyConfig) -> Recipe:
    return Recipe(
        data=DataConfig(name="cora", split=SHARES),
        model=ModelConfig(name=name, hidden=(8,), activation="relu"),
        optimizer=OptimizerConfig(name="adamw", learning_rate=0.05),
        privacy=privacy,
        training=TrainingConfig(steps=60),
    )


EDGE = PrivacyConfig(
    unit="edge", relation="zero_out_one", aggregations=1, epsilon=1.0, delta=1e-4, sampling_rate=1.0, expected_batch_size=150.0
)
OPEN = dataclasses.replace(EDGE, mechanism="none", epsilon=None)
ATTACKS = (
    "membership.threshold",
    "link.posteriors",
    "link.influence",
    "link.weights",
    "link.release",
    "node.attribute",
    "node.embedding",
    "inversion.class",
)


def run(folder: Path, recipe: Recipe, data: DataSet, attacks: tuple[str, ...] = ATTACKS, seed: int = 0) -> RunResult:
    split = split_of(data, SHARES, seed)
    plan = EvaluationPlan(attacks=attacks)
    attack = callback(plan, folder / "fleet", progress=False)
    Trainer(recipe, data, split, seed=seed, folder=folder, callbacks=(attack,), progress=False).run()
    return evaluate(folder, data, split=split, plan=plan, recipe=recipe, progress=False)


def named(result: RunResult) -> dict[str, AttackResult]:
    return {attack.name: attack for attack in result.attacks}


def test_a_network_over_exact_edges_gives_them_away_and_is_worth_more_than_one_without(tmp_path: Path):
    result = run(tmp_path, recipe("gcn", OPEN), communities())
    found = named(result)
    assert result.utility[GAINED] > 0.05
    assert result.utility["test_accuracy"] == pytest.approx(result.utility[FLOOR] + result.utility[GAINED])
    influence = found["link.influence"]
    assert influence.verdict == "leak"
    assert influence.value is not None
    assert influence.value > 0.95
    assert {item.name for item in influence.baselines} == {"features", "without_graph", "features_auc_in_graph"}
    assert found["inversion.class"].status == "not_applicable"
    assert "numbers of nodes" in found["inversion.class"].reason
    for name in ("node.attribute", "node.embedding"):
        assert found[name].status == "ok", found[name].reason
        assert "without_graph" in {item.name for item in found[name].baselines}
    assert found["link.weights"].status == "ok"
    assert found["link.release"].status == "not_applicable"


def test_sums_without_noise_give_edges_away_and_with_noise_they_keep_to_the_plan(tmp_path: Path):
    """The positive control of the noise: whoever reads the exact sums finds the edges."""
    data = communities()
    exact, noised = (run(tmp_path / name, recipe("gap", privacy), data, ("link.release",)) for name, privacy in
                     (("open", OPEN), ("edge", EDGE)))  # fmt: skip
    found, held = exact.attacks[0], noised.attacks[0]
    in_graph = {item.name: item for item in found.metrics}["auc_in_graph"]
    assert in_graph.low is not None
    assert in_graph.low > 0.5
    assert found.verdict == "leak"
    assert held.verdict in ("found nothing", "nothing beyond public", "within the plan")
    assert {item.name: item.value or 0.0 for item in held.metrics}["auc_in_graph"] < (in_graph.value or 0.0)


def test_the_matched_filter_finds_an_edge_in_a_sum_that_holds_it():
    summed = np.eye(4)[[0, 1, 2, 3]] - 0.1
    sums = np.array([summed[1], summed[0], summed[3], summed[2]])
    everyone = Coverage.among(np.ones(4, dtype=bool))
    pairs = np.array([[0, 1], [2, 3], [0, 2], [1, 3]])
    scores = FromSums(everyone, summed, sums, 1.0).of(pairs)
    assert scores[:2].min() > scores[2:].max()


def test_edges_that_were_released_are_read_as_they_are(tmp_path: Path):
    privacy = dataclasses.replace(EDGE, aggregations=0, edge_release="randomised_response", epsilon=12.0)
    result = run(tmp_path, recipe("gcn", privacy), communities(), ("link.release",))
    (attack,) = result.attacks
    assert attack.value is not None
    assert attack.value > 0.95
    assert attack.verdict == "within the plan"


def test_a_guard_stands_before_answers_to_features_and_before_the_model_without_the_graph(tmp_path: Path):
    guarded = dataclasses.replace(recipe("gcn", OPEN), release=ReleaseConfig(guard="label_only"))
    found = named(run(tmp_path, guarded, communities(), ("link.influence", "link.posteriors", "link.labels")))
    assert found["link.influence"].value is not None
    assert found["link.influence"].value < 0.9
    beside = [{item.name: item.value for item in found[name].baselines} for name in ("link.posteriors", "link.labels")]
    assert beside[0]["without_graph"] == pytest.approx(beside[1]["without_graph"], abs=0.02)


def test_under_an_edge_budget_influence_shows_no_edge_and_membership_of_nodes_is_bounded_by_nothing(tmp_path: Path):
    result = run(tmp_path, recipe("gap", EDGE), communities())
    found = named(result)
    assert found["link.influence"].verdict in ("no signal", "found nothing")
    assert found["membership.threshold"].permitted is None
    assert found["membership.threshold"].verdict != "within the plan"
    assert 0.5 < found["link.posteriors"].permitted_metrics["auc_in_graph"] < 0.65
    assert result.guarantee is not None
    assert result.guarantee.unit == "edge"


def test_where_noise_has_eaten_the_graph_the_result_says_so(tmp_path: Path):
    strict = dataclasses.replace(EDGE, epsilon=0.05)
    result = run(tmp_path, recipe("gap", strict), communities(), attacks=("link.labels",))
    assert result.utility[f"{GAINED}_low"] <= 0
    assert any("worth its noise here" in note for note in result.notes)


def test_what_a_graph_is_worth_is_said_only_where_it_is_not_shown():
    assert worth(Measure(name=GAINED, value=0.1, low=0.05, high=0.15), True) is None
    said = worth(Measure(name=GAINED, value=0.02, low=-0.01, high=0.05), True)
    assert said is not None
    assert "is not shown to be worth its noise" in said
    said = worth(Measure(name=GAINED, value=-0.02, low=-0.05, high=0.01), False)
    assert said is not None
    assert "is not worth being looked at" in said
    assert "-2.0 points [-5.0, +1.0]" in said


def test_the_model_without_the_graph_sees_no_edge():
    data = communities()
    assert data.graph is not None
    split = split_of(data, SHARES, 0)
    bare = Graph(data.graph.features, data.graph.edges[:, :1], data.graph.held_out)
    models = [without_graph(None, each, split, 0) for each in (data, dataclasses.replace(data, graph=bare))]
    assert np.array_equal(models[0].scores(data.inputs), models[1].scores(data.inputs))
    assert np.array_equal(models[0].answers(data.graph.features), models[0].scores(data.inputs))


def test_under_a_node_budget_the_model_without_the_graph_has_the_same_budget():
    privacy = dataclasses.replace(EDGE, unit="node", max_degree=40, aggregations=1, epsilon=0.05, delta=1e-4, clipping_norm=1.0)
    data = communities()
    split = split_of(data, SHARES, 0)
    free = without_graph(recipe("gap", OPEN), data, split, 0)
    held = without_graph(recipe("gap", privacy), data, split, 0)
    right = [(model.labels(data.inputs) == data.targets.numpy()).mean() for model in (free, held)]
    assert right[1] < right[0] - 0.1


def link(seed: int, **changed: object) -> RunResult:
    figures = {"auc": 0.9, "auc_above_features": 0.1, "auc_above_without_graph": 0.05, "auc_in_graph": 0.6} | changed
    measures = {
        name: Measure(name=name, value=value, low=value - 0.02, high=value + 0.02)
        for name, value in figures.items()
        if isinstance(value, float)
    }
    attack = AttackResult(
        name="link.posteriors",
        status="ok",
        metric="auc",
        value=figures["auc"],  # pyright: ignore[reportArgumentType]
        low=measures["auc"].low,
        high=measures["auc"].high,
        chance=0.5,
        verdict="leak",
        metrics=tuple(measure for name, measure in measures.items() if name != "auc"),
        permitted_metrics={"auc_in_graph": 0.62} if changed.get("private") else {},
        baselines=(Measure(name="features", value=0.8), Measure(name="without_graph", value=0.85)),
    )
    return RunResult(
        label=f"seed={seed}",
        variant="non_private",
        epsilon=math.inf,
        delta=None,
        seed=seed,
        step=1,
        steps=1,
        utility={"test_accuracy": 0.8, "test_accuracy_low": 0.78, "test_accuracy_high": 0.82},
        attacks=(attack,),
    )


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "leak"),
        ({"private": "yes"}, "within the plan"),
        ({"auc_in_graph": 0.5, "auc_above_features": -0.01}, "nothing beyond public"),
        ({"auc_in_graph": 0.5, "auc": 0.5}, "found nothing"),
    ],
)
def test_of_several_seeds_the_mean_of_every_figure_is_judged(changed: dict[str, object], word: str):
    summary = summarize(tuple(link(seed, **changed) for seed in range(3)))[0]
    assert summary.verdicts["link.posteriors"] == word


def test_a_difference_below_nought_stays_below_nought_over_seeds():
    runs = tuple(link(seed, auc_above_features=-0.1) for seed in range(3))
    found = next(item for item in summarize(runs)[0].measures if item.name == "link.posteriors/auc_above_features")
    assert found.low is not None
    assert found.low < -0.1


def test_a_split_of_the_graph_is_by_coins_of_nodes():
    split: Split = split_of(communities(), SHARES, 0)
    assert split.size == NODES
