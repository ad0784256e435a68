"""Regularized losses against worked examples; under clipping each stays a loss of one example alone."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dptrain.data
from dptrain.clipping import Clipper
from dptrain.clipping.fallback import PerExampleGradients
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, draw
from dptrain.diagnosis import doctor
from dptrain.errors import ConfigError, DataError
from dptrain.plan import PrivacyPlan
from dptrain.recipe import DataConfig, ModelConfig, PrivacyConfig, Recipe, RegularizationConfig, TrainingConfig
from dptrain.registry import LOSSES
from dptrain.regularization import confidence_of, cross_entropy, entropy, relaxed
from dptrain.trainer import build_training

LOGITS = torch.tensor([[2.0, 0.5, -1.0, 0.0], [0.2, 0.1, 0.0, -0.1], [-1.0, 3.0, 0.0, 0.0]], dtype=torch.float64)
TARGETS = torch.tensor([0, 0, 2])
"""Sure and right; hardly right; sure and wrong."""
UNDER_CLIPPING = [
    RegularizationConfig(label_smoothing=0.1),
    RegularizationConfig(label_smoothing=-0.2),
    RegularizationConfig(label_entropy=0.8),
    RegularizationConfig(output_entropy=0.3),
    RegularizationConfig(relax=0.5),
    RegularizationConfig(relax=0.5, output_entropy=0.1),
]


def named(regularization: object) -> str | None:
    """What it changes, as the name of a test's case."""
    if not isinstance(regularization, RegularizationConfig):
        return None
    plain, given = dataclasses.asdict(RegularizationConfig()), dataclasses.asdict(regularization)
    return ",".join(f"{key}={value}" for key, value in given.items() if value != plain[key])


def losses_of(regularization: RegularizationConfig, epoch: int = 0) -> Tensor:
    return cross_entropy(nn.Identity(), (LOGITS, TARGETS), regularization, epoch)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return dptrain.data.load(DataConfig())


@pytest.fixture(scope="module")
def split(digits: DataSet) -> Split:
    return draw(len(digits), DataConfig().split, 0)


# -- known answers ----------------------------------------------------------------------------------------------------


def test_nothing_given_is_plain_cross_entropy():
    assert torch.equal(losses_of(RegularizationConfig()), F.cross_entropy(LOGITS, TARGETS, reduction="none"))


@pytest.mark.parametrize("smoothing", [0.3, -0.3])
def test_a_smoothed_label_has_its_share_on_every_class_and_one_below_zero_takes_it_from_them(smoothing: float):
    """Of four classes: 1 − .75 s on the label and s/4 on each other one; below 0 the others' scores are pushed down."""
    label = torch.full((3, 4), smoothing / 4, dtype=torch.float64)
    label[torch.arange(3), TARGETS] += 1 - smoothing
    logits = LOGITS.clone().requires_grad_()
    losses = cross_entropy(nn.Identity(), (logits, TARGETS), RegularizationConfig(label_smoothing=smoothing))
    torch.testing.assert_close(losses.detach(), -(label * LOGITS.log_softmax(1)).sum(1))
    losses.sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, LOGITS.softmax(1) - label)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("share", [0.2, 0.8, 0.95])
def test_soft_labels_have_the_entropy_that_was_asked_for(share: float, classes: int):
    label = torch.full((classes,), (1 - confidence_of(share, classes)) / (classes - 1), dtype=torch.float64)
    label[0] = confidence_of(share, classes)
    assert float(-(label * label.log()).sum()) == pytest.approx(share * math.log(classes))
    assert label[0] > 1 / classes


def test_the_loss_of_a_soft_label_is_its_divergence_from_the_output():
    """Torch's own KL, and 0 where the output is the label."""
    certainty = confidence_of(0.7, 4)
    label = torch.full((3, 4), (1 - certainty) / 3, dtype=torch.float64)
    label[torch.arange(3), TARGETS] = certainty
    expected = F.kl_div(F.log_softmax(LOGITS, 1), label, reduction="none").sum(1)
    config = RegularizationConfig(label_entropy=0.7)
    torch.testing.assert_close(losses_of(config), expected)
    met = cross_entropy(nn.Identity(), (label.log(), TARGETS), config)
    torch.testing.assert_close(met, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_output_entropy_is_taken_off_the_loss():
    probabilities = LOGITS.softmax(1)
    expected = -(probabilities * probabilities.log()).sum(1)
    torch.testing.assert_close(entropy(LOGITS), expected)
    plain = losses_of(RegularizationConfig())
    torch.testing.assert_close(losses_of(RegularizationConfig(output_entropy=0.25)), plain - 0.25 * expected)


def test_mixup_is_a_straight_line_between_two_examples(monkeypatch: pytest.MonkeyPatch):
    """λ = .3 of each example and .7 of the one before it; the model is linear, so the logits are mixed as the inputs are."""
    monkeypatch.setattr(torch, "randperm", lambda size, device=None: torch.arange(size).roll(1))
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self, shape: torch.full(shape, 0.3))
    found = losses_of(RegularizationConfig(mixup=0.2))
    mixed = 0.3 * LOGITS + 0.7 * LOGITS.roll(1, 0)
    own, other = (F.cross_entropy(mixed, labels, reduction="none") for labels in (TARGETS, TARGETS.roll(1)))
    torch.testing.assert_close(found, 0.3 * own + 0.7 * other, rtol=1e-6, atol=0)


