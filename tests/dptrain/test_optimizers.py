"""Optimizers over noised gradients: what DP-AdamW takes off, and that a step's rate depends on the step alone."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, make_private, per_example
from dptrain.errors import ConfigError
from dptrain.optimizers import DPAdamW, NoiseAware, learning_rate
from dptrain.private import PrivateTraining
from dptrain.recipe import OptimizerConfig, RegularizationConfig
from dptrain.registry import OPTIMIZERS

QUIET = PrivacyPlan(sampling_rate=1.0, expected_batch_size=40, steps=6, clipping_norm=1.0, delta=1e-3)
NOISY = dataclasses.replace(QUIET, noise_multiplier=2.0)


def dataset() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(40, 5, generator=generator), torch.randint(3, (40,), generator=generator))


def training(plan: PrivacyPlan, kind: type[Optimizer] = DPAdamW, **options: float) -> PrivateTraining:
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    return make_private(model, kind(model.parameters(), lr=0.1, **options), dataset(), plan, loss=per_example(F.cross_entropy))  # type: ignore[call-arg]


def run(private: PrivateTraining, until: int | None = None) -> PrivateTraining:
    for batch in private.batches(until):
        private.step(batch)
    return private


def weights(private: PrivateTraining) -> torch.Tensor:
    return nn.utils.parameters_to_vector(private.model.parameters()).detach().clone()


@given(
    seed=st.integers(0, 2**31),
    steps=st.integers(1, 8),
    decay=st.floats(0, 0.5),
    betas=st.tuples(st.floats(0, 0.99), st.floats(0.1, 0.9999)),
)
@settings(deadline=None, max_examples=30)
def test_without_noise_dp_adamw_is_adamw(seed: int, steps: int, decay: float, betas: tuple[float, float]):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(7, generator=generator, dtype=torch.float64)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = DPAdamW([ours], lr=0.05, betas=betas, weight_decay=decay)
    torchs = AdamW([theirs], lr=0.05, betas=betas, weight_decay=decay)
    for _ in range(steps):
        ours.grad = torch.randn(7, generator=generator, dtype=torch.float64)
        theirs.grad = ours.grad.clone()
        mine.step()
        torchs.step()
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_correction_takes_off_the_second_moment_of_the_noise():
    """Gradient g in half of the coordinates and 0 in the others, noise φ = 4 in all: after many steps the second moment
    is g² and the floor. Uncorrected it would be g² + φ² and φ²: the two kinds could hardly be told apart."""
    size, deviation, signal = 20_000, 4.0, 3.0
    generator = torch.Generator().manual_seed(1)
    parameter = nn.Parameter(torch.zeros(size, dtype=torch.float64))
    gradient = torch.zeros(size, dtype=torch.float64)
    gradient[: size // 2] = signal
    optimizer = DPAdamW([parameter], lr=1e-9, betas=(0.9, 0.99))
    optimizer.noise_deviation = deviation
    for _ in range(600):
        parameter.grad = gradient + deviation * torch.randn(size, generator=generator, dtype=torch.float64)
        optimizer.step()
    state = optimizer.state[parameter]
    left = 1 - 0.99 ** state["step"]
    moment = state["exp_avg_sq"] / left - state["noise"] / left
    assert state["noise"] / left == pytest.approx(deviation**2)
    assert float(moment[: size // 2].mean()) == pytest.approx(signal**2, abs=0.1)
    assert float(moment[size // 2 :].mean()) == pytest.approx(0, abs=0.1)
    # The default floor is one standard deviation of what is left of pure noise: φ² √(2 · 0.01 / 1.99).
    assert float(moment[size // 2 :].std()) == pytest.approx(16 * math.sqrt(0.02 / 1.99), rel=0.05)


def test_one_step_by_hand():
    """g = 5, φ = 3, first step: m̂ = 5, v̂ − n̂ = 25 − 9 = 16, so the weight moves by η · 5 / 4, after shrinking by 1 − η λ."""
    parameter = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = DPAdamW([parameter], lr=0.1, eps=0.0, weight_decay=0.5)
    optimizer.noise_deviation = 3.0
    parameter.grad = torch.tensor([5.0], dtype=torch.float64)
    optimizer.step()
    assert float(parameter.detach()) == pytest.approx(2.0 * 0.95 - 0.1 * 5 / 4)


@pytest.mark.parametrize(("floor", "moment"), [(None, 9 * math.sqrt(2)), (0.25, 0.25)])
def test_a_second_moment_below_the_noises_is_replaced_by_the_floor(floor: float | None, moment: float):
    """g = 1, φ = 3: v̂ − n̂ = −8. After one step the default floor is φ² √2."""
    parameter = nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
    optimizer = DPAdamW([parameter], lr=0.1, eps=0.0, weight_decay=0.0, floor=floor)
    optimizer.noise_deviation = 3.0
    parameter.grad = torch.tensor([1.0], dtype=torch.float64)
    optimizer.step()
    assert float(parameter.detach()) == pytest.approx(-0.1 / math.sqrt(moment))


def test_the_noise_is_said_by_the_plan_and_not_by_hand():
    """Sharp edge 12: φ = σ S / B, with the sensitivity that the clipped sum states."""
    private = run(training(NOISY), until=1)
    assert isinstance(private.optimizer, DPAdamW)
    assert private.optimizer.noise_deviation == pytest.approx(2.0 * 1.0 / 40)


@pytest.mark.parametrize("plan", [QUIET, dataclasses.replace(QUIET, clipping_norm=math.inf)])
def test_a_plan_without_noise_says_so(plan: PrivacyPlan):
    private = training(plan)
    assert isinstance(private.optimizer, NoiseAware)
    private.optimizer.noise_deviation = 7.0
    run(private, until=1)
    assert private.optimizer.noise_deviation == 0
    plain = training(plan, AdamW)
    assert torch.allclose(weights(run(private)), weights(run(plain)), atol=1e-5)


def test_dp_adamw_goes_on_exactly_after_a_resume(tmp_path: Path):
    """Its moments, those of the noise and the step count are all in the checkpoint."""
    straight = weights(run(training(QUIET)))
    run(training(QUIET), until=3).save(tmp_path)
    resumed = training(QUIET)
    resumed.resume(tmp_path)
    assert torch.equal(weights(run(resumed)), straight)


def test_moments_of_the_noise_survive_a_resume(tmp_path: Path):
    private = run(training(NOISY), until=3)
    private.save(tmp_path)
    resumed = training(NOISY)
    resumed.resume(tmp_path)
    before, after = private.optimizer.state_dict()["state"], resumed.optimizer.state_dict()["state"]
    assert before[0]["noise"] > 0
    for index, entry in before.items():
        assert {key: after[index][key] for key in ("step", "noise")} == {key: entry[key] for key in ("step", "noise")}
        assert all(torch.equal(after[index][key], entry[key]) for key in ("exp_avg", "exp_avg_sq"))


def test_moments_of_coarse_weights_are_kept_in_float32_also_on_resume():
    """v̂ − n̂ is 1 where both are near 256: bfloat16 has steps of 2 there."""
    parameter = nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    optimizer = DPAdamW([parameter], lr=0.1)
    optimizer.noise_deviation = 16.0
    parameter.grad = torch.tensor([1.0, 16.0, 16.0625, -17.0], dtype=torch.bfloat16)
    optimizer.step()
    fresh = DPAdamW([parameter], lr=0.1)
    fresh.load_state_dict(optimizer.state_dict())
    for one in (optimizer, fresh):
        assert one.state[parameter]["exp_avg_sq"].dtype == torch.float32
        assert torch.equal(one.state[parameter]["exp_avg_sq"], optimizer.state[parameter]["exp_avg_sq"])
    assert fresh.state[parameter]["exp_avg_sq"] is not optimizer.state[parameter]["exp_avg_sq"]


@pytest.mark.parametrize(
    "options", [{"lr": -1.0}, {"eps": math.nan}, {"weight_decay": -0.1}, {"floor": -1.0}, {"betas": (0.9, 1.0)}]
)
def test_dp_adamw_refuses_numbers_that_it_cannot_use(options: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(options))):
        DPAdamW([nn.Parameter(torch.zeros(1))], **options)  # type: ignore[arg-type]


# -- schedules ------------------------------------------------------------------------------------------------------


def rates(steps: int, **options: object) -> list[float]:
    config = OptimizerConfig(learning_rate=2.0, **options)  # type: ignore[arg-type]
    return [learning_rate(config, step, steps) for step in range(steps)]


def test_schedules_have_the_rates_that_they_are_named_after():
    assert rates(4) == [2.0] * 4
    assert rates(4, schedule="linear") == pytest.approx([2.0, 1.5, 1.0, 0.5])
    assert rates(4, schedule="cosine") == pytest.approx([2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)])
    assert rates(6, schedule="linear", warmup=2) == pytest.approx([1.0, 2.0, 2.0, 1.5, 1.0, 0.5])
    assert rates(3, warmup=4) == pytest.approx([0.5, 1.0, 1.5])


@given(schedule=st.sampled_from(["constant", "linear", "cosine"]), warmup=st.integers(0, 30), steps=st.integers(1, 60))
def test_every_update_moves_and_none_faster_than_the_stated_rate(schedule: str, warmup: int, steps: int):
    assert all(0 < rate <= 2.0 for rate in rates(steps, schedule=schedule, warmup=warmup))


@pytest.mark.parametrize("options", [{"schedule": "step"}, {"warmup": -1}, {"betas": (0.9, 1.0)}])
def test_an_impossible_schedule_is_refused(options: dict[str, object]):
    with pytest.raises(ConfigError, match=f"optimizer.{next(iter(options))}"):
        OptimizerConfig(**options)  # type: ignore[arg-type]


def test_any_torch_scheduler_works_in_ones_own_loop():
    private = training(NOISY, torch.optim.SGD)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(private.optimizer, max_lr=0.5, total_steps=NOISY.steps + 1)
    seen = []
    for batch in private.batches():
        private.step(batch)
        seen.append(private.optimizer.param_groups[0]["lr"])
        scheduler.step()
    assert len(set(seen)) == NOISY.steps
    assert private.epsilon() == pytest.approx(NOISY.guarantee().epsilon)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_weight_decay_is_on_weights_alone(name: str):
    model = nn.Linear(5, 3)
    optimizer = OPTIMIZERS[name](model, OptimizerConfig(name=name), RegularizationConfig(weight_decay=0.25))
    decay = {id(value): group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
    assert (decay[id(model.weight)], decay[id(model.bias)]) == (0.25, 0.0)
