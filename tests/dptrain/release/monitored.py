"""A world of benign clients that tests of the monitor share: two classes of points on a plane in 20 dimensions."""

from functools import lru_cache

import numpy as np

from dptrain.release.monitor import Session, Thresholds, benign_sessions, calibrate

WIDTH = 20


def points(count: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    found = generator.normal(size=(count, WIDTH)) * np.where(np.arange(WIDTH) < 6, 1.0, 0.05)
    found[:, 0] += np.where(generator.random(count) < 0.5, 3.0, -3.0)
    return found.astype(np.float32)


def answer(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class 1 where the first coordinate is above 0."""
    first = inputs[:, 0].astype(np.float64)
    return (first > 0).astype(np.int64), np.tanh(np.abs(first))


def sessions(count: int, seed: int, pace: tuple[float, float] | None = None) -> list[Session]:
    lengths = (20, 250)
    return benign_sessions(points(3000, seed), answer, count, np.random.default_rng(seed), lengths=lengths, pace=pace)


@lru_cache(maxsize=1)
def thresholds() -> Thresholds:
    return calibrate(sessions(240, 0), 0.02, confidence=None)


def observed(monitor, client: str, inputs: np.ndarray):
    return monitor.observe(client, inputs, *answer(inputs))


def probing(count: int, start: int = 7) -> np.ndarray:
    """One point, altered a little each time."""
    noise = 0.01 * np.random.default_rng(9).normal(size=(count, WIDTH))
    return (points(1, start) + noise).astype(np.float32)
