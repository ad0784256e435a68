"""The server's ear: uvicorn, with a limit of patience.

    run(app, "127.0.0.1", 8000, Settings())

uvicorn waits for ever for the head of a first request, and for the rest of a body whose request was already refused. Here a
connection that has no answer under way has ``timeout`` seconds for the next thing that it owes: a head, or the end of a refused
body, which is read and thrown away so that the refusal arrives. What is no HTTP gets an error in JSON as everything else does.

SIGTERM and Ctrl-C end the server in order: no new connection, ``grace`` seconds for requests under way, then state is saved.
"""

import asyncio
import json
import logging
import sys
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dptrain.release.server import ACCESS
from dptrain.release.service import Settings

LONGEST_HEAD = 16 * 1024
"""Bytes of a request's first line and headers."""
MOST_CONNECTIONS = 512


def protocol(patience: float) -> type[H11Protocol]:
    """uvicorn's protocol, which closes a connection that owes something for longer than ``patience`` seconds."""

    class Patient(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            if len(self.connections) > MOST_CONNECTIONS:
                self._refuse(503, "The server is busy.", "ask again later")
                return
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()
            elif self._waiting is None:
                self._wait()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self._waiting is None and self.cycle.response_complete:
                self._wait()

        def send_400_response(self, msg: str) -> None:
            if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # it breaks off within a request that has its answer
                self.transport.close()
                return
            self._refuse(400, "This is no HTTP that is read here.", "HTTP/1.1")

        def _refuse(self, status: int, error: str, accepted: str) -> None:
            content = json.dumps({"error": error, "accepted": accepted}).encode()
            head = [("content-type", "application/json"), ("content-length", str(len(content))), ("connection", "close")]
            answer = h11.Response(status_code=status, headers=head, reason=HTTPStatus(status).phrase)
            for event in (answer, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _wait(self) -> None:
            if not self.transport.is_closing():
                self._waiting = self.loop.call_later(patience, self._give_up)

        def _stop_waiting(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _give_up(self) -> None:
            self._waiting = None
            self.transport.abort()

    return Patient


def server_of(app: Any, host: str, port: int, settings: Settings) -> uvicorn.Server:
    """Ready to run; for those who run it in a loop of their own."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="asyncio",
        http=protocol(settings.timeout),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(settings.grace)),
        h11_max_incomplete_event_size=LONGEST_HEAD,
    )
    return uvicorn.Server(config)


def run(app: Any, host: str, port: int, settings: Settings) -> None:
    """Serves until it is asked to end. The access log goes to standard output."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    ACCESS.setLevel(logging.INFO)
    ACCESS.propagate = False
    if not ACCESS.handlers:
        ACCESS.addHandler(logging.StreamHandler(sys.stdout))
    server_of(app, host, port, settings).run()
