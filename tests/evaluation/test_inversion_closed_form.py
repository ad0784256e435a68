"""The one unknown example of a converged linear model comes back exactly, and that of an unconverged one does not."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn

from dptrain.errors import ConfigError, UserError
from evaluation.inversion.closed_form import _check as check
from evaluation.inversion.closed_form import missing_example

EXAMPLES, SECRETS = 300, range(0, 300, 30)


def digits() -> tuple[Tensor, Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))[:EXAMPLES]
    return torch.tensor(pixels[order] / 16), torch.tensor(labels[order])


def without(secret: int, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    others = torch.arange(len(inputs)) != secret
    return inputs[others], targets[others]


def linear(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    outputs, features = np.atleast_2d(weight).shape
    model = nn.Linear(features, outputs).double()
    model.weight.data.copy_(torch.tensor(np.atleast_2d(weight)))
    model.bias.data.copy_(torch.tensor(np.atleast_1d(bias)))
    return model


def softmax_regression(inputs: Tensor, labels: Tensor, weight_decay: float, steps: int, penalized: str) -> nn.Linear:
    model = nn.Linear(64, 10).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=steps,
        tolerance_grad=1e-13,
        tolerance_change=0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        squares = model.weight.square().sum() + (model.bias.square().sum() if penalized == "weights_and_bias" else 0.0)
        loss = F.cross_entropy(model(inputs), labels) + weight_decay / 2 * squares
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]  a closure may give a tensor
    return model


@pytest.mark.parametrize("penalized", ["weights", "weights_and_bias"])
def test_each_digit_comes_back_from_a_converged_softmax_regression(penalized):
    inputs, labels = digits()
    model = softmax_regression(inputs, labels, 0.01, 500, penalized)
    for secret in SECRETS:
        known = without(secret, inputs, labels)
        found = missing_example(model, known, loss="cross_entropy", weight_decay=0.01, penalized=penalized)
        assert float((found.input - inputs[secret]).square().mean()) < 1e-8
        assert found.target == int(labels[secret])
        assert found.mismatch < 1e-3


def test_each_digit_comes_back_from_scikit_learns_logistic_regression():
    inputs, labels = digits()
    odd = labels % 2
    fitted = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(inputs.numpy(), odd.numpy())
    model = linear(fitted.coef_, fitted.intercept_)
    for secret in SECRETS:
        known = without(secret, inputs, odd)
        found = missing_example(model, known, loss="logistic", weight_decay=1 / EXAMPLES)
        assert float((found.input - inputs[secret]).square().mean()) < 1e-15
        assert found.target == int(odd[secret])
        assert found.mismatch < 1e-9


@pytest.mark.parametrize("alpha", [1.0, 100.0])
def test_each_digit_and_its_value_come_back_from_scikit_learns_ridge_regression(alpha: float):
    inputs, labels = digits()
    fitted = Ridge(alpha=alpha).fit(inputs.numpy(), labels.numpy().astype(float))
    model = linear(fitted.coef_, fitted.intercept_)
    for secret in SECRETS:
        known = without(secret, inputs, labels.double())
        found = missing_example(model, known, loss="squared", weight_decay=alpha / EXAMPLES)
        assert float((found.input - inputs[secret]).square().mean()) < 1e-15
        assert found.target == pytest.approx(float(labels[secret]), abs=1e-6)
        assert math.isnan(found.mismatch)


@pytest.mark.parametrize("iterations", [5, 20])
def test_of_an_unconverged_model_the_digit_does_not_come_back_and_the_mismatch_says_so(iterations: int):
    inputs, labels = digits()
    model = softmax_regression(inputs, labels, 0.01, iterations, "weights")
    errors, mismatches = [], []
    for secret in SECRETS:
        known = without(secret, inputs, labels)
        found = missing_example(model, known, loss="cross_entropy", weight_decay=0.01)
        errors.append(float((found.input - inputs[secret]).square().mean()))
        mismatches.append(found.mismatch)
    assert np.median(errors) == pytest.approx(0.067, abs=0.02)
    assert min(mismatches) > 0.1


def test_scikit_learns_usual_tolerance_leaves_a_gradient_that_hides_the_digit():
    """Fitted by its default L-BFGS, whose tolerance is 1e-4."""
    inputs, labels = digits()
    odd = labels % 2
    fitted = LogisticRegression(C=1.0).fit(inputs.numpy(), odd.numpy())
    found = [
        missing_example(
            linear(fitted.coef_, fitted.intercept_), without(secret, inputs, odd), loss="logistic", weight_decay=1 / EXAMPLES
        )
        for secret in SECRETS
    ]
    errors = [float((own.input - inputs[secret]).square().mean()) for own, secret in zip(found, SECRETS, strict=True)]
    assert np.median(errors) > 0.01
    assert np.median([own.mismatch for own in found]) > 0.1


def test_a_penalty_that_was_forgotten_shows_as_a_mismatch():
    inputs, labels = digits()
    model = softmax_regression(inputs, labels, 0.01, 500, "weights")
    known = without(0, inputs, labels)
    assert missing_example(model, known, loss="cross_entropy").mismatch > 0.1


def test_a_layer_without_a_bias_or_with_other_outputs_and_an_unknown_loss_are_refused():
    known = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(UserError, match="no bias"):
        missing_example(nn.Linear(4, 2, bias=False), known, loss="cross_entropy")
    with pytest.raises(UserError, match="2 outputs and loss is 'logistic'"):
        missing_example(nn.Linear(4, 2), known, loss="logistic")
    with pytest.raises(ConfigError, match="did you mean 'squared'"):
        check(nn.Linear(4, 1), "square", "weights")  # past the types that are checked while tests run
