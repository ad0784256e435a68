"""A labelled data set in memory, with the public facts that training and attacks may use.

    data = DataSet.of(inputs, targets, classes=10, bounds=(0.0, 1.0))              # tensors of your own
    data = DataSet.from_map_style(dataset, classes=("no", "yes"), bounds=(0.0, 1.0))   # whatever has len() and [index]

It is itself a map-style data set of ``(input, target)``, which torch's ``Subset`` and ``DataLoader`` take, and
``data[split.members]`` is such a subset.

The number of examples, the examples and their order are private. Classes, shape and bounds are public: they are stated
by whoever wrote the loader or the recipe, never computed from the examples.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from dptrain.data.values import Values
from dptrain.errors import DataError

if TYPE_CHECKING:
    from torch.utils.data import Subset

    from dptrain.data.graph import Graph
    from dptrain.data.secrets import Secret
    from dptrain.data.tokens import Tokenizer

SHOWN = 10
"""Indices that an error names, at most."""


@dataclass(frozen=True, eq=False)
class Others:
    """Public examples of other classes than the data set's: other people's faces, known to everyone, the attacker included."""

    inputs: Shaped[Tensor, "others ..."]
    groups: Int[Tensor, " groups"]
    """Which of the other classes, people or texts each one shows, counted from 0."""
    targets: Shaped[Tensor, "targets ..."] | None = None
    """Of the kind of the data set's own, where they have such: what comes next in a public text."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """Examples and what is publicly known about them.

    Raises:
        DataError: no examples, a value that is not finite or outside its bounds, a label outside the classes, others that are
            not like the examples or among them, or both classes and a value to predict, or neither.
    """

    name: str
    inputs: Shaped[Tensor, "examples ..."]
    """In floating point; of a text whole numbers, one a token; of a graph the node's number, ``[nodes, 1]``."""
    targets: Shaped[Tensor, "targets ..."]
    """One an example: whole numbers, the index into ``classes``, or the encoded ``value`` in floating point. Of text that a
    language model learns, one for each place of the sequence, ``[examples, length]``."""
    classes: tuple[str, ...]
    """Empty where there is a ``value`` to predict."""
    bounds: tuple[float, float]
    """Public lowest and highest value of an input, after the loader's scaling by public constants."""
    kind: Literal["image", "table", "text", "graph"] = "image"
    features: tuple[str, ...] = ()
    """Of a table: the name of each input."""
    columns: tuple[str, ...] = ()
    """Of a table: its columns as they were stated, by which :func:`dptrain.data.table.decode` reads rows back from inputs."""
    value: Values | None = None
    """What is predicted in place of a class."""
    source: str = ""
    """Where the data come from, and on what terms."""
    published_test: int = 0
    """How many examples, the last ones, are the test part that the data set was published with."""
    published_members: int = 0
    """How many examples, the first ones, are the training part that it was published with."""
    published_validation: int = 0
    """How many examples, those after them, are its published validation part."""
    users: Int[Tensor, " users"] | None = None
    """Whose each example is, where one user has several: private, and by it examples are grouped where the unit is the user."""
    classes_are: Literal["kinds", "users"] = "kinds"
    """What one class is: a kind of example, or one user, whose examples it holds. As public as the classes' names are."""
    others: Others | None = None
    """Public examples of other classes, or of public text, known to everyone."""
    planted: "tuple[Secret, ...] | None" = None
    """Made-up secrets that stand in some of the examples."""
    graph: "Graph | None" = None
    """Whose nodes the examples are."""
    tokenizer: "Tokenizer | None" = None
    """Of text that is written in a published model's tokens; where there is none, in characters of the alphabet."""
    fingerprint: str = field(init=False)
    """A hash of the content, not of the path."""

    @classmethod
    def of(
        cls,
        inputs: Tensor,
        targets: Tensor,
        *,
        bounds: tuple[float, float],
        classes: int | Sequence[str] = (),
        value: Values | None = None,
        name: str = "mine",
        features: Sequence[str] = (),
        users: Tensor | None = None,
        source: str = "",
    ) -> "DataSet":
        """Tensors of one's own: pictures ``[examples, channels, height, width]``, text as whole numbers ``[examples, length]``,
        or rows ``[examples, features]``.

        Args:
            bounds: the lowest and highest value that an input can have. Public: known, not computed from the examples.
            classes: their names, or how many there are, which is as public; empty where there is a ``value``.
            value: what is predicted in place of a class; then targets are encoded by it.
            features: of rows, the name of each input.

        Raises:
            DataError: as for the class itself.
        """
        names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
        inputs = inputs if inputs.is_floating_point() or inputs.dtype == torch.int64 else inputs.long()
        kind = "text" if not inputs.is_floating_point() else "image" if inputs.dim() == 4 else "table"
        if kind == "table":
            inputs = inputs.flatten(1)
            features = features or [f"input {number}" for number in range(inputs.shape[1])]
        return cls(
            name=name,
            inputs=inputs,
            targets=targets if targets.is_floating_point() else targets.long(),
            classes=names,
            bounds=bounds,
            kind=kind,
            features=tuple(features),
            value=value,
            users=users,
            source=source,
        )

    @classmethod
    def from_map_style(cls, dataset: Any, *, inputs: int | str = 0, targets: int | str = 1, **facts: Any) -> "DataSet":
        """Any data set with ``len()`` and ``[index]``, read into memory once, so that it can be attacked.

        Each example is asked for as training asks for it. Where it is drawn anew each time (augmentation), give the data set
        without that: attacks ask about the examples themselves.

        Args:
            inputs, targets: where an example holds them: positions in a tuple, or keys of a dictionary.
            facts: as for :meth:`of`.

        Raises:
            DataError: it cannot be read by index, or its examples are of several shapes.
        """
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise DataError(
                f"a {type(dataset).__name__} cannot be read by index; give a map-style data set, with len() and [index]"
            )
        examples = [dataset[index] for index in range(len(dataset))]
        try:
            found = [torch.stack([torch.as_tensor(example[key]) for example in examples]) for key in (inputs, targets)]
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"the examples of the {type(dataset).__name__} cannot be put into one tensor of inputs and one of targets "
                f"({type(error).__name__}: {error}); say by inputs= and targets= where each one holds them, all of one shape"
            ) from None
        return cls.of(found[0], found[1], **facts)

    def __post_init__(self) -> None:
        if len(self.inputs) == 0:
            raise DataError(f"data set {self.name!r} is empty: it has 0 examples, and training needs at least 1")
        if self.inputs[0].numel() == 0:
            raise DataError(f"data set {self.name!r} has no inputs: its examples are of shape {self.input_shape}")
        if len(self.inputs) != len(self.targets):
            raise DataError(f"data set {self.name!r} has {len(self.inputs)} inputs and {len(self.targets)} labels")
        low, high = (float(value) for value in torch.aminmax(self.inputs))
        if not math.isfinite(low) or not math.isfinite(high):  # NaN anywhere makes both NaN
            finite = torch.isfinite(self.inputs.reshape(len(self.inputs), -1)).all(1)
            first = int((~finite).nonzero()[0])
            raise DataError(
                f"data set {self.name!r} holds NaN or infinity in {int((~finite).sum())} examples, the first at index "
                f"{first} (counted from 0); mend or remove them before training"
            )
        if low < self.bounds[0] - 1e-6 or high > self.bounds[1] + 1e-6:
            raise DataError(f"data set {self.name!r} has values outside its public bounds {self.bounds}")
        self._check_targets()
        if self.users is not None and len(self.users) != len(self.inputs):
            raise DataError(
                f"data set {self.name!r} has {len(self.inputs)} inputs and {len(self.users)} users; give one an input"
            )
        if self.classes_are == "users" and (self.users is None or not torch.equal(self.users, self.targets)):
            raise DataError(
                f"data set {self.name!r} says that each class is one user, and its users are not its labels; give "
                "users=targets, or leave classes_are out"
            )
        if not 0 <= self.published_test < len(self.inputs):
            raise DataError(
                f"data set {self.name!r} has {len(self.inputs)} examples and a published test part of {self.published_test}; "
                "give a whole number from 0 up that leaves some to train on"
            )
        if (self.kind == "graph") != (self.graph is not None):
            raise DataError(
                f"data set {self.name!r} is of kind {self.kind!r} and has {'a' if self.graph else 'no'} graph; give both"
            )
        if self.graph is not None and (
            self.graph.nodes != len(self) or not torch.equal(self.inputs[:, 0], torch.arange(len(self)))
        ):
            raise DataError(
                f"data set {self.name!r} has inputs that are not the numbers of its graph's {self.graph.nodes} nodes"
            )
        if self.others is not None:
            self._check(self.others)
        content = hashlib.sha256()
        others = () if self.others is None else (self.others.inputs, self.others.groups, self.others.targets)
        graph = () if self.graph is None else (self.graph.features, self.graph.edges, self.graph.held_out)
        for tensor in (self.inputs, self.targets, *graph, *(part for part in others if part is not None)):
            content.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            content.update(tensor.contiguous().numpy().reshape(-1).view(np.uint8).data)
        object.__setattr__(self, "fingerprint", content.hexdigest())

    def _check_targets(self) -> None:
        if (self.value is None) == (not self.classes):
            raise DataError(
                f"data set {self.name!r} has {len(self.classes)} classes and {'no' if self.value is None else 'a'} value to "
                "predict; give either classes or a value"
            )
        if self.value is None:
            if int(self.targets.min()) < 0 or int(self.targets.max()) >= len(self.classes):
                raise DataError(f"data set {self.name!r} has labels outside its {len(self.classes)} classes")
        elif not self.targets.is_floating_point() or not bool((self.targets.abs() <= 0.5 + 1e-6).all()):
            raise DataError(
                f"data set {self.name!r} has targets outside of -0.5 to 0.5, or whole numbers; encode values with Values.encode"
            )

    def _check(self, others: Others) -> None:
        """Raises DataError where the others are not of the examples' shape, outside of the bounds, or examples themselves."""
        inputs, what = others.inputs, f"data set {self.name!r} has public examples of other classes"
        if len(inputs) == 0 or len(inputs) != len(others.groups):
            raise DataError(f"{what}, {len(inputs)} inputs and {len(others.groups)} groups; give as many of both, at least 1")
        if inputs.shape[1:] != self.inputs.shape[1:] or inputs.dtype != self.inputs.dtype:
            raise DataError(
                f"{what} of shape {tuple(inputs.shape[1:])}, {inputs.dtype}, and its own are of {self.input_shape}, "
                f"{self.inputs.dtype}; give both alike"
            )
        inside = (inputs >= self.bounds[0] - 1e-6) & (inputs <= self.bounds[1] + 1e-6)  # a NaN fails this too
        if not bool(inside.all()):
            raise DataError(f"{what} with values that are NaN or outside its public bounds {self.bounds}")
        if int(others.groups.min()) < 0:
            raise DataError(f"{what} in groups below 0; count them from 0")
        known = frozenset(contents(inputs))
        both = [index for index, content in enumerate(contents(self.inputs)) if content in known]
        if both:
            named = ", ".join(map(str, both[:SHOWN])) + (", ..." if len(both) > SHOWN else "")
            raise DataError(
                f"{what}, and {len(both)} of its own are among them, at the indices {named} (counted from 0): a private "
                "example would teach what is taken to be public; leave each out on one side"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    @overload
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...

    @overload
    def __getitem__(self, index: np.ndarray) -> "Subset[Any]": ...

    def __getitem__(self, index: "int | np.ndarray") -> "tuple[Tensor, Tensor] | Subset[Any]":
        """An example; or, by the indices of several, such as a split's members, a map-style data set of these."""
        if isinstance(index, np.ndarray):
            from torch.utils.data import Subset

            whole: Any = self
            return Subset(whole, index.tolist())
        return self.inputs[index], self.targets[index]

    @property
    def is_language(self) -> bool:
        """Whether each place of a sequence has a target: what comes next."""
        return self.targets.dim() == 2

    def written(self, numbers: Int[Tensor, " numbers"]) -> str:
        """Of a text: what a person reads where these numbers stand."""
        if self.tokenizer is not None:
            return self.tokenizer.decode(numbers)
        from dptrain.data.alphabet import decode

        return decode(numbers)

    @property
    def outputs(self) -> int:
        """How many numbers a model gives for an example: one a class, or one."""
        return len(self.classes) or 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.inputs.shape[1:])


def contents(inputs: Shaped[Tensor, "examples ..."]) -> Iterator[bytes]:
    """A hash of each example's content; −0 and 0 are one number."""
    plain = (inputs.detach().cpu() + 0).contiguous().flatten(1).numpy()
    return (hashlib.sha256(example.tobytes()).digest() for example in plain)