def test_mixup_draws_its_shares_from_beta():
    """Beta(.2, .2) has mean 1/2 and variance 1/(4 · 1.4) = .179: most shares are near 0 or 1."""
    inputs, seen = torch.tensor([[0.0], [1.0]]).repeat(2000, 1), []

    class Kept(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(inputs)
            return torch.cat([inputs, -inputs], 1)

    torch.manual_seed(0)
    cross_entropy(Kept(), (inputs, torch.zeros(4000, dtype=torch.long)), RegularizationConfig(mixup=0.2))
    # Of equal examples nothing is seen, of different ones λ or 1 − λ: half of all stay as they were, the others are λ.
    shares = seen[0].double()
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(((shares - 0.5) ** 2).mean()) == pytest.approx((0.25 + 1 / 5.6) / 2, abs=0.01)


def test_relax_by_batch_is_the_published_loss():
    """Mean cross entropy 1.57: above .5 it is descended in both epochs; below 2 it ascends, or is flattened."""
    plain = F.cross_entropy(LOGITS, TARGETS, reduction="none")
    mean = float(plain.mean())
    assert mean == pytest.approx(1.5655, abs=1e-3)
    for epoch, level, expected in ((0, 0.5, mean - 0.5), (1, 0.5, mean), (2, 2.0, 2.0 - mean)):
        assert float(relaxed(LOGITS, TARGETS, level, epoch, by_batch=True).mean()) == pytest.approx(expected)
    sure = plain.neg().exp()
    soft = ((1 - sure) / 3).unsqueeze(1).repeat(1, 4)
    soft[torch.arange(3), TARGETS] = sure
    flat = torch.tensor([0.0, 0.0, 1.0]) * F.cross_entropy(LOGITS, soft, reduction="none") - plain
    torch.testing.assert_close(relaxed(LOGITS, TARGETS, 2.0, 1, by_batch=True), flat)


def test_relax_by_example_ascends_where_one_example_is_fitted_too_well():
    plain = F.cross_entropy(LOGITS, TARGETS, reduction="none")
    even, odd = (relaxed(LOGITS, TARGETS, 0.5, epoch, by_batch=False) for epoch in (0, 1))
    torch.testing.assert_close(even, (plain - 0.5).abs())
    assert plain[0] < 0.5 < plain[1]
    torch.testing.assert_close(odd, torch.stack([-plain[0], plain[1], plain[2]]))


def test_relax_by_example_is_what_the_batch_of_one_gives():
    for epoch in (0, 1):
        whole = relaxed(LOGITS, TARGETS, 0.5, epoch, by_batch=False)
        alone = [relaxed(LOGITS[i : i + 1], TARGETS[i : i + 1], 0.5, epoch, by_batch=True) for i in range(3)]
        torch.testing.assert_close(whole, torch.cat(alone))


def test_the_flat_label_is_a_constant_of_the_step():
    """Its confidence is the model's own, and no gradient goes through it."""
    logits = LOGITS.clone().requires_grad_()
    relaxed(logits, TARGETS, 9.0, 1, by_batch=False)[2].backward()
    own = LOGITS[2].softmax(0)
    soft = torch.full((4,), float(1 - own[2]) / 3, dtype=torch.float64)
    soft[2] = own[2]
    hard = F.one_hot(torch.tensor(2), 4)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[2], (own - soft) - (own - hard))


# -- one example alone ------------------------------------------------------------------------------------------------


