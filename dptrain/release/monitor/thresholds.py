"""Thresholds: how high a detector's number may be, calibrated on benign sessions.

    thresholds = calibrate(sessions, false_alarm_rate=0.01)
    thresholds.to_json()

The rate is of sessions: the probability that a benign session *ever* raises an alert, by any detector, at any of its queries.

1. The first third of the sessions is fitted on: the radius, the distribution of margins and distances, the drifts.
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

What this does not say: sessions that are longer than the calibrated ones, or of clients of another kind, may raise more.
Exchangeable is meant with the sessions that were given: where all were drawn from a few hundred examples they speak for those,
and clients with other examples raise more. That is what ``caution`` is for. It has no theory: with a caution of 1 it is the
order statistic alone, and ``tests/benchmarks/monitor.py`` counts alarms on other examples. ``coordinated`` looks at all
clients, and sessions that run at once are only nearly exchangeable.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.stats import beta

from dptrain.errors import DataError, UserError
from dptrain.release.monitor.density import Density
from dptrain.release.monitor.detectors import COLUMN, DECOYS, DETECTORS, RATES, SUMMED, SURPRISES, TEXT_RADIUS, WINDOWED, Watch
from dptrain.release.monitor.frozen import thawed, written
from dptrain.release.monitor.shared import Shared, owner_of
from dptrain.release.monitor.sketch import Kind, distances, kind_of, sketched
from dptrain.release.monitor.state import RECENT, State
from dptrain.release.monitor.statistics import Surprise

NEAR = 0.005
"""Share of benign queries that are near-duplicates."""
ALLOWANCE = {name: 1.5 if name in SURPRISES else 0.05 for name in SUMMED}
"""How much the drift is above that of benign sessions."""
FLOORS = dict.fromkeys(SUMMED, 3.0) | {"prada": 0.02, "entropy": 0.1} | dict.fromkeys(RATES, 10.0)
"""Added to each spread, in the detector's own unit: where all benign maxima are alike, a little more is no alarm."""
SEEN = 0.1
"""Share of sessions that fill a window, without which its detector is not watched."""
FOLDS = 5
"""That distances from benign queries are taken over: none is its distance from a fit that it was part of."""
MOST_FITTED = 20_000
"""Queries that the distance from benign ones is fitted on."""


@dataclass(frozen=True, eq=False)
class Session:
    """What one client asked, in order, and what the model answered."""

    inputs: Shaped[np.ndarray, "queries ..."] | Sequence[Int[np.ndarray, " length"]]
    """Texts of several lengths are a list of rows of tokens."""
    labels: Int[np.ndarray, " queries"]
    margins: Float[np.ndarray, " queries"]
    """Between the two highest scores; NaN where there is none."""
    times: Float[np.ndarray, " queries"] | None = None
    """In seconds; without them rates are not watched."""

    @property
    def kind(self) -> Kind:
        return kind_of(self.inputs) if isinstance(self.inputs, np.ndarray) else "tokens"

    def runs(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Consecutive queries of one length, as an array each."""
        if isinstance(self.inputs, np.ndarray):
            yield slice(0, len(self.labels)), self.inputs
            return
        start = 0
        for _, rows in groupby(self.inputs, key=len):
            block = np.stack(list(rows))
            yield slice(start, start + len(block)), block
            start += len(block)


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Of all detectors that are calibrated, and what they were calibrated on."""

    watch: Watch
    values: dict[str, float]
    false_alarm_rate: float
    confidence: float | None
    sessions: int
    """That the thresholds were taken from."""
    fitted_sessions: int
    lengths: tuple[int, int, int]
    """Queries of a session: fewest, median, most."""
    caution: float = 1.0
    """By which they were multiplied."""

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

    def statement(self) -> str:
        """What the thresholds promise, and what not."""
        sure = f"with {self.confidence:.0%} confidence" if self.confidence is not None else "on average over calibrations"
        weak = f" Powerless, since benign sessions look like that: {', '.join(self.powerless)}." if self.powerless else ""
        return (
            f"Of benign sessions like the {self.sessions} that were calibrated on ({self.lengths[0]} to {self.lengths[2]} "
            f"queries, median {self.lengths[1]}), at most {self.false_alarm_rate:.1%} ever raise an alert, {sure}. Longer "
            f"sessions and other clients may raise more. That no alert was raised is not a guarantee that nobody probes.{weak}"
        )

    def to_json(self) -> dict[str, Any]:
        """For a file of the operator's: it holds statistics of benign queries, which nothing bounds."""
        return {"format": 1, **written(self)}

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
    _check(sessions)
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
    _check(fit)
    _check(scale)
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
        fitted_sessions=len(fit),
        lengths=(min(lengths), int(np.median(lengths)), max(lengths)),
        caution=caution,
    )


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


