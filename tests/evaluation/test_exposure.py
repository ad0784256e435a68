"""Exposure in bits: its ends, its mean without a leak, and what it refuses."""

import numpy as np
import pytest
from scipy.stats import norm, skewnorm

from evaluation.extraction.exposure import (
    UNINSERTED,
    by_chance,
    exact,
    exposure,
    extrapolated,
    log_share_below,
    mean_exposure,
    mean_without_insertion,
    sampled,
    without_insertion,
)
from evaluation.metrics import ScoreError
from evaluation.result import Measure


def whole(measure: Measure) -> tuple[float, float, float]:
    """Lower end, value and upper end, all there."""
    assert measure.value is not None
    assert measure.low is not None
    assert measure.high is not None
    return measure.low, measure.value, measure.high


@pytest.mark.parametrize("bits", [1, 4, 10])
def test_rank_one_of_two_to_the_k_gives_k(bits: int):
    assert exposure(1.0, np.zeros(2**bits - 1)) == bits
    assert exposure(-1.0, np.zeros(2**bits - 1)) == 0.0


def test_a_canary_that_was_never_inserted_averages_log2_e():
    generator = np.random.default_rng(0)
    found = [exposure(generator.normal(), generator.normal(size=1023)) for _ in range(4000)]
    assert round(UNINSERTED, 2) == 1.44
    assert np.mean(found) == pytest.approx(1.44, abs=3 * UNINSERTED / np.sqrt(4000))


def test_equal_scores_expose_nothing():
    assert exposure(0.0, np.zeros(255)) == 0.0


def test_scores_that_rank_nothing_are_refused():
    with pytest.raises(ScoreError, match="NaN"):
        exposure(1.0, [0.0, float("nan")])
    with pytest.raises(ScoreError, match="at least one"):
        exposure(1.0, [])


def test_a_rank_among_all_candidates_is_the_same_figure():
    assert exact(1, 2.0**20) == 20.0
    assert exact(2**20, 2.0**20) == 0.0
    assert exact(4, 1000.0) == exposure(0.5, [1.0] * 3 + [0.0] * 996)
    with pytest.raises(ScoreError, match="from 1 to"):
        exact(0, 10.0)


@pytest.mark.parametrize("space", [2, 100, 4096])
def test_the_mean_of_a_uniform_rank_is_exact(space: int):
    assert without_insertion(space) == pytest.approx(np.mean([exact(rank, space) for rank in range(1, space + 1)]))
    assert without_insertion(1e15) == pytest.approx(UNINSERTED)


def test_an_estimate_by_sampling_holds_the_exact_one_as_often_as_it_says():
    generator = np.random.default_rng(1)
    space = np.sort(generator.gumbel(size=20_000))
    held = 0
    for rank in np.geomspace(1, 20_000, 200).astype(int):
        canary = space[-rank]
        low, value, high = whole(sampled(float(canary), generator.choice(space, 500), 20_000))
        assert low <= value <= np.log2(501) + 1e-9
        held += low - 1e-9 <= exact(int(rank), 20_000) <= high + 1e-9
    assert held >= 0.95 * 200 - 2 * np.sqrt(200 * 0.95 * 0.05)


def test_a_canary_above_all_that_were_drawn_may_have_any_exposure_up_to_all_bits():
    found = sampled(9.0, np.linspace(0, 1, 1000), 1e6)
    assert found.value == pytest.approx(np.log2(1001))
    assert found.high == pytest.approx(np.log2(1e6))
    assert found.low == pytest.approx(-np.log2(1 - 0.025 ** (1 / 1000)))


@pytest.mark.parametrize("shape", [0.0, -3.0, 2.0])
def test_extrapolation_agrees_with_the_truth_where_scores_are_skew_normal(shape: float):
    generator = np.random.default_rng(2)
    scores = -np.asarray(skewnorm.rvs(shape, 10.0, 2.0, size=10_000, random_state=3))
    for probability in (0.3, 1e-2, 1e-4):
        canary = -float(skewnorm.ppf(probability, shape, 10.0, 2.0))
        low, value, high = whole(extrapolated(canary, scores, 1e9, generator))
        assert value == pytest.approx(-np.log2(probability), rel=0.15, abs=0.1)
        assert low <= value <= high


def test_extrapolation_and_sampling_agree_with_the_exact_rank_where_they_can():
    generator = np.random.default_rng(4)
    space = generator.normal(size=100_000)
    drawn = generator.choice(space, 5000)
    for canary in np.quantile(space, [0.2, 0.9, 0.99]):
        truth = exact(int((space >= canary).sum()), len(space))
        by_sampling = sampled(float(canary), drawn, len(space))
        by_fit = extrapolated(float(canary), drawn, len(space), generator)
        assert by_sampling.value == pytest.approx(truth, abs=0.4)
        assert by_fit.value == pytest.approx(truth, abs=0.4)


def test_extrapolation_stops_at_all_bits_and_refuses_what_has_no_distribution():
    generator = np.random.default_rng(5)
    assert extrapolated(60.0, generator.normal(size=1000), 1e6, generator).value == pytest.approx(np.log2(1e6))
    with pytest.raises(ScoreError, match="no distribution"):
        extrapolated(0.0, np.zeros(100), 1e6, generator)


def test_the_tail_of_a_skew_normal_is_right_far_down_and_in_the_middle():
    for shape in (-3.0, 0.0, 3.0):
        mean, variance, skew = (float(value) for value in skewnorm.stats(shape, 1.0, 2.0, moments="mvs"))
        for probability in (1e-10, 1e-3, 0.5, 0.999):
            value = float(skewnorm.ppf(probability, shape, 1.0, 2.0))
            found = log_share_below(value, np.array([[mean, np.sqrt(variance), skew]]))
            assert found[0] == pytest.approx(skewnorm.logcdf(value, shape, 1.0, 2.0), rel=1e-3, abs=5e-4)
    assert log_share_below(-30.0, np.array([[0.0, 1.0, 0.0]]))[0] == pytest.approx(norm.logcdf(-30.0), rel=1e-4)


def test_the_interval_of_never_inserted_canaries_holds_their_mean_as_often_as_it_says():
    generator = np.random.default_rng(6)
    bits = np.log2(1e6) - np.log2(generator.integers(1, 10**6 + 1, size=(2000, 12)))
    found = [whole(mean_without_insertion(row, "never_inserted")) for row in bits]
    held = np.mean([low <= UNINSERTED <= high for low, _, high in found])
    assert held == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 2000))
    rejected = np.mean([by_chance(row) <= 0.05 for row in bits])
    assert rejected <= 0.05 + 3 * np.sqrt(0.95 * 0.05 / 2000)


def test_canaries_that_a_model_knows_are_no_chance():
    assert by_chance(np.full(4, 19.9)) < 1e-12
    assert by_chance(np.array([19.9, 2.0, 1.0, 0.5])) < 1e-3
    assert by_chance(np.full(4, UNINSERTED)) > 0.3


def test_all_canaries_at_the_maximum_leave_the_mean_uncertain():
    most = float(np.log2(1e6))
    found = mean_exposure(np.full(4, most), "exposure", 1e6)
    assert found.value == pytest.approx(most)
    assert found.high == pytest.approx(most)
    assert found.low == pytest.approx(most * 0.025 ** (1 / 4))
    spread = mean_exposure(np.array([1.0, most]), "exposure", 1e6)
    assert spread.low == 0.0
    assert spread.high == pytest.approx(most)