def _small() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    return model, (torch.randn(12, 6), torch.randint(4, (12,)))


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("regularization", UNDER_CLIPPING, ids=named)
def test_under_clipping_a_gradient_is_of_one_example(regularization: RegularizationConfig, epoch: int):
    """The engine's clipped sum is that of examples taken one by one, and its own checks leave it on the one pass."""
    model, batch = _small()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(model, batch, regularization, epoch)

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


@pytest.mark.parametrize("regularization", UNDER_CLIPPING, ids=named)
def test_the_doctor_finds_nothing_in_a_loss_that_clipping_bounds(regularization: RegularizationConfig):
    model, batch = _small()
    plan = PrivacyPlan(sampling_rate=0.1, expected_batch_size=12, steps=2, clipping_norm=1.0, delta=1e-4)
    found = doctor(model, lambda model, batch: cross_entropy(model, batch, regularization), batch, plan=plan)
    assert [finding.what for finding in found.findings if finding.severity == "error"] == []


@pytest.mark.parametrize("kind", ["mixup", "relax"])
def test_the_doctor_sees_what_mixes_examples(kind: str):
    """Why these are refused under clipping. The level lies between the mean loss and the first example's."""
    model, batch = _small()
    losses = F.cross_entropy(model(batch[0]), batch[1], reduction="none").detach()
    level = float(losses.mean() + losses[0]) / 2
    config = RegularizationConfig(mixup=1.0) if kind == "mixup" else RegularizationConfig(relax=level, relax_by="batch")
    plan = PrivacyPlan(sampling_rate=0.1, expected_batch_size=12, steps=2, clipping_norm=1.0, delta=1e-4)
    found = doctor(model, lambda model, batch: cross_entropy(model, batch, config), batch, plan=plan)
    (error,) = [finding.what for finding in found.findings if finding.severity == "error"]
    assert "look at each other" in error or "depends on the others" in error


@pytest.mark.parametrize("regularization", UNDER_CLIPPING, ids=named)
def test_the_way_without_one_pass_can_compute_it_too(regularization: RegularizationConfig):
    model, batch = _small()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(model, batch, regularization, 1)

    parameters: dict[str, Tensor] = dict(model.named_parameters())
    gradients, losses = PerExampleGradients(model, loss)(parameters, batch)
    torch.testing.assert_close(losses, loss(model, batch).detach())
    assert all(len(value) == 12 for value in gradients.values())


# -- as options of a recipe -------------------------------------------------------------------------------------------


def recipe(regularization: RegularizationConfig, mechanism: str = "none") -> Recipe:
    privacy = PrivacyConfig(mechanism=mechanism, epsilon=4.0 if mechanism == "gaussian" else None)  # pyright: ignore[reportArgumentType]
    return Recipe(privacy=privacy, regularization=regularization, training=TrainingConfig(steps=4))


@pytest.mark.parametrize("mechanism", ["gaussian", "clip_only"])
@pytest.mark.parametrize(
    ("regularization", "message"),
    [
        (RegularizationConfig(mixup=0.2), r"mixup is 0\.2.*no ε would hold"),
        (RegularizationConfig(relax=0.5, relax_by="batch"), r"relax_by is 'batch'.*give 'example'"),
    ],
)
def test_what_mixes_examples_is_refused_under_clipping(
    digits: DataSet, split: Split, regularization: RegularizationConfig, message: str, mechanism: str
):
    with pytest.raises(ConfigError, match=message):
        build_training(recipe(regularization, mechanism), digits, split.members, 0)


@pytest.mark.parametrize(
    "regularization",
    [*UNDER_CLIPPING, RegularizationConfig(mixup=0.2), RegularizationConfig(relax=0.5, relax_by="batch")],
    ids=named,
)
def test_without_clipping_each_trains(digits: DataSet, split: Split, regularization: RegularizationConfig):
    training = build_training(recipe(regularization), digits, split.members, 0)
    for batch in training.batches():
        training.step(batch)
    weights = torch.cat([value.detach().flatten() for value in training.model.parameters()])
    assert bool(torch.isfinite(weights).all())
    assert bool(weights.any())


@pytest.mark.parametrize("regularization", UNDER_CLIPPING, ids=named)
def test_under_a_plan_each_trains_in_one_pass(digits: DataSet, split: Split, regularization: RegularizationConfig):
    made = dataclasses.replace(recipe(regularization, "gaussian"), model=ModelConfig(name="mlp", hidden=(8,)))
    training = build_training(made, digits, split.members, 0)
    for batch in training.batches():
        training.step(batch)
    assert training.steps_taken == 4
    assert training._clipper.method == "one pass"


