"""Correlated noise: fresh Gaussian noise through C⁻¹, no more than the sampler's account allows, and less in the weights."""

import copy
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm, toeplitz
from torch import nn
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, make_private, per_example
from dptrain.clipping import ClippedSum, Counts
from dptrain.errors import PlanError, ProtocolError
from dptrain.noise import BandedNoise, GaussianNoise, NoiseMechanism, noise_for, secret_generator
from dptrain.noise.factorization import (
    best_coefficients,
    expected_error,
    inverse_coefficients,
    optimised_coefficients,
    square_root_coefficients,
    workload_coefficients,
)
from dptrain.recipe import Noise


@dataclass(frozen=True)
class Plan:
    """The fields of a plan that decide its noise."""

    noise: str = "banded"
    bands: int = 4
    sampling: str = "cyclic_poisson"
    steps: int = 12
    noise_multiplier: float = 1.0
    noises_updates: bool = True


def matrix(coefficients: np.ndarray, steps: int) -> np.ndarray:
    """C, ``[steps, steps]``."""
    column = np.zeros(steps)
    column[: len(coefficients)] = coefficients[:steps]
    return np.tril(toeplitz(column))


def zeros(size: int, sensitivity: float = 1.0, dtype: torch.dtype = torch.float64) -> ClippedSum:
    return ClippedSum({"a": torch.zeros(size, dtype=dtype)}, sensitivity, Counts())


def streamed(noise: NoiseMechanism, steps: int, size: int, sensitivity: float = 1.0) -> tuple[np.ndarray, list[float]]:
    """The noise of each update ``[steps, size]``, and the deviations that were stated."""
    sums = [noise.add(zeros(size, sensitivity)) for _ in range(steps)]
    return np.stack([noised.gradients["a"].numpy() for noised in sums]), [noised.standard_deviation for noised in sums]


coefficient_lists = st.lists(st.floats(-0.5, 0.5), min_size=0, max_size=6).map(lambda tail: np.array([1.0, *tail]))


@settings(deadline=None, max_examples=50)
@given(coefficient_lists, st.integers(1, 20))
def test_c_times_its_inverse_is_the_identity(coefficients: np.ndarray, steps: int):
    inverse = matrix(inverse_coefficients(coefficients, steps), steps)
    np.testing.assert_allclose(matrix(coefficients, steps) @ inverse, np.eye(steps), atol=1e-9 * max(1, np.abs(inverse).max()))


@settings(deadline=None, max_examples=30)
@given(coefficient_lists, st.integers(1, 15), st.booleans())
def test_the_stream_is_c_inverse_of_fresh_noise(coefficients: np.ndarray, steps: int, ahead: bool):
    """C times what was added gives back the independent variates of the same insecure seed: nothing else is in it."""
    noise = BandedNoise(2.0, coefficients, secret_generator(3), ahead=ahead)
    added, _ = streamed(noise, steps, 11, sensitivity=0.5)
    fresh, _ = streamed(GaussianNoise(2.0, secret_generator(3)), steps, 11, sensitivity=0.5)
    c = matrix(noise.coefficients, steps)
    np.testing.assert_allclose(c @ added, fresh, atol=1e-9 * np.abs(added).max())


def test_columns_are_no_longer_than_one():
    """The sensitivity of one participation is that of the sum: σ counts as it does for independent noise."""
    for coefficients in ([5.0, 1.0, 0.3], best_coefficients(8, 100), best_coefficients(8, 100, momentum=0.9)):
        c = matrix(BandedNoise(1.0, coefficients).coefficients, 40)
        lengths = np.linalg.norm(c, axis=0)
        assert lengths.max() == pytest.approx(1.0, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_participations_b_updates_apart_add_up_as_orthogonal(bands: int, steps: int, seed: int):
    """Sharp edge 12: √k times the sum's own sensitivity, whatever the gradients, for any pattern that the sampler allows."""
    generator = np.random.default_rng(seed)
    takes_part, step = [], int(generator.integers(bands))
    while step < steps:
        takes_part.append(step)
        step += bands + int(generator.integers(3))
    change = np.zeros((steps, 5))
    directions = generator.standard_normal((len(takes_part), 5))
    change[takes_part] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    c = matrix(best_coefficients(bands, steps), steps)
    assert np.linalg.norm(c @ change) <= math.sqrt(len(takes_part)) * (1 + 1e-12)
    assert len(takes_part) <= math.ceil(steps / bands)


def test_one_band_is_independent_noise():
    banded, _ = streamed(BandedNoise.over(20, 1, 1.5, secret_generator(5)), 4, 100)
    independent, deviations = streamed(GaussianNoise(1.5, secret_generator(5)), 4, 100)
    np.testing.assert_array_equal(banded, independent)
    assert deviations == pytest.approx([1.5] * 4, rel=1e-5)


def test_the_covariance_between_updates_is_the_factorisation():
    steps, size = 7, 245_000
    noise = BandedNoise.over(steps, 3, 2.0)
    added, deviations = streamed(noise, steps, size, sensitivity=0.25)
    inverse = matrix(inverse_coefficients(noise.coefficients, steps), steps)
    expected = 0.25 * inverse @ inverse.T
    covariance = added @ added.T / size
    spread = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / size)
    assert np.all(np.abs(covariance - expected) < 5.5 * spread)  # one of 28: by chance once in a million runs
    assert deviations == pytest.approx(np.sqrt(np.diag(expected)), rel=1e-5)


