"""What a training watches so that its ε stays true: its state, whose weights these are, and that examples stay apart.

    watch = StateWatch(model, loss)          # from here on, nothing writes into either but the training itself
    watch.check("the forward pass of a step", bits=True)
    watch.record(bits=False)                 # the optimizer moved the trainable weights, by right

Noise is added to gradients alone. A tensor of the model that a forward pass writes (a counter, a running mean, the centre of a
moving average, a codebook: buffer or parameter, frozen or not) carries private examples to the release, or to later
gradients, without noise; one of the loss carries them to later gradients. And weights that a second optimizer moves are not
in the account.
"""

import dis
import functools
import hashlib
import operator
import random
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dptrain.data.examples import Examples
from dptrain.errors import PlanError, ProtocolError

BITS_FIRST = 3
"""Steps at the beginning of a training after each of which all content is compared, to the bit."""
BITS_EVERY = 50
"""And then one step of so many."""

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def digest(value: Tensor) -> bytes:
    """A hash of type, shape and content to the bit, in whatever memory format it lies. NaN is like any other content."""
    value = value.detach()
    kind = f"{value.dtype} {tuple(value.shape)}".encode()
    if value.layout != torch.strided:
        value = value.to_dense()
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    bits = value.resolve_neg().contiguous().reshape(-1).view(_INTEGERS[value.element_size()])
    return hashlib.sha256(kind + hashlib.sha256(bits.cpu().numpy().data).digest()).digest()


def modules_of(function: Any) -> list[nn.Module]:
    """The modules that a function brings along: itself, what it is a method of, what it holds bound or enclosed, and what it
    names among its globals; of an object that is called, or whose method is, what its attributes hold. Tensors of such an
    object come as a module of their own. Those in lists, and deeper in other objects, are not found."""
    found: dict[int, nn.Module] = {}
    seen: dict[int, Any] = {}
    waiting = [function]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        if isinstance(part, nn.Module):
            found[id(part)] = part
        elif isinstance(part, functools.partial):
            waiting += [part.func, *part.args, *part.keywords.values()]
        elif isinstance(part, types.MethodType):
            waiting += [part.__self__, part.__func__]
        elif isinstance(part, types.FunctionType):
            waiting += [cell.cell_contents for cell in part.__closure__ or () if cell != _EMPTY]
            named = {code.argval for code in dis.get_instructions(part) if code.opname == "LOAD_GLOBAL"}
            waiting += [part.__globals__[name] for name in named if isinstance(part.__globals__.get(name), nn.Module)]
        elif callable(part) and not isinstance(part, type) and hasattr(part, "__dict__"):
            held = _Held({name: value for name, value in vars(part).items() if isinstance(value, Tensor)})
            waiting += [held, *(value for value in vars(part).values() if isinstance(value, nn.Module))]
    return list(found.values())


class _Held(nn.Module):
    """Tensors that an object keeps, to be watched like those of a module."""

    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value)


_EMPTY = types.CellType()
"""A variable that was not given a value yet."""


