"""A hidden word of a node is guessed from what the model says of it, and held against its label."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.access import Access
from evaluation.graph.words import FromEmbedding, FromScores, chosen, guessed, imputed
from evaluation.membership import NotApplicable
from evaluation.metrics import area_under_roc
from evaluation.node_attributes import node_attributes
from evaluation.plan import ATTACKS
from evaluation.result import AttackResult, Measure
from tests.evaluation.graph_worlds import Silent, case_of, communities

WORLD = communities(nodes=600, linked=0.02, words=30)
CASE = case_of(*WORLD)


def figure(result: AttackResult, name: str) -> Measure:
    return next(item for item in (*result.metrics, *result.baselines, *result.controls) if item.name == name)


@pytest.mark.parametrize(("name", "access"), [("node.attribute", Access.SCORES), ("node.embedding", Access.LOGITS)])
def test_an_attack_on_words_asks_for_no_more_than_its_access_shows(name: str, access: Access):
    case: Any = CASE
    case.target.asked.clear()
    attack = ATTACKS[name]()
    result = node_attributes(CASE, name, attack)
    assert set(case.target.asked) == {access} == {attack.access}
    assert result.access == access.word


def test_words_that_stand_in_the_answers_are_guessed_beyond_the_label():
    result = node_attributes(CASE, "node.embedding", FromEmbedding())
    above = figure(result, "auc_above_label")
    assert result.verdict == "leak"
    assert above.low is not None
    assert above.low > 0
    assert f"({figure(result, 'label').value:.3f})" in result.reason
    control = figure(result, "permuted")
    assert control.low is not None
    assert control.high is not None
    assert control.low - 0.02 <= 0.5 <= control.high + 0.02


class _LabelAlone(Silent):
    """Says which class a node is of, and nothing else."""

    def scores(self, inputs: torch.Tensor) -> np.ndarray:
        return 0.05 + 0.85 * np.eye(3)[WORLD[1].numpy()]


def test_a_model_that_says_the_label_alone_gives_away_nothing_beyond_it():
    case: Any = SimpleNamespace(**{**vars(CASE), "target": _LabelAlone(), "without_graph": None})
    result = node_attributes(case, "node.attribute", FromScores())
    assert result.verdict == "nothing beyond public"
    assert result.value == pytest.approx(figure(result, "label").value, abs=1e-3)
    assert "without_graph" not in {item.name for item in result.baselines}


class _Noise(_LabelAlone):
    def scores(self, inputs: torch.Tensor) -> np.ndarray:
        return np.random.default_rng(0).dirichlet(np.ones(3), len(inputs))


def test_answers_that_know_nothing_find_nothing():
    case: Any = SimpleNamespace(**{**vars(CASE), "target": _Noise(), "without_graph": None})
    assert node_attributes(case, "node.attribute", FromScores()).verdict == "found nothing"


class _Flat(_LabelAlone):
    def scores(self, inputs: torch.Tensor) -> np.ndarray:
        return np.full((len(inputs), 3), 1 / 3)


def test_answers_that_are_all_the_same_are_no_signal():
    case: Any = SimpleNamespace(**{**vars(CASE), "target": _Flat(), "without_graph": None})
    assert node_attributes(case, "node.attribute", FromScores()).verdict == "no signal"


def test_without_a_population_a_third_of_the_others_is_known_and_nobody_who_was_trained_on():
    case: Any = case_of(*WORLD, population=0.0)
    result = node_attributes(case, "node.attribute", FromScores())
    assert result.status == "ok"
    assert figure(result, "auc_members").value is not None


def test_too_few_known_nodes_are_not_applicable():
    small = communities(nodes=60, linked=0.2)
    case: Any = case_of(*small, population=0.0)
    with pytest.raises(NotApplicable, match="too few to learn from"):
        node_attributes(case, "node.attribute", FromScores())


def test_a_data_set_that_is_no_graph_has_no_words_of_nodes():
    case: Any = SimpleNamespace(data=SimpleNamespace(name="digits", graph=None))
    with pytest.raises(NotApplicable, match="digits is no graph"):
        node_attributes(case, "node.attribute", FromScores())


def test_chosen_words_are_those_nearest_to_one_in_five_among_the_known():
    shares = np.array([0.01, 0.19, 0.5, 0.22, 0.99, 0.0, 1.0])
    has = np.arange(1000)[:, None] < 1000 * shares
    assert set(chosen(has)) == {1, 2, 3}
    many = np.arange(1000)[:, None] < np.linspace(60, 900, 50)
    assert np.abs(many[:, chosen(many)].mean(0) - 0.2).max() < 0.25
    assert len(chosen(many)) == 20


def test_imputation_guesses_a_word_by_another_one_and_never_by_itself():
    """The first two words are the same word, the third is a coin's."""
    generator = np.random.default_rng(0)
    has = generator.random((400, 3)) < 0.3
    has[:, 1] = has[:, 0]
    found = imputed(has[:200], has[200:], np.array([0, 2]))
    assert area_under_roc(found[:, 0], has[200:, 0]).value == 1.0
    alone = area_under_roc(found[:, 1], has[200:, 2])
    assert alone.low is not None
    assert alone.low < 0.5


def test_a_classifier_is_learned_for_each_word():
    generator = np.random.default_rng(0)
    read = generator.normal(size=(500, 2))
    found = guessed(read[:300], read[:300] > 0, read[300:])
    for word in range(2):
        assert (area_under_roc(found[:, word], read[300:, word] > 0).value or 0.0) > 0.99
