"""Training examples from weights: the conditions hold at the training examples, and what is found is nearer to them than to
others."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from evaluation.inversion.weights import SmoothReLU, TwoLayers, WeightReconstruction, closeness, stationarity

BOUNDS = (-0.3, 0.7)


def digits(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Training examples, their signs (odd or even), and as many others as there are, at least 100."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    inputs = torch.tensor(pixels[order] / 16 - 0.3)
    return inputs[:count], torch.tensor(labels[order][:count] % 2 * 2.0 - 1), inputs[count : count + max(count, 100)]


def trained(inputs: Tensor, signs: Tensor, width: int, scale: float, rate: float) -> tuple[TwoLayers, dict[str, Tensor]]:
    """A network from initial weights of the usual size times ``scale``, at a loss of 1e-7, and how far its weights moved."""
    generator = torch.Generator().manual_seed(0)
    model = TwoLayers(inputs.shape[1], width).double()
    with torch.no_grad():
        model.first.weight.normal_(0, scale * (2 / inputs.shape[1]) ** 0.5, generator=generator)
        model.first.bias.zero_()
        model.second.weight.normal_(0, scale * (1 / width) ** 0.5, generator=generator)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    loss = torch.ones(())
    for _ in range(6000):
        loss = F.softplus(-signs * model(inputs)).mean()
        if loss < 1e-7:
            break
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for value, gradient in zip(model.parameters(), gradients, strict=True):
                value -= rate / loss * gradient
    assert loss < 1e-6
    return model, {name: value.detach() - start[name] for name, value in model.named_parameters()}


def test_the_conditions_hold_where_weights_are_a_weighted_sum_of_gradients():
    inputs, signs, _ = digits(5)
    model, multipliers = TwoLayers(64, 30).double(), torch.rand(5).double()
    weighted = (multipliers * signs * model(inputs)).sum()
    gradients = torch.autograd.grad(weighted, list(model.parameters()))
    change = dict(zip(dict(model.named_parameters()), gradients, strict=True))
    assert stationarity(model, change, inputs, multipliers, signs) < 1e-24
    assert stationarity(model, change, inputs.flip(0), multipliers, signs) > 0.01
    assert stationarity(model, change, inputs, 0 * multipliers, signs).item() == pytest.approx(1.0)


def test_the_network_is_homogeneous_of_degree_two_and_the_smooth_derivative_leaves_it_as_it_is():
    inputs, _, _ = digits(5)
    model = TwoLayers(64, 30).double()
    with torch.no_grad():
        before = model(inputs)
        model.sharpness = 50.0
        assert torch.equal(model(inputs), before)
        for value in model.parameters():
            value *= 3.0
        torch.testing.assert_close(model(inputs)[0], 9 * before[0])


def test_the_smooth_derivative_is_a_sigmoid_and_can_be_differentiated():
    values = torch.tensor([-0.02, 0.0, 0.02], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(SmoothReLU.apply(values, 50.0).sum(), values, create_graph=True)
    torch.testing.assert_close(first, torch.sigmoid(50 * values))
    (second,) = torch.autograd.grad(first.sum(), values)
    torch.testing.assert_close(second, 50 * torch.sigmoid(50 * values) * (1 - torch.sigmoid(50 * values)))


@pytest.mark.slow
def test_what_is_found_is_nearer_to_training_examples_than_to_others():
    inputs, signs, others = digits(10)
    torch.manual_seed(0)
    model, change = trained(inputs, signs, width=600, scale=8.0, rate=2e-4)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    attack = WeightReconstruction(candidates=20, steps=2000)
    found = closeness(attack.run(model, change, (64,), BOUNDS, torch.Generator().manual_seed(0)), inputs, others)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert found.auc.low is not None
    assert found.auc.low > 0.5
    assert (found.recovered.value or 0.0) >= 0.3
    noise = {name: torch.randn_like(value) * value.norm() / value.numel() ** 0.5 for name, value in change.items()}
    short = WeightReconstruction(candidates=20, steps=300)
    nothing = closeness(short.run(model, noise, (64,), BOUNDS, torch.Generator().manual_seed(0)), inputs, others)
    assert nothing.auc.low is not None
    assert nothing.auc.low < 0.5
    assert (nothing.recovered.value or 0.0) <= 0.1


def test_a_search_that_found_nothing_is_as_near_to_others():
    inputs, _, others = digits(100)
    noise = torch.rand(40, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    auc = closeness(noise, inputs, others).auc
    assert auc.low is not None
    assert auc.high is not None
    assert auc.low < 0.5 < auc.high
    exact = closeness(torch.cat([noise, inputs]), inputs, others)
    assert exact.auc.value == 1.0
    assert "100% of 100 training examples" in exact.text


def test_images_are_judged_by_similarity_too_and_smaller_or_flat_ones_are_not():
    generator = torch.Generator().manual_seed(0)
    members, others, noise = (torch.rand(6, 1, 16, 12, generator=generator).double() - 0.3 for _ in range(3))
    exact = closeness(torch.cat([noise, members]), members, others, BOUNDS)
    assert exact.similarity is not None
    of_members, of_others = exact.similarity
    assert of_members.value == pytest.approx(1.0)
    assert of_others.value == pytest.approx(0.13, abs=0.1)
    assert "SSIM to the nearest reconstruction: 1.000" in exact.text
    assert closeness(noise, members, others).similarity is None
    assert closeness(noise.flatten(1), members.flatten(1), others.flatten(1), BOUNDS).similarity is None
    assert closeness(noise[..., :8], members[..., :8], others[..., :8], BOUNDS).similarity is None
