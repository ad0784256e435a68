"""The one unknown example of any model: a network that has learned to read it off the final weights.

    def train(inputs, targets):                                    # the target's own training, from the same initial weights
        ...
        return model
    shadows = with_each(train, known, side)                        # one model a side example, trained on known ∪ {it}
    read = Reconstructor().fit(shadows, side[0], torch.Generator().manual_seed(0))
    read(weights_of(target)[None])                                 # [1, ...]: the example that is not known

The adversary knows all training examples but one, how training goes, and examples of the same source (*side*), and sees the
final model alone. He trains one shadow model on known ∪ {z_i} for each side example z_i, and a network that maps weights to
z_i (Balle, Cherubin, Hayes 2022, "Reconstructing Training Data with Informed Adversaries"). He knows the initial weights, as
in the paper; where ``train`` draws them anew each time, he does not. How near he comes is judged by
:mod:`~evaluation.inversion.one_unknown`.

**Known examples as side examples.** What z adds to the weights is one function of z, whether or not z is among the known
ones. So he can take them for z_i as well, and they are the most examples that he has.

**What the network sees.** What a model differs by from the mean shadow model, as a direction and the logarithm of its
length: a well-learned z moves the weights a hundred times less than an odd one, and in the same way. Directions are given by
their principal components over the shadow models. It learns the squared and the absolute error together. A part of the side
examples is held out: by them the best epoch is chosen, and then the share of what the network adds to the mean side example
that makes their squared error least. Where weights say nothing, such as under much noise, that share is 0 and the mean
example comes out.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dptrain.errors import DataError, unknown_name
from evaluation.access import Access
from evaluation.inversion.released import Labelled, flattened

Train = Callable[[Tensor, Tensor], nn.Module]
"""Inputs and targets to the model that was trained on them."""

InitialWeights = Literal["known", "unknown"]

LEAST = 20
"""Shadow models."""
BATCH = 64


def weights_of(model: nn.Module) -> Float[Tensor, " parameters"]:
    """All trainable parameters in one vector."""
    return flattened([value for value in model.parameters() if value.requires_grad])


def with_each(train: Train, known: Labelled, extra: Labelled) -> Float[Tensor, "models parameters"]:
    """The weights of models trained on the known examples and each of the others in turn, one after the other."""
    found = []
    for one in range(len(extra[0])):
        inputs, targets = (torch.cat([some, own[one : one + 1]]) for some, own in zip(known, extra, strict=True))
        found.append(weights_of(train(inputs, targets)))
    return torch.stack(found)


@dataclass(frozen=True, eq=False)
class Features:
    """What the network sees of weights; made from shadow models."""

    middle: Float[Tensor, " parameters"]
    log_length: tuple[float, float]
    """Mean and standard deviation of the logarithms."""
    axes: Float[Tensor, "components parameters"]
    scale: float

    @classmethod
    def of(cls, weights: Float[Tensor, "models parameters"], components: int) -> "Features":
        middle = weights.mean(0)
        directions, logarithms = _polar(weights - middle)
        _, values, axes = torch.linalg.svd(directions, full_matrices=False)
        spread = float(values[0]) / len(weights) ** 0.5
        deviation = float(logarithms.std()) or 1.0
        return cls(middle, (float(logarithms.mean()), deviation), axes[:components], 3 / max(spread, 1e-30))

    def __call__(self, weights: Float[Tensor, "models parameters"]) -> Float[Tensor, "models features"]:
        directions, logarithms = _polar(weights - self.middle)
        mean, deviation = self.log_length
        return torch.cat([self.scale * directions @ self.axes.t(), (logarithms - mean) / deviation], 1)


def _polar(change: Tensor) -> tuple[Tensor, Tensor]:
    lengths = change.norm(dim=1, keepdim=True).clamp_min(torch.finfo(change.dtype).tiny)
    return change / lengths, lengths.log()


@dataclass(frozen=True, eq=False)
class Trained:
    """A network that reads an example off weights."""

    features: Features
    network: nn.Module
    mean: Float[Tensor, "..."]
    """Of the side examples."""
    share: float
    """Of what the network adds to the mean, from 0 to 1; by held-out side examples."""
    bounds: tuple[float, float] | None

    @torch.no_grad()
    def __call__(self, weights: Float[Tensor, "models parameters"]) -> Float[Tensor, "models ..."]:
        """One example a model."""
        added = self.network(self.features(weights)).unflatten(1, self.mean.shape)
        found = self.mean + self.share * added
        return found if self.bounds is None else found.clamp(*self.bounds)


@dataclass(frozen=True, kw_only=True)
class Reconstructor:
    """A network of two hidden layers, from weights to the example that they were trained on beside the known ones.

    Raises:
        ConfigError: initial weights that are neither known nor unknown.
    """

    access: ClassVar[Access] = Access.WEIGHTS
    paper: ClassVar[str] = "Balle et al. 2022"

    shadow_models: int = 1000
    """At most, where :mod:`evaluation.final_model` trains them."""
    initial_weights: InitialWeights = "known"
    """To the adversary, where :mod:`evaluation.final_model` trains them: the target's own, or drawn anew for each model."""
    components: int = 256
    """Principal components of the weights."""
    width: int = 512
    epochs: int = 100
    step_size: float = 1e-3
    """Of AdamW; it falls to 0 along a cosine."""
    held_out: float = 0.1
    """Share of the side examples by which the epoch and the share are chosen."""

    def __post_init__(self) -> None:
        if self.initial_weights not in get_args(InitialWeights):
            raise unknown_name("initial_weights", self.initial_weights, get_args(InitialWeights))

    def fit(
        self,
        weights: Float[Tensor, "models parameters"],
        inputs: Float[Tensor, "models ..."],
        generator: torch.Generator,
        bounds: tuple[float, float] | None = None,
    ) -> Trained:
        """Learns from shadow models.

        Args:
            weights: of each shadow model.
            inputs: the side example that each was trained on beside the known ones.
            bounds: of an input, within which reconstructions are kept.

        Raises:
            DataError: there are fewer than 20 shadow models, or weights that are not finite.
        """
        finite = int(torch.isfinite(weights).all(1).sum())
        if finite < max(LEAST, len(weights)):
            raise DataError(
                f"{finite} of {len(weights)} shadow models have finite weights; give only such, at least {LEAST}, better 1,000"
            )
        order = torch.randperm(len(weights), generator=generator)
        held, rest = order.split(
            [round(self.held_out * len(order)) or 1, len(order) - (round(self.held_out * len(order)) or 1)]
        )
        features, flat = Features.of(weights[rest], self.components), inputs.flatten(1)
        mean = flat[rest].mean(0)
        seen, wanted = features(weights), flat - mean
        network = _network(seen.shape[1], self.width, flat.shape[1], generator).to(weights.dtype)
        best, least = copy.deepcopy(network.state_dict()), float("inf")
        adam = torch.optim.AdamW(network.parameters(), lr=self.step_size, weight_decay=1e-4, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.epochs)
        for _ in range(self.epochs):
            for batch in rest[torch.randperm(len(rest), generator=generator)].split(BATCH):
                apart = network(seen[batch]) - wanted[batch]
                adam.zero_grad()
                (apart.square().mean() + apart.abs().mean()).backward()
                adam.step()
            schedule.step()
            with torch.no_grad():
                error = float((network(seen[held]) - wanted[held]).square().mean())
            if error < least:
                best, least = copy.deepcopy(network.state_dict()), error
        network.load_state_dict(best)
        with torch.no_grad():
            added = network(seen[held])
        share = float((added * wanted[held]).sum() / added.square().sum().clamp_min(1e-30))
        return Trained(features, network, mean.view(inputs.shape[1:]), min(max(share, 0.0), 1.0), bounds)


def _network(features: int, width: int, outputs: int, generator: torch.Generator) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
        )
