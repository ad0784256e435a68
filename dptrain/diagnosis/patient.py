"""A copy of the user's model and loss that runs again and again as if for the first time.

Each run begins from the same weights, the same buffers and the same random numbers, and is given rows of its own. So two
runs differ only in what was put into them, dropout or not, and what a run leaves behind can be told from what was there.

    patient = Patient(model, loss, batch)
    with patient.alive():
        patient.losses(patient.rows([0]))
"""

import copy
import functools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils import _pytree as pytree

from dptrain.clipping.chance import Draws
from dptrain.clipping.fallback import LossFunction
from dptrain.errors import PlanError, ProtocolError


def examples_in(batch: Any) -> int:
    """How many examples a batch holds.

    Raises:
        ProtocolError: no tensor, a tensor without a first dimension, tensors that disagree, or fewer than two examples.
    """
    tensors = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]
    if not tensors:
        raise ProtocolError(
            f"the example batch is a {type(batch).__name__} without tensors; give what the loss takes, such as "
            "(inputs, targets)"
        )
    if any(tensor.dim() == 0 for tensor in tensors):
        raise ProtocolError(
            "the example batch holds a tensor without a first dimension; the first dimension of each tensor counts the "
            "examples, so put plain numbers into the loss itself"
        )
    sizes = sorted({len(tensor) for tensor in tensors})
    if len(sizes) > 1:
        raise ProtocolError(
            f"the tensors of the example batch have {', '.join(map(str, sizes))} rows; the first dimension of each counts the "
            "same examples"
        )
    if sizes[0] < 2:
        raise ProtocolError(
            f"the example batch holds {sizes[0]} example{'s' if sizes[0] != 1 else ''}; give at least 2, better 8: whether "
            "examples look at each other cannot be seen from one"
        )
    return sizes[0]


