"""A fixed wavelet transform with a small trained head: no weight before the head, so nothing there to pay for.

The front is a scattering transform of order two (Mallat 2012, "Group Invariant Scattering"; for images Oyallon and
Mallat 2015, "Deep Roto-Translation Scattering for Object Classification"). With wavelets ψ at J = 2 scales and L = 8
angles and a Gaussian φ, an image x gives the channels

    x * φ        |x * ψ_{j,θ}| * φ        ||x * ψ_{j,θ}| * ψ_{j′,θ′}| * φ   for j < j′

each kept at every fourth pixel: 1 + 16 + 64 = 81 maps of 7×7 for a digit of 28×28. The wavelets are Morlet's,

    ψ̂(ω) = ĝ(ω − ξ) − κ ĝ(ω),    ĝ(ω) = exp(−½ ωᵀ Σ ω),    κ such that ψ̂(0) = 0,

with |ξ| = ¾π/2ʲ, and Σ of standard deviation 0.8·2ʲ along ξ and twice that across it; φ̂(ω) = exp(−½ σ² |ω|²), σ = 0.8·2ᴶ⁻¹.
Then each example's maps are brought to mean 0 and variance 1 in groups. The filters are constants and each example is
looked at alone, so the front costs no privacy; under DP it does better than a network that must learn its filters from
noised gradients (Tramèr and Boneh 2021, "Differentially Private Learning Needs Better Features (or Much More Data)").

    model = build((1, 28, 28), 10, ModelConfig(name="scattering", hidden=()), RegularizationConfig())
    model(images)                       # [examples, classes]
    model.head(model.front(images))     # the same, and the front's part can be computed once for all epochs
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dptrain.errors import ConfigError
from dptrain.models import linear, mlp
from dptrain.models.front import WithFront
from dptrain.recipe import ModelConfig, RegularizationConfig

SCALES = 2
ANGLES = 8
GROUPS = 27
"""Of channels that are brought to mean 0 and variance 1 together; divides 81."""
LEAST_SIDE = 16
STRIDE = 2**SCALES
CHUNK = 16
"""Images that are transformed at once: each takes about a megabyte on the way, and a few stay in the cache."""


def build(input_shape: tuple[int, ...], classes: int, config: ModelConfig, regularization: RegularizationConfig) -> nn.Module:
    """``[examples, channels, height, width]`` to logits ``[examples, classes]``.

    The head is softmax regression, or has layers of ``config.hidden``.

    Raises:
        ConfigError: the inputs are not images, or smaller than 16×16.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < LEAST_SIDE:
        raise ConfigError(
            f"the model scattering takes images of at least {LEAST_SIDE}×{LEAST_SIDE} and the data set's inputs are "
            f"{'×'.join(map(str, input_shape))}; choose --model.name mlp or linear"
        )
    front = Scattering(*input_shape)
    head = mlp if config.hidden else linear
    return WithFront(front, head.build(front.output_shape, classes, config, regularization))