def test_float32_streams_keep_the_covariance():
    """Remembered vectors are float32, as sums are: rounding does not pile up over a long training."""
    noise = BandedNoise.over(400, 8, 1.0, secret_generator(9))
    added = np.stack([noise.add(zeros(50, dtype=torch.float32)).gradients["a"].numpy() for _ in range(400)]).astype(np.float64)
    source = GaussianNoise(1.0, secret_generator(9))
    fresh = np.stack([source.add(zeros(50, dtype=torch.float32)).gradients["a"].numpy() for _ in range(400)])
    assert np.abs(matrix(noise.coefficients, 400) @ added - fresh).max() < 1e-5


def test_the_square_root_squares_to_the_workload():
    for momentum in (0.0, 0.9):
        root = matrix(square_root_coefficients(30, momentum), 30)
        np.testing.assert_allclose(root @ root, matrix(workload_coefficients(30, momentum), 30), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(square_root_coefficients(5), [1, 1 / 2, 3 / 8, 5 / 16, 35 / 128])
    np.testing.assert_allclose(matrix(square_root_coefficients(6), 6), np.real(sqrtm(np.tri(6))), atol=1e-6)


@pytest.mark.parametrize("steps", [1, 10, 100, 1000, 100_000])
def test_the_length_of_the_full_square_root_is_landaus_constant(steps: int):
    """Brutman 1982: 1 + ln(n + 1)/π ≤ G_n < 1.0663 + ln(n + 1)/π."""
    length = float(np.sum(square_root_coefficients(steps + 1) ** 2))
    assert 1 + math.log(steps + 1) / math.pi <= length < 1.0663 + math.log(steps + 1) / math.pi


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("bands", "steps"), [(1, 1), (1, 9), (3, 9), (9, 9), (5, 40)])
def test_the_expected_error_is_that_of_the_matrices(bands: int, steps: int, momentum: float):
    coefficients = square_root_coefficients(bands, momentum)
    c, a = matrix(coefficients, steps), matrix(workload_coefficients(steps, momentum), steps)
    error = np.max(np.sum(matrix(coefficients, steps + bands) ** 2, axis=0)) * np.sum((a @ np.linalg.inv(c)) ** 2) / steps
    assert expected_error(coefficients, steps, momentum) == pytest.approx(error, rel=1e-10)


def test_independent_noise_walks_at_random():
    assert expected_error([1.0], 99) == pytest.approx(50.0)
    assert expected_error([7.0], 99) == pytest.approx(50.0)


