"""Per-example norms and clipped sums from one forward pass and one backward pass to layer outputs.

Weights are frozen while the pass runs, so that autograd computes gradients of layer outputs and none of weights; each
layer's input is kept by a forward hook, its output's gradient by a tensor hook, and the rules of
:mod:`~dptrain.clipping.rules` make of these two what clipping needs.

**It is used only where it was seen to be right.** A rule knows a layer's input and output, not what the model does around
it: a layer whose first dimension is time, a weight used outside of its layer, a module that looks across examples would
all give wrong norms, and with them a false ε. So the first examples of each new shape are also computed one at a time, by
ordinary autograd, and where the two disagree, or a module has no rule, the model is left to ``torch.func``, with the reason.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils import _pytree as pytree

from dptrain.clipping.fallback import LossFunction, check_losses
from dptrain.clipping.rules import RULES, Contribution, Instantiated, Unfit

VERIFIED = 3
"""Examples that are also computed one at a time."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}
"""Largest difference between the two, relative to an example's own gradient, by the parameters' type."""


@dataclass(eq=False)
class _Call:
    inputs: Tensor
    version: int
    """Of the input when it was kept: what is changed in place later is no longer what the layer saw."""
    outputs: Tensor | None = None
    """The gradient of the output, once the backward pass was there."""


@dataclass(frozen=True, eq=False)
class Pass:
    """What one pass over a chunk gave."""

    contributions: dict[str, Contribution]
    """By parameter name; a trainable parameter that took no part is not in it."""
    losses: Tensor

    def norms(self) -> Tensor:
        """L2 norm of each example's whole gradient, ``[examples]``, in float64."""
        squares = [part.squared_norms() for part in self.contributions.values()]
        return torch.stack(squares).sum(0).sqrt() if squares else torch.zeros(len(self.losses), dtype=torch.float64)


