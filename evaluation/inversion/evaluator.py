"""Who judges a reconstruction: a classifier of another architecture, trained on examples that the target never saw.

    judge = Judge.train(inputs, targets, classes)        # the population part of the split
    judge.accuracy(held_out_inputs, held_out_targets)    # printed beside every figure that rests on it
    judge.labels(reconstructions)

It is a support-vector machine with a radial kernel; of pictures of people :mod:`evaluation.inversion.recogniser` is the judge,
and both are held apart from what attacker and target used (:func:`check_apart`). A judge's own accuracy bounds what
"identified" can mean; success with one judge alone has many false positives, so distances to private and to public examples
stand beside it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.svm import SVC
from torch import Tensor

from dptrain.data.dataset import contents
from dptrain.errors import DataError
from evaluation.metrics import proportion
from evaluation.result import Measure

LEAST_A_CLASS = 2
MOST_SEEN = 5000
"""Examples that the evaluator learns from, at most: its training time grows with their square."""


def flat(inputs: Tensor) -> Float[np.ndarray, "examples features"]:
    return inputs.flatten(1).double().numpy()


@dataclass(frozen=True, eq=False)
class Judge:
    """A trained evaluator."""

    model: SVC
    seen: frozenset[bytes] = frozenset()
    """Hashes of the examples that it learned from."""

    @classmethod
    def train(cls, inputs: Tensor, targets: Tensor, classes: int) -> "Judge":
        """An evaluator from labelled examples that neither target nor attacker used.

        Raises:
            DataError: a class has too few examples to learn from.
        """
        check_enough(targets, classes)
        kept = np.random.default_rng(0).permutation(len(inputs))[:MOST_SEEN]
        model = SVC(C=10.0, gamma="scale", random_state=0).fit(flat(inputs)[kept], targets.numpy()[kept])
        return cls(model, hashes(inputs[torch.from_numpy(kept)]))

    def labels(self, inputs: Tensor) -> Int[np.ndarray, " examples"]:
        return self.model.predict(flat(inputs))

    def accuracy(self, inputs: Tensor, targets: Tensor) -> Measure:
        """Its own accuracy on examples that it was not trained on."""
        right = int((self.labels(inputs) == targets.numpy()).sum())
        return proportion(right, len(targets), "evaluator_accuracy")


def check_enough(targets: Tensor, classes: int, instead: str = "give it more examples of each class") -> None:
    """Raises DataError where a class has too few examples to learn from.

    Args:
        instead: what to type where it has.
    """
    counts = np.bincount(targets.numpy(), minlength=classes)
    if counts.min() < LEAST_A_CLASS:
        raise DataError(
            f"the independent evaluator finds {counts.min()} examples of class {int(counts.argmin())} to learn from, which "
            f"neither target nor attacker has, and needs {LEAST_A_CLASS}; {instead}"
        )


def hashes(inputs: Tensor) -> frozenset[bytes]:
    """One of each example's content."""
    return frozenset(contents(inputs.float()))


def check_apart(seen: frozenset[bytes], **used: Tensor) -> None:
    """The evaluator shares no example with what target or attacker used, such as ``members=`` and ``public=``.

    Raises:
        DataError: it does; what it says of a reconstruction would mean nothing.
    """
    for what, inputs in used.items():
        shared = len(seen & hashes(inputs))
        if shared:
            raise DataError(
                f"the independent evaluator has learned from {shared} of the examples that are {what} too; train it on "
                "examples that neither target nor attacker used"
            )


def class_means(inputs: Tensor, targets: Tensor, classes: int) -> Tensor:
    """The mean input of each class, ``[classes, ...]``; NaN for a class without an example."""
    return torch.stack([inputs[targets == label].mean(0) for label in range(classes)])


def nearest_distance(points: Tensor, examples: Tensor) -> Float[np.ndarray, " points"]:
    """Root mean squared difference, in units of the inputs, from each point to the nearest of the examples."""
    apart = torch.cdist(points.flatten(1).double(), examples.flatten(1).double())
    return (apart.min(1).values / points[0].numel() ** 0.5).numpy()
