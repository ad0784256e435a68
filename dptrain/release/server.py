"""The prediction server: a guarded model behind HTTP, for people whom nobody knows.

    store = Store("sqlite:///state.db")
    app = create_app(
        Served.load(folder), guard_text="top5-rounded", monitor=None, limits=Limits(rate=10.0), store=store,
        keys=Keys(store.engine), settings=Settings(),
    )
    run(app, "127.0.0.1", 8000, settings)                   # dptrain.release.listening

``POST /v1/predict`` answers, ``GET /v1/card`` says what is promised, ``/docs`` and ``/openapi.json`` describe both. The page at
``/`` shows the card, and to the administrator who clients are and what the monitor says of them.

Whatever cannot be answered is a JSON object with ``error`` and ``accepted``, never a trace of the program. A body is counted
while it arrives, by its stated length and without one, and has to be there in time. No answer, no log and no metric holds an
input. Clients know nothing of the monitor but that they are refused: an alert that named its detector would teach how to
pass it. So ``/metrics``, which counts alerts and refusals, is the administrator's: Prometheus sends a key as its
``authorization`` with ``credentials_file``.

TLS is left to what stands before the server; addresses that a proxy states are not believed, so behind one, use keys.
"""

import asyncio
import ipaddress
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from sqlalchemy import Engine
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

from dptrain.errors import UserError
from dptrain.release import page
from dptrain.release.keys import Holder, Keys
from dptrain.release.limits import Limits
from dptrain.release.loading import Served
from dptrain.release.reading import JSON, Refusal
from dptrain.release.schema import REASONS, describe
from dptrain.release.service import ADMINISTRATOR, Service, Settings
from dptrain.release.version import Renewal, Watching
from dptrain.version import versions

ACCESS = logging.getLogger("dptrain.release.access")
"""One JSON object a request: when, who, which page, how it ended, how many examples; never an input."""

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

PROTECTING = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class StateStore(Protocol):
    """What the server asks of a state database: see :class:`dptrain.release.monitor.store.Store`."""

    @property
    def engine(self) -> Engine: ...


