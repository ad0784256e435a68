"""A model behind a guard, called as the model is.

model = Guarded(model, fitted("top5-rounded", owner))
model(inputs)               # [examples, classes]: logarithms of what is shown, -inf for what is withheld
model.answers(inputs)       # the same as Answers
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dptrain.errors import UserError
from dptrain.release.guard import Answers, Guard
from dptrain.release.queries import query_of


class Guarded(nn.Module):
    """Any PyTorch classifier whose outputs are ``[examples, classes]`` before the softmax.

    It takes the model over into evaluation mode and keeps it there: in training mode batch normalisation and dropout make an
    answer depend on what else is asked, or on when. No gradient comes through.

    What is drawn is drawn from everything that is passed, by name or not: of a tensor with one row an example from that row,
    and from all else whole. That is enough where an example's scores depend on its own rows, and on no state that changes from
    one call to the next.
    """

    def __init__(self, model: nn.Module, guard: Guard):
        super().__init__()
        self.model = model.eval()
        self.guard = guard

    def train(self, mode: bool = True) -> "Guarded":
        """Changes nothing of the model, which stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, *inputs: Any, **named: Any) -> Float[Tensor, "examples classes"]:
        """Logarithms of the scores that are shown, on the device of the model's own outputs and of their type, float32 at
        least; of a refused example all are -inf, so that its softmax is no number."""
        logits, answers = self._asked(inputs, named)
        with np.errstate(divide="ignore"):
            shown = torch.from_numpy(np.log(answers.scores))
        return shown.to(torch.promote_types(logits.dtype, torch.float32)).to(logits.device)

    def answers(self, *inputs: Any, **named: Any) -> Answers:
        """What is shown.

        Raises:
            UserError: the model was put into training mode, gives no row of classes an example, or is asked with something that
                a guard that draws cannot read.
        """
        return self._asked(inputs, named)[1]

    @torch.no_grad()
    def _asked(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Tensor, Answers]:
        if any(part.training for part in self.model.modules()):
            raise UserError(
                "the model was put into training mode, in which an answer may depend on the batch; call .eval() on it"
            )
        logits = self.model(*inputs, **named)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(f"the model gave {shape}; a guard stands before one row of classes an example, [examples, classes]")
        query = query_of(len(logits), inputs, named) if self.guard.draws else torch.empty(len(logits), 0)
        return logits, self.guard.answers(query, logits.double().cpu().numpy())