class StateWatch:
    """Notices whoever writes into a model, or into the modules of its loss, but the training itself.

    Looked at are all buffers and all parameters. A step costs a look at each tensor's identity, address and version counter;
    content is compared where these say that something happened, and where ``bits`` asks for it. Not caught: what is written
    into a trainable weight through ``.data``, which no version counts, between two looks at the bits (see ``BITS_EVERY``); and
    hooks of the optimizer, which run inside of the update itself.
    What was not found as it was left is never forgotten: from then on every check fails.
    """

    def __init__(self, model: nn.Module, loss: Any):
        self._roots: tuple[tuple[str, nn.Module], ...] = (
            ("", model),
            *((f"loss{number or ''}", module) for number, module in enumerate(m for m in modules_of(loss) if m is not model)),
        )
        self._trainable = {id(value) for value in model.parameters() if value.requires_grad}
        self._bits_known = True
        """Whether there are digests of the trainable weights."""
        self._fired: str | None = None
        self._modules = [module for _, root in self._roots for module in root.modules()]
        self._tree = [(module._modules, list(module._modules.values())) for module in self._modules]
        """Children of each, by which it is seen that there are others: to walk through all modules anew takes longer."""
        self._tensors, self._marks = self._look()
        """As they were when last seen. Held, so that none that takes their place can have their address."""
        self._digests = {name: digest(value) for name, value in self._named()}
        """Of what may never change; and of trainable weights as they were recorded last, where that was asked for."""

    def check(self, during: str, *, bits: bool) -> None:
        """Raises ProtocolError, with the tensor's name, where one is not as it was left.

        Args:
            during: what has just happened, for the message.
            bits: compare content where identity, address and version are the same, too.
        """
        if self._fired is None:
            tensors, marks = self._look()
            same = len(tensors) == len(self._tensors) and all(map(operator.is_, tensors, self._tensors))
            if bits or not same or marks != self._marks:
                self._compare(tensors, marks, during)
            self._tensors, self._marks = tensors, marks  # last: what an interrupt cuts off was not seen
        if self._fired is not None:
            raise ProtocolError(self._fired)

    def record(self, *, bits: bool) -> None:
        """Takes the trainable weights as they are now for right; everything else stays as it was at the beginning.

        Args:
            bits: keep a digest of them, so that the next check can compare them, too.
        """
        known = {id(value): mark for value, mark in zip(self._tensors, self._marks, strict=True)}
        tensors, marks = self._look()
        self._marks = [
            mark if id(value) in self._trainable else known.get(id(value), (0, 0))
            for value, mark in zip(tensors, marks, strict=True)
        ]
        self._tensors = tensors
        if bits:
            self._digests |= {name: digest(value) for name, value in self._named() if id(value) in self._trainable}
            self._bits_known = True
        elif self._bits_known:
            for name in [name for name, value in self._named() if id(value) in self._trainable]:
                self._digests.pop(name, None)
            self._bits_known = False

    def follow(self, model: nn.Module) -> None:
        """Weights that were frozen or set free since: from here on the update moves those that are free, and no others."""
        trainable = {id(value) for value in model.parameters() if value.requires_grad}
        if trainable == self._trainable:
            return
        turned, self._trainable = trainable ^ self._trainable, trainable
        self._digests |= {name: digest(value) for name, value in self._named() if id(value) in turned}
        self._bits_known = True  # of some: the next record takes care of all

    def renew(self, model: nn.Module) -> None:
        """Takes all that a ``state_dict`` holds as it is now for right: it was just loaded."""
        loaded = set(model.state_dict())
        self._tensors, self._marks = self._look()
        self._bits_known = True
        self._digests |= {name: digest(value) for name, value in self._named() if name in loaded}

    def _compare(self, tensors: list[Tensor], marks: list[tuple[int, int]], during: str) -> None:
        known = {id(value): mark for value, mark in zip(self._tensors, self._marks, strict=True)}
        for (name, value), mark in zip(self._named(), marks, strict=True):
            expected = self._digests.get(name)
            if expected is None and known.get(id(value)) == mark:
                continue  # its bits are not known at present
            if expected is None or digest(value) != expected:
                self._fire(name, value, during)
                return
        if len(tensors) != len(self._tensors):
            self._fired = f"the model lost a tensor in {during}; leave its modules as they are while it is trained"

    def _fire(self, name: str, value: Tensor, during: str) -> None:
        kind = "parameter" if isinstance(value, nn.Parameter) else "buffer"
        self._fired = (
            f"{kind} {name!r} changed in {during}, outside of the update that carries noise and is counted: what is in it may "
            "be of private examples without noise, so this training neither steps nor saves any more. Let no forward pass "
            "write into model or loss, no second optimizer and no loading touch the weights, and move or load them before "
            "make_private()"
        )

    def _look(self) -> tuple[list[Tensor], list[tuple[int, int]]]:
        if not all(children == list(held.values()) for held, children in self._tree):
            self._modules = [module for _, root in self._roots for module in root.modules()]
            self._tree = [(module._modules, list(module._modules.values())) for module in self._modules]
        tensors = [
            value
            for module in self._modules
            for held in (module._parameters, module._buffers)
            for value in held.values()
            if value is not None
        ]
        return tensors, [_mark(value) for value in tensors]

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        """In the order of :meth:`_look`."""
        for prefix, root in self._roots:
            for place, module in root.named_modules(prefix=prefix):
                for held in (module._parameters, module._buffers):
                    for name, value in held.items():
                        if value is not None:
                            yield (f"{place}.{name}" if place else name), value


class OptimizerWatch:
    """Notices whoever writes into an optimizer's state, such as momentum, between the updates that make it.

    What is loaded or written there moves the weights without noise. Looked at are identity and version of each tensor.
    """

    def __init__(self, optimizer: Optimizer):
        self._optimizer = optimizer
        self._known = self._look()

    def record(self) -> None:
        """The optimizer just made its step, by right."""
        self._known = self._look()

    def check(self) -> None:
        """Raises ProtocolError where the state is not as the latest step left it."""
        if self._look() != self._known:
            raise ProtocolError(
                f"the state of {type(self._optimizer).__name__}, such as momentum, was changed between two steps: what is "
                "written there moves the weights without noise, and is not counted. Leave it to step() and resume(); call "
                "make_private() with a new optimizer"
            )

    def _look(self) -> list[tuple[str, int, int]]:
        return [
            (str(name), id(value), value._version if isinstance(value, Tensor) else 0)
            for state in self._optimizer.state.values()
            for name, value in state.items()
        ]


