"""A small transformer that reads characters from left to right.

    model(tokens)                        # [sequences, length] to logits [sequences, length, tokens] of what comes next
    logits, state = model.read(tokens)   # of what comes after the last one, and what the model keeps of them
    logits, state = model.read(more, state)

Blocks of causal self-attention and a fully connected layer of four times the width, each behind a layer normalisation and added
to what it was given (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"). Positions are asked for once
a sequence, so that each example has its own and its gradient can be told from the others'.

``read`` keeps keys and values: many continuations of one beginning read it once.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain.errors import ConfigError
from dptrain.recipe import ModelConfig, RegularizationConfig

HEAD_WIDTH = 24
"""Of one head of attention."""

State = tuple[Tensor, Tensor]
"""Keys and values, ``[blocks, sequences, heads, length, head width]``."""


class Block(nn.Module):
    """Attention, then a fully connected layer."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.before_attention, self.before_layer = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asked, self.answered = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(
        self, given: Float[Tensor, "sequences more width"], kept: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Float[Tensor, "sequences more width"], tuple[Tensor, Tensor]]:
        query, key, value = (
            part.unflatten(2, (self.heads, HEAD_WIDTH)).transpose(1, 2)
            for part in self.asked(self.before_attention(given)).chunk(3, dim=2)
        )
        if kept is not None:
            key, value = torch.cat([kept[0], key], 2), torch.cat([kept[1], value], 2)
        more, length = query.shape[2], key.shape[2]
        if kept is None:
            seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:  # of what is new, each place sees everything that was kept, and what is new up to itself
            mask = torch.ones(more, length, dtype=torch.bool, device=given.device).tril(length - more)
            seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        held = given + self.dropout(self.answered(seen.transpose(1, 2).flatten(2)))
        return held + self.dropout(self.narrow(F.gelu(self.wide(self.before_layer(held))))), (key, value)


class CharacterGPT(nn.Module):
    """See the module's text."""

    def __init__(self, tokens: int, length: int, width: int, layers: int, dropout: float = 0.0):
        super().__init__()
        self.length = length
        self.embedding, self.position = nn.Embedding(tokens, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, tokens)
        for layer in self.modules():
            if isinstance(layer, (nn.Linear, nn.Embedding)):
                nn.init.normal_(layer.weight, std=0.02)
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Int[Tensor, "sequences length"]) -> Float[Tensor, "sequences length tokens"]:
        held = self._embedded(tokens, 0)
        for block in self.blocks:
            held, _ = block(held)
        return self.head(self.last(held))

    @torch.no_grad()
    def read(
        self, tokens: Int[Tensor, "sequences more"], state: State | None = None
    ) -> tuple[Float[Tensor, "sequences tokens"], State]:
        """Logits of what comes after ``tokens``, which come after what ``state`` was made of."""
        held = self._embedded(tokens, 0 if state is None else state[0].shape[3])
        kept: list[tuple[Tensor, Tensor]] = []
        for number, block in enumerate(self.blocks):
            held, both = block(held, None if state is None else (state[0][number], state[1][number]))
            kept.append(both)
        keys, values = zip(*kept, strict=True)
        return self.head(self.last(held[:, -1])), (torch.stack(keys), torch.stack(values))

    def _embedded(self, tokens: Tensor, first: int) -> Tensor:
        places = torch.arange(first, first + tokens.shape[1], device=tokens.device).expand_as(tokens)
        return self.embedding(tokens) + self.position(places)


def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig) -> nn.Module:
    """``[sequences, length]`` tokens to logits ``[sequences, length, classes]``; ``config.hidden`` is each block's width.

    Raises:
        ConfigError: the inputs are no sequences of tokens, or the widths are not all the same multiple of 24.
    """
    if len(input_shape) != 1:
        raise ConfigError(
            f"the model gpt reads sequences of tokens and the data set's inputs are {'×'.join(map(str, input_shape))}; choose "
            "--model.name cnn or mlp"
        )
    widths = set(config.hidden)
    if len(widths) != 1 or config.hidden[0] % HEAD_WIDTH:
        raise ConfigError(
            f"model.hidden is {config.hidden}; give each block of the model gpt the same width, a multiple of {HEAD_WIDTH}, "
            "such as 96 96 96 96"
        )
    return CharacterGPT(classes, input_shape[0], config.hidden[0], len(config.hidden), regularization.dropout)
