"""Likelihood-ratio attack, online (Carlini, Chien, Nasr, Song, Terzis, Tramèr 2022, "Membership Inference Attacks From
First Principles").

For each example, shadow models that had seen it and shadow models that had not give two Gaussians of the rescaled logit

    φ = log( p_y / (1 − p_y) )

and the score is the log-likelihood ratio of the target's φ under the two. With fewer than 64 shadow models one variance
for all examples (one for "in", one for "out") is the better estimate; from 64 on each example has its own.
"""

import numpy as np
from jaxtyping import Float

from dptrain.errors import UserError
from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.target import Target

OWN_VARIANCE_FROM = 64
LEAST_PAIRS = 10
"""Degrees of freedom that the pooled variance needs, both of models with an example and of models without it."""


class Lira(MembershipAttack):
    """Likelihood ratio over shadow models of the target's own recipe."""

    access = Access.SCORES
    paper = "Carlini et al. 2022"
    needs_fleet = True

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        if knowledge.fleet is None:
            raise UserError("LiRA needs shadow models; give the recipe, or retrain=, so that they can be trained")
        labels = examples.targets.numpy()
        shadows = np.stack([rescaled(log_softmax(one[examples.indices]), labels) for one in knowledge.fleet.logits])
        inside = knowledge.fleet.membership[:, examples.indices]
        scores = target.scores(examples.inputs)
        with np.errstate(divide="ignore"):
            return log_likelihood_ratio(rescaled(np.log(scores), labels), shadows, inside)


def log_softmax(logits: Float[np.ndarray, "examples classes"]) -> Float[np.ndarray, "examples classes"]:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def rescaled(log_scores: Float[np.ndarray, "examples classes"], labels: np.ndarray) -> Float[np.ndarray, " examples"]:
    """φ of each example, in nats, from log-probabilities: log p_y − log Σ_{j≠y} p_j, without 1 − p_y cancelling."""
    rows = np.arange(len(labels))
    others = log_scores.copy()
    truth = others[rows, labels].copy()
    others[rows, labels] = -np.inf
    highest = others.max(1)
    highest = np.where(np.isfinite(highest), highest, -745.0)
    rest = highest + np.log(np.maximum(np.exp(others - highest[:, None]).sum(1), np.finfo(float).tiny))
    return np.clip(truth, -745.0, 0.0) - rest


def log_likelihood_ratio(
    observed: Float[np.ndarray, " examples"],
    shadows: Float[np.ndarray, "models examples"],
    inside: np.ndarray,
) -> Float[np.ndarray, " examples"]:
    """log N(φ; in) − log N(φ; out) for each example.

    Where no shadow model had an example (or all had it), its missing mean is the other one, moved by the mean gap.

    Raises:
        UserError: too few shadow models to estimate a variance.
    """
    means, variances = [], []
    for chosen in (inside, ~inside):
        count = chosen.sum(0)
        if (count - 1).clip(0).sum() < LEAST_PAIRS:
            raise UserError(f"{len(shadows)} shadow models are too few to compare with; raise evaluation.shadow_models")
        mean = np.where(count > 0, (shadows * chosen).sum(0) / np.maximum(count, 1), np.nan)
        squares = ((shadows - np.nan_to_num(mean)) ** 2 * chosen).sum(0)
        pooled = squares.sum() / (count - 1).clip(0).sum()
        has_own = (count > 1) & (len(shadows) >= OWN_VARIANCE_FROM)
        means.append(mean)
        variances.append(np.maximum(np.where(has_own, squares / np.maximum(count - 1, 1), pooled), 1e-12))
    gap = float(np.nanmean(means[0] - means[1]))
    of_members = np.where(np.isnan(means[0]), means[1] + gap, means[0])
    of_others = np.where(np.isnan(means[1]), means[0] - gap, means[1])
    return log_density(observed, of_members, variances[0]) - log_density(observed, of_others, variances[1])


def log_density(
    observed: Float[np.ndarray, " examples"], mean: Float[np.ndarray, " examples"], variance: np.ndarray
) -> Float[np.ndarray, " examples"]:
    """Of a Gaussian, up to the constant that cancels in a ratio."""
    return -((observed - mean) ** 2) / (2 * variance) - 0.5 * np.log(variance)
