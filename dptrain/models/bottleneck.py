"""A stochastic last hidden layer, through which little can pass: the model's part of the information bottleneck.

    h ↦ z = m(h) + s(h) ∘ ε,   ε ~ N(0, I) in training, drawn for each example;      h ↦ m(h) in evaluation

m = A h + a and s² = 1/(1 + exp(−(B h + b))) are made of the hidden layer h, and z is as wide as h (Alemi, Fischer, Dillon,
Murphy 2017, "Deep Variational Information Bottleneck", with another s²). Noise larger than the prior's never pays, so s² stays
below 1, and what the loss charges has a slope of at most ½ in B h + b; with s² = exp(B h + b) the slope has no bound.

How far z's distribution is from N(0, I) is charged by the loss: see :mod:`dptrain.representation`. A model that has been
trained is deterministic, for its owner and for whoever attacks it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dptrain.clipping.chance import Draws

FIRST = -5.0
"""B h + b, and nearly log s², before the first step, up to the initial weights: little noise, so that labels are learned."""


class Bottleneck(nn.Module):
    """``[examples, width]`` to ``[examples, width]``."""

    def __init__(self, width: int):
        super().__init__()
        self.moments = nn.Linear(width, 2 * width)
        self.draw = GaussianDraw()
        with torch.no_grad():
            self.moments.bias[width:] += FIRST

    def forward(self, hidden: Float[Tensor, "examples width"]) -> Float[Tensor, "examples width"]:
        return self.draw(*self.of(hidden))

    def of(
        self, hidden: Float[Tensor, "examples width"]
    ) -> tuple[Float[Tensor, "examples width"], Float[Tensor, "examples width"]]:
        """m and log s² of each example."""
        mean, odds = self.moments(hidden).chunk(2, -1)
        return mean, F.logsigmoid(odds)


class GaussianDraw(Draws):
    """N(mean, exp(log variance)) in training, one draw an example; the mean in evaluation."""

    def forward(
        self, mean: Float[Tensor, "examples width"], log_variance: Float[Tensor, "examples width"]
    ) -> Float[Tensor, "examples width"]:
        if not self.training:
            return mean
        return mean + (log_variance / 2).exp() * torch.randn_like(mean)
