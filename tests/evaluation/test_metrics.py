"""Figures from scores, against textbook values, brute force and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
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


def test_an_interval_near_an_end_is_as_lopsided_over_seeds_as_on_one():
    """20 of 20, three times: 60 of 60 of them has .940 at least, and what is known of twenty people is .832."""
    single = metrics.proportion(20, 20)
    apart, same = (metrics.over_seeds([single] * 3, "a", subjects=subjects) for subjects in ("dealt anew", "the same"))
    assert (apart.value, apart.high, same.high) == (1.0, 1.0, 1.0)
    assert apart.low == pytest.approx(1 - (1 - 0.8316) / np.sqrt(3), abs=1e-3)
    assert (apart.low or 1.0) < (metrics.proportion(60, 60).low or 0.0)
    assert same.low == single.low


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9, 0.95])
def test_the_mean_over_seeds_of_the_same_people_is_within_its_interval_19_times_of_20(share: float):
    """Where the person decides whether he is recognised, three seeds know no more than one: √3 narrower they are wrong once in
    four times."""
    generator = np.random.default_rng(0)
    draws = [[metrics.proportion(count, 20)] * 3 for count in generator.binomial(20, share, 800).tolist()]
    assert covered(draws, share, "the same") >= 0.94
    assert covered(draws, share, "dealt anew") < 0.94


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.98])
def test_the_mean_over_independent_seeds_is_within_its_interval_19_times_of_20(share: float):
    generator = np.random.default_rng(0)
    draws = [[metrics.proportion(count, 20) for count in seeds] for seeds in generator.binomial(20, share, (800, 3)).tolist()]
    assert covered(draws, share, "dealt anew") >= 0.95


def covered(draws: list[list[Measure]], truth: float, subjects: metrics.Subjects) -> float:
    found = [metrics.over_seeds(seeds, "a", subjects=subjects) for seeds in draws]
    return float(np.mean([(one.low or 0.0) <= truth <= (one.high or 0.0) for one in found]))


def test_two_that_are_equally_often_right_are_told_apart_once_in_forty_times():
    """Whether they err together or not; against the other's share alone, without its error, it was 7.7%."""
    generator = np.random.default_rng(0)
    for together in (0.0, 0.7):
        above = alone = 0
        for _ in range(1500):
            first, other = generator.random((2, 1000)) < 0.64
            second = np.where(generator.random(1000) < together, first, other)
            above += (metrics.paired_difference(first, second, "d").low or 0.0) > 0
            alone += (metrics.proportion(int(first.sum()), 1000).low or 0.0) > second.mean()
        assert above / 1500 <= 0.035
        if not together:
            assert alone / 1500 > 0.05


def test_a_paired_difference_is_narrower_the_more_two_err_together():
    first = np.arange(100) < 60
    apart, alike = np.arange(100) % 2 == 0, np.arange(100) < 50
    wide, narrow = (metrics.paired_difference(first, second, "d") for second in (apart, alike))
    assert wide.value == narrow.value == pytest.approx(0.1)
    assert (narrow.low or 0.0) > 0 > (wide.low or 0.0)
    unrelated = metrics.difference(metrics.proportion(60, 100), metrics.proportion(50, 100), "d")
    assert (wide.low, wide.high) == (pytest.approx(unrelated.low), pytest.approx(unrelated.high))
    with pytest.raises(ScoreError, match="of the same examples"):
        metrics.paired_difference(first, first[:50], "d")


def test_seeds_that_differ_widen_the_interval_by_students_t():
    values = [Measure(name="a", value=value, low=value, high=value) for value in (0.4, 0.5, 0.6)]
    together = metrics.over_seeds(values, "a")
    assert together.high == pytest.approx(0.5 + 4.3027 * 0.1 / np.sqrt(3), abs=1e-3)


def test_one_seed_keeps_its_own_interval_and_none_is_not_a_number():
    single = Measure(name="a", value=0.5, low=0.4, high=0.6)
    assert (metrics.over_seeds([single], "a").low, metrics.over_seeds([single], "a").high) == (0.4, 0.6)
    refused = Measure(name="a", value=None, note="refused: too few")
    assert metrics.over_seeds([refused, refused], "a").note == "refused: too few"


