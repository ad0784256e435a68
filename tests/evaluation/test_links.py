"""Links are told where the model read them, and the judge says what of that the graph gave away."""

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from evaluation.access import Access
from evaluation.graph import LinkAttack, LinkKnowledge
from evaluation.graph.influence import Influence
from evaluation.graph.optimised import Optimised
from evaluation.graph.pairs import Coverage, PairScores, Table
from evaluation.graph.posteriors import Labels, Posteriors, Supervised, described
from evaluation.links import links
from evaluation.membership import NotApplicable
from evaluation.plan import ATTACKS
from evaluation.result import AttackResult, Measure
from tests.evaluation.graph_worlds import GraphTarget, Network, Silent, case_of, communities, trained

REGISTERED = sorted(name for name in ATTACKS.names() if name.startswith("link."))
OVER_EDGES = [name for name in REGISTERED if name != "link.release"]
"""Those that can be made on the stand-in, a network over exact edges; the other one is in `test_graph_evaluated.py`."""
WORLD = communities()
CASE = case_of(*WORLD)


def figure(result: AttackResult, name: str) -> Measure:
    return next(item for item in (*result.metrics, *result.baselines, *result.controls) if item.name == name)


def low(measure: Measure) -> float:
    assert measure.low is not None
    return measure.low


def high(measure: Measure) -> float:
    assert measure.high is not None
    return measure.high


def judged(name: str, case: Any = CASE) -> AttackResult:
    return links(case, name, ATTACKS[name]())


def test_there_are_six_attacks():
    assert [f"link.{name}" for name in ("influence", "labels", "posteriors", "release", "supervised", "weights")] == REGISTERED


@pytest.mark.parametrize("name", OVER_EDGES)
def test_an_attack_asks_for_no_more_than_its_access_shows(name: str):
    case: Any = CASE
    case.target.asked.clear()
    result = judged(name)
    assert max(case.target.asked) <= ATTACKS[name]().access
    assert result.access == ATTACKS[name]().access.word


@pytest.mark.parametrize("name", OVER_EDGES)
def test_an_attack_tells_linked_nodes_from_others_and_not_after_they_are_renamed(name: str):
    result = judged(name)
    assert result.low is not None
    assert result.low > 0.55
    control = figure(result, "permuted")
    assert low(control) - 0.03 <= 0.5 <= high(control) + 0.03
    assert result.verdict in ("leak", "nothing beyond public")
    assert result.permitted is None


@pytest.mark.parametrize("name", ["link.posteriors", "link.influence"])
def test_a_graph_that_the_model_reads_is_a_leak_beyond_features_and_a_model_without_it(name: str):
    result = judged(name)
    assert (result.verdict, result.chance) == ("leak", 0.5)
    assert low(figure(result, "auc_above_features")) > 0
    assert low(figure(result, "auc_above_without_graph")) > 0


def test_edges_of_the_graph_are_told_from_edges_held_out_by_influence_alone():
    found = figure(judged("link.influence"), "auc_in_graph")
    assert low(found) > 0.8


@pytest.mark.parametrize("name", ["link.posteriors", "link.labels", "link.supervised"])
def test_a_model_that_never_saw_an_edge_gives_away_nothing_beyond_public(name: str):
    """Its answers are alike for nodes of a class, whom the graph links more often: an AUC above .5 that is no leak."""
    result = judged(name, case_of(*WORLD, graph_of_model="none"))
    assert result.low is not None
    assert result.low > 0.5
    assert result.verdict == "nothing beyond public"
    in_graph = figure(result, "auc_in_graph")
    assert low(in_graph) < 0.5 < high(in_graph)


def test_influence_on_a_model_that_never_saw_an_edge_is_no_signal():
    result = judged("link.influence", case_of(*WORLD, graph_of_model="none"))
    assert (result.verdict, result.value) == ("no signal", 0.5)


def test_an_attack_that_cannot_be_made_on_the_model_is_not_applicable():
    with pytest.raises(NotApplicable, match="reads no edges"):
        judged("link.weights", case_of(*WORLD, graph_of_model="none"))


def test_the_eight_distances_stand_beside_each_other():
    result = judged("link.posteriors")
    others = ("cosine", "euclidean", "chebyshev", "braycurtis", "canberra", "cityblock", "sqeuclidean")
    areas = [figure(result, f"auc_{name}").value or 0.0 for name in others]
    assert min(areas) > 0.5
    assert areas[1] == pytest.approx(areas[-1]), "a square changes no order"