def maxima(watch: Watch, session: Session, shared: Shared, client: str, generator: np.random.Generator) -> np.ndarray:
    """Each detector's largest value over a whole session."""
    return played(watch, watch.fresh(), session, shared, client, generator).max(0)


def played(
    watch: Watch, state: State, session: Session, shared: Shared, client: str, generator: np.random.Generator
) -> Float[np.ndarray, "queries detectors"]:
    """Each detector's value after each query of a session."""
    times = session.times if session.times is not None else np.zeros(len(session.labels))
    owner, found = owner_of(client), []
    for rows, inputs in session.runs():
        labels, margins = session.labels[rows], session.margins[rows]
        found.append(watch.update(state, inputs, labels, margins, times[rows], shared, owner, generator))
    return np.concatenate(found)


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


def fitted(sessions: Sequence[Session], classes: int | None, seed: int) -> Watch:
    """What benign sessions are like: everything but the thresholds."""
    kind = sessions[0].kind
    labels = np.concatenate([session.labels for session in sessions])
    margins = np.concatenate([session.margins for session in sessions])
    radius, far, density = TEXT_RADIUS, np.empty(0), None
    if kind == "numbers":
        apart = np.concatenate([_nearest(session, seed) for session in sessions])
        radius = float(np.quantile(apart, NEAR)) if len(apart) else 0.0
        blocks = [block.reshape(len(block), -1) for session in sessions for _, block in session.runs()]
        flat = np.concatenate(blocks).astype(np.float32)
        _, first = np.unique(sketched(flat, seed).digests, return_index=True)
        first = np.random.default_rng(seed).permutation(first)[:MOST_FITTED]
        density = Density.fit(flat[first], labels[first])
        far = np.concatenate([_held_out(flat[first], labels[first], fold) for fold in range(FOLDS)])
    watch = Watch(
        kind=kind,
        classes=classes if classes is not None else int(labels.max(initial=0)) + 1,
        seed=seed,
        radius=radius,
        drifts=np.zeros(len(SUMMED)),
        margins=Surprise.of(-margins[np.isfinite(margins)]),
        far=Surprise.of(far),
        density=density,
    )
    return replace(watch, drifts=_drifts(watch, sessions))


def _drifts(watch: Watch, sessions: Sequence[Session]) -> Float[np.ndarray, " summed"]:
    """What 19 of 20 sessions average, and a little above. With a drift of 0 the sum at the end of a session is the total."""
    shared, generator = watch.shared(), np.random.default_rng(watch.seed)
    means = []
    for number, session in enumerate(sessions):
        state = watch.fresh()
        played(watch, state, session, shared, f"fit {number}", generator)
        means.append(state.sums / max(state.kept, 1))
    return np.quantile(np.array(means), 0.95, axis=0) + np.array(list(ALLOWANCE.values()))


def _nearest(session: Session, seed: int) -> Float[np.ndarray, " queries"]:
    """Distance of each query to the nearest different one of those asked before."""
    points = sketched(next(session.runs())[1], seed)
    points = points[np.sort(np.unique(points.digests, return_index=True)[1])]
    rows = range(1, len(points))
    earlier = (points.places[max(0, row - 2 * RECENT) : row] for row in rows)
    return np.array([distances(points.places[row : row + 1], places).min() for row, places in zip(rows, earlier, strict=True)])


def _held_out(inputs: np.ndarray, labels: np.ndarray, fold: int) -> Float[np.ndarray, " queries"]:
    """Distances of one fold from the others."""
    own = np.arange(len(inputs)) % FOLDS == fold
    return Density.fit(inputs[~own], labels[~own]).distance(inputs[own])


def _check(sessions: Sequence[Session]) -> None:
    if not sessions:
        raise DataError("there is no benign session to calibrate on; give some hundreds")
    for session in sessions:
        count = len(session.labels)
        times = session.times if session.times is not None else session.labels
        if count == 0 or {len(session.inputs), len(session.margins), len(times)} != {count}:
            raise DataError(
                "a session is empty, or its inputs, labels, margins and times differ in number; give one of each a query"
            )
        if session.kind != sessions[0].kind:
            raise DataError("some sessions are of numbers and some of tokens; calibrate for one model at a time")
        for _, block in session.runs():
            if session.kind == "numbers" and block.shape[1:] != next(sessions[0].runs())[1].shape[1:]:
                raise DataError(f"sessions have inputs of several shapes, such as {list(block.shape[1:])}; give one shape")
            if session.kind == "numbers" and not np.isfinite(block).all():
                raise DataError("a session holds inputs that are not finite; leave them out: the server refuses them")
