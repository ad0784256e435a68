"""What benign sessions are like: radii, densities, distributions and drifts; everything but the thresholds.

The radius within which two queries are near-duplicates is a distance that two benign queries of one label hardly ever have.
With C(r) the share of such pairs that are within r of each other, the chance that one of m kept queries is within r of the next
is about m C(r), and r is where that is ``NEAR``: for the m that a client's memory holds, and for the m that the table of all
clients holds. Pairs are never so many that C could be counted there, so it is continued as the power law that it follows
towards 0 (Grassberger, Procaccia 1983, "Measuring the Strangeness of Strange Attractors"):

    C(r) ≈ C(r₀) (r / r₀)^ν,        1/ν = mean of log(r₀ / rᵢ) over the k closest pairs, r₀ the k-th distance

with ν by maximum likelihood (Takens 1985, "On the Numerical Determination of the Dimension of an Attractor"). The radius does
then not grow as examples get fewer, as distances to the nearest of those at hand do. It is no larger than the distance that one
of 200 queries has to the nearest of its own session, for traffic in which a client's queries are alike.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from dptrain.release.monitor.density import Density
from dptrain.release.monitor.detectors import SUMMED, SURPRISES, TEXT_RADIUS, Watch
from dptrain.release.monitor.session import Session, played
from dptrain.release.monitor.shared import DEPTH, SLOTS
from dptrain.release.monitor.sketch import Points, distances, sketched
from dptrain.release.monitor.state import OLDER, RECENT
from dptrain.release.monitor.statistics import Surprise

NEAR = 0.005
"""Share of benign queries that are near-duplicates."""
ALLOWANCE = {name: 1.0 if name in SURPRISES else 0.05 for name in SUMMED}
"""How much the drift is above that of benign sessions."""
FOLDS = 5
"""That distances from benign queries are taken over: none is its distance from a fit that it was part of."""
MOST_FITTED = 20_000
"""Queries that the distance from benign ones is fitted on."""
MOST_COMPARED = 1500
"""Queries whose pairs are compared."""
CLOSEST, SHARE_OF_CLOSEST = 30, 0.001
"""Pairs that the power law is fitted on: at least so many, and this share of all."""


def fitted(sessions: Sequence[Session], classes: int | None, seed: int) -> Watch:
    """What benign sessions are like: everything but the thresholds."""
    kind = sessions[0].kind
    labels = np.concatenate([session.labels for session in sessions])
    margins = np.concatenate([session.margins for session in sessions])
    radius, shared_radius, far, density = TEXT_RADIUS, TEXT_RADIUS, np.empty(0), None
    if kind == "numbers":
        blocks = [block.reshape(len(block), -1) for session in sessions for _, block in session.runs()]
        flat = np.concatenate(blocks).astype(np.float32)
        points = sketched(flat, seed)
        _, first = np.unique(points.digests, return_index=True)
        first = np.random.default_rng(seed).permutation(first)[:MOST_FITTED]
        radius, shared_radius = _radii(points[first], labels[first], sessions, seed)
        density = Density.fit(flat[first], labels[first])
        far = np.concatenate([_held_out(flat[first], labels[first], fold) for fold in range(FOLDS)])
    watch = Watch(
        kind=kind,
        classes=classes if classes is not None else int(labels.max(initial=0)) + 1,
        seed=seed,
        radius=radius,
        shared_radius=shared_radius,
        drifts=np.zeros(len(SUMMED)),
        margins=Surprise.of(-margins[np.isfinite(margins)]),
        far=Surprise.of(far),
        density=density,
    )
    return replace(watch, drifts=_drifts(watch, sessions))


def _radii(points: Points, labels: Int[np.ndarray, " queries"], sessions: Sequence[Session], seed: int) -> tuple[float, float]:
    """Of a client's memory and of the table of all."""
    alone = np.concatenate([_nearest(session, seed) for session in sessions])
    most = float(np.quantile(alone, NEAR)) if len(alone) else 0.0
    points, labels = points[:MOST_COMPARED], labels[:MOST_COMPARED]
    rows, columns = np.triu_indices(len(points), 1)
    alike = labels[rows] == labels[columns]
    apart = distances(points.places, points.places)[rows[alike], columns[alike]]
    return tuple(min(most, radius_of(apart, NEAR / kept)) for kept in (RECENT + OLDER, SLOTS * DEPTH))  # type: ignore[return-value]


def radius_of(apart: Float[np.ndarray, " pairs"], share: float) -> float:
    """Within which this share of pairs is, by the power law of the module's docstring; 0 where there is no pair.

    >>> apart = np.sqrt((np.arange(100_000) + 0.5) / 100_000)  # C(r) = r²
    >>> round(radius_of(apart, 1e-6), 4)
    0.001
    """
    apart = np.sort(apart[apart > 0])
    closest = apart[: max(CLOSEST, round(SHARE_OF_CLOSEST * len(apart)))].astype(np.float64)
    if len(closest) < 2:
        return 0.0
    if share * len(apart) >= len(closest):
        return float(np.quantile(apart, share))
    inverse = float(np.log(closest[-1] / closest[:-1]).mean())
    return float(closest[-1]) * math.exp(inverse * math.log(share * len(apart) / len(closest)))


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
