"""No client is answered more than its rate and its budget permit, over restarts and in any order."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine

from dptrain.errors import ConfigError
from dptrain.release import limits as limits_module
from dptrain.release.limits import Exceeded, Limits, Meter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return create_engine(f"sqlite:///{tmp_path / 'state.db'}")


def test_a_bucket_holds_a_burst_and_is_filled_at_the_rate(engine: Engine):
    clock = Clock()
    meter = Meter(Limits(rate=2.0, burst=10), engine, clock)
    meter.take("a", 10)
    with pytest.raises(Exceeded) as caught:
        meter.take("a", 4)
    assert caught.value.wait == 2
    clock.now += 2.0
    meter.take("a", 4)
    clock.now += 1000.0
    meter.take("a", 10)
    with pytest.raises(Exceeded):
        meter.check("a")
    meter.check("b")


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 12)), max_size=30))
def test_no_window_holds_more_than_a_burst_and_its_rate(asked: list[tuple[float, int]]):
    clock = Clock()
    meter = Meter(Limits(rate=3.0, burst=8), create_engine("sqlite://"), clock)
    answered: list[tuple[float, int]] = []
    for wait, examples in asked:
        clock.now += wait
        with suppress(Exceeded):
            meter.take("a", examples)
            answered.append((clock.now, examples))
    for begin, _ in answered:
        for end, _ in answered:
            inside = sum(examples for at, examples in answered if begin <= at <= end)
            assert inside <= 8 + 3.0 * max(0.0, end - begin) + 1e-6


def test_more_than_a_burst_is_never_answered_so_no_wait_is_said(engine: Engine):
    with pytest.raises(Exceeded) as caught:
        Meter(Limits(rate=3.0, burst=8), engine).take("a", 9)
    assert caught.value.wait is None


def test_after_the_wait_that_is_said_the_same_is_answered(engine: Engine):
    clock = Clock()
    meter = Meter(Limits(rate=0.3, burst=7), engine, clock)
    meter.take("a", 7)
    with pytest.raises(Exceeded) as caught:
        meter.take("a", 5)
    assert caught.value.wait is not None
    clock.now += caught.value.wait
    meter.take("a", 5)


def test_a_request_that_cannot_be_read_costs_of_the_rate_and_not_of_the_budget(engine: Engine):
    meter = Meter(Limits(rate=1.0, burst=2, queries=2), engine, Clock())
    meter.waste("a")
    meter.waste("a")
    with pytest.raises(Exceeded):
        meter.check("a")
    meter.close()
    Meter(Limits(queries=2), engine).take("a", 2)


def test_what_could_not_be_read_is_charged_on_credit_of_at_most_a_burst(engine: Engine):
    clock = Clock()
    meter = Meter(Limits(rate=1.0, burst=8), engine, clock)
    meter.take("a", 7)
    for _ in range(9):
        meter.waste("a", 5)
    with pytest.raises(Exceeded) as caught:
        meter.take("a", 1)
    assert caught.value.wait == 9
    clock.now += 9
    meter.take("a", 1)


def test_a_budget_is_spent_for_good(engine: Engine):
    meter = Meter(Limits(queries=50), engine)
    meter.take("a", 20)
    meter.close()
    again = Meter(Limits(queries=50), engine)
    again.take("a", 30)
    with pytest.raises(Exceeded, match="0 of its 50"):
        again.check("a")
    again.take("b", 50)


def test_a_server_that_was_killed_never_answers_more_than_the_budget(engine: Engine):
    """It loses what it had taken and not answered: at most one block a kill."""
    answered = 0
    for _ in range(100):
        meter = Meter(Limits(queries=200), engine)
        try:
            meter.take("a", 3)
        except Exceeded:
            break
        answered += 3
    assert 0 < answered <= 200
    with pytest.raises(Exceeded):
        Meter(Limits(queries=200), engine).take("a", 3)


def test_servers_that_share_a_database_share_the_budget(engine: Engine):
    one, other = (Meter(Limits(queries=100), engine) for _ in range(2))
    answered = 0
    for turn in range(200):
        try:
            (one, other)[turn % 2].take("a", 1)
        except Exceeded:
            continue
        answered += 1
    assert answered == 100


def test_memory_holds_so_many_clients_and_forgets_no_budget(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits_module, "MOST_CLIENTS", 3)
    meter = Meter(Limits(queries=10), engine)
    for _ in range(2):
        for number in range(8):
            meter.take(f"client {number}", 5)
    assert len(meter.answered()) == 3
    with pytest.raises(Exceeded):
        meter.take("client 0", 1)


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"rate": float("nan")}, {"burst": 0}, {"queries": 0}])
def test_limits_that_permit_nothing_are_refused(wrong: dict[str, float]):
    with pytest.raises(ConfigError):
        Limits(**wrong)  # pyright: ignore[reportArgumentType]
