"""The last-layer attack: its Gaussian is that of least squares, and one reference model says what many would."""

import numpy as np
import pytest
import torch
from torch import nn

from dptrain.fleet import Fleet, draw_membership
from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, NotApplicable
from evaluation.membership.bayesian import Laplace, LastLayerBayes, last_layer
from evaluation.membership.threshold import LossThreshold
from evaluation.metrics import area_under_roc
from evaluation.target import Target

EXAMPLES, WIDTH, NOISE = 300, 40, 1.0


def ridge(inputs: np.ndarray, targets: np.ndarray, precision: float) -> np.ndarray:
    return np.linalg.solve(inputs.T @ inputs + precision * np.eye(inputs.shape[1]), inputs.T @ targets)


def test_taking_an_example_out_is_the_fit_without_it():
    """Least squares: mean and variance of the prediction are those of the ridge fit on the others, exactly."""
    generator = np.random.default_rng(0)
    inputs, precision = generator.normal(size=(30, 4)), 2.0
    targets = inputs @ np.array([1.0, -1.0, 0.5, 0.0]) + generator.normal(size=30)
    weight = ridge(inputs, targets, precision)
    values, vectors = np.linalg.eigh(inputs.T @ inputs)
    layer = Laplace(vectors, np.ones((1, 1)), values[:, None] + precision, scale=1.0)
    had = np.ones(30, dtype=bool)
    mean, covariance = layer.without_own(inputs, (inputs @ weight)[:, None], torch.from_numpy(targets), had)
    for left_out in range(30):
        others = np.arange(30) != left_out
        expected = inputs[left_out] @ ridge(inputs[others], targets[others], precision)
        spread = np.linalg.inv(inputs[others].T @ inputs[others] + precision * np.eye(4))
        assert mean[left_out, 0] == pytest.approx(expected)
        assert covariance[left_out, 0, 0] == pytest.approx(inputs[left_out] @ spread @ inputs[left_out])


def test_what_was_not_trained_on_stays_as_it_is():
    generator = np.random.default_rng(0)
    features, logits = generator.normal(size=(20, 3)), generator.normal(size=(20, 4))
    targets, had = torch.from_numpy(generator.integers(0, 4, 20)), np.arange(20) < 10
    layer = Laplace.fit(features[had], logits[had], np.ones((4, 3)), targets[torch.from_numpy(had)])
    mean, covariance = layer.without_own(features, logits, targets, had)
    assert mean[10:] == pytest.approx(logits[10:])
    assert covariance[10:] == pytest.approx(layer.covariance(features)[10:])
    rows = np.arange(10), targets[:10].numpy()
    assert (mean[rows] < logits[rows]).all()  # without its own example a layer thinks less of its label
    assert (np.linalg.eigvalsh(covariance) > -1e-9).all()


def regression_world(seed: int, leaks: bool = True) -> tuple[Target, LabelledExamples, Knowledge, np.ndarray]:
    """Target and reference are least squares on their members: a member's residual is (1 − leverage) of what it would be.

    Where nothing leaks, the target's members are others than those whose membership is asked.
    """
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(2 * EXAMPLES, WIDTH))
    targets = inputs @ generator.normal(size=WIDTH) + NOISE * generator.normal(size=2 * EXAMPLES)
    membership = draw_membership(2, 2 * EXAMPLES, 0.5, seed)
    is_member = membership[0, :EXAMPLES].copy()
    if not leaks:
        membership[0, :EXAMPLES] = False
    models = []
    for inside in membership:
        model = nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, 1, bias=False))
        model[1].weight.data = torch.from_numpy(ridge(inputs[inside], targets[inside], 1e-3))[None].float()
        models.append(model)
    state = {name: value.numpy()[None] for name, value in models[1].state_dict().items()}
    logits = (inputs @ ridge(inputs[membership[1]], targets[membership[1]], 1e-3))[None, :, None]
    fleet = Fleet(logits, membership[1:], "digest", weights=state, build=lambda: nn.Sequential(*models[1].children()))
    index = np.arange(EXAMPLES)
    examples = LabelledExamples(torch.from_numpy(inputs[index]).float(), torch.from_numpy(targets[index]).float(), index)
    target = Target(models[0], Access.SCORES, bounds=(-9.0, 9.0), classes=0, kind="regression")
    return target, examples, Knowledge(fleet=fleet), is_member


def test_one_reference_model_beats_the_loss():
    bayes, loss = [], []
    for seed in range(6):
        target, examples, knowledge, is_member = regression_world(seed)
        bayes.append(area_under_roc(LastLayerBayes().run(target, examples, knowledge), is_member).value or 0.0)
        loss.append(area_under_roc(LossThreshold().run(target, examples, knowledge), is_member).value or 0.0)
    assert np.mean(bayes) > np.mean(loss) + 0.03


def test_one_reference_model_makes_nothing_up():
    found = []
    for seed in range(8):
        target, examples, knowledge, is_member = regression_world(seed, leaks=False)
        found.append(area_under_roc(LastLayerBayes().run(target, examples, knowledge), is_member).value or 0.0)
    assert np.mean(found) == pytest.approx(0.5, abs=0.03)


class GoesOn(nn.Module):
    """Something after its last linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.linear(inputs).tanh()


def test_a_model_that_does_not_end_with_a_linear_layer_is_refused():
    for model in (GoesOn(), nn.Sequential(nn.Flatten())):
        with pytest.raises(NotApplicable, match="linear"):
            last_layer(model, torch.randn(5, 3))
    features, logits, weight = last_layer(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(5, 3))
    assert logits == pytest.approx(features @ weight.T, abs=1e-6)
