"""What is kept of shadow models: their answers on every example, and on request their weights."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dptrain.data.dataset import DataSet
from dptrain.errors import UserError
from dptrain.models import front

CHUNK = 4096
"""Rows that a model answers at once."""
SEQUENCES = 256
"""The same of a language model, at most."""
MOST_LOGITS = 2**24
"""Of a language model, in memory at once: 64 MB of them."""


@dataclass(frozen=True)
class Views:
    """Augmented views of examples, about each of which an attack asks.

    Views("mirrored", lambda inputs: torch.stack([inputs, inputs.flip(-1)]))
    """

    name: str
    """Enters the fleet's hash, and must change where ``of`` does."""
    of: Callable[[Tensor], Tensor]
    """``[examples, ...]`` to ``[views, examples, ...]``; the same for the same inputs, so that all models answer the same."""


@dataclass(frozen=True, eq=False)
class Fleet:
    """What shadow models say about every example, and which of them had seen it."""

    logits: Float[np.ndarray, "models examples classes"]
    """Of regression models, one output; of language models the log-probability of what is at each place; otherwise before the
    softmax. Kept in float32, as the models give them; what is computed from them belongs in float64."""
    membership: Bool[np.ndarray, "models examples"]
    digest: str
    views: Float[np.ndarray, "models views examples classes"] | None = None
    """The same for augmented views of every example, where the attack asks several questions about each."""
    weights: Mapping[str, np.ndarray] | None = None
    """Every tensor of the models' state, ``[models, *shape]``; None where they were not kept."""
    build: Callable[[], nn.Module] | None = None
    """An untrained model of the same architecture."""

    def model(self, index: int) -> nn.Module:
        """One of the models, in evaluation mode.

        Raises:
            UserError: the weights of this fleet were not kept.
        """
        if self.weights is None or self.build is None:
            raise UserError("this fleet kept its models' answers and not their weights; train it anew with keep_weights=True")
        model = self.build()
        model.load_state_dict({name: torch.from_numpy(np.asarray(value[index])) for name, value in self.weights.items()})
        return model.eval()


@dataclass(frozen=True, eq=False)
class Answers:
    """Of some models of a fleet."""

    models: Int[np.ndarray, " some"]
    """Their numbers in the fleet."""
    logits: Float[np.ndarray, "some examples classes"]
    views: Float[np.ndarray, "some views examples classes"] | None = None
    weights: Mapping[str, np.ndarray] | None = None

    @classmethod
    def of(
        cls, model: nn.Module, number: int, data: DataSet, views: Views | None = None, keep_weights: bool = False
    ) -> "Answers":
        """Of one trained model."""
        seen = None
        if views is not None:
            seen = np.concatenate([_of_views(model, part) for part in chunks_of_inputs(views, data)], 1)[None]
        state = {name: value.detach().cpu().clone().numpy()[None] for name, value in model.state_dict().items()}
        return cls(np.array([number]), logits_of(model, data)[None], seen, state if keep_weights else None)

    @classmethod
    def joined(cls, parts: "list[Answers]") -> "Answers":
        """Of all models together, in the order of their numbers; one that comes twice counts once."""
        _, order = np.unique(np.concatenate([part.models for part in parts]), return_index=True)

        def join(name: str) -> Any:
            held = [getattr(part, name) for part in parts]
            if any(value is None for value in held):
                return None
            if isinstance(held[0], Mapping):
                return {key: np.concatenate([value[key] for value in held])[order] for key in held[0]}
            return np.concatenate(held)[order]

        return cls(**{item.name: join(item.name) for item in dataclasses.fields(cls)})


@torch.no_grad()
def logits_of(model: nn.Module, data: DataSet, chunk: int = CHUNK) -> Float[np.ndarray, "examples classes"]:
    """The model's outputs on every example, in evaluation mode, float32; of a language model what :func:`places` gives."""
    model.eval()
    if data.is_language:
        return places(model, data.inputs, data.targets, sequences_at_once(data.targets.shape[1], data.outputs)).numpy()
    inputs = front.made(model.front, data) if isinstance(model, front.WithFront) else data.inputs
    return torch.cat([model(part) for part in inputs.split(chunk)]).float().numpy()


@torch.no_grad()
def places(
    model: nn.Module, inputs: Int[Tensor, "examples length"], targets: Int[Tensor, "examples length"], chunk: int = SEQUENCES
) -> Float[Tensor, "examples length"]:
    """The log-probability, in nats, that a language model gives to what is at each place: all logits together would be as many
    as there are characters, or tokens, for each."""
    parts = [
        -F.cross_entropy(model(given).transpose(1, 2), wanted, reduction="none")
        for given, wanted in zip(inputs.split(chunk), targets.split(chunk), strict=True)
    ]
    return torch.cat(parts).float()


def sequences_at_once(length: int, tokens: int) -> int:
    """How many sequences of this length a language model of so many tokens answers at once."""
    return max(1, min(SEQUENCES, MOST_LOGITS // max(1, length * tokens)))


def chunks_of_inputs(views: Views, data: DataSet) -> Iterator[Float[Tensor, "views rows ..."]]:
    """The views of some examples after the other: those of all need not be in memory together.

    Raises:
        UserError: the caller's function does not give views of each of the inputs.
    """
    size = CHUNK
    for start in range(0, len(data), size):
        inputs = data.inputs[start : start + size]
        made = views.of(inputs)
        if made.dim() < 2 or len(made) == 0 or made.shape[1:] != inputs.shape:
            raise UserError(
                f"views {views.name!r} made {tuple(made.shape)} of inputs {tuple(inputs.shape)}; give a function that makes "
                "[views, *the inputs' shape]"
            )
        yield made


@torch.no_grad()
def _of_views(model: nn.Module, views: Tensor) -> Float[np.ndarray, "views rows classes"]:
    model.eval()
    logits = torch.cat([model(part) for part in views.flatten(0, 1).split(CHUNK)])
    return logits.unflatten(0, tuple(views.shape[:2])).float().numpy()
