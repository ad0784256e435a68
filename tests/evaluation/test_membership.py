"""Each attack finds what its paper says that it finds, where the best attack is known, and nothing where nothing is."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import norm

from dptrain.errors import UserError
from dptrain.fleet import Fleet
from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack, NotApplicable
from evaluation.membership.calibrated import CalibratedLoss
from evaluation.membership.informia import InfoRmia, OfflineInfoRmia
from evaluation.membership.lira import Lira, OfflineLira, as_one, log_likelihood_ratio, standardised
from evaluation.membership.quantile import QuantileRegression
from evaluation.membership.reference import group_means
from evaluation.membership.rmia import OfflineRmia, Rmia, correction, relation, share_above
from evaluation.membership.rmia import offline as offline_probability
from evaluation.membership.rmia import online as online_probability
from evaluation.membership.shadow import ShadowClassifier
from evaluation.membership.signal import log_likelihood, log_softmax, outputs_of, rescaled, residual_scale, signal
from evaluation.membership.threshold import (
    Confidence,
    ConfidencePerClass,
    Entropy,
    EntropyPerClass,
    LossPerClass,
    LossThreshold,
    ModifiedEntropy,
    ModifiedEntropyPerClass,
    by_class,
)
from evaluation.metrics import area_under_roc
from evaluation.plan import ATTACKS
from tests.evaluation.worlds import (
    KNOWING_EASE,
    KNOWING_NOTHING,
    World,
    classes_world,
    mean_area,
    numbered,
    target_of,
    values_world,
)

SEEDS = range(4)


# -- one model's answer ---------------------------------------------------------------------------------------------


def test_the_signal_and_the_likelihood_of_classes_are_those_of_the_papers():
    logits = np.array([[[2.0, 1.0, -1.0], [300.0, 0.0, 0.0]]])
    targets = torch.tensor([0, 1])
    probability = np.exp(2) / np.exp([2.0, 1.0, -1.0]).sum()
    assert signal(logits, targets)[0, 0] == pytest.approx(np.log(probability / (1 - probability)))
    assert log_likelihood(logits, targets)[0] == pytest.approx([np.log(probability), -300.0])
    assert residual_scale(logits, targets, np.ones((1, 2), dtype=bool)) == 1.0


def test_the_signal_and_the_likelihood_of_values_are_those_of_the_residual():
    predictions, targets = np.array([[3.0], [0.0]]), torch.tensor([1.0, 8.0])
    assert signal(predictions, targets) == pytest.approx([-(2 ** (2 / 3)), -4.0])
    assert log_likelihood(predictions, targets, scale=2.0) == pytest.approx([-0.5, -8.0])
    assert residual_scale(predictions, targets, np.array([True, True])) == pytest.approx(np.sqrt((4 + 64) / 2))


def test_means_with_and_without_an_example_borrow_the_gap_where_a_group_is_empty():
    values = np.array([[3.0, 7.0], [5.0, 9.0], [0.0, 5.0], [2.0, 7.0]])
    inside = np.array([[True, False], [True, False], [False, False], [False, False]])
    found = group_means(values, inside)
    assert found.inside == pytest.approx([4.0, 7.0 + 3.0])
    assert found.outside == pytest.approx([1.0, 7.0])


def test_one_model_tells_the_gap_between_its_examples_and_the_others():
    values, inside = np.array([[3.0, 5.0, 1.0, 2.0]]), np.array([[True, True, False, False]])
    found = group_means(values, inside)
    assert found.inside == pytest.approx([3.0, 5.0, 1.0 + 2.5, 2.0 + 2.5])
    assert found.outside == pytest.approx([3.0 - 2.5, 5.0 - 2.5, 1.0, 2.0])
    for nobody in (np.ones((1, 4), dtype=bool), np.zeros((1, 4), dtype=bool)):
        with pytest.raises(UserError, match=r"too few.*evaluation\.shadow_models"):
            group_means(values, nobody)


# -- thresholds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [LossThreshold(), Confidence(), Entropy(), ModifiedEntropy()])
def test_a_threshold_finds_what_can_be_found_without_knowing_how_hard_an_example_is(attack: MembershipAttack):
    """With two classes and confident answers all four are in the same order."""
    found = mean_area(attack, [classes_world(1.0, middle=6.0, seed=seed) for seed in SEEDS])
    assert found == pytest.approx(KNOWING_NOTHING, abs=0.03)


def test_entropies_are_in_the_order_of_their_definition():
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.4, 0.3, 0.3], [0.98, 0.01, 0.01]])
    outputs, targets = np.log(scores), torch.tensor([0, 0, 2, 0])
    assert np.exp(-Entropy().score(outputs, targets)) == pytest.approx(-(scores * np.log(scores)).sum(1))
    expected = [
        -(0.3 * np.log(0.7) + 0.2 * np.log(0.8) + 0.1 * np.log(0.9)),
        -(0.9 * np.log(0.1) + 0.8 * np.log(0.2) + 0.1 * np.log(0.9)),
        -(0.7 * np.log(0.3) + 0.4 * np.log(0.6) + 0.3 * np.log(0.7)),
        -(0.02 * np.log(0.98) + 2 * 0.01 * np.log(0.99)),
    ]
    assert np.exp(-ModifiedEntropy().score(outputs, targets)) == pytest.approx(expected)


def test_entropies_tell_very_confident_answers_apart():
    outputs = np.array([[40.0, 0.0], [60.0, 0.0], [80.0, 0.0]])
    for attack in (Confidence(), Entropy(), ModifiedEntropy(), LossThreshold()):
        found = attack.score(log_softmax(outputs), torch.tensor([0, 0, 0]))
        assert (np.diff(found) > 1).all(), attack


@pytest.mark.parametrize("attack", [LossPerClass(), ConfidencePerClass(), EntropyPerClass(), ModifiedEntropyPerClass()])
def test_a_threshold_for_each_class_sees_through_a_hard_class(attack: MembershipAttack):
    """Classes 6 apart, examples of one class .5: Φ(1/√(2 (.25 + 1))) = .736; one threshold for both gets less than .62."""
    worlds = [classes_world(1.0, middle=9.0, of_class=3.0, own=0.5, seed=seed) for seed in SEEDS]
    assert mean_area(attack, worlds) == pytest.approx(norm.cdf(1 / np.sqrt(2.5)), abs=0.03)
    assert mean_area(LossThreshold(), worlds) < 0.62


def test_a_class_that_the_population_lacks_is_measured_against_all():
    known, labels = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 100.0]), np.array([0, 0, 0, 0, 0, 1])
    found = by_class(np.array([3.0, 3.0]), np.array([0, 1]), known, labels, 2)
    assert found == pytest.approx([(3 - 2) / np.sqrt(2), (3 - known.mean()) / known.std()])


# -- other models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack", [CalibratedLoss(), Lira(), OfflineLira(), Rmia(), OfflineRmia(), InfoRmia(), OfflineInfoRmia()]
)
def test_with_other_models_the_best_attack_is_reached(attack: MembershipAttack):
    """Ease is known from 48 models; the log-probability is Gaussian, so that each of these is a likelihood ratio."""
    worlds = [classes_world(1.0, seed=seed) for seed in SEEDS]
    assert mean_area(attack, worlds) == pytest.approx(KNOWING_EASE, abs=0.025)
    assert mean_area(LossThreshold(), worlds) == pytest.approx(KNOWING_NOTHING, abs=0.03)


@pytest.mark.parametrize("attack", [Lira(), OfflineLira(), Rmia(), OfflineRmia(), InfoRmia(), CalibratedLoss()])
def test_the_same_attacks_work_on_values(attack: MembershipAttack):
    worlds = [values_world(1.0, seed=seed) for seed in SEEDS]
    assert mean_area(attack, worlds) == pytest.approx(KNOWING_EASE, abs=0.03)
    assert mean_area(LossThreshold(), worlds) < 0.65


@pytest.mark.parametrize(
    ("attack", "models"), [(Lira(), 140), (OfflineLira(), 140), (OfflineRmia(), 2), (CalibratedLoss(), 4), (OfflineLira(), 6)]
)
def test_few_models_find_less_and_many_keep_what_they_find(attack: MembershipAttack, models: int):
    found = mean_area(attack, [classes_world(1.0, models=models, seed=seed) for seed in SEEDS])
    assert KNOWING_NOTHING - 0.03 < found < KNOWING_EASE + 0.025
    if models == 140:
        assert found > KNOWING_EASE - 0.025


@pytest.mark.parametrize("attack", [Lira(), OfflineLira(), Rmia(), OfflineRmia(), CalibratedLoss()])
def test_one_reference_model_is_enough_to_find_more_than_the_loss_does(attack: MembershipAttack):
    """φ minus that of one other model: of variance 2, so Φ(1/2) = .691 where the model had not seen the example; less is known
    where it had, and where the gap between two examples is not that of the mean."""
    found = mean_area(attack, [classes_world(1.0, examples=4000, models=1, middle=-2.0, seed=seed) for seed in SEEDS])
    loss = mean_area(LossThreshold(), [classes_world(1.0, examples=4000, models=1, middle=-2.0, seed=seed) for seed in SEEDS])
    assert loss + 0.01 < found < norm.cdf(0.5) + 0.02


def test_lira_with_one_model_is_the_distance_from_the_middle_of_both_means():
    observed, shadows = np.array([2.0, 0.0, 1.0]), np.array([[1.0, 3.0, 0.0]])
    inside = np.array([[False, True, False]])
    gap = 3.0 - 0.5
    assert standardised(observed, shadows, inside) == pytest.approx([2 - 1, 0 - (3 - gap), 1 - 0])
    middle = np.array([1 + gap / 2, 3 - gap / 2, gap / 2])
    assert log_likelihood_ratio(observed, shadows, inside) == pytest.approx(gap * (observed - middle))


def test_a_shadow_classifier_learns_the_threshold_and_no_more():
    """It sees answers, not examples: what can be found without knowing ease."""
    found = mean_area(ShadowClassifier(), [classes_world(1.0, seed=seed) for seed in SEEDS])
    assert found == pytest.approx(KNOWING_NOTHING, abs=0.035)


def test_augmented_views_are_further_questions():
    """Four views with noise of their own and the example itself: five times the evidence, Φ(√5 · 1/√2) = .943."""
    world = classes_world(1.0, models=48)
    fleet, examples = world.knowledge.models(), world.examples
    generator = np.random.default_rng(7)
    ease = fleet.logits.sum(-1).mean(0) - 0.5

    def answers(membership: np.ndarray) -> np.ndarray:
        odds = ease + membership[:, None] + generator.normal(size=(len(membership), 4, len(ease)))
        return np.stack([odds, np.zeros_like(odds)], axis=-1)

    targets = torch.zeros(len(examples.indices), dtype=torch.long)
    inside = np.zeros((1, len(ease)), dtype=bool)
    inside[0, examples.indices] = world.is_member
    observed = answers(inside)[0]
    logits = np.zeros((len(ease), 2))
    logits[:, 0] = ease + inside[0] + generator.normal(size=len(ease))
    odds = ease + fleet.membership + generator.normal(size=fleet.membership.shape)
    shadows = np.stack([odds, np.zeros_like(odds)], axis=-1)
    viewed = Fleet(shadows, fleet.membership, "digest", views=answers(fleet.membership))

    def views(inputs: torch.Tensor) -> torch.Tensor:
        """View v of example i is row (v + 1) · n + i of the target's table."""
        rows = (torch.arange(4)[:, None] + 1) * len(ease) + inputs[:, 0]
        return rows[..., None]

    target = target_of(np.concatenate([logits, *observed]))
    asked = LabelledExamples(examples.inputs, targets, examples.indices)
    for attack in (Lira(), OfflineLira()):
        once = World(target, asked, Knowledge(fleet=viewed), world.is_member).area(attack)
        often = World(target, asked, Knowledge(fleet=viewed, views=views), world.is_member).area(attack)
        assert once == pytest.approx(KNOWING_EASE, abs=0.04)
        assert often == pytest.approx(norm.cdf(np.sqrt(5 / 2)), abs=0.03)


