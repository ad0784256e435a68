"""Which of several equal ways to compute is the fastest here: tried once for each layer and shape, and remembered.

A per-example gradient's norm can be had from a ghost norm, from the gradient itself, or from a grouped product; which one is
fastest depends on the layer, the shape, the machine and the number of threads, and no rule of thumb predicts it. All ways
give the same result to rounding, so that the choice is a matter of speed alone and cannot touch what is released.

    choice = Choice()
    fastest = choice.of(("linear", shape), {"ghost": lambda: ..., "instantiated": lambda: ...})
"""

import functools
import math
import time
from collections.abc import Callable, Hashable, Mapping

import torch

ROUNDS = 2
"""Each way runs so often after one run that warms it up; its least time counts."""
HOPELESS = 2.0
"""A way that took so many times as long as the best one when it was warmed up is not run again."""


class Choice:
    """Remembers the fastest way for each key.

    Args:
        only: one way that is taken wherever it is offered.
    """

    def __init__(self, only: str | None = None):
        self._only = only
        self._known: dict[Hashable, str] = {}

    @classmethod
    @functools.cache
    def shared(cls, only: str | None = None) -> "Choice":
        """The one of this process: what was found for one model is true for the next one of its shape."""
        return cls(only)

    def of(self, key: Hashable, ways: Mapping[str, Callable[[], object]]) -> str:
        """The name of the fastest way; each is run where the key is new and there is more than one."""
        if self._only in ways:
            return str(self._only)
        if len(ways) == 1:
            return next(iter(ways))
        key = (key, torch.get_num_threads())
        if key not in self._known:
            self._known[key] = fastest(ways)
        return self._known[key]

    def known(self) -> dict[Hashable, str]:
        """What was chosen so far, by key."""
        return dict(self._known)


def fastest(ways: Mapping[str, Callable[[], object]]) -> str:
    """The name of the way that takes the least time."""
    warm = {name: _seconds(way) for name, way in ways.items()}
    hopeful = [name for name, seconds in warm.items() if seconds <= HOPELESS * min(warm.values())]
    if len(hopeful) == 1:
        return hopeful[0]
    times = dict.fromkeys(hopeful, math.inf)
    for _ in range(ROUNDS):
        for name in hopeful:
            times[name] = min(times[name], _seconds(ways[name]))
    return min(times, key=lambda name: times[name])


def _seconds(way: Callable[[], object]) -> float:
    before = time.perf_counter()
    way()
    _wait()
    return time.perf_counter() - before


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def bucket(count: int) -> int:
    """Batches vary in size from draw to draw: sizes within a factor of 1.4 share a choice."""
    return round(2 * math.log2(max(count, 1)))


class Workspace:
    """Buffers that serve step after step: fresh memory of many megabytes costs more in page faults than in arithmetic.

    A buffer belongs to its key: whoever takes it again overwrites it.
    """

    def __init__(self) -> None:
        self._buffers: dict[Hashable, torch.Tensor] = {}

    def take(self, key: Hashable, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """An uninitialised contiguous tensor of this shape, of the type and device of ``like``."""
        count = 1
        for size in shape:
            count *= size
        full = (key, like.dtype, like.device)
        held = self._buffers.get(full)
        if held is None or held.numel() < count:
            held = self._buffers[full] = torch.empty(count, dtype=like.dtype, device=like.device)
        return held[:count].view(shape)
