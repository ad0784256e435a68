"""Benign sessions, made from held-out examples: for a model that has no traffic yet.

    sessions = benign_sessions(inputs, answer, 900, generator)
    thresholds = calibrate(sessions)

Each session is one client of a kind that is drawn with equal chance. Of numbers and of texts:

* ``steady``: examples in random order, one at a time
* ``bursts``: the same, 8 to 64 at once, with pauses
* ``one class``: only examples to which the model gives one label
* ``retries``: one at a time, and every fifth query is sent two to four times, to the bit
* ``favourites``: 16 examples, again and again

and of texts also ``typing``: a text is asked for after every piece that was added, of one token or up to as many as eight, and
one in ten pieces is taken back and typed differently.

No session but of favourites asks for an example twice, save at once: where there are fewer examples than a session would have
queries, it is shorter. A client with more examples than that would meet near-duplicates that no session here can meet.

What is not covered: clients that send the same thing slightly altered (a photograph taken twice), other sources of examples,
and the hours of a day. Sessions of recorded traffic are better where there is some: give those to ``calibrate``.

The first third of the sessions is made from the first third of the examples, in random order, and the rest from the others, so
that nothing is calibrated on the examples that it was fitted on. Sessions share their examples, which they name
(``Session.examples``), so that it can be said how many of them there are.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int, Shaped

from dptrain.errors import DataError
from dptrain.release.monitor.session import Session
from dptrain.release.monitor.sketch import kind_of

ClientKind = Literal["steady", "bursts", "one class", "retries", "favourites", "typing"]
CLIENTS: tuple[ClientKind, ...] = get_args(ClientKind)
FAVOURITES = 16
LEAST_EXAMPLES = 100
"""With fewer the thresholds say more of these examples than of clients."""
Answer = Callable[[Shaped[np.ndarray, "queries ..."]], tuple[Int[np.ndarray, " queries"], Float[np.ndarray, " queries"]]]
"""Inputs to the labels that the model gives and the margins between its two highest scores."""


def benign_sessions(
    inputs: Shaped[np.ndarray, "examples ..."],
    answer: Answer,
    count: int,
    generator: np.random.Generator,
    *,
    lengths: tuple[int, int] = (20, 400),
    pace: tuple[float, float] | None = None,
    kinds: Sequence[ClientKind] = CLIENTS,
) -> list[Session]:
    """Sessions of clients that ask for these examples.

    Args:
        inputs: held out: not what the model was trained on.
        lengths: fewest and most queries of a session, log-uniform between them, and no more than there are examples.
        pace: fewest and most seconds between two queries, or two bursts, on average, log-uniform between them over clients.
            None where the pace of clients is not known: rates are then not watched.

    Raises:
        DataError: there are fewer examples than sessions can be made of.
    """
    if len(inputs) < LEAST_EXAMPLES:
        raise DataError(f"{len(inputs)} held-out examples were given; benign sessions are made of {LEAST_EXAMPLES} at least")
    kinds = [kind for kind in kinds if kind != "typing" or kind_of(inputs) == "tokens"]
    order, cut = generator.permutation(len(inputs)), len(inputs) // 3
    parts = [_Part(inputs[part], part, answer, generator) for part in (order[:cut], order[cut:])]
    found = []
    for number in range(count):
        length = round(float(np.exp(generator.uniform(*np.log(lengths)))))
        kind = kinds[int(generator.integers(len(kinds)))]
        found.append(parts[number >= count // 3].session(kind, length, pace))
    return found


class _Part:
    """Some of the examples, and what the model says of them."""

    def __init__(self, inputs: np.ndarray, numbers: np.ndarray, answer: Answer, generator: np.random.Generator):
        self.inputs, self.numbers, self.answer, self.generator = inputs, numbers, answer, generator
        self.labels, self.margins = answer(inputs)

    def session(self, kind: ClientKind, length: int, pace: tuple[float, float] | None) -> Session:
        if kind == "typing":
            return self._typing(length, pace)
        pool = np.arange(len(self.labels))
        if kind == "one class":
            pool = np.flatnonzero(self.labels == self.generator.choice(self.labels))
        if kind == "favourites":
            pool = self.generator.choice(pool, min(FAVOURITES, len(pool)), replace=False)
        rounds = -(-length // len(pool)) if kind == "favourites" else 1
        rows = np.concatenate([self.generator.permutation(pool) for _ in range(rounds)])[:length]
        if kind == "retries":
            often = np.where(self.generator.random(len(rows)) < 0.2, self.generator.integers(2, 5, len(rows)), 1)
            rows = np.repeat(rows, often)[:length]
        times = self._times(kind, len(rows), pace)
        return Session(self.inputs[rows], self.labels[rows], self.margins[rows], times, self.numbers[rows])

    def _typing(self, length: int, pace: tuple[float, float] | None) -> Session:
        texts: list[np.ndarray] = []
        examples: list[int] = []
        most = int(self.generator.integers(1, 9))
        while len(texts) < length:
            number, end = int(self.generator.integers(len(self.inputs))), 0
            text = self.inputs[number]
            while end < len(text) and len(texts) < length:
                before, end = end, min(len(text), end + int(self.generator.integers(1, most + 1)))
                if self.generator.random() < 0.1:
                    other = self.inputs[int(self.generator.integers(len(self.inputs)))]
                    texts.append(np.concatenate([text[:before], other[before:end]]))
                texts.append(text[:end])
            examples += [int(self.numbers[number])] * (len(texts) - len(examples))
        texts = texts[:length]
        labels, margins = np.empty(length, dtype=np.int64), np.empty(length)
        sizes = np.array([len(text) for text in texts])
        for size in np.unique(sizes):
            rows = np.flatnonzero(sizes == size)
            labels[rows], margins[rows] = self.answer(np.stack([texts[row] for row in rows]))
        return Session(texts, labels, margins, self._times("typing", length, pace), np.array(examples[:length]))

    def _times(self, kind: ClientKind, length: int, pace: tuple[float, float] | None) -> np.ndarray | None:
        if pace is None:
            return None
        seconds = np.exp(self.generator.uniform(*np.log(pace)))
        gaps = self.generator.exponential(seconds, length)
        if kind == "bursts":
            ends = np.cumsum(self.generator.integers(8, 65, length))
            gaps[~np.isin(np.arange(length), ends)] = 0.0
        return np.cumsum(gaps)
