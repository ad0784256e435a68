"""Figures from scores, against textbook values, brute force and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from evaluation import metrics
from evaluation.metrics import ScoreError
from evaluation.result import Measure


def ends(measure: Measure) -> tuple[float, float]:
    assert measure.low is not None
    assert measure.high is not None
    return measure.low, measure.high


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 40), st.booleans())
def test_auc_is_the_share_of_pairs_in_the_right_order(seed: int, members: int, others: int, ties: bool):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 5, members + others).astype(float) if ties else generator.normal(size=members + others)
    is_member = np.arange(members + others) < members
    found = metrics.area_under_roc(scores, is_member)
    assert found.value == pytest.approx(roc_auc_score(is_member, scores))
    assert 0 <= ends(found)[0] <= (found.value or 0.0) <= ends(found)[1] <= 1


def test_a_higher_score_means_member():
    """Rule 14: the direction is fixed once."""
    is_member = np.array([True] * 50 + [False] * 50)
    assert metrics.area_under_roc(is_member.astype(float), is_member).value == 1.0
    assert metrics.area_under_roc(-is_member.astype(float), is_member).value == 0.0
    right = metrics.rate_at(is_member + np.linspace(0, 0.1, 100), is_member, 0.1)
    wrong = metrics.rate_at(np.linspace(0, 0.1, 100) - is_member, is_member, 0.1)
    assert (right.value, wrong.value) == (1.0, 0.0)


def test_the_interval_of_the_auc_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    is_member = np.arange(160) < 80
    covered = 0
    for _ in range(400):
        found = metrics.area_under_roc(generator.normal(size=160) + 0.5 * is_member, is_member)
        low, high = ends(found)
        covered += low <= 0.6382 <= high  # Φ(0.5/√2)
    assert 0.92 <= covered / 400 <= 0.98


def test_a_perfect_auc_keeps_an_interval():
    found = metrics.area_under_roc(np.arange(20.0), np.arange(20) >= 10)
    assert found.value == 1.0
    assert found.low == pytest.approx(0.6915, abs=1e-3)  # 10 of 10, Clopper–Pearson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (1, 1000, 0.000025, 0.005558), (50, 100, 0.3983, 0.6017)],
)
def test_clopper_pearson_has_its_published_values(successes: int, trials: int, low: float, high: float):
    """The third is the method's own example: one of 1,000 may be anything from 0.0025% to 0.56%."""
    found = metrics.proportion(successes, trials)
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def test_a_rate_that_the_non_members_cannot_resolve_is_refused():
    """Rule 4: 1,000 non-members cannot resolve 0.1%."""
    scores = np.random.default_rng(0).normal(size=2000)
    is_member = np.arange(2000) < 1000
    refused = metrics.rate_at(scores, is_member, 0.001)
    assert refused.value is None
    assert "1000 non-members cannot resolve" in refused.note
    assert "4000 are needed" in refused.note
    assert metrics.rate_at(scores, is_member, 0.01).value is not None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(100, 300), st.floats(0.05, 0.5), st.booleans())
def test_false_positives_stay_within_the_rate(seed: int, others: int, rate: float, ties: bool):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 9, others + 50).astype(float) if ties else generator.normal(size=others + 50)
    is_member = np.arange(others + 50) < 50
    found = metrics.rate_at(scores, is_member, rate)
    threshold = np.sort(scores[~is_member])[others - 1 - int(np.floor(rate * others + 1e-9))]
    assert (scores[~is_member] > threshold).mean() <= rate + 1e-9
    assert found.value == (scores[is_member] > threshold).mean()


def test_the_roc_rises_from_corner_to_corner():
    generator = np.random.default_rng(3)
    is_member = np.arange(900) < 400
    scores = generator.normal(size=900) + is_member
    curve = metrics.roc(scores, is_member)
    false, true = np.array(curve.false_positive_rate), np.array(curve.true_positive_rate)
    assert (false[0], true[0]) == (0.0, 0.0) or false[0] == 0.0
    assert (false[-1], true[-1]) == (1.0, 1.0)
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()
    area = float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))
    assert area == pytest.approx(metrics.area_under_roc(scores, is_member).value, abs=0.02)
    assert len(false) <= 152


@pytest.mark.parametrize(
    ("scores", "members", "message"),
    [
        (np.array([1.0, np.nan]), np.array([True, False]), "NaN"),
        (np.array([1.0, 2.0]), np.array([True, True]), "empty"),
        (np.array([1.0, 2.0, 3.0]), np.array([True, False]), "shape"),
    ],
)
def test_scores_that_mean_nothing_are_refused(scores: np.ndarray, members: np.ndarray, message: str):
    with pytest.raises(ScoreError, match=message):
        metrics.area_under_roc(scores, members)


def test_infinite_scores_are_ordered_like_others():
    assert metrics.area_under_roc(np.array([np.inf, 0.0, -np.inf]), np.array([True, False, False])).value == 1.0


def test_seeds_that_agree_by_luck_do_not_shrink_the_interval():
    single = Measure(name="a", value=0.5, low=0.4, high=0.6)
    together = metrics.over_seeds([single] * 4, "a")
    assert together.value == 0.5
    assert together.high == pytest.approx(0.5 + 0.1 / 2)


def test_seeds_that_differ_widen_the_interval_by_students_t():
    values = [Measure(name="a", value=value, low=value, high=value) for value in (0.4, 0.5, 0.6)]
    together = metrics.over_seeds(values, "a")
    assert together.high == pytest.approx(0.5 + 4.3027 * 0.1 / np.sqrt(3), abs=1e-3)


def test_one_seed_keeps_its_own_interval_and_none_is_not_a_number():
    single = Measure(name="a", value=0.5, low=0.4, high=0.6)
    assert (metrics.over_seeds([single], "a").low, metrics.over_seeds([single], "a").high) == (0.4, 0.6)
    refused = Measure(name="a", value=None, note="refused: too few")
    assert metrics.over_seeds([refused, refused], "a").note == "refused: too few"
