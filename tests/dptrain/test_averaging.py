"""The average of the weights: what it is, that it is what gets out, and that training never goes on from it."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, make_private, per_example
from dptrain.averaging import WeightAverage
from dptrain.checkpoint import load_release
from dptrain.errors import CheckpointError, PlanError, ProtocolError
from dptrain.private import PrivateTraining

NOISY = PrivacyPlan(sampling_rate=0.5, expected_batch_size=20, steps=6, clipping_norm=1.0, delta=1e-3, noise_multiplier=1.0)
QUIET = dataclasses.replace(NOISY, sampling_rate=1.0, expected_batch_size=40, noise_multiplier=0.0)
DECAY = 0.3


def training(plan: PrivacyPlan = NOISY, average: float | None = DECAY) -> PrivateTraining:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    model[0].weight.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(40, 5, generator=generator), torch.randint(3, (40,), generator=generator))
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.5, momentum=0.9)
    return make_private(model, optimizer, data, plan, loss=per_example(F.cross_entropy), average=average)


def weights(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def run(private: PrivateTraining, until: int | None = None) -> list[torch.Tensor]:
    """Trains, and gives the weights after each step."""
    seen = []
    for batch in private.batches(until):
        private.step(batch)
        seen.append(weights(private.model))
    return seen


def averaged(private: PrivateTraining) -> torch.Tensor:
    with private.averaged() as model:
        return weights(model)


def test_the_average_is_the_formulas():
    private = training()
    seen = run(private)
    expected = seen[0]
    for t, now in enumerate(seen[1:], start=1):
        decay = min(DECAY, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * now
    assert torch.allclose(averaged(private), expected, atol=1e-6)
    assert not torch.allclose(averaged(private), seen[-1], atol=1e-3)


def test_the_first_updates_do_not_weigh_as_much_as_all_later_ones():
    """With decay 0.999 and no warm-up, the first of 100 updates would keep 0.9 of the weight."""
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.999)
    for value in [1000.0] + [1.0] * 99:
        with torch.no_grad():
            model.weight.fill_(value)
        average.update()
    average.show()
    assert float(model.weight.detach()) == pytest.approx(1.0, abs=1e-3)


def test_the_trained_weights_come_back_to_the_bit():
    private = training()
    trained = run(private, until=3)[-1]
    with pytest.raises(ZeroDivisionError), private.averaged():
        raise ZeroDivisionError
    assert torch.equal(weights(private.model), trained)
    assert len(run(private)) == 3


def test_the_average_does_not_change_the_training():
    plain, with_average = run(training(QUIET, None)), run(training(QUIET))
    assert all(torch.equal(one, other) for one, other in zip(plain, with_average, strict=True))


def test_no_step_is_made_from_the_averaged_weights():
    private = training()
    batches = private.batches()
    private.step(next(batches))
    batch = next(batches)
    with private.averaged():
        with pytest.raises(ProtocolError, match="inside of averaged"):
            private.step(batch)
        with pytest.raises(ProtocolError, match="entered twice"), private.averaged():
            pass
        with pytest.raises(ProtocolError, match="inside of averaged"):
            private.save("nowhere")
    assert private.steps_taken == 1
    private.step(batch)


def test_what_is_released_is_the_average_and_the_card_says_so(tmp_path: Path):
    private = training()
    trained = run(private)[-1]
    private.save(tmp_path)
    released, card = load_release(tmp_path / "release")
    with private.averaged() as model:
        assert all(torch.equal(released[name], value) for name, value in model.state_dict().items())
    assert not torch.equal(torch.cat([value.flatten() for value in released.values()]), trained)
    assert card["average"] == DECAY
    assert torch.equal(weights(private.model), trained)


def test_without_an_average_the_weights_themselves_are_released(tmp_path: Path):
    private = training(average=None)
    trained = run(private)[-1]
    private.save(tmp_path)
    assert torch.equal(averaged(private), trained)
    released, card = load_release(tmp_path / "release")
    assert all(torch.equal(released[name], value) for name, value in private.model.state_dict().items())
    assert card["average"] is None


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_resume_goes_on_exactly_with_the_average(tmp_path: Path, stop: int):
    whole = training(QUIET)
    run(whole)
    first = training(QUIET)
    run(first, until=stop)
    first.save(tmp_path)
    resumed = training(QUIET)
    assert resumed.resume(tmp_path) == stop
    run(resumed)
    assert torch.equal(weights(resumed.model), weights(whole.model))
    assert torch.equal(averaged(resumed), averaged(whole))


@pytest.mark.parametrize(("saved", "given"), [(0.3, 0.4), (0.3, None), (None, 0.3)])
def test_resume_with_another_average_is_refused(tmp_path: Path, saved: float | None, given: float | None):
    private = training(QUIET, saved)
    run(private, until=2)
    private.save(tmp_path)
    with pytest.raises(CheckpointError, match="average"):
        training(QUIET, given).resume(tmp_path)


def test_averaging_costs_no_privacy(tmp_path: Path):
    """Sharp edge 13: it reads noised weights alone."""
    private, plain = training(), training(average=None)
    run(private)
    run(plain)
    assert private.event() == plain.event()
    private.save(tmp_path)
    assert json.loads((tmp_path / "release" / "card.json").read_text())["guarantee"]["epsilon"] == plain.guarantee().epsilon


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_average_of_coarse_weights_is_kept_in_float32(dtype: torch.dtype):
    """Folding 1/1000 of a bfloat16 into a bfloat16 changes nothing, ever."""
    model = nn.Linear(1, 1, bias=False, dtype=dtype)
    average = WeightAverage(model, 0.999)
    with torch.no_grad():
        model.weight.fill_(1.0)
        for _ in range(20_000):
            average.update()
        model.weight.fill_(2.0)
    for _ in range(700):
        average.update()
    average.show()
    assert model.weight.dtype == dtype
    assert float(model.weight.detach()) == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("average", [0.0, 1.0, -0.5, float("nan"), True, "much"])
def test_a_decay_that_is_none_is_refused(average: float):
    with pytest.raises(PlanError, match=r"average is .*; give a decay above 0 and below 1"):
        training(average=average)


def test_tied_weights_are_averaged_once_and_stay_tied(tmp_path: Path):
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    data = TensorDataset(torch.randn(10, 4), torch.randint(4, (10,)))
    plan = dataclasses.replace(QUIET, expected_batch_size=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    private = make_private(model, optimizer, data, plan, loss=per_example(F.cross_entropy), average=DECAY)
    run(private)
    private.save(tmp_path)
    released, _ = load_release(tmp_path / "release")
    assert torch.equal(released["0.weight"], released["2.weight"])
    with private.averaged():
        assert torch.equal(released["0.weight"], shared.weight)
