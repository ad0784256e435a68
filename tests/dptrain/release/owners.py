"""A linear model of three numbers and five classes, and its owner."""

import numpy as np
import torch

from dptrain.release.guard import Owner
from dptrain.release.parts import Part, terms_of

CLASSES = 5
WEIGHTS = torch.randn(3, CLASSES, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def made(count: int, confidence: float, seed: int) -> np.ndarray:
    """Logits of a model that is surer of its members."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, CLASSES))
    logits[np.arange(count), generator.integers(0, CLASSES, count)] += confidence + generator.normal(size=count)
    return logits


MEMBERS, OTHERS = made(400, 6.0, 0), made(150, 3.0, 1)
ASKED = np.concatenate([made(120, 6.0, 2), made(120, 3.0, 3)])
INPUTS = torch.randn(240, 3, generator=torch.Generator().manual_seed(4))


def outputs(inputs: torch.Tensor) -> np.ndarray:
    return (inputs.double() @ WEIGHTS).numpy()


def owner(
    key: bytes = b"secret",
    members: np.ndarray | None = MEMBERS,
    others: np.ndarray | None = OTHERS,
    sensitivity: float = 1.0,
    model: str = "the model",
) -> Owner:
    return Owner(outputs, (3,), (-2.0, 2.0), CLASSES, key, model, members, others, sensitivity=sensitivity)


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(1).numpy()


def said(name: str) -> str:
    """The guard with a number, where it takes one."""
    number = terms_of(name).number
    return name if number is None else Part(name, number.example).text
