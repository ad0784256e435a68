"""Bounds as texts that hold too: what is at most some ε is written as no less than it, what is at least as no more.

>>> up(3.9972), up(8.0), up(0.12341, 4), down(1.2349)
('4.00', '8.00', '0.1235', '1.234')
>>> significant(3.99723148), significant(8.0), significant(0.5)
('3.99724', '8', '0.5')

A millionth of the last digit is let go, so that what a computer holds of 8.0 is not written as 8.01.
"""

import math
from typing import Literal

LET_GO = 1e-6
"""Of the last digit that is written."""


def up(bound: float, digits: int = 2, grouped: Literal["", ","] = "") -> str:
    """An upper bound with so many digits behind the point, and with what is ``grouped`` between thousands."""
    if not math.isfinite(bound):
        return f"{bound:g}"
    return f"{math.ceil(bound * 10**digits - LET_GO) / 10**digits:{grouped}.{digits}f}"


def down(bound: float, digits: int = 3) -> str:
    """A lower bound with so many digits behind the point."""
    if not math.isfinite(bound):
        return f"{bound:g}"
    return f"{math.floor(bound * 10**digits + LET_GO) / 10**digits:.{digits}f}"


def significant(bound: float, digits: int = 6) -> str:
    """An upper bound with so many digits in all, and without zeros behind them."""
    if not math.isfinite(bound) or bound <= 0:
        return f"{bound:g}"
    behind = digits - 1 - math.floor(math.log10(bound))
    scale = 10.0**behind
    return f"{math.ceil(bound * scale - LET_GO) / scale:.{digits}g}"
