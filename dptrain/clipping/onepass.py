"""Per-example norms and clipped sums from one forward pass and one backward pass to layer outputs.

Weights are frozen while the pass runs, so that autograd computes gradients of layer outputs and none of weights. Each
layer's input is kept by a forward hook; when its output's gradient arrives, the rule of that layer
(:mod:`~dptrain.clipping.rules`) makes of the two what clipping needs, and lets go of what it does not. Recurrent layers and
attention are run by forwards of their own; parameters that no such layer owns are followed by
:mod:`~dptrain.clipping.loose`.

**It is used only where it was seen to be right.** A rule knows a layer's input and output, not what the model does around
it: a layer whose first dimension is time, a weight used outside of its layer, a module that looks across examples would
all give wrong norms, and with them a false ε. So for each new shape and size of a batch, and now and then later,

* examples drawn at random are also computed by themselves, by ordinary autograd, and their gradients must agree, up to what
  changes the clipped sum by a thousandth of its bound C (an example that is fitted well has a gradient of rounding alone);
* all other examples are replaced, by others a thousand times as large and by NaN, and an example's gradient must not move.

What differs is looked at once more in float64 (:mod:`~dptrain.clipping.precise`), where rounding explains nothing: in float32
a pre-activation next to 0 may fall to either side of a kink, and then a gradient differs by far more than its rounding. What
still differs is real. Before the first step one example is looked at there in any case: a penalty on the weights in the loss,
too small to be seen in float32, has no place in a pass that knows layers alone. All passes of such a look draw the same random
numbers. Where that is so at first, the model is left to ``torch.func``, with the reason; where it is so after
steps were taken, the training ends: they were clipped on a false assumption. This finds what a model does, not what it might
do: that examples do not look at each other stays an assumption of the guarantee.

The loss runs under the caller's autocast, and everything else without: norms, factors and sums are in float32 or better.
"""

from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from random import SystemRandom
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils import _pytree as pytree

from dptrain.clipping import attention, recurrent  # noqa: F401  their forwards register themselves
from dptrain.clipping.chance import RandomState
from dptrain.clipping.choice import Choice, Workspace, bucket
from dptrain.clipping.contributions import Contribution, Instantiated
from dptrain.clipping.fallback import LossFunction, check_losses
from dptrain.clipping.loose import LooseParameters
from dptrain.clipping.precise import in_float64, wide, widened
from dptrain.clipping.rules import FORWARDS, RULES, Forward, Rule, Unfit, Wrong
from dptrain.errors import ProtocolError, UserError, is_out_of_memory

DOUBTS = 8
"""Of so many first looks at a model with loose parameters, in batches of one size, the last decides."""
FEW = 2
"""Examples that are looked at in float64 before the first step."""
VERIFIED = 3
"""Examples, or groups, that are also computed by themselves."""
AGAIN = 256
"""Of so many chunks, one on average is looked at again."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}
"""Largest difference between the two, relative to an example's own gradient, by the parameters' type. See ``floor``."""
HALF_TOLERANCE = 0.05
"""The same where autocast computes in 16 bits, of which bfloat16 keeps eight."""

UNDERFLOW = 1e3
"""Squares of numbers below the root of the smallest one are lost, of up to a million numbers together."""

DRAWING = (_DropoutNd, nn.RNNBase, nn.MultiheadAttention)
"""Modules that draw dropout in training."""
SAME_SHAPE = {torch.float32: 1e-5, torch.float64: 1e-12}
"""How much an example's gradient may move where only the other examples of a batch are replaced."""


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


