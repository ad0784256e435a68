"""What is remembered of a client: the same few arrays however much it asks.

Of its queries two groups are kept (as :mod:`~dptrain.release.monitor.sketch` has them): the latest ``RECENT``, and of all older
ones a uniform sample of ``OLDER`` (reservoir sampling, Vitter 1985, "Random Sampling with a Reservoir"). An attack that goes
round many examples comes back to each after a long time, when the latest queries have forgotten it; the sample has not.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, Shaped
from safetensors.numpy import load, save

from dptrain.errors import CheckpointError
from dptrain.release.monitor.sketch import PLACES, TAILS, Kind, Points

FORMAT = 1
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
        numbers = [FORMAT, self.kind == "tokens", self.queries, self.repeats, self.kept, self.measured, self.alerts]
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return save({**arrays, "numbers": np.array(numbers, dtype=np.int64), "last": np.array([self.last])})

    @classmethod
    def from_bytes(cls, content: bytes) -> "State":
        """Raises CheckpointError where it was written by another version."""
        arrays = load(content)
        numbers, last = arrays.pop("numbers").tolist(), float(arrays.pop("last")[0])
        if numbers[0] != FORMAT:
            raise CheckpointError(
                f"a client's state has the format {numbers[0]} and this version reads {FORMAT}; start a new store"
            )
        names = ("sums", "windows", "rates", "held", "quiet")
        sums, windows, rates, held, quiet = (arrays[name] for name in names)
        state = cls("tokens" if numbers[1] else "numbers", sums, windows, rates, held, quiet)
        state.queries, state.repeats, state.kept, state.measured, state.alerts = numbers[2:]
        state.last = last
        for name, value in arrays.items():
            setattr(state, name, value.copy())
        return state