def test_chance_of_a_precision_is_the_density_of_the_graph():
    graph: Any = CASE.data
    edges, nodes = graph.graph.edges.shape[1], len(WORLD[0])
    density = edges / (nodes * (nodes - 1) / 2 - graph.graph.held_out.shape[1])
    result = judged("link.labels")
    assert result.chance_metrics["precision_at_density"] == pytest.approx(density)
    assert result.chance_metrics["auc_above_features"] == 0.0


def planned(auc: float, unit: str = "edge") -> Any:
    return case_of(
        *WORLD,
        plan=SimpleNamespace(unit=unit, aggregations=0, edge_curve=lambda: SimpleNamespace(auc=lambda: auc, epsilons=[1.0])),
    )


def test_what_a_plan_permits_is_asked_of_edges_in_the_graph_alone():
    result = judged("link.influence", planned(0.6))
    assert result.permitted_metrics == {"auc_in_graph": 0.6}
    assert result.verdict == "above the plan"
    assert "permits 0.600" in result.reason
    assert judged("link.influence", planned(0.999)).verdict == "within the plan"


def test_a_plan_whose_unit_is_the_example_bounds_no_edge():
    result = judged("link.influence", planned(0.6, unit="example"))
    assert (result.verdict, result.permitted_metrics) == ("leak", {})


def test_a_graph_without_held_out_edges_is_judged_without_them():
    result = judged("link.posteriors", case_of(*WORLD, held_out=0.0))
    assert "auc_in_graph" not in {item.name for item in result.metrics}
    assert result.verdict == "leak"


def test_a_data_set_that_is_no_graph_has_no_links():
    case: Any = SimpleNamespace(data=SimpleNamespace(name="digits", graph=None))
    with pytest.raises(NotApplicable, match="digits is no graph"):
        links(case, "link.posteriors", Posteriors())


class _ByPlace(PairScores):
    """Scores a pair by where it stands in the question: the judge asks about edges first."""

    covered = Coverage.among(np.ones(len(WORLD[0]), dtype=bool))

    def of(self, pairs: np.ndarray) -> np.ndarray:
        return -np.arange(len(pairs), dtype=float)


class _Told(LinkAttack):
    """Gives what it was made with."""

    access: ClassVar[Access] = Access.LABEL
    paper: ClassVar[str] = ""

    def __init__(self, scores: PairScores):
        self.scores = scores

    def run(self, target: Any, knowledge: LinkKnowledge, generator: np.random.Generator) -> PairScores:
        return self.scores


def test_a_verdict_is_withheld_where_renamed_nodes_are_told_as_well():
    result = links(CASE, "link.by_place", _Told(_ByPlace()))
    assert result.value == 1.0
    assert result.verdict == "withheld"


def test_scores_that_know_nothing_find_nothing():
    count = len(WORLD[0])
    noise = np.random.default_rng(0).random((count, count))
    result = links(CASE, "link.noise", _Told(Table(_ByPlace.covered, noise + noise.T)))
    assert result.verdict == "found nothing"


class _TooMuch(Supervised):
    def run(self, target: Any, knowledge: LinkKnowledge, generator: np.random.Generator) -> PairScores:
        return _ByPlace()


def test_nobody_is_judged_on_nodes_whose_edges_he_was_told():
    with pytest.raises(ValueError, match="was told"):
        links(CASE, "link.supervised", _TooMuch())


def test_a_classifier_needs_some_edges_to_learn_from():
    features, _, edges = WORLD
    knowledge = LinkKnowledge(features, np.arange(4), edges[:3])
    target: Any = CASE.target
    with pytest.raises(NotApplicable, match="3 edges"):
        Supervised().run(target, knowledge, np.random.default_rng(0))


def test_the_entropy_features_are_those_of_the_paper():
    answers = np.array([[0.5, 0.5], [1.0, 0.0]])
    found = described(answers, np.array([[0, 1]]))[0, 8:]
    assert found == pytest.approx([np.log(2) / 2, 0.0, np.log(2), np.log(2) ** 2])


