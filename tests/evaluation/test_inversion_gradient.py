"""One example from its gradient: exactly without noise, as the Wiener filter says where that is exact, and hardly at all
under DP."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dptrain import PrivacyPlan, make_private, per_example
from dptrain.errors import ConfigError, DataError, UserError
from evaluation.audit.gdp import epsilon_to_mu
from evaluation.inversion.gradient import GradientMatching, PublicPrior, analytic, label_of, most_probable, total_variation
from evaluation.inversion.released import Contributions, Release, rests, watch
from evaluation.similarity import structural_similarity

LOSS = per_example(F.cross_entropy)
PLAN = PrivacyPlan(sampling_rate=1.0, expected_batch_size=1, steps=1, clipping_norm=1.0, delta=1e-5, noise_multiplier=0.0)


def at_epsilon(epsilon: float, batch: int) -> PrivacyPlan:
    return replace(PLAN, expected_batch_size=batch, noise_multiplier=1 / epsilon_to_mu(epsilon, 1e-5))


def released(model: nn.Module, plan: PrivacyPlan, inputs: Tensor, targets: Tensor) -> list[Release]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = make_private(model, optimizer, TensorDataset(inputs, targets), plan, loss=LOSS)
    releases = watch(training)
    for batch in training.batches():
        training.step(batch)
    return releases


def faces(shared_data: Path) -> tuple[Tensor, Tensor, Tensor]:
    """140 images of 20 private people, 56 × 46 pixels from 0 to 1, whose they are, and 200 images of other people."""
    stored = np.load(shared_data / "att_faces.npz")
    images = F.interpolate(torch.tensor(stored["images"]).float()[:, None] / 255, size=(56, 46), mode="area")
    people = torch.tensor(stored["labels"])
    private = (people < 20) & (torch.arange(400) % 10 < 7)
    return images[private], people[private], images[people >= 20]


def softmax_regression() -> nn.Sequential:
    layer = nn.Linear(56 * 46, 20)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), layer)


def first_layer(rest: Tensor, units: int, features: int) -> tuple[Tensor, Tensor]:
    return rest[: units * features].view(units, features), rest[units * features : units * (features + 1)]


@pytest.mark.parametrize("hidden", [(), (30,)])
def test_one_face_is_read_off_its_clipped_gradient_where_there_is_no_noise(shared_data: Path, hidden: tuple[int, ...]):
    images, people, _ = faces(shared_data)
    torch.manual_seed(0)
    widths = (56 * 46, *hidden, 20)
    layers = [module for a, b in itertools.pairwise(widths) for module in (nn.Linear(a, b), nn.Tanh())]
    (release,) = released(nn.Sequential(nn.Flatten(), *layers[:-1]), PLAN, images[:1], people[:1])
    found = analytic(*first_layer(release.gradient, widths[1], widths[0]))
    assert float((found - images[0].flatten()).square().mean()) < 1e-8


def test_a_gradient_whose_biases_are_zero_holds_nothing():
    with pytest.raises(DataError, match="holds nothing of the input"):
        analytic(torch.ones(3, 5), torch.zeros(3))


def test_the_label_is_the_one_negative_entry_of_the_last_bias():
    assert label_of(torch.softmax(torch.tensor([2.0, 0.1, -1.0]), 0) - torch.tensor([0.0, 0.0, 1.0])) == 2


@pytest.mark.parametrize("clipping_norm", [0.1, 1e3, math.inf])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_one_digit_is_found_by_optimisation_where_the_first_layer_has_no_bias(distance, clipping_norm: float):
    """Clipped to a fraction of its length, or not clipped at all."""
    pixels, labels = load_digits(return_X_y=True)
    inputs, label = torch.tensor(pixels[:1] / 16), int(labels[0])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 24, bias=False), nn.Sigmoid(), nn.Linear(24, 10)).double()
    contributions = Contributions(model, LOSS, replace(PLAN, clipping_norm=clipping_norm))
    weights = torch.cat([value.detach().flatten() for value in model.parameters()])
    seen = contributions(weights, inputs, torch.tensor([label]))[0]
    whole = contributions.gradients(weights, inputs, torch.tensor([label]))[0]
    assert whole.norm() > 1
    assert seen.norm() == pytest.approx(min(clipping_norm, float(whole.norm())))
    found = GradientMatching(distance=distance).run(
        seen, contributions, weights, label, (64,), (0.0, 1.0), torch.Generator().manual_seed(0)
    )
    assert float((found - inputs[0]).square().mean()) < (1e-8 if distance == "euclidean" else 1e-3)


def test_total_variation_draws_to_flat_images():
    flat, checks = torch.ones(1, 4, 4), (torch.arange(16).view(1, 4, 4) % 2).double()
    assert total_variation(flat) == 0
    assert total_variation(checks) == pytest.approx(1.0)


def test_an_unknown_distance_is_refused_with_the_nearest_one():
    settings = GradientMatching()
    object.__setattr__(settings, "distance", "cosin")  # past the types that are checked while tests run
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        settings.__post_init__()


def test_a_prior_has_the_covariance_of_the_public_examples():
    public = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ torch.rand(4, 4).double()
    prior = PublicPrior.of(public, 10)
    torch.testing.assert_close(prior.directions.T @ prior.directions, public.T.cov())
    torch.testing.assert_close(prior.mean, public.mean(0))
    with pytest.raises(DataError, match="1 public examples"):
        PublicPrior.of(public[:1], 3)


def test_where_contributions_are_the_inputs_the_most_probable_one_is_the_wiener_filter():
    """loss = wᵀx has the gradient x, which is not clipped here; seen in three steps with noise of deviation s."""
    generator = torch.Generator().manual_seed(1)
    plan = replace(PLAN, steps=3, clipping_norm=50.0, noise_multiplier=0.02)
    model = nn.Linear(5, 1, bias=False).double()
    contributions = Contributions(model, lambda model, batch: model(batch[0])[:, 0], plan)
    public = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    prior = PublicPrior.of(public, 5)
    rest = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    found = most_probable(rest, contributions, torch.zeros(3, 5).double(), 0, (5,), prior)
    covariance, mean = public.T.cov(), public.mean(0)
    gain = covariance @ torch.linalg.inv(covariance + torch.eye(5).double() * (50 * 0.02) ** 2 / 3)
    torch.testing.assert_close(found, mean + gain @ (rest.mean(0) - mean), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_under_dp_the_naive_reconstruction_is_noise_and_the_informed_one_the_mean_image(shared_data: Path, epsilon: float):
    naive, informed, mean = judged(shared_data, epsilon)
    assert naive <= 0.05
    assert mean == pytest.approx(0.34, abs=0.02)
    assert informed == pytest.approx(mean, abs=0.02)


def test_with_a_thousandth_of_the_privacy_the_informed_one_is_no_mean_image(shared_data: Path):
    naive, informed, mean = judged(shared_data, 1000.0)
    assert naive <= 0.1
    assert informed > mean + 0.08


def judged(shared_data: Path, epsilon: float) -> tuple[float, float, float]:
    """Mean SSIM over the first face of each private person: naive, informed, and the mean of the public faces."""
    images, people, public = faces(shared_data)
    plan, model = at_epsilon(epsilon, len(images)), softmax_regression()
    contributions, prior = Contributions(model, LOSS, plan), PublicPrior.of(public, 100)
    releases = released(model, plan, images, people)
    found: list[list[Tensor]] = [[], [], []]
    secrets = range(0, len(images), 7)
    for secret in secrets:
        others = torch.arange(len(images)) != secret
        left = rests(releases, contributions, (images[others], people[others]))
        weights = torch.stack([release.weights for release in releases])
        found[0].append(analytic(*first_layer(left.mean(0), 20, 56 * 46)).view(1, 56, 46))
        found[1].append(most_probable(left, contributions, weights, int(people[secret]), (1, 56, 46), prior, 25))
        found[2].append(prior.mean.view(1, 56, 46))
    true = images[list(secrets)]
    naive, informed, mean = (
        float(structural_similarity(torch.stack(own).clamp(0, 1), true, value_range=1.0).mean()) for own in found
    )
    return naive, informed, mean


def test_sampled_batches_and_no_noise_are_refused():
    contributions = Contributions(nn.Linear(5, 3), LOSS, replace(PLAN, sampling_rate=0.5))
    with pytest.raises(UserError, match=r"sampling_rate is 0\.5"):
        rests([], contributions, (torch.zeros(0, 5), torch.zeros(0)))
    contributions = Contributions(nn.Linear(5, 3), LOSS, PLAN)
    prior = PublicPrior(torch.zeros(5), torch.eye(5))
    with pytest.raises(UserError, match="adds no noise"):
        most_probable(torch.zeros(1, 18), contributions, torch.zeros(1, 18), 0, (5,), prior)
    assert math.isinf(PLAN.guarantee().epsilon)
