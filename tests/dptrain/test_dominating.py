"""No two neighbours are told apart better than the pair by which they are counted.

Whole mechanisms are written out for a handful of examples, whose clipped gradients are numbers from −1 to 1: the output is a
mixture of normal distributions, and its H_α is integrated without any theory of sampling.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, SampledWithoutReplacementDpEvent
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss
from scipy.stats import norm

from dptrain import dominating
from dptrain.dominating import TruncatedPoissonDpEvent

EPSILONS = np.array([-2.0, -1.0, -0.5, -0.1, 0.0, 0.1, 0.3, 0.7, 1.0, 1.5, 2.0, 3.0])
LINE = np.linspace(-12, 12, 2001)
Mixture = dict[float, float]
"""Probability of each sum before the noise."""


def hockey_stick(one: Mixture, other: Mixture, scale: float) -> np.ndarray:
    """∫ max(0, p − e^ε q) of two mixtures with noise of this standard deviation, ``[epsilons]``."""
    p, q = (sum(weight * norm.pdf(LINE, total, scale) for total, weight in mixture.items()) for mixture in (one, other))
    excess = np.maximum(0.0, p - np.exp(EPSILONS)[:, None] * q)
    return np.trapezoid(excess, LINE, axis=1)


def sums(batches: Iterator[tuple[tuple[int, ...], float]], gradients: tuple[float, ...]) -> Mixture:
    mixture: Mixture = {}
    for batch, probability in batches:
        total = float(sum(gradients[index] for index in batch))
        mixture[total] = mixture.get(total, 0.0) + probability
    return mixture


def truncated_batches(examples: int, rate: float, most: int) -> Iterator[tuple[tuple[int, ...], float]]:
    for size in range(examples + 1):
        for drawn in itertools.combinations(range(examples), size):
            kept = list(itertools.combinations(drawn, min(size, most)))
            probability = rate**size * (1 - rate) ** (examples - size) / len(kept)
            yield from ((batch, probability) for batch in kept)


def fixed_batches(examples: int, size: int) -> Iterator[tuple[tuple[int, ...], float]]:
    batches = list(itertools.combinations(range(examples), size))
    yield from ((batch, 1 / len(batches)) for batch in batches)


@pytest.mark.parametrize(("rate", "most", "at_most"), [(0.3, 1, 5), (0.5, 2, 5), (0.5, 2, 3), (0.9, 1, 4), (0.2, 3, 5)])
def test_truncated_poisson_is_dominated_for_every_number_of_examples(rate: float, most: int, at_most: int):
    sigma = 1.0
    losses = dominating.losses(TruncatedPoissonDpEvent(rate, most, at_most, sigma))
    allowed_remove = np.array([losses._pmf_remove.get_delta_for_epsilon(epsilon) for epsilon in EPSILONS])
    allowed_add = np.array([losses._pmf_add.get_delta_for_epsilon(epsilon) for epsilon in EPSILONS])
    for examples in range(1, at_most + 1):
        for others in itertools.combinations_with_replacement((-1.0, 0.0, 1.0), examples - 1):
            without = sums(truncated_batches(examples - 1, rate, most), others)
            present = sums(truncated_batches(examples, rate, most), (*others, 1.0))
            removed, added = hockey_stick(present, without, sigma), hockey_stick(without, present, sigma)
            assert (removed <= allowed_remove + 1e-5).all(), (examples, others)
            assert (added <= allowed_add + 1e-5).all(), (examples, others)


def test_plain_poisson_would_be_false_where_batches_are_cut():
    """Sharp edge 1: the event of another sampler than the one that draws."""
    plain = GaussianPrivacyLoss(1.0, sampling_prob=0.9, adjacency_type=AdjacencyType.REMOVE)
    present = sums(truncated_batches(3, 0.9, 1), (-1.0, -1.0, 1.0))
    without = sums(truncated_batches(2, 0.9, 1), (-1.0, -1.0))
    seen = hockey_stick(present, without, 1.0)
    assert (seen - np.asarray(plain.get_delta_for_epsilon(EPSILONS.tolist()))).max() > 1e-3


def test_one_number_of_examples_would_not_be_safe_for_fewer():
    """Why the event states a bound on N and not N: 9 examples hide one of them better than 4 do."""
    batch = 2
    worst = []
    for examples in (4, 9):
        others = (-1.0,) * (examples - 1)
        without = sums(truncated_batches(examples - 1, 0.9, batch), others)
        present = sums(truncated_batches(examples, 0.9, batch), (*others, 1.0))
        worst.append(hockey_stick(present, without, 1.0)[5])
    assert worst[0] > 1.5 * worst[1]


@pytest.mark.parametrize(("examples", "size"), [(2, 1), (4, 1), (4, 2), (5, 3), (3, 3)])
def test_fixed_size_is_dominated_at_every_epsilon(examples: int, size: int):
    """σ is in units of 2 C, so that with C = 1 the noise has twice its standard deviation."""
    sigma = 0.6
    allowed = dominating.without_replacement_profile(EPSILONS, size / examples, sigma)
    closest = 1.0
    for others in itertools.combinations_with_replacement((-1.0, 0.0, 1.0), examples - 1):
        for old, new in ((1.0, -1.0), (-1.0, 1.0), (1.0, 0.0), (0.0, 1.0)):
            before, after = (sums(fixed_batches(examples, size), (*others, value)) for value in (old, new))
            seen = hockey_stick(before, after, 2 * sigma)
            assert (seen <= allowed + 1e-5).all(), (others, old, new)
            closest = min(closest, float(np.abs(allowed - seen)[5:].max()))
    assert closest < 1e-3 if size == examples else closest < 0.2


def test_neither_direction_of_poisson_alone_is_the_profile_of_a_fixed_size():
    share, sigma = 0.2, 1.0
    profile = dominating.without_replacement_profile(EPSILONS, share, sigma)
    remove, add = (
        GaussianPrivacyLoss(sigma, sampling_prob=share, adjacency_type=kind).get_delta_for_epsilon(EPSILONS.tolist())
        for kind in (AdjacencyType.REMOVE, AdjacencyType.ADD)
    )
    np.testing.assert_allclose(profile, np.where(EPSILONS >= 0, remove, add), atol=1e-12)
    assert (profile >= np.maximum(remove, add) - 1e-12).all()
    assert (profile - remove).max() > 1e-3
    assert (profile - add).max() > 1e-3


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_a_unit_that_stays_and_contributes_something_else_is_dominated_by_the_pair_of_an_exchange(rate: float):
    """Whatever the others are, and also where it leaves; without subsampling the pair is met."""
    sigma, closest = 1.5, np.inf
    losses = dominating.exchanged_in_poisson(rate, sigma)
    allowed = np.array([losses.get_delta_for_epsilon(epsilon) for epsilon in EPSILONS])
    once = dominating.poisson(rate, sigma)
    of_presence = np.array([once.get_delta_for_epsilon(epsilon) for epsilon in EPSILONS])
    for others in itertools.combinations_with_replacement((-1.0, 1.0), 2):
        for old, new in itertools.product((-1.0, 0.0, 0.5, 1.0), repeat=2):
            before, after = (sums(truncated_batches(3, rate, 3), (*others, own)) for own in (old, new))
            seen = hockey_stick(before, after, sigma)
            assert (seen <= allowed + 1e-5).all(), (others, old, new)
            closest = min(closest, float(np.abs(allowed - seen)[5:].max()))
            if (old, new) == (1.0, -1.0) and others == (-1.0, -1.0):
                assert (seen - of_presence).max() > 0.01  # the curve of a unit's presence would be false here
    assert rate < 1 or closest < 1e-3


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_the_profile_belongs_to_a_pair(share: float, sigma: float):
    """Convex in e^ε, falling, and above max(0, 1 − e^ε): what a profile must be for its compositions to mean anything."""
    alphas = np.linspace(1e-3, 6, 4000)
    profile = dominating.without_replacement_profile(np.log(alphas), share, sigma)
    slopes = np.diff(profile) / np.diff(alphas)
    assert (np.diff(slopes) >= -1e-10).all()
    assert (slopes <= 1e-12).all()
    assert (slopes >= -1 - 1e-9).all()
    assert (profile >= np.maximum(0.0, 1 - alphas) - 1e-12).all()


@pytest.mark.parametrize(("share", "sigma"), [(0.05, 1.0), (0.5, 0.7)])
def test_the_discretised_losses_lie_above_the_profile_and_near_it(share: float, sigma: float):
    losses = dominating.without_replacement(share, sigma)
    rounded = np.array([losses.get_delta_for_epsilon(epsilon) for epsilon in EPSILONS])
    exact = dominating.without_replacement_profile(EPSILONS, share, sigma)
    assert (rounded >= exact - 1e-10).all()
    np.testing.assert_allclose(rounded, exact, atol=1e-5)


def test_the_gaussian_profile_has_its_closed_form():
    (at_zero,) = dominating.gaussian_profile(np.array([0.0]), 1.0)
    assert at_zero == pytest.approx(2 * norm.cdf(0.5) - 1, abs=1e-12)  # total variation
    (at_one,) = dominating.gaussian_profile(np.array([1.0]), 1.0)
    assert at_one == pytest.approx(norm.cdf(-0.5) - math.e * norm.cdf(-1.5), abs=1e-12)


@pytest.mark.parametrize(
    "event",
    [
        TruncatedPoissonDpEvent(0.1, 30, 200, 1.0),
        TruncatedPoissonDpEvent(0.5, 3, 8, 2.0),
        SampledWithoutReplacementDpEvent(100, 10, GaussianDpEvent(1.0)),
        SampledWithoutReplacementDpEvent(10, 10, GaussianDpEvent(2.0)),
    ],
)
def test_renyi_divergences_lie_above_those_of_the_losses(event: TruncatedPoissonDpEvent | SampledWithoutReplacementDpEvent):
    """Order 2 of the discretised losses, E[e^L], is no more than RDP's bound, but for the grid."""
    pmf = dominating.losses(event)._pmf_remove.to_dense_pmf()
    grid = (np.arange(len(pmf._probs)) + pmf._lower_loss) * dominating.INTERVAL
    kept = pmf._probs > 1e-18
    moment = math.log(float((pmf._probs[kept] * np.exp(grid[kept])).sum()))
    assert moment <= dominating.renyi(event, (2,))[0] + 1e-4
    assert moment > 0
