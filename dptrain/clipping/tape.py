"""One forward pass and one backward pass to layer outputs, and what is kept of them for each example.

    tape = Tape(model, examples, group, choice, work, copy_first=False, observe=nullcontext)
    with tape.watching():
        tape.backward(loss(model, chunk), None)
    contributions = tape.finish()           # by parameter name

Weights are frozen meanwhile, so that autograd computes gradients of layer outputs and none of weights. Each layer's input is
kept by a forward hook; when its output's gradient arrives, the rule of that layer (:mod:`~dptrain.clipping.rules`) makes of
the two what clipping needs, and lets go of what it does not. Recurrent layers and attention are run by forwards of their own;
parameters that no such layer owns are followed by :mod:`~dptrain.clipping.loose`. Whether the result is right is not asked
here: :mod:`~dptrain.clipping.onepass` does.
"""

from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from dptrain.clipping import attention, recurrent  # noqa: F401  their forwards register themselves
from dptrain.clipping.choice import Choice, Workspace
from dptrain.clipping.contributions import Contribution, Instantiated
from dptrain.clipping.loose import LooseParameters
from dptrain.clipping.rules import FORWARDS, RULES, Forward, Rule, Unfit


def without_autocast(function: Any) -> Any:
    """A decorator: in it, products are in the type of their factors, whatever the caller's autocast says."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*args, **kwargs)

    return run


Observe = Callable[[str], AbstractContextManager[object]]
"""``observe(name)`` is entered while the norms of that parameter's gradients are measured: for who wants to know what costs."""


@dataclass(eq=False)
class _Call:
    inputs: Tensor | None
    version: int
    """Of the input when it was kept: what is changed in place later is no longer what the layer saw."""
    original: Tensor | None
    outputs: Tensor | None = None
    """The gradient of the output, once the backward pass was there."""
    arrived: bool = False

    def let_go(self) -> None:
        """Hooks outlive their use by the whole backward pass; what they keep must not."""
        self.inputs = self.original = self.outputs = None


@dataclass(eq=False)
class Pass:
    """What one pass over a chunk gave."""

    contributions: dict[str, Contribution]
    """By parameter name; a trainable parameter that took no part is not in it."""
    losses: Tensor
    examples: int
    """Rows, or groups of rows."""
    half: bool = False
    """Whether something was computed in 16 bits."""
    log: list[tuple[str, str]] = field(default_factory=list)

    def squares(self, layers: list[list[str]] | None = None) -> Tensor:
        """Squared norm of each example's gradient, ``[layers, examples]``, in float64; one layer where none are named."""
        device = self.losses.device
        nothing = torch.zeros(self.examples, dtype=torch.float64, device=device)
        rows = []
        for names in layers or [list(self.contributions)]:
            total = nothing
            for name in names:
                part = self.contributions.get(name)
                total = total if part is None else total + part.squared_norms()
            rows.append(total)
        return torch.stack(rows)

    def norms(self) -> Tensor:
        """L2 norm of each example's whole gradient, ``[examples]``, in float64."""
        return self.squares()[0].sqrt()


