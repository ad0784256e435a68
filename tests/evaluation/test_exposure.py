"""Exposure in bits: its ends, its mean without a leak, and what it refuses."""

import numpy as np
import pytest

from evaluation.extraction.exposure import UNINSERTED, exposure
from evaluation.metrics import ScoreError


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
