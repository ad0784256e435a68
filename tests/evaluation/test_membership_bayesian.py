"""The last-layer attack: its Gaussian is that of least squares, and one reference model says what many would."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import t as student
from torch import nn

from dptrain.fleet import Fleet, draw_membership
from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, NotApplicable
from evaluation.membership.bayesian import DRAWS, Laplace, LastLayerBayes, last_layer
from evaluation.membership.threshold import LossThreshold
from evaluation.metrics import area_under_roc
from evaluation.target import Target

EXAMPLES, WIDTH, NOISE = 300, 40, 1.0


def ridge(inputs: np.ndarray, targets: np.ndarray, precision: float) -> np.ndarray:
    return np.linalg.solve(inputs.T @ inputs + precision * np.eye(inputs.shape[1]), inputs.T @ targets)


def exact_world(precision: float, examples: int = 2000, width: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray, Laplace]:
    """Linear regression on weights of a known prior, with noise 1: inputs, values, ridge weights and the fitted layer."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(examples, width))
    targets = inputs @ generator.normal(size=width) / np.sqrt(precision) + generator.normal(size=examples)
    weight = ridge(inputs, targets, precision)
    return inputs, targets, weight, Laplace.fit(inputs, (inputs @ weight)[:, None], weight[None], torch.from_numpy(targets))


@pytest.mark.parametrize("precision", [0.1, 3.0, 100.0])
def test_least_squares_has_its_own_posterior(precision: float):
    """There a Laplace approximation is exact: (XᵀX / s² + λI)⁻¹. λ is found within a step of its grid, half a decade."""
    inputs, _, _, layer = exact_world(precision)
    chosen = float(layer.precision.min() - np.linalg.eigvalsh(inputs.T @ inputs).min() / layer.scale**2)
    assert abs(np.log10(chosen / precision)) < 0.5
    posterior = np.linalg.inv(inputs.T @ inputs / layer.scale**2 + chosen * np.eye(inputs.shape[1]))
    asked = np.random.default_rng(1).normal(size=(7, inputs.shape[1]))
    assert layer.covariance(asked)[:, 0, 0] == pytest.approx(np.einsum("ni,ij,nj->n", asked, posterior, asked))


def test_of_non_members_whose_weights_come_from_the_posterior_the_test_rejects_as_many_as_it_says():
    """Targets drawn from the exact posterior: p-values below .05 and .2 for about that share of examples, t by hand."""
    inputs, _, weight, layer = exact_world(3.0)
    generator = np.random.default_rng(2)
    asked = generator.normal(size=(500, inputs.shape[1]))
    values = asked @ weight + generator.normal(size=500)
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(weight), 1, bias=False))
    rows = np.concatenate([inputs, asked])
    wanted = np.concatenate([inputs @ weight + generator.normal(size=len(inputs)), values])
    state = {"1.weight": weight[None, None].astype(np.float32)}
    membership = (np.arange(len(rows)) < len(inputs))[None]
    fleet = Fleet((rows @ weight)[None, :, None], membership, "digest", weights=state, build=lambda: copy.deepcopy(model))
    examples = LabelledExamples(torch.from_numpy(rows).float(), torch.from_numpy(wanted).float(), np.arange(len(rows)))
    fitted = Laplace.fit(inputs, (inputs @ weight)[:, None], weight[None], examples.targets[: len(inputs)])
    root = np.linalg.cholesky(fitted.inner @ np.diag(1 / fitted.precision[:, 0]) @ fitted.inner.T)
    rejected = {0.05: [], 0.2: []}
    for _ in range(20):
        drawn = copy.deepcopy(model)
        drawn[1].weight.data = torch.from_numpy(weight + root @ generator.normal(size=len(weight)))[None].float()
        target = Target(drawn, Access.SCORES, bounds=(-9.0, 9.0), classes=0, kind="regression")
        found = LastLayerBayes().run(target, examples, Knowledge(fleet=fleet))[len(inputs) :]
        for level, shares in rejected.items():
            shares.append((student.sf(found, DRAWS - 1) < level).mean())
    for level, shares in rejected.items():
        assert np.mean(shares) == pytest.approx(level, abs=0.02)
    assert layer.scale == pytest.approx(1.0, abs=0.05)


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
