"""What attacks and judges do to pictures: nothing here knows a target or an example.

The total variation is TV(x) = mean √(∂x² + ∂y² + ε²) (Rudin, Osher, Fatemi 1992, "Nonlinear total variation based noise removal
algorithms").
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LEAST_SIDE = 16
"""Of pictures whose neighbouring pixels are taken to be alike, or whose parts are told apart."""
SMOOTHED = 1e-2
"""ε of the total variation: below this difference between pixels it is quadratic."""


def variation_gradient(
    pictures: Float[Tensor, "examples channels height width"],
) -> Float[Tensor, "examples channels height width"]:
    """The derivative of each picture's total variation with respect to its pixels."""
    with torch.enable_grad():
        leaf = pictures.detach().requires_grad_(True)
        ahead = F.pad(leaf, (0, 1, 0, 1), mode="replicate")
        down, right = ahead[..., 1:, :-1] - leaf, ahead[..., :-1, 1:] - leaf
        variation = (down.square() + right.square() + SMOOTHED**2).sqrt().mean((1, 2, 3))
        (gradient,) = torch.autograd.grad(variation.sum(), leaf)
    return gradient


def blurred(pictures: Tensor, deviation: float) -> Tensor:
    """Each picture convolved with a Gaussian of this standard deviation in pixels; beyond its edge it goes on as it ends."""
    if deviation < 0.1 or not len(pictures):
        return pictures
    reach = math.ceil(3 * deviation)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    weights = (weights / weights.sum()).to(pictures.dtype)
    flat = F.pad(pictures.flatten(0, 1).unsqueeze(1), (reach,) * 4, mode="replicate")
    rows = F.conv2d(flat, weights.view(1, 1, -1, 1))
    return F.conv2d(rows, weights.view(1, 1, 1, -1)).view_as(pictures)