# -- bootstrap, balanced accuracy ------------------------------------------------------------------------------------


def test_the_bootstrap_agrees_with_delong_where_both_hold():
    generator = np.random.default_rng(4)
    is_member = np.arange(700) < 300
    scores = generator.normal(size=700) + 0.4 * is_member
    delong = metrics.area_under_roc(scores, is_member)
    drawn = metrics.area_under_roc(scores, is_member, interval="bootstrap")
    assert drawn.value == delong.value
    assert np.subtract(ends(drawn), ends(delong)) == pytest.approx(0, abs=0.006)
    assert metrics.area_under_roc(scores, is_member, interval="bootstrap") == drawn


def test_a_resample_counts_ties_half():
    """Against the area computed from the very examples that were drawn."""
    generator = np.random.default_rng(5)
    scores, is_member = generator.integers(0, 4, 30).astype(float), np.arange(30) < 12
    areas = metrics._resampled_areas(scores, is_member)
    drawn = np.random.default_rng(np.random.SeedSequence([*b"bootstrap"]))
    members, others = scores[:12][drawn.integers(12, size=12)], scores[12:][drawn.integers(18, size=18)]
    assert areas[0] == pytest.approx(roc_auc_score(np.arange(30) < 12, np.concatenate([members, others])))


def test_the_bootstrap_covers_the_truth_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 300)
    generator = np.random.default_rng(6)
    is_member = np.arange(160) < 80
    covered = 0
    for _ in range(150):
        scores = generator.normal(size=160) + 0.5 * is_member
        low, high = ends(metrics.area_under_roc(scores, is_member, interval="bootstrap"))
        covered += low <= norm.cdf(0.5 / np.sqrt(2)) <= high
    assert 0.89 <= covered / 150 <= 0.99


def test_a_perfect_auc_keeps_its_interval_under_the_bootstrap():
    found = metrics.area_under_roc(np.arange(20.0), np.arange(20) >= 10, interval="bootstrap")
    assert found.low == pytest.approx(0.6915, abs=1e-3)


def test_an_unknown_interval_is_refused_with_the_nearest_name():
    with pytest.raises(ScoreError, match="did you mean 'bootstrap'"):
        metrics.area_under_roc(np.arange(4.0), np.arange(4) > 1, interval="bootstap")  # pyright: ignore[reportArgumentType]


def test_balanced_accuracy_is_of_the_threshold_that_was_best_elsewhere():
    """Calibration: members from 5 up, others below. Scored: 3 of 4 members and 1 of 2 others lie on the right side of 4.5."""
    calibration = np.array([1.0, 4.0, 5.0, 9.0])
    found = metrics.balanced_accuracy(
        np.array([4.6, 7.0, 8.0, 3.0, 4.4, 6.0]),
        np.array([True, True, True, True, False, False]),
        calibration,
        calibration > 4.5,
    )
    assert found.value == pytest.approx((3 / 4 + 1 / 2) / 2)
    low, high = ends(found)
    assert 0 < low < 0.625 < high < 1


def test_the_interval_of_balanced_accuracy_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(7)
    is_member = np.arange(300) < 120
    covered = 0
    for _ in range(300):
        calibration = generator.normal(size=300) + is_member
        threshold = metrics._best_threshold(calibration, is_member)
        found = metrics.balanced_accuracy(generator.normal(size=300) + is_member, is_member, calibration, is_member)
        low, high = ends(found)
        covered += low <= (norm.sf(threshold - 1) + norm.cdf(threshold)) / 2 <= high
    assert covered / 300 >= 0.93


def test_a_threshold_is_never_fixed_on_the_scores_that_it_judges():
    """Rule 5."""
    scores, is_member = np.arange(10.0), np.arange(10) > 4
    for same in (scores, scores[:], scores.copy(), scores[::-1]):
        with pytest.raises(ScoreError, match="other examples or models"):
            metrics.balanced_accuracy(scores, is_member, same, is_member)
    halves = np.arange(20.0)
    assert metrics.balanced_accuracy(halves[::2], is_member, halves[1::2], is_member).value == 0.9  # 10 is not above 10