class Scattering(nn.Module):
    """``[examples, channels, height, width]`` to ``[examples, channels · 81, ⌈height/4⌉, ⌈width/4⌉]``; has no weights."""

    wavelets: Tensor
    """ψ̂, ``[scales, angles, height, width]`` of the padded image; real, since each is a bump in frequency."""

    def __init__(self, channels: int, height: int, width: int):
        super().__init__()
        self.image_shape = (channels, height, width)
        self.kept = (math.ceil(height / STRIDE), math.ceil(width / STRIDE))
        paths = 1 + SCALES * ANGLES + ANGLES**2 * SCALES * (SCALES - 1) // 2
        self.output_shape = (channels * paths, *self.kept)
        sides = [STRIDE * (kept + 2) for kept in self.kept]
        self._padding = (STRIDE, sides[1] - width - STRIDE, STRIDE, sides[0] - height - STRIDE)
        self._norm = nn.GroupNorm(GROUPS * channels, channels * paths, affine=False)
        filters = torch.stack([torch.stack([morlet(sides, j, k) for k in range(ANGLES)]) for j in range(SCALES)])
        self.register_buffer("wavelets", filters.float(), persistent=False)
        for j in range(SCALES):
            for axis, side in zip(("rows", "columns"), sides, strict=True):
                self.register_buffer(f"{axis}_{j}", smoothing(side, j).float(), persistent=False)

    def forward(self, images: Float[Tensor, "examples channels height width"]) -> Float[Tensor, "examples maps down across"]:
        parts = [self._transform(chunk) for chunk in images.split(CHUNK)] if len(images) else []
        return torch.cat(parts) if parts else images.new_zeros((0, *self.output_shape))

    def _transform(self, images: Tensor) -> Tensor:
        padded = nn.functional.pad(images, self._padding, mode="reflect")
        spectrum = torch.fft.fft2(padded)
        fine, coarse = (self._modulus(spectrum.unsqueeze(2), j, j) for j in range(SCALES))
        again = self._modulus(torch.fft.fft2(fine).unsqueeze(3), 1, 1).flatten(2, 3)
        maps = [self._smooth(padded.unsqueeze(2), 0), self._smooth(fine, 0), self._smooth(coarse, 1), self._smooth(again, 1)]
        return self._norm(torch.cat(maps, 2).flatten(1, 2))

    def _modulus(self, spectrum: Tensor, scale: int, halvings: int) -> Tensor:
        """``|x * ψ|`` at every ``2^halvings``-th pixel, which folds the spectrum onto itself."""
        product = spectrum * self.wavelets[scale]
        for _ in range(halvings):
            top, bottom = product.chunk(2, -2)
            left, right = (top + bottom).chunk(2, -1)
            product = (left + right) / 4
        return torch.fft.ifft2(product).abs()

    def _smooth(self, maps: Tensor, halvings: int) -> Tensor:
        """``x * φ`` at every fourth pixel of the original, without the padding."""
        rows, columns = self.get_buffer(f"rows_{halvings}"), self.get_buffer(f"columns_{halvings}")
        return rows @ maps @ columns.T


def morlet(sides: list[int], scale: int, angle: int) -> Float[Tensor, "height width"]:
    """ψ̂ on the grid of the discrete Fourier transform. Sampling in space repeats the spectrum: neighbours are added."""
    deviation, turn = 0.8 * 2.0**scale, math.pi * angle / ANGLES
    along, across = (math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))
    centre = 0.75 * math.pi / 2**scale

    def bump(shift: float) -> Tensor:
        total = torch.zeros(sides[0], sides[1], dtype=torch.float64)
        for down in range(-2, 3):
            for right in range(-2, 3):
                y = 2 * math.pi * (torch.fft.fftfreq(sides[0], dtype=torch.float64) + down).unsqueeze(1)
                x = 2 * math.pi * (torch.fft.fftfreq(sides[1], dtype=torch.float64) + right).unsqueeze(0)
                forward, sideways = along[0] * y + along[1] * x - shift, across[0] * y + across[1] * x
                total += torch.exp(-0.5 * deviation**2 * (forward**2 + 4 * sideways**2))
        return total

    wave, envelope = bump(centre), bump(0.0)
    return wave - wave[0, 0] / envelope[0, 0] * envelope


def smoothing(side: int, halvings: int) -> Float[Tensor, "kept pixels"]:
    """One axis of the convolution with φ: from every ``2^halvings``-th pixel to every fourth one inside the padding."""
    step = 2**halvings
    pixels, deviation = side // step, 0.8 * 2.0 ** (SCALES - 1) / step
    frequency = torch.fft.fftfreq(pixels, dtype=torch.float64)
    spectrum = sum(torch.exp(-0.5 * (deviation * 2 * math.pi * (frequency + shift)) ** 2) for shift in range(-2, 3))
    kernel = torch.fft.ifft(spectrum / spectrum[0]).real  # type: ignore[index]  sum() of tensors is a tensor
    places = torch.arange(STRIDE, side - STRIDE, STRIDE) // step
    return kernel[(places.unsqueeze(1) - torch.arange(pixels).unsqueeze(0)) % pixels]
