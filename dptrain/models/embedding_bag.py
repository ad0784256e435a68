"""A classifier of short texts: the mean of the words' embeddings, hidden layers, classes.

    model(words)                         # [examples, length] numbers of words to logits [examples, classes]

(Joulin, Grave, Bojanowski, Mikolov 2017, "Bag of Tricks for Efficient Text Classification".) The order of words does not
matter, and what fills a sequence up counts for nothing. ``model.hidden`` gives the width of an embedding, and then those of
hidden layers.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain.data.words import BUCKETS, PADDING
from dptrain.errors import ConfigError
from dptrain.models.mlp import ACTIVATIONS
from dptrain.recipe import ModelConfig, RegularizationConfig


class EmbeddingBag(nn.Module):
    """See the module's text."""

    def __init__(self, hidden: tuple[int, ...], classes: int, activation: type[nn.Module], dropout: float = 0.0):
        super().__init__()
        self.words = nn.EmbeddingBag(1 + BUCKETS, hidden[0], mode="mean", padding_idx=PADDING)
        layers: list[nn.Module] = []
        for before, after in zip(hidden, (*hidden[1:], classes), strict=True):
            layers += [nn.Dropout(dropout)] if dropout > 0 else []
            layers += [nn.Linear(before, after), activation()]
        self.head = nn.Sequential(*layers[:-1])

    def forward(self, words: Int[Tensor, "examples length"]) -> Float[Tensor, "examples classes"]:
        return self.head(self.words(words))


def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig) -> nn.Module:
    """``[examples, length]`` numbers of words to logits ``[examples, classes]``.

    Raises:
        ConfigError: the inputs are no sequences, or no width of an embedding is given.
    """
    if len(input_shape) != 1:
        raise ConfigError(
            "the model embedding_bag reads sequences of words and the data set's inputs are "
            f"{'×'.join(map(str, input_shape))}; choose --model.name cnn or mlp"
        )
    if not config.hidden:
        raise ConfigError(
            "model.hidden is [] and the model embedding_bag needs the width of an embedding; give one, such as 16"
        )
    return EmbeddingBag(config.hidden, classes, ACTIVATIONS[config.activation], regularization.dropout)
