"""How many requests are served at the same time: of one client, and of all.

    with places.taken("4f9a61c2") as place:
        place.work = worker.submit(...)

A place is free again when the request has ended and what is computed for it has too: whoever does not wait for an answer gets
no more of the worker for it.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import Gauge

from dptrain.release.reading import Refusal


@dataclass(eq=False)
class Place:
    """Of one request."""

    work: Future[Any] | None = None
    """What is computed for it."""


class Places:
    """For the thread of the event loop alone.

    Args:
        gauge: shows how many are taken.
    """

    def __init__(self, each: int, most: int, gauge: Gauge):
        self._each, self._most, self._gauge = each, most, gauge
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, client: str) -> Iterator[Place]:
        """Raises Refusal where the client, or all together, have no place left."""
        if self._taken[client] >= self._each:
            said = f"this client has {self._taken[client]} requests under way"
            raise Refusal(429, said, f"at most {self._each} at the same time", 1)
        if self._taken.total() >= self._most:
            raise Refusal(503, "the server is busy", "ask again later", 1)
        self._taken[client] += 1
        self._gauge.inc()
        place, loop = Place(), asyncio.get_running_loop()
        try:
            yield place
        finally:
            if place.work is None or place.work.done():
                self._leave(client)
            else:
                place.work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave, client))

    def _leave(self, client: str) -> None:
        self._taken[client] -= 1
        if not self._taken[client]:
            del self._taken[client]
        self._gauge.dec()
