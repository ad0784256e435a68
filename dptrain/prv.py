"""Opacus' PRV accountant, which spends most of its time on the width of its grid, with one that is found at once.

    epsilon(((1.2, 0.1, 50),), delta=1e-5, error=0.01)     # noise multiplier, sampling rate, steps

The grid must be so wide that what all steps lose together, and what each loses, lies on it but for a chance of a part of δ
(Gopi, Lee, Wutschitz 2021, remark 5.6). Any upper bound on ε at that chance says how wide. Opacus takes RDP at 150 orders, most
of which are infinite series that it sums term by term; here it is RDP at whole orders alone, finite sums, by
:func:`dptrain.accounting.epsilon_bound`. The mesh is the same.

Importing this module imports Opacus, which takes a while.
"""

from typing import Any

import numpy as np
from dp_accounting import ComposedDpEvent, DpEvent, GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from opacus.accountants import PRVAccountant
from opacus.accountants.analysis.prv import Domain

from dptrain.accounting import Steps, epsilon_bound


class _Accountant(PRVAccountant):
    def _get_domain(self, prvs: Any, num_self_compositions: list[int], eps_error: float, delta_error: float) -> Domain:
        count = sum(num_self_compositions)
        lost = [_bound(self.history, delta_error / 4)]
        lost += [_bound([(sigma, rate, 1)], delta_error / (8 * count)) for sigma, rate, _ in self.history]
        end = max(*lost, eps_error) + 3
        return Domain.create_aligned(-end, end, eps_error / np.sqrt(count * np.log(12 / delta_error) / 2))


def _bound(steps: list[Steps], delta: float) -> float:
    each = (SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(sigma)), count) for sigma, rate, count in steps)
    return epsilon_bound(ComposedDpEvent(list[DpEvent](each)), delta)


def epsilon(steps: tuple[Steps, ...], delta: float, error: float) -> float:
    """PRV's upper end of ε.

    Args:
        error: the width of its discretisation, in ε.
    """
    accountant = _Accountant()
    accountant.history = list(steps)
    return float(accountant.get_epsilon(delta, eps_error=error))