class OnePass:
    """The one-pass engine of a model and its loss.

    ``reason`` says why it cannot serve, and is empty where it can, as far as is known.

    Args:
        floor: errors of gradients that are shorter are measured against this length: :attr:`Clipping.floor`, below which they
            matter no more to the clipped sum. Before the first step it is the median of the batch, where that is shorter.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        choice: Choice | None = None,
        observe: Observe = nullcontext,
        *,
        floor: float = 0.0,
    ):
        self._model, self._loss, self._observe, self._floor = model, loss, observe, floor
        self._choice, self._work = choice or Choice.shared(), Workspace()
        self._verified: set[Any] = set()
        self._logs: dict[Any, list[tuple[str, str]]] = {}
        """What happened to loose parameters, by the shapes of a batch."""
        self._served = False
        self._copy_first = False
        self._doubted: dict[Any, list[int]] = {}
        """By the shapes of a batch: sizes at which a model with loose parameters was once seen to be wrong."""
        self._latest_log: list[tuple[str, str]] = []
        self.reason = self._obstacle()

    def _obstacle(self) -> str:
        for name, value in self._model.named_parameters():
            if value.requires_grad and value.dtype not in TOLERANCE:
                return f"{name} is in {value.dtype}"
        return ""

    def __call__(self, chunk: Any, group: int = 1, weights: Tensor | None = None) -> Pass | None:
        """The pass over a chunk; None where this engine does not serve, or has not been seen to be right for its shapes.

        Args:
            group: how many neighbouring rows are one example to the clipping.
            weights: what each row's loss is multiplied by, ``[rows]``.
        """
        if self.reason:
            return None
        leaves = [leaf for leaf in pytree.tree_leaves(chunk) if isinstance(leaf, Tensor)]
        if not leaves or any(leaf.dim() == 0 for leaf in leaves):
            return None
        trainable = tuple(name for name, value in self._model.named_parameters() if value.requires_grad)
        kind = (trainable, tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves), self._model.training)
        examples = len(leaves[0]) // group
        key = (kind, group, bucket(examples))
        log = self._logs.get(kind)
        try:
            if (key not in self._verified and (examples > 1 or log is None)) or _CHANCE.random() * AGAIN < 1:
                found = self._verify(chunk, group, weights, log)
                if found is None and log is None:
                    return None
                log = self._logs.setdefault(kind, found if found is not None else [])
                self._verified.add(key)
            done = self._pass(chunk, group, weights)
            if done.log != log:
                return None
        except _OtherWay:
            return None
        except Wrong as wrong:
            if self._served:
                raise ProtocolError(
                    f"{wrong}, and steps were taken on the assumption that they are: examples look at each other, or the model "
                    "changed under way; what was trained so far has no guarantee"
                ) from None
            if not self._may_be_the_size(kind, examples):
                self.reason = str(wrong)
            return None
        except Unfit as unfit:
            self.reason = str(unfit)
            return None
        self._served = True
        return done

    def _may_be_the_size(self, kind: Any, examples: int) -> bool:
        """Whether something that belongs to no example may only have been taken for examples because there are as many."""
        if not self._latest_log:
            return False
        sizes = self._doubted.setdefault(kind, [])
        sizes.append(examples)
        return len(set(sizes)) < 2 and len(sizes) < DOUBTS

    # -- the pass ---------------------------------------------------------------------------------------------------

    def _pass(self, chunk: Any, group: int = 1, weights: Tensor | None = None) -> Pass:
        examples = next(len(leaf) for leaf in pytree.tree_leaves(chunk) if isinstance(leaf, Tensor))
        tape = _Tape(self._model, examples, group, self._choice, self._work, self._copy_first, self._observe)
        with tape.watching(), torch.enable_grad():
            losses = self._loss(self._model, chunk)
            check_losses(losses, examples)
            if losses.requires_grad:
                tape.backward(losses, weights)
        with torch.no_grad():
            found = tape.finish()
        log = self._latest_log = tape.loose.log if tape.loose is not None else []
        return Pass(found, losses.detach(), examples // group, tape.half, log)

    # -- the proof by example ---------------------------------------------------------------------------------------

    def _verify(
        self, chunk: Any, group: int, weights: Tensor | None, log: list[tuple[str, str]] | None
    ) -> list[tuple[str, str]] | None:
        """What happened to loose parameters, where at least two examples with finite gradients could be compared; layers that
        draw dropout do not, meanwhile. Afterwards, a model will draw what it would have drawn without.

        Args:
            log: what happened to them before, with examples of these shapes.

        Raises:
            Wrong: an example's gradient is not what autograd gives for it alone, or depends on the others.
            Unfit: the pass cannot be made.
            _OtherWay: what happened is not what happened before.
            UserError: the loss has nothing to do with the model.
        """
        chance = RandomState()
        modes = [(module, module.training) for module in self._model.modules() if isinstance(module, DRAWING)]
        for module, _ in modes:
            module.training = False
        try:
            return self._prove(chunk, group, weights, log, chance)
        finally:
            for module, mode in modes:
                module.training = mode
            chance.restore()

    def _prove(
        self, chunk: Any, group: int, weights: Tensor | None, log: list[tuple[str, str]] | None, chance: RandomState
    ) -> list[tuple[str, str]] | None:
        """See :meth:`_verify`."""
        found = self._attempt(chunk, group, weights)
        if log is not None and found.log != log:
            raise _OtherWay
        drawn = RandomState()
        order = _CHANCE.sample(range(found.examples), found.examples)
        norms = found.norms()
        finite = torch.isfinite(norms)
        chosen = [index for index in order if bool(finite[index])][:VERIFIED]
        floor = self._floor
        if not self._served and chosen:
            floor = min(floor, float(norms[finite].median()))
        differ, reached = [], False
        for index in chosen:
            chance.restore()
            truth = self._alone(chunk, group, weights, index)
            reached |= bool(truth)
            if not RandomState().drew_as(drawn):
                raise Unfit("the model draws random numbers for each row, so that no example can be computed again by itself")
            if not self._agrees(found, index, truth, floor):
                differ.append(index)
        if chosen and not reached and not self._served:
            raise UserError(
                "the loss does not depend on any trainable weight of the model that it is given; let it use its own argument "
                "`model`, not one from outside, and no torch.no_grad() or .detach() on the way"
            )
        if differ and not self._is_exact(differ, chunk, group, weights, floor, chance):
            raise Wrong(_NOT_ALONE)
        if not self._served and chosen and not differ:
            few, at = _few(chunk, group, order, chosen[0])
            some = None if weights is None else _few(weights, group, order, chosen[0])[0]
            if self._is_exact([at], few, group, some, floor, chance, found.log) is False:
                raise Wrong(_NOT_ALONE)
        if len(chosen) < 2:
            return None
        index = chosen[0]
        before = self._gradient_of(found, index)  # now: the next pass takes over the memory
        for changes in ((_foreign, _strange), (_damaged,)):
            for change in changes:
                other = pytree.tree_map(lambda leaf, c=change: _beside(leaf, index, group, c), chunk)
                chance.restore()
                if self._influence(before, other, group, weights, index, floor):
                    break
        return found.log

    def _is_exact(
        self,
        indices: list[int],
        chunk: Any,
        group: int,
        weights: Tensor | None,
        floor: float,
        chance: RandomState,
        log: list[tuple[str, str]] | None = None,
    ) -> bool | None:
        """Whether these examples agree in float64; None where that cannot be computed, or another way would be taken there."""
        if all(value.dtype == torch.float64 for value in self._model.parameters() if value.requires_grad):
            return None
        try:
            rows = widened(chunk)
            with in_float64(self._model):
                exact = OnePass(self._model, wide(self._loss))
                exact._copy_first = self._copy_first
                chance.restore()
                found = exact._attempt(rows, group, weights)
                if log is not None and found.log != log:
                    return None
                for index in indices:
                    chance.restore()
                    if not exact._agrees(found, index, exact._alone(rows, group, weights, index), floor):
                        return False
            return True
        except Wrong:
            return False
        except Exception:  # whatever a model that insists on its type raises
            return None

    def _attempt(self, chunk: Any, group: int, weights: Tensor | None) -> Pass:
        try:
            return self._pass(chunk, group, weights)
        except (Unfit, UserError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            if self._copy_first or "leaf Variable that requires grad" not in str(error):
                said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                raise Unfit(f"the pass to layer outputs failed: {said}") from error
            self._copy_first = True  # an in-place activation on the very first layer's output
            return self._attempt(chunk, group, weights)

    def _alone(self, chunk: Any, group: int, weights: Tensor | None, index: int) -> dict[str, Tensor]:
        """The gradient of one example, or group, by ordinary autograd."""
        rows = slice(index * group, (index + 1) * group)
        alone = pytree.tree_map(lambda leaf: leaf[rows] if isinstance(leaf, Tensor) else leaf, chunk)
        parameters = {name: value for name, value in self._model.named_parameters() if value.requires_grad}
        with torch.enable_grad():
            losses = check_losses(self._loss(self._model, alone), group)
            total = (losses if weights is None else losses * weights[rows].to(losses.dtype)).sum()
            if not total.requires_grad:
                return {}
            gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        found = zip(parameters, gradients, strict=True)
        return {name: value.to_dense() if value.is_sparse else value for name, value in found if value is not None}

    @staticmethod
    @without_autocast
    def _gradient_of(found: Pass, index: int) -> dict[str, Tensor]:
        chosen = torch.zeros(found.examples, dtype=torch.float64, device=found.losses.device)
        chosen[index] = 1.0
        gradients = {}
        for name, part in found.contributions.items():
            whole = bool(torch.isfinite(part.squared_norms()).all())
            gradients[name] = (part if whole else part.keep(chosen > 0)).weighted_sum(chosen).clone()
        return gradients

    @staticmethod
    def _agrees(found: Pass, index: int, truth: dict[str, Tensor], floor: float) -> bool:
        """Whether an example's gradient and norm are what autograd gives for it alone.

        Raises:
            Wrong: the norm is not that of the gradient that goes into the sum, which no rounding excuses.
        """
        own, norm = OnePass._gradient_of(found, index), float(found.norms()[index])
        if not own and not truth:
            return True
        length = _length(truth)
        dtype = next(iter((truth or own).values())).dtype
        least = UNDERFLOW * torch.finfo(dtype).tiny ** 0.5
        if not _length(own) <= norm + TOLERANCE[dtype] * max(norm, floor) + least:
            raise Wrong("its norms are not those of its per-example gradients")
        allowed = (HALF_TOLERANCE if found.half else TOLERANCE[dtype]) * max(length, floor) + least
        return _apart(own, truth) <= allowed and norm <= 1.05 * length + allowed  # ghost norms are enlarged a little

    def _influence(
        self, before: dict[str, Tensor], other: Any, group: int, weights: Tensor | None, index: int, floor: float
    ) -> bool:
        """Raises Wrong where the gradient of one example is another one beside other examples; False where the model refuses
        such examples, and cannot be asked."""
        try:
            found = self._pass(other, group, weights)
        except Wrong:
            raise
        except Unfit as unfit:
            raise Wrong(str(unfit)) from None
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return False
        after = self._gradient_of(found, index)
        if not before and not after:
            return True
        dtype = next(iter((before or after).values())).dtype
        least = UNDERFLOW * torch.finfo(dtype).tiny ** 0.5
        if not _apart(after, before) <= SAME_SHAPE[dtype] * max(_length(before), floor) + least:
            raise Wrong("an example's gradient depends on the other examples of its batch")
        return True


class _OtherWay(Exception):
    """Loose parameters met other things than before: what is no example had as many rows as there are examples."""


_NOT_ALONE = "its per-example gradients are not those of the examples one at a time"
_CHANCE = SystemRandom()
"""Neither repeats a user's seed nor disturbs it."""