def test_smoothing_makes_a_trained_model_less_sure_and_below_zero_surer(digits: DataSet, split: Split):
    """What negative smoothing is for: the label's score is driven on where plain cross entropy has nothing left to gain."""

    def log_odds(smoothing: float) -> float:
        made = dataclasses.replace(recipe(RegularizationConfig(label_smoothing=smoothing)), training=TrainingConfig(steps=60))
        training = build_training(made, digits, split.members, 0)
        for batch in training.batches():
            training.step(batch)
        with torch.no_grad():
            logits = training.model(digits.inputs[split.members])
        own = logits.gather(1, digits.targets[split.members, None])[:, 0]
        others = logits.scatter(1, digits.targets[split.members, None], -torch.inf).logsumexp(1)
        return float((own - others).mean())

    assert log_odds(0.2) < log_odds(0.0) < log_odds(-0.2)


def test_relax_alternates_with_the_epochs_of_the_plan(digits: DataSet, split: Split):
    """At q = 1/2 an epoch has two steps."""
    seen: list[int] = []

    privacy = PrivacyConfig(mechanism="none", sampling_rate=0.5, expected_batch_size=449.0)
    made = dataclasses.replace(recipe(RegularizationConfig(relax=0.5)), privacy=privacy, training=TrainingConfig(steps=6))
    plain = LOSSES["cross_entropy"]

    def watched(model: nn.Module, batch: tuple[Tensor, Tensor], regularization: RegularizationConfig, epoch: int = 0) -> Tensor:
        seen.append(epoch)
        return plain(model, batch, regularization, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dptrain.regularization.cross_entropy", watched)
        training = build_training(made, digits, split.members, 0)
    for batch in training.batches():
        training.step(batch)
    assert seen == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixup": -0.1}, "mixup is -0.1"),
        ({"relax": float("nan")}, "relax is nan"),
        ({"output_entropy": -1.0}, "output_entropy"),
        ({"label_entropy": 1.0}, "below 1"),
        ({"relax_by": "exampel"}, "did you mean 'example'"),
        ({"early_stopping": -1}, "whole number of steps"),
        ({"distillation": -2}, "whole number of steps"),
        ({"distillation_temperature": 0.0}, "above 0"),
        ({"distillation_learning_rate": float("inf")}, "finite number above 0"),
        ({"mixup": 0.2, "label_smoothing": 0.1}, "label_smoothing and mixup.*give one of them to a model"),
        ({"relax": 0.2, "label_entropy": 0.1}, "label_entropy and relax"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(values: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Recipe(regularization=RegularizationConfig(**values))


def test_a_loss_of_ones_own_does_not_pass_over_what_it_does_not_know():
    @LOSSES.register("mine_without_mixup")
    def mine(model: nn.Module, batch: tuple[Tensor, Tensor], regularization: RegularizationConfig) -> Tensor:
        return cross_entropy(model, batch, regularization)

    with pytest.raises(ConfigError, match="mixup is a part of the loss cross_entropy"):
        Recipe(regularization=RegularizationConfig(mixup=0.2), training=TrainingConfig(loss="mine_without_mixup"))


def test_all_of_it_is_off_by_itself_and_in_the_digest():
    plain = Recipe()
    assert not plain.regularization.needs_public
    changes = [
        RegularizationConfig(label_entropy=0.5),
        RegularizationConfig(output_entropy=0.5),
        RegularizationConfig(mixup=0.5),
        RegularizationConfig(relax=0.5),
        RegularizationConfig(relax=0.5, relax_by="batch"),
        RegularizationConfig(early_stopping=5),
        RegularizationConfig(distillation=5),
        RegularizationConfig(distillation=5, distillation_temperature=2.0),
        RegularizationConfig(distillation=5, distillation_learning_rate=0.2),
    ]
    digests = {dataclasses.replace(plain, regularization=change).digest() for change in changes}
    assert len(digests | {plain.digest()}) == len(changes) + 1


@pytest.mark.parametrize("regularization", [RegularizationConfig(early_stopping=5), RegularizationConfig(distillation=5)])
def test_what_needs_public_examples_takes_no_others(digits: DataSet, split: Split, regularization: RegularizationConfig):
    with pytest.raises(ConfigError, match=r"public examples, of which there are none.*data\.split\.public"):
        build_training(recipe(regularization), digits, split.members, 0)
    with pytest.raises(DataError, match="members as well"):
        build_training(recipe(regularization), digits, split.members, 0, public=np.append(split.public, split.members[0]))
