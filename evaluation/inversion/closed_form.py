"""The one unknown example of a linear model that was fitted to convergence: from its weights, in closed form.

    found = missing_example(linear, (known_inputs, known_targets), loss="cross_entropy", weight_decay=0.01)
    found.input, found.target, found.mismatch

The adversary knows all training examples but one, the loss and the penalty, and sees the final weights W and b alone (Balle,
Cherubin, Hayes 2022, "Reconstructing Training Data with Informed Adversaries", their attack on generalised linear models).
With outputs o = W x + b, e_i = ∂ℓ/∂o of example i, and the objective

    (1/n) Σ_i ℓ(W x_i + b, y_i) + (λ/2) ‖W‖²

the gradient is 0 where training has converged, which is, for W and for b,

    Σ_i e_i x_iᵀ + n λ W = 0,      Σ_i e_i = 0

All terms are known but those of the one, so that

    e xᵀ = −n λ W − Σ_known e_i x_iᵀ,      e = −Σ_known e_i

and x follows as from a gradient (:func:`~evaluation.inversion.gradient.analytic`). Where the penalty is on b too, n λ b joins
the second line. The target follows from e: ŷ − y of squared loss ½(ŷ − y)², σ(o) − y of logistic loss, softmax(o) − onehot(y)
of cross-entropy.

**Other conventions.** A penalty that is added to the *sum* of losses is n λ: scikit-learn's ``Ridge(alpha=a)`` has λ = a / n,
its ``LogisticRegression(C=c)`` has λ = 1 / (c n), both without a penalty on b.

**Not converged.** A gradient g is left at the final weights, and n g is added to what should be the example's own. The
reconstruction is then wrong, and the adversary can see it: what x says of e is no longer the e that was found (``mismatch``).
Ten of 300 digits of scikit-learn: cross-entropy, λ = 0.01, has a mean squared error of at most 8e-10 after 500 iterations of
L-BFGS, 2e-8 after 100, and in the median .07 after 20. scikit-learn's logistic regression has 2e-26 by Newton's method to a
tolerance of 1e-12, and .03 as it is called without arguments (``tests/evaluation/test_inversion_closed_form.py``).
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dptrain.errors import UserError, unknown_name
from evaluation.inversion.gradient import analytic, label_of
from evaluation.inversion.released import Labelled

Loss = Literal["squared", "logistic", "cross_entropy"]
Penalized = Literal["weights", "weights_and_bias"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Missing:
    """The example that explains the weights."""

    input: Float[Tensor, " features"]
    target: float
    """The value, or the index of the class."""
    mismatch: float
    """‖e(x, y) − e‖ / ‖e‖: 0 but for rounding where the model had converged. NaN for squared loss, where some y explains any
    e."""


@torch.no_grad()
def missing_example(
    model: nn.Linear,
    known: Labelled,
    *,
    loss: Loss,
    weight_decay: float = 0.0,
    penalized: Penalized = "weights",
) -> Missing:
    """The training example that is not among the known ones.

    Args:
        model: as it was fitted; with a bias. Best in float64, since what one example adds is small beside the sum.
        known: inputs ``[n - 1, features]``, and targets: values, 0 or 1 (``logistic``), or classes.
        weight_decay: λ above.

    Raises:
        UserError: the layer has no bias, or another number of outputs than the loss takes.
        DataError: the example has no gradient at these weights, so that they hold nothing of it.
        ConfigError: the loss or the penalty is none of those that there are.
    """
    _check(model, loss, penalized)
    inputs, targets = known
    inputs = inputs.flatten(1).to(model.weight.dtype)
    by_output = _by_output(model(inputs), targets, loss)
    decay = (len(inputs) + 1) * weight_decay
    of_weight = -decay * model.weight - by_output.t() @ inputs
    of_bias = -by_output.sum(0) - (decay * model.bias if penalized == "weights_and_bias" else 0.0)
    found = analytic(of_weight, of_bias)
    output = model(found[None])
    if loss == "squared":
        return Missing(input=found, target=float(output - of_bias), mismatch=math.nan)
    target = label_of(of_bias) if loss == "cross_entropy" else int(of_bias < 0)
    apart = _by_output(output, torch.tensor([target]), loss)[0] - of_bias
    return Missing(input=found, target=float(target), mismatch=float(apart.norm() / of_bias.norm()))


def _by_output(outputs: Float[Tensor, "examples outputs"], targets: Tensor, loss: Loss) -> Float[Tensor, "examples outputs"]:
    """The derivative of each example's loss by its outputs."""
    if loss == "cross_entropy":
        return outputs.softmax(1) - F.one_hot(targets, outputs.shape[1])
    values = targets.to(outputs.dtype)[:, None]
    return outputs - values if loss == "squared" else outputs.sigmoid() - values


def _check(model: nn.Linear, loss: str, penalized: str) -> None:
    if loss not in get_args(Loss):
        raise unknown_name("loss", loss, get_args(Loss))
    if penalized not in get_args(Penalized):
        raise unknown_name("penalized", penalized, get_args(Penalized))
    if model.bias is None:  # pyright: ignore[reportUnnecessaryComparison]  None with bias=False, whatever torch declares
        raise UserError("the layer has no bias, whose condition gives the example's own derivative; give one with bias=True")
    if (loss == "cross_entropy") != (model.out_features > 1):
        raise UserError(
            f"the layer has {model.out_features} outputs and loss is {loss!r}; give 'cross_entropy' with one a class, "
            "'squared' or 'logistic' with one in all"
        )
