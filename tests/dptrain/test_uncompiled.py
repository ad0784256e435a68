"""Optimizers without marks for torch's compiler take the steps of torch's own, and do without the compiler."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from dptrain import optimizers, uncompiled
from dptrain.recipe import OptimizerConfig, RegularizationConfig


def trained(kind: type[torch.optim.Optimizer], **options: float) -> tuple[list[Tensor], dict]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))
    optimizer = kind(model.parameters(), lr=0.1, **options)  # pyright: ignore[reportCallIssue]  options of its own
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(4, 5)).square().sum().backward()
        optimizer.step()
    again = kind(model.parameters(), lr=1.0, **options)  # pyright: ignore[reportCallIssue]
    again.load_state_dict(optimizer.state_dict())
    again.step()
    return [value.detach().clone() for value in model.parameters()], again.state_dict()


@pytest.mark.parametrize(
    ("name", "options"), [("SGD", {"momentum": 0.9, "weight_decay": 0.01}), ("AdamW", {"weight_decay": 0.01})]
)
def test_weights_and_state_are_those_of_torchs_own(name: str, options: dict[str, float]) -> None:
    ours, state = trained(getattr(uncompiled, name), **options)
    theirs, expected = trained(getattr(torch.optim, name), **options)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert repr(state) == repr(expected)


@pytest.mark.parametrize("name", ["sgd", "adamw", "dp_adamw"])
def test_a_recipes_optimizer_is_torchs_and_takes_no_gradient_along(name: str) -> None:
    model = nn.Linear(3, 1)
    optimizer = getattr(optimizers, name)(model, OptimizerConfig(learning_rate=0.1), RegularizationConfig())
    assert isinstance(optimizer, torch.optim.Optimizer)
    seen: list[bool] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(True))
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert seen == [True]  # a schedule hangs on this
    assert all(value.grad_fn is None and value.requires_grad for value in model.parameters())


def test_no_recipe_waits_for_the_compiler() -> None:
    program = """
import sys, torch
from torch import nn
from dptrain import optimizers
from dptrain.recipe import OptimizerConfig, RegularizationConfig
for make in (optimizers.sgd, optimizers.adamw, optimizers.dp_adamw):
    model = nn.Linear(3, 1)
    optimizer = make(model, OptimizerConfig(learning_rate=0.1), RegularizationConfig())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
