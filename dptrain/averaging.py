"""The average of the weights over the updates: less noise in what is released, at no cost in privacy.

Each update's weights a are folded into an exponential moving average e (Polyak and Juditsky 1992; for DP-SGD De et al. 2022,
"Unlocking High-Accuracy Differentially Private Image Classification through Scale"):

    e ← d e + (1 − d) a,        d = min(decay, (1 + t) / (10 + t)) after t updates; the first one is taken whole

The warm-up of d keeps the first updates, which are far off, from weighing as much as all later ones. The weights are
noised already, so their average is post-processing. With it, what is released, evaluated and attacked is e; the weights
from which the training goes on stay private, as every optimizer state does.

    private = make_private(model, optimizer, dataset, plan, loss=loss, average=0.99)
    ...
    with private.averaged() as model:
        measure(model)
"""

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dptrain.clipping.clipped import accumulator_dtype
from dptrain.errors import CheckpointError, PlanError


class WeightAverage:
    """The moving average of a model's trainable weights, kept in float32 or better.

    Raises:
        PlanError: the decay is not inside (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        number = isinstance(decay, (int, float)) and not isinstance(decay, bool)
        if not (number and math.isfinite(decay) and 0 < decay < 1):
            raise PlanError(f"average is {decay!r}; give a decay above 0 and below 1, such as 0.99, or None for no average")
        self.decay = float(decay)
        self.updates = 0
        self._model = model
        self._values: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] | None = None

    @property
    def is_shown(self) -> bool:
        """Whether the model holds the average at present, and not the weights that are trained."""
        return self._raw is not None

    def _weights(self) -> dict[str, Tensor]:
        return {name: value for name, value in self._model.named_parameters() if value.requires_grad}

    @torch.no_grad()
    def update(self) -> None:
        """Folds the model's present weights in."""
        now = {name: value.detach().to(accumulator_dtype(value.dtype)) for name, value in self._weights().items()}
        if not self._values:
            self._values = {name: value.clone() for name, value in now.items()}
        else:
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            get_ema_multi_avg_fn(decay)(list(self._values.values()), [now[name] for name in self._values], self.updates)
        self.updates += 1

    @torch.no_grad()
    def show(self) -> None:
        """Puts the average into the model. Before the first update there is none, and the weights stay."""
        weights = self._weights()
        self._raw = {name: weights[name].detach().clone() for name in self._values}
        for name, value in self._values.items():
            weights[name].copy_(value)

    @torch.no_grad()
    def hide(self) -> None:
        """Puts the trained weights back, to the bit."""
        weights = self._weights()
        for name, value in (self._raw or {}).items():
            weights[name].copy_(value)
        self._raw = None

    def pack(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The state as tensors and plain values, for a checkpoint."""
        return {f"average/{name}": value for name, value in self._values.items()}, {
            "decay": self.decay,
            "updates": self.updates,
        }

    def unpack(self, tensors: dict[str, Tensor], plain: dict[str, float] | None) -> None:
        """Takes a packed state up.

        Raises:
            CheckpointError: it is of another decay, or of another model.
        """
        if plain is None or plain["decay"] != self.decay:
            before = "no average" if plain is None else f"average={plain['decay']}"
            raise CheckpointError(
                f"the checkpoint was made with {before} and this training has average={self.decay}; use the same"
            )
        weights = self._weights()
        found = {name.removeprefix("average/"): value for name, value in tensors.items() if name.startswith("average/")}
        if plain["updates"] and {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in weights.items()}:
            raise CheckpointError(
                "the averaged weights in the checkpoint do not fit the model; give the model it was made with"
            )
        self._values = {name: found[name].to(weights[name].device) for name in found}
        self.updates = int(plain["updates"])
