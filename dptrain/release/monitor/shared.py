"""Near-duplicates that come from several clients: one table for all, of a fixed size.

Locality-sensitive hashing (Datar, Immorlica, Indyk, Mirrokni 2004, "Locality-Sensitive Hashing Scheme Based on p-Stable
Distributions"): coordinates of a projection are cut into cells of twice the radius, ``BANDS`` groups of them name a slot each,
and two queries within the radius are likely to meet in one. Of texts the minima themselves are the cells. Each band has
``SLOTS`` slots, and a slot holds the last query that fell into it: its projection, its digest and a hash of its client. A new
query takes the slot over, so that memory never grows and an old query is forgotten the sooner the more is asked. Two queries
that meet are compared by their distance. The same query from two clients says nothing: many people ask what is popular.

The table is not kept over a restart; it fills again as clients ask.
"""

import hashlib

import numpy as np
from jaxtyping import Bool, Int

from dptrain.release.monitor.sketch import PLACES, Kind, Points

BANDS = 4
SLOTS = 1 << 14


def owner_of(client: str) -> int:
    """A number for a client."""
    return int.from_bytes(hashlib.blake2b(client.encode(), digest_size=7).digest(), "big") + 1


class Shared:
    """What all clients asked lately."""

    def __init__(self, kind: Kind, radius: float, seed: int):
        self.radius, self.width = radius, max(2 * radius, 1e-12)
        generator = np.random.default_rng([seed, 3])
        self.offsets = generator.random(PLACES) * self.width
        self.factors = generator.integers(0, 2**62, PLACES, dtype=np.int64) | 1
        self.numbers = kind == "numbers"
        self.owners = np.zeros((BANDS, SLOTS), dtype=np.int64)
        self.keys = np.zeros((BANDS, SLOTS), dtype=np.int64)
        self.digests = np.zeros((BANDS, SLOTS), dtype=np.int64)
        self.places = np.zeros((BANDS, SLOTS, PLACES), dtype=np.float32 if self.numbers else np.uint32)

    def met(self, points: Points, owner: int) -> Bool[np.ndarray, " queries"]:
        """Which are near-duplicates of other clients' queries; and then they are in the table themselves."""
        keys = self._keys(points)
        slots, bands = (keys >> 20) & (SLOTS - 1), np.arange(BANDS)[:, None]
        theirs = (self.owners[bands, slots] != owner) & (self.owners[bands, slots] != 0) & (self.keys[bands, slots] == keys)
        theirs &= self.digests[bands, slots] != points.digests
        found = np.zeros(len(points), dtype=bool)
        if theirs.any():
            other, own = self.places[bands, slots], points.places[None]
            apart = np.sqrt(((other - own) ** 2).sum(2)) if self.numbers else (other != own).mean(2)
            found = (theirs & (apart <= self.radius)).any(0)
        self.owners[bands, slots], self.keys[bands, slots] = owner, keys
        self.digests[bands, slots], self.places[bands, slots] = points.digests[None], points.places[None]
        return found

    def _keys(self, points: Points) -> Int[np.ndarray, "bands queries"]:
        cells = np.floor((points.places + self.offsets) / self.width).astype(np.int64) if self.numbers else points.places
        mixed = (cells.astype(np.int64) * self.factors).reshape(len(points), BANDS, -1).sum(2)
        return (mixed ^ (mixed >> 29)).T
