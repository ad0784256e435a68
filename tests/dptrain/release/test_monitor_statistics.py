"""What is counted: closed forms, known answers, and that nothing grows."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dptrain.data import digits
from dptrain.errors import CheckpointError, DataError
from dptrain.recipe import DataConfig
from dptrain.release.monitor import fitting, statistics, thresholds
from dptrain.release.monitor.density import Density
from dptrain.release.monitor.fitting import radius_of
from dptrain.release.monitor.shared import BANDS, DEPTH, FADING, SLOTS, Shared
from dptrain.release.monitor.sketch import PLACES, SHINGLE, distances, sketched
from dptrain.release.monitor.state import OLDER, RECENT, State
from dptrain.release.monitor.statistics import Surprise, cusum, decayed, missing_entropy, not_normal


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(statistics).failed == 0
    assert doctest.testmod(thresholds).failed == 0
    assert doctest.testmod(fitting).failed == 0


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=40), st.floats(0, 5), st.floats(-1, 1), st.integers(0, 40))
def test_a_sum_is_the_recursion_and_does_not_depend_on_batches(values: list[float], start: float, drift: float, cut: int):
    given = np.array(values)[:, None]
    recursion, last = [], start
    for value in values:
        last = max(0.0, last + value - drift)
        recursion.append(last)
    whole = cusum(np.full(1, start), given, np.full(1, drift))
    assert whole[:, 0] == pytest.approx(recursion, abs=1e-9)
    cut = min(cut, len(values) - 1)
    if cut:
        first = cusum(np.full(1, start), given[:cut], np.full(1, drift))
        second = cusum(first[-1], given[cut:], np.full(1, drift))
        assert np.concatenate([first, second]) == pytest.approx(whole, abs=1e-9)


def test_the_surprise_of_benign_values_averages_one_whatever_their_distribution():
    generator = np.random.default_rng(0)
    for draw in (generator.normal, generator.gumbel, generator.standard_cauchy):
        surprise = Surprise.of(draw(size=20_000))
        found = surprise(draw(size=20_000))
        assert found.mean() == pytest.approx(1.0, abs=0.04)
        assert (found > math.log(100)).mean() == pytest.approx(0.01, abs=0.003)
    assert Surprise.of(np.arange(9.0))(np.array([100.0, np.nan])) == pytest.approx([math.log(10), 0.0])


def test_a_count_halves_after_so_long_and_a_clock_that_goes_back_stands_still():
    path = decayed(0.0, -np.inf, np.array([0.0, 0.0, 60.0 * math.log(2), 0.0]), 60.0)
    assert path == pytest.approx([1.0, 2.0, 2.0, 3.0])


def test_distances_of_few_altered_inputs_are_not_normal():
    generator = np.random.default_rng(1)
    assert not_normal(generator.normal(5, 1, 128)) < 0.05
    assert not_normal(np.concatenate([generator.normal(0.1, 0.01, 100), generator.normal(5, 1, 28)])) > 0.3
    assert not_normal(np.full(128, 2.0)) == not_normal(np.append(np.full(127, 2.0), 9.0)) == 1.0


def test_entropy_is_missed_most_of_one_label():
    assert missing_entropy(np.arange(100) % 10, 10) == pytest.approx(0.0)
    assert missing_entropy(np.zeros(100, dtype=int), 10) == pytest.approx(math.log(10))


def test_projections_keep_distances_on_average():
    generator = np.random.default_rng(2)
    left, right = generator.normal(size=(2, 400, 64)).astype(np.float32)
    apart = np.diag(distances(sketched(left, 0).places, sketched(right, 0).places))
    ratio = apart / np.linalg.norm(left - right, axis=1)
    assert (ratio**2).mean() == pytest.approx(1.0, abs=4 * math.sqrt(2 / PLACES / 400) + 0.25)
    assert ratio.std() < 2 / math.sqrt(2 * PLACES)


def test_minima_agree_as_often_as_shingles_are_shared():
    generator = np.random.default_rng(3)
    estimates, truths = [], []
    for _ in range(200):
        one = generator.integers(0, 90, 60)
        other = one.copy()
        other[int(generator.integers(60)) :] = generator.integers(0, 90)
        pairs = [{tuple(row[at : at + SHINGLE]) for at in range(60 - SHINGLE + 1)} for row in (one, other)]
        truths.append(1 - len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1]))
        both = sketched(np.stack([one, other]), 0)
        estimates.append(distances(both.places[:1], both.places[1:])[0, 0])
    assert np.mean(np.array(estimates) - truths) == pytest.approx(0.0, abs=0.03)
    assert np.corrcoef(estimates, truths)[0, 1] > 0.9


def test_continuations_of_one_beginning_are_siblings_and_typing_on_is_not():
    beginning = np.arange(20)
    continued = np.stack([np.append(beginning, [last, 3]) for last in range(5)])
    found = sketched(continued, 0).beginnings
    assert (found[:1] == found[1:]).any(1).all()
    other = continued.copy()
    other[:, 0] += 1
    assert not (sketched(other, 0).beginnings == found).any()
    longer = sketched(np.append(continued[:1], [[7]], 1), 0).beginnings
    assert not np.isin(longer, found).any()
    short = sketched(np.array([[1, 2, 3], [1, 2, 4]]), 0).beginnings
    assert not (short[0] == short[1]).any()


def test_a_query_that_is_no_array_of_numbers_or_tokens_is_refused():
    for wrong in (np.zeros(3, dtype=np.float32), np.zeros((2, 2), dtype=bool), np.array([["a"]])):
        with pytest.raises(DataError, match="give floats"):
            sketched(wrong, 0)


def test_zero_is_the_same_query_whichever_its_sign():
    one, other = np.array([[-1e-60, 1.0]]), np.array([[0.0, 1.0]])
    assert np.signbit(one.astype(np.float32)[0, 0])
    assert sketched(one, 0).digests == sketched(other, 0).digests


@pytest.mark.parametrize("examples", [100, 200, 400])
def test_the_radius_is_that_of_the_population_however_few_examples_there_are(examples: int):
    """Of points in a cube of 5 dimensions, far from its sides, C(r) is the volume of a ball."""
    found, target = [], 1e-5
    truth = (target / (8 * math.pi**2 / 15)) ** 0.2
    for seed in range(20):
        points = np.random.default_rng(seed).random((examples, 5))
        apart = np.abs(points[:, None] - points)
        apart = np.sqrt((np.minimum(apart, 1 - apart) ** 2).sum(2))[np.triu_indices(examples, 1)]
        found.append(radius_of(apart, target))
    assert np.median(found) == pytest.approx(truth, rel=0.15)


def test_what_lies_beside_benign_queries_is_far_and_benign_ones_are_near():
    generator = np.random.default_rng(4)
    labels = generator.integers(0, 3, 900)
    plane = generator.normal(size=(3, 40))
    benign = (plane[labels] * 4 + generator.normal(size=(900, 2)) @ plane[:2] + 0.05 * generator.normal(size=(900, 40))).astype(
        "f4"
    )
    fit = Density.fit(benign[:600], labels[:600])
    near = fit.distance(benign[600:])
    between = fit.distance((benign[600:] + benign[599:-1]) / 2)
    noisy = fit.distance(benign[600:] + 0.5 * generator.normal(size=(300, 40)).astype("f4"))
    assert near.mean() == pytest.approx(40, rel=0.25)
    assert np.median(noisy) > np.quantile(near, 0.99)
    assert np.quantile(between, 0.9) > np.quantile(near, 0.99)


def fresh() -> State:
    zeros = np.zeros
    return State("numbers", zeros(6), zeros(2), zeros(2), zeros(4), zeros(12))


def filled(count: int, seed: int = 0, batch: int = 32) -> State:
    state, generator = fresh(), np.random.default_rng(seed)
    values = np.arange(count, dtype=np.float32)[:, None] * np.ones(PLACES, dtype=np.float32)
    for start in range(0, count, batch):
        block = sketched(values[start : start + batch], 0)
        block.places[:] = values[start : start + batch]
        state.remember(block, np.zeros(len(block), dtype=np.int32), generator)
    return state


def test_a_client_takes_the_same_memory_however_much_it_asks():
    assert filled(5).nbytes == filled(4000).nbytes < 60_000


def test_the_latest_are_kept_and_of_the_older_ones_a_uniform_sample():
    count, kept = 2000, np.zeros(2000)
    for seed in range(60):
        numbers = filled(count, seed).places[:, 0].astype(int)
        assert set(range(count - RECENT, count)) <= set(numbers[:RECENT])
        assert len(set(numbers)) == RECENT + OLDER
        kept[numbers[RECENT:]] += 1
    quarters = kept[: count - RECENT].reshape(4, -1).sum(1)
    wanted = 60 * OLDER / 4
    assert (np.abs(quarters - wanted) < 4 * math.sqrt(wanted)).all()


def test_nothing_is_lost_before_memory_is_full():
    state = filled(RECENT + OLDER, batch=7)
    assert set(state.places[: state.used, 0].astype(int)) == set(range(RECENT + OLDER))


def test_a_state_comes_back_from_bytes_and_another_format_is_refused(monkeypatch: pytest.MonkeyPatch):
    state = filled(700)
    state.queries, state.repeats, state.last = 703, 3, 12.5
    again = State.from_bytes(state.to_bytes(), fresh())
    for name, value in vars(state).items():
        assert np.array_equal(getattr(again, name), value), name
    content = state.to_bytes()
    monkeypatch.setattr("dptrain.release.monitor.state.FORMAT", 2)
    with pytest.raises(CheckpointError, match="format 1"):
        State.from_bytes(content, fresh())


def test_clients_meet_over_near_duplicates_and_not_over_the_same_query_or_with_themselves():
    generator = np.random.default_rng(5)
    base = generator.normal(size=(200, 64)).astype(np.float32)
    altered = (base + 0.01 * generator.normal(size=base.shape)).astype(np.float32)
    table = Shared("numbers", 0.5, 0)
    assert not table.met(sketched(base, 0), 1)[0].any()
    assert not table.met(sketched(base, 0), 2)[0].any()
    assert not table.met(sketched(altered, 0), 1)[0].any()
    assert table.met(sketched(altered + np.float32(1e-3), 0), 3)[0].mean() > 0.9
    assert not table.met(sketched(base + 5, 0), 4)[0].any()


def test_a_neighbourhood_counts_every_near_copy_of_another_client_and_forgets_as_others_ask():
    generator = np.random.default_rng(7)
    base = generator.normal(size=(1, 64)).astype(np.float32)
    copies = sketched((base + 0.002 * generator.normal(size=(300, 64))).astype(np.float32), 0)
    table = Shared("numbers", 0.5, 0)
    alone = table.met(copies[:6], 1)[1]
    assert not alone.any()
    counts = np.concatenate([table.met(copies[6 * client : 6 * client + 6], client + 1)[1] for client in range(1, 50)])
    assert counts.max() > 200
    assert (np.diff(counts) >= 0).mean() > 0.95
    table.asked += FADING
    again = sketched((base + 0.002 * generator.normal(size=(1, 64))).astype(np.float32), 0)
    assert table.met(again, 99)[1] == pytest.approx(1 + counts.max() / np.e, rel=0.01)
    assert not table.met(again, 100)[1].any()


def test_cells_are_fine_enough_for_digits_that_are_no_near_duplicates_to_fall_into_many():
    inputs = digits.load(DataConfig()).inputs.numpy()[:621]
    table = Shared("numbers", 1.075, 0)
    table.met(sketched(inputs, 0), 1)
    assert (table.owners > 0).any(2).sum(1).min() > 100


def test_the_table_of_all_clients_never_grows():
    table, generator = Shared("numbers", 0.1, 0), np.random.default_rng(6)
    for owner in range(1, 20):
        table.met(sketched(generator.normal(size=(1000, 8)).astype(np.float32), 0), owner)
    assert table.owners.shape == table.digests.shape == (BANDS, SLOTS, DEPTH)
    assert (table.owners > 0).any(0).sum() > SLOTS / 4
