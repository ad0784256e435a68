"""Bounds as texts: what is written holds too."""

import dataclasses
import math
import re

from hypothesis import given
from hypothesis import strategies as st

from dptrain.plan import PrivacyPlan
from dptrain.rounding import LET_GO, down, significant, up

BOUNDS = st.floats(1e-4, 1e4)
PLAN = PrivacyPlan(sampling_rate=0.5, expected_batch_size=45, steps=6, clipping_norm=1, delta=1e-4, noise_multiplier=4.0)


@given(BOUNDS, st.integers(0, 5))
def test_an_upper_bound_is_never_written_as_less_nor_a_lower_one_as_more(bound: float, digits: int):
    step = 10.0**-digits
    assert bound - 2 * LET_GO * step <= float(up(bound, digits)) < bound + 1.001 * step
    assert bound - 1.001 * step < float(down(bound, digits)) <= bound + 2 * LET_GO * step
    assert bound * (1 - 1e-10) <= float(significant(bound)) <= bound * (1 + 1.01e-5)


def test_what_has_few_digits_is_written_as_it_is():
    assert [up(8.0), up(0.07), up(1.1, 4), down(2.3), significant(8.0), significant(0.1)] == [
        *("8.00", "0.07", "1.1000", "2.300", "8", "0.1")
    ]
    assert (significant(3.004, 3), significant(3.9972, 3), significant(12.31, 3)) == ("3.01", "4", "12.4")
    assert (up(math.inf), down(math.inf), significant(math.inf), significant(0.0)) == ("inf", "inf", "inf", "0")


def test_no_statement_says_less_than_the_accountants():
    for noise in (1.7, 2.9, 4.3, 6.1, 9.7, 14.9):
        found = dataclasses.replace(PLAN, noise_multiplier=noise).guarantee()
        said = [float(number) for number in re.findall(r"(?:\(|e\^)(\d+\.\d+)", found.statement)]
        assert len(said) == 4
        assert min(said[:3]) >= found.epsilon - 1e-8
        assert said[3] >= found.cross_check - 1e-8
