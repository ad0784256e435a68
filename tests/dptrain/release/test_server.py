"""The server on the loopback interface: it answers those who may ask, and everyone else with a clean refusal."""

import dataclasses
import io
import json
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dptrain.checkpoint import load_release, save_release
from dptrain.plain import as_plain
from dptrain.plan import PrivacyPlan
from dptrain.release.keys import Keys
from dptrain.release.limits import Limits
from dptrain.release.server import ACCESS
from dptrain.release.service import Settings
from dptrain.release.version import promised
from dptrain.release.words import _times
from tests.dptrain.release import served

AS_JSON, AS_NPY = {"content-type": "application/json"}, {"content-type": "application/x-npy"}
ONE = {"inputs": np.full((1, 8, 8), 0.25).tolist()}


def is_refusal(answer: httpx.Response) -> bool:
    """A JSON object that says what is wrong and what is accepted, and nothing of the program."""
    told = answer.json()
    return set(told) == {"error", "accepted"} and all(told.values()) and "Traceback" not in answer.text


def npy(array: np.ndarray) -> bytes:
    handle = io.BytesIO()
    np.save(handle, array)
    return handle.getvalue()


@dataclasses.dataclass(frozen=True)
class Said:
    """A monitor's decision."""

    action: Any = "allow"
    alerts: tuple[Any, ...] = ()
    delay: float = 0.0


class Watcher:
    """A monitor that says what it is told to, and writes down what it is shown."""

    def __init__(self, before: Said = Said(), after: Said = Said()):
        self.before, self.after = before, after
        self.seen: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
        self.saved = 0

    def admit(self, client: str) -> Said:
        return self.before

    def observe(self, client: str, inputs: np.ndarray, labels: np.ndarray, margins: np.ndarray) -> Said:
        self.seen.append((client, inputs, labels, margins))
        return self.after

    def statistics(self) -> dict[str, Any]:
        return {"clients": {}, "alerts": []}

    def save(self) -> None:
        self.saved += 1


# -- what is answered -----------------------------------------------------------------------------------------------


def test_json_and_an_array_get_the_same_answers(tmp_path: Path):
    inputs = np.random.default_rng(0).random((3, 8, 8)).astype("f4")
    with served.serving(served.app_of(served.digits(tmp_path / "release"), guard_text="top5-rounded")) as address:
        as_json = httpx.post(f"{address}/v1/predict", json={"inputs": inputs.tolist()})
        headers = {"content-type": "application/x-npy"}
        as_npy = httpx.post(f"{address}/v1/predict", content=npy(inputs), headers=headers)
    assert as_json.status_code == 200
    assert as_json.json() == as_npy.json()
    assert as_json.json()["guard"] == "top5-rounded"
    assert [len(answer["top"]) for answer in as_json.json()["answers"]] == [5, 5, 5]


def test_the_card_says_the_guarantee_in_a_paragraph_and_what_the_guard_does(tmp_path: Path):
    with served.serving(served.app_of(served.digits(tmp_path / "release"), guard_text="label_only")) as address:
        card = httpx.get(f"{address}/v1/card").json()
        assert card["stated_guard"] is None
        health = httpx.get(f"{address}/healthz").json()
    assert card["epsilon_in_words"] == served.STATEMENT
    assert card["guard"]["text"] == "label_only"
    assert "guarantee" in card["guard"]["statement"]
    assert health == {"status": "ok", "digest": card["digest"]}


# -- hostile requests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"inputs": [[', "application/json", 400),
        (b'{"inputs": [[[NaN]]]}', "application/json", 400),
        (b"[" * 400_000, "application/json", 422),
        (b"[" * 900, "application/json", 400),
        (b"[" * 500_000, "application/json", 413),
        (json.dumps({"inputs": [[[1, 2], [3, 4]]]}).encode(), "application/json", 422),
        (json.dumps({"inputs": np.full((1, 8, 8), 7).tolist()}).encode(), "application/json", 422),
        (json.dumps({"inputs": np.zeros((300, 8, 8)).tolist()}).encode(), "application/json", 422),
        (npy(np.full((1, 8, 8), np.nan)), "application/x-npy", 422),
        (npy(np.zeros((1, 8, 9))), "application/x-npy", 422),
        (b"\x93NUMPY" + bytes(50), "application/x-npy", 400),
        (b"", "application/x-npy", 400),
        (b"{}", "text/html", 415),
        (b"", "", 415),
    ],
)
def test_bad_input_is_refusedpromised(tmp_path: Path, content: bytes, kind: str, status: int):
    with served.serving(served.app_of(served.digits(tmp_path / "release"))) as address:
        answer = httpx.post(f"{address}/v1/predict", content=content, headers={"content-type": kind})
        assert answer.status_code == status
        assert is_refusal(answer)
        assert httpx.post(f"{address}/v1/predict", json=ONE).status_code == 200


