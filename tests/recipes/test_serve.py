"""``dptrain serve`` on the command line, as a process of its own."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from dptrain.checkpoint import load_release, read_folder, save_release, write_folder
from dptrain.errors import ConfigError
from dptrain.release.loading import Served
from dptrain.release.monitor import benign_sessions, calibrate
from dptrain.release.predictor import Predictor
from recipes import serve
from recipes.cli import main
from tests.dptrain.release import served

ROOT = Path(__file__).parents[2]
ONE = {"inputs": np.full((1, 8, 8), 0.25).tolist()}


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def running(*arguments: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    port = free_port()
    command = [sys.executable, "-m", "recipes.cli", "serve", *arguments, "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            for _ in range(400):
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                try:
                    httpx.get(f"http://127.0.0.1:{port}/healthz")
                    break
                except httpx.ConnectError:
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()


def says(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The one sentence that a command ends with."""
    assert main(["serve", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("dptrain: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.slow
def test_a_run_is_served_to_those_with_a_key_until_it_is_asked_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    served.digits(tmp_path / "run" / "release")
    state = tmp_path / "state.db"
    assert main(["serve", "keys", "add", "clinic", "--state", str(state)]) == 0
    key = capsys.readouterr().out.strip()
    flags = ("--guard", "top5-rounded", "--state", str(state), "--monitor", "off", "--queries", "3")
    with running("run", *flags, folder=tmp_path) as (address, process):
        header = {"authorization": f"Bearer {key}"}
        answers = [httpx.post(f"{address}/v1/predict", json=ONE, headers=header) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert len(answers[0].json()["answers"][0]["top"]) == 5
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=20)
    assert "Traceback" not in errors
    assert "behind top5-rounded" in errors
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["status"] for line in lines if line["page"] == "/v1/predict"] == [200, 200, 200, 429]
    assert key.encode() not in state.read_bytes()


@pytest.mark.slow
def test_the_monitor_flags_a_client_and_remembers_it_over_a_restart(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One example with little noise, again and again, is what no benign client here sends."""
    rng = np.random.default_rng(0)
    folder, state = served.digits(tmp_path / "release"), tmp_path / "state.db"
    held_out = rng.random((120, 8, 8)).astype("f4")

    predictor = Predictor.of(Served.load(folder), None, bytes(32), most=256)

    def answer(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = predictor.answer([torch.from_numpy(inputs)])
        return given.labels, given.margins

    sessions = benign_sessions(held_out, answer, 160, rng, lengths=(20, 60))
    thresholds = calibrate(sessions, 0.05, confidence=None)
    (tmp_path / "monitor.json").write_text(json.dumps(thresholds.to_json()))
    main(["serve", "keys", "add", "me", "--role", "administrator", "--state", str(state)])
    header = {"authorization": f"Bearer {capsys.readouterr().out.strip()}"}
    near = held_out[:1] + 0.001 * rng.random((1, 8, 8)).astype("f4")
    flags = ("--monitor", "refuse", "--thresholds", "monitor.json", "--state", str(state), "--guard", "none")
    statuses = []
    with running("release", *flags, folder=tmp_path) as (address, process):
        for _ in range(150):
            near = np.clip(near + 0.0005 * rng.standard_normal(near.shape).astype("f4"), 0, 1)
            statuses.append(httpx.post(f"{address}/v1/predict", json={"inputs": near.tolist()}, headers=header).status_code)
            if statuses[-1] == 403:
                break
        found = httpx.get(f"{address}/v1/statistics", headers=header).json()
        counted = httpx.get(f"{address}/metrics", headers=header).text
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert statuses[0] == 200
    assert statuses[-1] == 403
    assert found["monitor"]["alerts"]
    assert "dptrain_monitor_alerts_total" in counted
    with running("release", *flags, folder=tmp_path) as (address, _):
        assert httpx.post(f"{address}/v1/predict", json=ONE, headers=header).status_code == 403


def test_keys_are_added_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    state = ("--state", str(tmp_path / "state.db"))
    assert main(["serve", "keys", "add", "clinic", *state]) == 0
    shown = capsys.readouterr()
    key = shown.out.strip()
    assert "shown once" in shown.err
    number = key.split("_")[1]
    assert main(["serve", "keys", "list", *state]) == 0
    listed = capsys.readouterr().out
    assert number in listed
    assert "in force" in listed
    assert key.split("_")[2] not in listed
    assert main(["serve", "keys", "revoke", number, *state]) == 0
    assert main(["serve", "keys", "list", *state]) == 0
    assert "revoked" in capsys.readouterr().out
    assert "no key in force" in says(capsys, "keys", "revoke", number, *state)


def test_the_state_file_is_its_owners_alone(tmp_path: Path):
    path = tmp_path / "state.db"
    assert main(["serve", "keys", "add", "clinic", "--state", str(path)]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_cannot_be_served_ends_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = served.digits(tmp_path / "release")
    state = ("--state", str(tmp_path / "state.db"))
    assert "needs a run" in says(capsys)
    assert "no release" in says(capsys, tmp_path / "nothing")
    assert "no release" in says(capsys, "../../etc")
    assert "never served" in says(capsys, served.digits(tmp_path / "private" / "release"))
    assert "port" in says(capsys, folder, "--port", "70000")
    assert "rate" in says(capsys, folder, "--rate", "-1")
    assert "--threads" in says(capsys, folder, "--threads", "0")
    assert "timeout" in says(capsys, folder, "--timeout", "0")
    assert "invalid int value" in says(capsys, folder, "--burst", "many")
    assert "--help" in says(capsys, folder, "--gard", "top5")
    assert "members" in says(capsys, folder, "--guard", "memguard", "--monitor", "off", *state)
    assert "monitor.json" in says(capsys, folder, *state)
    assert "name the monitor.json" in says(capsys, folder, "--thresholds", tmp_path / "none.json", *state)
    assert "inside of the release" in says(capsys, folder, "--monitor", "off", "--state", folder / "state.db")
    assert "no database" in says(capsys, folder, "--monitor", "off", "--state", "nonsense://x")
    (folder / "planted.pkl").write_bytes(b"")
    assert "planted.pkl" in says(capsys, folder)


def test_the_guard_is_the_one_that_the_card_states_unless_another_is_given():
    assert serve.guard_of(None, {}) is None
    assert serve.guard_of(None, {"guard": {"text": "top3", "statement": "..."}}) == "top3"
    assert serve.guard_of(None, {"guard": "top3"}) == "top3"
    assert serve.guard_of(None, {"recipe": {"release": {"guard": "rounded"}}}) == "rounded"
    assert serve.guard_of("label_only", {"guard": None}) == "label_only"
    assert serve.guard_of("none", {}) is None
    with pytest.raises(ValueError, match="fitted on members"):
        serve.guard_of(None, {"guard": "memguard"})


@pytest.mark.parametrize("other", ["none", "top4", "rounded3", "top3-rounded", "label_only"])
def test_another_guard_than_the_one_that_was_measured_has_to_be_meant(other: str):
    card = {"guard": {"text": "top3-rounded2", "statement": "..."}}
    with pytest.raises(ConfigError, match=r"'top3-rounded2'.*--unmeasured-guard"):
        serve.guard_of(other, card)
    assert serve.guard_of(other, card, "accept") == (None if other == "none" else other)
    assert serve.guard_of("top3-rounded2.0", card) == "top3-rounded2.0"
    assert serve.guard_of("rounded", {"guard": "rounded1"}) == "rounded"


def test_a_release_is_not_served_without_its_guard_unless_that_is_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = guarded(tmp_path / "release", "label_only")
    flags = ("--monitor", "off", "--state", tmp_path / "state.db")
    assert "'label_only'" in says(capsys, folder, "--guard", "none", *flags)
    assert "--unmeasured-guard" in says(capsys, folder, "--guard", "top5", *flags)


def guarded(folder: Path, guard: str, **data: Any) -> Path:
    """A release whose card states a guard."""
    weights, card = load_release(served.digits(folder, **data))
    save_release(folder, weights, card | {"guard": {"text": guard, "statement": "..."}})
    return folder


def thresholds_of(folder: Path) -> dict[str, Any]:
    """Of a model, calibrated on random inputs of its shape."""
    rng, loaded = np.random.default_rng(0), Served.load(folder)
    predictor = Predictor.of(loaded, None, bytes(32), most=256)

    def answer(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = predictor.answer([torch.from_numpy(inputs)])
        return given.labels, given.margins

    inputs = rng.random((120, *loaded.input_shape)).astype("f4")
    sessions = benign_sessions(inputs, answer, 60, rng, lengths=(5, 10))
    return calibrate(sessions, 0.1, confidence=None, classes=len(loaded.classes)).to_json()


def publish(folder: Path, guard: str, **data: Any) -> Path:
    """As `dptrain release` leaves it: weights, card and thresholds."""
    guarded(folder, guard, **data)
    files = read_folder(folder)
    write_folder(folder, files | {"monitor.json": json.dumps(thresholds_of(folder)).encode()})
    return folder


@pytest.mark.slow
def test_a_release_that_is_loaded_while_serving_brings_its_guard_and_its_monitor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder, state = publish(tmp_path / "release", "top3"), str(tmp_path / "state.db")
    main(["serve", "keys", "add", "me", "--role", "administrator", "--state", state])
    header = {"authorization": f"Bearer {capsys.readouterr().out.strip()}"}

    def asked(address: str, size: int) -> tuple[int, int]:
        rows = {"inputs": np.full((1, size, size), 0.25).tolist()}
        answer = httpx.post(f"{address}/v1/predict", json=rows, headers=header)
        return answer.status_code, len(answer.json()["answers"][0]["top"]) if answer.status_code == 200 else 0

    with running("release", "--state", state, folder=tmp_path) as (address, _):
        assert asked(address, 8) == (200, 3)
        before = httpx.get(f"{address}/v1/statistics", headers=header).json()["monitor"]["clients"]
        publish(folder, "label_only", seed=1, input_shape=[5, 5])
        assert httpx.post(f"{address}/v1/reload", headers=header).status_code == 200
        assert asked(address, 5) == (200, 1)
        card = httpx.get(f"{address}/v1/card").json()
        assert card["guard"]["text"] == card["stated_guard"]["text"] == "label_only"
        after = httpx.get(f"{address}/v1/statistics", headers=header).json()["monitor"]["clients"]
        assert [one["queries"] for clients in (before, after) for one in clients.values()] == [1, 1]

        old = (folder / "monitor.json").read_bytes()
        guarded(folder, "top5", input_shape=[8, 8])
        write_folder(folder, read_folder(folder) | {"monitor.json": old})
        answer = httpx.post(f"{address}/v1/reload", headers=header)
        assert answer.status_code == 409
        assert "another model" in answer.json()["error"]
        assert asked(address, 5) == (200, 1)
        assert httpx.get(f"{address}/v1/card").json() == card
        assert 'status="500"' not in httpx.get(f"{address}/metrics", headers=header).text


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name in [name for name in sys.modules if name.startswith("dptrain.release.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    assert "pip install 'dptrain[serve]'" in says(capsys, "keys", "list")


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (4, 3), (64, 4)])
def test_a_core_is_left_to_http(cores: int, threads: int):
    assert serve.threads_for(cores) == threads
