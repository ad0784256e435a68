"""The fixed front: the wavelets are the formula's, the transform is that of a plain convolution, and it costs no privacy."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, make_private, models, per_example
from dptrain.data.dataset import DataSet
from dptrain.models import front
from dptrain.models.front import WithFront
from dptrain.models.scattering import ANGLES, SCALES, Scattering, morlet, smoothing
from dptrain.recipe import ModelConfig, Recipe, RegularizationConfig
from dptrain.trainer import build_training

PLAIN = RegularizationConfig()


def build(**options: object) -> WithFront:
    model = models.build(ModelConfig(name="scattering", **options), (1, 28, 28), 10, PLAIN)  # type: ignore[arg-type]
    assert isinstance(model, WithFront)
    return model


def test_a_digit_gives_81_maps_of_7x7_and_a_colour_image_three_times_as_many():
    assert Scattering(1, 28, 28).output_shape == (81, 7, 7)
    assert Scattering(3, 32, 32).output_shape == (243, 8, 8)


@given(height=st.integers(16, 40), width=st.integers(16, 40), channels=st.integers(1, 3), examples=st.integers(0, 3))
@settings(deadline=None, max_examples=10)
def test_every_image_from_16x16_up_has_the_stated_output_shape(height: int, width: int, channels: int, examples: int):
    transform = Scattering(channels, height, width)
    assert transform(torch.rand(examples, channels, height, width)).shape == (examples, *transform.output_shape)


def test_wavelets_have_the_definitions_values():
    """ψ̂(0) = 0; along its own angle ψ̂(ω) = exp(−½ σ² (ω − ξ)²) − κ exp(−½ σ² ω²), with ξ = ¾π/2, σ = 1.6 at scale 1,
    where the repeats of the spectrum are below 10⁻⁶."""
    wavelet = morlet([36, 36], scale=1, angle=0)
    frequency = 2 * math.pi * torch.arange(12, dtype=torch.float64) / 36
    centre, deviation = 0.75 * math.pi / 2, 1.6
    left_over = math.exp(-0.5 * (deviation * centre) ** 2)
    expected = torch.exp(-0.5 * (deviation * (frequency - centre)) ** 2)
    expected -= left_over * torch.exp(-0.5 * (deviation * frequency) ** 2)
    assert float(wavelet[0, 0]) == pytest.approx(0, abs=1e-15)
    assert torch.allclose(wavelet[:12, 0], expected, atol=1e-5)


def test_a_quarter_turn_of_the_image_turns_the_wavelets():
    for scale in range(SCALES):
        for angle in range(ANGLES // 2):
            turned = morlet([36, 36], scale, angle + ANGLES // 2)
            # ω = (down, right) becomes (right, −down): flip the sign of one axis of the transposed filter.
            expected = torch.roll(torch.flip(morlet([36, 36], scale, angle).T, [0]), 1, 0)
            assert torch.allclose(turned, expected, atol=1e-12)


def test_smoothing_keeps_a_constant_and_weighs_like_a_gaussian():
    rows = smoothing(36, 0)
    assert rows.shape == (7, 36)
    assert torch.allclose(rows.sum(1), torch.ones(7, dtype=torch.float64))
    assert int(rows[0].argmax()) == 4
    # Standard deviation 1.6: two pixels off the centre the weight is exp(−½ (2/1.6)²) of the centre's.
    assert float(rows[0, 6] / rows[0, 4]) == pytest.approx(math.exp(-0.5 * (2 / 1.6) ** 2), rel=1e-3)


def test_maps_are_those_of_convolutions_in_space():
    """Every path of one image by plain sums over pixels: x * ψ with circular wrap, modulus, thinning, and so on."""
    transform = Scattering(1, 28, 28)
    transform._norm = nn.Identity()  # type: ignore[assignment]
    image = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = transform(image)[0]
    padded = F.pad(image, transform._padding, mode="reflect")[0, 0].to(torch.complex128)

    def convolved(values: torch.Tensor, scale: int, angle: int) -> torch.Tensor:
        kernel = torch.fft.ifft2(morlet([36, 36], scale, angle).to(torch.complex128))
        index = (torch.arange(36).unsqueeze(1) - torch.arange(36)) % 36  # [to, from]
        toeplitz = kernel[index][:, :, index]  # [y, y', x, x']
        return torch.einsum("abcd,bd->ac", toeplitz, values).abs()

    def smoothed(values: torch.Tensor, halvings: int) -> torch.Tensor:
        return (smoothing(36, halvings) @ values @ smoothing(36, halvings).T).float()

    assert torch.allclose(found[0], smoothed(padded.real, 0), atol=1e-5)
    fine = convolved(padded, 0, 3)
    assert torch.allclose(found[1 + 3], smoothed(fine, 0), atol=1e-5)
    coarse = convolved(padded, 1, 5)[::2, ::2]
    assert torch.allclose(found[1 + ANGLES + 5], smoothed(coarse, 1), atol=1e-5)
    again = convolved(fine.to(torch.complex128), 1, 6)[::2, ::2]
    assert torch.allclose(found[1 + 2 * ANGLES + 3 * ANGLES + 6], smoothed(again, 1), atol=1e-5)


def test_the_front_is_fixed_and_looks_at_one_example_at_a_time():
    """Sharp edge 7: constants that no training changes, none of them in what is released."""
    model = build()
    images = torch.rand(5, 1, 28, 28)
    together = model.front(images)
    assert torch.allclose(together, torch.cat([model.front(image.unsqueeze(0)) for image in images]), atol=1e-6)
    assert not list(model.front.parameters())
    assert not [name for name in model.state_dict() if name.startswith("front")]


def test_the_head_is_softmax_regression_or_has_the_recipes_layers():
    linear = [module for module in build(hidden=()).modules() if isinstance(module, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(10, 81 * 49)]
    assert not bool(linear[0].weight.any())
    deep = [module for module in build(hidden=(20,)).modules() if isinstance(module, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in deep] == [(20, 81 * 49), (10, 20)]


def test_what_the_front_made_is_taken_for_the_image():
    model = build()
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(model(images), model(model.front(images)))


def test_a_front_with_weights_is_refused():
    with pytest.raises(TypeError, match="Conv2d has weights"):
        WithFront(nn.Conv2d(1, 1, 3), nn.Flatten())


# -- made once ------------------------------------------------------------------------------------------------------


def images(examples: int = 30) -> DataSet:
    generator = torch.Generator().manual_seed(0)
    return DataSet(
        name="noise",
        inputs=torch.rand(examples, 1, 16, 16, generator=generator),
        targets=torch.randint(2, (examples,), generator=generator),
        classes=("a", "b"),
        bounds=(0.0, 1.0),
    )


def test_what_a_front_makes_is_made_once_for_all_seeds_and_shadow_models(monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []
    forward = Scattering.forward

    def counted(self: Scattering, inputs: torch.Tensor) -> torch.Tensor:
        calls.append(len(inputs))
        return forward(self, inputs)

    monkeypatch.setattr(Scattering, "forward", counted)
    noise, first, second = images(), Scattering(1, 16, 16), Scattering(1, 16, 16)
    features = front.made(first, noise)
    assert front.made(second, noise) is features
    assert sum(calls) <= len(noise) + 1
    second.wavelets.mul_(2)
    assert not torch.equal(front.made(second, noise), features)


def test_training_on_what_the_front_made_is_training_on_the_images():
    """A matter of speed alone: the same weights, to rounding."""
    noise = images()
    recipe = Recipe(model=ModelConfig(name="scattering", hidden=(5,)))
    privacy = dataclasses.replace(recipe.privacy, mechanism="clip_only", expected_batch_size=30.0, delta=1e-3)
    recipe = dataclasses.replace(recipe, privacy=privacy, training=dataclasses.replace(recipe.training, steps=4))
    quick = build_training(recipe, noise, torch.arange(30).numpy(), 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.build(recipe.model, (1, 16, 16), 2, PLAIN)
    plan = PrivacyPlan.from_config(privacy, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    plain = make_private(model, optimizer, TensorDataset(noise.inputs, noise.targets), plan, loss=per_example(F.cross_entropy))
    for private in (quick, plain):
        for batch in private.batches():
            private.step(batch)
    ours, theirs = (nn.utils.parameters_to_vector(item.model.parameters()) for item in (quick, plain))
    assert torch.allclose(ours, theirs, atol=1e-5)
