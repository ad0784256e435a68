"""Samplers draw what they state, and state what they draw."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from dp_accounting import (
    GaussianDpEvent,
    LaplaceDpEvent,
    PoissonSampledDpEvent,
    SampledWithoutReplacementDpEvent,
    SelfComposedDpEvent,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare, kstest, norm

from dptrain import accounting
from dptrain.dominating import TruncatedPoissonDpEvent
from dptrain.errors import PlanError
from dptrain.noise import secret_generator
from dptrain.plan import PrivacyPlan
from dptrain.sampling import (
    BallsInBinsSampler,
    CyclicPoissonSampler,
    FixedSizeSampler,
    PoissonSampler,
    Sampler,
    TruncatedPoissonSampler,
    sampler_for,
)

PLAN = PrivacyPlan(sampling_rate=0.25, expected_batch_size=250, steps=10, clipping_norm=1.0, delta=1e-5, noise_multiplier=2.0)


def indicators(batches: Iterator[np.ndarray], examples: int, steps: int) -> np.ndarray:
    """Who was in which batch, ``[steps, examples]`` of 0 and 1."""
    drawn = np.zeros((steps, examples), dtype=np.int64)
    for step, batch in enumerate(batches):
        assert (np.diff(batch) > 0).all()
        drawn[step, batch] = 1
    return drawn


def test_the_sampler_states_the_event_that_the_plan_is_charged():
    """Sharp edge 1: there is one place for the sampling rate, and the event comes from the sampler."""
    assert PLAN.event() == SelfComposedDpEvent(PoissonSampledDpEvent(0.25, GaussianDpEvent(2.0)), 10)
    assert sampler_for(PLAN) == PoissonSampler(0.25)


@pytest.mark.parametrize(
    ("sampler", "takes_all"),
    [
        (PoissonSampler(1.0), True),
        (PoissonSampler(0.9), False),
        (FixedSizeSampler(1.0, 40, 40), True),
        (FixedSizeSampler(0.5, 20, 40), False),
        (BallsInBinsSampler(1.0), True),
        (BallsInBinsSampler(0.5), False),
        (CyclicPoissonSampler(0.5, 2), False),
        (TruncatedPoissonSampler(1.0, 20, 40), False),
    ],
)
def test_a_sampler_that_says_so_takes_all_in_every_batch(sampler: Sampler, takes_all: bool):
    assert sampler.takes_all == takes_all
    sizes = {len(batch) for batch in sampler.batches(40, 0, 6, np.random.default_rng(0))}
    assert (sizes == {40}) == takes_all


def test_a_sampler_without_an_amplification_proof_gets_the_unamplified_event():
    """Sharp edge 1: each example is used once an epoch of four batches, so ten steps touch it in three epochs."""
    plan = dataclasses.replace(PLAN, sampling="balls_in_bins")
    assert plan.event() == SelfComposedDpEvent(GaussianDpEvent(2.0), 3)
    assert plan.guarantee().epsilon > PLAN.guarantee().epsilon


def test_poisson_batch_sizes_are_binomial():
    sizes = [len(batch) for batch in PoissonSampler(0.25).batches(1000, 0, 800, secret_generator(7, "batches"))]
    standardized = (np.array(sizes) - 250) / np.sqrt(1000 * 0.25 * 0.75)
    assert len(set(sizes)) > 20
    assert kstest(standardized + np.random.default_rng(0).uniform(-0.04, 0.04, 800), norm.cdf).pvalue > 1e-3


def test_poisson_examples_are_independent_of_each_other():
    drawn = np.zeros((4000, 2), dtype=bool)
    for step, batch in enumerate(PoissonSampler(0.5).batches(2, 0, 4000, secret_generator(3, "batches"))):
        drawn[step, batch] = True
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.06
    assert drawn.mean() == pytest.approx(0.5, abs=0.03)


def test_a_rate_of_one_is_every_example():
    (batch,) = PoissonSampler(1.0).batches(17, 0, 1, secret_generator(0))
    assert batch.tolist() == list(range(17))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 40), st.integers(0, 2**31))
def test_balls_in_bins_uses_each_example_once_an_epoch(bins: int, examples: int, seed: int):
    sampler = BallsInBinsSampler(1 / bins)
    batches = list(sampler.batches(examples, 0, 2 * bins, secret_generator(seed)))
    for epoch in (batches[:bins], batches[bins:]):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(examples))


def test_a_start_in_the_middle_of_an_epoch_is_charged_an_epoch_more():
    sampler = BallsInBinsSampler(0.25)
    mechanism = GaussianDpEvent(2.0)
    whole = accounting.steps_of(sampler.event(mechanism, 8))
    assert whole == [(2.0, 1.0, 2)]
    first, second = sampler.event(mechanism, 6), sampler.event(mechanism, 8, 6)
    assert accounting.steps_of(first) == [(2.0, 1.0, 2)]
    assert accounting.steps_of(second) == [(2.0, 1.0, 1)]


def test_balls_in_bins_refuses_a_rate_without_whole_batches():
    with pytest.raises(PlanError, match="whole number of batches"):
        dataclasses.replace(PLAN, sampling="balls_in_bins", sampling_rate=0.3)


def test_an_unknown_sampling_is_refused_with_the_nearest():
    with pytest.raises(PlanError, match="poisson"):
        dataclasses.replace(PLAN, sampling="poison")


TRUNCATED = dataclasses.replace(PLAN, sampling="truncated_poisson", max_batch_size=270, max_examples=1200)
FIXED = dataclasses.replace(PLAN, sampling="fixed_size", max_examples=1000, relation="replace_one")
CYCLIC = dataclasses.replace(PLAN, sampling="cyclic_poisson", bands=3)


def test_each_sampler_states_the_event_of_its_own_draw():
    """Sharp edge 1."""
    gaussian = GaussianDpEvent(2.0)
    assert TRUNCATED.event() == SelfComposedDpEvent(TruncatedPoissonDpEvent(0.25, 270, 1200, 2.0), 10)
    assert FIXED.event() == SelfComposedDpEvent(SampledWithoutReplacementDpEvent(1000, 250, gaussian), 10)
    assert CYCLIC.event() == SelfComposedDpEvent(PoissonSampledDpEvent(0.75, gaussian), 4)
    assert FIXED.event(7, 3) == SelfComposedDpEvent(SampledWithoutReplacementDpEvent(1000, 250, gaussian), 4)


def test_truncated_batches_are_poisson_ones_cut_at_the_most():
    """Below the cut sizes are binomial; what lies above is at the cut."""
    sampler = TruncatedPoissonSampler(0.25, 55, 200)
    sizes = np.array([len(batch) for batch in sampler.batches(200, 0, 4000, secret_generator(5, "batches"))])
    assert sizes.max() == 55
    expected = float(binom.sf(54, 200, 0.25))
    assert (sizes == 55).mean() == pytest.approx(expected, abs=4 * float(np.sqrt(expected / 4000)))
    for size in (44, 50):
        assert (sizes <= size).mean() == pytest.approx(binom.cdf(size, 200, 0.25), abs=0.03)


def test_a_truncated_batch_keeps_a_uniform_subset():
    """No example is favoured by where it stands: each is kept with probability 5/20, and each pair with that of a subset."""
    drawn = indicators(TruncatedPoissonSampler(1.0, 5, 20).batches(20, 0, 6000, secret_generator(9, "batches")), 20, 6000)
    counts = drawn.sum(0)
    assert chisquare(counts).pvalue > 1e-3
    together = (drawn.T @ drawn)[np.triu_indices(20, 1)] / 6000
    assert together.mean() == pytest.approx(5 * 4 / (20 * 19), abs=1e-9)
    assert np.abs(together - together.mean()).max() < 0.015


def test_fixed_batches_are_uniform_subsets_of_exactly_one_size():
    drawn = indicators(FixedSizeSampler(0.4, 2, 5).batches(5, 0, 8000, secret_generator(2, "batches")), 5, 8000)
    assert (drawn.sum(1) == 2).all()
    subsets, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(subsets) == 10
    assert chisquare(counts).pvalue > 1e-3


def test_steps_of_a_fixed_size_are_independent():
    drawn = indicators(FixedSizeSampler(0.5, 5, 10).batches(10, 0, 6000, secret_generator(4, "batches")), 10, 6000)
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.05


def test_a_cyclic_example_comes_in_its_own_turns_alone_and_as_often_as_stated():
    """Rate q over all steps, q b in its turns; groups are of equal size on average and stay as they were drawn."""
    bands, steps = 4, 4000
    drawn = indicators(CyclicPoissonSampler(0.1, bands).batches(200, 0, steps, secret_generator(6, "batches")), 200, steps)
    assert drawn.mean() == pytest.approx(0.1, abs=0.005)
    turns = np.array([sorted({int(step) % bands for step in np.flatnonzero(drawn[:, example])}) for example in range(200)])
    assert turns.shape == (200, 1)
    assert chisquare(np.bincount(turns[:, 0], minlength=bands)).pvalue > 1e-3
    example = drawn[turns[0, 0] :: bands, 0]
    assert example.mean() == pytest.approx(0.4, abs=0.07)
    assert abs(np.corrcoef(example[:-1], example[1:])[0, 1]) < 0.15


def test_cyclic_examples_fall_into_groups_by_their_own_coin():
    """Whose group is whose tells nothing of another: a group of fixed size would let one example decide another's."""
    pairs = []
    for seed in range(400):
        first = CyclicPoissonSampler(0.5, 2).batches(2, 0, 1, secret_generator(seed, "batches"))
        members = np.zeros(2, dtype=bool)
        members[next(first)] = True
        pairs.append(members)
    assert abs(np.corrcoef(np.array(pairs).T)[0, 1]) < 0.2


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(0, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_no_cyclic_example_has_more_turns_than_are_charged(bands: int, first: int, steps: int, seed: int):
    """At a rate of 1 in its turn, participations are turns: the worst example has exactly as many as the event counts."""
    sampler = CyclicPoissonSampler(1 / bands, bands)
    drawn = indicators(sampler.batches(200, first, first + steps, secret_generator(seed)), 200, steps)
    event = sampler.event(GaussianDpEvent(1.0), first + steps, first)
    assert event == SelfComposedDpEvent(PoissonSampledDpEvent(1.0, GaussianDpEvent(1.0)), int(drawn.sum(0).max()))


def test_uses_of_a_cyclic_example_are_at_least_the_bands_apart():
    """What banded noise rests on: two uses never touch one column twice."""
    drawn = indicators(CyclicPoissonSampler(0.15, 5).batches(100, 3, 400, secret_generator(1)), 100, 397)
    gaps = [np.diff(np.flatnonzero(drawn[:, example])) for example in range(100)]
    assert min(int(gap.min()) for gap in gaps if len(gap)) == 5


def test_another_number_of_examples_than_stated_is_refused():
    with pytest.raises(PlanError, match="more examples than max_examples"):
        next(sampler_for(TRUNCATED).batches(1201, 0, 1, secret_generator(0)))
    for count in (999, 1001):
        with pytest.raises(PlanError, match="exactly max_examples"):
            next(sampler_for(FIXED).batches(count, 0, 1, secret_generator(0)))


def test_truncation_is_stated_for_gaussian_noise_alone():
    with pytest.raises(PlanError, match="Gaussian noise alone"):
        sampler_for(TRUNCATED).event(LaplaceDpEvent(1.0), 3)
