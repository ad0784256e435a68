"""Generators that are networks, and what training makes of them."""

import pytest
import torch
from torch import Tensor, nn

from evaluation.inversion import variational as autoencoder
from evaluation.inversion.generators import Generator, linear, mirrored
from evaluation.inversion.network_generator import NetworkGenerator
from evaluation.inversion.variational import divergence, train, variational


class Curved(nn.Module):
    """Latent vectors to inputs, with a derivative of its own at every point."""

    def __init__(self, latent: int = 3, inputs: int = 7):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.first = torch.randn(latent, inputs, generator=random)
        self.second = torch.randn(latent, inputs, generator=random)

    def forward(self, latent: Tensor) -> Tensor:
        return latent @ self.first + torch.tanh(latent @ self.second)


def curved() -> NetworkGenerator:
    return NetworkGenerator.tempered(Curved(), 3, temper=0.3, radius=0.4, input_shape=(7,))


def parabola(count: int = 400) -> Tensor:
    """Points of a plane on a curve, seen in three dimensions."""
    along = torch.randn(count, 1, generator=torch.Generator().manual_seed(0))
    return torch.cat([along, 0.3 * (along**2 - 1), 0.5 * along], 1)


@pytest.mark.parametrize("temper", [0.0, 0.4, 1.0])
def test_a_network_that_is_linear_is_the_linear_generator(temper: float):
    public = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2]) + 1
    expected = linear(public, None, components=3, temper=temper)
    decoder = nn.Linear(3, 5)
    with torch.no_grad():
        decoder.weight.copy_(expected.components * expected.spread)
        decoder.bias.copy_(expected.mean)
    found: Generator = NetworkGenerator.tempered(decoder, 3, temper=temper, radius=expected.radius, input_shape=(5,))
    latent, gradient = torch.randn(4, 3), torch.randn(4, 5)
    torch.testing.assert_close(found.decode(latent), expected.decode(latent), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.pull(latent, gradient), expected.pull(latent, gradient), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.on_shell(latent), expected.on_shell(latent), atol=1e-4, rtol=1e-4)
    random = [torch.Generator().manual_seed(1) for _ in range(2)]
    torch.testing.assert_close(found.draw(6, random[0]), expected.draw(6, random[1]), atol=1e-4, rtol=1e-4)


def test_a_gradient_is_pulled_back_at_the_latent_point_where_it_was_taken():
    generator = curved()
    latent = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    gradient = torch.randn(2, 7, generator=torch.Generator().manual_seed(2))
    moved, step = torch.zeros(2, 3), 1e-3
    for axis in range(3):
        ahead, behind = latent.clone(), latent.clone()
        ahead[:, axis] += step
        behind[:, axis] -= step
        moved[:, axis] = ((generator.decode(ahead) - generator.decode(behind)) * gradient).sum(1) / (2 * step)
    torch.testing.assert_close(generator.pull(latent, gradient), moved, atol=1e-2, rtol=1e-2)
    assert not torch.allclose(generator.pull(latent, gradient), generator.pull(latent + 1, gradient), atol=0.05)


def test_the_shell_of_a_network_is_as_far_from_its_middle_as_a_person():
    generator = curved()
    latent = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    shell = generator.on_shell(latent)
    apart = generator.decode(shell) - generator.decode(torch.zeros(1, 3))
    torch.testing.assert_close(apart.square().mean(1).sqrt(), torch.full((5,), 0.4), atol=1e-3, rtol=0)
    torch.testing.assert_close(nn.functional.cosine_similarity(shell, latent), torch.ones(5))
    assert generator.on_shell(torch.zeros(1, 3)).abs().max() == 0


def test_the_divergence_from_the_prior_is_that_of_gaussians():
    mean, variance = torch.tensor([[0.7, -1.0]]), torch.tensor([[0.3, 2.0]])
    own = torch.distributions.Normal(mean, variance.sqrt())
    expected = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence(mean, variance.log()), expected)
    assert divergence(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


def test_training_draws_a_curve_with_one_dimension_where_one_component_draws_a_line():
    data = parabola()
    decoder, encoder = train(data, latent=1, steps=400)
    coefficients = (data - decoder.mean) @ decoder.components
    found = decoder(encoder(coefficients)[0])
    line = linear(data, None, components=1, temper=1.0)
    flat = line.mean + (data - line.mean) @ line.components @ line.components.T
    assert (found - data).square().mean() < 0.25 * (flat - data).square().mean()


def test_an_autoencoder_is_trained_once_for_the_same_public_examples_and_draws_nothing_from_others(
    monkeypatch: pytest.MonkeyPatch,
):
    fits: list[int] = []
    monkeypatch.setattr(autoencoder, "train", lambda *given: (fits.append(1), train(*given))[1])
    public = parabola(30)
    before = torch.get_rng_state()
    first = variational(public, None, latent=2, temper=0.5, steps=5)
    assert torch.equal(before, torch.get_rng_state())
    assert variational(public.clone(), None, latent=2, temper=0.5, steps=5) is first
    assert variational(public, None, latent=2, temper=0.1, steps=5) is not first
    assert len(fits) == 1
    variational(public + 1, None, latent=2, temper=0.5, steps=5)
    assert len(fits) == 2


def test_images_are_shown_mirrored_and_tables_are_not():
    image = torch.arange(6.0).view(1, 1, 2, 3)
    assert torch.equal(mirrored(image)[1, 0], torch.tensor([[2.0, 1.0, 0.0], [5.0, 4.0, 3.0]]))
    assert len(mirrored(torch.zeros(3, 7))) == 3