def test_a_view_that_says_nothing_costs_nothing():
    """Nine views of pure noise get no weight."""
    world = classes_world(1.0)
    fleet, generator = world.knowledge.models(), np.random.default_rng(3)
    inside, count = fleet.membership[:, world.examples.indices], len(world.examples.indices)
    observed = log_likelihood(outputs_of(world.target, world.examples.inputs, world.examples.targets), world.examples.targets)
    shadows = log_likelihood(fleet.logits[:, world.examples.indices], world.examples.targets)
    noise = generator.normal(size=(9, count)), generator.normal(size=(len(inside), 9, count))
    one, ones = as_one(np.vstack([observed, noise[0]]), np.concatenate([shadows[:, None], noise[1]], axis=1), inside)
    found = area_under_roc(log_likelihood_ratio(one, ones, inside), world.is_member).value or 0.0
    alone = area_under_roc(log_likelihood_ratio(observed, shadows, inside), world.is_member).value or 0.0
    assert found == pytest.approx(alone, abs=0.01)


# -- RMIA's parts ---------------------------------------------------------------------------------------------------


def test_the_reference_probability_is_that_of_the_paper():
    references = np.log(np.array([[0.8], [0.6], [0.1], [0.3]]))
    inside = np.array([[True], [True], [False], [False]])
    assert np.exp(online_probability(references, inside)) == pytest.approx([(0.7 + 0.2) / 2])
    assert np.exp(offline_probability(references, inside, 0.3)) == pytest.approx([0.5 * (1.3 * 0.2 + 0.7)])
    assert np.exp(offline_probability(references, inside, 1.0)) == pytest.approx([0.2])


