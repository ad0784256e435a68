"""A model behind a guard, called as the model is.

model = Guarded(model, fitted("top5-rounded", owner))
model(inputs)               # [examples, classes]: logarithms of what is shown, -inf for what is withheld
model.answers(inputs)       # the same as Answers
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dptrain.errors import UserError
from dptrain.release.guard import Answers, Guard


class Guarded(nn.Module):
    """Any PyTorch classifier whose outputs are ``[examples, classes]`` before the softmax.

    The guard stands in training mode as in evaluation mode; the mode is that of the model inside. No gradient comes through.
    What is drawn is drawn from everything that is passed, by name or not, as far as it is a tensor with one row an example.
    """

    def __init__(self, model: nn.Module, guard: Guard):
        super().__init__()
        self.model = model
        self.guard = guard

    def forward(self, *inputs: Any, **named: Any) -> Float[Tensor, "examples classes"]:
        """Logarithms of the scores that are shown, on the device and of the type of the model's own outputs; of a refused
        example all are -inf, so that its softmax is no number."""
        logits, answers = self._asked(inputs, named)
        with np.errstate(divide="ignore"):
            return torch.from_numpy(np.log(answers.scores)).to(logits)

    def answers(self, *inputs: Any, **named: Any) -> Answers:
        """What is shown."""
        return self._asked(inputs, named)[1]

    @torch.no_grad()
    def _asked(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Tensor, Answers]:
        logits = self.model(*inputs, **named)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(f"the model gave {shape}; a guard stands before one row of classes an example, [examples, classes]")
        rows = [given.flatten(1) for given in _tensors((*inputs, *dict(sorted(named.items())).values()), len(logits))]
        if not rows:
            raise UserError(f"the model was asked without a tensor of {len(logits)} rows, from which a guard knows the query")
        query = rows[0] if len(rows) == 1 else torch.cat([row.cpu().double() for row in rows], 1)
        return logits, self.guard.answers(query, logits.double().cpu().numpy())


def _tensors(given: tuple[Any, ...], examples: int) -> Iterator[Tensor]:
    for value in given:
        if isinstance(value, Tensor) and value.dim() > 0 and len(value) == examples:
            yield value if value.dim() > 1 else value[:, None]
