"""Likelihood-ratio attack (Carlini, Chien, Nasr, Song, Terzis, Tramèr 2022, "Membership Inference Attacks From First
Principles").

For each example, shadow models that had seen it and shadow models that had not give two Gaussians of the signal φ, which
for classes is the rescaled logit log(p_y / (1 − p_y)).

* online: log N(φ; μ_in, σ_in²) − log N(φ; μ_out, σ_out²), with φ of the target
* offline: only models without the example are used. The paper's 1 − P(Z > φ) is Φ(z) of z = (φ − μ_out) / σ_out; the
  score is z itself, which puts examples in the same order and does not round to 1.

With few models one variance for all examples (one for "in", one for "out") is the better estimate; with 128, about 64 on
each side, each example has its own. On digits, 8 non-private targets, the mean online AUC and the true positive rate at 1%
false positives with one variance | with own ones are .599, .054 | .588, .040 from 64 models, .606, .056 | .599, .055 from
128, and .606, .057 | .605, .057 from 256.

Where the fleet answered augmented views, every view is one more question, and the scores of the questions are added as if
they were independent (the paper's general form has one Gaussian over all questions, whose covariance needs more models than
questions).
"""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from jaxtyping import Float

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
        score = standardised if self.offline else log_likelihood_ratio
        total = np.zeros(len(examples.indices))
        for observed, shadows in questions(target, examples, knowledge):
            total += score(observed, shadows, inside)
        return total


class OfflineLira(Lira):
    """Offline: models without the example alone, which can be trained before the example is known."""

    offline = True


def questions(
    target: Target, examples: LabelledExamples, knowledge: Knowledge
) -> Iterator[tuple[Float[np.ndarray, " examples"], Float[np.ndarray, "models examples"]]]:
    """The signals of the target and of every shadow model: for the examples as they are, then for each augmented view."""
    fleet, targets = knowledge.models(), examples.targets
    yield signal(outputs_of(target, examples.inputs), targets), signal(fleet.logits[:, examples.indices], targets)
    if fleet.views is None or knowledge.views is None:
        return
    for number, inputs in enumerate(knowledge.views(examples.inputs)):
        shadows = fleet.views[:, number][:, examples.indices]
        yield signal(outputs_of(target, inputs), targets), signal(shadows, targets)


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