def test_more_bands_leave_less_noise_in_the_weights():
    errors = [expected_error(best_coefficients(bands, 200), 200) for bands in (1, 2, 4, 8, 16, 32)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 9 * errors[4]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_optimised_is_never_worse_than_the_square_root(momentum: float):
    for bands, steps in ((2, 50), (8, 100), (10, 2000)):
        root = expected_error(square_root_coefficients(bands, momentum), steps, momentum)
        found = expected_error(optimised_coefficients(bands, steps, momentum), steps, momentum)
        best = expected_error(best_coefficients(bands, steps, momentum), steps, momentum)
        assert best <= min(root, found) * (1 + 1e-9)
        assert found < root * (1 + 1e-6)


def test_a_neighbouring_strategy_is_no_better_than_the_optimised():
    best = best_coefficients(5, 60)
    generator = np.random.default_rng(0)
    for _ in range(50):
        assert expected_error(best + 1e-3 * generator.standard_normal(5), 60) > expected_error(best, 60) * (1 - 1e-9)


def test_the_noise_in_the_weights_is_as_small_as_expected():
    """Prefix sums of what is streamed, against the matrix computation and against independent noise.

    Those of one coordinate go together: their mean square has a standard error of 0.93 / √size, here of 0.0065.
    """
    steps, size = 60, 20_000
    noise = BandedNoise.over(steps, 6, 1.0)
    added, _ = streamed(noise, steps, size)
    measured = float(np.mean(np.cumsum(added, axis=0) ** 2))
    assert measured == pytest.approx(expected_error(noise.coefficients, steps), rel=0.05)
    assert measured < 0.5 * expected_error([1.0], steps)


def test_remembered_vectors_are_not_those_that_were_released():
    """The caller may change a noised sum in place, as optimizers do."""
    one, other = (BandedNoise(1.0, [1.0, 0.5, 0.2], secret_generator(4)) for _ in range(2))
    for _ in range(4):
        first = one.add(zeros(20)).gradients["a"]
        second = other.add(zeros(20)).gradients["a"]
        assert torch.equal(first, second)
        first.fill_(1e9)


def test_other_parameters_under_way_are_refused():
    noise = BandedNoise(1.0, [1.0, 0.5])
    noise.add(zeros(20))
    with pytest.raises(ProtocolError, match="same parameters"):
        noise.add(zeros(21))
    with pytest.raises(ProtocolError, match="same parameters"):
        noise.add(zeros(20, dtype=torch.float32))


def test_an_update_broken_off_inside_of_its_noise_ends_the_block(monkeypatch: pytest.MonkeyPatch):
    noise = BandedNoise(1.0, [1.0, 0.5])
    noise.add(zeros(20))

    def interrupted(_: BandedNoise) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(BandedNoise, "_next_inverse", interrupted)
        with pytest.raises(KeyboardInterrupt):
            noise.add(zeros(20))
    with pytest.raises(ProtocolError, match="begins a new block"):
        noise.add(zeros(20))


def test_correlated_noise_cannot_be_copied():
    """Sharp edge 24."""
    with pytest.raises(ProtocolError, match="same noise"):
        copy.deepcopy(BandedNoise(1.0, [1.0, 0.5]))


@pytest.mark.parametrize("coefficients", [[], [0.0, 1.0], [1.0, math.nan], [[1.0]]])
def test_what_has_no_inverse_is_refused(coefficients: list[float]):
    with pytest.raises(PlanError, match="first not 0"):
        BandedNoise(1.0, coefficients)


def test_a_plan_gets_the_noise_that_it_names():
    noise = noise_for(Plan())  # pyright: ignore[reportArgumentType]
    assert isinstance(noise, BandedNoise)
    assert noise.bands == 4
    independent = noise_for(Plan(noise="independent", sampling="poisson"))  # pyright: ignore[reportArgumentType]
    assert isinstance(independent, GaussianNoise)
    with pytest.raises(PlanError, match="independent or banded"):
        noise_for(Plan(noise="pink"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("sampling", ["poisson", "balls_in_bins"])
def test_correlated_noise_over_batches_without_distance_is_refused(sampling: str):
    """Sharp edge 1: an example twice within b updates is hidden by less than is counted."""
    with pytest.raises(PlanError, match="cyclic_poisson"):
        noise_for(dataclasses.replace(Plan(), sampling=sampling))  # pyright: ignore[reportArgumentType]


def test_a_resumed_training_begins_a_block_of_fresh_noise():
    """Sharp edge 17: nothing of the old block is remembered, and a repeatable stream begins anew for each first update."""
    whole = noise_for(Plan(), insecure_seed=1)  # pyright: ignore[reportArgumentType]
    resumed = noise_for(Plan(), insecure_seed=1, first=4)  # pyright: ignore[reportArgumentType]
    before, _ = streamed(whole, 4, 2000)
    after, deviations = streamed(resumed, 4, 2000)
    assert np.abs(np.corrcoef(np.concatenate([before, after]))[:4, 4:]).max() < 0.12
    assert isinstance(resumed, BandedNoise)
    assert deviations[0] == pytest.approx(1 / abs(resumed.coefficients[0]), rel=1e-5)
    short = noise_for(Plan(), first=10)  # pyright: ignore[reportArgumentType]
    assert isinstance(short, BandedNoise)
    assert short.bands == 2


@pytest.mark.parametrize("kind", get_args(Noise))
@pytest.mark.filterwarnings("ignore:delta is")
def test_a_finished_training_resumes_under_every_noise(kind: Noise, tmp_path: Path):
    """Sharp edge 17: no update is left, and the account is the one that it ended with."""
    cyclic: dict[str, Any] = {"sampling": "cyclic_poisson", "bands": 4} if kind == "banded" else {}
    plan = PrivacyPlan(
        sampling_rate=0.1, expected_batch_size=4, steps=8, clipping_norm=1, delta=1e-3, noise_multiplier=2, noise=kind, **cyclic
    )

    def training():
        model = nn.Linear(5, 3)
        data = TensorDataset(torch.randn(40, 5), torch.randint(3, (40,)))
        return make_private(model, torch.optim.SGD(model.parameters(), lr=0.5), data, plan, loss=per_example(F.cross_entropy))

    whole, again = training(), training()
    for batch in whole.batches():
        whole.step(batch)
    whole.save(tmp_path)
    assert again.resume(tmp_path) == 8
    assert list(again.batches()) == []
    assert again.epsilon() == whole.epsilon()
    assert all(torch.equal(one, other) for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True))
