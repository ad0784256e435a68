"""A network reads the one unknown example off final weights that hold it, and gives the mean example where they do not."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from dptrain.errors import ConfigError, DataError
from dptrain.plan import PrivacyPlan
from evaluation.inversion.bound import reconstruction_bound
from evaluation.inversion.one_unknown import judge_unknown, named_by
from evaluation.inversion.reconstructor import Reconstructor, weights_of, with_each

QUICK = Reconstructor(epochs=40, width=128, components=64)
PLAN = PrivacyPlan(sampling_rate=1.0, expected_batch_size=10, steps=4, clipping_norm=1.0, delta=1e-5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def error(found: Tensor, true: Tensor) -> float:
    return float((found - true).square().mean())


def softmax_regression(inputs: Tensor, targets: Tensor) -> nn.Module:
    """Twenty steps of gradient descent, from zero."""
    model = nn.Linear(64, 10)
    ones = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    weights, hot = torch.zeros(65, 10), F.one_hot(targets, 10)
    for _ in range(20):
        weights -= ones.t() @ ((ones @ weights).softmax(1) - hot) / len(inputs)
    with torch.no_grad():
        model.weight.copy_(weights[:64].t())
        model.bias.copy_(weights[64])
    return model


def test_a_script_of_six_lines_reads_digits_off_a_softmax_regression_better_than_the_mean():
    pixels, labels = (torch.tensor(values) for values in load_digits(return_X_y=True))
    order = torch.randperm(len(pixels), generator=seeded())
    inputs, targets = (pixels[order] / 16).float(), labels[order]
    known, side = (inputs[:100], targets[:100]), (inputs[:600], targets[:600])
    secrets = inputs[600:700], targets[600:700]
    shadows = with_each(softmax_regression, known, side)
    read = Reconstructor(epochs=60, width=256).fit(shadows, side[0], seeded(), bounds=(0.0, 1.0))
    found = judge_unknown(read(with_each(softmax_regression, known, secrets)), secrets[0], side[0])
    mean = found.errors[1].value
    assert found.errors[0].high is not None
    assert mean is not None
    assert found.errors[0].high < mean / 3
    assert found.named.low is not None
    assert found.named.low > 0.5
    model = softmax_regression(torch.cat([known[0], secrets[0][:1]]), torch.cat([known[1], secrets[1][:1]]))
    assert error(read(weights_of(model)[None])[0], secrets[0][0]) < mean


def test_with_each_trains_on_the_known_examples_and_one_more():
    seen: list[tuple[Tensor, Tensor]] = []

    def train(inputs: Tensor, targets: Tensor) -> nn.Module:
        seen.append((inputs, targets))
        return nn.Linear(2, 1)

    known, extra = (torch.zeros(3, 2), torch.zeros(3)), (torch.eye(2), torch.ones(2))
    assert with_each(train, known, extra).shape == (2, 3)
    for one, (inputs, targets) in enumerate(seen):
        assert torch.equal(inputs, torch.cat([known[0], extra[0][one : one + 1]]))
        assert torch.equal(targets, torch.tensor([0.0, 0.0, 0.0, 1.0]))


def test_weights_that_hold_nothing_give_the_mean_example():
    inputs, weights = torch.rand(300, 1, 4, 4, generator=seeded()), torch.randn(300, 50, generator=seeded(1))
    read = QUICK.fit(weights, inputs, seeded())
    others, fresh = torch.rand(100, 1, 4, 4, generator=seeded(2)), torch.randn(100, 50, generator=seeded(3))
    assert read.share < 0.2
    assert error(read(fresh), others) < 1.02 * error(read.mean.expand_as(others), others)


def test_the_length_of_what_an_example_adds_does_not_hide_it():
    """A direction that says which example it is, at lengths from 1e-3 to 1."""
    mixing = torch.randn(16, 50, generator=seeded(9))

    def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
        inputs = torch.rand(count, 16, generator=seeded(seed))
        return inputs, (inputs - 0.5) @ mixing * 10 ** (-3 * torch.rand(count, 1, generator=seeded(seed + 1)))

    inputs, weights = drawn(1000, 0)
    secrets, seen = drawn(100, 2)
    read = QUICK.fit(weights, inputs, seeded())
    assert error(read(seen), secrets) < 0.35 * error(inputs.mean(0).expand_as(secrets), secrets)


def test_the_network_depends_on_its_generator_alone():
    inputs, weights = torch.rand(50, 4, generator=seeded()), torch.randn(50, 8, generator=seeded(1))
    first = QUICK.fit(weights, inputs, seeded())(weights)
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    assert torch.equal(QUICK.fit(weights, inputs, seeded())(weights), first)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_too_few_models_weights_that_are_not_finite_and_unknown_settings_are_refused():
    with pytest.raises(DataError, match="19 of 19 shadow models"):
        QUICK.fit(torch.zeros(19, 3), torch.zeros(19, 2), seeded())
    weights = torch.zeros(30, 3)
    weights[4, 1] = torch.nan
    with pytest.raises(DataError, match="29 of 30 shadow models"):
        QUICK.fit(weights, torch.zeros(30, 2), seeded())
    settings = Reconstructor()
    object.__setattr__(settings, "initial_weights", "unknow")  # past the types that are checked while tests run
    with pytest.raises(ConfigError, match="did you mean 'unknown'"):
        settings.__post_init__()


def test_exact_reconstructions_are_named_and_nearer_than_any_side_example_and_the_mean_is_neither():
    secrets, side = torch.rand(40, 1, 12, 11, generator=seeded()), torch.rand(60, 1, 12, 11, generator=seeded(1))
    exact = judge_unknown(secrets, secrets, side, bounds=(0.0, 1.0))
    assert (exact.named.value, exact.nearer.value, exact.errors[0].value) == (1.0, 1.0, 0.0)
    assert exact.errors[1].value == pytest.approx(error(side.mean(0).expand_as(secrets), secrets))
    assert exact.similarities[0].value == pytest.approx(1.0)
    assert exact.permitted_named == 1.0
    assert named_by(secrets, secrets, 1, "permuted").value == 0.0
    blind = judge_unknown(side.mean(0).expand_as(secrets), secrets, side)
    assert blind.named.value == exact.chance == 1 / 40
    assert blind.errors[0].value == blind.errors[1].value
    assert blind.similarities == ()


def test_the_nearest_side_example_is_the_oracle_and_no_success():
    secrets, side = torch.rand(40, 16, generator=seeded()), torch.rand(60, 16, generator=seeded(1))
    nearest = side[torch.cdist(secrets.double(), side.double()).argmin(1)]
    found = judge_unknown(nearest, secrets, side)
    assert found.nearer.value == 0.0
    assert found.errors[0].value == pytest.approx(found.errors[2].value)


def test_the_bound_is_the_plans_at_one_in_n():
    plan = PLAN.calibrate(epsilon=8.0)
    secrets = torch.rand(50, 16, generator=seeded())
    found = judge_unknown(secrets, secrets, secrets + 1, plan=plan)
    assert found.permitted_named == reconstruction_bound(plan, 1 / 50)
    assert f"at most {found.permitted_named:.1%} by the plan" in found.text
