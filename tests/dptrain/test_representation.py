"""What hidden layers are charged, against closed forms; the bottleneck stays a loss of one example, HSIC does not."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dptrain.data
from dptrain import models
from dptrain.clipping import Clipper
from dptrain.clipping.fallback import PerExampleGradients
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, draw
from dptrain.diagnosis import doctor
from dptrain.errors import ConfigError
from dptrain.fleet.layers import Unstackable
from dptrain.fleet.stacked import models_in_a_stack
from dptrain.models.bottleneck import FIRST, Bottleneck
from dptrain.plan import PrivacyPlan
from dptrain.recipe import DataConfig, ModelConfig, OptimizerConfig, PrivacyConfig, Recipe, RegularizationConfig, TrainingConfig
from dptrain.regularization import cross_entropy
from dptrain.representation import divergence, gaussian_kernel, hsic
from dptrain.trainer import Trainer, build_training
from evaluation.access import Access
from evaluation.target import Target

MID = RegularizationConfig(information_bottleneck=0.01)
BIDO = RegularizationConfig(bilateral_dependency=1.0)
MLP = ModelConfig(name="mlp", hidden=(8,))


def spread(examples: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(examples, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small(regularization: RegularizationConfig) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = models.build(MLP, (6,), 4, regularization)
    return model, (torch.randn(12, 6), torch.randint(4, (12,)))


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return dptrain.data.load(DataConfig())


@pytest.fixture(scope="module")
def split(digits: DataSet) -> Split:
    return draw(len(digits), DataConfig().split, 0)


def recipe(regularization: RegularizationConfig, mechanism: str = "none", steps: int = 4) -> Recipe:
    privacy = PrivacyConfig(mechanism=mechanism, epsilon=4.0 if mechanism == "gaussian" else None)  # pyright: ignore[reportArgumentType]
    return Recipe(model=MLP, privacy=privacy, regularization=regularization, training=TrainingConfig(steps=steps))


# -- the bottleneck ---------------------------------------------------------------------------------------------------


def test_the_divergence_is_that_of_two_gaussians():
    mean, log_variance = spread(5, 3), spread(5, 3, 1)
    ours = torch.distributions.Normal(mean, (log_variance / 2).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(divergence(mean, log_variance), torch.distributions.kl_divergence(ours, prior).sum(1))
    assert divergence(torch.zeros(1, 3), torch.zeros(1, 3)).tolist() == [0.0]
    assert float(divergence(torch.tensor([[2.0]]), torch.tensor([[math.log(4.0)]]))) == pytest.approx(3.5 - math.log(2))


def test_the_loss_is_charged_beta_times_each_examples_own_divergence():
    model, batch = small(MID)
    model.eval()  # no draw, so that the plain part is known
    (bottleneck,) = [module for module in model.modules() if isinstance(module, Bottleneck)]
    hidden = torch.tanh(model[1](batch[0]))  # pyright: ignore[reportIndexIssue]
    mean, log_variance = bottleneck.of(hidden)
    plain = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
    torch.testing.assert_close(cross_entropy(model, batch, MID), plain + 0.01 * divergence(mean, log_variance))
    assert not any(module._forward_hooks for module in model.modules())


def test_in_training_it_draws_for_each_example_and_in_evaluation_it_is_the_mean():
    torch.manual_seed(0)
    bottleneck, hidden = Bottleneck(3), torch.zeros(20_000, 3)
    mean, log_variance = bottleneck.of(hidden[:1])
    drawn = bottleneck(hidden)
    assert torch.allclose(drawn.mean(0), mean[0], atol=0.005)
    assert torch.allclose(drawn.var(0), log_variance[0].exp(), rtol=0.05)
    assert torch.allclose(log_variance[0], torch.full((3,), FIRST), atol=0.6)
    assert len(drawn.unique(dim=0)) == len(drawn)
    bottleneck.eval()
    assert torch.equal(bottleneck(hidden[:1]), mean)


def test_the_noise_is_never_larger_than_the_priors_and_its_charge_never_steep():
    """With u = B h + b the divergence has the slope −½ (1 − s²)² in u: it is 0 or less, and −½ at most."""
    bottleneck = Bottleneck(1).double()
    with torch.no_grad():
        bottleneck.moments.weight.copy_(torch.tensor([[0.0], [1.0]]))
        bottleneck.moments.bias.zero_()
    hidden = torch.tensor([[-400.0], [-2.0], [0.0], [3.0], [400.0]], dtype=torch.float64, requires_grad=True)
    mean, log_variance = bottleneck.of(hidden)
    assert float(log_variance.detach().max()) <= 0.0
    divergence(mean, log_variance).sum().backward()
    variance = torch.sigmoid(hidden.detach())
    torch.testing.assert_close(hidden.grad, -((1 - variance).square()) / 2)


def test_under_clipping_the_bottleneck_is_bounded_in_one_pass_and_its_sum_is_that_of_examples_alone(
    monkeypatch: pytest.MonkeyPatch,
):
    """The draw is held at ε = 1, so that an example alone has the one that it has in a batch."""
    model, batch = small(MID)
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(model, batch, MID)

    clipper = Clipper(model, loss, 0.3)
    total = clipper.sum([batch])
    assert clipper.method == "one pass"
    expected = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for index in range(12):
        value = loss(model, (batch[0][index : index + 1], batch[1][index : index + 1]))
        gradients = torch.autograd.grad(value.sum(), list(model.parameters()))
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        for name, gradient in zip(expected, gradients, strict=True):
            expected[name] += gradient * min(1.0, 0.3 / float(norm))
    for name, value in expected.items():
        torch.testing.assert_close(total.gradients[name].to(value), value, rtol=1e-4, atol=1e-6)


def test_the_way_without_one_pass_draws_for_each_example_too():
    model, (inputs, targets) = small(MID)
    alike = inputs[:1].repeat(6, 1), targets[:1].repeat(6)
    _, losses = PerExampleGradients(model, lambda model, batch: cross_entropy(model, batch, MID))(
        dict(model.named_parameters()), alike
    )
    assert len(losses.unique()) == 6


def test_the_doctor_takes_the_bottlenecks_draws_like_dropouts_and_finds_nothing():
    model, batch = small(MID)
    plan = PrivacyPlan(sampling_rate=0.1, expected_batch_size=12, steps=2, clipping_norm=1.0, delta=1e-4)
    found = doctor(model, lambda model, batch: cross_entropy(model, batch, MID), batch, plan=plan)
    assert [finding.what for finding in found.findings if "random" in finding.what or finding.severity == "error"] == []
    assert all(module.training for module in model.modules())


def test_under_a_plan_the_bottleneck_trains_in_one_pass(digits: DataSet, split: Split):
    training = build_training(recipe(MID, "gaussian"), digits, split.members, 0)
    for batch in training.batches():
        training.step(batch)
    assert training.steps_taken == 4
    assert training._clipper.method == "one pass"


def test_a_larger_beta_leaves_less_of_the_input_in_the_hidden_layer(digits: DataSet, split: Split):
    def nats(beta: float) -> float:
        options = RegularizationConfig(information_bottleneck=beta)
        made = dataclasses.replace(recipe(options, steps=80), optimizer=OptimizerConfig(learning_rate=0.1))
        training = build_training(made, digits, split.members, 0)
        torch.manual_seed(0)
        for batch in training.batches():
            training.step(batch)
        model: nn.Sequential = training.model.eval()  # pyright: ignore[reportAssignmentType]
        (bottleneck,) = [module for module in model.modules() if isinstance(module, Bottleneck)]
        with torch.no_grad():
            hidden = model[:3](digits.inputs[split.non_members])
            return float(divergence(*bottleneck.of(hidden)).mean())

    assert nats(1e-3) > nats(1e-2) > nats(1e-1)


def test_a_released_bottleneck_is_opened_as_the_mean(digits: DataSet, split: Split, tmp_path: Path):
    trainer = Trainer(recipe(MID, steps=2), digits, split, seed=0, folder=tmp_path / "run")
    trainer.run()
    (release,) = sorted((tmp_path / "run").rglob("release"))[-1:]
    target = Target.open(release, Access.SCORES)
    scores = target.scores(digits.inputs[:5])
    assert np.array_equal(scores, target.scores(digits.inputs[:5]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig(name="linear"), "the model linear has no hidden layer to narrow; choose --model.name mlp or cnn"),
        (ModelConfig(name="mlp", hidden=()), r"model\.hidden is \[\]"),
        (ModelConfig(name="public_pca", hidden=(), components=5), "no hidden layer to narrow"),
    ],
)
def test_a_model_without_a_hidden_layer_has_no_bottleneck(config: ModelConfig, message: str):
    with pytest.raises(ConfigError, match=message):
        models.build(config, (1, 16, 16), 4, MID)


def test_the_cnn_has_one_too():
    model = models.build(ModelConfig(name="cnn"), (1, 16, 16), 4, MID)
    assert len([module for module in model.modules() if isinstance(module, Bottleneck)]) == 1
    assert model(torch.zeros(2, 1, 16, 16)).shape == (2, 4)


@pytest.mark.parametrize("regularization", [MID, BIDO])
def test_a_model_of_ones_own_without_such_a_layer_is_refused(regularization: RegularizationConfig):
    with pytest.raises(ConfigError, match="the model Linear has no hidden layer for it"):
        cross_entropy(nn.Linear(6, 4), (torch.zeros(3, 6), torch.zeros(3, dtype=torch.long)), regularization)


# -- dependence -------------------------------------------------------------------------------------------------------


def test_the_criterion_is_the_trace_of_centred_kernels():
    one, other = gaussian_kernel(spread(7, 3)), gaussian_kernel(spread(7, 2, 1))
    centre = torch.eye(7, dtype=torch.float64) - 1 / 7
    torch.testing.assert_close(hsic(one, other), (one @ centre @ other @ centre).trace() / 36)


def test_the_criterion_of_two_values_each_is_known():
    """Two groups of two: of the kernel that tells them apart with itself it is 4/9, with a constant one 0."""
    labels = torch.tensor([0, 0, 1, 1])
    apart = (labels[:, None] == labels).double()
    assert float(hsic(apart, apart)) == pytest.approx(4 / 9)
    assert float(hsic(apart, torch.ones(4, 4, dtype=torch.float64))) == pytest.approx(0.0)
    assert float(hsic(apart[:1, :1], apart[:1, :1])) == 0.0


def test_independent_data_have_next_to_no_dependence_and_identical_ones_much():
    first, second = gaussian_kernel(spread(500, 1)), gaussian_kernel(spread(500, 1, 1))
    square = gaussian_kernel(spread(500, 1).square())
    assert float(hsic(first, second)) < 0.002
    assert float(hsic(first, square)) > 0.01  # uncorrelated, and dependent
    assert float(hsic(first, first)) > 0.05


def test_the_width_of_a_kernel_is_the_median_distance_so_that_scale_changes_nothing():
    values = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)  # squared distances 1, 4, 9
    kernel = gaussian_kernel(values)
    assert float(kernel[0, 1]) == pytest.approx(math.exp(-1 / 8))
    assert float(kernel[0, 2]) == pytest.approx(math.exp(-9 / 8))
    torch.testing.assert_close(gaussian_kernel(0.001 * values), kernel)
    assert torch.equal(gaussian_kernel(torch.ones(4, 2)), torch.ones(4, 4))


def test_the_mean_loss_is_charged_dependence_on_inputs_and_rewarded_that_on_labels():
    options = RegularizationConfig(bilateral_dependency=2.0, bilateral_ratio=5.0)
    model, (inputs, targets) = small(options)
    hidden = gaussian_kernel(torch.tanh(model[1](inputs)))  # pyright: ignore[reportIndexIssue]
    plain = F.cross_entropy(model(inputs), targets, reduction="none")
    labels = F.one_hot(targets, 4).float()
    expected = plain + 2.0 * (hsic(gaussian_kernel(inputs), hidden) - 5.0 * hsic(hidden, labels @ labels.T))
    torch.testing.assert_close(cross_entropy(model, (inputs, targets), options), expected)


def test_training_lowers_what_it_is_charged_for(digits: DataSet, split: Split):
    def dependence(options: RegularizationConfig) -> float:
        training = build_training(recipe(options, steps=40), digits, split.members, 0)
        for batch in training.batches():
            training.step(batch)
        inputs = digits.inputs[split.non_members]
        model: nn.Sequential = training.model.eval()  # pyright: ignore[reportAssignmentType]
        with torch.no_grad():
            return float(hsic(gaussian_kernel(inputs), gaussian_kernel(model[:3](inputs))))

    charged = RegularizationConfig(bilateral_dependency=30.0, bilateral_ratio=0.0)
    assert dependence(charged) < 0.8 * dependence(RegularizationConfig())


@pytest.mark.parametrize("mechanism", ["gaussian", "clip_only"])
def test_under_clipping_what_compares_examples_is_refused(digits: DataSet, split: Split, mechanism: str):
    with pytest.raises(ConfigError, match=r"bilateral_dependency is 1.*no ε would hold.*information_bottleneck"):
        build_training(recipe(BIDO, mechanism), digits, split.members, 0)


@pytest.mark.parametrize(
    "options",
    [BIDO, RegularizationConfig(mixup=0.4), RegularizationConfig(relax=0.5, relax_by="batch")],
)
def test_a_script_that_clips_what_compares_examples_is_refused_and_gets_no_training_without_it(options: RegularizationConfig):
    """The engine takes one example at a time where a loss mixes them, and of one example each of these is nothing."""
    model = models.build(MLP, (6,), 4, RegularizationConfig())
    batch = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4
    with pytest.raises(ConfigError, match="under clipping"):
        Clipper(model, lambda model, rows: cross_entropy(model, rows, options), 0.1).sum([batch])
    without_clipping = Clipper(model, lambda model, rows: cross_entropy(model, rows, options), math.inf).sum([batch])
    assert all(bool(torch.isfinite(value).all()) for value in without_clipping.gradients.values())
    Clipper(model, lambda model, rows: cross_entropy(model, rows, RegularizationConfig()), 0.1).sum([batch])


def test_the_doctor_sees_that_it_compares_examples():
    model, batch = small(BIDO)
    plan = PrivacyPlan(sampling_rate=0.1, expected_batch_size=12, steps=2, clipping_norm=1.0, delta=1e-4)
    found = doctor(model, lambda model, batch: cross_entropy(model, batch, BIDO), batch, plan=plan)
    assert [finding for finding in found.findings if finding.severity == "error"]


# -- as options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regularization", [MID, BIDO])
def test_shadow_models_are_not_stacked(digits: DataSet, regularization: RegularizationConfig):
    with pytest.raises(Unstackable, match="more than dropout"):
        models_in_a_stack(recipe(regularization), digits, "masked")


def test_each_alone_takes_its_detail_along():
    both = RegularizationConfig(information_bottleneck=0.01, bilateral_dependency=1.0, bilateral_ratio=2.0, freeze=-1)
    assert both.each_alone() == {
        "information_bottleneck=0.01": RegularizationConfig(information_bottleneck=0.01),
        "bilateral_dependency=1.0,bilateral_ratio=2.0": RegularizationConfig(bilateral_dependency=1.0, bilateral_ratio=2.0),
        "freeze=-1": RegularizationConfig(freeze=-1),
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"information_bottleneck": -0.1}, "information_bottleneck is -0.1; give a finite number from 0 up"),
        ({"bilateral_dependency": float("nan")}, "bilateral_dependency is nan"),
        ({"bilateral_ratio": -1.0}, "bilateral_ratio is -1"),
        ({"freeze": -2}, r"freeze is -2; give a number of layers from 0 up, or -1"),
        ({"freeze_steps": -1}, "whole number of steps"),
        ({"bilateral_dependency": 1.0, "mixup": 0.2}, "no one label to depend on"),
        ({"information_bottleneck": 0.1, "distillation": 5}, "the student that is released learns without it"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(values: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Recipe(regularization=RegularizationConfig(**values))


@pytest.mark.parametrize("regularization", [MID, BIDO])
def test_a_loss_for_values_takes_neither(regularization: RegularizationConfig):
    with pytest.raises(ConfigError, match="is a part of the loss cross_entropy"):
        dataclasses.replace(recipe(regularization), training=TrainingConfig(loss="squared_error"))
