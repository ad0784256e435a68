"""Thresholds: the order statistic, what is refused, what benign clients then raise, and the file."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import beta, binom

from dptrain.data import digits
from dptrain.errors import DataError, UserError
from dptrain.recipe import DataConfig
from dptrain.release.monitor import Session, Thresholds, benign_sessions, calibrate, measured
from dptrain.release.monitor.detectors import DETECTORS
from dptrain.release.monitor.session import distinct, maxima, sessions_of_their_own
from dptrain.release.monitor.thresholds import LeftOut, order
from tests.dptrain.release.monitored import answer, points, sessions, thresholds


def test_the_order_that_is_taken_is_the_least_that_holds_with_the_stated_confidence():
    for count, rate, confidence in ((299, 0.01, 0.95), (1000, 0.01, 0.95), (500, 0.05, 0.9)):
        rank = order(count, rate, confidence)
        assert beta.cdf(rate, count - rank + 1, rank) >= confidence
        assert rank == 1 or beta.cdf(rate, count - rank + 2, rank - 1) < confidence
        assert beta.cdf(rate, count - rank + 1, rank) == pytest.approx(1 - binom.cdf(count - rank, count, rate))


@pytest.mark.parametrize(("count", "confidence", "needed"), [(298, 0.95, 299), (98, None, 99)])
def test_too_few_sessions_are_refused_with_how_many_it_takes(count: int, confidence: float | None, needed: int):
    with pytest.raises(UserError, match=f"takes {needed}"):
        order(count, 0.01, confidence)
    order(needed, 0.01, confidence)


def test_calibrating_on_too_little_says_what_to_give():
    with pytest.raises(UserError, match="give 598 in all"):
        calibrate(sessions(60, 0))
    with pytest.raises(DataError, match="no benign session"):
        calibrate([])
    with pytest.raises(UserError, match="1 or more"):
        calibrate(sessions(12, 0), 0.5, caution=0.5)
    with pytest.raises(UserError, match="between 0 and 1"):
        calibrate(sessions(12, 0), 1.5)
    short = Session(points(3, 0), np.zeros(2, dtype=int), np.zeros(3))
    with pytest.raises(DataError, match="differ in number"):
        calibrate([short] * 12, 0.5)
    broken = Session(np.full((3, 4), np.nan, dtype=np.float32), np.zeros(3, dtype=int), np.zeros(3))
    with pytest.raises(DataError, match="not finite"):
        calibrate([broken] * 12, 0.5)


def test_caution_raises_every_threshold_alike():
    given = sessions(240, 0)
    bare, careful = (calibrate(given, 0.02, confidence=None, caution=caution) for caution in (1.0, 2.0))
    assert careful.values == pytest.approx({name: 2 * value for name, value in bare.values.items()})


def test_598_sessions_suffice_for_one_percent_at_95():
    found = calibrate(sessions(598, 3))
    assert (found.sessions, found.fitted_sessions) == (300, 199)


def test_benign_sessions_that_nobody_calibrated_on_raise_as_often_as_stated():
    found = calibrate(sessions(240, 0), 0.02, confidence=None, caution=1.0)
    limits = np.array([found.values.get(name, np.inf) for name in DETECTORS])
    shared, generator = found.watch.shared(), np.random.default_rng(0)
    judged = sessions(300, 5)
    largest = np.array([maxima(found.watch, one, shared, f"judged {row}", generator) for row, one in enumerate(judged)])
    alarms = int((largest > limits).any(1).sum())
    # The mean rate is 2% and its spread over calibrations that of Beta(2, 119); 20 of 300 is beyond both.
    assert alarms < 20
    assert (largest[:, : DETECTORS.index("decoys")] > 0).any()


def test_thresholds_say_what_they_were_calibrated_on_and_which_detectors_are_powerless():
    found = thresholds()
    assert found.fitted_sessions == 80
    assert found.sessions == 120
    assert found.lengths[0] >= 20
    assert found.lengths[2] <= 250
    assert "entropy" in found.powerless  # clients of one class are among the benign ones
    assert "entropy" in found.statement()
    assert "not a guarantee" in found.statement()
    assert "rate_minute" not in found.values


def test_no_session_but_of_favourites_goes_round_its_examples_and_each_names_them():
    inputs = points(150, 1)
    kinds = ("steady", "bursts", "one class", "retries")
    for one in benign_sessions(inputs, answer, 40, np.random.default_rng(0), lengths=(300, 400), kinds=kinds):
        assert one.examples is not None
        assert np.array_equal(one.inputs, inputs[one.examples])
        changes = np.flatnonzero(np.diff(one.examples, prepend=-1))
        assert len(set(one.examples[changes].tolist())) == len(changes)  # asked again at once, or never
    texts = np.random.default_rng(0).integers(0, 9, (120, 12))
    read = benign_sessions(texts, lambda rows: answer(rows * 1.0), 20, np.random.default_rng(0), kinds=("typing",))
    for one in read:
        assert one.examples is not None
        assert len(one.examples) == len(one.labels)
        begun = [text[0] == texts[number][0] for text, number in zip(one.inputs, one.examples, strict=True)]
        assert np.mean(begun) > 0.9


def test_sessions_count_as_many_as_they_would_if_no_example_were_in_two():
    def session(*examples: int) -> Session:
        rows = np.array(examples)
        return Session(np.zeros((len(rows), 2), dtype=np.float32), rows, rows * 1.0, examples=rows)

    apart = [session(1, 2), session(3), session(4, 5, 6)]
    assert (distinct(apart), sessions_of_their_own(apart)) == (6, 3)
    twice = [*apart, *apart]
    assert (distinct(twice), sessions_of_their_own(twice)) == (6, 3)
    recorded = [Session(points(20, seed), *answer(points(20, seed))) for seed in (1, 2, 2)]
    assert (distinct(recorded), sessions_of_their_own(recorded)) == (40, 2)


def test_a_rate_is_stated_where_sessions_are_of_clients_and_not_where_few_examples_were_drawn_again():
    generator = np.random.default_rng(0)
    recorded = [Session(inputs, *answer(inputs)) for inputs in np.array_split(points(240 * 30, 2), 240)]
    found = calibrate(recorded, 0.02, confidence=None)
    assert found.of_their_own == found.sessions
    assert "at most 2.0% ever raise an alert" in found.statement()
    assert "7200 distinct" in found.statement()
    inputs = points(150, 3)
    few = calibrate(benign_sessions(inputs, answer, 598, generator))
    said = few.statement()
    assert not few.carried
    assert "No false-alarm rate is stated" in said
    assert "at most" not in said
    assert "confidence" not in said
    assert "150 distinct examples" in said


def of_digits(seed: int) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    """Digits in random order, and what the nearest of the class means of 500 others says."""
    data, order = digits.load(DataConfig()), np.random.default_rng(seed).permutation(1797)
    inputs, targets = data.inputs.numpy()[order], data.targets.numpy()[order]
    means = np.stack([inputs[:500][targets[:500] == label].reshape(-1, 64).mean(0) for label in range(10)])

    def nearest(asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = softmax(-((asked.reshape(len(asked), 1, 64) - means) ** 2).sum(2), axis=1)
        best = np.sort(scores, 1)
        return scores.argmax(1), best[:, -1] - best[:, -2]

    return inputs[500:], nearest


def test_sessions_of_held_out_examples_raise_what_the_statement_of_thresholds_from_few_examples_says():
    """100 examples to calibrate on and 100 to measure on; then clients with 900 others, who ask for each once."""
    shares, alarms = [], []
    for seed in (0, 2):
        generator, (inputs, nearest) = np.random.default_rng(seed), of_digits(seed)
        found = calibrate(benign_sessions(inputs[:100], nearest, 240, generator), 0.02, confidence=None, classes=10)
        found = measured(found, benign_sessions(inputs[100:200], nearest, 100, generator))
        assert found.left_out is not None
        assert (found.left_out.examples, found.left_out.sessions) == (100, 100)
        assert f"{found.left_out.alarms} raised an alert ({found.left_out.share:.1%})" in found.statement()
        assert not found.carried
        shares.append(found.left_out.share)
        played = measured(found, benign_sessions(inputs[-900:], nearest, 100, generator, kinds=("steady", "bursts"))).left_out
        assert played is not None
        alarms.append(played.share)
    # Of 200 sessions with a share of 2%, 11 or more raise one with a chance of 0.3%.
    assert np.mean(alarms) <= max(0.02, np.mean(shares)) + 6 / 200


def test_a_client_with_more_examples_than_were_calibrated_on_may_ask_for_each_once():
    inputs, nearest = of_digits(0)
    sessions = benign_sessions(inputs[:100], nearest, 240, np.random.default_rng(0))
    found = calibrate(sessions, 0.02, confidence=None, classes=10)
    assert measured(found, [Session(inputs[-900:], *nearest(inputs[-900:]))]).left_out == LeftOut(900, 1, 0)


def test_a_window_that_no_session_fills_is_not_watched():
    short = benign_sessions(points(3000, 0), answer, 120, np.random.default_rng(0), lengths=(20, 60))
    found = calibrate(short, 0.05, confidence=None)
    assert not {"prada", "entropy"} & set(found.values)
    assert {"prada", "entropy"} <= set(thresholds().values)


def test_rates_are_watched_where_the_pace_is_known():
    found = calibrate(sessions(240, 4, pace=(1.0, 10.0)), 0.02, confidence=None)
    assert found.values["rate_minute"] < 1000
    assert found.values["rate_hour"] >= 80


def test_thresholds_come_back_from_json():
    found = thresholds()
    again = Thresholds.from_json(json.loads(json.dumps(found.to_json())))
    assert again.fingerprint == found.fingerprint
    assert again.values == found.values
    inputs = points(40, 8)
    shared, generator = (found.watch.shared(), again.watch.shared()), np.random.default_rng(0)
    one = Session(inputs, *answer(inputs))
    assert np.array_equal(
        maxima(found.watch, one, shared[0], "a", generator), maxima(again.watch, one, shared[1], "a", generator)
    )


@pytest.mark.parametrize("change", [{"format": 1}, {"watch": {}}, {"lengths": None}])
def test_a_file_that_holds_no_thresholds_is_refused(change: dict):
    with pytest.raises(DataError, match="thresholds"):
        Thresholds.from_json({**thresholds().to_json(), **change})


def test_benign_sessions_are_of_all_kinds_and_of_two_groups_of_examples():
    inputs = points(300, 1)
    found = benign_sessions(inputs, answer, 60, np.random.default_rng(0), pace=(1.0, 5.0))
    first = {row.tobytes() for one in found[:20] for row in one.inputs}
    second = {row.tobytes() for one in found[20:] for row in one.inputs}
    assert not first & second
    assert any(len(set(one.labels.tolist())) == 1 for one in found)
    repeats = [len(one.inputs) - len({row.tobytes() for row in one.inputs}) for one in found]
    assert sum(count > 0 for count in repeats) > 10
    bursts = [int((np.diff(one.times) == 0).sum()) for one in found if one.times is not None]
    assert sum(count > 5 for count in bursts) > 3
    with pytest.raises(DataError, match="100 at least"):
        benign_sessions(inputs[:10], answer, 60, np.random.default_rng(0))
