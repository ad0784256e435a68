"""HAMP's way of answering (Chen, Pattabiraman 2024, "Overconfidence is a Dangerous Thing: Mitigating Membership Inference
Attacks by Enforcing Less Confident Prediction").

The scores of a query are replaced by those that the model gives for a random input, put in the order of the query's own: the
class that is most probable carries the highest, and so on. So an answer depends on its query by the order of the classes alone,
and shows no more of it than ``labels`` of all classes; confidence is that of an input that nobody was trained on.

The random inputs are drawn uniformly between the bounds, :data:`POOL` of them once from the secret key; which of them stands in
for a query is drawn from the key and the query. (The paper draws a new one for each query, which costs a second answer.)

The other half of HAMP is in training, with labels and outputs of high entropy: ``regularization.label_entropy`` and
``regularization.output_entropy``. Without it the model's own order of classes may say more.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dptrain.errors import UserError
from dptrain.release.guard import Answers, Guard, Logits, Owner, draws, scores_of

POOL = 1024
LIFT = 1e-9
"""Of the highest score, where no random input has one highest score."""


@dataclass(frozen=True, eq=False)
class HAMP(Guard):
    """Scores of random inputs, in the order of the query's own."""

    pool: Float[np.ndarray, "inputs classes"]
    """The model's scores for random inputs, each row from the highest down."""
    inputs: Tensor
    key: bytes

    keeps_labels = True

    @classmethod
    def fit(cls, number: float | None, owner: Owner) -> "HAMP":
        low, high = owner.bounds
        if owner.reads != "numbers" or not (math.isfinite(low) and math.isfinite(high)):
            raise UserError(
                f"hamp draws random inputs between public bounds, and the inputs are {owner.reads} from {low:g} to {high:g}; "
                "give another guard, such as labels5, which shows as little"
            )
        seed = int.from_bytes(hashlib.blake2b(owner.key, digest_size=7, person=b"hamp").digest(), "big")
        drawn = torch.rand(POOL, *owner.input_shape, generator=torch.Generator().manual_seed(seed))
        return cls.of(owner.outputs, low + (high - low) * drawn, owner.key)

    @classmethod
    def of(cls, outputs: Callable[[Tensor], Logits], inputs: Tensor, key: bytes) -> "HAMP":
        """With the answers of this model to these inputs, without those whose two highest scores are equal: the label would be
        lost. Where all are such, as of a model before its first step, the highest is raised by :data:`LIFT`."""
        scores = -np.sort(-scores_of(outputs(inputs))[0], axis=1)
        clear = scores[:, 0] > scores[:, 1] if scores.shape[1] > 1 else np.ones(len(scores), dtype=bool)
        if not clear.any():
            clear[:] = True
            scores[:, 0] += LIFT
        return cls(scores[clear], inputs, key)

    def before(self, outputs: Callable[[Tensor], Logits]) -> "HAMP":
        return HAMP.of(outputs, self.inputs, self.key)

    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        chosen = (draws(inputs, self.key, "hamp")[:, 0] * len(self.pool)).astype(int)
        scores = np.zeros_like(answers.scores)
        np.put_along_axis(scores, answers.best(scores.shape[1]), self.pool[chosen], axis=1)
        return Answers.of(scores)

    @classmethod
    def says(cls, number: float | None) -> str:
        return (
            "Scores are those of random inputs, in the order of the query's own classes (HAMP, Chen and Pattabiraman 2024). "
            "That is no privacy guarantee: the order of all classes is shown, and tells members apart as well."
        )

    def statement(self) -> str:
        return self.says(None)
