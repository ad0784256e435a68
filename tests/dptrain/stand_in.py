"""A pass through rewritten forwards without the engine, for tests of the forwards alone.

It does what the engine does around them: trainable weights are frozen, each module's forward is replaced, one backward pass
reaches the leaves that they name, and what they deposited is held against gradients of one example at a time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dptrain.clipping.contributions import Contribution, Instantiated
from dptrain.clipping.rules import Forward

Loss = Callable[[Any, tuple[Tensor, ...]], Tensor]
"""``loss(model, batch)`` gives ``[examples]``; the examples are the first dimension of every tensor of the batch."""


@dataclass(eq=False)
class Deposits:
    wanted: frozenset[str]
    found: dict[str, Contribution] = field(default_factory=dict)
    leaves: list[Tensor] = field(default_factory=list)

    def __call__(self, key: str, contribution: Contribution, /) -> None:
        assert key in self.wanted, f"{key} is not trained"
        assert key not in self.found, f"{key} was deposited twice in one call"
        self.found[key] = contribution

    def leaf(self, tensor: Tensor, /) -> None:
        assert tensor.is_leaf
        assert tensor.requires_grad
        self.leaves.append(tensor)


def rewritten_pass(
    model: nn.Module, table: Mapping[type[nn.Module], Forward], loss: Loss, batch: tuple[Tensor, ...]
) -> tuple[dict[str, Contribution], Tensor]:
    """Contributions by parameter name, of the modules in the table alone, and the losses."""
    parameters = [value for value in model.parameters() if value.requires_grad]
    calls: list[tuple[str, Deposits]] = []
    replaced = [(name, module) for name, module in model.named_modules() if type(module) in table]

    def replace(name: str, module: nn.Module) -> None:
        wanted = frozenset(key for key, value in module.named_parameters() if value.requires_grad)

        def forward(*args: Any, **kwargs: Any) -> Any:
            calls.append((name, Deposits(wanted)))
            return table[type(module)](module, args, kwargs, calls[-1][1])

        module.forward = forward

    for name, module in replaced:
        replace(name, module)
    for value in parameters:
        value.requires_grad_(False)
    try:
        losses = loss(model, batch)
        leaves = [leaf for _, deposits in calls for leaf in deposits.leaves]
        torch.autograd.grad(losses.sum(), leaves, allow_unused=True)
    finally:
        for value in parameters:
            value.requires_grad_(True)
        for _, module in replaced:
            del module.forward
    found: dict[str, Contribution] = {}
    for name, deposits in calls:
        for key, part in deposits.found.items():
            full = f"{name}.{key}" if name else key
            if full in found:
                part = Instantiated(found[full].instantiate().gradients + part.instantiate().gradients)
            found[full] = part
    return found, losses.detach()


def one_at_a_time(model: nn.Module, loss: Loss, batch: tuple[Tensor, ...]) -> list[dict[str, Tensor]]:
    """Each example's gradients by ordinary autograd; zeros where a weight took no part."""
    named = {name: value for name, value in model.named_parameters() if value.requires_grad}
    found = []
    for index in range(len(batch[0])):
        alone = loss(model, tuple(part[index : index + 1] for part in batch)).sum()
        gradients = torch.autograd.grad(alone, list(named.values()), allow_unused=True, materialize_grads=True)
        found.append(dict(zip(named, gradients, strict=True)))
    return found


def check(
    model: nn.Module,
    table: Mapping[type[nn.Module], Forward],
    loss: Loss,
    batch: tuple[Tensor, ...],
    tolerance: float = 1e-10,
) -> dict[str, Contribution]:
    """Losses, norms, weighted sums and instantiated gradients are those of one example at a time, relative to its gradient."""
    found, losses = rewritten_pass(model, table, loss, batch)
    truth = one_at_a_time(model, loss, batch)
    covered = {
        f"{name}.{key}" if name else key
        for name, module in model.named_modules()
        if type(module) in table
        for key, value in module.named_parameters()
        if value.requires_grad
    }
    assert set(found) <= covered
    torch.testing.assert_close(losses, loss(model, batch).detach(), rtol=tolerance, atol=tolerance)
    lengths = torch.stack([torch.stack([value.norm() for value in example.values()]).norm() for example in truth])
    factors = torch.linspace(0.3, 1.2, len(truth), dtype=torch.float64)
    for name in covered:
        each = torch.stack([example[name] for example in truth])
        if name not in found:
            assert not bool(each.any()), f"{name} has gradients and was not deposited"
            continue
        part = found[name]
        apart = (part.instantiate().gradients - each).flatten(1).norm(dim=1)
        assert bool((apart <= tolerance * lengths).all()), f"{name}: gradients differ by {float((apart / lengths).max())}"
        norms = (part.squared_norms().sqrt() - each.flatten(1).norm(dim=1)).abs()
        assert bool((norms <= 100 * tolerance * lengths).all()), f"{name}: norms differ by {float((norms / lengths).max())}"
        total = torch.tensordot(factors.to(each.dtype), each, dims=1)
        assert (part.weighted_sum(factors) - total).norm() <= tolerance * lengths.sum(), f"{name}: the weighted sum differs"
    return found