def test_the_probability_that_no_model_gives_follows_from_the_papers_relation():
    """p_in = a p_out + 1 − a, with a by means: (1 − .9) / (1 − .6) = .25 of what is missing outside is missing inside."""
    references = np.log(np.array([[0.9, 0.5, 0.7, 0.9]]))
    inside = np.array([[True, False, False, True]])
    a = relation(references, inside)
    assert a == pytest.approx(0.25)
    assert correction(references, inside) == a
    found = np.exp(online_probability(references, inside))
    assert found == pytest.approx([(0.9 + 0.6) / 2, (0.5 + 0.875) / 2, (0.7 + 0.925) / 2, (0.9 + 0.6) / 2])
    without = np.array([0.6, 0.5, 0.7, 0.6])
    assert np.exp(offline_probability(references, inside, a)) == pytest.approx(0.5 * ((1 + a) * without + 1 - a))


def test_the_relation_has_no_negative_probabilities_and_no_infinite_ones():
    references = np.array([[np.log(0.2), -745.0, 0.0, np.log(0.9)]])
    inside = np.array([[True, True, True, False]])
    for a in (0.0, 0.1, 1.0):
        assert np.isfinite(offline_probability(references, inside, a)).all()
    assert relation(references, inside) == 1.0
    assert relation(np.zeros((1, 4)), inside) == 0.0
    assert np.isfinite(online_probability(references, inside)).all()
    with pytest.raises(UserError, match=r"too few.*evaluation\.shadow_models"):
        relation(references, np.ones((1, 4), dtype=bool))