def test_a_threshold_may_take_all_or_none():
    assert metrics._best_threshold(np.array([1.0, 2.0, 0.0]), np.array([True, False, True])) == -np.inf
    assert metrics._best_threshold(np.array([1.0, 1.0, 1.0]), np.array([True, False, True])) == -np.inf
    assert metrics._best_threshold(np.array([0.0, 2.0, 2.0]), np.array([False, True, False])) == 1.0


# -- the permitted curve ---------------------------------------------------------------------------------------------


def gaussian(mu: float):
    """The curve of a Gaussian mechanism, which a threshold on its output attains (Dong, Roth, Su 2022)."""
    return lambda rates: norm.cdf(mu + norm.ppf(rates))


@pytest.mark.parametrize("rounded", [False, True])
def test_a_mechanism_at_its_own_limit_is_rarely_called_one_above_it(rounded: bool):
    """95% over all rates together, ties or not. Of 1,500 continuous draws of three sizes 2 were called so."""
    generator = np.random.default_rng(8)
    is_member = np.arange(700) < 400
    alarms = 0
    for _ in range(200):
        scores = generator.normal(size=700) + is_member
        alarms += metrics.crossing(np.round(2 * scores) if rounded else scores, is_member, gaussian(1.0)) is not None
    assert alarms <= 10


def test_without_both_intervals_the_same_mechanism_would_often_be_called_above():
    """What the argument is for: the plain ROC of a mechanism at its limit crosses the curve nearly always."""
    generator = np.random.default_rng(9)
    is_member, plain = np.arange(700) < 400, 0
    for _ in range(100):
        curve = metrics.roc(generator.normal(size=700) + is_member, is_member)
        false, true = np.array(curve.false_positive_rate), np.array(curve.true_positive_rate)
        plain += bool((true[1:-1] > gaussian(1.0)(false[1:-1])).any())
    assert plain >= 80


def test_a_doubled_leak_is_caught():
    """Noise halved: μ = 2 where the plan says 1. With 300 members and as many others 500 of 500 were caught."""
    generator = np.random.default_rng(10)
    is_member = np.arange(600) < 300
    caught = [metrics.crossing(generator.normal(size=600) + 2 * is_member, is_member, gaussian(1.0)) for _ in range(50)]
    assert all(caught)
    for found in caught:
        assert found is not None
        assert found.true_positive_rate.low is not None
        assert found.true_positive_rate.low > found.permitted > found.highest > found.false_positive_rate


def test_members_that_are_hidden_from_a_threshold_do_not_hide_a_leak_of_few():
    """Some members stand out, all others look like non-members or less: the AUC is chance, the curve is crossed."""
    generator = np.random.default_rng(11)
    is_member = np.arange(2000) < 1000
    scores = generator.normal(size=2000) - 0.2 * is_member
    scores[:120] = 9
    assert (metrics.area_under_roc(scores, is_member).low or 1.0) < 0.5
    assert metrics.crossing(scores, is_member, gaussian(0.5)) is not None


def test_the_upper_end_of_a_false_positive_rate_holds_though_the_threshold_is_of_the_same_scores():
    """Step 1 of the argument: the true rate of the threshold is above U in γ of draws, no more and not much less."""
    generator = np.random.default_rng(12)
    above, draws, gamma = 0, 4000, 0.05
    highest = metrics.proportion(3, 60, confidence=1 - 2 * gamma).high
    assert highest is not None
    for _ in range(draws):
        threshold = np.sort(generator.random(60))[60 - 1 - 3]
        above += 1 - threshold > highest
    assert above / draws == pytest.approx(gamma, abs=0.012)


def test_rates_that_mean_the_same_count_once():
    """With 50 non-members, 0.1%, 1% and 1.5% all mean that none lies above: they are one test, not three."""
    scores, is_member = np.arange(100.0), np.arange(100) >= 50
    alone = metrics.crossing(scores, is_member, gaussian(0.1), rates=(0.015,))
    together = metrics.crossing(scores, is_member, gaussian(0.1), rates=(0.001, 0.01, 0.015))
    assert alone is not None
    assert together is not None
    assert (together.highest, together.permitted) == (alone.highest, alone.permitted)


def test_rates_outside_of_zero_and_one_are_refused():
    with pytest.raises(ScoreError, match="above 0 and below 1"):
        metrics.crossing(np.arange(4.0), np.arange(4) > 1, gaussian(1.0), rates=(0.0,))
