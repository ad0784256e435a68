"""A stochastic last hidden layer, through which little can pass: the model's part of the information bottleneck.

    h ↦ z = m(h) + s(h) ∘ ε,   ε ~ N(0, I) in training, drawn for each example;      h ↦ m(h) in evaluation

m and log s² are linear in the hidden layer h, and z is as wide as h (Alemi, Fischer, Dillon, Murphy 2017, "Deep Variational
Information Bottleneck"). How far z's distribution is from N(0, I) is charged by the loss: see
:mod:`dptrain.representation`. A model that has been trained is deterministic, for its owner and for whoever attacks it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dptrain.clipping.chance import Draws

FIRST_LOG_VARIANCE = -5.0
"""log s² before the first step, up to the initial weights: noise that is small beside m, so that labels are learned first."""


class Bottleneck(nn.Module):
    """``[examples, width]`` to ``[examples, width]``."""

    def __init__(self, width: int):
        super().__init__()
        self.moments = nn.Linear(width, 2 * width)
        self.draw = GaussianDraw()
        with torch.no_grad():
            self.moments.bias[width:] += FIRST_LOG_VARIANCE

    def forward(self, hidden: Float[Tensor, "examples width"]) -> Float[Tensor, "examples width"]:
        mean, log_variance = self.moments(hidden).chunk(2, -1)
        return self.draw(mean, log_variance)


class GaussianDraw(Draws):
    """N(mean, exp(log variance)) in training, one draw an example; the mean in evaluation."""

    def forward(
        self, mean: Float[Tensor, "examples width"], log_variance: Float[Tensor, "examples width"]
    ) -> Float[Tensor, "examples width"]:
        if not self.training:
            return mean
        return mean + (log_variance / 2).exp() * torch.randn_like(mean)
