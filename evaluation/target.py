"""A checkpoint behind an access level: the only door that attacks go through.

target = Target.open(Path("runs/digits/eps=08.00/seed=0/release"), Access.SCORES)
target.scores(inputs)       # [examples, classes], probabilities
target.logits(inputs)       # AccessError: this attacker sees scores
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain.checkpoint import load_release
from dptrain.data.graph import Graph
from dptrain.errors import CheckpointError, UserError
from dptrain.fleet import places, sequences_at_once
from dptrain.models.gap import NoisedSums
from dptrain.models.gcn import GraphNetwork
from dptrain.models.on_graph import OnGraph
from dptrain.release.guard import Guard
from dptrain.release.loading import Kind, model_of
from evaluation.access import Access, AccessError
from evaluation.completed import completed

CHUNK = 4096
MOST_GRADIENT_NUMBERS = 20_000_000
"""Numbers of per-example gradients that are in memory at once."""

Reading = tuple[Tensor, ...]
"""What a language model keeps of the tokens that it has read: tensors ``[layers, sequences, ...]``."""


def kind_of(targets: Tensor) -> Kind:
    """Of the models of these targets: whole numbers are classes, or a sequence of them what comes next; others are values."""
    if targets.is_floating_point():
        return "regression"
    return "language" if targets.dim() == 2 else "classification"


class Target:
    """A model, which it takes over and freezes, that answers up to its access level and counts its queries."""

    def __init__(
        self,
        model: nn.Module,
        access: Access,
        *,
        bounds: tuple[float, float],
        classes: int,
        kind: Kind = "classification",
        guard: Guard | None = None,
    ):
        self._model = model.eval()
        self.access = access
        self.bounds = bounds
        """Public lowest and highest value of an input."""
        self.classes = classes
        self.kind: Kind = kind
        self.guard = guard
        """What stands before labels and scores; whoever sees more of the model is behind it."""
        self.queries = 0
        for parameter in self._model.parameters():
            parameter.requires_grad_(False)

    @classmethod
    def open(cls, release: Path, access: Access, model: nn.Module | None = None) -> "Target":
        """The model of a ``release/`` folder, checked against its manifest.

        Args:
            model: the architecture to load into, where the card does not name a registered one.

        Raises:
            CheckpointError: the folder is incomplete or changed, or does not say how to build the model.
        """
        weights, card = load_release(release)
        data = card.get("data", {})
        if model is None:
            model = model_of(card, release)
        model = copy.deepcopy(model)  # the caller's own stays as it is: its weights, its mode, what is trainable
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(f"{release} does not fit the model: {error}") from None
        bounds = data.get("bounds", (-float("inf"), float("inf")))
        kind: Kind = data.get("models", "classification" if data.get("value") is None else "regression")
        return cls(model, access, bounds=(bounds[0], bounds[1]), classes=len(data.get("classes", ())), kind=kind)

    def bind(self, graph: Graph) -> None:
        """Of a model of nodes: from here on they are those of this graph, which no release holds."""
        model: Any = self._model
        model.bind(graph)

    def answers(self, features: Float[Tensor, "nodes features"]) -> Float[np.ndarray, "nodes classes"]:
        """Of a model of nodes: the scores of all of them, where the asker gives every node's features and the owner holds the
        edges, or what was released of them."""
        self._require(Access.SCORES)
        self.queries += len(features)
        with torch.no_grad():
            logits = self._nodes().answers(features).double().numpy()
        if self.guard is not None and self.access <= Access.SCORES:
            return completed(self.guard.answers(features, logits))
        return _scores(logits)

    def released_sums(
        self, features: Float[Tensor, "nodes features"]
    ) -> tuple[Float[np.ndarray, "nodes width"], Float[np.ndarray, "nodes width"]]:
        """Of a model of noised sums over neighbours: what was summed up of each node, and the first hop's sums as released.

        Raises:
            UserError: the model holds no such sums.
        """
        self._require(Access.WEIGHTS)
        front: Any = getattr(self._model, "front", None)
        if not isinstance(front, NoisedSums):
            raise UserError("the model holds no sums over neighbours")
        with torch.no_grad():
            return front.encoder(features).double().numpy(), front.sums[:, 0].double().numpy()

    def released_edges(self) -> Int[np.ndarray, "2 released"]:
        """Of a network over edges that were released with noise: those edges.

        Raises:
            UserError: none were.
        """
        self._require(Access.WEIGHTS)
        if not isinstance(self._model, GraphNetwork) or not bool(self._model.is_released):
            raise UserError("the model holds no released edges")
        return self._model.released.numpy()

    def embeddings(self, ids: Int[Tensor, "n 1"]) -> Float[np.ndarray, "n width"]:
        """Of a model of nodes: their last hidden layer."""
        self._require(Access.LOGITS)
        self.queries += len(ids)
        with torch.no_grad():
            return self._nodes().embeddings(ids).double().numpy()

    def on_adjacency(
        self, features: Float[Tensor, "nodes features"], adjacency: Float[Tensor, "nodes nodes"]
    ) -> Float[Tensor, "nodes classes"]:
        """Of a network over exact edges: logits over a dense symmetric adjacency without loops; differentiable in it.

        Raises:
            UserError: the model reads no exact edges.
        """
        self._require(Access.WEIGHTS)
        self.queries += len(features)
        model: Any = self._nodes()
        if not hasattr(model, "on_adjacency"):
            raise UserError(f"the model reads edges as {model.reads!r}, and no adjacency can be put into it")
        return model.on_adjacency(features, adjacency)

    def _nodes(self) -> OnGraph:
        if not isinstance(self._model, OnGraph):
            raise UserError(f"{type(self._model).__name__} is no model of nodes; give one with bind, answers and embeddings")
        return self._model

    def behind(self, access: Access) -> "Target":
        """The same model for an attacker of this level."""
        return Target(self._model, access, bounds=self.bounds, classes=self.classes, kind=self.kind, guard=self.guard)

    def labels(self, inputs: Tensor) -> Int[np.ndarray, "examples ..."]:
        """The most probable class of each input, -1 where a guard refused it; of a language model, the most probable token at
        each place."""
        if self.kind == "language":
            parts = [self._logits(part, Access.LABEL).argmax(-1) for part in inputs.split(self._at_once(inputs))]
            return np.concatenate(parts)
        logits = self._logits(inputs, Access.LABEL)
        if self.guard is None or self.guard.keeps_labels or self.access > Access.SCORES:
            return logits.argmax(-1)
        return self.guard.answers(inputs, logits).labels

    def scores(self, inputs: Tensor) -> Float[np.ndarray, "examples classes"]:
        """Class probabilities in float64; of a regression model its predictions.

        Behind a guard they are what an attacker who knows it makes of what is shown (:func:`~evaluation.completed.completed`).
        """
        logits = self._logits(inputs, Access.SCORES)
        if self.kind == "regression":
            return logits
        if self.guard is not None and self.access <= Access.SCORES:
            return completed(self.guard.answers(inputs, logits))
        return _scores(logits)

    def log_likelihoods(self, inputs: Tensor, targets: Tensor) -> Float[np.ndarray, "examples length"]:
        """Of a language model: the log-probability in nats of what is at each place, given what stands before."""
        self._require(Access.SCORES)
        self.queries += len(inputs)
        return places(self._model, inputs, targets, self._at_once(inputs)).double().numpy()

    def surprise(self, inputs: Tensor) -> tuple[Float[np.ndarray, "examples length"], Float[np.ndarray, "examples length"]]:
        """Of a language model: mean and standard deviation, at each place, of the log-probability in nats of a token that is
        drawn from what the model expects there."""
        self._require(Access.SCORES)
        self.queries += len(inputs)
        means, deviations = [], []
        with torch.no_grad():
            for part in inputs.split(self._at_once(inputs)):
                logs = self._model(part).double().log_softmax(-1)
                scores = logs.exp()
                means.append((scores * logs).sum(-1))
                deviations.append((scores * (logs - means[-1][..., None]).square()).sum(-1).sqrt())
        return torch.cat(means).numpy(), torch.cat(deviations).numpy()

    def read(
        self, tokens: Int[Tensor, "sequences more"], state: Reading | None = None
    ) -> tuple[Float[Tensor, "sequences tokens"], Reading]:
        """Of a language model: the log-probability in nats of each token that may come after ``tokens``, and what it keeps of
        them, so that many continuations share one beginning.

        A model with a method of this name answers by it (:class:`dptrain.models.lstm.CharacterLSTM`,
        :class:`dptrain.models.hugging_face.LowRank`); of every other one the
        state is the tokens so far, and it goes through all of them again.

        Args:
            state: of what stands before, one row a sequence; left out, nothing does.
        """
        self._require(Access.SCORES)
        self.queries += len(tokens)
        reads: Any = getattr(self._model, "read", None)
        with torch.no_grad():
            if reads is not None:
                logits, after = reads(tokens, state)
            else:
                so_far = tokens if state is None else torch.cat([state[0][0], tokens], 1)
                logits, after = self._model(so_far)[:, -1], (so_far[None],)
        return torch.log_softmax(logits.double(), -1), after

    def logits(self, inputs: Tensor) -> Float[np.ndarray, "examples classes"]:
        """Outputs before the softmax, in float64."""
        return self._logits(inputs, Access.LOGITS)

    def gradient(self, inputs: Tensor, objective: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Derivative of ``objective(logits) [examples]`` with respect to each input, and the objective itself."""
        self._require(Access.GRADIENTS)
        self.queries += len(inputs)
        leaf = inputs.detach().clone().requires_grad_(True)
        values = objective(self._model(leaf))
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
        return gradient, values.detach()

    def gradient_norms(
        self, inputs: Tensor, targets: Tensor, objective: Callable[[Tensor, Tensor], Tensor]
    ) -> dict[str, Float[np.ndarray, " examples"]]:
        """Norm of the derivative of each example's objective with respect to the weights, layer by layer.

        Args:
            objective: outputs ``[1, classes]`` and targets ``[1]`` to a scalar.

        Returns:
            The name of each module that has weights of its own, with one norm an example.
        """
        self._require(Access.WEIGHTS)
        self.queries += len(inputs)
        weights = {name: value.detach() for name, value in self._model.named_parameters()}
        buffers = dict(self._model.named_buffers())

        def of_one(given: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return objective(torch.func.functional_call(self._model, (given, buffers), (x[None],)), y[None])

        per_example = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0, 0))
        chunk = max(1, min(CHUNK, MOST_GRADIENT_NUMBERS // max(1, sum(value.numel() for value in weights.values()))))
        squares: dict[str, list[Tensor]] = {name.rpartition(".")[0]: [] for name in weights}
        for start in range(0, len(inputs), chunk):
            gradients = per_example(weights, inputs[start : start + chunk], targets[start : start + chunk])
            for layer, parts in squares.items():
                own = [value for name, value in gradients.items() if name.rpartition(".")[0] == layer]
                parts.append(torch.stack([value.flatten(1).double().square().sum(1) for value in own]).sum(0))
        return {layer: torch.cat(parts).sqrt().numpy() for layer, parts in squares.items()}

    def weights(self) -> dict[str, Tensor]:
        """A copy of every tensor of the model."""
        self._require(Access.WEIGHTS)
        return {name: value.detach().clone() for name, value in self._model.state_dict().items()}

    def _logits(self, inputs: Tensor, needed: Access) -> np.ndarray:
        self._require(needed)
        self.queries += len(inputs)
        with torch.no_grad():
            chunk = self._at_once(inputs)
            parts = [self._model(inputs[start : start + chunk]) for start in range(0, len(inputs), chunk)]
        return torch.cat(parts).double().numpy() if parts else np.empty((0, self.classes))

    def _at_once(self, inputs: Tensor) -> int:
        """How many inputs are answered at once."""
        return sequences_at_once(inputs.shape[1], self.classes) if self.kind == "language" else CHUNK

    def _require(self, needed: Access) -> None:
        if self.access < needed:
            raise AccessError(
                f"this attacker sees {self.access.word} and asked for {needed.word}; open the target with Access.{needed.name}"
            )


def _scores(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)
