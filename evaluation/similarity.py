"""Structural similarity of images (Wang, Bovik, Sheikh, Simoncelli 2004, "Image Quality Assessment: From Error Visibility to
Structural Similarity").

    structural_similarity(reconstructions, true, value_range=1.0)      # one an image: 1 for equal ones, about 0 for noise

In a Gaussian window of 11 × 11 pixels and standard deviation 1.5, with weights that sum to 1, means μ, variances σ² and
covariance σ_xy of the two images at a place,

    SSIM = (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂)),     C₁ = (0.01 L)²,  C₂ = (0.03 L)²

L is the range of a pixel. The mean is taken over all places where the window lies within the image, and over channels.
Means enter as they are: images that were shifted for training are shifted back before.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dptrain.errors import DataError

WINDOW, DEVIATION = 11, 1.5
K1, K2 = 0.01, 0.03


def structural_similarity(
    images: Float[Tensor, "images channels height width"],
    others: Float[Tensor, "images channels height width"],
    *,
    value_range: float,
    window: int = WINDOW,
) -> Float[Tensor, " images"]:
    """SSIM of each image and the other one at its place, in float64; symmetric, and at most 1.

    Args:
        value_range: L, the largest less the smallest value that a pixel can have; pixels are counted from the smallest, as 0.
        window: pixels a side, odd; 11 is the paper's.

    Raises:
        DataError: the images are smaller than the window.
    """
    height, width = images.shape[-2:]
    if min(height, width) < window or window % 2 == 0:
        raise DataError(
            f"images have {height} × {width} pixels and the window {window}; give an odd window of at most "
            f"{min(height, width)}, such as window={min(7, min(height, width) - 1 | 1)}"
        )
    x, y = (values.double().flatten(0, 1)[:, None] for values in (images, others))
    kernel = _window(window)

    def smooth(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, kernel[None, None, :, None]), kernel[None, None, None, :])

    mean_x, mean_y = smooth(x), smooth(y)
    variance_x, variance_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = (K1 * value_range) ** 2, (K2 * value_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).flatten(1).mean(1).unflatten(0, images.shape[:2]).mean(1)


def _window(size: int) -> Float[Tensor, " size"]:
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    weights = torch.exp(-(offsets**2) / (2 * DEVIATION**2))
    return weights / weights.sum()
