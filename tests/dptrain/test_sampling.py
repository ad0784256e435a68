"""Samplers draw what they state, and state what they draw."""

import dataclasses

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from dptrain import accounting
from dptrain.errors import PlanError
from dptrain.noise import secret_generator
from dptrain.plan import PrivacyPlan
from dptrain.sampling import BallsInBinsSampler, PoissonSampler, sampler_for

PLAN = PrivacyPlan(sampling_rate=0.25, expected_batch_size=250, steps=10, clipping_norm=1.0, delta=1e-5, noise_multiplier=2.0)


def test_the_sampler_states_the_event_that_the_plan_is_charged():
    """Sharp edge 1: there is one place for the sampling rate, and the event comes from the sampler."""
    assert PLAN.event() == SelfComposedDpEvent(PoissonSampledDpEvent(0.25, GaussianDpEvent(2.0)), 10)
    assert sampler_for(PLAN) == PoissonSampler(0.25)


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