def test_pages_that_are_not_there_and_ways_out_of_the_folder_are_not_found(tmp_path: Path):
    with served.serving(served.app_of(served.digits(tmp_path / "release"))) as address:
        for path in (
            "/private",
            "/v1/../private/split.npz",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/v1/card/..%2f..%2fprivate",
            "/docs/",
        ):
            answer = httpx.get(address + path)
            assert answer.status_code == 404, path
            assert is_refusal(answer)
        answer = httpx.delete(f"{address}/v1/card")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
        assert is_refusal(answer)


def test_no_answer_lets_a_browser_run_or_keep_it(tmp_path: Path):
    with served.serving(served.app_of(served.digits(tmp_path / "release"))) as address:
        for path in ("/", "/docs", "/v1/card", "/metrics", "/nothing"):
            headers = httpx.get(address + path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert "server" not in headers
        assert "default-src 'none'" in httpx.get(address).headers["content-security-policy"]


# -- who may ask ----------------------------------------------------------------------------------------------------


def test_without_a_key_in_force_nothing_is_answered(tmp_path: Path):
    changes, client, owner = served.keyed(tmp_path)
    with served.serving(served.app_of(served.digits(tmp_path / "release"), **changes)) as address:
        wrong = client[:-1] + ("0" if client[-1] != "0" else "1")
        for header in (
            {},
            {"authorization": wrong},
            {"authorization": f"Bearer {wrong}"},
            {"authorization": f"Basic {client}"},
        ):
            answer = httpx.post(f"{address}/v1/predict", json=ONE, headers=header)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert is_refusal(answer)
        for key in (client, owner):
            answer = httpx.post(f"{address}/v1/predict", json=ONE, headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == 200


def test_statistics_metrics_and_reloading_are_the_administrators(tmp_path: Path):
    changes, client, owner = served.keyed(tmp_path)
    with served.serving(served.app_of(served.digits(tmp_path / "release"), **changes)) as address:
        for method, path in (("GET", "/v1/statistics"), ("GET", "/metrics"), ("POST", "/v1/reload")):
            assert httpx.request(method, address + path).status_code == 401
            answer = httpx.request(method, address + path, headers={"authorization": f"Bearer {client}"})
            assert answer.status_code == 403
            assert is_refusal(answer)
            answer = httpx.request(method, address + path, headers={"authorization": f"Bearer {owner}"})
            assert answer.status_code == 200
    with served.serving(served.app_of(tmp_path / "release")) as address:
        assert httpx.get(f"{address}/v1/statistics").status_code == 401


def test_statistics_count_what_each_client_was_answered(tmp_path: Path):
    changes, client, owner = served.keyed(tmp_path)
    with served.serving(served.app_of(served.digits(tmp_path / "release"), **changes)) as address:
        for count in (1, 4):
            rows = {"inputs": np.zeros((count, 8, 8)).tolist()}
            httpx.post(f"{address}/v1/predict", json=rows, headers={"authorization": f"Bearer {client}"})
        found = httpx.get(f"{address}/v1/statistics", headers={"authorization": f"Bearer {owner}"}).json()
    assert found["clients"] == {client.split("_")[1]: {"name": "a client", "answered": 5}}
    assert found["monitor"] is None


def test_a_client_above_its_rate_waits_and_others_do_not(tmp_path: Path):
    changes, client, owner = served.keyed(tmp_path)
    app = served.app_of(served.digits(tmp_path / "release"), limits=Limits(rate=0.5, burst=3), **changes)
    with served.serving(app) as address:
        answers = [
            httpx.post(f"{address}/v1/predict", json=ONE, headers={"authorization": f"Bearer {client}"}) for _ in range(4)
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 2
        assert is_refusal(answers[-1])
        many = {"inputs": np.zeros((4, 8, 8)).tolist()}
        assert httpx.post(f"{address}/v1/predict", json=many, headers={"authorization": f"Bearer {owner}"}).status_code == 422
        assert httpx.post(f"{address}/v1/predict", json=ONE, headers={"authorization": f"Bearer {owner}"}).status_code == 200


def test_a_budget_outlives_the_server(tmp_path: Path):
    changes, client, _ = served.keyed(tmp_path)
    folder, header = served.digits(tmp_path / "release"), {"authorization": f"Bearer {client}"}
    statuses = []
    for _ in range(3):
        with served.serving(served.app_of(folder, limits=Limits(queries=5), **changes)) as address:
            statuses += [httpx.post(f"{address}/v1/predict", json=ONE, headers=header).status_code for _ in range(2)]
    assert statuses == [200, 200, 200, 200, 200, 429]


# -- the monitor ----------------------------------------------------------------------------------------------------


def test_a_monitor_sees_client_inputs_labels_and_margins(tmp_path: Path):
    watcher, (changes, client, _) = Watcher(), served.keyed(tmp_path)
    with served.serving(served.app_of(served.digits(tmp_path / "release"), monitor=watcher, **changes)) as address:
        answer = httpx.post(f"{address}/v1/predict", json=ONE, headers={"authorization": f"Bearer {client}"}).json()
    ((who, inputs, labels, margins),) = watcher.seen
    scores = [one["score"] for one in answer["answers"][0]["top"]]
    assert who == client.split("_")[1]
    assert inputs.shape == (1, 8, 8)
    assert labels.tolist() == [int(answer["answers"][0]["label"])]
    assert margins[0] == pytest.approx(scores[0] - scores[1])
    assert watcher.saved == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_client_that_is_refused_gets_no_answer_and_no_reason_to_learn_from(tmp_path: Path, when: str):
    watcher, (changes, client, owner) = Watcher(**{when: Said("refuse", alerts=("boundary walking",))}), served.keyed(tmp_path)
    with served.serving(served.app_of(served.digits(tmp_path / "release"), monitor=watcher, **changes)) as address:
        answer = httpx.post(f"{address}/v1/predict", json=ONE, headers={"authorization": f"Bearer {client}"})
        counted = httpx.get(f"{address}/metrics", headers={"authorization": f"Bearer {owner}"}).text
    assert answer.status_code == 403
    assert is_refusal(answer)
    assert "boundary" not in answer.text
    assert 'page="/v1/predict",status="403"' in counted
    assert "dptrain_examples_total 0.0" in counted


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_degraded_client_gets_the_label_alone(tmp_path: Path, when: str):
    watcher = Watcher(**{when: Said("degrade")})
    with served.serving(served.app_of(served.digits(tmp_path / "release"), monitor=watcher)) as address:
        (answer,) = httpx.post(f"{address}/v1/predict", json=ONE).json()["answers"]
    assert answer["top"] == [{"label": answer["label"]}]


def test_a_slowed_client_waits_and_no_one_else_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """While the answers before are held back, the next one is computed."""
    watcher = Watcher(after=Said("slow", delay=0.6))
    with served.serving(served.app_of(served.digits(tmp_path / "release"), monitor=watcher)) as address:
        start = time.perf_counter()
        assert httpx.post(f"{address}/v1/predict", json=ONE).status_code == 200
        assert time.perf_counter() - start >= 0.6
        with ThreadPoolExecutor(4) as pool, served.held_back(monkeypatch, 0.6) as go:
            asked = [pool.submit(httpx.post, f"{address}/v1/predict", json=ONE) for _ in range(4)]
            served.until(lambda: len(watcher.seen) == 5)
            assert not any(one.done() for one in asked)
            go.set()
            assert [one.result().status_code for one in asked] == [200] * 4


# -- load and change ------------------------------------------------------------------------------------------------


def test_one_client_does_not_take_all_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    changes, client, owner = served.keyed(tmp_path, at_once=2)
    watcher = Watcher(after=Said("slow", delay=0.5))
    app = served.app_of(served.digits(tmp_path / "release"), monitor=watcher, **changes)
    with served.serving(app) as address:

        def ask(key: str) -> int:
            return httpx.post(f"{address}/v1/predict", json=ONE, headers={"authorization": f"Bearer {key}"}).status_code

        def waiting() -> float | None:
            return app.state.service.metrics.registry.get_sample_value("dptrain_waiting_requests")

        with ThreadPoolExecutor(7) as pool, served.held_back(monkeypatch, 0.5) as go:
            crowd = [pool.submit(ask, client) for _ in range(6)]
            served.until(lambda: sum(one.done() for one in crowd) == 4)
            other = pool.submit(ask, owner)
            served.until(lambda: waiting() == 3)
            go.set()
            assert sorted(one.result() for one in crowd) == [200, 200, 429, 429, 429, 429]
            assert other.result() == 200


class Held(Watcher):
    """Keeps whoever asks until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def admit(self, client: str) -> Said:
        self.go.wait(60)
        return Said()


def test_an_answer_that_is_not_ready_in_time_is_given_up(tmp_path: Path):
    held = Held()
    app = served.app_of(served.digits(tmp_path / "release"), monitor=held, settings=Settings(clients="addresses", timeout=0.3))
    with served.serving(app) as address:
        answer = httpx.post(f"{address}/v1/predict", json=ONE)
        held.go.set()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert is_refusal(answer)


def test_a_place_is_taken_until_what_is_computed_has_ended(tmp_path: Path):
    """A client that gives up waiting does not get more of the worker for it."""
    held, settings = Held(), Settings(clients="addresses", timeout=1.0, at_once=1)
    app = served.app_of(served.digits(tmp_path / "release"), monitor=held, settings=settings)
    with served.serving(app) as address:
        assert httpx.post(f"{address}/v1/predict", json=ONE).status_code == 503
        assert httpx.post(f"{address}/v1/predict", json=ONE).status_code == 429
        held.go.set()
        served.until(lambda: app.state.service.metrics.registry.get_sample_value("dptrain_waiting_requests") == 0)
        assert httpx.post(f"{address}/v1/predict", json=ONE).status_code == 200


def test_a_body_that_is_refused_costs_what_it_could_have_held(tmp_path: Path):
    body = b'{"inputs": [' + b"0," * 100_000 + b"0]}"
    app = served.app_of(served.digits(tmp_path / "release"), limits=Limits(rate=0.1, burst=150))
    with served.serving(app) as address:
        statuses = [httpx.post(f"{address}/v1/predict", content=body, headers=AS_JSON).status_code for _ in range(3)]
        wait = int(httpx.post(f"{address}/v1/predict", json=ONE).headers["retry-after"])
    assert statuses == [422, 422, 429]
    assert wait > 500


def test_json_that_no_batch_needs_is_refused_by_its_length_and_an_array_of_that_length_is_not(tmp_path: Path):
    with served.serving(served.app_of(served.digits(tmp_path / "release"))) as address:
        answer = httpx.post(f"{address}/v1/predict", content=b" " * 600_000, headers=AS_JSON)
        assert answer.status_code == 413
        assert is_refusal(answer)
        array = npy(np.zeros((256, 8, 8))) + bytes(600_000)
        assert httpx.post(f"{address}/v1/predict", content=array, headers=AS_NPY).status_code == 400


def test_each_request_sees_one_whole_model_while_releases_are_changed(tmp_path: Path):
    """Two releases differ in classes and weights; no answer mixes them, whatever is loaded meanwhile."""
    other = [f"other {digit}" for digit in range(10)]
    digests, folder = {}, tmp_path / "release"
    changes, client, owner = served.keyed(tmp_path)
    app = served.app_of(served.digits(folder), **changes)
    header, asked = {"authorization": f"Bearer {owner}"}, {"authorization": f"Bearer {client}"}
    rows = {"inputs": np.random.default_rng(0).random((8, 8, 8)).tolist()}
    with served.serving(app) as address:
        whole = {}
        for seed, classes in ((1, other), (0, list(served.DIGITS))):
            served.digits(folder, seed=seed, classes=classes)
            digests[seed] = httpx.post(f"{address}/v1/reload", headers=header).json()["digest"]
            whole[seed] = httpx.post(f"{address}/v1/predict", json=rows, headers=asked).json()["answers"]
        assert whole[0] != whole[1]
        done, found = threading.Event(), []

        def asks() -> None:
            with httpx.Client(headers=asked) as session:
                while not done.is_set():
                    found.append(session.post(f"{address}/v1/predict", json=rows).json()["answers"])

        threads = [threading.Thread(target=asks) for _ in range(3)]
        for thread in threads:
            thread.start()
        for turn in range(8):
            served.digits(folder, seed=(turn + 1) % 2, classes=(list(served.DIGITS), other)[(turn + 1) % 2])
            answer = httpx.post(f"{address}/v1/reload", headers=header)
            assert answer.json() == {"digest": digests[(turn + 1) % 2]}
            assert httpx.get(f"{address}/v1/card").json()["digest"] == digests[(turn + 1) % 2]
        done.set()
        for thread in threads:
            thread.join()
    assert all(one in (whole[0], whole[1]) for one in found)
    assert whole[0] in found
    assert whole[1] in found


def test_a_broken_release_keeps_the_one_before_and_says_so(tmp_path: Path):
    changes, client, owner = served.keyed(tmp_path)
    folder = served.digits(tmp_path / "release")
    header = {"authorization": f"Bearer {owner}"}
    with served.serving(served.app_of(folder, guard_text="top5", **changes)) as address:
        before = httpx.post(f"{address}/v1/predict", json=ONE, headers=header).json()
        (folder / "planted.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
        answer = httpx.post(f"{address}/v1/reload", headers=header)
        assert answer.status_code == 409
        assert is_refusal(answer)
        assert "planted.pkl" in answer.json()["error"]
        assert "before is still served" in answer.json()["error"]
        assert httpx.post(f"{address}/v1/predict", json=ONE, headers=header).json() == before
        (folder / "planted.pkl").unlink()
        assert httpx.post(f"{address}/v1/reload", headers=header).status_code == 200
    assert client


def test_a_release_that_the_monitor_or_the_guard_does_not_fit_is_refused_and_the_whole_before_stays(tmp_path: Path):
    changes, _, owner = served.keyed(tmp_path)
    header, folder = {"authorization": f"Bearer {owner}"}, served.digits(tmp_path / "release")
    with served.serving(served.app_of(folder, monitor=Watcher(), **changes)) as address:
        card = httpx.get(f"{address}/v1/card").json()
        for shape, classes in (([5, 5], list(served.DIGITS)), ([8, 8], ["a", "b"])):
            served.digits(folder, input_shape=shape, classes=classes)
            answer = httpx.post(f"{address}/v1/reload", headers=header)
            assert answer.status_code == 409
            assert "monitor" in answer.json()["error"]
        weights, stated = load_release(served.digits(folder))
        save_release(folder, weights, stated | {"guard": {"text": "label_only", "statement": "..."}})
        answer = httpx.post(f"{address}/v1/reload", headers=header)
        assert answer.status_code == 409
        assert "label_only" in answer.json()["error"]
        assert httpx.post(f"{address}/v1/predict", json=ONE, headers=header).status_code == 200
        assert httpx.get(f"{address}/v1/card").json() == card


def test_a_release_that_is_replaced_while_it_is_loaded_is_refused(tmp_path: Path):
    """Its thresholds could be of the other one."""
    changes, _, owner = served.keyed(tmp_path)
    header, folder = {"authorization": f"Bearer {owner}"}, served.digits(tmp_path / "release")

    def renew(loaded: Any, version: Any) -> tuple[str, None]:
        served.digits(folder, seed=2)
        return "label_only", None

    with served.serving(served.app_of(folder, renew=renew, **changes)) as address:
        before = httpx.get(f"{address}/v1/card").json()
        served.digits(folder, seed=1)
        answer = httpx.post(f"{address}/v1/reload", headers=header)
        assert answer.status_code == 409
        assert "while it was loaded" in answer.json()["error"]
        assert httpx.get(f"{address}/v1/card").json() == before


def test_a_new_version_takes_guard_and_monitor_together_and_the_monitor_before_is_saved(tmp_path: Path):
    changes, _, owner = served.keyed(tmp_path)
    header, folder = {"authorization": f"Bearer {owner}"}, served.digits(tmp_path / "release")
    old, new = Watcher(), Watcher()
    app = served.app_of(folder, monitor=old, renew=lambda loaded, version: ("label_only", new), **changes)
    with served.serving(app) as address:
        first = httpx.post(f"{address}/v1/predict", json=ONE, headers=header).json()
        assert httpx.post(f"{address}/v1/reload", headers=header).status_code == 200
        second = httpx.post(f"{address}/v1/predict", json=ONE, headers=header).json()
        assert httpx.get(f"{address}/v1/card").json()["guard"]["text"] == "label_only"
    assert [len(one["answers"][0]["top"]) for one in (first, second)] == [10, 1]
    assert (len(old.seen), len(new.seen), old.saved) == (1, 1, 1)


# -- what is written down -------------------------------------------------------------------------------------------


def test_the_log_is_json_and_holds_no_input(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    changes, client, owner = served.keyed(tmp_path)
    secret = {"inputs": np.full((1, 8, 8), 0.123456).tolist()}
    with (
        caplog.at_level(logging.INFO, ACCESS.name),
        served.serving(served.app_of(served.digits(tmp_path / "release"), **changes)) as address,
    ):
        httpx.post(f"{address}/v1/predict?note=0.123456", json=secret, headers={"authorization": f"Bearer {client}"})
        httpx.get(f"{address}/0.123456")
        counted = httpx.get(f"{address}/metrics", headers={"authorization": f"Bearer {owner}"}).text
    lines = [json.loads(record.message) for record in caplog.records if record.name == ACCESS.name]
    assert lines[0]["client"] == client.split("_")[1]
    assert (lines[0]["page"], lines[0]["status"], lines[0]["examples"]) == ("/v1/predict", 200, 1)
    assert lines[1]["page"] == "other"
    for text in (caplog.text, counted):
        assert "0.123456" not in text
        assert client.split("_")[2] not in text


def test_metrics_are_of_the_server_alone_and_name_no_client(tmp_path: Path):
    changes, client, owner = served.keyed(tmp_path)
    with served.serving(served.app_of(served.digits(tmp_path / "release"), **changes)) as address:
        httpx.post(f"{address}/v1/predict", json=ONE, headers={"authorization": f"Bearer {client}"})
        answer = httpx.get(f"{address}/metrics", headers={"authorization": f"Bearer {owner}"})
    assert answer.headers["content-type"].startswith("text/plain")
    names: Sequence[str] = [line.split("{")[0].split(" ")[0] for line in answer.text.splitlines() if not line.startswith("#")]
    assert all(name.startswith("dptrain_") for name in names)
    assert 'dptrain_requests_total{page="/v1/predict",status="200"} 1.0' in answer.text
    assert client.split("_")[1] not in answer.text


def test_a_revoked_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dptrain.release.keys.FRESH", 0.2)
    changes, client, _ = served.keyed(tmp_path)
    header = {"authorization": f"Bearer {client}"}
    with served.serving(served.app_of(served.digits(tmp_path / "release"), **changes)) as address:
        assert httpx.post(f"{address}/v1/predict", json=ONE, headers=header).status_code == 200
        Keys(served.State(tmp_path).engine).revoke(client.split("_")[1])
        time.sleep(0.3)
        assert httpx.post(f"{address}/v1/predict", json=ONE, headers=header).status_code == 401


def test_a_card_with_a_plan_says_what_epsilon_means_to_somebody():
    plan = PrivacyPlan(
        sampling_rate=0.1, expected_batch_size=1000, steps=10, clipping_norm=1.0, delta=1e-5, noise_multiplier=1.0
    )
    said = promised({"plan": as_plain(plan), "steps_taken": 10, "guarantee": {"epsilon": 2.0, "statement": served.STATEMENT}})
    assert f"more than {_times(2.0)} times as likely" in said
    assert said.endswith(served.STATEMENT)
    assert "no guarantee" in promised({})
