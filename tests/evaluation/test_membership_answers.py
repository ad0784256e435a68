"""Attacks that adapt to a guard, on models whose best attack is known."""

import dataclasses
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from dptrain.fleet import Fleet, draw_membership
from dptrain.release.guard import Owner, fitted
from evaluation.access import Access
from evaluation.membership import Knowledge
from evaluation.membership.answers import AnswerRatio, answer_ratio
from evaluation.membership.lira import Lira
from evaluation.membership.ranks import RankRatio, ranks
from evaluation.membership.repeated import RepeatedQueries
from evaluation.metrics import area_under_roc
from evaluation.target import Target
from tests.evaluation.worlds import KNOWING_EASE, World, classes_world, mean_area, numbered, target_of

Shown = Callable[[np.ndarray], np.ndarray]
"""Logits ``[..., classes]`` to the logarithms of what is shown."""
CLASSES = 8


def label_only(logits: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.eye(logits.shape[-1])[logits.argmax(-1)], 1e-30))


def scores(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def rounded(logits: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.round(scores(logits), 1), 1e-30))


def best_three(logits: np.ndarray) -> np.ndarray:
    """The others share what is left."""
    found = scores(logits)
    kept = np.argsort(np.argsort(-found, axis=-1), axis=-1) < 3
    left = (1 - np.where(kept, found, 0).sum(-1, keepdims=True)) / (found.shape[-1] - 3)
    return np.log(np.where(kept, found, left))


def many_classes(
    seed: int, shown: Shown | None = None, gap: float = 1.5, models: int = 32, examples: int = 600
) -> tuple[World, World]:
    """Bare, and with only ``shown`` to be seen: the true class's logit is ease + gap · member + N(0, 1), others' N(0, 1)."""
    generator = np.random.default_rng(seed)
    labels, ease = generator.integers(0, CLASSES, examples), generator.normal(1.0, 1.5, examples)
    membership = draw_membership(models + 1, examples, 0.5, seed)
    logits = generator.normal(size=(models + 1, examples, CLASSES))
    logits[:, np.arange(examples), labels] += ease + gap * membership
    found = []
    for answers in (logits, logits if shown is None else shown(logits)):
        knowledge = Knowledge(fleet=Fleet(answers[1:], membership[1:], "digest"))
        found.append(World(target_of(answers[0]), numbered(examples, labels), knowledge, membership[0]))
    return found[0], found[1]


def gap_attack(world: World) -> float:
    """Yeom et al. 2018: whoever is classified correctly is a member."""
    right = world.target.behind(Access.LABEL).labels(world.examples.inputs) == world.examples.targets.numpy()
    return float(area_under_roc(right.astype(float), world.is_member).value or 0.0)


def test_of_labels_alone_the_ratio_keeps_at_least_the_power_of_the_gap_attack():
    worlds = [many_classes(seed, label_only)[1] for seed in range(4)]
    gap = float(np.mean([gap_attack(world) for world in worlds]))
    assert gap > 0.58
    assert mean_area(AnswerRatio(), worlds) > gap + 0.02  # it also knows how hard each example is
    assert mean_area(RankRatio(), worlds) > gap + 0.02


def test_the_three_best_with_scores_leave_nearly_all_that_scores_leave():
    pairs = [many_classes(seed, best_three) for seed in range(3)]
    bare = mean_area(Lira(), [bare for bare, _ in pairs])
    through = [guarded for _, guarded in pairs]
    assert bare > 0.78
    assert mean_area(AnswerRatio(), through) > bare - 0.03
    labels = mean_area(AnswerRatio(), [many_classes(seed, label_only)[1] for seed in range(3)])
    assert mean_area(AnswerRatio(), through) > labels + 0.06


def test_of_rounded_scores_the_empirical_ratio_gets_more_than_the_gaussian_one():
    """Most scores round to 0 or 1, where the signal jumps and a Gaussian says little."""
    worlds = [many_classes(seed, rounded)[1] for seed in range(4)]
    assert mean_area(AnswerRatio(), worlds) > mean_area(Lira(), worlds) + 0.02


def test_of_gaussian_signals_it_comes_close_to_the_best_attack():
    worlds = [classes_world(1.0, seed=seed) for seed in range(2)]
    assert mean_area(AnswerRatio(), worlds) == pytest.approx(KNOWING_EASE, abs=0.03)


@pytest.mark.parametrize("attack", [AnswerRatio(), RankRatio()])
def test_of_models_that_do_not_leak_it_finds_nothing(attack: AnswerRatio | RankRatio):
    worlds = [many_classes(seed, best_three, gap=0.0)[1] for seed in range(4)]
    assert mean_area(attack, worlds) == pytest.approx(0.5, abs=0.03)


def test_an_example_without_models_on_one_side_gets_the_pooled_ratio():
    generator = np.random.default_rng(0)
    inside = draw_membership(16, 200, 0.5, 0)
    inside[:, 0] = False
    shadows = (generator.random((16, 200)) < 0.5 + 0.4 * inside).astype(float)
    shadows[:, 0] = 0.5  # a value that nobody else shows
    found = answer_ratio(np.ones(200), shadows, inside)
    assert np.isfinite(found).all()
    assert found[1:].mean() > 0.2


