"""Noise is Gaussian, secret, never the same twice, and as large as the sum's own sensitivity asks."""

import copy
import os
import pickle

import numpy as np
import pytest
import torch

from dptrain.clipping import ClippedSum, Counts
from dptrain.errors import PlanError, ProtocolError
from dptrain.noise import GaussianNoise, secret_generator


def zeros(shapes: dict[str, tuple[int, ...]], sensitivity: float = 1.0) -> ClippedSum:
    gradients = {name: torch.zeros(shape) for name, shape in shapes.items()}
    return ClippedSum(gradients, sensitivity, Counts())


def test_noise_scales_with_the_sensitivity_that_the_sum_states():
    """Sharp edge 12: noise reads the sensitivity from the sum and from nowhere else."""
    for sensitivity in (0.1, 3.0):
        noised = GaussianNoise(2.0).add(zeros({"a": (300, 300)}, sensitivity))
        values = noised.gradients["a"]
        assert float(values.std()) == pytest.approx(2.0 * sensitivity, rel=0.02)
        assert abs(float(values.mean())) < 5 * 2.0 * sensitivity / 300
        assert noised.standard_deviation == pytest.approx(2.0 * sensitivity, rel=1e-5)


def test_rounding_never_makes_the_noise_smaller_than_planned():
    """Sharp edge 19: enlarged by the 2⁻²⁰ that a float32 variate may lack."""
    assert 2.0 < GaussianNoise(2.0).add(zeros({"a": (3,)})).standard_deviation < 2.0 * (1 + 2.0**-19)


@pytest.mark.parametrize("size", [1000, 300_000])
def test_a_noised_sum_is_the_sum_plus_noise(size: int):
    """With values in it: both are added, in each parameter at its place, and the sum itself stays as it was."""
    generator = torch.Generator().manual_seed(0)
    gradients = {
        "a": torch.randn(size, generator=generator),
        "b": torch.randn(7, 3, generator=generator),
        "c": torch.tensor(4.0),
    }
    before = copy.deepcopy(gradients)
    clipped = ClippedSum(gradients, 0.5, Counts())
    nothing = zeros({name: tuple(value.shape) for name, value in gradients.items()}, 0.5)
    with_sum, alone = (GaussianNoise(1.0, secret_generator(3)).add(each).gradients for each in (clipped, nothing))
    for name, gradient in gradients.items():
        assert torch.equal(gradient, before[name])
        torch.testing.assert_close(with_sum[name] - gradient, alone[name], rtol=0, atol=1e-6)
        assert with_sum[name].data_ptr() != gradient.data_ptr()


def test_a_noised_sum_may_be_kept_and_changed():
    """No later update writes into it, and it writes into nobody's noise."""
    noise = GaussianNoise(1.0)
    kept = [noise.add(zeros({"a": (200_000,), "b": (2, 3)})) for _ in range(3)]
    copies = copy.deepcopy([noised.gradients for noised in kept])
    for _ in range(6):
        noise.add(zeros({"a": (200_000,), "b": (2, 3)})).gradients["a"].fill_(7.0)
    for noised, before in zip(kept, copies, strict=True):
        assert all(torch.equal(noised.gradients[name], before[name]) for name in before)


def test_noise_has_the_memory_order_of_the_gradient():
    """A weight in channels_last gets a gradient in channels_last, with noise in every place."""
    for dtype in (torch.float32, torch.float64):
        gradient = torch.zeros(16, 8, 5, 5, dtype=dtype).to(memory_format=torch.channels_last)
        expanded = torch.zeros(1, 4, dtype=dtype).expand(3, 4)
        sums = ClippedSum({"a": gradient, "b": expanded}, 1.0, Counts())
        noised = GaussianNoise(1.0).add(sums).gradients
        assert noised["a"].stride() == gradient.stride()
        assert all((value != 0).all() for value in noised.values())
    assert len(noised["a"].unique()) == gradient.numel()  # of float64: of so many rounded to float32 two may be alike
    assert len(noised["b"].unique()) == 12


@pytest.mark.parametrize("others", [torch.float64, torch.float32])
def test_a_float64_sum_gets_float64_noise(others: torch.dtype):
    """Sharp edge 19: float32 noise would leave the low bits of the sum bare."""
    gradients = {"a": torch.zeros(2000, dtype=torch.float64), "b": torch.zeros(5, dtype=others)}
    noised = GaussianNoise(1.0).add(ClippedSum(gradients, 1.0, Counts())).gradients
    assert {name: value.dtype for name, value in noised.items()} == {"a": torch.float64, "b": others}
    assert float((noised["a"].float() != noised["a"]).double().mean()) > 0.99


def test_two_steps_and_two_parameters_never_share_noise():
    """Sharp edge 24. By chance one of the 30 pairs correlates so far in a million runs."""
    for size in (6100, 97_000):  # the longer one is drawn ahead
        noise = GaussianNoise(1.0)
        steps = [noise.add(zeros({"a": (size,), "b": (size,)})).gradients for _ in range(3)]
        drawn = torch.stack([step[name] for step in steps for name in ("a", "b")])
        correlations = torch.corrcoef(drawn) - torch.eye(6)
        assert float(correlations.abs().max()) < 5.5 / size**0.5


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
    assert noise.draws == 1


def test_no_noise_is_drawn_where_none_is_asked_for():
    clipped = zeros({"a": (3,)})
    noise = GaussianNoise(0.0)
    noised = noise.add(clipped)
    assert noised.gradients["a"] is clipped.gradients["a"]
    assert noised.standard_deviation == 0
    assert noise.draws == 0


def test_noise_over_an_unbounded_sum_is_refused():
    with pytest.raises(PlanError, match="hides nothing"):
        GaussianNoise(1.0).add(zeros({"a": (3,)}, float("inf")))
