"""The monitor: who is flagged and who is not, what is done about it and for how long, and what is never kept."""

import io
import json
import logging
import threading
from functools import lru_cache

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from dptrain.errors import UserError
from dptrain.release.monitor import Decision, Monitor, Thresholds, benign_sessions, calibrate
from dptrain.release.monitor.detectors import DETECTORS
from dptrain.release.monitor.log import JsonLines
from dptrain.release.monitor.metrics import Metrics
from tests.dptrain.release.monitored import answer, observed, points, probing, thresholds


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def monitor(**given) -> Monitor:
    return Monitor(thresholds(), seed=0, **{"clock": Clock(), **given})


def test_near_duplicates_are_flagged_within_few_queries():
    decision = observed(monitor(), "a", probing(60))
    first = {alert.detector: alert.queries for alert in decision.alerts}
    assert first["near_duplicates"] < 25
    assert decision.alerts[0].client == "a"
    assert decision.alerts[0].value > decision.alerts[0].threshold


def test_a_walk_along_the_boundary_is_flagged_as_one():
    inputs = probing(80)
    inputs[:, 0] = np.where(np.arange(80) % 2, 1e-3, -1e-3)
    found = {alert.detector for alert in observed(monitor(), "a", inputs).alerts}
    assert {"crossings", "low_margins"} <= found


def test_inputs_like_no_benign_ones_are_flagged_where_they_are_not_near_each_other():
    inputs = points(60, 3) + 2 * np.random.default_rng(0).normal(size=(60, 20)).astype(np.float32)
    assert "off_distribution" in {alert.detector for alert in observed(monitor(), "a", inputs).alerts}


def test_a_client_that_sends_the_same_again_is_not_flagged():
    watched = monitor()
    for one in points(20, 4):
        for _ in range(30):
            assert observed(watched, "a", one[None]) == Decision("allow")
    assert watched.statistics()["clients"]["a"]["repeats"] == 20 * 29


def raised(statistics: dict) -> dict[str, int]:
    return {alert["detector"]: alert["queries"] for alert in statistics["alerts"]}


def test_batches_make_no_difference():
    inputs = np.concatenate([points(90, 5), probing(40)])
    whole, single, halves = monitor(), monitor(), monitor()
    observed(whole, "a", inputs)
    for one in inputs:
        observed(single, "a", one[None])
    for part in np.split(inputs, [17, 77]):
        observed(halves, "a", part)
    wanted = whole.statistics()
    for other in (single, halves):
        found = other.statistics()
        for name, value in wanted["clients"]["a"]["detectors"].items():
            assert found["clients"]["a"]["detectors"][name]["value"] == pytest.approx(value["value"], abs=1e-3), name
        assert raised(found) == raised(wanted)
    assert raised(wanted)["near_duplicates"] > 90


def test_clients_that_share_an_attack_are_flagged_together():
    watched, inputs, generator = monitor(), points(40, 31), np.random.default_rng(0)
    found = set()
    for number in range(10):
        altered = inputs + 0.01 * generator.normal(size=inputs.shape).astype(np.float32)
        found |= {(alert.client, alert.detector) for alert in observed(watched, f"client {number}", altered).alerts}
    assert {client for client, _ in found} == {f"client {number}" for number in range(1, 10)}
    assert {detector for _, detector in found} == {"coordinated"}


def test_a_group_is_flagged_each_of_whose_clients_asks_too_little_to_be_flagged_alone():
    watched, copies = monitor(), probing(360)
    found = {}
    for number in range(120):
        alerts = observed(watched, f"client {number}", copies[3 * number : 3 * number + 3]).alerts
        found |= {number: {alert.detector for alert in alerts}} if alerts else {}
    assert min(found) < 12
    assert set(found) >= set(range(12, 120))
    assert all(detectors == {"crowded"} for detectors in found.values())
    assert not observed(watched, "somebody else", points(200, 41)).alerts


@pytest.mark.parametrize(("action", "delay"), [("slow", 2.0), ("degrade", 0.0), ("refuse", 0.0)])
def test_an_action_holds_from_the_alert_on_and_ends_after_the_stated_time(action, delay: float):
    clock = Clock()
    watched = monitor(actions=action, clock=clock, hold=60.0, delay=2.0)
    assert watched.admit("a") == Decision("allow")
    decision = observed(watched, "a", probing(60))
    assert (decision.action, decision.delay) == (action, delay)
    assert watched.admit("a") == Decision(action, (), delay)
    assert watched.admit("b") == Decision("allow")
    clock.now += 59
    assert watched.admit("a").action == action
    clock.now += 2
    assert watched.admit("a") == Decision("allow")


def test_logging_alone_changes_no_answer_and_each_detector_may_have_its_own_action():
    decision = observed(monitor(actions="log"), "a", probing(60))
    assert decision.alerts
    assert decision.action == "allow"
    strict = {"near_duplicates": "degrade", "prada": "refuse"}
    assert observed(monitor(actions=strict), "a", probing(60)).action == "degrade"
    with pytest.raises(UserError, match="near_duplicates"):
        monitor(actions={"near_duplicate": "log"})
    with pytest.raises(UserError, match="refuse"):
        monitor(actions="refus")
    with pytest.raises(UserError, match="clients=0"):
        monitor(clients=0)