class OnePass:
    """The one-pass engine of a model and its loss.

    ``reason`` says why it cannot serve, and is empty where it can, as far as is known.
    """

    def __init__(self, model: nn.Module, loss: LossFunction):
        self._model, self._loss = model, loss
        self._verified: set[Any] = set()
        self._copy_first = False
        self.reason = self._obstacle()

    def _obstacle(self) -> str:
        for name, module in self._model.named_modules():
            own = [value for value in module.parameters(recurse=False) if value.requires_grad]
            if own and type(module) not in RULES:
                return f"{name or 'the model'} ({type(module).__name__}) has no rule"
            if any(value.dtype not in TOLERANCE for value in own):
                return f"{name or 'the model'} has parameters in {own[0].dtype}"
        return ""

    def __call__(self, chunk: Any) -> Pass | None:
        """The pass over a chunk; None where this engine does not serve, or has not been seen to be right for its shapes."""
        if self.reason:
            return None
        leaves = [leaf for leaf in pytree.tree_leaves(chunk) if isinstance(leaf, Tensor)]
        if not leaves or any(leaf.dim() == 0 for leaf in leaves):
            return None
        trainable = tuple(name for name, value in self._model.named_parameters() if value.requires_grad)
        shapes = (trainable, tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves), self._model.training)
        try:
            if shapes not in self._verified:
                if not self._verify(pytree.tree_map(lambda leaf: leaf[:VERIFIED] if isinstance(leaf, Tensor) else leaf, chunk)):
                    return None
                self._verified.add(shapes)
            return self._pass(chunk)
        except Unfit as unfit:
            self.reason = str(unfit)
            return None

    # -- the pass ---------------------------------------------------------------------------------------------------

    def _pass(self, chunk: Any) -> Pass:
        names = {value: name for name, value in self._model.named_parameters() if value.requires_grad}
        calls: dict[nn.Module, list[_Call]] = {}
        first: list[Tensor] = []
        with self._watched(names, calls, first), torch.enable_grad():
            losses = self._loss(self._model, chunk)
            examples = next(len(leaf) for leaf in pytree.tree_leaves(chunk) if isinstance(leaf, Tensor))
            check_losses(losses, examples)
            if first and losses.requires_grad:
                torch.autograd.grad(losses.sum(), first, allow_unused=True)
        found: dict[str, Contribution] = {}
        with torch.no_grad():
            for module, made in calls.items():
                if any(call.inputs._version != call.version for call in made):
                    raise Unfit(f"the input of a {type(module).__name__} is changed in place after it was used")
                used = [(call.inputs, call.outputs) for call in made if call.outputs is not None]
                if not used:
                    continue
                if any(len(a) != examples or len(g) != examples for a, g in used):
                    raise Unfit(f"a {type(module).__name__} does not have the examples as its first dimension")
                rule = RULES.get(type(module))
                if rule is None:  # it came, or became trainable, after the engine had looked at the model
                    raise Unfit(f"a {type(module).__name__} has no rule")
                own = dict(module.named_parameters(recurse=False))
                for key, part in rule(module, used).items():
                    name = names.get(own[key])
                    if name is None:
                        continue
                    if name in found:  # a shared weight: its gradients add up before they are measured
                        part = Instantiated(found[name].instantiate().gradients + part.instantiate().gradients)
                    found[name] = part
        return Pass(found, losses.detach())

    @contextmanager
    def _watched(
        self, names: dict[nn.Parameter, str], calls: dict[nn.Module, list[_Call]], first: list[Tensor]
    ) -> Iterator[None]:
        """Trainable weights frozen, and each of their layers' inputs and output gradients kept."""

        def keep(module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> Tensor:
            if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(outputs, Tensor):
                raise Unfit(f"a {type(module).__name__} was not called with one tensor for one tensor")
            call = _Call(inputs[0].detach(), inputs[0]._version)
            calls.setdefault(module, []).append(call)
            if not outputs.requires_grad:
                outputs = outputs.detach().requires_grad_()
                first.append(outputs)

            def arrive(gradient: Tensor) -> None:
                call.outputs = gradient.detach()

            outputs.register_hook(arrive)
            return outputs.clone() if self._copy_first and outputs.is_leaf else outputs

        modules = [
            module for module in self._model.modules() if any(value in names for value in module.parameters(recurse=False))
        ]
        handles = [module.register_forward_hook(keep) for module in modules]
        for parameter in names:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in names:
                parameter.requires_grad_(True)
            for handle in handles:
                handle.remove()

    # -- the proof by example ---------------------------------------------------------------------------------------

    def _verify(self, chunk: Any) -> bool:
        """Whether there were at least two examples with finite gradients to compare; dropout is off meanwhile.

        Raises:
            Unfit: an example's gradient is not what autograd gives for it alone.
        """
        compared = 0
        modes = [(module, module.training) for module in self._model.modules() if isinstance(module, _DropoutNd)]
        for module, _ in modes:
            module.eval()
        try:
            found = self._attempt(chunk)
            parameters = {name: value for name, value in self._model.named_parameters() if value.requires_grad}
            for index in range(len(found.losses)):
                alone = pytree.tree_map(lambda leaf, i=index: leaf[i : i + 1] if isinstance(leaf, Tensor) else leaf, chunk)
                with torch.enable_grad():
                    loss = check_losses(self._loss(self._model, alone), 1)[0]
                    truth = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
                compared += self._compare(found, index, dict(zip(parameters, truth, strict=True)))
            return compared >= 2
        finally:
            for module, mode in modes:
                module.training = mode

    def _attempt(self, chunk: Any) -> Pass:
        try:
            return self._pass(chunk)
        except RuntimeError as error:
            if self._copy_first or "leaf Variable that requires grad" not in str(error):
                raise Unfit(f"the pass to layer outputs failed: {' '.join(str(error).split())[:200]}") from error
            self._copy_first = True  # an in-place activation on the very first layer's output
            return self._attempt(chunk)

    @staticmethod
    def _compare(found: Pass, index: int, truth: dict[str, Tensor | None]) -> bool:
        known = [value for value in truth.values() if value is not None]
        if not known:
            raise Unfit("no parameter takes part in the loss")
        length = torch.stack([value.double().norm() for value in known]).norm()
        if not bool(torch.isfinite(length)):
            return False
        chosen = torch.zeros(len(found.losses), dtype=torch.float64)
        chosen[index] = 1.0
        apart = []
        for name, value in truth.items():
            part = found.contributions.get(name)
            if part is not None and not bool(torch.isfinite(part.squared_norms()).all()):
                part = part.keep(chosen > 0)
            mine = torch.zeros_like(value) if part is None and value is not None else None
            mine = part.weighted_sum(chosen) if part is not None else mine
            if mine is not None:
                apart.append((mine if value is None else mine - value).double().norm())
        allowed = TOLERANCE[known[0].dtype] * float(length) + torch.finfo(known[0].dtype).tiny
        difference = float(torch.stack(apart).norm())
        if not difference <= allowed or abs(float(found.norms()[index]) - float(length)) > allowed:
            raise Unfit("its per-example gradients are not those of the examples one at a time")
        return True
