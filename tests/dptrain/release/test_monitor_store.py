"""The store: states and alerts outlive the process, no request waits for a write, and no query is in it."""

import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from dptrain.errors import CheckpointError, UserError
from dptrain.release.monitor import Decision, Monitor, calibrate
from dptrain.release.monitor.log import JsonLines
from dptrain.release.monitor.store import TABLES, Store
from tests.dptrain.release.monitored import observed, points, probing, sessions, thresholds

KILLED = """
import json, os, signal, sys, time
from dptrain.release.monitor import Monitor, Thresholds
from dptrain.release.monitor.store import TABLES, Store
from tests.dptrain.release.monitored import observed, points, probing

thresholds = Thresholds.from_json(json.load(open(sys.argv[2])))
monitor = Monitor(thresholds, actions="refuse", store=Store(sys.argv[1], interval=0.05), seed=0)
observed(monitor, "prober", probing(60))
observed(monitor, "halfway", probing(4, start=8))
observed(monitor, "reader", points(30, 1))
while any(seen.dirty for seen in monitor._clients.values()) or monitor._store._states or monitor._store._alerts:
    time.sleep(0.01)  # until the store's thread has written
os.kill(os.getpid(), signal.SIGKILL)
"""


def watched(store: Store, **given) -> Monitor:
    return Monitor(thresholds(), actions="refuse", store=store, seed=0, **given)


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'state.db'}"


@pytest.mark.slow
def test_clients_are_known_after_the_process_was_killed(tmp_path: Path):
    (tmp_path / "monitor.json").write_text(json.dumps(thresholds().to_json()))
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    arguments = [sys.executable, str(script), url(tmp_path), str(tmp_path / "monitor.json")]
    assert subprocess.run(arguments, cwd=Path(__file__).parents[3], env=_environment(), check=False).returncode == -9
    store = Store(url(tmp_path))
    monitor = watched(store)
    assert monitor.admit("prober").action == "refuse"
    assert monitor.admit("reader") == Decision("allow")
    found = monitor.statistics()
    assert found["clients"]["prober"]["queries"] == 60
    assert found["alerts"][0]["client"] == "prober"
    before = found["clients"]["reader"]["queries"]
    assert before == 30
    halfway = observed(monitor, "halfway", probing(60, start=8)[4:])
    assert next(alert.queries for alert in halfway.alerts if alert.detector == "near_duplicates") < 25
    store.close()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


def test_a_restart_makes_no_difference(tmp_path: Path):
    inputs = np.concatenate([points(300, 2), probing(30)])
    store = Store("sqlite://")
    through = watched(store)
    observed(through, "a", inputs[:310])
    observed(through, "a", inputs[310:])
    for part in (inputs[:310], inputs[310:]):
        own = Store(url(tmp_path))
        restarted = watched(own)
        observed(restarted, "a", part)
        own.close()
    wanted, found = (one.statistics()["clients"]["a"] for one in (through, restarted))
    assert found["queries"] == wanted["queries"] == 330
    assert found["detectors"]["near_duplicates"]["value"] == pytest.approx(
        wanted["detectors"]["near_duplicates"]["value"], abs=1.5
    )
    store.close()


def test_a_client_that_fell_out_of_memory_comes_back_from_the_store():
    store = Store("sqlite://", interval=30)
    monitor = watched(store, clients=2)
    observed(monitor, "a", probing(60))
    for number in range(5):
        observed(monitor, f"other {number}", points(3, number))
    assert "a" not in monitor.statistics()["clients"]
    assert monitor.admit("a").action == "refuse"
    assert monitor.statistics()["clients"]["a"]["queries"] == 60
    store.close()


