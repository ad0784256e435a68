"""Thresholds: how high a detector's number may be, calibrated on benign sessions.

    thresholds = calibrate(sessions, false_alarm_rate=0.01)
    thresholds.to_json()

The rate is of sessions: the probability that a benign session *ever* raises an alert, by any detector, at any of its queries.

1. The first third of the sessions is fitted on: the radii, the distribution of margins and distances, the drifts
   (:mod:`~dptrain.release.monitor.fitting`).
2. On these and the first quarter of the others, of each detector d the median m_d and the spread s_d of its maximum over a
   session are taken, with s_d from the median up to the largest: what is common for one detector is not for another.
3. Of each of the remaining n sessions J = max_d (M_d − m_d) / s_d is taken, with M_d the detector's maximum over the session.
   One number for all detectors needs no further correction for how many there are.
4. The threshold of d is c (m_d + q s_d), with q the k-th smallest J, or 1 where that is larger, and c the ``caution``. An alert
   is raised above it.

Sessions that are exchangeable with those of step 3 exceed the k-th smallest with a probability that is Beta(n + 1 − k, k)
distributed over the draw of those (Wilks 1941, "Determination of Sample Sizes for Setting Tolerance Limits"; Vovk 2012,
"Conditional Validity of Inductive Conformal Predictors"). k is the smallest for which it is at most the stated rate with the
stated confidence. That takes 299 sessions for a rate of 1% at 95%, and 598 with those of steps 1 and 2. With
``confidence=None`` k is ⌈(n + 1)(1 − rate)⌉: the rate then holds on average over calibrations, and 99 sessions suffice.

That is a theorem of sessions that were drawn independently, such as those of as many clients. Sessions that were made from
examples share them, and say as much as fewer of their own: n divided by how many an example is in on average, which is the
count that a sum over clusters is worth in the worst case (Kish 1965, "Survey Sampling"), and no theorem for a maximum. Where
that many would not do for the stated rate, :meth:`Thresholds.statement` states no rate: it says of how many examples the
sessions were, and what :func:`measured` counted on sessions of others.

What this does not say: sessions that are longer than the calibrated ones, or of clients of another kind, may raise more. The
``caution`` has no theory: with a caution of 1 it is the order statistic alone, and ``tests/benchmarks/monitor.py`` counts
alarms on other examples. ``coordinated`` and ``crowded`` look at all clients, and sessions that run at once are only nearly
exchangeable.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import beta

from dptrain.errors import UserError
from dptrain.release.monitor.detectors import COLUMN, CROWDED, DECOYS, DETECTORS, RATES, SUMMED, SURPRISES, WINDOWED, Watch
from dptrain.release.monitor.fitting import fitted
from dptrain.release.monitor.frozen import FORMAT, thawed, written
from dptrain.release.monitor.session import Session, check, distinct, maxima, sessions_of_their_own

FLOORS = dict.fromkeys(SUMMED, 3.0) | {"prada": 0.02, "entropy": 0.1, CROWDED: 6.0} | dict.fromkeys(RATES, 10.0)
"""Added to each spread, in the detector's own unit: where all benign maxima are alike, a little more is no alarm."""
SEEN = 0.1
"""Share of sessions that fill a window, without which its detector is not watched."""


