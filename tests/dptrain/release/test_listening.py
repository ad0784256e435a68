"""Connections that are slow, endless or no HTTP at all end soon; requests under way end well."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dptrain.release import listening
from dptrain.release.listening import server_of
from dptrain.release.service import Settings
from tests.dptrain.release import served
from tests.dptrain.release.test_server import ONE, Said, Watcher, is_refusal
from tests.running_time import running_time

PATIENCE = 0.8
POST = b"POST /v1/predict HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    settings = Settings(clients="addresses", timeout=PATIENCE, max_body=200_000, at_once=32)
    with served.serving(served.app_of(served.digits(tmp_path / "release"), settings=settings)) as found:
        yield found


def connected(address: str, source: str = "127.0.0.1") -> socket.socket:
    host, _, port = address.removeprefix("http://").partition(":")
    made = socket.create_connection((host, int(port)), timeout=10, source_address=(source, 0))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def connected_with_small_buffer(address: str) -> socket.socket:
    """One to which little can be sent that is not read."""
    host, _, port = address.removeprefix("http://").partition(":")
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect((host, int(port)))
    return made


def all_of(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def told(answer: bytes) -> dict[str, Any]:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[str]:
    """A server that leaves connections which say nothing alone for as long as a test counts them."""
    settings = Settings(clients="addresses", timeout=60.0, max_body=200_000)
    with served.serving(served.app_of(served.digits(tmp_path / "release"), settings=settings)) as found:
        yield found


def is_well(address: str) -> bool:
    """Whether it answers; it may say a few times that it had not the time."""
    for _ in range(5):
        status = httpx.post(f"{address}/v1/predict", json=ONE).status_code
        if status != 503:
            return status == 200
    return False


def test_a_body_that_comes_slowly_is_given_up(address: str):
    with running_time() as seconds, connected(address) as connection:
        connection.sendall(POST + b"content-length: 1000\r\nconnection: close\r\n\r\n")
        stopped = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stopped.wait(0.1):
                    connection.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        answer = all_of(connection)
        assert seconds() < 4 * PATIENCE
        stopped.set()
        thread.join()
    assert status_of(answer) == 408
    assert told(answer)["accepted"] == "a body that is sent at once"
    assert is_well(address)


@pytest.mark.parametrize("said", [b"", b"POST /v1/predict HTTP/1.1\r\nhost: ", b"GET / HTTP/1.1\r\nhost: here\r\nx: "])
def test_a_head_that_does_not_end_closes_the_connection(address: str, said: bytes):
    with running_time() as seconds, connected(address) as connection:
        connection.sendall(said)
        assert all_of(connection) == b""
        assert seconds() < 4 * PATIENCE
    assert is_well(address)


def test_hundreds_of_connections_that_say_nothing_do_not_stop_the_others(address: str):
    with contextlib.ExitStack() as stack:
        for number in range(200):
            stack.enter_context(connected(address, f"127.0.0.{10 + number // 50}"))
        assert is_well(address)


def test_one_address_does_not_take_all_connections(crowded: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 100)
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(connected(crowded, "127.0.0.2")) for _ in range(110)]
        answer = all_of(many[-1])
        assert status_of(answer) == 429
        assert told(answer)["accepted"] == "at most 64 at the same time"
        assert is_well(crowded)

    def is_answered() -> bool:
        with connected(crowded, "127.0.0.2") as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
            answer = all_of(connection)
            return bool(answer) and status_of(answer) == 200

    served.until(is_answered)  # soon after they have left


def test_what_the_server_itself_was_held_up_for_is_held_against_nobody(tmp_path: Path):
    """The machine stalls for longer than the patience, and the rest of a head comes after that; then it is as ever."""
    settings = Settings(clients="addresses", timeout=PATIENCE)
    app = served.app_of(served.digits(tmp_path / "release"), settings=settings)
    server = server_of(app, "127.0.0.1", 0, settings)
    with served.serving(app, server) as address, connected(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        served.until(lambda: len(server.server_state.connections) == 1)
        over = threading.Event()
        server.servers[0].get_loop().call_soon_threadsafe(lambda: (time.sleep(2 * PATIENCE), over.set()))
        assert over.wait(60)
        time.sleep(PATIENCE / 4)
        connection.sendall(b"host: here\r\n\r\n")
        with running_time() as seconds:
            assert status_of(all_of(connection)) == 200
            assert seconds() < 4 * PATIENCE


@pytest.mark.parametrize("last", [b"", b"GET /docs HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"])
def test_a_client_that_asks_and_does_not_read_is_let_go(tmp_path: Path, last: bytes):
    settings = Settings(clients="addresses", timeout=PATIENCE)
    app = served.app_of(served.digits(tmp_path / "release"), settings=settings)
    server = server_of(app, "127.0.0.1", 0, settings)
    with served.serving(app, server) as address, connected_with_small_buffer(address) as connection:
        connection.settimeout(PATIENCE / 2)
        served.until(lambda: len(server.server_state.connections) == 1)
        start = time.perf_counter()
        with running_time() as seconds:
            with contextlib.suppress(OSError):
                connection.sendall(b"GET /docs HTTP/1.1\r\nhost: here\r\n\r\n" * 3000 + last)
            served.until(lambda: not server.server_state.connections)
            assert seconds() < 4.75 * PATIENCE
        assert time.perf_counter() - start >= 0.75 * PATIENCE  # and not as soon as it did not read


def test_a_client_that_reads_slowly_gets_all_of_its_answer(tmp_path: Path):
    """Longer than the patience, and more than the kernel keeps: what counts is that it reads."""
    classes = [f"class {number} of many with a long name" for number in range(40_000)]
    settings = Settings(clients="addresses", timeout=PATIENCE)
    app = served.app_of(served.digits(tmp_path / "release", classes=classes), settings=settings)
    with served.serving(app) as address, connected_with_small_buffer(address) as connection:
        connection.sendall(b"GET /v1/card HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
        start, parts = time.perf_counter(), []
        while part := connection.recv(65536):
            parts.append(part)
            time.sleep(len(part) / 600_000)
        assert time.perf_counter() - start > 2 * PATIENCE
    assert len(told(b"".join(parts))["data"]["classes"]) == 40_000


def test_more_connections_than_are_kept_are_told_so(crowded: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 5)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connected(crowded))
        answer = all_of(stack.enter_context(connected(crowded)))
    assert status_of(answer) == 503
    assert set(told(answer)) == {"error", "accepted"}
    served.until(lambda: httpx.post(f"{crowded}/v1/predict", json=ONE).status_code == 200)  # soon after they have left


def test_a_hundred_megabytes_are_refused_by_their_stated_length(address: str):
    """At once, and however much of it is sent."""
    with running_time() as seconds, connected(address) as connection:
        connection.sendall(POST + b"content-length: 104857600\r\n\r\n")
        answer = connection.recv(65536)
        while b"}" not in answer:
            answer += connection.recv(65536)
        assert seconds() < PATIENCE
    assert status_of(answer) == 413
    assert "200000 bytes" in told(answer)["accepted"]
    answered = httpx.post(f"{address}/v1/predict", content=bytes(104_857_600), headers={"content-type": "application/x-npy"})
    assert answered.status_code == 413
    assert is_refusal(answered)
    assert is_well(address)


def test_a_flood_in_chunks_is_refused_once_it_is_too_much(address: str):
    with connected(address) as connection:
        connection.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
        sent, block = 0, b"10000\r\n" + bytes(65536) + b"\r\n"
        with contextlib.suppress(OSError):
            for _ in range(1600):
                connection.sendall(block)
                sent += 65536
        answer = all_of(connection)
    assert sent < 104_857_600 or status_of(answer) == 413
    assert status_of(answer) == 413
    assert is_well(address)


def test_what_comes_after_a_refusal_is_thrown_away_for_a_moment_only(address: str):
    with running_time() as seconds, connected(address) as connection:
        connection.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            while seconds() < 20:
                connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
                time.sleep(0.02)
        assert seconds() < 6 * PATIENCE


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: here\r\n" + b"x: " + b"a" * 600_000 + b"\r\n\r\n",
        POST + b"content-length: -5\r\n\r\n",
        POST + b"content-length: 9" + b"9" * 50 + b"\r\n\r\n",
        POST + b"content-length: 3\r\ncontent-length: 5\r\n\r\n{}",
        POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        POST + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffffffffff\r\n",
    ],
)
def test_what_is_no_http_gets_a_refusal_in_json_and_the_server_lives(address: str, said: bytes):
    with connected(address) as connection:
        connection.sendall(said)
        answer = all_of(connection)
    assert 400 <= status_of(answer) < 500
    assert set(told(answer)) == {"error", "accepted"}
    assert is_well(address)


def test_a_client_that_leaves_within_its_body_leaves_no_trace(tmp_path: Path):
    app = served.app_of(served.digits(tmp_path / "release"))
    with served.serving(app) as address:
        for _ in range(40):
            with connected(address) as connection:
                connection.sendall(POST + b"content-length: 1000\r\n\r\n{")
        served.until(lambda: app.state.service.metrics.registry.get_sample_value("dptrain_waiting_requests") == 0)
        assert is_well(address)
        assert app.state.service.metrics.registry.get_sample_value("dptrain_waiting_requests") == 0


def test_a_connection_serves_many_requests_also_slower_than_its_patience(address: str):
    with httpx.Client() as session:
        for wait in (0, 0, PATIENCE * 1.5, 0):
            time.sleep(wait)
            assert session.post(f"{address}/v1/predict", json=ONE).status_code == 200


def test_an_answer_may_take_longer_than_the_patience_for_a_head(tmp_path: Path):
    """Held back by a monitor for as long as the timeout, and still sent."""
    watcher = Watcher(after=Said("slow", delay=60.0))
    settings = Settings(clients="addresses", timeout=1.0)
    with served.serving(served.app_of(served.digits(tmp_path / "release"), monitor=watcher, settings=settings)) as address:
        assert httpx.post(f"{address}/v1/predict", json=ONE).status_code == 200


def test_requests_under_way_are_finished_when_the_server_is_asked_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    watcher = Watcher(after=Said("slow", delay=0.6))
    settings = Settings(clients="addresses", grace=60.0)
    app = served.app_of(served.digits(tmp_path / "release"), monitor=watcher, settings=settings)
    server = server_of(app, "127.0.0.1", 0, settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    with ThreadPoolExecutor(3) as pool, served.held_back(monkeypatch, 0.6) as go:
        asked = [pool.submit(httpx.post, f"{address}/v1/predict", json=ONE) for _ in range(3)]
        served.until(lambda: len(server.server_state.tasks) == len(watcher.seen) == 3)
        server.should_exit = True
        served.until(lambda: not server.servers[0].is_serving())
        go.set()
        assert [one.result().status_code for one in asked] == [200, 200, 200]
    thread.join(60)
    assert not thread.is_alive()
    assert watcher.saved == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/healthz")


def test_memory_does_not_grow_with_bodies_that_are_refused(address: str):
    import resource

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    row = json.dumps({"inputs": np.zeros((40, 8, 8)).tolist()}).encode()
    httpx.post(f"{address}/v1/predict", content=row)
    before = peak()
    with connected(address) as connection, contextlib.suppress(OSError):
        connection.sendall(POST + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(1000):
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
    assert peak() - before < 20_000  # kilobytes, of 64 megabytes that were sent
