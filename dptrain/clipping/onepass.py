"""Per-example norms and clipped sums from one forward pass and one backward pass to layer outputs.

A :mod:`~dptrain.clipping.tape` watches the pass, and the layers' rules make of what it saw what clipping needs.

**It is used only where it was seen to be right.** A rule knows a layer's input and output, not what the model does around it:
a layer whose first dimension is time, a weight used outside of its layer, a module that looks across examples would all give
wrong norms, and with them a false ε. So for each new shape and size of a batch, and now and then later,

* examples drawn at random are also computed by themselves, by ordinary autograd, and their gradients must agree, up to what
  changes the clipped sum by a thousandth of its bound C (an example that is fitted well has a gradient of rounding alone);
* all other examples are replaced, by others a thousand times as large and by NaN, and an example's gradient must not move.

What differs is looked at once more in float64 (:mod:`~dptrain.clipping.precise`), where rounding explains nothing: in float32
a pre-activation next to 0 may fall to either side of a kink, and then a gradient differs by far more than its rounding. What
still differs is real. Before the first step two examples are looked at there in any case, beside each other and alone: a
penalty on the weights in the loss, too small to be seen in float32, has no place in a pass that knows layers alone. All passes
of such a look draw the same random numbers. Where that is so at first, the model is left to ``torch.func``, with the reason;
where it is so after steps were taken, the training ends: they were clipped on a false assumption. This finds what a model
does, not what it might do: that examples do not look at each other stays an assumption of the guarantee.

The loss runs under the caller's autocast, and everything else without: norms, factors and sums are in float32 or better.
"""

from contextlib import nullcontext
from random import SystemRandom
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils import _pytree as pytree

from dptrain.clipping.chance import Draws, RandomState
from dptrain.clipping.choice import Choice, Workspace, bucket
from dptrain.clipping.fallback import LossFunction, check_losses
from dptrain.clipping.precise import in_float64, wide, widened
from dptrain.clipping.rules import Unfit, Wrong
from dptrain.clipping.tape import Observe, Pass, Tape, without_autocast
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

DRAWING = (_DropoutNd, nn.RNNBase, nn.MultiheadAttention, Draws)
"""Modules that draw dropout, or other random numbers, in training."""
SAME_SHAPE = {torch.float32: 1e-5, torch.float64: 1e-12}
"""How much an example's gradient may move where only the other examples of a batch are replaced."""


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
        tape = Tape(self._model, examples, group, self._choice, self._work, self._copy_first, self._observe)
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
        draw random numbers do not, meanwhile. Afterwards, a model will draw what it would have drawn without.

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
            kept = sorted(chosen[:FEW])
            few = _few(chunk, group, kept)
            some = None if weights is None else _few(weights, group, kept)
            if self._is_exact(list(range(len(kept))), few, group, some, floor, chance, found.log) is False:
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
        least = _lost(dtype)
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
        if not _apart(after, before) <= SAME_SHAPE[dtype] * max(_length(before), floor) + _lost(dtype):
            raise Wrong("an example's gradient depends on the other examples of its batch")
        return True


class _OtherWay(Exception):
    """Loose parameters met other things than before: what is no example had as many rows as there are examples."""


_NOT_ALONE = "its per-example gradients are not those of the examples one at a time"
_CHANCE = SystemRandom()
"""Neither repeats a user's seed nor disturbs it."""


def _lost(dtype: torch.dtype) -> float:
    """The length that may be lost to squares which underflow."""
    return UNDERFLOW * torch.finfo(dtype).tiny ** 0.5


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


def _few(chunk: Any, group: int, kept: list[int]) -> Any:
    """These examples of a chunk."""
    rows = torch.tensor([example * group + member for example in kept for member in range(group)])
    return pytree.tree_map(lambda leaf: leaf[rows.to(leaf.device)] if isinstance(leaf, Tensor) else leaf, chunk)


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
