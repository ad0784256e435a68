"""Parameters that no layer with a rule owns: scales, positional tables, class tokens, weights of a user's own modules.

While the pass runs, every torch function that is given such a parameter comes by here. Three things can happen to it:

* It is computed with by itself (sliced, reshaped, exponentiated, multiplied by another one): what comes out depends on no
  example, and is followed like the parameter.
* It is expanded over the examples, or meets a tensor of examples in an elementwise function: there it is replaced by one copy
  an example (a view: no memory is taken), and the gradient that arrives at a copy is that example's own.
* It is the weight of a product, a table look-up or a normalisation: the rule of that layer is used.

Anything else raises :class:`~dptrain.clipping.rules.Unfit`. Gradients with respect to something that was computed from
parameters are carried back to them by one batched vector-Jacobian product.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dptrain.clipping.contributions import Contribution, Instantiated, OuterProducts, Rows
from dptrain.clipping.rules import Unfit

ELEMENTWISE: set[Any] = {
    torch.add, torch.sub, torch.mul, torch.div, torch.true_divide, torch.pow, torch.maximum, torch.minimum, torch.where,
    torch.rsub, torch.lerp, torch.addcmul,
    Tensor.add, Tensor.sub, Tensor.mul, Tensor.div, Tensor.pow, Tensor.maximum, Tensor.minimum, Tensor.where, Tensor.lerp,
    Tensor.__add__, Tensor.__radd__, Tensor.__sub__, Tensor.__rsub__, Tensor.__mul__, Tensor.__rmul__, Tensor.__truediv__,
    Tensor.__rtruediv__, Tensor.__pow__, Tensor.__rpow__, Tensor.true_divide, Tensor.multiply, Tensor.addcmul,
}  # fmt: skip
EXPANDING: set[Any] = {Tensor.expand, Tensor.expand_as, Tensor.repeat, torch.broadcast_to, Tensor.broadcast_to}
PRODUCTS: set[Any] = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm}


class LooseParameters(TorchFunctionMode):
    """Follows the parameters ``named`` through a forward pass over ``examples`` examples; a context."""

    def __init__(self, named: dict[str, nn.Parameter], constants: set[int], examples: int):
        super().__init__()
        self._names = {id(value): name for name, value in named.items()}
        self._constants = constants
        self._examples = examples
        self._twins: dict[str, Tensor] = {}
        """By name: the tensor that stands for the parameter in what is computed from parameters alone."""
        self._followed: dict[int, Tensor] = {}
        """Twins and what was computed from them, by the identity of what the model holds."""
        self._held: list[Any] = []
        """Keeps followed tensors alive: an identity must not be given to another one."""
        self._found: list[tuple[Tensor, Contribution]] = []
        self.leaves: list[Tensor] = []
        """From where the backward pass has to begin, besides others."""
        self.log: list[tuple[str, str]] = []
        """What happened where: it must be the same for a batch of any size."""

    # -- the forward pass -------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        followed = [tensor for tensor in _tensors((args, kwargs)) if self._of(tensor) is not None]
        if not followed:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name.endswith("_") and not name.endswith("__"):
            raise Unfit(f"a parameter is changed in place by {name}")
        others = [t for t in _tensors((args, kwargs)) if self._of(t) is None and self._has_examples(t)]
        if func in EXPANDING and not others:
            return self._expand(func, args, kwargs)
        if func is Tensor.expand_as:
            return self._expand(Tensor.expand, (args[0], *args[1].shape), {})
        if not others:
            return self._follow(func, name, args, kwargs)
        self.log.append((name, "meets"))
        if func in ELEMENTWISE:
            return self._meet(func, args, kwargs, max(other.dim() for other in others))
        if func is F.linear or func in PRODUCTS:
            return self._product(func, *args, **kwargs)
        if func is F.embedding:
            return self._look_up(*args, **kwargs)
        if func in (F.layer_norm, F.rms_norm, F.group_norm):
            return self._normalise(func, *args, **kwargs)
        raise Unfit(f"a parameter that no layer owns is used in {name}")

    def _of(self, tensor: Tensor) -> Tensor | None:
        """The stand-in for a parameter or for what was computed from some."""
        if id(tensor) in self._followed:
            return self._followed[id(tensor)]
        name = self._names.get(id(tensor))
        if name is None:
            return None
        twin = tensor.detach().requires_grad_()
        self._twins[name] = self._followed[id(tensor)] = twin
        self._held.append(tensor)
        return twin

    def _has_examples(self, tensor: Tensor) -> bool:
        return id(tensor) not in self._constants and tensor.dim() > 0 and len(tensor) == self._examples

    def _swap(self, value: Any, into: Callable[[Tensor], Tensor]) -> Any:
        if isinstance(value, Tensor):
            mine = self._of(value)
            return value if mine is None else into(mine)
        if isinstance(value, (tuple, list)):
            return type(value)(self._swap(item, into) for item in value)
        return {key: self._swap(item, into) for key, item in value.items()} if isinstance(value, dict) else value

    def _follow(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        with torch.enable_grad():
            out = func(*self._swap(args, lambda twin: twin), **self._swap(kwargs, lambda twin: twin))
        made = list(_tensors(out))
        for tensor in made:
            if tensor.requires_grad:
                self._followed[id(tensor)] = tensor
                self._held.append(tensor)
        if made:
            self.log.append((name, "follows"))
        return out

    def _expand(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        before = self._of(args[0])
        if before is None:
            return func(*args, **kwargs)
        out = func(before.detach(), *args[1:], **kwargs)
        first = out.dim() - before.dim() > 0 or len(before) == 1
        if not (first and out.dim() and len(out) == self._examples):
            return self._follow(func, "expand", args, kwargs)
        self.log.append(("expand", "copies"))
        shape = before.shape[1:] if before.dim() == out.dim() else before.shape
        return self._copies(before, out.detach(), tuple(shape))

    def _copies(self, before: Tensor, copies: Tensor, shape: tuple[int, ...]) -> Tensor:
        """``copies [examples, *]`` of ``before``, which was of this shape: the gradient of each is an example's own."""
        leaf = copies.requires_grad_()
        self.leaves.append(leaf)

        def arrive(gradient: Tensor) -> None:
            extra = gradient.dim() - 1 - len(shape)
            gradient = gradient.detach()
            if extra > 0:
                gradient = gradient.flatten(1, extra).sum(1) if extra > 0 else gradient
            repeated = [i for i, size in enumerate(shape, 1) if size == 1 and gradient.shape[i] > 1]
            gradient = gradient.sum(repeated, keepdim=True) if repeated else gradient
            if gradient.shape[1:] != shape:
                raise Unfit("a parameter is repeated over more than the examples")
            self._found.append((before, Instantiated(gradient.reshape(len(gradient), *before.shape))))

        leaf.register_hook(arrive)
        return leaf

    def _meet(self, func: Any, args: Any, kwargs: Any, dimensions: int) -> Any:
        def copies(before: Tensor) -> Tensor:
            if before.dim() == dimensions and dimensions and len(before) == 1:
                shape = tuple(before.shape[1:])
            elif before.dim() < dimensions:
                shape = (1,) * (dimensions - 1 - before.dim()) + tuple(before.shape)
            else:
                raise Unfit(f"a parameter of shape {tuple(before.shape)} meets examples in their own dimension")
            expanded = before.detach().reshape(1, *shape).expand(self._examples, *shape)
            return self._copies(before, expanded, shape)

        return func(*self._swap(args, copies), **self._swap(kwargs, copies))

    # -- layers -----------------------------------------------------------------------------------------------------

    def _arrives(self, out: Tensor, arrive: Callable[[Tensor], None]) -> Tensor:
        if not out.requires_grad:
            out = out.detach().requires_grad_()
            self.leaves.append(out)
        out.register_hook(lambda gradient: arrive(gradient.detach()))
        return out

    def _plain(self, tensor: Tensor | None) -> Tensor | None:
        mine = None if tensor is None else self._of(tensor)
        return tensor if mine is None else mine.detach()

    def _product(self, func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``F.linear(x, weight, bias)``, or ``x @ weight`` with a weight of two dimensions."""
        mine = self._of(weight)
        if self._of(x) is not None or (mine is not None and mine.dim() != 2):
            raise Unfit("a parameter is multiplied by examples from the left, or has more than two dimensions")
        if x.dim() < 2:
            raise Unfit("a product was given an example without a batch dimension")
        turned = func is not F.linear
        plain, added = self._plain(weight), self._plain(bias)
        out = func(x, plain) if turned else func(x, plain, added)
        kept = x.detach()

        def arrive(gradient: Tensor) -> None:
            a, g = (part.reshape(len(part), -1, part.shape[-1]) for part in (kept, gradient))
            if mine is not None:
                pair = (g, a) if turned else (a, g)
                self._found.append((mine, OuterProducts(*pair, tuple(mine.shape))))
            if bias is not None and (own := self._of(bias)) is not None:
                self._found.append((own, Instantiated(g.sum(1))))

        return self._arrives(out, arrive)

    def _look_up(self, indices: Tensor, weight: Tensor, padding_idx: int | None = None, *options: Any, **named: Any) -> Tensor:
        mine = self._of(weight)
        if mine is None or any(options) or any(named.values()) or padding_idx is not None:
            raise Unfit("a table that no layer owns is looked up with options")
        out = F.embedding(indices, mine.detach())
        places = indices.reshape(len(indices), -1)

        def arrive(gradient: Tensor) -> None:
            self._found.append((mine, Rows(places, gradient.reshape(*places.shape, -1), len(mine))))

        return self._arrives(out, arrive)

    def _normalise(
        self, func: Any, x: Tensor, how: Any, weight: Tensor | None = None, bias: Tensor | None = None, *rest: Any, **named: Any
    ) -> Tensor:
        """A normalisation without its scale and shift, which are then applied as functions of their own."""
        if func is F.rms_norm and bias is not None:
            rest, bias = (bias,), None
        out = func(x, how, None, *rest, **named) if func is F.rms_norm else func(x, how, None, None, *rest, **named)
        view = (-1, *(1,) * (x.dim() - 2)) if func is F.group_norm else None
        for function, value in ((torch.mul, weight), (torch.add, bias)):
            if value is not None:
                value = value if view is None else self.__torch_function__(Tensor.view, (), (value, view))
                out = self.__torch_function__(function, (), (out, value))
        return out

    # -- after the backward pass --------------------------------------------------------------------------------------

    def deposits(self) -> Iterator[tuple[str, Contribution]]:
        """What was found for each parameter, by name; one that took part several times comes several times."""
        names = {id(twin): name for name, twin in self._twins.items()}
        twins = list(self._twins.items())
        for before, part in self._found:
            if id(before) in names:
                yield names[id(before)], part
                continue
            per_example = part.instantiate().gradients.to(before.dtype)
            try:
                gradients = torch.autograd.grad(
                    before,
                    [twin for _, twin in twins],
                    per_example,
                    retain_graph=True,
                    allow_unused=True,
                    is_grads_batched=True,
                )
            except RuntimeError as error:
                raise Unfit(f"what is computed from parameters cannot be followed back: {error}") from error
            for (name, _), gradient in zip(twins, gradients, strict=True):
                if gradient is not None:
                    yield name, Instantiated(gradient)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