def test_the_score_is_the_share_of_the_population_and_ties_are_in_the_order_of_the_ratio():
    found = share_above(np.array([0.5, 9.0, 8.0, -1.0]), np.array([0.0, 1.0, 2.0, 3.0]))
    assert np.floor(found * 4) / 4 == pytest.approx([0.25, 1.0, 1.0, 0.0])
    assert found[1] > found[2]


def test_the_offline_correction_is_found_on_shadow_models():
    """Likelihoods of members are higher by a factor: no constant helps, so a is 1. Where out-models say nothing, a is 0."""
    world = classes_world(1.0)
    fleet, examples = world.knowledge.models(), world.examples
    references = log_likelihood(fleet.logits[:, examples.indices], examples.targets)
    assert correction(references, fleet.membership[:, examples.indices]) >= 0.9
    generator = np.random.default_rng(0)
    inside = generator.random((16, 500)) < 0.5
    noise = np.log(generator.uniform(0.001, 0.5, inside.shape))
    assert correction(np.where(inside, np.log(0.9) + 0.01 * noise, noise), inside) < 0.9


# -- InfoRMIA ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [InfoRmia(), OfflineInfoRmia()])
def test_informia_is_the_mean_log_ratio_to_the_population(attack: InfoRmia):
    """Of both examples p_in is .9 and p_out .25, the mean of .2 and .3; of the population, which no model had, p_out is .5."""
    shadows = np.array([[0.9, 0.2], [0.9, 0.3], [0.2, 0.9], [0.3, 0.9]])
    inside = np.array([[True, False], [True, False], [False, True], [False, True]])
    says = np.array([0.75, 0.125, 0.5, 0.25, 0.125])

    def answers(probability: np.ndarray) -> np.ndarray:
        return np.log(np.stack([probability, 1 - probability], axis=-1))

    of_all = np.concatenate([shadows, np.full((4, 3), 0.5)], axis=1)
    fleet = Fleet(answers(of_all), np.concatenate([inside, np.zeros((4, 3), dtype=bool)], axis=1), "digest")
    everyone = numbered(5, np.zeros(5, dtype=np.int64))
    examples, population = (
        LabelledExamples(everyone.inputs[part], everyone.targets[part], everyone.indices[part])
        for part in (slice(0, 2), slice(2, 5))
    )
    found = attack.run(target_of(answers(says)), examples, Knowledge(population=population, fleet=fleet))
    if attack.offline:
        a = correction(np.log(shadows), inside)
        of_examples, of_population = ((1 + a) * 0.25 + 1 - a) / 2, ((1 + a) * 0.5 + 1 - a) / 2
    else:  # of the population p_in is a p_out + 1 − a, with a by means over all: .1 inside, and outside 4 · .75 and 12 · .5
        a = 0.1 / ((4 * 0.75 + 12 * 0.5) / 16)
        of_examples, of_population = (0.9 + 0.25) / 2, (0.5 + a * 0.5 + 1 - a) / 2
    divergence = -np.mean(np.log(says[2:] / of_population))
    assert found == pytest.approx(np.log(says[:2] / of_examples) + divergence, abs=1e-5)


