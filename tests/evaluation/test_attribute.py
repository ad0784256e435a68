"""Attribute inference finds what a model gives away, uses what it may use, and is held against those without a model."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, nn

from dptrain.errors import DataError
from evaluation.access import Access, AccessError
from evaluation.inversion.attribute import AttributeAttack, MaximumAPosteriori, guesses
from evaluation.inversion.attribute_figures import attribute_figures, impute, share_right, with_outcome
from evaluation.inversion.attribute_knowledge import AttributeKnowledge
from evaluation.inversion.columns import GRID, Layout
from evaluation.inversion.confidence import ConfidenceScores, LabelsOnly
from evaluation.inversion.error_model import Confusion, Gaussian, Scores
from evaluation.inversion.first_order import FirstOrder
from evaluation.inversion.prior_of_columns import Conditional, Independent
from evaluation.inversion.tree import TreeCounts, TreeModel
from evaluation.metrics import difference, proportion
from evaluation.target import Target

COLUMNS = ("gene:category[A,B,C]", "age:number[0,100]", "race:category[x,y]", "weight:number[30,200]?")
LAYOUT = Layout.of(COLUMNS)
TRUE = torch.tensor([-0.2, 0.0, 0.2, 0.3, 0.05, -0.05, 0.2, 0.1])
"""Effect of each input on the outcome."""
DEVIATION = 0.05


@dataclasses.dataclass(frozen=True)
class World:
    inputs: Tensor
    outcomes: Tensor

    def rows(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        return self.inputs[start:end], self.outcomes[start:end]

    def knowledge(self, hidden: str = "gene", known: tuple[str, ...] = ("age", "race", "weight")) -> AttributeKnowledge:
        return AttributeKnowledge(LAYOUT, hidden, known, *self.rows(0, 600))


def world(seed: int = 0, count: int = 1400, deviation: float = DEVIATION) -> World:
    """People whose gene follows their race, and whose outcome follows from all columns."""
    generator = np.random.default_rng(seed)
    race = generator.integers(2, size=count)
    gene = np.where(generator.random(count) < 0.6, 2 * race, generator.integers(3, size=count))
    missing = generator.random(count) < 0.1
    blocks = [np.eye(3)[gene], generator.random((count, 1)) - 0.5, np.eye(2)[race]]
    blocks += [np.where(missing, 0.0, generator.random(count) - 0.5)[:, None], missing[:, None]]
    inputs = torch.from_numpy(np.hstack(blocks)).float()
    return World(inputs, inputs @ TRUE + deviation * torch.from_numpy(generator.standard_normal(count)).float())


def linear() -> nn.Module:
    model = nn.Linear(8, 1)
    model.weight.data, model.bias.data = TRUE[None].clone(), torch.zeros(1)
    return model


def target(model: nn.Module | None = None, access: Access = Access.WEIGHTS) -> Target:
    return Target(linear() if model is None else model, access, bounds=(-0.5, 1.0), classes=0, kind="regression")


class Classes(nn.Module):
    """Whether the outcome is above 0, with the confidence of a logistic model."""

    def forward(self, inputs: Tensor) -> Tensor:
        score = (inputs @ TRUE) / DEVIATION
        return torch.stack([-score, score], 1)


def classifier(access: Access) -> Target:
    return Target(Classes(), access, bounds=(-0.5, 1.0), classes=2)


def generator() -> np.random.Generator:
    return np.random.default_rng(1)


REGRESSION: list[AttributeAttack] = [MaximumAPosteriori(), MaximumAPosteriori(prior=Conditional()), FirstOrder()]
CLASSIFICATION: list[AttributeAttack] = [
    MaximumAPosteriori(error=Scores()),
    MaximumAPosteriori(error=Confusion(), prior=Conditional()),
    ConfidenceScores(),
    LabelsOnly(),
]


def named(value: Any) -> str | None:
    return type(value).__name__ if dataclasses.is_dataclass(value) else None


def test_columns_are_found_in_the_inputs():
    assert LAYOUT.names == ("gene", "age", "race", "weight")
    assert [LAYOUT.place(name) for name in LAYOUT.names] == [slice(0, 3), slice(3, 4), slice(4, 6), slice(6, 8)]
    assert [len(LAYOUT.values(name)) for name in LAYOUT.names] == [3, GRID, 2, GRID + 1]
    assert LAYOUT.texts("age")[:2] == ("0", "2.5")
    assert LAYOUT.texts("weight")[-1] == "missing"


@pytest.mark.parametrize("name", LAYOUT.names)
def test_every_value_that_is_put_is_read_back(name: str):
    inputs = world().inputs[: len(LAYOUT.values(name))]
    changed = LAYOUT.put(inputs, name, LAYOUT.values(name))
    assert LAYOUT.codes(changed, name).tolist() == list(range(len(inputs)))
    others = [other for other in LAYOUT.names if other != name]
    np.testing.assert_array_equal(LAYOUT.read(changed, others), LAYOUT.read(inputs, others))


@pytest.mark.parametrize(
    ("hidden", "known", "message"),
    [
        ("gen", ("age",), r"no column 'gen'; did you mean 'gene'\?"),
        ("gene", ("agee",), r"did you mean 'age'\?"),
        ("gene", ("age", "gene"), "among the known ones"),
        ("gene", ("age", "age"), "name one twice"),
    ],
)
def test_knowledge_that_means_nothing_is_refused(hidden: str, known: tuple[str, ...], message: str):
    with pytest.raises(DataError, match=message):
        world().knowledge(hidden, known)


def test_a_data_set_that_is_no_table_is_refused():
    with pytest.raises(DataError, match="takes a table"):
        Layout.of(())


@pytest.mark.parametrize("known", [("age", "race", "weight"), ("race",), ()], ids=["all", "race", "nothing"])
@pytest.mark.parametrize("attack", [*REGRESSION, TreeCounts()], ids=named)
def test_hidden_and_unknown_columns_of_a_person_never_reach_an_attack_on_a_regression(
    attack: AttributeAttack, known: tuple[str, ...]
):
    people = world()
    knowledge, (rows, outcomes) = people.knowledge(known=known), people.rows(600, 650)
    fitted = DecisionTreeRegressor(max_depth=5, random_state=0).fit(people.inputs[:600].numpy(), people.outcomes[:600].numpy())
    attacked = target(TreeModel(fitted) if isinstance(attack, TreeCounts) else None)
    forged = LAYOUT.put(rows, "gene", LAYOUT.values("gene")[0])
    for name in knowledge.unknown:
        forged = LAYOUT.put(forged, name, LAYOUT.values(name)[0])
    one, other = (attack.run(attacked, knowledge, knowledge.people(each, outcomes), generator()) for each in (rows, forged))
    np.testing.assert_array_equal(one, other)
    assert one.shape == (50, 3)
    np.testing.assert_allclose(one.sum(1), 1)


@pytest.mark.parametrize("known", [("age", "race", "weight"), ("race",)], ids=["all", "race"])
@pytest.mark.parametrize("attack", CLASSIFICATION, ids=lambda attack: repr(attack)[:60])
def test_hidden_and_unknown_columns_never_reach_an_attack_on_a_classifier(attack: AttributeAttack, known: tuple[str, ...]):
    people = world()
    people = World(people.inputs, (people.outcomes > 0).long())
    knowledge, (rows, classes) = people.knowledge(known=known), people.rows(600, 650)
    forged = rows.clone()
    for name in (knowledge.hidden, *knowledge.unknown):
        forged = LAYOUT.put(forged, name, LAYOUT.values(name)[0])
    attacked = classifier(Access.SCORES)
    one, other = (attack.run(attacked, knowledge, knowledge.people(each, classes), generator()) for each in (rows, forged))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one.sum(1), 1)


@pytest.mark.parametrize("attack", REGRESSION, ids=lambda attack: repr(attack)[:50])
def test_with_all_other_columns_known_the_gene_is_found(attack: AttributeAttack):
    people = world()
    knowledge, (rows, outcomes) = people.knowledge(), people.rows(600, 1400)
    posterior = attack.run(target(), knowledge, knowledge.people(rows, outcomes), generator())
    assert np.mean(guesses(posterior) == LAYOUT.codes(rows, "gene")) > 0.9


def test_the_posterior_is_that_of_bayes():
    """By hand: prior times the normal density of the residual, on one person."""
    people = world()
    knowledge, (rows, outcomes) = people.knowledge(), people.rows(600, 601)
    found = MaximumAPosteriori(error=Gaussian(0.1)).run(target(), knowledge, knowledge.people(rows, outcomes), generator())
    counts = np.bincount(LAYOUT.codes(knowledge.population, "gene"), minlength=3) + 1
    rest = float(rows[0, 3:] @ TRUE[3:])
    by_hand = [counts[v] * math.exp(-((float(outcomes[0]) - rest - float(TRUE[v])) ** 2) / 0.02) for v in range(3)]
    np.testing.assert_allclose(found[0], np.array(by_hand) / np.sum(by_hand), rtol=1e-4)


def test_for_a_linear_model_the_first_order_is_the_black_box_attack():
    people = world()
    knowledge, (rows, outcomes) = people.knowledge(), people.rows(600, 700)
    seen = knowledge.people(rows, outcomes)
    black, white = (attack.run(target(), knowledge, seen, generator()) for attack in (MaximumAPosteriori(), FirstOrder()))
    np.testing.assert_allclose(black, white, atol=1e-4)


def test_unknown_columns_are_averaged_over():
    """Draws come to what the closed form says, where the unknown part of the outcome is close to normal."""
    people = world()
    knowledge, (rows, outcomes) = people.knowledge(known=("age", "weight")), people.rows(600, 700)
    seen = knowledge.people(rows, outcomes)
    drawn = MaximumAPosteriori(draws=400).run(target(), knowledge, seen, generator())
    np.testing.assert_allclose(drawn, FirstOrder().run(target(), knowledge, seen, generator()), atol=0.06)


def test_a_prior_given_the_known_columns_beats_shares_alone_where_columns_go_together():
    people = world(deviation=0.3)
    knowledge, (rows, outcomes) = people.knowledge(known=("race",)), people.rows(600, 1400)
    seen, truth = knowledge.people(rows, outcomes), LAYOUT.codes(rows, "gene")
    found = [
        np.mean(guesses(MaximumAPosteriori(prior=prior).run(target(), knowledge, seen, generator())) == truth)
        for prior in (Independent(), Conditional())
    ]
    assert found[1] > found[0] + 0.1


@pytest.mark.parametrize("attack", [MaximumAPosteriori(error=Gaussian(0.002)), FirstOrder(error=Gaussian(0.002))], ids=named)
def test_a_number_is_found_to_its_grid(attack: AttributeAttack):
    people = world()
    knowledge = people.knowledge("age", ("gene", "race", "weight"))
    rows = people.rows(600, 700)[0]
    exact = rows @ TRUE  # the outcome without error: the age follows from it
    posterior = attack.run(target(), knowledge, knowledge.people(rows, exact), generator())
    assert np.abs(guesses(posterior) - LAYOUT.codes(rows, "age")).max() <= 1


def test_confidence_scores_follow_the_three_cases():
    """One value right: it. Several: the most confident. None: the least confident."""
    knowledge = world().knowledge()
    rows = torch.zeros(3, 8)
    rows[:, 3] = torch.tensor([0.0, 1.0, 1.0])  # age moves the score of class 1 by 0.3 / 0.05
    rows[0, 3] = -0.1 / 0.3  # score of genes A, B, C: negative, negative, positive
    classes = torch.tensor([1, 1, 0])
    found = ConfidenceScores().run(classifier(Access.SCORES), knowledge, knowledge.people(rows, classes), generator())
    assert guesses(found).tolist() == [2, 2, 0]


def test_labels_only_asks_for_nothing_but_labels():
    people = world()
    knowledge, (rows, outcomes) = people.knowledge(), people.rows(600, 900)
    seen = knowledge.people(rows, (outcomes > 0).long())
    found = LabelsOnly().run(classifier(Access.LABEL), knowledge, seen, generator())
    assert np.mean(guesses(found) == LAYOUT.codes(rows, "gene")) > 0.45  # a third of the people has each gene
    with pytest.raises(AccessError):
        ConfidenceScores().run(classifier(Access.LABEL), knowledge, seen, generator())


def test_a_tree_as_a_module_says_what_scikit_learn_says():
    people = world()
    fitted = DecisionTreeRegressor(random_state=0).fit(people.inputs[:400].numpy(), people.outcomes[:400].numpy())
    said = TreeModel(fitted)(people.inputs)[:, 0].numpy()
    np.testing.assert_allclose(said, fitted.predict(people.inputs.numpy()))


def test_a_fully_grown_tree_gives_away_its_members_and_a_linear_model_does_not():
    people = world(deviation=0.3)
    (trained, outcomes), (others, others_outcomes) = people.rows(600, 1000), people.rows(1000, 1400)
    tree = TreeModel(DecisionTreeRegressor(random_state=0).fit(trained.numpy(), outcomes.numpy()))
    gaps = {}
    for name, attack, model in (("tree", TreeCounts(), tree), ("linear", MaximumAPosteriori(), linear())):
        knowledge = people.knowledge()
        found = [
            (
                attack.run(target(model), knowledge, knowledge.people(rows[0], rows[1]), generator()),
                LAYOUT.codes(rows[0], "gene"),
            )
            for rows in ((trained, outcomes), (others, others_outcomes))
        ]
        figures = attribute_figures(knowledge, found[0], found[1], (others, others_outcomes))
        gaps[name] = figures.train_minus_held_out
    assert gaps["tree"].low is not None
    assert gaps["tree"].low > 0.1
    assert gaps["linear"].low is not None
    assert gaps["linear"].low < 0 < (gaps["linear"].high or 0)


def test_prior_error_model_and_imputation_see_the_population_and_nobody_who_is_attacked():
    """Attacked by themselves or among others, people get the same guesses; another population changes them."""
    people = world()
    for attack in REGRESSION:
        knowledge = people.knowledge()
        rows, outcomes = people.rows(600, 700)
        alone = attack.run(target(), knowledge, knowledge.people(rows[:1], outcomes[:1]), generator())
        among = attack.run(target(), knowledge, knowledge.people(rows, outcomes), generator())
        np.testing.assert_allclose(alone[0], among[0], atol=1e-6)
        other = AttributeKnowledge(LAYOUT, "gene", knowledge.known, *people.rows(700, 800))
        assert np.abs(attack.run(target(), other, other.people(rows, outcomes), generator()) - among).max() > 1e-3
    knowledge, (rows, outcomes) = people.knowledge(), people.rows(600, 700)
    given = knowledge.known
    for impostor in (impute(knowledge, knowledge.people(rows, outcomes)), with_outcome(knowledge, given, rows, outcomes)):
        assert impostor.shape == (100, 3)
    forged = LAYOUT.put(rows, "gene", LAYOUT.values("gene")[0])
    own, other = (with_outcome(knowledge, given, inputs, outcomes) for inputs in (rows, forged))
    np.testing.assert_array_equal(own, other)


def test_those_without_a_model_come_in_order():
    people = world()
    knowledge, (rows, outcomes) = people.knowledge(), people.rows(600, 1400)
    truth = LAYOUT.codes(rows, "gene")
    found = (np.full((800, 3), 1 / 3), truth)
    figures = attribute_figures(knowledge, found, found, (rows, outcomes))
    prior, imputed, best = figures.prior, figures.imputation, figures.ideal
    assert difference(imputed, prior, "gap").value == pytest.approx(0.6 / 2, abs=0.15)
    assert (difference(imputed, prior, "gap").low or 0) > 0.1
    assert (difference(best, imputed, "gap").low or 0) > 0.05
    assert figures.imputation_with_outcome == dataclasses.replace(best, name="imputation_with_outcome")


def test_who_knows_the_outcome_alone_has_more_than_the_prior_and_less_than_who_knows_everything():
    people = world()
    knowledge, (rows, outcomes) = people.knowledge("gene", ()), people.rows(600, 1400)
    found = (np.full((800, 3), 1 / 3), LAYOUT.codes(rows, "gene"))
    figures = attribute_figures(knowledge, found, found, (rows, outcomes))
    assert figures.imputation == dataclasses.replace(figures.prior, name="imputation")
    assert (difference(figures.imputation_with_outcome, figures.prior, "gap").low or 0) > 0.05
    assert (difference(figures.ideal, figures.imputation_with_outcome, "gap").low or 0) > 0.05


def test_a_guess_of_a_number_is_right_within_a_twentieth_of_its_range():
    knowledge = world().knowledge("weight", ("age",))
    posterior = np.eye(GRID + 1)[[10, 10, 10, GRID, GRID]]
    truth = np.array([12, 13, 10, GRID, GRID - 1])
    assert share_right(knowledge, posterior, truth, "x").value == pytest.approx(3 / 5)


def test_the_interval_of_a_difference_covers_it_at_its_rate():
    generator = np.random.default_rng(0)
    covered = 0
    for one, other in zip(generator.binomial(300, 0.6, 400), generator.binomial(100, 0.5, 400), strict=True):
        found = difference(proportion(int(one), 300), proportion(int(other), 100), "gap")
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.1 <= found.high
    assert covered / 400 >= 0.94


def test_a_number_that_may_be_missing_is_imputed_as_missing_where_its_cells_are_and_as_a_number_elsewhere():
    """Missing is where the race is y; elsewhere the weight follows from the age, and none of it is drawn to the middle."""
    inputs = world().inputs.clone()
    is_y = inputs[:, 5] == 1
    inputs[:, 6] = torch.where(is_y, 0.0, 0.4 + 0.1 * inputs[:, 3])
    inputs[:, 7] = is_y.float()
    made = World(inputs, torch.zeros(len(inputs)))
    knowledge = made.knowledge("weight", ("age", "race"))
    rows, outcomes = made.rows(600, 1400)
    found = impute(knowledge, knowledge.people(rows, outcomes))
    truth = LAYOUT.codes(rows, "weight")
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_array_equal(found.argmax(1) == GRID, truth == GRID)
    assert share_right(knowledge, found, truth, "imputation").value == 1.0