def test_an_alert_is_raised_once_while_it_holds_and_again_afterwards():
    clock = Clock()
    watched = monitor(clock=clock, hold=60.0)
    counts = []
    for part in np.split(probing(300), 5):
        counts.append(sum(alert.detector == "near_duplicates" for alert in observed(watched, "a", part).alerts))
        clock.now += 20
    assert counts == [1, 0, 0, 1, 0]


def test_a_client_that_stops_probing_comes_below_the_threshold_again():
    clock = Clock()
    watched = monitor(clock=clock, hold=10.0, actions={"near_duplicates": "refuse"})
    observed(watched, "a", probing(1000))
    observed(watched, "a", points(800, 11))
    clock.now += 11
    assert observed(watched, "a", points(20, 12)).action == "allow"


def test_a_query_near_a_decoy_is_an_alert_at_once():
    decoy = points(2, 21)
    watched = monitor(decoys=decoy)
    assert not observed(watched, "a", points(20, 22)).alerts
    (alert,) = observed(watched, "a", decoy[1:] + np.float32(1e-4)).alerts
    assert (alert.detector, alert.queries) == ("decoys", 21)


def test_refused_answers_and_missing_margins_are_no_evidence():
    inputs, watched = points(200, 23), monitor()
    decision = watched.observe("a", inputs, np.full(200, -1), np.full(200, np.nan))
    assert not decision.alerts
    detectors = watched.statistics()["clients"]["a"]["detectors"]
    assert detectors["low_margins"]["value"] == detectors["crossings"]["value"] == 0
    assert watched.observe("a", inputs[:0], np.zeros(0, dtype=int), np.zeros(0)) == Decision("allow")


def test_memory_is_of_so_many_clients_and_no_more():
    watched = monitor(clients=8)
    for number in range(50):
        observed(watched, f"client {number}", points(3, number))
    assert list(watched.statistics()["clients"]) == [f"client {number}" for number in range(42, 50)]


def test_the_page_gets_plain_json():
    watched = monitor()
    observed(watched, "a", probing(60))
    watched.admit("new")
    found = json.loads(json.dumps(watched.statistics(), allow_nan=False))
    assert found["clients"]["a"]["queries"] == 60
    assert found["alerts"][0]["client"] == "a"
    assert set(found["clients"]["a"]["detectors"]) == set(thresholds().values)


def test_alerts_are_logged_as_a_line_of_json_each_and_counted():
    stream, registry = io.StringIO(), CollectorRegistry()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.getLogger("dptrain.monitor").addHandler(handler)
    try:
        decision = observed(monitor(actions="degrade", metrics=Metrics(registry)), "a", probing(60))
    finally:
        logging.getLogger("dptrain.monitor").removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["alert"]["detector"] for line in lines] == [alert.detector for alert in decision.alerts]
    assert {line["action"] for line in lines} == {"degrade"}
    assert registry.get_sample_value("dptrain_monitor_queries_total") == 60
    assert registry.get_sample_value("dptrain_monitor_alerts_total", {"detector": "near_duplicates"}) == 1
    assert registry.get_sample_value("dptrain_monitor_decisions_total", {"action": "degrade"}) == 1
    assert registry.get_sample_value("dptrain_monitor_clients") == 1


def test_many_threads_lose_no_query():
    watched, inputs = monitor(), points(160, 30)

    def ask(client: str) -> None:
        for one in inputs:
            observed(watched, client, one[None])

    threads = [threading.Thread(target=ask, args=(f"client {number % 2}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = watched.statistics()["clients"]
    assert [found[name]["queries"] for name in sorted(found)] == [320, 320]
    assert [found[name]["repeats"] for name in sorted(found)] == [160, 160]


@lru_cache(maxsize=1)
def text_thresholds() -> tuple[Thresholds, np.ndarray]:
    generator = np.random.default_rng(40)
    words = [generator.integers(10, 60, int(size)) for size in generator.integers(3, 9, 200)]
    texts = np.stack([np.concatenate([words[int(at)] for at in generator.integers(0, 200, 20)])[:40] for _ in range(900)])
    found = calibrate(benign_sessions(texts, read, 150, generator, lengths=(20, 60)), 0.02, confidence=None, classes=60)
    return found, texts


def read(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return tokens[:, -1], np.full(len(tokens), 0.5)


def test_many_continuations_of_one_beginning_are_flagged_and_typing_is_not():
    found, texts = text_thresholds()
    watched, decoy = Monitor(found, seed=0, decoys=texts[:1, :30]), texts[899:]
    secrets = np.repeat(texts[500:501, :24], 80, axis=0)
    secrets[:, -6:] = np.random.default_rng(0).integers(0, 10, (80, 6))
    alerts = watched.observe("prober", secrets, *read(secrets)).alerts
    assert {alert.detector: alert.queries for alert in alerts}["siblings"] < 40
    for end in range(4, 40):
        text = texts[600:601, :end]
        assert not watched.observe("typist", text, *read(text)).alerts
    assert not watched.observe("reader", decoy, *read(decoy)).alerts
    near = texts[:1, 2:30]
    assert [alert.detector for alert in watched.observe("thief", near, *read(near)).alerts] == ["decoys"]


def test_every_detector_is_calibrated_for_numbers_or_for_tokens():
    found, _ = text_thresholds()
    paced = {"rate_minute", "rate_hour"}
    assert set(found.values) | set(thresholds().values) | paced | {"decoys"} == set(DETECTORS)


def test_answers_are_given_by_position():
    labels, margins = answer(points(5, 0))
    assert labels.shape == margins.shape == (5,)
