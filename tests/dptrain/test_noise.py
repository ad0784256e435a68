"""Noise is Gaussian, secret, never the same twice, and as large as the sum's own sensitivity asks."""

import copy
import os
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from dptrain.clipping import ClippedSum, Counts
from dptrain.errors import PlanError, ProtocolError
from dptrain.noise import GaussianNoise, secret_generator


def zeros(shapes: dict[str, tuple[int, ...]], sensitivity: float = 1.0) -> ClippedSum:
    gradients = {name: torch.zeros(shape) for name, shape in shapes.items()}
    return ClippedSum(gradients, sensitivity, Counts())


def test_noise_is_gaussian_to_its_tails():
    values = secret_generator().standard_normal(2_000_000)
    assert kstest(values[:200_000], norm.cdf).pvalue > 1e-4
    beyond = int((np.abs(values) > 4).sum())
    assert abs(beyond - 2_000_000 * 2 * norm.sf(4)) < 6 * np.sqrt(2_000_000 * 2 * norm.sf(4))


def test_noise_scales_with_the_sensitivity_that_the_sum_states():
    """Sharp edge 12: noise reads the sensitivity from the sum and from nowhere else."""
    for sensitivity in (0.1, 3.0):
        noised = GaussianNoise(2.0).add(zeros({"a": (300, 300)}, sensitivity)).gradients["a"]
        assert float(noised.std()) == pytest.approx(2.0 * sensitivity, rel=0.02)
        assert abs(float(noised.mean())) < 5 * 2.0 * sensitivity / 300


def test_two_steps_and_two_parameters_never_share_noise():
    """Sharp edge 24."""
    noise = GaussianNoise(1.0)
    first, second = (noise.add(zeros({"a": (5000,), "b": (5000,)})).gradients for _ in range(2))
    drawn = [first["a"], first["b"], second["a"], second["b"]]
    for i in range(4):
        for j in range(i):
            assert abs(float(torch.corrcoef(torch.stack([drawn[i], drawn[j]]))[0, 1])) < 0.07


def test_entropy_comes_from_the_operating_system_by_default():
    """Sharp edge 24: no default seed, whatever numpy's and torch's own seeds are."""
    draws = []
    for _ in range(2):
        np.random.seed(42)  # noqa: NPY002  the global state must not matter
        torch.manual_seed(42)
        draws.append(secret_generator().standard_normal(8))
    assert not np.array_equal(draws[0], draws[1])


def test_an_insecure_seed_repeats_and_its_streams_differ():
    assert np.array_equal(secret_generator(7).random(4), secret_generator(7).random(4))
    assert not np.array_equal(secret_generator(7, "noise").random(4), secret_generator(7, "batches").random(4))


def test_a_noise_stream_cannot_be_copied():
    """Sharp edge 24: a copy would draw the same noise a second time."""
    noise = GaussianNoise(1.0)
    for duplicate in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(ProtocolError, match="same noise"):
            duplicate(noise)


def test_a_forked_process_is_refused():
    """Sharp edge 24: parent and child would add the same noise to two branches."""
    noise = GaussianNoise(1.0)
    child = os.fork()
    if child == 0:
        try:
            noise.add(zeros({"a": (3,)}))
        except ProtocolError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    noise.add(zeros({"a": (3,)}))


def test_no_noise_is_drawn_where_none_is_asked_for():
    clipped = zeros({"a": (3,)})
    noise = GaussianNoise(0.0)
    assert noise.add(clipped).gradients["a"] is clipped.gradients["a"]
    assert noise.draws == 0


def test_noise_over_an_unbounded_sum_is_refused():
    with pytest.raises(PlanError, match="hides nothing"):
        GaussianNoise(1.0).add(zeros({"a": (3,)}, float("inf")))