def test_informia_orders_the_examples_of_one_target_as_rmia_does():
    world = classes_world(1.0)
    for ratio, count in ((InfoRmia(), Rmia()), (OfflineInfoRmia(), OfflineRmia())):
        by_ratio, by_count = (a.run(world.target, world.examples, world.knowledge) for a in (ratio, count))
        assert np.array_equal(np.argsort(by_ratio), np.argsort(by_count))


def test_informia_tells_a_target_that_knows_its_population_from_one_that_does_not():
    """A target that is better everywhere knows nothing more of its members: the mean over the population takes it out."""
    found = InfoRmia().score(np.array([0.0, 1.0]), np.array([-1.0, 0.0, 1.0]))
    assert InfoRmia().score(np.array([2.0, 3.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(found)


# -- the population alone -------------------------------------------------------------------------------------------


def test_quantile_regression_reads_how_hard_an_example_is_from_its_input():
    """Ease is three times the second input; 3,000 non-members teach it: nearly the best AUC, and the loss has .58."""
    worlds = [classes_world(1.0, population=3000, of_input=3.0, own=0.0, seed=seed) for seed in range(2)]
    assert mean_area(LossThreshold(), worlds) < 0.62
    assert KNOWING_EASE - 0.05 < mean_area(QuantileRegression(), worlds) < KNOWING_EASE + 0.03


def test_quantile_regression_of_values_does_not_see_the_value():
    worlds = [values_world(1.0, population=3000, seed=seed) for seed in range(2)]
    assert KNOWING_EASE - 0.05 < mean_area(QuantileRegression(), worlds) < KNOWING_EASE + 0.03


# -- all of them ----------------------------------------------------------------------------------------------------

OF_TEXT = {"zlib", "reference", "neighbourhood", "min_k", "min_k_plus_plus"}
ELSEWHERE = {"bayesian", "boundary", "noise", "repeated", "shift"} | OF_TEXT
"""Attacks whose worlds need inputs that mean something."""
REGISTERED = sorted(name for name in ATTACKS.names() if name.startswith("membership.") and "test_" not in name)
SCORED = [name for name in REGISTERED if name.split(".")[1] not in ELSEWHERE]
CLASSES_ALONE = ["confidence", "entropy", "modified_entropy", "threshold_per_class"]


@pytest.mark.parametrize("name", SCORED)
def test_no_attack_makes_anything_up(name: str):
    """No gap: chance, on average over targets."""
    worlds = [classes_world(0.0, models=24, middle=6.0, seed=seed) for seed in range(8)]
    assert mean_area(ATTACKS[name](), worlds) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", ["threshold", "calibrated_loss", "shadow_classifier", "lira", "rmia_offline", "quantile"])
def test_no_attack_makes_anything_up_of_values(name: str):
    worlds = [values_world(0.0, models=24, seed=seed) for seed in range(8)]
    assert mean_area(ATTACKS[f"membership.{name}"](), worlds) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", REGISTERED)
def test_an_attack_that_lacks_something_says_what_and_which_word_to_type(name: str):
    attack = ATTACKS[name]()
    assert attack.paper
    target = target_of(np.zeros((60, 2)), Access.WEIGHTS)
    if not attack.needs:
        return
    with pytest.raises(NotApplicable, match=r"retrain=|data\.split\.population|weights kept|pretraining\.steps"):
        attack.run(target, numbered(60, np.zeros(60, dtype=np.int64)), Knowledge())
    with pytest.raises(NotApplicable):
        Knowledge().check(attack.needs)


@pytest.mark.parametrize("name", CLASSES_ALONE)
def test_what_needs_classes_says_so_of_a_model_of_values(name: str):
    attack = ATTACKS[f"membership.{name}"]()
    world = values_world(1.0, examples=60, population=60, models=4)
    with pytest.raises(NotApplicable, match="value"):
        world.area(attack)


def test_log_odds_of_several_models_at_once_are_those_of_each():
    logits = np.random.default_rng(0).normal(size=(3, 2, 5, 4))
    labels = np.array([0, 1, 2, 3, 0])
    together = rescaled(log_softmax(logits), labels)
    assert together[2, 1] == pytest.approx(rescaled(log_softmax(logits[2, 1]), labels))


def test_a_population_that_no_model_had_serves_online_rmia():
    """Coins are of the audited examples alone; the order of these does not depend on the population."""
    world = classes_world(1.0)
    fleet, population = world.knowledge.models(), world.knowledge.held_out()
    membership = fleet.membership.copy()
    membership[:, population.indices] = False
    knowledge = dataclasses.replace(world.knowledge, fleet=dataclasses.replace(fleet, membership=membership))
    apart = dataclasses.replace(world, knowledge=knowledge)
    assert apart.area(Rmia()) == pytest.approx(world.area(Rmia()), abs=1e-9)
