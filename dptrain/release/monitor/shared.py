"""Near-duplicates that come from several clients: one table for all, of a fixed size.

Locality-sensitive hashing (Datar, Immorlica, Indyk, Mirrokni 2004, "Locality-Sensitive Hashing Scheme Based on p-Stable
Distributions"): coordinates of a projection are cut into cells half as wide as the radius, ``BANDS`` groups of them name a slot
each, and two queries well within the radius are likely to meet in one. Of texts the minima themselves are the cells. Each band
has ``SLOTS`` slots, and a slot holds the last ``DEPTH`` queries that fell into it: of each its projection, its digest and a
hash of its client. A new query takes the place of a near-duplicate by the same client, or else of the oldest, so that memory
never grows, an old query is forgotten the sooner the more is asked, and nobody drives others out by asking alike. Two queries
that meet are compared by their distance. The same query from two clients says nothing: many people ask what is popular.

Each slot also counts the queries that met a near-duplicate of another client in it; in the count a query of t queries ago, of
all clients, weighs exp(−t / ``FADING``). So a group is seen in which each client asks little: the count is the
neighbourhood's, and whoever's query meets in it is told it.

What is missed: near-duplicates of one client alone, which its own memory is for; copies as far apart as the radius, of which
two meet in half of all cases or less, and whose counts are spread over several cells; a group that asks for each thing seldom
enough, or only as often as benign clients ask for what is near each other; a group beside which more than
``SLOTS`` × ``DEPTH`` other queries come between two of its own; exact repeats. And whoever asks by chance for something near to
what a group is at is told the group's count.

The table is not kept over a restart; it fills again as clients ask.
"""

import hashlib
import math

import numpy as np
from jaxtyping import Bool, Float, Int

from dptrain.release.monitor.sketch import PLACES, Kind, Points

BANDS = 4
SLOTS = 1 << 12
DEPTH = 4
"""Queries that a slot holds."""
FADING = SLOTS * DEPTH
"""Queries of all clients after which one weighs 1/e in a count."""


def owner_of(client: str) -> int:
    """A number for a client."""
    return int.from_bytes(hashlib.blake2b(client.encode(), digest_size=7).digest(), "big") + 1


class Shared:
    """What all clients asked lately."""

    def __init__(self, kind: Kind, radius: float, seed: int):
        self.radius, self.width = radius, max(radius / 2, 1e-12)
        generator = np.random.default_rng([seed, 3])
        self.offsets = generator.random(PLACES) * self.width
        self.factors = generator.integers(0, 2**62, PLACES, dtype=np.int64) | 1
        self.numbers = kind == "numbers"
        self.asked = 0
        self.owners = np.zeros((BANDS, SLOTS, DEPTH), dtype=np.int64)
        self.digests = np.zeros((BANDS, SLOTS, DEPTH), dtype=np.int64)
        self.places = np.zeros((BANDS, SLOTS, DEPTH, PLACES), dtype=np.float32 if self.numbers else np.uint32)
        self.oldest = np.zeros((BANDS, SLOTS), dtype=np.int64)
        self.counts = np.zeros((BANDS, SLOTS))
        self.counted = np.zeros((BANDS, SLOTS), dtype=np.int64)
        """How many had been asked when a slot last counted."""

    def met(self, points: Points, owner: int) -> tuple[Bool[np.ndarray, " queries"], Float[np.ndarray, " queries"]]:
        """Which are near-duplicates of other clients' queries, and how many such their neighbourhood has had, themselves
        included; and then they are in the table themselves."""
        slots = self._slots(points)
        found, counts, start, seen = np.zeros(len(points), dtype=bool), np.zeros(len(points)), 0, set()
        for row, names in enumerate((slots + SLOTS * np.arange(BANDS)[:, None]).T.tolist()):
            if not seen.isdisjoint(names):
                found[start:row], counts[start:row] = self._apart(points[start:row], slots[:, start:row], owner)
                start, seen = row, set()
            seen.update(names)
        found[start:], counts[start:] = self._apart(points[start:], slots[:, start:], owner)
        return found, counts

    def _apart(
        self, points: Points, slots: Int[np.ndarray, "bands queries"], owner: int
    ) -> tuple[Bool[np.ndarray, " queries"], Float[np.ndarray, " queries"]]:
        """The same, of queries that share no slot."""
        bands, before = np.arange(BANDS)[:, None], self.asked + 1
        self.asked += len(points)
        counts = np.zeros(len(points))
        known = (self.digests[bands, slots] == points.digests[:, None]).any((0, 2))
        owners, others = self.owners[bands, slots], self.places[bands, slots]
        own = points.places[:, None]
        apart = np.sqrt(((others - own) ** 2).sum(3)) if self.numbers else (others != own).mean(3)
        near = (owners != 0) & (apart <= self.radius) & ~known[:, None]
        meeting = (near & (owners != owner)).any(2)
        for row in np.flatnonzero(meeting.any(0)):
            where = np.flatnonzero(meeting[:, row])
            counts[row] = self._count(where, slots[where, row], before + int(row))
        again, oldest = near & (owners == owner), self.oldest[bands, slots]
        entry = np.where(again.any(2), again.argmax(2), oldest)[:, ~known]
        new = slots[:, ~known]
        self.owners[bands, new, entry] = owner
        self.digests[bands, new, entry] = points.digests[~known]
        self.places[bands, new, entry] = points.places[~known]
        self.oldest[bands, new] = np.where(again.any(2), oldest, (oldest + 1) % DEPTH)[:, ~known]
        return meeting.any(0), counts

    def _count(self, bands: np.ndarray, slots: np.ndarray, asked: int) -> float:
        """One more in each of these; the largest."""
        faded = [math.exp(-float(age) / FADING) for age in asked - self.counted[bands, slots]]
        self.counts[bands, slots] = 1 + self.counts[bands, slots] * faded
        self.counted[bands, slots] = asked
        return float(self.counts[bands, slots].max())

    def _slots(self, points: Points) -> Int[np.ndarray, "bands queries"]:
        cells = np.floor((points.places + self.offsets) / self.width).astype(np.int64) if self.numbers else points.places
        mixed = (cells.astype(np.int64) * self.factors).reshape(len(points), BANDS, -1).sum(2)
        return (((mixed ^ (mixed >> 29)) >> 20) & (SLOTS - 1)).T
