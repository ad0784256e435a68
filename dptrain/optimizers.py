"""What moves the weights once the gradient carries its noise: optimizers, and how their step shrinks over a training.

Any ``torch.optim`` optimizer that evaluates the loss once a step works (not LBFGS), and any torch scheduler in one's own
loop: what is done with noised gradients is post-processing and costs no privacy. Two things here know that the gradient is
noised.

**DP-AdamW** (Tang, Shpilevskiy, Lécuyer 2023, "DP-AdamBC: Your DP-Adam Is Actually DP-SGD (Unless You Apply Bias
Correction)"; decoupled weight decay after Loshchilov and Hutter 2019). Adam divides by the root of the gradient's second
moment. With noise of standard deviation φ in each coordinate that moment is E[g²] + φ², and where φ is larger than g Adam
divides by a constant: it turns into SGD. φ is public, so it is taken off again:

    m ← β₁ m + (1 − β₁) g          v ← β₂ v + (1 − β₂) g²          n ← β₂ n + (1 − β₂) φ²
    w ← (1 − η λ) w − η m̂ / (√max(v̂ − n̂, floor) + ϵ)              with m̂ = m / (1 − β₁ᵗ), and v̂, n̂ alike by β₂

φ = σ·S / B: noise multiplier times sensitivity, over the expected batch size. It is said by whoever added the noise, never
by hand::

    optimizer = DPAdamW(model.parameters(), lr=0.002)
    private = make_private(model, optimizer, dataset, plan, loss=loss)      # sets optimizer.noise_deviation at each step

**Schedules** of a recipe are a pure function of the step, so that a resumed training goes on exactly.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dptrain.clipping.clipped import accumulator_dtype
from dptrain.errors import ConfigError
from dptrain.recipe import OptimizerConfig, RegularizationConfig
from dptrain.regularization import weight_groups
from dptrain.uncompiled import SGD, AdamW, Unmarked

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Kept in float32 or better: v̂ − n̂ is a small difference of large numbers, of which bfloat16 leaves nothing."""


@runtime_checkable
class NoiseAware(Protocol):
    """An optimizer that is told how much noise is in the gradient; one of your own only needs the attribute."""

    noise_deviation: float
    """Standard deviation of the noise in each coordinate of the gradient that the next step takes."""


class DPAdamW(Unmarked):
    """AdamW whose second moment is that of the gradient alone; without noise it is AdamW.

    Args:
        floor: the least second moment to divide by. Left out, it is what v̂ − n̂ differs from 0 by where there is nothing
            but noise, one standard deviation of it: φ² · √(2 · (1 − β₂)/(1 + β₂) · (1 + β₂ᵗ)/(1 − β₂ᵗ)). A gradient
            that is smaller could not be told from none.

    Raises:
        ConfigError: a number that cannot be used.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        floor: float | None = None,
    ):
        for name, value, accepted in (
            ("lr", lr, "a number from 0 up"),
            ("eps", eps, "a number from 0 up"),
            ("weight_decay", weight_decay, "a number from 0 up"),
            ("floor", 0.0 if floor is None else floor, "a number from 0 up, or leave it out"),
        ):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"DPAdamW got {name}={value}; give {accepted}")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f"DPAdamW got betas={betas}; give two numbers from 0 to below 1, such as (0.9, 0.999)")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "floor": floor})
        self.noise_deviation = 0.0
        """φ; a training under a plan sets it before each step."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which would round the moments to the dtype of the weights."""
        super().load_state_dict(state_dict)
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            for name in MOMENTS if number in state_dict["state"] else ():
                self.state[parameter][name] = state_dict["state"][number][name].to(parameter.device, copy=True)

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        gradient = gradient.to(accumulator_dtype(gradient.dtype))
        if not state:
            state.update(step=0, noise=0.0, **{name: torch.zeros_like(gradient) for name in MOMENTS})
        first, second = group["betas"]
        state["step"] += 1
        state["noise"] = second * state["noise"] + (1 - second) * self.noise_deviation**2
        state["exp_avg"].lerp_(gradient, 1 - first)
        state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        left = second ** state["step"]
        noise = state["noise"] / (1 - left)
        floor = group["floor"]
        if floor is None:
            floor = noise * math.sqrt(2 * (1 - second) / (1 + second) * (1 + left) / (1 - left))
        moment = (state["exp_avg_sq"] / (1 - left) - noise).clamp_min_(floor)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        rate = group["lr"] / (1 - first ** state["step"])
        change = state["exp_avg"] / moment.sqrt_().add_(group["eps"])
        parameter.add_(change.to(parameter.dtype), alpha=-rate)


# -- what a recipe names ----------------------------------------------------------------------------------------------


def sgd(model: nn.Module, config: OptimizerConfig, regularization: RegularizationConfig) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    groups = weight_groups(model, regularization.weight_decay)
    return SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def adamw(model: nn.Module, config: OptimizerConfig, regularization: RegularizationConfig) -> Optimizer:
    """Adam with decoupled weight decay."""
    return AdamW(weight_groups(model, regularization.weight_decay), lr=config.learning_rate, betas=config.betas)


def dp_adamw(model: nn.Module, config: OptimizerConfig, regularization: RegularizationConfig) -> Optimizer:
    """AdamW whose second moment is corrected for the noise."""
    return DPAdamW(weight_groups(model, regularization.weight_decay), lr=config.learning_rate, betas=config.betas)


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of update ``step`` (from 0) of ``steps``, after ``optimizer.warmup`` and ``optimizer.schedule``.

    It rises in a line over the warm-up, whose last update has the full rate; from there on it stays, or falls so that an
    update number ``steps`` would have rate 0: in a line, or as half a cosine.
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(steps - config.warmup, 1)
    left = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[config.schedule]
    return config.learning_rate * left


def follow_schedule(optimizer: Optimizer, config: OptimizerConfig, steps: int, step: Callable[[], int]) -> None:
    """Sets the optimizer's learning rate before each of its steps.

    Args:
        step: gives the number of the update that is about to be made.
    """

    def set_rate(optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step(), steps)

    optimizer.register_step_pre_hook(set_rate)