def test_a_client_that_falls_out_of_memory_while_it_is_copied_keeps_what_it_did(monkeypatch: pytest.MonkeyPatch):
    store = Store("sqlite://", interval=30)
    monitor, put, begun = watched(store, clients=2), store.put, threading.Event()

    def slowly(*given: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            time.sleep(1)
        put(*given)

    monkeypatch.setattr(store, "put", slowly)
    assert observed(monitor, "a", probing(60)).alerts  # which wakes the writer
    assert begun.wait(20)
    for number in range(5):
        observed(monitor, f"other {number}", points(3, number))
    assert monitor.admit("a").action == "refuse"
    assert monitor.statistics()["clients"]["a"]["queries"] == 60
    store.close()


@pytest.mark.parametrize("given", ["sqlite://", "sqlite:///:memory:", "sqlite+pysqlite://", "a file"])
def test_who_reads_while_others_write_undoes_nothing(given: str, tmp_path: Path):
    store = Store(url(tmp_path) if given == "a file" else given, interval=30)
    readers: list[threading.Thread] = []
    found: list[bytes | None] = []

    def read(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT") and not readers:
            readers.append(threading.Thread(target=lambda: found.append(store.get("nobody", "some"))))
            readers[0].start()
            readers[0].join(0.5)  # who has to wait for the write goes on after it

    event.listen(store.engine, "after_cursor_execute", read)
    store.put("a", "some", b"state")
    store.flush()
    readers[0].join()
    assert found == [None]
    assert store.get("a", "some") == b"state"
    store.close()


def test_no_request_waits_for_a_write():
    store = Store("sqlite://", interval=0.01)
    monitor = watched(store)
    with store._writing:
        began = time.monotonic()
        decision = observed(monitor, "a", probing(60))
        assert decision.alerts
        assert time.monotonic() - began < 5
    monitor.save()
    assert store.alerts()[0]["client"] == "a"
    store.close()


def test_states_under_other_thresholds_begin_anew(tmp_path: Path):
    store = Store(url(tmp_path))
    monitor = watched(store)
    observed(monitor, "a", points(30, 1))
    monitor.save()
    others = Monitor(calibrate(sessions(240, 6), 0.02, confidence=None), store=store)
    others.admit("a")
    assert others.statistics()["clients"]["a"]["queries"] == 0
    store.close()


def damaged(case: str, content: bytes) -> bytes:
    """A state that something went wrong with."""
    if case in ("text", "empty"):
        return b"damaged" if case == "text" else b""
    if case == "cut":
        return content[: len(content) // 2]
    arrays = load(content)
    change: dict[str, Any] = {
        "lacking": {"numbers": None},
        "a shape": {"sums": np.zeros(1)},
        "a type": {"places": np.zeros((512, 16), dtype=np.float64)},
        "NaN": {"sums": np.full_like(arrays["sums"], np.nan)},
        "a count": {"numbers": arrays["numbers"] - 1000},
        "a few counts": {"numbers": arrays["numbers"][:4]},
        "other tokens": {"numbers": arrays["numbers"] + np.eye(len(arrays["numbers"]), dtype=np.int64)[1]},
        "more": {"more": np.zeros(1)},
    }[case]
    return save({name: value for name, value in (arrays | change).items() if value is not None})


@pytest.mark.parametrize(
    "case",
    ["text", "empty", "cut", "lacking", "a shape", "a type", "NaN", "a count", "a few counts", "other tokens", "more"],
)
def test_a_client_whose_state_is_damaged_begins_anew_and_the_operator_is_told(case: str, caplog: pytest.LogCaptureFixture):
    store, fingerprint = Store("sqlite://"), thresholds().fingerprint
    observed(first := watched(store), "a", points(20, 1))
    first.save()
    content = store.get("a", fingerprint)
    assert content is not None
    store.put("a", fingerprint, damaged(case, content))
    again = watched(store)
    assert again.admit("a") == Decision("allow")
    assert observed(again, "a", points(5, 2)).action == "allow"
    assert again.statistics()["clients"]["a"]["queries"] == 5
    assert "client a begins anew" in caplog.text
    assert again.statistics()["alerts"][0]["detector"] == "state"
    assert store.alerts(client="a")[0]["text"].startswith("client a begins anew")
    store.close()


def test_whatever_breaks_a_write_the_next_one_is_made(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    class Source:
        asked = 0

        def give(self, put: Any) -> None:
            self.asked += 1
            if self.asked == 1:
                raise ValueError("somebody")
            put("a", b"state")

    store, source = Store(url(tmp_path), interval=0.01), Source()
    store.attach("some", source.give)
    end = time.monotonic() + 60
    while store.get("a", "some") is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    store.close()
    assert "ValueError" in caplog.text
    assert "somebody" not in caplog.text
    assert Store(url(tmp_path)).get("a", "some") == b"state"


def test_an_error_of_the_database_names_no_client(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    store = Store(url(tmp_path), interval=0.05)
    monitor = watched(store)
    observed(monitor, "somebody", points(3, 1))
    with store.engine.begin() as connection:
        connection.execute(text("DROP TABLE monitor_clients"))
    observed(monitor, "somebody", points(3, 2))
    with pytest.raises(SQLAlchemyError) as caught:
        store.get("another", thresholds().fingerprint)
    assert "another" not in str(caught.value)
    for _ in range(100):
        if "cannot be written" in caplog.text:
            break
        time.sleep(0.05)
    assert "cannot be written" in caplog.text
    assert "somebody" not in caplog.text
    TABLES.create_all(store.engine)
    store.close()


def test_no_query_is_in_the_database_or_the_log(tmp_path: Path):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("dptrain.monitor")
    logger.addHandler(handler)
    try:
        store = Store(url(tmp_path))
        inputs = probing(60)
        observed(watched(store), "a", inputs)
        store.close()
    finally:
        logger.removeHandler(handler)
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"near_duplicates" in written
    for row in inputs:
        for width in (4, 8):
            assert row[:width].tobytes() not in written
            assert row[:width].astype(np.float64).tobytes() not in written
        assert str(float(row[0])) not in stream.getvalue()


def test_a_client_can_be_forgotten():
    store = Store("sqlite://")
    monitor = watched(store)
    observed(monitor, "a", probing(60))
    observed(monitor, "b", probing(60))
    store.forget("a")
    assert {row["client"] for row in store.alerts()} == {"b"}
    assert store.get("a", thresholds().fingerprint) is None
    assert store.get("b", thresholds().fingerprint) is not None
    store.close()


def test_tables_of_another_version_and_urls_of_nothing_are_refused(tmp_path: Path):
    Store(url(tmp_path)).close()
    engine = create_engine(url(tmp_path))
    with engine.begin() as connection:
        connection.execute(text("UPDATE monitor_schema SET version = 99"))
    engine.dispose()
    with pytest.raises(CheckpointError, match="version 99"):
        Store(url(tmp_path))
    for wrong in ("nothing", "nosuchthing://x", f"sqlite:///{tmp_path / 'missing' / 'state.db'}"):
        with pytest.raises(UserError, match=r"sqlite:///monitor\.db"):
            Store(wrong)


def test_a_database_that_fails_for_a_while_loses_nothing(tmp_path: Path):
    store = Store(url(tmp_path), interval=30)
    monitor = watched(store)
    monitor.admit("a")
    with store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE monitor_clients RENAME TO elsewhere"))
    observed(monitor, "a", points(10, 1))
    with pytest.raises(Exception, match="monitor_clients"):
        monitor.save()
    with store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO monitor_clients"))
    monitor.save()
    assert store.get("a", thresholds().fingerprint) is not None
    store.close()
