"""What a model says of an example, as one number: the higher, the better the model fits it.

Attacks do not ask whether a model classifies or predicts a value; the two functions here do.

| | classification | regression, residual r = prediction − target | language |
|---|---|---|---|
| :func:`log_likelihood` | log p_y | −½ (r / scale)² | mean over places of log p(what is there) |
| :func:`signal`, about Gaussian over models | log p_y − log(1 − p_y) | −∣r∣^⅔ | the same mean |

The rescaled logit is that of Carlini et al. 2022, "Membership Inference Attacks From First Principles". For a Gaussian
residual the cube root of its square is close to Gaussian (Wilson, Hilferty 1931, "The Distribution of Chi-square"), and
unlike the residual itself it has a direction: a smaller error fits better. ``scale`` is the root mean square of the
residuals of examples that were not trained on.
"""

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from evaluation.membership import NotApplicable
from evaluation.target import Target, kind_of

LOWEST = -745.0
"""Of a log-probability, in nats: the logarithm of the smallest float64 above 0."""


NO_CLASSES = {
    "regression": "it needs classes, and this model predicts a value; use membership.threshold",
    "language": "it needs one class an example, and this model says what comes next at each place of a sequence; use "
    "membership.threshold",
}


def require_classes(targets: Tensor) -> None:
    """Raises NotApplicable where a model predicts values, or what comes next in a text."""
    kind = kind_of(targets)
    if kind in NO_CLASSES:
        raise NotApplicable(NO_CLASSES[kind])


def require_numbers(inputs: Tensor) -> None:
    """Raises NotApplicable where inputs are tokens, which cannot be moved a little."""
    if not inputs.is_floating_point():
        raise NotApplicable("it needs inputs that can be moved a little, and these are words; use membership.threshold")


def outputs_of(target: Target, inputs: Tensor, targets: Tensor) -> Float[np.ndarray, "examples outputs"]:
    """What a target of score access answers, in the form of a fleet's ``logits``: log-probabilities of classes, or of what is
    at each place; or predictions."""
    if target.kind == "language":
        return target.log_likelihoods(inputs, targets)
    scores = target.scores(inputs)
    if target.kind == "regression":
        return scores
    with np.errstate(divide="ignore"):
        return np.log(scores)


def signal(logits: Float[np.ndarray, "*lead examples outputs"], targets: Tensor) -> Float[np.ndarray, "*lead examples"]:
    """How well each model fits each example, on a scale where models that differ by chance are about Gaussian."""
    if kind_of(targets) == "language":
        return np.asarray(logits, dtype=float).mean(-1)
    if kind_of(targets) == "regression":
        return -np.cbrt(residuals(logits, targets) ** 2)
    return rescaled(log_softmax(logits), targets.numpy())


def log_likelihood(
    logits: Float[np.ndarray, "*lead examples outputs"], targets: Tensor, scale: float = 1.0
) -> Float[np.ndarray, "*lead examples"]:
    """The log-probability of the example's target in nats; of a value, up to a constant, that of a Gaussian residual."""
    if kind_of(targets) == "language":
        return np.asarray(logits, dtype=float).mean(-1)
    if kind_of(targets) == "regression":
        return -0.5 * (residuals(logits, targets) / scale) ** 2
    return np.maximum(_at(log_softmax(logits), targets.numpy()), LOWEST)


def features(logits: Float[np.ndarray, "*lead examples outputs"], targets: Tensor) -> Float[np.ndarray, "*lead examples given"]:
    """What a learned attack is shown: the signal, and the three highest log-probabilities in order, or the prediction, or the
    lowest log-probabilities of a sequence."""
    first = signal(logits, targets)[..., None]
    if kind_of(targets) == "language":
        return np.concatenate([first, np.sort(logits, axis=-1)[..., :3]], axis=-1)
    if kind_of(targets) == "regression":
        return np.concatenate([first, logits], axis=-1)
    ordered = -np.sort(-np.maximum(log_softmax(logits), LOWEST), axis=-1)
    return np.concatenate([first, ordered[..., :3]], axis=-1)


def residuals(logits: Float[np.ndarray, "*lead examples outputs"], targets: Tensor) -> Float[np.ndarray, "*lead examples"]:
    """Prediction minus target, of models with one output."""
    return logits[..., 0] - targets.double().numpy().reshape(-1)


def residual_scale(
    logits: Float[np.ndarray, "*lead examples outputs"], targets: Tensor, used: Bool[np.ndarray, "*lead examples"]
) -> float:
    """Root mean square of the residuals that are used; 1 for classes, whose log-likelihood has no scale."""
    if kind_of(targets) != "regression":
        return 1.0
    return float(max(np.sqrt(np.mean(residuals(logits, targets)[used] ** 2)), np.finfo(float).tiny))


def log_softmax(logits: Float[np.ndarray, "*lead classes"]) -> Float[np.ndarray, "*lead classes"]:
    """Log-probabilities in nats."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def rescaled(
    log_scores: Float[np.ndarray, "*lead examples classes"], labels: np.ndarray
) -> Float[np.ndarray, "*lead examples"]:
    """φ of each example, in nats, from log-probabilities: log p_y − log Σ_{j≠y} p_j, without 1 − p_y cancelling."""
    others = log_scores.copy()
    others[..., np.arange(len(labels)), labels] = -np.inf
    highest = others.max(-1)
    highest = np.where(np.isfinite(highest), highest, LOWEST)
    rest = highest + np.log(np.maximum(np.exp(others - highest[..., None]).sum(-1), np.finfo(float).tiny))
    return np.clip(_at(log_scores, labels), LOWEST, 0.0) - rest


def _at(values: Float[np.ndarray, "*lead examples classes"], labels: np.ndarray) -> Float[np.ndarray, "*lead examples"]:
    return values[..., np.arange(len(labels)), labels]
