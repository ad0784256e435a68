"""Detectors: what of a client's queries speaks of probing. Each gives one number a query; the higher, the less benign.

Summed up by :func:`~dptrain.release.monitor.statistics.cusum`, with the drift that benign sessions have and a little above:

* ``near_duplicates``: x = 1 where the nearest of the client's kept queries is within the radius r and not the same (Chen,
  Carlini, Wagner 2020, "Stateful Detection of Black-Box Adversarial Attacks"). r is the distance that one of 200 benign queries
  would have to a full memory (:mod:`~dptrain.release.monitor.fitting`); of texts, :data:`TEXT_RADIUS`.
* ``crossings``: x = 1 where one of those within r has another label: a walk along the decision boundary, as in Chen, Jordan,
  Wainwright 2020, "HopSkipJumpAttack".
* ``low_margins``: x is the surprise of so low a margin, −log of the share of benign queries with one as low.
* ``off_distribution``: x is the surprise of so large a distance from benign queries
  (:mod:`~dptrain.release.monitor.density`). Numbers only.
* ``siblings``: x = 1 where another kept query is as long, and the same but for its last 1, 2, 4, 8 or 16 tokens: many
  continuations of one beginning are asked for, as exposure and extraction do (Carlini, Liu, Erlingsson, Kos, Song 2019, "The
  Secret Sharer"). Tokens only. Typing on makes a query longer and is no sibling.
* ``coordinated``: x = 1 where another client asked a near-duplicate (:mod:`~dptrain.release.monitor.shared`).

Counted over all clients:

* ``crowded``: how many queries of several clients have been near-duplicates in the neighbourhood of this one, so that a group
  is seen each of whose clients asks little.

Of a window of the last 128 queries, each time 32 more are in it:

* ``prada``: 1 − W of Shapiro and Wilk over the distances from each query to the nearest kept one of the same label (Juuti,
  Szyller, Marchal, Asokan 2019, "PRADA: Protecting Against DNN Model Stealing Attacks"). There every label's set grows without
  end; here the kept queries stand for it.
* ``entropy``: log C − H, H the entropy of the labels. Where benign clients ask for one class alone no value is unusual, and
  the thresholds say that the detector is powerless.

And ``rate_minute``, ``rate_hour``: queries, each weighing exp(−age / 60 s) or exp(−age / 3600 s).

A query that repeats a kept one to the bit counts for the rates alone: a client that asks again after a lost answer is benign,
and a consistent guard tells it nothing new.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from dptrain.release.monitor.density import Density
from dptrain.release.monitor.shared import Shared
from dptrain.release.monitor.sketch import Kind, Points, distances, sketched
from dptrain.release.monitor.state import WINDOW, State
from dptrain.release.monitor.statistics import Surprise, cusum, decayed, missing_entropy, not_normal

SUMMED = ("near_duplicates", "crossings", "low_margins", "off_distribution", "siblings", "coordinated")
WINDOWED = ("prada", "entropy")
RATES = {"rate_minute": 60.0, "rate_hour": 3600.0}
CROWDED = "crowded"
DECOYS = "decoys"
DETECTORS = (*SUMMED, *WINDOWED, *RATES, CROWDED, DECOYS)
COLUMN = {name: column for column, name in enumerate(DETECTORS)}
WINDOWS = slice(len(SUMMED), len(SUMMED) + len(WINDOWED))
SURPRISES = ("low_margins", "off_distribution")
BLOCK = 32
"""Queries that are looked at at once; windows are looked at where one ends, so that batches make no difference."""
TEXT_RADIUS = 0.3
"""Share of differing minima."""
DECOY_RADIUS = 0.5
"""The same, to a decoy of tokens."""


@dataclass(frozen=True, eq=False)
class Watch:
    """What benign queries are like, and so what is unlike them."""

    kind: Kind
    classes: int
    seed: int
    """Of the projection."""
    radius: float
    shared_radius: float
    """Of the table of all clients, in which more queries are compared."""
    drifts: Float[np.ndarray, " summed"]
    margins: Surprise
    """Of margins with their sign turned."""
    far: Surprise
    density: Density | None

    def fresh(self) -> State:
        """Of a client that has asked nothing."""
        zeros = np.zeros
        return State(
            self.kind,
            sums=zeros(len(SUMMED)),
            windows=zeros(len(WINDOWED)),
            rates=zeros(len(RATES)),
            held=zeros(4),
            quiet=zeros(len(DETECTORS)),
        )

    def shared(self) -> Shared:
        """A table for all clients."""
        return Shared(self.kind, self.shared_radius, self.seed)

    def update(
        self,
        state: State,
        inputs: Shaped[np.ndarray, "queries ..."],
        labels: Int[np.ndarray, " queries"],
        margins: Float[np.ndarray, " queries"],
        times: Float[np.ndarray, " queries"],
        shared: Shared,
        owner: int,
        generator: np.random.Generator,
        decoys: Points | None = None,
    ) -> Float[np.ndarray, "queries detectors"]:
        """Each detector's value after each query; 0 where it has nothing to say.

        Args:
            labels: −1 where the answer was refused.
            margins: between the two highest scores; NaN where there is none.
            owner: the client, by :func:`~dptrain.release.monitor.shared.owner_of`.
        """
        points = sketched(inputs, self.seed)
        far = np.full(len(points), np.nan)
        if self.density is not None:
            far = self.density.distance(np.asarray(inputs, dtype=np.float32).reshape(len(points), -1))
        surprising = np.stack([self.margins(-margins), self.far(far)], 1)
        found, start = np.zeros((len(points), len(DETECTORS))), 0
        while start < len(points):
            rows = slice(start, min(len(points), start + BLOCK - state.queries % BLOCK))
            found[rows] = self._block(
                state, points[rows], labels[rows], surprising[rows], times[rows], shared, owner, generator, decoys
            )
            start = rows.stop
        return found

    def _block(
        self,
        state: State,
        points: Points,
        labels: np.ndarray,
        surprising: np.ndarray,
        times: np.ndarray,
        shared: Shared,
        owner: int,
        generator: np.random.Generator,
        decoys: Points | None,
    ) -> Float[np.ndarray, "queries detectors"]:
        found = np.zeros((len(points), len(DETECTORS)))
        for number, (name, seconds) in enumerate(RATES.items()):
            found[:, COLUMN[name]] = path = decayed(state.rates[number], state.last, times, seconds)
            state.rates[number] = path[-1]
        state.last = max(state.last, float(times[-1]))
        state.queries += len(points)
        new = ~_repeats(state, points)
        state.repeats += int((~new).sum())
        if not new.any():
            found[:, : len(SUMMED)], found[:, WINDOWS] = state.sums, state.windows
            return found
        points, labels = points[new], labels[new]
        values, nearest = self._values(state, points, labels)
        values[:, 2:4] = surprising[new]
        values[:, 5], found[new, COLUMN[CROWDED]] = shared.met(points, owner)
        path = cusum(state.sums, values, self.drifts)
        found[:, : len(SUMMED)] = np.concatenate([state.sums[None], path])[np.cumsum(new)]
        state.sums = path[-1].copy()
        if decoys is not None:
            radius = self.radius if self.kind == "numbers" else DECOY_RADIUS
            found[new, COLUMN[DECOYS]] = (distances(points.places, decoys.places) <= radius).any(1)
        before, found[:, WINDOWS] = state.kept // BLOCK, state.windows
        state.remember(points, labels.astype(np.int32), generator)
        state.measure(nearest[np.isfinite(nearest)])
        if state.kept // BLOCK > before:
            found[-1, WINDOWS] = state.windows = self._windows(state)
        return found

    def _values(self, state: State, points: Points, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is summed up, where it comes of comparing queries, and the distance to the nearest of the same label."""
        used, values = state.used, np.zeros((len(points), len(SUMMED)))
        apart = distances(points.places, np.concatenate([state.places[:used], points.places]))
        later = np.triu(np.ones((len(points), len(points)), dtype=bool))
        apart[:, used:][later] = np.inf
        theirs = np.concatenate([state.labels[:used], labels])
        near, same = apart <= self.radius, theirs == labels[:, None]
        values[:, 0] = near.any(1)
        values[:, 1] = (near & ~same & (theirs >= 0) & (labels >= 0)[:, None]).any(1)
        if self.kind == "tokens":
            others = np.concatenate([state.beginnings[:used], points.beginnings])
            alike = (points.beginnings[:, None] == others[None]).any(2)
            alike[:, used:][later] = False
            values[:, 4] = alike.any(1)
        nearest = np.where(same, apart, np.inf).min(1, initial=np.inf)
        return values, np.where(labels >= 0, nearest, np.inf)

    def _windows(self, state: State) -> Float[np.ndarray, " windowed"]:
        seen = state.window[: min(state.kept, WINDOW)]
        seen = seen[seen >= 0]
        prada = not_normal(state.distances) if state.measured >= WINDOW else 0.0
        return np.array([prada, missing_entropy(seen, self.classes) if len(seen) >= WINDOW // 2 else 0.0])


def _repeats(state: State, points: Points) -> np.ndarray:
    """Which are the same, to the bit, as a kept query or an earlier one of these."""
    earlier = np.tri(len(points), k=-1, dtype=bool)
    again = ((points.digests[:, None] == points.digests) & earlier).any(1)
    return again | (points.digests[:, None] == state.digests[: state.used]).any(1)