def create_app(
    served: Served,
    *,
    guard_text: str | None,
    monitor: Watching | None,
    limits: Limits,
    store: StateStore | None,
    keys: Keys | None,
    settings: Settings,
    registry: CollectorRegistry | None = None,
    renew: Renewal | None = None,
) -> FastAPI:
    """The server as an ASGI application, with its :class:`~dptrain.release.service.Service` at ``app.state.service``.

    Args:
        registry: what ``/metrics`` shows, where others count in it too, such as the monitor.
        renew: chooses guard and monitor for a release that is loaded while serving. Left out, both stay, and a release that
            they do not fit is refused.

    Raises:
        ConfigError: the guard is none for such a model, or clients are to have keys and there are none.
    """
    service = Service(
        served,
        guard_text=guard_text,
        monitor=monitor,
        limits=limits,
        engine=None if store is None else store.engine,
        keys=keys,
        settings=settings,
        registry=registry,
        renew=renew,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(
        title="dptrain",
        version=versions()["dptrain"],
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    _routes(app, service)
    _errors(app)
    app.add_middleware(Watched, service=service)
    return app


def _routes(app: FastAPI, service: Service) -> None:
    """Every page; what each accepts is checked in :class:`Service`, not by the framework."""
    settings = service.settings

    def openapi() -> dict[str, Any]:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes, description=page.ABOUT)
        predictor = service.predictor
        return describe(document, predictor.served, predictor.form, needs_key=settings.clients == "keys")

    app.openapi = openapi
    said = Said(service)

    @app.post("/v1/predict", summary="What the model says of each example, as far as the guard shows it.")
    async def predict(request: Request) -> Response:
        client = await _client(request, service)
        request.state.client = client
        with service.places.taken(client) as place:
            kind = request.headers.get("content-type", "")
            body = await _body(request, settings, service.most_bytes(kind))
            reply = await service.run(service.predict, client, body, kind, place=place)
            request.state.examples = reply.examples
            if reply.delay:
                await asyncio.sleep(reply.delay)
        return Response(reply.content, media_type=JSON)

    @app.get("/v1/card", summary="The release card: what is promised, to whom, and what it assumes.")
    async def card() -> Response:
        return Response(said.of("card", lambda: service.version.card), media_type=JSON)

    @app.get("/v1/statistics", summary="Clients, their queries and alerts; for an administrator.")
    async def statistics(request: Request) -> Response:
        request.state.client = (await _administrator(request, service)).id
        return _json(await service.run(service.statistics))

    @app.post("/v1/reload", summary="Loads the release folder again; for an administrator.")
    async def reload(request: Request) -> Response:
        request.state.client = (await _administrator(request, service)).id
        try:
            return _json({"digest": await service.reload()})
        except UserError as error:
            raise Refusal(409, f"{error}; the release before is still served", "a whole release in the same folder") from None

    @app.get("/healthz", summary="Whether the server answers.")
    async def health() -> Response:
        return _json({"status": "ok", "digest": service.predictor.served.digest})

    @app.get("/metrics", response_class=PlainTextResponse, summary="Counters for Prometheus; for an administrator.")
    async def metrics(request: Request) -> Response:
        request.state.client = (await _administrator(request, service)).id
        return Response(generate_latest(service.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    @app.get("/openapi.json", include_in_schema=False)
    async def description() -> Response:
        return Response(said.of("description", openapi), media_type=JSON)

    @app.get("/", include_in_schema=False)
    async def start() -> Response:
        return page.response(page.START)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return page.response(page.DOCS)


class Said:
    """What is the same for everyone as long as a release is served: written once, since a card can name a whole vocabulary."""

    def __init__(self, service: Service):
        self._service = service
        self._kept: dict[str, tuple[object, bytes]] = {}

    def of(self, name: str, make: Callable[[], dict[str, Any]]) -> bytes:
        predictor = self._service.predictor
        kept = self._kept.get(name)
        if kept is None or kept[0] is not predictor:
            kept = self._kept[name] = predictor, json.dumps(make(), ensure_ascii=False, allow_nan=False).encode()
        return kept[1]


async def _client(request: Request, service: Service) -> str:
    """By what a client is known."""
    if service.settings.clients == "keys":
        return (await _holder(request, service)).id
    return network_of(request.client.host if request.client else "")


def network_of(host: str) -> str:
    """The address that somebody asks from; of version 6 its /64, since one household or host has a whole one."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "unknown"
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


async def _holder(request: Request, service: Service) -> Holder:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    keys, holder = service.keys, None
    if keys is not None and scheme.lower() == "bearer":
        if not keys.is_fresh:
            await asyncio.to_thread(keys.read)
        holder = keys.holder(given.strip())
    if holder is None:
        raise Refusal(401, "there is no API key in force", "a header Authorization: Bearer dpt_...")
    return holder


async def _administrator(request: Request, service: Service) -> Holder:
    holder = await _holder(request, service)
    if holder.role != "administrator":
        raise Refusal(403, "this key is a client's", "an administrator's key")
    return holder


async def _body(request: Request, settings: Settings, most: int) -> bytes:
    """The whole body, if it has at most ``most`` bytes and comes in time."""
    too_large = Refusal(413, f"the body has more than {most} bytes", f"at most {most} bytes")
    stated = request.headers.get("content-length", "0")
    if stated.isdecimal() and int(stated[:20]) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(settings.timeout):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise Refusal(408, f"the body was not there after {settings.timeout:g} s", "a body that is sent at once") from None
    except ClientDisconnect:
        raise Refusal(400, "the connection ended within the body", "a whole body") from None
    return bytes(body)


def _json(value: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(value, ensure_ascii=False, allow_nan=False).encode(), status, headers, JSON)


def _errors(app: FastAPI) -> None:
    """Every failure as JSON."""

    async def refused(request: Request, error: Any) -> Response:
        headers = {} if error.wait is None else {"retry-after": str(error.wait)}
        if error.status == 401:
            headers["www-authenticate"] = "Bearer"
        return _json({"error": error.error, "accepted": error.accepted}, error.status, headers)

    async def unrouted(request: Request, error: Any) -> Response:
        said = REASONS.get(error.status_code, "The request cannot be answered.")
        accepted = "the pages that /openapi.json describes" if error.status_code == 404 else "see /openapi.json"
        return _json({"error": said, "accepted": accepted}, error.status_code, dict(error.headers or {}))

    async def broken(request: Request, error: Any) -> Response:
        logging.getLogger("dptrain.release").error("a request failed", exc_info=error)
        return _json({"error": "The server failed; its log says how.", "accepted": ADMINISTRATOR}, 500)

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(Exception, broken)


class Watched:
    """Around every request: the time it took, one line of log, and headers that protect whoever reads the answer."""

    def __init__(self, app: Any, service: Service):
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def sending(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                known = {name for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in PROTECTING.items() if name.encode() not in known]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            self._count(scope, status, time.perf_counter() - start)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        path = route.path if route is not None and status not in (404, 405) else "other"
        self._service.metrics.requests.labels(path, str(status)).inc()
        self._service.metrics.seconds.labels(path).observe(seconds)
        state = scope.get("state", {})
        line = {
            "time": round(time.time(), 3),
            "client": state.get("client", ""),
            "method": scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "other",
            "page": path,
            "status": status,
            "examples": state.get("examples", 0),
            "seconds": round(seconds, 6),
        }
        ACCESS.info(json.dumps(line))
