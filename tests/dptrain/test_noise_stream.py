"""Variates are standard normal to their tails, independent, and fresh bits throughout."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, expon, kstest, norm, uniform

from dptrain.noise import secret_generator
from dptrain.noise.ahead import device_normals
from dptrain.noise.stream import PAIRS, NormalFiller, SecretBits, box_muller, exponential

LEVEL = 1e-7
"""Of each test of a distribution of secret variates: by chance one of all of them fails in a million runs. Each has as
many samples as find at this level what two thirds of them find at 1e-5."""


def variates(count: int, dtype: type = np.float32) -> np.ndarray:
    out = np.empty(count, dtype)
    assert NormalFiller().fill(out, SecretBits(secret_generator()))
    return out


def transformed(exponentials: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = len(words)
    out = np.empty(2 * pairs, np.float32)
    box_muller(exponentials, words, out, np.empty(pairs, np.float32), np.empty(pairs, np.int32))
    return out[:pairs], out[pairs:]


def expected(exponentials: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The formula of the docstring, in float64 and with the complement taken in whole numbers."""
    odd = words.astype(np.int64) | 1
    radius = np.sqrt(2 * exponentials)
    sign = np.where(words & 1, -1.0, 1.0)
    return radius * np.sin(odd * (np.pi / 2**32)), sign * radius * np.sin((2**31 - abs(odd)) * (np.pi / 2**32))


# every end of the range of words, and radii from the least to the largest that a probability of 2⁻⁶⁴ leaves
ENDS = [-(2**31), -(2**31) + 1, -2, -1, 0, 1, 2**30 - 1, 2**30, -(2**30), 2**31 - 2, 2**31 - 1]
RADII = [2.0**-60, 2.0**-53, 2.0**-24, 1e-3, 0.5, 7.69, 17.0, 36.7, 44.36]


def test_each_variate_is_within_the_margin_of_its_value():
    """Sharp edge 19: 2⁻²⁰ relative, in the tails and around zero; noise is enlarged by as much."""
    generator = np.random.default_rng(0)
    words = np.concatenate([np.repeat(ENDS, len(RADII)), generator.integers(-(2**31), 2**31, 200_000)]).astype(np.int32)
    radii = np.concatenate([np.tile(RADII, len(ENDS)), generator.standard_exponential(200_000)])
    for given_, true in zip(transformed(radii, words), expected(radii, words), strict=True):
        assert float(np.abs(given_ / true - 1).max()) < 2.0**-20


def test_the_tails_reach_beyond_nine_sigma():
    """A uniform of 24 bits would end at 5.8, one of 32 at 6.7, one of 53 at 8.6."""
    words = np.array([0, 2**64 - 1, 2**63, 2**53], np.uint64)
    found = exponential(words, np.empty(4))
    np.testing.assert_allclose(found, [64 * np.log(2), 0.0, np.log(2), 11 * np.log(2)], rtol=1e-12)
    first, second = transformed(found[:1], np.array([2**31 - 1], np.int32))
    assert float(first[0]) == pytest.approx(9.419, abs=1e-3)
    assert 0 < abs(float(second[0])) < 1e-7


@settings(deadline=None)
@given(st.integers(-(2**31), 2**31 - 1), st.floats(2.0**-60, 44.0))
def test_no_variate_is_zero_and_every_quadrant_has_its_mirror(word: int, exponential: float):
    radii = np.array([exponential] * 2)
    first, second = transformed(radii, np.array([word, word ^ 1], np.int32))
    assert np.all(first != 0)
    assert np.all(second != 0)
    assert first[0] == first[1]
    assert second[0] == -second[1]
    mirrored, _ = transformed(radii[:1], np.array([-(word | 1)], np.int32))
    assert mirrored[0] == -first[0]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1001, 2 * PAIRS - 1, 2 * PAIRS, 2 * PAIRS + 1, 6 * PAIRS + 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_place_is_filled(count: int, dtype: type):
    out = np.full(count, np.nan, dtype)
    assert NormalFiller().fill(out, SecretBits(secret_generator()))
    assert np.isfinite(out).all()
    assert len(np.unique(out)) > 0.99 * count - 1