def test_influence_is_nothing_on_whoever_is_further_than_the_model_reads():
    """A path 0 – 1 – 2 – 3 and a model of two layers."""
    torch.manual_seed(0)
    network = Network(torch.rand(4, 5), np.array([[0, 1], [1, 2], [2, 3]]), 2).eval().requires_grad_(False)
    knowledge = LinkKnowledge(network.features, np.empty(0, dtype=np.int64), np.empty((0, 2), dtype=np.int64))
    scores = Influence().run(GraphTarget(network, Access.SCORES), knowledge, np.random.default_rng(0))
    near, two, far = scores.of(np.array([[0, 1], [0, 2], [0, 3]]))
    assert far == 0.0
    assert near > 0
    assert two > 0


class _Sure(Silent):
    """Node 1 reads node 0, and is so sure of its answer that the other score is 1e-20."""

    def answers(self, features: torch.Tensor) -> np.ndarray:
        gap = 46 + (features[0, 0].double().numpy() * np.array([0.0, 1.0, 0.0]))
        return np.stack([1 / (1 + np.exp(-gap)), np.exp(-gap) / (1 + np.exp(-gap))], 1)


def test_influence_on_a_node_that_is_sure_is_seen():
    knowledge = LinkKnowledge(torch.ones(3, 1), np.empty(0, dtype=np.int64), np.empty((0, 2), dtype=np.int64))
    found = Influence().run(_Sure(), knowledge, np.random.default_rng(0)).of(np.array([[0, 1], [0, 2]]))
    assert found[0] > 0.1
    assert found[1] == 0.0


def test_a_graph_larger_than_the_attack_can_hold_is_attacked_in_part(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("evaluation.graph.optimised.MOST_NODES", 120)
    knowledge = LinkKnowledge(WORLD[0], np.empty(0, dtype=np.int64), np.empty((0, 2), dtype=np.int64))
    target: Any = CASE.target
    scores = Optimised().run(target, knowledge, np.random.default_rng(0))
    assert scores.covered.count == 120 * 119 // 2
    assert scores.covered.asked.sum() == 120


def test_labels_score_one_where_they_are_the_same():
    target: Any = CASE.target
    knowledge = LinkKnowledge(WORLD[0], np.empty(0, dtype=np.int64), np.empty((0, 2), dtype=np.int64))
    scores = Labels().run(target, knowledge, np.random.default_rng(0))
    said = target.labels(knowledge.inputs)
    pairs = np.array([[0, 1], [2, 3], [4, 5]])
    assert scores.of(pairs).tolist() == [float(said[one] == said[other]) for one, other in pairs]


@pytest.mark.slow
def test_cora_gives_away_its_links_as_published(shared_data: Any, monkeypatch: pytest.MonkeyPatch):
    """He et al. 2021 state an AUC of .938 by correlation; features alone have .80. Precision is another matter."""
    with np.load(shared_data / "cora.npz") as stored:
        features, labels = torch.from_numpy(stored["x"]).float(), torch.from_numpy(stored["y"])
        edges = stored["edge_index"].T
        members = torch.from_numpy(np.flatnonzero(stored["train_mask"]))
    edges = edges[edges[:, 0] < edges[:, 1]]
    graph = SimpleNamespace(features=features, edges=torch.from_numpy(edges.T), held_out=torch.empty(2, 0, dtype=torch.long))
    case: Any = SimpleNamespace(
        target=GraphTarget(trained(features, labels, edges, members, steps=200)),
        data=SimpleNamespace(name="cora", graph=graph), seed=0, plan=None, is_private=False, without_graph=None,
    )  # fmt: skip
    result = links(case, "link.posteriors", Posteriors())
    assert result.value == pytest.approx(0.93, abs=0.015)
    assert figure(result, "features").value == pytest.approx(0.80, abs=0.01)
    assert figure(result, "precision_at_density").value == pytest.approx(0.09, abs=0.03)
    assert links(case, "link.labels", Labels()).value == pytest.approx(0.85, abs=0.015)
    by_logarithms = links(case, "link.influence", Influence())
    monkeypatch.setattr("evaluation.graph.influence._logs", lambda target, features: target.answers(features))
    by_scores = links(case, "link.influence", Influence())
    assert by_logarithms.value == pytest.approx(0.999, abs=0.001)
    precisions = [figure(result, "precision_at_density").value or 0.0 for result in (by_logarithms, by_scores)]
    assert precisions[0] > precisions[1] + 0.2
    assert precisions[0] > 0.6
