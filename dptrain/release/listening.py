"""The server's ear: uvicorn, with a limit of patience.

    run(app, "127.0.0.1", 8000, Settings())

uvicorn waits for ever for the head of a first request, for the rest of a body whose request was already refused, and for a
client that asks and does not read. Here a connection has ``timeout`` seconds for what it owes: a head, or the end of a refused
body, which is read and thrown away so that the refusal arrives; and while an answer is not read to its end, for some of it to
be read. Where the server itself was held up meanwhile, the connection gets that time once more. The kernel keeps at most
``KEPT`` bytes of an answer. What is no HTTP gets an error in JSON as everything else does.

One address, or one /64 of version 6, has at most ``connections`` at a time, so that nobody alone takes all
``MOST_CONNECTIONS``; who has many addresses still can. Everyone behind one proxy has its address.

SIGTERM and Ctrl-C end the server in order: no new connection, ``grace`` seconds for requests under way, then state is saved.
"""

import asyncio
import json
import logging
import socket
import sys
from collections import Counter
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dptrain.release.server import ACCESS, network_of
from dptrain.release.service import Settings

LONGEST_HEAD = 16 * 1024
"""Bytes of a request's first line and headers."""
MOST_CONNECTIONS = 512
KEPT = 128 * 1024


def protocol(patience: float, most: int) -> type[H11Protocol]:
    """uvicorn's protocol, which closes a connection that owes something for longer than ``patience`` seconds, and does not
    begin one of an address that has ``most``."""
    connected: Counter[str] = Counter()

    class Patient(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _is_second = False
        """Whether the timer was set anew, since the server was held up when the one before ended."""
        _unread = 0
        """Bytes of answers that were not read when the timer was set."""
        _network = ""

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=0)  # paused means then: something is not read
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KEPT)
            self._network = network_of(self.client[0] if self.client else "")
            connected[self._network] += 1
            if connected[self._network] > most:
                self._refuse(429, "This address has too many connections.", f"at most {most} at the same time")
            elif len(self.connections) > MOST_CONNECTIONS:
                self._refuse(503, "The server is busy.", "ask again later")
            else:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            connected[self._network] -= 1
            if not connected[self._network]:
                del connected[self._network]
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._wait()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_waiting()
            if not self._is_answering and not self.transport.is_closing():
                self._wait()

        def handle_events(self) -> None:
            super().handle_events()
            if self._is_answering and not self.flow.write_paused:
                self._stop_waiting()
            elif self._timer is None:
                self._wait()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self._timer is None and not self._is_answering and not self.transport.is_closing():
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

        @property
        def _is_answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _wait(self) -> None:
            self._stop_waiting()
            self._unread = self.transport.get_write_buffer_size()
            self._is_second = False
            self._timer = self.loop.call_later(patience, self._look)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _look(self) -> None:
            if self.transport.get_write_buffer_size() < self._unread:
                self._wait()
                return
            late = 0.0 if self._timer is None else self.loop.time() - self._timer.when()
            if late > patience / 4 and not self._is_second:
                self._is_second, self._timer = True, self.loop.call_later(patience, self._look)
                return
            self._timer = None
            self.transport.abort()

    return Patient


def server_of(app: Any, host: str, port: int, settings: Settings) -> uvicorn.Server:
    """Ready to run; for those who run it in a loop of their own."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="asyncio",
        http=protocol(settings.timeout, settings.connections),
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
