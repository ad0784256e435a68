"""Who judges reconstructed pictures: a recogniser with a convolutional or a linear form, trained on few images of each person.

    judge = Recogniser.train(inputs, targets, classes, form="convolutional")     # held-out images of the private people
    judge.accuracy(members, member_targets)                                      # printed beside every figure that rests on it
    judge.identified(pictures, most=5)                                           # top-5 identification

It has three or so images of each person, so each step shows them moved, turned, scaled, mirrored, lighter or darker, of more or
less contrast, blurred and with pixel noise. The blur and the noise are there since a recogniser that knows sharp pictures alone
says of a poor one what it says by chance, and a reconstruction is a poor picture. Every picture is brought to mean 0 and
variance 1 first, for judge and training alike.

Its architecture (group normalisation, mean pooling, half resolution) is no model's of ``dptrain.models``. It remembers by their
hashes which pictures it has seen; :func:`~evaluation.inversion.evaluator.check_apart` refuses one that attacker or target used.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain.errors import DataError
from evaluation.inversion.evaluator import check_enough, hashes
from evaluation.inversion.pictures import LEAST_SIDE, blurred
from evaluation.metrics import proportion
from evaluation.result import Measure

Form = Literal["convolutional", "linear"]

STEPS = 400
BATCH = 40
LEARNING_RATE = 3e-3
HALVED_FROM = 32
"""Pictures with no side shorter than this are looked at in half their resolution."""
CHUNK = 256


@dataclass(frozen=True, eq=False)
class Recogniser:
    """A trained judge of pictures ``[examples, channels, height, width]``."""

    body: nn.Module
    """Pictures to their embedding."""
    head: nn.Linear
    seen: frozenset[bytes]
    """Hashes of the pictures that it learned from."""

    @classmethod
    def train(
        cls, inputs: Tensor, targets: Tensor, classes: int, *, form: Form = "convolutional", seed: int = 0
    ) -> "Recogniser":
        """A judge from labelled pictures that neither target nor attacker used.

        Raises:
            DataError: a class has too few of them, or they are smaller than 16×16.
        """
        check_enough(targets, classes)
        check_size(inputs)
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            body, width = _body(tuple(inputs.shape[1:]), form)
            network = nn.Sequential(body, nn.Linear(width, classes)).train()
            optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-2)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
            for _ in range(STEPS):
                drawn = torch.randperm(len(inputs), generator=generator)[:BATCH]
                logits = network(standardised(varied(inputs[drawn], generator)))
                optimizer.zero_grad()
                F.cross_entropy(logits, targets[drawn]).backward()
                optimizer.step()
                schedule.step()
        network.eval().requires_grad_(False)
        head = network[1]
        assert isinstance(head, nn.Linear)
        return cls(body, head, hashes(inputs))

    def embedding(self, pictures: Tensor) -> Tensor:
        """Where a picture lies among others, ``[examples, width]``, each of length 1."""
        with torch.no_grad():
            parts = [self.body(standardised(chunk)) for chunk in pictures.split(CHUNK)]
        return F.normalize(torch.cat(parts), dim=1)

    def ranked(self, pictures: Tensor) -> Int[np.ndarray, "examples classes"]:
        """All classes of each picture, the most probable one first."""
        with torch.no_grad():
            parts = [self.head(self.body(standardised(chunk))) for chunk in pictures.split(CHUNK)]
        return np.argsort(-torch.cat(parts).double().numpy(), axis=1, kind="stable")

    def labels(self, pictures: Tensor) -> Int[np.ndarray, " examples"]:
        return self.ranked(pictures)[:, 0]

    def accuracy(self, inputs: Tensor, targets: Tensor) -> Measure:
        """Its own accuracy on examples that it was not trained on."""
        right = int((self.labels(inputs) == targets.numpy()).sum())
        return proportion(right, len(targets), "evaluator_accuracy")

    def identified(self, pictures: Tensor, *, most: int = 1) -> Measure:
        """Share of classes, one picture each, whose own class is among the ``most`` first ones."""
        ranked, classes = self.ranked(pictures), len(pictures)
        right = int((ranked[:, :most] == np.arange(classes)[:, None]).any(1).sum())
        return proportion(right, classes, f"identified_top{most}")


def check_size(inputs: Tensor) -> None:
    """Raises DataError where these are no pictures, or too small ones."""
    if inputs.dim() != 4 or min(inputs.shape[2:]) < LEAST_SIDE:
        raise DataError(
            f"people are recognised in pictures of at least {LEAST_SIDE}×{LEAST_SIDE}, and these are of "
            f"{'×'.join(map(str, inputs.shape[2:] if inputs.dim() == 4 else inputs.shape[1:]))}; give larger ones, such as "
            f"--data.image-size {LEAST_SIDE} {LEAST_SIDE}, or leave class inversion out of evaluation.attacks"
        )


def _body(shape: tuple[int, ...], form: Form) -> tuple[nn.Module, int]:
    """Pictures to features, and how many there are."""
    channels, height, width = shape
    halved = [nn.AvgPool2d(2)] if min(height, width) >= HALVED_FROM else []
    if form == "linear":
        body = nn.Sequential(*halved, nn.Flatten())
        with torch.no_grad():
            return body, body(torch.zeros(1, *shape)).shape[1]
    stages = [nn.Conv2d(channels, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU(), nn.AvgPool2d(2)]
    stages += [nn.Conv2d(32, 64, 3, padding=1), nn.GroupNorm(4, 64), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    trunk = nn.Sequential(*halved, *stages)
    with torch.no_grad():
        features = trunk(torch.zeros(1, *shape)).shape[1]
    return nn.Sequential(trunk, nn.Dropout(0.3), nn.Linear(features, 64), nn.ReLU()), 64


def standardised(pictures: Float[Tensor, "examples channels height width"]) -> Float[Tensor, "examples channels height width"]:
    """Each picture with mean 0 and variance 1."""
    mean, deviation = pictures.mean((1, 2, 3), keepdim=True), pictures.std((1, 2, 3), keepdim=True)
    return (pictures - mean) / (deviation + 1e-3)


def varied(
    pictures: Float[Tensor, "examples channels height width"], generator: torch.Generator
) -> Float[Tensor, "examples channels height width"]:
    """Pictures as they could have been taken: each turned by up to 9°, scaled by up to 15%, moved by up to 7.5% of the side,
    mirrored or not, its contrast changed by up to 30% and its brightness by up to a fifth of the range; with noise of a
    standard deviation up to 0.15; half of them blurred by a Gaussian of up to two pixels."""
    uniform, count = functools.partial(_uniform, generator), len(pictures)
    turn, scale = uniform(-0.15, 0.15, count), uniform(0.85, 1.15, count)
    mirror = torch.where(uniform(0, 1, count) < 0.5, -1.0, 1.0)
    along, across = torch.cos(turn) * scale, torch.sin(turn) * scale
    first = torch.stack([along * mirror, -across, uniform(-0.15, 0.15, count)], 1)
    second = torch.stack([across * mirror, along, uniform(-0.15, 0.15, count)], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), list(pictures.shape), align_corners=False)
    moved = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    moved = moved * uniform(0.7, 1.3, count, 1, 1, 1) + uniform(-0.2, 0.2, count, 1, 1, 1)
    half = count // 2
    moved = torch.cat([blurred(moved[:half], float(uniform(0, 2, 1))), moved[half:]])
    return moved + uniform(0, 0.15, count, 1, 1, 1) * torch.randn(moved.shape, generator=generator)


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