class Tape:
    """What one pass watches, and what it learns."""

    def __init__(
        self,
        model: nn.Module,
        examples: int,
        group: int,
        choice: Choice,
        work: Workspace,
        copy_first: bool,
        observe: Observe,
    ):
        self._examples, self._group, self._choice, self._work = examples, group, choice, work
        self._copy_first, self._observe = copy_first, observe
        self._names = {value: name for name, value in model.named_parameters() if value.requires_grad}
        self._rules: dict[nn.Module, Rule] = {}
        self._forwards: dict[nn.Module, Forward] = {}
        self._calls: dict[nn.Module, list[_Call]] = {}
        self._leaves: list[Tensor] = []
        self._found: dict[str, Contribution] = {}
        self._several: set[str] = set()
        """Parameters of more than one layer: their gradients add up before they are measured."""
        self._running = False
        self.half = False
        self.loose: LooseParameters | None = None
        self._assign(model)

    def _assign(self, model: nn.Module) -> None:
        """Who is responsible for each trainable parameter."""
        counts: dict[str, int] = {}
        loose: dict[str, nn.Parameter] = {}
        below: set[nn.Module] = set()
        for module in model.modules():
            if module in below:
                continue
            forward, rule = FORWARDS.get(type(module)), RULES.get(type(module))
            own = [value for value in module.parameters(recurse=forward is not None) if value in self._names]
            if forward is not None:
                below.update(module.modules())
            if not own:
                continue
            if forward is not None:
                self._forwards[module] = forward
            elif rule is not None:
                self._rules[module] = rule
            else:
                loose |= {self._names[value]: value for value in own}
                continue
            for value in own:
                counts[self._names[value]] = counts.get(self._names[value], 0) + 1
        self._several = {name for name, count in counts.items() if count > 1} | (loose.keys() & counts.keys())
        if loose:
            constants = {id(value) for value in (*model.buffers(), *model.parameters()) if value not in self._names}
            self.loose = LooseParameters(loose, constants, self._examples)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Trainable weights frozen, and each of their layers' inputs and output gradients kept."""
        for module in self._forwards:
            if "forward" in module.__dict__:
                raise Unfit(f"a {type(module).__name__} has a forward that somebody put in its place")
        handles = [module.register_forward_hook(self._keep, with_kwargs=True) for module in self._rules]
        for module, forward in self._forwards.items():
            module.forward = self._rewritten(module, forward)
        for parameter in self._names:
            parameter.requires_grad_(False)
        try:
            if self.loose is None:
                yield
            else:
                with self.loose:
                    yield
        finally:
            for parameter in self._names:
                parameter.requires_grad_(True)
            for handle in handles:
                handle.remove()
            for module in self._forwards:
                module.__dict__.pop("forward", None)

    @without_autocast
    def backward(self, losses: Tensor, weights: Tensor | None) -> None:
        """To all layers' outputs; what arrives there is measured on the way."""
        leaves = [*self._leaves, *(self.loose.leaves if self.loose is not None else ())]
        self._running = True
        try:
            if leaves:
                total = (losses if weights is None else losses * weights.to(losses.dtype)).sum()
                torch.autograd.grad(total, leaves, allow_unused=True)
        finally:
            self._running = False
            self._leaves.clear()  # each has a hook that knows this tape: a cycle would keep the whole pass in memory
            if self.loose is not None:
                self.loose.leaves.clear()

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> Tensor:
        inputs = [*args, *kwargs.values()]
        inputs = [value for value in inputs if value is not None]
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(outputs, Tensor):
            raise Unfit(f"a {type(module).__name__} was not called with one tensor for one tensor")
        if not torch.is_grad_enabled():
            return outputs  # a branch that the loss' gradient does not reach
        call = _Call(inputs[0].detach(), inputs[0]._version, inputs[0])
        made = self._calls.setdefault(module, [])
        made.append(call)
        if not outputs.requires_grad:
            outputs = outputs.detach().requires_grad_()
            self._leaves.append(outputs)
        self.half |= outputs.dtype.itemsize < 4

        def arrive(gradient: Tensor) -> None:
            if not self._running or call.arrived:
                raise Unfit(f"the loss takes a gradient of its own through a {type(module).__name__}")
            call.outputs, call.arrived = gradient.detach(), True
            if len(made) == 1:  # the forward pass is over, so this was the module's only call
                with torch.no_grad():
                    self._measure(module, made)

        outputs.register_hook(arrive)
        return outputs.clone() if self._copy_first and outputs.is_leaf else outputs

    def _rewritten(self, module: nn.Module, forward: Forward) -> Any:
        names = {key: self._names[value] for key, value in module.named_parameters() if value in self._names}
        deposit = _Deposit(self, names)
        return lambda *args, **kwargs: forward(module, args, kwargs, deposit)

    def _measure(self, module: nn.Module, made: list[_Call]) -> None:
        """Applies a module's rule to its calls."""
        kind = type(module).__name__
        if any(call.original is not None and call.original._version != call.version for call in made):
            raise Unfit(f"the input of a {kind} is changed in place after it was used")
        used = [(call.inputs, call.outputs) for call in made if call.outputs is not None and call.inputs is not None]
        for call in made:
            call.let_go()
        made.clear()
        if not used:
            return
        if any(len(a) != self._examples or len(g) != self._examples for a, g in used):
            raise Unfit(f"a {kind} does not have the examples as its first dimension")
        own = dict(module.named_parameters(recurse=False))
        for key, part in self._rules[module](module, used).items():
            if key not in own:
                raise Unfit(f"a {kind} has no parameter {key}: it is computed from others")
            if own[key] in self._names:
                self.add(self._names[own[key]], part)

    def add(self, name: str, part: Contribution) -> None:
        """One more part of a parameter's gradients; measured at once where no other can come."""
        if self._group > 1:
            part = part.fold(self._group)
        if name in self._found:
            part = Instantiated(self._found[name].instantiate().gradients + part.instantiate().gradients)
        elif name not in self._several:
            with self._observe(name):
                part.settle(self._choice, self._work, name)
        if len(part.squared_norms()) * self._group != self._examples:
            raise Unfit(f"{name} does not have its gradients by example")
        self._found[name] = part

    @without_autocast
    def finish(self) -> dict[str, Contribution]:
        """Everything that the pass learned, by parameter."""
        for module, made in self._calls.items():
            if made:
                self._measure(module, made)
        if self.loose is not None:
            for name, part in self.loose.deposits():
                self.add(name, part)
        found, self._found = self._found, {}
        self._calls.clear()
        return found


class _Deposit:
    """Where one module's rewritten forward hands in its gradients."""

    def __init__(self, tape: Tape, names: dict[str, str]):
        self._tape, self._names = tape, names

    @property
    def wanted(self) -> Set[str]:
        return self._names.keys()

    def __call__(self, key: str, contribution: Contribution, /) -> None:
        if key in self._names:
            with torch.no_grad():
                self._tape.add(self._names[key], contribution)

    def leaf(self, tensor: Tensor, /) -> None:
        self._tape._leaves.append(tensor)
