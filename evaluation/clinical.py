"""What a predicted dose costs the patient: how many would be given too much or too little.

    off = share_off(predicted, true, 0.2)       # predicted doses that are off by more than 20% of the true one

A dose within 20% of the right one is the measure of International Warfarin Pharmacogenetics Consortium 2009, "Estimation of
the Warfarin Dose with Clinical and Pharmacogenetic Data"; beyond 35% is what a clinician would call a large error here.
"""

import numpy as np
from jaxtyping import Float

from evaluation.metrics import ScoreError, proportion
from evaluation.result import Measure

SHARES = (0.2, 0.35)


def share_off(
    predicted: Float[np.ndarray, " patients"], true: Float[np.ndarray, " patients"], share: float, confidence: float = 0.95
) -> Measure:
    """The share of patients with |predicted − true| > share · true, with its Clopper–Pearson interval.

    A prediction that is off by exactly the share, up to rounding, is within it.

    Raises:
        ScoreError: a true value is not above 0, or a prediction is not finite.
    """
    if predicted.shape != true.shape or predicted.ndim != 1 or not len(true):
        raise ScoreError(f"{predicted.shape} predictions stand against {true.shape} true values; give one each, at least one")
    if not np.isfinite(predicted).all() or not (true > 0).all():
        raise ScoreError("predictions must be finite and true values above 0, or no share of them can be told")
    off = np.abs(predicted - true) > share * true * (1 + 1e-9)
    return proportion(int(off.sum()), len(true), f"off_by_more_than_{100 * share:g}_percent", confidence)


def clinical_cost(predicted: Float[np.ndarray, " patients"], true: Float[np.ndarray, " patients"]) -> tuple[Measure, ...]:
    """:func:`share_off` at 20% and at 35%."""
    return tuple(share_off(predicted, true, share) for share in SHARES)