def take(batch: Any, rows: Sequence[int]) -> Any:
    """These rows of every tensor, in memory of their own."""
    return pytree.tree_map(lambda leaf: leaf[list(rows)] if isinstance(leaf, Tensor) else leaf, batch)


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether both are the same to the bit; NaN is the same as itself, 0 is not −0."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return torch.equal(*(value.detach().cpu().contiguous().view(-1).view(torch.uint8) for value in (first, second)))


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one module."""

    module: nn.Module
    inputs: list[Tensor]
    outputs: list[Tensor]


class Patient:
    """A model, its loss and a batch, copied.

    Args:
        double: in float64. Nobody asked the model whether it goes along with that.

    Raises:
        PlanError: the model cannot be copied.
    """

    def __init__(self, model: nn.Module, loss: LossFunction, batch: Any, *, double: bool = False):
        self.original = model
        self.model, self.loss = _copied(model, loss)
        self.model.train()
        self.batch = batch
        if double:
            for module in (self.model, self.loss):
                if isinstance(module, nn.Module):
                    module.double()
            self.batch = pytree.tree_map(_doubled, batch)
        self.examples = examples_in(batch)
        self._state = {name: value.detach().clone() for name, value in self._named()}
        self._attributes = self._plain_attributes()
        self._generators = [
            (value, value.get_state())
            for module in self.model.modules()
            for value in vars(module).values()
            if isinstance(value, torch.Generator)
        ]

    def precise(self) -> "Patient":
        """The same in float64, where rounding hides nothing; or this one, where model or loss do not go along."""
        try:
            double = Patient(self.model, self.loss, self.batch, double=True)
            calls, losses = double.watched(double.batch)
        except Exception:  # whatever a user's code says to a dtype that it did not expect
            return self
        outputs = [value for call in calls for value in call.outputs if value.is_floating_point()]
        return double if all(value.dtype == torch.float64 for value in (losses, *outputs)) else self

    def keep(self, rows: Sequence[int]) -> None:
        """Leaves only these examples in the batch."""
        self.batch, self.examples = self.rows(rows), len(rows)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable ones."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def rows(self, rows: Sequence[int]) -> Any:
        return take(self.batch, rows)

    def renew(self, seed: int = 0) -> None:
        """Weights, buffers and random numbers as they were at first."""
        with torch.no_grad():
            for name, value in self._named():
                if name in self._state and not same_bits(value, self._state[name]):
                    value.copy_(self._state[name])
        for generator, state in self._generators:
            generator.set_state(state)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed devices that are not in use yet
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  the user's model may draw from it

    def losses(self, batch: Any, seed: int = 0) -> Tensor:
        """What the loss gives for a batch, whatever that is."""
        self.renew(seed)
        with torch.enable_grad():
            return self.loss(self.model, batch)

    def gradient(self, loss: Tensor) -> dict[str, Tensor | None]:
        """Of one value, by ordinary autograd; none for a parameter that took no part."""
        parameters = self.parameters()
        found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
        dense = [value.to_dense() if value is not None and value.is_sparse else value for value in found]
        return dict(zip(parameters, dense, strict=True))

    def flat_gradient(self, loss: Tensor) -> Tensor:
        """The same in one piece, in float64, with zeros for what took no part."""
        parameters = self.parameters()
        found = self.gradient(loss)
        parts = [
            (torch.zeros_like(value) if found[name] is None else found[name]).double().flatten()  # pyright: ignore[reportOptionalMemberAccess]
            for name, value in parameters.items()
        ]
        return torch.cat(parts).detach()

    def watched(self, batch: Any) -> tuple[list[Call], Tensor]:
        """Every call of every module, in the order in which they end (what is inside of a module first); and the losses."""
        calls: list[Call] = []

        def keep(module: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
            calls.append(Call(module, _tensors((args, kwargs)), _tensors(outputs)))

        handles = [module.register_forward_hook(keep, with_kwargs=True) for module in self.model.modules()]
        try:
            losses = self.losses(batch).detach()
        finally:
            for handle in handles:
                handle.remove()
        return calls, losses

    @functools.cached_property
    def computes_in_half(self) -> bool:
        """Whether any module gives 16-bit numbers, as under autocast."""
        calls, _ = self.watched(self.batch)
        return any(value.is_floating_point() and value.dtype.itemsize < 4 for call in calls for value in call.outputs)

    # -- what a run leaves behind -----------------------------------------------------------------------------------

    def changed_tensors(self) -> list[str]:
        """Names of weights and buffers that are not, to the bit, what they were; also of buffers that came or went."""
        now = dict(self._named())
        names = [name for name, value in self._state.items() if name not in now or not same_bits(now[name], value)]
        return names + [name for name in now if name not in self._state]

    def changed_attributes(self) -> list[str]:
        """Names of numbers and tensors, neither weights nor buffers, that a run has changed."""
        now = self._plain_attributes()
        return [name for name, value in now.items() if name not in self._attributes or not _same(value, self._attributes[name])]

    def is_buffer(self, name: str) -> bool:
        return name not in dict(self.model.named_parameters())

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.model.named_parameters()
        yield from self.model.named_buffers()

    def _plain_attributes(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, module in self.model.named_modules():
            for key, value in vars(module).items():
                if key != "training" and isinstance(value, (bool, int, float, Tensor)):
                    found[f"{name}.{key}".lstrip(".")] = value.detach().clone() if isinstance(value, Tensor) else value
        return found

    # -- how it is run ----------------------------------------------------------------------------------------------

    @contextmanager
    def alive(self) -> Iterator[None]:
        """The caller's random numbers, and whatever a loss that ignores its argument does to the original, are put back."""
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        modes = {module: module.training for module in self.original.modules()}
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        try:
            with torch.random.fork_rng(devices=devices):
                yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            self.touched_original()
            for module, mode in modes.items():
                module.training = mode

    def touched_original(self) -> list[str]:
        """Names of the original's weights and buffers that have changed meanwhile; they are put back."""
        names = []
        for kind in (self.original.named_parameters(), self.original.named_buffers()):
            for name, value in kind:
                if name in self._state and not same_bits(value, self._state[name]):
                    names.append(name)
                    with torch.no_grad():
                        value.copy_(self._state[name])
        return names

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """No dropout and its like, so that an example alone can be compared with the same one in a batch."""
        before: list[tuple[Any, str, Any]] = []
        for module in self.model.modules():
            if isinstance(module, Draws):
                before.append((module, "training", module.training))
                module.training = False
            elif isinstance(module, (_DropoutNd, nn.RNNBase, nn.MultiheadAttention)):
                key = "p" if isinstance(module, _DropoutNd) else "dropout"
                before.append((module, key, getattr(module, key)))
                setattr(module, key, 0.0)
        kept, self._attributes = self._attributes, self._plain_attributes()
        try:
            yield
        finally:
            self._attributes = kept
            for module, key, value in before:
                setattr(module, key, value)


def _copied(model: nn.Module, loss: LossFunction) -> tuple[nn.Module, LossFunction]:
    """Both together, so that a loss object which holds the model holds the copy; a function stays what it is."""
    try:
        return copy.deepcopy((model, loss))
    except Exception:  # whatever a user's __deepcopy__ raises; most often RuntimeError and TypeError
        pass
    try:
        return copy.deepcopy(model), loss
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise PlanError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {said}), and the doctor leaves your own model "
            "alone; make copy.deepcopy(model) work: keep no tensor that was computed from weights, no open file and no lock "
            "as an attribute"
        ) from None


def _doubled(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _tensors(value: Any) -> list[Tensor]:
    """Copies: what is changed in place later must not change them."""
    return [leaf.detach().clone() for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return same_bits(first, second)
    return type(first) is type(second) and not isinstance(first, Tensor) and (first == second or first != first)
