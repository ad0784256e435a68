"""What the server does, without HTTP: who asks, whether they may, what they are answered, and what is counted.

    service = Service(
        served, guard_text="top5-rounded", monitor=None, limits=Limits(), engine=None, keys=None, settings=Settings()
    )
    service.predict("4f9a61c2", body, "application/json")       # Reply(content=b'{"answers": ...}', examples=1, delay=0.0)

Everything that computes for a request runs in one worker thread, one request after the other: reading, limits, model, guard and
monitor. So none of them needs a lock, a batch has the processor's threads to itself, and the memory of a hostile body is taken
once and not once a connection. A request sees one :class:`~dptrain.release.version.Version`,
whatever is loaded meanwhile.
"""

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as Total
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from dptrain.errors import ConfigError, UserError
from dptrain.release.keys import Keys
from dptrain.release.limits import Exceeded, Limits, Meter
from dptrain.release.loading import Served
from dptrain.release.places import Place, Places
from dptrain.release.predictor import Predictor
from dptrain.release.reading import Refusal, is_array
from dptrain.release.version import Decision, Renewal, Version, Watching

T = TypeVar("T")

ADMINISTRATOR = "ask whoever runs this server"
GUARD_SECRET = "guard"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Settings:
    """What protects the server itself.

    Raises:
        ConfigError: one of them is no positive number.
    """

    max_body: int = 8 * 2**20
    """Bytes of a request's body."""
    max_batch: int = 256
    """Examples of a request."""
    timeout: float = 10.0
    """Seconds in which a request's head must arrive, then its body, and then its answer be ready."""
    grace: float = 5.0
    """Seconds that requests have left when the server is asked to end."""
    clients: Literal["keys", "addresses"] = "keys"
    """By what a client is known: the id of its key, or the address that it asks from."""
    at_once: int = 8
    """Requests of one client at the same time."""
    waiting: int = 64
    """Requests of all clients at the same time."""
    connections: int = 64
    """Of one address at the same time; more where all clients come through one proxy."""

    def __post_init__(self) -> None:
        for name in ("max_body", "max_batch", "timeout", "grace", "at_once", "waiting", "connections"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}; give a number above 0")


@dataclass(frozen=True)
class Reply:
    """What is sent, and how it came about."""

    content: bytes
    examples: int
    delay: float = 0.0
    """Seconds that it is held back."""


@dataclass(eq=False)
class Metrics:
    """In a registry that is not the process's: nothing of its other parts is shown."""

    registry: CollectorRegistry

    def __post_init__(self) -> None:
        def of(kind: Any, name: str, about: str, labels: tuple[str, ...] = (), **more: Any) -> Any:
            return kind(f"dptrain_{name}", about, labels, registry=self.registry, **more)

        self.requests: Total = of(Total, "requests", "Requests, by page and status.", ("page", "status"))
        self.seconds: Histogram = of(Histogram, "request_seconds", "From the head to the answer.", ("page",), buckets=SECONDS)
        self.examples: Total = of(Total, "examples", "Examples that were answered.")
        self.waiting: Gauge = of(Gauge, "waiting_requests", "Predictions that are read or computed.")
        self.reloads: Total = of(Total, "reloads", "Releases that were loaded while serving.", ("outcome",))


