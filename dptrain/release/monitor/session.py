"""What one client asked, and what the detectors say of it from its first query to its last.

    session = Session(inputs, labels, margins)          # as recorded, in order
    largest = maxima(watch, session, watch.shared(), "a client", generator)

Sessions that were made from examples say from which (``examples``): the same examples in many sessions are less to go by than
as many sessions of their own, and :func:`distinct` and :func:`sessions_of_their_own` count that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float, Int, Shaped

from dptrain.errors import DataError
from dptrain.release.monitor.detectors import Watch
from dptrain.release.monitor.shared import Shared, owner_of
from dptrain.release.monitor.sketch import Kind, kind_of, sketched
from dptrain.release.monitor.state import State


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
    examples: Int[np.ndarray, " queries"] | None = None
    """Which example each query was made from. None for recorded traffic: each query that differs is then one of its own."""

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


def distinct(sessions: Sequence[Session], seed: int = 0) -> int:
    """From how many examples sessions were made; of recorded ones, how many different queries they hold."""
    return len(np.unique(np.concatenate([_sources(session, seed) for session in sessions])))


def sessions_of_their_own(sessions: Sequence[Session], seed: int = 0) -> int:
    """As how many sessions of examples of their own these count: their number, divided by how many of them an example is in on
    average. Of recorded traffic in which many ask for the same this counts too low."""
    within = sum(len(np.unique(_sources(session, seed))) for session in sessions)
    return len(sessions) * distinct(sessions, seed) // within


def _sources(session: Session, seed: int) -> Int[np.ndarray, " queries"]:
    if session.examples is not None:
        return session.examples
    return np.concatenate([sketched(block, seed).digests for _, block in session.runs()])


def check(sessions: Sequence[Session]) -> None:
    """Raises DataError: they are empty, of different shapes, or not finite."""
    if not sessions:
        raise DataError("there is no benign session to calibrate on; give some hundreds")
    for session in sessions:
        count = len(session.labels)
        times = session.times if session.times is not None else session.labels
        if count == 0 or {len(session.inputs), len(session.margins), len(times)} != {count}:
            raise DataError(
                "a session is empty, or its inputs, labels, margins and times differ in number; give one of each a query"
            )
        if session.examples is not None and len(session.examples) != count:
            raise DataError(f"a session of {count} queries names {len(session.examples)} examples; name one a query")
        if session.kind != sessions[0].kind:
            raise DataError("some sessions are of numbers and some of tokens; calibrate for one model at a time")
        for _, block in session.runs():
            if session.kind == "numbers" and block.shape[1:] != next(sessions[0].runs())[1].shape[1:]:
                raise DataError(f"sessions have inputs of several shapes, such as {list(block.shape[1:])}; give one shape")
            if session.kind == "numbers" and not np.isfinite(block).all():
                raise DataError("a session holds inputs that are not finite; leave them out: the server refuses them")