def test_symbols_and_smoothing_do_not_depend_on_the_order_or_the_scale_of_the_signal():
    generator = np.random.default_rng(1)
    inside = draw_membership(24, 150, 0.5, 1)
    shadows = generator.integers(0, 5, (24, 150)) + inside
    observed = generator.integers(0, 6, 150)
    found = answer_ratio(observed.astype(float), shadows.astype(float), inside)
    assert np.allclose(found, answer_ratio(np.exp(observed), np.exp(shadows), inside))


def mostly_refused(seed: int, at: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What one model shows, what shadow models show and had, and what the one had: 4.5% of answers to members are given, and
    0.5% of those to others, and all that are given differ."""
    generator = np.random.default_rng(seed)
    inside = generator.random((33, 2000)) < 0.5
    given = generator.random(inside.shape) < np.where(inside, 0.045, 0.005)
    shown = np.where(given, generator.normal(size=inside.shape), at)
    return shown[0], shown[1:], inside[1:], inside[0]


@pytest.mark.parametrize("at", [-5.0, 5.0])
def test_where_most_queries_get_one_answer_the_few_others_still_count(at: float):
    """At either end of the range: at the lowest a cut of equal parts would have put all of it into one symbol."""
    observed, shadows, inside, member = mostly_refused(0, at)
    best = area_under_roc((observed != at).astype(float), member).value or 0.0
    assert best > 0.515
    assert (area_under_roc(answer_ratio(observed, shadows, inside), member).value or 0.0) > best - 0.005


def test_ranks_forget_the_scores_and_keep_their_order():
    logits = np.array([[3.0, 1.0, 2.0, 0.0], [0.0, 0.0, 5.0, 0.0]])
    assert ranks(logits).tolist() == [[0, 2, 1, 3], [2, 2, 0, 2]]
    assert ranks(np.tanh(logits)).tolist() == ranks(logits).tolist()
    bare, guarded = many_classes(0, lambda logits: np.log(scores(3 * logits)))
    assert guarded.area(RankRatio()) == bare.area(RankRatio())


class Noisy(nn.Module):
    """Logits with noise that the input alone decides: the same query gets the same answer, its neighbour another."""

    def __init__(self, logits: np.ndarray, size: float):
        super().__init__()
        self.logits, self.size = torch.from_numpy(logits).float(), size

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        noise = [np.random.default_rng(zlib.crc32(row.numpy().tobytes())).normal(size=self.logits.shape[1]) for row in inputs]
        return self.logits[inputs[:, 0].round().long()] + self.size * torch.from_numpy(np.stack(noise)).float()


def test_copies_average_away_what_is_drawn_by_the_input_and_repeats_do_not():
    """A hundred identical queries are as good as one; near-identical ones undo most of the noise."""
    bare, _ = many_classes(0, examples=400)
    table = bare.target.behind(Access.LOGITS).logits(bare.examples.inputs)
    target = Target(Noisy(table, 4.0), Access.SCORES, bounds=(0.0, 1e6), classes=CLASSES)
    noisy = dataclasses.replace(bare, target=target)
    again = [target.scores(bare.examples.inputs) for _ in range(2)]
    assert np.array_equal(again[0], again[1])
    once = noisy.area(RepeatedQueries(copies=1))
    assert noisy.area(RepeatedQueries(copies=16, size=0.0)) == pytest.approx(once, abs=1e-9)
    averaged = noisy.area(RepeatedQueries(copies=16, size=1e-7))
    assert averaged > once + 0.06
    assert bare.area(RepeatedQueries(copies=1)) > averaged


class Nearest(nn.Module):
    """Answers the example whose number is nearest to the first input."""

    def __init__(self, logits: np.ndarray):
        super().__init__()
        self.logits = torch.from_numpy(logits).float()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.logits[inputs[:, 0].round().long()]


def test_report_noisy_max_is_averaged_away_by_copies_and_not_by_repeats():
    """Report noisy max, keyed by the input: identical queries are one release, near-identical ones are many."""
    bare, _ = many_classes(1, examples=400)
    table = bare.target.behind(Access.LOGITS).logits(bare.examples.inputs)
    target = Target(Nearest(table), Access.SCORES, bounds=(0.0, 1e6), classes=CLASSES)
    owner = Owner(target.behind(Access.SCORES).scores, (2,), target.bounds, CLASSES, b"secret", "the model")
    target.guard = fitted("noisy_max8", owner)
    noisy = dataclasses.replace(bare, target=target)
    once = noisy.area(RepeatedQueries(copies=1))
    assert noisy.area(RepeatedQueries(copies=16, size=0.0)) == pytest.approx(once, abs=1e-9)
    assert noisy.area(RepeatedQueries(copies=16, size=1e-7)) > once + 0.03