def test_moments_are_those_of_a_normal():
    values = variates(4_000_001).astype(np.float64)
    n = len(values)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs(np.mean(values**power) - moment) < 5 * np.sqrt(variance / n), power


def test_the_distribution_is_normal_everywhere():
    values = variates(1_500_000)
    counts, _ = np.histogram(values, norm.ppf(np.linspace(0, 1, 257)))
    assert chisquare(counts).pvalue > LEVEL
    assert kstest(values[:450_000], norm.cdf).pvalue > LEVEL
    near = np.abs(values[np.abs(values) < 1e-3])  # where angles and radii are closest to their grid
    assert kstest(near, uniform(0, 1e-3).cdf).pvalue > LEVEL


def test_radius_and_angle_of_a_pair_are_what_they_should_be():
    blocks = variates(4 * PAIRS).reshape(2, 2, PAIRS).astype(np.float64)
    first, second = blocks[:, 0].ravel(), blocks[:, 1].ravel()
    assert kstest((first**2 + second**2) / 2, expon.cdf).pvalue > LEVEL
    assert kstest(np.arctan2(second, first), uniform(-np.pi, 2 * np.pi).cdf).pvalue > LEVEL


def test_variates_are_independent_at_every_distance():
    """Neighbours, partners of a pair, the same place of the next block; values, squares and signs. By chance one of the 18 is
    as far from 0 in a million runs."""
    values = variates(2_500_000)
    for distance in (1, 2, 4, PAIRS, 2 * PAIRS, 2 * PAIRS + 1):
        for change in (np.asarray, np.square, np.sign):
            first, second = change(values[:-distance]), change(values[distance:])
            assert abs(np.corrcoef(first, second)[0, 1]) < 5.5 / np.sqrt(len(first)), (distance, change)


@pytest.mark.slow
def test_tail_counts_are_those_of_a_normal():
    counts, total, filler, generator, out = (
        np.zeros(4),
        0,
        NormalFiller(),
        SecretBits(secret_generator()),
        np.empty(1_000_000, np.float32),
    )
    bounds = np.array([3.0, 4.0, 4.5, 5.0])
    for _ in range(40):
        filler.fill(out, generator)
        counts += [(np.abs(out) > bound).sum() for bound in bounds]
        total += len(out)
    mean = total * 2 * norm.sf(bounds)
    assert np.all(np.abs(counts - mean) < 5 * np.sqrt(mean)), (counts, mean)


def test_float64_variates_have_bits_that_float32_lacks():
    values = variates(150_000, np.float64)
    assert float(np.mean(values.astype(np.float32) != values)) > 0.999
    assert kstest(values, norm.cdf).pvalue > LEVEL


def test_two_streams_are_independent():
    """Each of them secret, or of one insecure seed under two names."""
    streams = [secret_generator(), secret_generator(), secret_generator(7, "a"), secret_generator(7, "b")]
    drawn = np.stack([np.empty(200_000, np.float32) for _ in streams])
    for row, generator in zip(drawn, streams, strict=True):
        NormalFiller().fill(row, SecretBits(generator))
    correlations = np.corrcoef(drawn) - np.eye(len(streams))
    assert np.abs(correlations).max() < 5 / np.sqrt(200_000)


def test_a_device_generator_gives_normal_variates_that_its_seed_alone_decides():
    """On the CPU by the same path: what CUDA gives differs in the generator."""
    cpu = torch.device("cpu")
    first, again, other = (device_normals(100_000, torch.float32, cpu, seed) for seed in (2**64 - 1, 2**64 - 1, 3))
    assert torch.equal(first, again)
    assert first.dtype == torch.float32
    assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 5 / np.sqrt(100_000)
    assert kstest(first.numpy(), norm.cdf).pvalue > 1e-5
