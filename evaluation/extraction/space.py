"""All that a secret might have been, by a language model's own word: scored, counted and searched.

    scores = scored(target, "The PIN of Odo Fenn is ", ["483920", "000000"])        # log-probabilities, in nats
    rank = at_least(target, before, places, floor=scores[0])                        # how many candidates score as high
    found = best(target, before, places)                                            # the most probable one

A candidate's score is log P(candidate | what stands before it), the sum of its characters' log-probabilities. Candidates that
begin alike share the model's state up to where they part (:meth:`evaluation.target.Target.read`): all 10⁶ numbers of six digits
take 111,111 steps of one character. As no log-probability is above 0, a beginning that scores below a floor has no candidate
above it, and is left out with all that begin so; that makes a secret that was learned by heart cheap to rank.

The same score comes out a little different in batches of different sizes, so whoever lies within ``TOLERANCE`` of a floor
counts as reaching it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dptrain.data.alphabet import OTHER, START, decode, encode
from evaluation.target import Reading, Target

CHUNK = 4096
"""Beginnings that are read at once."""
TOLERANCE = 1e-4
"""In nats."""

Places = Sequence[str]
"""The characters that each place may hold."""


@dataclass(frozen=True)
class Found:
    """A continuation, and its log-probability in nats."""

    text: str
    score: float


def after(target: Target, before: str) -> tuple[Float[Tensor, "one tokens"], Reading]:
    """What may come after the beginning of a sequence."""
    return target.read(torch.cat([torch.tensor([START]), encode(before)])[None])


def rows(state: Reading, index: Int[Tensor, " rows"]) -> Reading:
    """The state of some of the sequences, in this order."""
    return tuple(part[:, index] for part in state)


def scored(target: Target, before: str, candidates: Sequence[str]) -> Float[np.ndarray, " candidates"]:
    """The score of each candidate; all are of one length."""
    codes = torch.stack([encode(candidate) for candidate in candidates]).numpy()
    distinct, place_of = np.unique(codes, axis=0, return_inverse=True)
    start = after(target, before)
    parts = [_scored(target, start, part) for part in np.array_split(distinct, max(1, len(distinct) // CHUNK))]
    return np.concatenate(parts)[place_of.reshape(-1)]


def _scored(target: Target, start: tuple[Tensor, Reading], codes: np.ndarray) -> np.ndarray:
    """Of sorted candidates, place by place: one row for each different beginning."""
    log_probabilities, state = start
    row, total = np.zeros(len(codes), dtype=np.int64), np.zeros(len(codes))
    for place in range(codes.shape[1]):
        total += log_probabilities.numpy()[row, codes[:, place]]
        if place + 1 < codes.shape[1]:
            beginnings = row * log_probabilities.shape[1] + codes[:, place]
            _, first, following = np.unique(beginnings, return_index=True, return_inverse=True)
            tokens = torch.from_numpy(codes[first, place])[:, None]
            log_probabilities, state = target.read(tokens, rows(state, torch.from_numpy(row[first])))
            row = following.reshape(-1)
    return total


def at_least(target: Target, before: str, places: Places, floor: float) -> int:
    """How many of the candidates score as high as ``floor``, itself included where it is a candidate's score."""
    level = floor - TOLERANCE
    return sum(int((scores >= level).sum()) for _, scores in _walk(target, before, places, lambda: level))


def best(target: Target, before: str, places: Places, width: int = 16) -> Found:
    """The candidate that scores highest of all; ``width`` is of the beam search whose find everything else must beat."""
    leaders = beam(target, before, places, width)[:1]
    last = encode(places[-1])
    for beginnings, scores in _walk(target, before, places, lambda: leaders[-1].score):
        row, at = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[row, at] > leaders[-1].score:
            text = decode(torch.from_numpy(beginnings[row])) + decode(last[[int(at)]])
            leaders.append(Found(text, float(scores[row, at])))
    return leaders[-1]


def beam(target: Target, before: str, places: Places | int, width: int) -> list[Found]:
    """Up to ``width`` continuations by beam search, the most probable first.

    Args:
        places: the characters of each place; or a number of places that may hold any, the line break included.
    """
    log_probabilities, state = after(target, before)
    codes = _any(places, log_probabilities.shape[1]) if isinstance(places, int) else [encode(place).numpy() for place in places]
    texts, total = np.empty((1, 0), dtype=np.int64), np.zeros(1)
    for number, place in enumerate(codes):
        totals = total[:, None] + log_probabilities.numpy()[:, place]
        chosen = np.argsort(-totals, axis=None, kind="stable")[:width]
        row, at = np.unravel_index(chosen, totals.shape)
        texts, total = np.hstack([texts[row], place[at][:, None]]), totals[row, at]
        if number + 1 < len(codes):
            log_probabilities, state = target.read(torch.from_numpy(place[at])[:, None], rows(state, torch.from_numpy(row)))
    return [Found(decode(torch.from_numpy(text)), float(score)) for text, score in zip(texts, total, strict=True)]


def _any(count: int, tokens: int) -> list[np.ndarray]:
    return [np.arange(OTHER, tokens)] * count


def _walk(
    target: Target, before: str, places: Places, floor: Callable[[], float]
) -> Iterator[tuple[Int[np.ndarray, "rows but_one"], Float[np.ndarray, "rows last"]]]:
    """The candidates whose beginnings score as high as the floor, in order: all but their last character, and the scores with
    each last one. The floor may rise on the way."""
    codes = [encode(place).numpy() for place in places]
    log_probabilities, state = after(target, before)
    yield from _below(target, codes, np.empty((1, 0), dtype=np.int64), np.zeros(1), log_probabilities, state, floor)


def _below(
    target: Target,
    codes: list[np.ndarray],
    beginnings: np.ndarray,
    total: np.ndarray,
    log_probabilities: Tensor,
    state: Reading,
    floor: Callable[[], float],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    place, rest = codes[0], codes[1:]
    totals = total[:, None] + log_probabilities.numpy()[:, place]
    if not rest:
        yield beginnings, totals
        return
    every = np.stack(np.nonzero(totals >= floor()))
    for start in range(0, every.shape[1], CHUNK):
        row, at = every[:, start : start + CHUNK]
        kept = totals[row, at] >= floor()
        row, at = row[kept], at[kept]
        if len(row):
            following = target.read(torch.from_numpy(place[at])[:, None], rows(state, torch.from_numpy(row)))
            texts = np.hstack([beginnings[row], place[at][:, None]])
            yield from _below(target, rest, texts, totals[row, at], *following, floor)