@dataclass(frozen=True)
class LeftOut:
    """What was counted on sessions that nothing was calibrated on."""

    examples: int
    """Distinct."""
    sessions: int
    alarms: int
    """Sessions that raised an alert."""

    @property
    def share(self) -> float:
        return self.alarms / self.sessions


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Of all detectors that are calibrated, and what they were calibrated on."""

    watch: Watch
    values: dict[str, float]
    false_alarm_rate: float
    confidence: float | None
    sessions: int
    """That the thresholds were taken from."""
    examples: int
    """Distinct, of which these and the fitted sessions were made."""
    of_their_own: int
    """As how many sessions that share no example those count that the thresholds were taken from."""
    fitted_sessions: int
    lengths: tuple[int, int, int]
    """Queries of a session: fewest, median, most."""
    caution: float = 1.0
    """By which they were multiplied."""
    left_out: LeftOut | None = None
    """Of :func:`measured`."""

    @property
    def powerless(self) -> tuple[str, ...]:
        """Detectors that nothing can raise: benign sessions reach what is highest."""
        most = {"prada": 1.0, "entropy": math.log(max(self.watch.classes, 2))}
        full = {name for name in WINDOWED if self.values.get(name, 0.0) >= most[name] - 1e-9}
        ones = zip(SUMMED, self.watch.drifts, strict=True)
        return tuple(
            sorted(full | {name for name, drift in ones if name not in SURPRISES and drift >= 1 and name in self.values})
        )

    @cached_property
    def fingerprint(self) -> str:
        """Of everything in it: a client's state is of use to the same thresholds alone."""
        return hashlib.blake2b(json.dumps(self.to_json(), sort_keys=True).encode(), digest_size=16).hexdigest()

    @property
    def carried(self) -> bool:
        """Whether the sessions would do for the stated rate if they were as few as they count."""
        try:
            return order(self.of_their_own, self.false_alarm_rate, self.confidence) <= self.of_their_own
        except UserError:
            return False

    def statement(self) -> str:
        """What the thresholds promise, and what not."""
        sure = f"with {self.confidence:.0%} confidence" if self.confidence is not None else "on average over calibrations"
        weak = f" Powerless, since benign sessions look like that: {', '.join(self.powerless)}." if self.powerless else ""
        made = (
            f"the {self.sessions} that were calibrated on ({self.lengths[0]} to {self.lengths[2]} queries, median "
            f"{self.lengths[1]}, made of {self.examples} distinct examples with those that were fitted on)"
        )
        if self.carried:
            said = f"Of benign sessions like {made}, at most {self.false_alarm_rate:.1%} ever raise an alert, {sure}."
        else:
            said = (
                f"No false-alarm rate is stated: {made} share their examples and count as {self.of_their_own} of their own, "
                f"too few for the rate of {self.false_alarm_rate:.1%} that was aimed at."
            )
        if (found := self.left_out) is not None:
            said += (
                f" Of {found.sessions} sessions made of {found.examples} other examples {found.alarms} raised an alert "
                f"({found.share:.1%}), which is a measurement and no bound."
            )
        return (
            f"{said} Longer sessions and other clients may raise more. That no alert was raised is not a guarantee that nobody "
            f"probes.{weak}"
        )

    def to_json(self) -> dict[str, Any]:
        """For a file of the operator's: it holds statistics of benign queries, which nothing bounds."""
        return {"format": FORMAT, **written(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Thresholds":
        """Raises DataError where the content is not what ``to_json`` gives."""
        return thawed(content)


def calibrate(
    sessions: Sequence[Session],
    false_alarm_rate: float = 0.01,
    *,
    confidence: float | None = 0.95,
    fit: Sequence[Session] | None = None,
    classes: int | None = None,
    caution: float = 1.5,
    seed: int = 0,
) -> Thresholds:
    """Thresholds from benign sessions.

    Args:
        confidence: that the rate holds for this calibration; None for a rate that holds on average over calibrations.
        fit: sessions to fit on, of other examples than the rest where that is possible; by default the first third.
        classes: how many there are; left out, as many as the labels say.
        caution: by which every threshold is multiplied, at least 1; for sessions of examples that none of these was made of.
        seed: of the public projection.

    Raises:
        UserError: there are too few sessions for the rate; it says how many are needed.
        DataError: sessions are empty, of different shapes, or not finite.
    """
    check(sessions)
    if fit is None:
        cut = len(sessions) // 3
        fit, sessions = sessions[:cut], sessions[cut:]
    if not 0 < false_alarm_rate < 1 or (confidence is not None and not 0 < confidence < 1):
        raise UserError(
            f"false_alarm_rate={false_alarm_rate}, confidence={confidence}; give numbers between 0 and 1, such as 0.01"
        )
    scale, sessions = sessions[: len(sessions) // 4], sessions[len(sessions) // 4 :]
    if caution < 1:
        raise UserError(f"caution={caution} would raise more alerts than the stated rate; give 1 or more")
    rank = order(len(sessions), false_alarm_rate, confidence)
    check(fit)
    check(scale)
    watch = fitted(fit, classes, seed)
    shared, generator = watch.shared(), np.random.default_rng(seed)
    before = np.array(
        [maxima(watch, session, shared, f"scale {number}", generator) for number, session in enumerate([*fit, *scale])]
    )
    active = [COLUMN[name] for name in active_detectors(watch, [*fit, *scale, *sessions], before)]
    middle = np.median(before, 0)
    spread = before.max(0) - middle + np.array([FLOORS.get(name, 1.0) for name in DETECTORS])
    found = np.array([maxima(watch, session, shared, f"benign {number}", generator) for number, session in enumerate(sessions)])
    joint = max(1.0, float(np.sort(((found - middle) / spread)[:, active].max(1))[rank - 1]))
    lengths = [len(session.labels) for session in sessions]
    return Thresholds(
        watch=watch,
        values={DETECTORS[column]: caution * float(middle[column] + joint * spread[column]) for column in active},
        false_alarm_rate=false_alarm_rate,
        confidence=confidence,
        sessions=len(sessions),
        examples=distinct([*fit, *scale, *sessions], seed),
        of_their_own=sessions_of_their_own(sessions, seed),
        fitted_sessions=len(fit),
        lengths=(min(lengths), int(np.median(lengths)), max(lengths)),
        caution=caution,
    )


def measured(thresholds: Thresholds, sessions: Sequence[Session]) -> Thresholds:
    """The same, with what sessions of other examples raise.

    Raises:
        DataError: sessions are empty, of different shapes, or not finite.
    """
    check(sessions)
    watch = thresholds.watch
    shared, generator = watch.shared(), np.random.default_rng(watch.seed)
    limits = np.array([thresholds.values.get(name, np.inf) for name in DETECTORS])
    largest = [maxima(watch, session, shared, f"left out {number}", generator) for number, session in enumerate(sessions)]
    alarms = int((np.array(largest) > limits).any(1).sum())
    return replace(thresholds, left_out=LeftOut(distinct(sessions, watch.seed), len(sessions), alarms))


def order(sessions: int, rate: float, confidence: float | None) -> int:
    """Which of the sorted maxima is the threshold, counted from 1.

    >>> order(299, 0.01, 0.95), order(99, 0.01, None), order(1000, 0.05, None)
    (299, 99, 951)

    Raises:
        UserError: not even the largest suffices.
    """
    if confidence is None:
        rank, needed = math.ceil((sessions + 1) * (1 - rate) - 1e-9), math.ceil(1 / rate - 1e-9) - 1
        said = ""
    else:
        ranks = np.arange(1, sessions + 1)
        enough = ranks[beta.cdf(rate, sessions - ranks + 1, ranks) >= confidence] if sessions else ranks
        rank, needed = (
            int(enough.min()) if len(enough) else sessions + 1,
            math.ceil(math.log(1 - confidence) / math.log(1 - rate)),
        )
        said = f" with confidence {confidence:g}"
    if rank > sessions:
        raise UserError(
            f"{sessions} benign sessions are left to calibrate on, and a false-alarm rate of {rate:g}{said} takes {needed}; "
            f"give {2 * needed} in all, since half are fitted on and scaled by, or a larger rate"
        )
    return rank


def active_detectors(watch: Watch, sessions: Sequence[Session], largest: Float[np.ndarray, "sessions detectors"]) -> list[str]:
    """Those that the sessions say something about. Decoys are nobody's to ask for, and have no benign distribution; nor has a
    window that hardly any session filled.

    Args:
        largest: each detector's largest value over some of them.
    """
    without = {DECOYS, "off_distribution" if watch.density is None else "siblings"}
    if any(session.times is None for session in sessions):
        without |= set(RATES)
    if not len(watch.margins.benign):
        without.add("low_margins")
    without |= {name for name in WINDOWED if (largest[:, COLUMN[name]] > 0).mean() < SEEN}
    return [name for name in DETECTORS if name not in without]