def _length(gradient: dict[str, Tensor]) -> float:
    return float(torch.stack([value.double().norm() for value in gradient.values()]).norm()) if gradient else 0.0


def _apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The length of the difference; what is missing is 0."""
    parts = []
    for name in {*one, *other}:
        mine, theirs = one.get(name), other.get(name)
        parts.append((mine if theirs is None else theirs if mine is None else mine - theirs).double().norm())  # pyright: ignore[reportOptionalMemberAccess]
    return float(torch.stack(parts).norm())


def _beside(leaf: Any, index: int, group: int, change: Any) -> Any:
    """The same rows of one example, and changed ones in place of all others."""
    if not isinstance(leaf, Tensor):
        return leaf
    rows = slice(index * group, (index + 1) * group)
    changed = change(leaf, rows)
    changed[rows] = leaf[rows]
    return changed


def _few(chunk: Any, group: int, order: list[int], index: int) -> tuple[Any, int]:
    """A few of a chunk's examples, one among them, and where it stands."""
    kept = sorted({index, *order[: FEW - 1]})
    rows = torch.tensor([example * group + member for example in kept for member in range(group)])
    few = pytree.tree_map(lambda leaf: leaf[rows.to(leaf.device)] if isinstance(leaf, Tensor) else leaf, chunk)
    return few, kept.index(index)


def _foreign(leaf: Tensor, rows: slice) -> Tensor:
    """Rows of other examples, a thousand times as large where they are numbers."""
    strange = _strange(leaf, rows)
    return -1000 * strange if leaf.is_floating_point() else strange


def _strange(leaf: Tensor, rows: slice) -> Tensor:
    return leaf.roll(rows.stop - rows.start, 0)


def _damaged(leaf: Tensor, rows: slice) -> Tensor:
    """NaN; and where there is none, what the example itself has."""
    if leaf.is_floating_point():
        return torch.full_like(leaf, float("nan"))
    group = rows.stop - rows.start
    return leaf[rows].repeat(len(leaf) // group, *(1,) * (leaf.dim() - 1))


class _Tape:
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

    def __init__(self, tape: _Tape, names: dict[str, str]):
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
