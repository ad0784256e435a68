"""White-box attacks: norms that are known by formula, layer by layer, for every model of the project."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dptrain import models
from dptrain.recipe import ModelConfig, RegularizationConfig
from evaluation.access import Access, AccessError
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.membership.gradient import GradientNorm, LayerNorms, layer_norms
from evaluation.target import Target
from tests.evaluation.worlds import KNOWING_NOTHING, classes_world, mean_area


def test_gradient_norms_of_softmax_regression_are_those_of_the_formula():
    """∇_W ℓ = (p − onehot(y)) xᵀ, ∇_b ℓ = p − onehot(y); of half the squared error r x and r."""
    torch.manual_seed(0)
    linear, inputs, targets = nn.Linear(5, 3), torch.randn(20, 5), torch.randint(3, (20,))
    wrong = (linear(inputs).softmax(1) - torch.eye(3)[targets]).norm(dim=1)
    examples = LabelledExamples(inputs, targets, np.arange(20))
    target = Target(linear, Access.WEIGHTS, bounds=(-9.0, 9.0), classes=3)
    expected = (wrong * (inputs.square().sum(1) + 1).sqrt()).detach().numpy()
    (found,) = layer_norms(target, examples).values()
    assert found == pytest.approx(expected, rel=1e-5)
    assert GradientNorm().run(target, examples, Knowledge()) == pytest.approx(-np.log(expected), rel=1e-4, abs=1e-5)

    line = nn.Linear(5, 1)
    values = LabelledExamples(inputs, torch.randn(20), np.arange(20))
    residual = (line(inputs)[:, 0] - values.targets).abs()
    (found,) = layer_norms(Target(line, Access.WEIGHTS, bounds=(-9.0, 9.0), classes=0, kind="regression"), values).values()
    assert found == pytest.approx((residual * (inputs.square().sum(1) + 1).sqrt()).detach().numpy(), rel=1e-5)


def test_gradient_norms_come_layer_by_layer_and_in_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3))
    target = Target(model, Access.WEIGHTS, bounds=(-9.0, 9.0), classes=3)
    examples = LabelledExamples(torch.randn(11, 4), torch.randint(3, (11,)), np.arange(11))
    at_once = layer_norms(target, examples)
    assert list(at_once) == ["0", "2", "3"]
    monkeypatch.setattr("evaluation.target.MOST_GRADIENT_NUMBERS", 200)
    for name, norms in layer_norms(target, examples).items():
        assert norms == pytest.approx(at_once[name], rel=1e-5)
    with pytest.raises(AccessError, match="weights"):
        GradientNorm().run(target.behind(Access.GRADIENTS), examples, Knowledge())
    assert all(value.grad is None and not value.requires_grad for value in model.parameters())


@pytest.mark.parametrize("attack", [GradientNorm(), LayerNorms()])
def test_small_gradients_mean_member(attack: MembershipAttack):
    """In a table of logits the gradient's norm is √2 (1 − p_y): the order of the loss."""
    worlds = [classes_world(1.0, middle=6.0, seed=seed) for seed in range(4)]
    worlds = [dataclasses.replace(world, target=world.target.behind(Access.WEIGHTS)) for world in worlds]
    assert mean_area(attack, worlds) == pytest.approx(KNOWING_NOTHING, abs=0.03)


@pytest.mark.parametrize("name", ["linear", "mlp", "cnn", "scattering"])
def test_gradient_norms_are_those_of_one_example_at_a_time(name: str):
    torch.manual_seed(0)
    model = models.build(ModelConfig(name=name, hidden=(8,)), (1, 16, 16), 4, RegularizationConfig(dropout=0.2))
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn(value.shape))
    examples = LabelledExamples(torch.rand(3, 1, 16, 16), torch.tensor([0, 3, 1]), np.arange(3))
    found = layer_norms(Target(model, Access.WEIGHTS, bounds=(0.0, 1.0), classes=4), examples)
    for value in model.parameters():
        value.requires_grad_(True)
    for number in range(3):
        loss = F.cross_entropy(model(examples.inputs[number : number + 1]), examples.targets[number : number + 1])
        for layer, norms in found.items():
            own = list(model.get_submodule(layer).parameters(recurse=False))
            gradients = torch.autograd.grad(loss, own, retain_graph=True)
            expected = torch.cat([gradient.flatten() for gradient in gradients]).norm()
            assert norms[number] == pytest.approx(float(expected), rel=1e-4, abs=1e-7)
