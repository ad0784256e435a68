"""A language model of characters: embedding, one LSTM layer, linear.

    model(tokens)                        # [sequences, length] to logits [sequences, length, tokens] of what comes next
    logits, state = model.read(tokens)   # of what comes after the last one, and what the model keeps of them
    logits, state = model.read(more, state)

(Hochreiter and Schmidhuber 1997, "Long Short-Term Memory".) ``read`` makes many continuations of one beginning cheap: the state
after the beginning is shared.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain.errors import ConfigError
from dptrain.recipe import ModelConfig, RegularizationConfig

EMBEDDED = 64
"""Width of a token's embedding."""

State = tuple[Tensor, Tensor]


class CharacterLSTM(nn.Module):
    """See the module's text."""

    def __init__(self, tokens: int, width: int, dropout: float = 0.0):
        super().__init__()
        self.embedding = nn.Embedding(tokens, EMBEDDED)
        self.recurrent = nn.LSTM(EMBEDDED, width, batch_first=True)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.head = nn.Linear(width, tokens)

    def forward(self, tokens: Int[Tensor, "sequences length"]) -> Float[Tensor, "sequences length tokens"]:
        return self.head(self.dropout(self.recurrent(self.embedding(tokens))[0]))

    @torch.no_grad()
    def read(
        self, tokens: Int[Tensor, "sequences more"], state: State | None = None
    ) -> tuple[Float[Tensor, "sequences tokens"], State]:
        """Logits of what comes after ``tokens``, which come after what ``state`` was made of."""
        outputs, after = self.recurrent(self.embedding(tokens), state)
        return self.head(outputs[:, -1]), after


def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig) -> nn.Module:
    """``[sequences, length]`` tokens to logits ``[sequences, length, classes]``; ``config.hidden`` is the one layer's width.

    Raises:
        ConfigError: the inputs are no sequences of tokens, or there is not one width.
    """
    if len(input_shape) != 1:
        raise ConfigError(
            f"the model lstm reads sequences of tokens and the data set's inputs are {'×'.join(map(str, input_shape))}; choose "
            "--model.name cnn or mlp"
        )
    if len(config.hidden) != 1:
        raise ConfigError(f"model.hidden is {config.hidden} and the model lstm has one layer; give one width, such as 256")
    return CharacterLSTM(classes, config.hidden[0], regularization.dropout)
