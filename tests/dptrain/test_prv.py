"""PRV is Opacus' own, on a grid that is as fine and wide enough."""

import numpy as np
import pytest
from dp_accounting import ComposedDpEvent, GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from opacus.accountants import PRVAccountant
from opacus.accountants.analysis.prv import Domain

from dptrain import prv
from dptrain.accounting import Steps, epsilon_pld

STEPS: list[tuple[Steps, ...]] = [
    ((1.2, 0.1, 50),),
    ((3.0, 0.5, 20), (5.0, 1.0, 3)),
    ((3.87, 1.0, 60),),
    ((0.8, 0.01, 200),),
    ((0.5, 0.001, 300),),
    ((20.0, 0.05, 200),),
]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-6])
def test_epsilon_is_opacus_own(steps: tuple[Steps, ...], delta: float, monkeypatch: pytest.MonkeyPatch):
    grids: list[Domain] = []
    create = Domain.create_aligned

    def kept(*given: float) -> Domain:
        grids.append(create(*given))
        return grids[-1]

    monkeypatch.setattr(Domain, "create_aligned", kept)
    theirs = PRVAccountant()
    theirs.history = list(steps)
    with np.errstate(all="ignore"):
        assert prv.epsilon(steps, delta, 0.01) == pytest.approx(theirs.get_epsilon(delta, eps_error=0.01), rel=1e-5)
    ours, own = grids
    assert ours.dt == pytest.approx(own.dt, rel=1e-12)
    count = sum(times for _, _, times in steps)
    each = [SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(sigma)), times) for sigma, rate, times in steps]
    error = delta / 1000
    needed = [epsilon_pld(ComposedDpEvent([*each]), error / 4), *(epsilon_pld(one.event, error / (8 * count)) for one in each)]
    assert min(ours.t_max, -ours.t_min) >= max(needed) + 2.99