def _mark(value: Tensor) -> tuple[int, int]:
    """Version counter and address; what has none of one kind is compared by content alone."""
    version = -1 if value.is_inference() else value._version
    return version, value.data_ptr() if value.layout == torch.strided else 0


# -- whose weights these are ------------------------------------------------------------------------------------------


_TRAINED_BY: dict[int, object] = {}
"""Identity of a parameter to the training that moved it: a second one would state its own part of the spending for all.

By parameter, as a model is easily wrapped anew. By identity, as tensors compare element by element; an entry goes when its
parameter does.
"""


def claim(parameters: Iterable[Tensor], training: object, *, all_replaced: bool = False) -> None:
    """Marks those of the parameters that are trainable as moved by this training.

    Args:
        training: stands for it.
        all_replaced: whatever moved them before, every parameter was just replaced.

    Raises:
        ProtocolError: one of them, frozen or not, was moved by another training.
    """
    for parameter in parameters:
        owner = _TRAINED_BY.get(id(parameter))
        if owner is training:
            continue
        if owner is not None and not all_replaced:
            raise ProtocolError(
                "another training has already moved this model's weights, and this one's ε would leave that out; train a "
                "new model, or a copy.deepcopy of this one if those examples were public"
            )
        if parameter.requires_grad or all_replaced:
            if owner is None:
                weakref.finalize(parameter, _TRAINED_BY.pop, id(parameter), None).atexit = False
            _TRAINED_BY[id(parameter)] = training


# -- augmentation -----------------------------------------------------------------------------------------------------

_PROBED = 4
_DRAWS = 8


def check_augment(augment: Callable[[Any], Any], examples: Examples, views: int) -> None:
    """Refuses an augmentation in which examples look at each other: then one changes the gradients of all.

    A few examples are augmented twice with the same random numbers, once beside other examples. Each draw of random numbers is
    tried for each example; torch's, numpy's and Python's generators are left as they were.

    Raises:
        PlanError: an example's rows differ, or there are not as many rows as before.
    """
    count = min(_PROBED, len(examples))
    own = np.arange(count)
    others = (own + (count if len(examples) >= 2 * count else max(1, len(examples) // 2))) % len(examples)
    here, there = (examples.take(np.repeat(positions, views)) for positions in (own, others))
    rows = count * views
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002  the user's generator
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            for seed in range(_DRAWS):
                together = _seeded(augment, _mixed(here, here, np.ones(rows, bool)), seed)
                for kept in range(count):
                    stays = np.repeat(own == kept, views)
                    apart = _seeded(augment, _mixed(here, there, stays), seed)
                    if _content(together, rows, stays) != _content(apart, rows, stays):
                        raise PlanError(
                            "augment gives an example other rows where other examples stand beside it (as mixup, batch "
                            "statistics and a generator of its own do), so what one example changes cannot be bounded; "
                            "augment each row by itself, with random numbers of torch, numpy or random"
                        )
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def _seeded(augment: Callable[[Any], Any], batch: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    return augment(batch)


def _mixed(here: Any, there: Any, stays: np.ndarray) -> Any:
    """A fresh batch: rows of ``here`` where they stay, and of ``there`` elsewhere."""
    if isinstance(here, Tensor):
        mixed = there.clone()
        mixed[torch.from_numpy(stays)] = here[torch.from_numpy(stays)]
        return mixed
    if isinstance(here, dict):
        return {key: _mixed(value, there[key], stays) for key, value in here.items()}
    if isinstance(here, list | tuple):
        if len(here) == len(stays) and all(isinstance(value, str | bytes) for value in here):
            return [one if stay else other for one, other, stay in zip(here, there, stays, strict=True)]
        parts = [_mixed(one, other, stays) for one, other in zip(here, there, strict=True)]
        return type(here)(*parts) if hasattr(here, "_fields") else type(here)(parts)
    return here


def _content(batch: Any, rows: int, chosen: np.ndarray) -> list[object]:
    """What stands in the chosen rows, to the bit."""
    if isinstance(batch, Tensor):
        if batch.dim() == 0 or len(batch) != rows:
            given = "a single number" if batch.dim() == 0 else f"{len(batch)} rows"
            raise PlanError(
                f"augment was given {rows} rows and gave {given}; augment each row by itself, and give one for each"
            )
        return [digest(batch[torch.from_numpy(chosen).to(batch.device)])]
    if isinstance(batch, dict):
        return [part for key in batch for part in (key, *_content(batch[key], rows, chosen))]
    if isinstance(batch, list | tuple):
        if batch and all(isinstance(value, str | bytes) for value in batch):
            return [value for value, stays in zip(batch, chosen, strict=True) if stays]
        return [part for value in batch for part in _content(value, rows, chosen)]
    return []
