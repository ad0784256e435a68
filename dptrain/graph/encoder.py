"""A network of features and labels that sees no edge: what a node is before its neighbours have a say.

One hidden layer of ReLUs, the mean cross entropy of the members, all of them in each of 200 steps of AdamW at a learning rate
of 0.01 with a weight decay of 2, half of the inputs and of the hidden layer dropped: the settings were chosen on splits of
Cora with other seeds than those that recipes use. It learns from features and labels without noise. Where edges alone are
hidden, that costs nothing; where nodes are, it is no part of a model.

It is also the floor that a graph model must be worth more than (:mod:`evaluation.without_graph`).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

HIDDEN = 64
STEPS = 200
LEARNING_RATE = 0.01
WEIGHT_DECAY = 2.0
DROPOUT = 0.5


class Encoder(nn.Module):
    """Features to class scores, whose length is at most 1; its numbers are buffers, which nothing trains further."""

    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor

    def __init__(self, features: int, hidden: int, classes: int):
        super().__init__()
        self.register_buffer("first", torch.zeros(hidden, features))
        self.register_buffer("first_bias", torch.zeros(hidden))
        self.register_buffer("second", torch.zeros(classes, hidden))
        self.register_buffer("second_bias", torch.zeros(classes))

    def hidden(self, features: Float[Tensor, "n features"]) -> Float[Tensor, "n hidden"]:
        """What the last layer is given."""
        return F.linear(features, self.first, self.first_bias).relu()

    def logits(self, features: Float[Tensor, "n features"]) -> Float[Tensor, "n classes"]:
        return F.linear(self.hidden(features), self.second, self.second_bias)

    def forward(self, features: Float[Tensor, "n features"]) -> Float[Tensor, "n classes"]:
        return self.logits(features).softmax(-1)

    def learn(self, features: Float[Tensor, "members features"], targets: Int[Tensor, " members"], seed: int) -> None:
        """Learns from these nodes; the same seed gives the same numbers."""
        classes, width = self.second.shape
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            layers = nn.Sequential(
                nn.Dropout(DROPOUT),
                nn.Linear(features.shape[1], width),
                nn.ReLU(),
                nn.Dropout(DROPOUT),
                nn.Linear(width, classes),
            )
            optimizer = torch.optim.AdamW(layers.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
            for _ in range(STEPS):
                optimizer.zero_grad()
                F.cross_entropy(layers(features), targets).backward()
                optimizer.step()
        with torch.no_grad():
            for ours, theirs in zip(self.buffers(), layers.parameters(), strict=True):
                ours.copy_(theirs)
