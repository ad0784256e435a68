"""Likelihood-ratio attack (Carlini, Chien, Nasr, Song, Terzis, Tramèr 2022, "Membership Inference Attacks From First
Principles").

For each example, shadow models that had seen it and shadow models that had not give two Gaussians of the signal φ, which
for classes is the rescaled logit log(p_y / (1 − p_y)).

* online: log N(φ; μ_in, σ_in²) − log N(φ; μ_out, σ_out²), with φ of the target
* offline: only models without the example are used. The paper's 1 − P(Z > φ) is Φ(z) of z = (φ − μ_out) / σ_out; the
  score is z itself, which puts examples in the same order and does not round to 1.

With few models one variance for all examples (one for "in", one for "out") is the better estimate; with 128, about 64 on
each side, each example has its own, as in the paper.

One model gives no variance and, of each example, one of the two means; the other is moved by the mean gap
(:mod:`~evaluation.membership.reference`). With equal variances their size does not matter to the order of the scores, so the
attack works from one model on: online it is then φ minus the middle between the two means, offline φ minus the mean without.

Where the fleet answered augmented views, every view is one more question. The questions are made one signal by the weights
that tell the shadow models' members from their non-members best, Σ⁻¹ δ with δ the mean gap of each question over all examples
and Σ the questions' covariance (linear discriminant, Fisher 1936), and this signal is attacked as above. The paper has one
Gaussian over all questions, whose mean and covariance are each example's own; with few models these are mostly noise, and
questions that say little drown the one that says much. Nothing of the target enters the weights.
"""

from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float

from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.membership.reference import group_means, variances
from evaluation.membership.signal import outputs_of, signal
from evaluation.target import Target

OWN_VARIANCE_FROM = 128
"""Shadow models, with and without an example together."""
LEAST_PAIRS = 10
"""Degrees of freedom that the pooled variance needs, both of models with an example and of models without it."""


class Lira(MembershipAttack):
    """Online: models with and without each example."""

    access = Access.SCORES
    paper = "Carlini et al. 2022"
    needs = frozenset({"fleet"})
    offline: ClassVar[bool] = False

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        inside = knowledge.models().membership[:, examples.indices]
        observed, shadows = as_one(*questions(target, examples, knowledge), inside)
        return (standardised if self.offline else log_likelihood_ratio)(observed, shadows, inside)


class OfflineLira(Lira):
    """Offline: models without the example alone, which can be trained before the example is known."""

    offline = True


def questions(
    target: Target, examples: LabelledExamples, knowledge: Knowledge
) -> tuple[Float[np.ndarray, "questions examples"], Float[np.ndarray, "models questions examples"]]:
    """The signals of the target and of every shadow model: for the examples as they are, then for each augmented view."""
    fleet, targets = knowledge.models(), examples.targets
    observed = [signal(outputs_of(target, examples.inputs, examples.targets), targets)]
    shadows = [signal(fleet.logits[:, examples.indices], targets)]
    if fleet.views is not None and knowledge.views is not None:
        for number, inputs in enumerate(knowledge.views(examples.inputs)):
            observed.append(signal(outputs_of(target, inputs, targets), targets))
            shadows.append(signal(fleet.views[:, number, examples.indices], targets))
    return np.stack(observed), np.stack(shadows, axis=1)


def as_one(
    observed: Float[np.ndarray, "questions examples"],
    shadows: Float[np.ndarray, "models questions examples"],
    inside: Bool[np.ndarray, "models examples"],
) -> tuple[Float[np.ndarray, " examples"], Float[np.ndarray, "models examples"]]:
    """All questions about an example as one signal: their linear discriminant between shadow models with and without it."""
    if len(observed) == 1:
        return observed[0], shadows[:, 0]
    means = [group_means(shadows[:, number], inside) for number in range(len(observed))]
    of_members, of_others = (np.stack(part) for part in zip(*((pair.inside, pair.outside) for pair in means), strict=True))
    apart = (shadows - np.where(inside[:, None], of_members, of_others)).transpose(0, 2, 1).reshape(-1, len(observed))
    weights = np.linalg.pinv(apart.T @ apart / len(apart), hermitian=True) @ (of_members - of_others).mean(1)
    return weights @ observed, np.einsum("q,mqn->mn", weights, shadows)


def log_likelihood_ratio(
    observed: Float[np.ndarray, " examples"],
    shadows: Float[np.ndarray, "models examples"],
    inside: np.ndarray,
) -> Float[np.ndarray, " examples"]:
    """log N(φ; in) − log N(φ; out) for each example.

    Raises:
        UserError: too few shadow models to estimate a variance.
    """
    means = group_means(shadows, inside)
    of_members = variances(shadows, inside, means.inside, OWN_VARIANCE_FROM, LEAST_PAIRS)
    of_others = variances(shadows, ~inside, means.outside, OWN_VARIANCE_FROM, LEAST_PAIRS)
    return log_density(observed, means.inside, of_members) - log_density(observed, means.outside, of_others)


def standardised(
    observed: Float[np.ndarray, " examples"],
    shadows: Float[np.ndarray, "models examples"],
    inside: np.ndarray,
) -> Float[np.ndarray, " examples"]:
    """How many standard deviations φ lies above the models without the example."""
    outside = group_means(shadows, inside).outside
    return (observed - outside) / np.sqrt(variances(shadows, ~inside, outside, OWN_VARIANCE_FROM, LEAST_PAIRS))


def log_density(
    observed: Float[np.ndarray, " examples"], mean: Float[np.ndarray, " examples"], variance: np.ndarray
) -> Float[np.ndarray, " examples"]:
    """Of a Gaussian, up to the constant that cancels in a ratio."""
    return -((observed - mean) ** 2) / (2 * variance) - 0.5 * np.log(variance)