class Service:
    """See the module's text."""

    def __init__(
        self,
        served: Served,
        *,
        guard_text: str | None,
        monitor: Watching | None,
        limits: Limits,
        engine: Engine | None,
        keys: Keys | None,
        settings: Settings,
        registry: CollectorRegistry | None = None,
        renew: Renewal | None = None,
    ):
        if settings.clients == "keys" and keys is None:
            raise ConfigError("clients are known by their keys and there are none; give keys, or clients='addresses'")
        engine = (
            engine
            if engine is not None
            else create_engine(
                "sqlite://", hide_parameters=True, poolclass=StaticPool, connect_args={"check_same_thread": False}
            )
        )
        self.settings, self.keys = settings, keys
        self.meter = Meter(limits, engine)
        self.metrics = Metrics(registry or CollectorRegistry())
        self.began = time.time()
        self._renew: Renewal = renew or (lambda new, version: version.kept_for(new))
        self._secret = (keys or Keys(engine)).secret(GUARD_SECRET)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="dptrain-predict")
        self.places = Places(settings.at_once, settings.waiting, self.metrics.waiting)
        self._reloading = asyncio.Lock()
        most = settings.max_batch if limits.rate is None else min(settings.max_batch, limits.burst)
        self._most = most
        self.version = self._version(served, guard_text, monitor)

    @property
    def predictor(self) -> Predictor:
        return self.version.predictor

    async def run(self, work: Callable[..., T], *given: Any, place: Place | None = None) -> T:
        """In the worker thread.

        Args:
            place: that is taken until the work has ended, also where nobody waits for it any more.

        Raises:
            Refusal: it takes too long. What has begun goes on, and its result is thrown away.
        """
        future = self._worker.submit(work, *given)
        if place is not None:
            place.work = future
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.settings.timeout)
        except TimeoutError:
            raise Refusal(503, f"the answer was not ready after {self.settings.timeout:g} s", "ask again later", 1) from None

    def most_bytes(self, content_type: str) -> int:
        """Of a body: an array is read at no cost, and JSON is as long as the model's numbers can be."""
        most = self.settings.max_body
        return most if is_array(content_type) else min(most, self.predictor.form.most_of_json)

    def predict(self, client: str, body: bytes, content_type: str) -> Reply:
        """Reads, charges, answers and observes; in the worker thread.

        Raises:
            Refusal: it says why.
        """
        predictor, monitor = self.version.predictor, self.version.monitor
        before = None if monitor is None else monitor.admit(client)
        self._check(before)
        self._charge(self.meter.check, client)
        try:
            batches = predictor.form.read(body, content_type)
        except Refusal:
            self.meter.waste(client, predictor.form.worth(len(body)))
            raise
        examples = sum(map(len, batches))
        self._charge(self.meter.take, client, examples)
        degrade = before is not None and before.action == "degrade"
        try:
            given = predictor.answer(batches, degrade)
        except (IndexError, RuntimeError) as error:
            raise predictor.form.refusal(f"the model cannot read these inputs ({type(error).__name__})") from None
        delay = 0.0 if before is None else before.delay
        if monitor is not None:
            start = 0
            for batch in batches:
                part = slice(start, start + len(batch))
                after = monitor.observe(client, batch.numpy(), given.labels[part], given.margins[part])
                self._check(after)
                start, delay = part.stop, max(delay, after.delay)
                degrade = degrade or after.action == "degrade"
            if degrade and (before is None or before.action != "degrade"):
                given = predictor.answer(batches, degrade=True)
        self.metrics.examples.inc(examples)
        shown: dict[str, Any] = {"answers": given.answers, "guard": predictor.guard_text}
        if predictor.served.value is not None:
            shown["unit"] = predictor.served.value.unit
        return Reply(
            json.dumps(shown, ensure_ascii=False, allow_nan=False).encode(), examples, min(delay, self.settings.timeout)
        )

    def statistics(self) -> dict[str, Any]:
        """For the administrator: by client, never with an input."""
        limits = self.meter.limits
        names = {} if self.keys is None else {one.holder.id: one.holder.name for one in self.keys.list()}
        answered, version = self.meter.answered(), self.version
        return {
            "began": self.began,
            "digest": version.predictor.served.digest,
            "guard": version.predictor.guard_text,
            "limits": {"rate": limits.rate, "burst": limits.burst, "queries": limits.queries},
            "clients": {client: {"name": names.get(client, ""), "answered": count} for client, count in answered.items()},
            "monitor": None if version.monitor is None else version.monitor.statistics(),
        }

    async def reload(self) -> str:
        """Loads the folder again, beside the requests; those under way end with what they began with.

        Returns:
            The new digest.

        Raises:
            UserError: the new release cannot be served; the one before stays.
        """
        async with self._reloading:
            try:
                new = await asyncio.to_thread(self._renewed)
                await asyncio.get_running_loop().run_in_executor(self._worker, self._change, new)
            except Exception:
                self.metrics.reloads.labels("refused").inc()
                raise
            self.metrics.reloads.labels("loaded").inc()
        return new.predictor.served.digest

    def save(self) -> None:
        """Writes the monitor's state."""
        if self.version.monitor is not None:
            self.version.monitor.save()

    async def close(self) -> None:
        """Writes all state, once what is under way has ended."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._worker, self.save)
        await loop.run_in_executor(self._worker, self.meter.close)
        self._worker.shutdown(wait=True)

    def _version(self, served: Served, guard_text: str | None, monitor: Watching | None) -> Version:
        return Version.of(Predictor.of(served, guard_text, self._secret, self._most), monitor)

    def _renewed(self) -> Version:
        served = Served.load(self.predictor.served.folder)
        made = self._version(served, *self._renew(served, self.version))
        served.check_unchanged()
        return made

    def _change(self, new: Version) -> None:
        """Between two requests. What the monitor before knows is written first, and where that fails nothing changes."""
        if new.monitor is not self.version.monitor:
            try:
                self.save()
            except SQLAlchemyError as error:
                raise UserError(f"the monitor's state cannot be written ({type(error).__name__})") from None
        self.version = new

    def _charge(self, charge: Callable[..., None], *given: Any) -> None:
        try:
            charge(*given)
        except Exceeded as limit:
            accepted = f"wait {limit.wait} s" if limit.wait else f"smaller batches, where some are left; or {ADMINISTRATOR}"
            raise Refusal(429, str(limit), accepted, limit.wait) from None

    def _check(self, decision: Decision | None) -> None:
        if decision is not None and decision.action == "refuse":
            raise Refusal(403, "this client's queries look like probing of the model", ADMINISTRATOR)
