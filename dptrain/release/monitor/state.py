"""What is remembered of a client: the same few arrays however much it asks.

Of its queries two groups are kept (as :mod:`~dptrain.release.monitor.sketch` has them): the latest ``RECENT``, and of all older
ones a uniform sample of ``OLDER`` (reservoir sampling, Vitter 1985, "Random Sampling with a Reservoir"). An attack that goes
round many examples comes back to each after a long time, when the latest queries have forgotten it; the sample has not.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Int, Shaped
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dptrain.errors import CheckpointError
from dptrain.release.monitor.sketch import PLACES, TAILS, Kind, Points

FORMAT = 1
COUNTS = ("queries", "repeats", "kept", "measured", "alerts")
RECENT = 256
OLDER = 256
WINDOW = 128
"""Labels, and distances, whose distribution is looked at."""


@dataclass(eq=False)
class State:
    """Of one client."""

    kind: Kind
    sums: Float[np.ndarray, " summed"]
    """Of each detector that sums up."""
    windows: Float[np.ndarray, " windowed"]
    """Of each detector that looks at a window, when it last did."""
    rates: Float[np.ndarray, " rates"]
    held: Float[np.ndarray, " actions"]
    """Until when each action holds."""
    quiet: Float[np.ndarray, " detectors"]
    """Until when each detector is not heard again."""
    queries: int = 0
    repeats: int = 0
    """Queries that are, to the bit, ones that are kept. They count for the rates alone."""
    kept: int = 0
    """Queries that went into memory."""
    measured: int = 0
    """Distances that went into the window."""
    alerts: int = 0
    last: float = -np.inf
    places: Shaped[np.ndarray, "memory places"] = field(init=False)
    digests: Int[np.ndarray, " memory"] = field(init=False)
    beginnings: Int[np.ndarray, "memory tails"] = field(init=False)
    labels: Int[np.ndarray, " memory"] = field(init=False)
    window: Int[np.ndarray, " window"] = field(init=False)
    distances: Float[np.ndarray, " window"] = field(init=False)

    def __post_init__(self) -> None:
        size, numbers = RECENT + OLDER, self.kind == "numbers"
        self.places = np.zeros((size, PLACES), dtype=np.float32 if numbers else np.uint32)
        self.digests = np.zeros(size, dtype=np.int64)
        self.beginnings = np.zeros((size, 0 if numbers else len(TAILS)), dtype=np.int64)
        self.labels = np.full(size, -1, dtype=np.int32)
        self.window = np.full(WINDOW, -1, dtype=np.int32)
        self.distances = np.zeros(WINDOW, dtype=np.float64)

    @property
    def used(self) -> int:
        """Rows of the memory that hold something: always the first ones."""
        return min(self.kept, RECENT + OLDER)

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def remember(self, points: Points, labels: Int[np.ndarray, " queries"], generator: np.random.Generator) -> None:
        """At most ``RECENT`` queries. What leaves the latest ones goes into the sample with the chance that it should have."""
        numbers = self.kept + np.arange(len(points))
        rows = numbers % RECENT
        leaving = numbers >= RECENT
        older = numbers[leaving] - RECENT
        drawn = np.where(older < OLDER, older, (generator.random(len(older)) * (older + 1)).astype(np.int64))
        taken = drawn < OLDER
        source, goal = rows[leaving][taken], RECENT + drawn[taken]
        new = (points.places, points.digests, points.beginnings, labels)
        for memory, values in zip((self.places, self.digests, self.beginnings, self.labels), new, strict=True):
            memory[goal] = memory[source]
            memory[rows] = values
        self.window[numbers % WINDOW] = labels
        self.kept += len(points)

    def measure(self, distances: Float[np.ndarray, " queries"]) -> None:
        """Into the window of distances."""
        self.distances[(self.measured + np.arange(len(distances))) % WINDOW] = distances
        self.measured += len(distances)

    def to_bytes(self) -> bytes:
        numbers = [FORMAT, self.kind == "tokens", *(getattr(self, name) for name in COUNTS)]
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return save({**arrays, "numbers": np.array(numbers, dtype=np.int64), "last": np.array([self.last])})

    @classmethod
    def from_bytes(cls, content: bytes, fresh: "State") -> "State":
        """A state like ``fresh``, which is that of a client that has asked nothing.

        Raises:
            CheckpointError: it is damaged, or was written by another version or for another monitor.
        """
        try:
            arrays = load(content)
            numbers, (last,) = arrays.pop("numbers").tolist(), arrays.pop("last").tolist()
            version, is_tokens, *counts = numbers
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"a client's state is damaged ({error})") from None
        if version != FORMAT:
            raise CheckpointError(
                f"a client's state has the format {version} and this version reads {FORMAT}; start a new store"
            )
        state = replace(fresh)
        wanted = {name: value for name, value in vars(state).items() if isinstance(value, np.ndarray)}
        if bool(is_tokens) != (fresh.kind == "tokens") or arrays.keys() != wanted.keys() or len(counts) != len(COUNTS):
            raise CheckpointError("a client's state is damaged, or of another monitor")
        for name, value in wanted.items():
            found = arrays[name]
            if found.shape != value.shape or found.dtype != value.dtype or (found.dtype.kind == "f" and np.isnan(found).any()):
                raise CheckpointError(f"a client's state is damaged, or of another monitor: {name}")
            setattr(state, name, found.copy())
        if min(counts) < 0 or np.isnan(last):
            raise CheckpointError("a client's state is damaged: a count is below 0, or a time is none")
        for name, count in zip(COUNTS, counts, strict=True):
            setattr(state, name, count)
        state.last = last
        return state
