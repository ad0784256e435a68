"""Which of several equal ways to compute is the fastest here: tried once for each layer and shape, and remembered.

A per-example gradient's norm can be had from a ghost norm, from the gradient itself, or from a grouped product; which one is
fastest depends on the layer, the shape, the machine and the number of threads, and no rule of thumb predicts it. All ways
give the same result to rounding, so that the choice is a matter of speed alone and cannot touch what is released.

    choice = Choice()
    fastest = choice.of(("linear", shape), {"ghost": lambda: ..., "instantiated": lambda: ...})
"""

import time
from collections.abc import Callable, Hashable, Mapping

import torch

ROUNDS = 3
"""Each way runs so often after one run that warms it up; its least time counts."""


class Choice:
    """Remembers the fastest way for each key; ``only`` names one way that is taken wherever it is offered."""

    def __init__(self, only: str | None = None):
        self._only = only
        self._known: dict[Hashable, str] = {}

    def of(self, key: Hashable, ways: Mapping[str, Callable[[], object]]) -> str:
        """The name of the fastest way; each is run where the key is new and there is more than one."""
        if len(ways) == 1:
            return next(iter(ways))
        if self._only in ways:
            return str(self._only)
        key = (key, torch.get_num_threads())
        if key not in self._known:
            self._known[key] = min(ways, key=lambda name: _seconds(ways[name]))
        return self._known[key]

    def known(self) -> dict[Hashable, str]:
        """What was chosen so far, by key."""
        return dict(self._known)


def _seconds(way: Callable[[], object]) -> float:
    way()
    _wait()
    times = []
    for _ in range(ROUNDS):
        before = time.perf_counter()
        way()
        _wait()
        times.append(time.perf_counter() - before)
    return min(times)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def bucket(count: int) -> int:
    """Batches vary in size from draw to draw: sizes within a factor of 1.4 share a choice."""
    return round(2 * float(torch.tensor(float(max(count, 1))).log2()))


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
