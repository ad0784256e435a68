"""Membership in the training text of a language model, from the target's scores alone.

With ℓ_i the log-probability in nats that the target gives to what is at place i of a sequence x of n places, given what stands
before, and L(x) their mean:

* :class:`Zlib`: L(x) / bytes of x compressed (Carlini et al. 2021, "Extracting Training Data from Large Language Models"): a
  text that repeats itself is expected by any model. Tokens are compressed as one byte each, or as four where there are more
  than 256: of characters that is the text.
* :class:`Reference`: L(x) of the target less L(x) of a model that has seen public text alone, the logarithm of a ratio of
  likelihoods (Mireshghallah et al. 2022, "Quantifying Privacy Risks of Masked Language Models Using Membership Inference
  Attacks"; Carlini et al. 2021 divide the one by the other). The reference is what the target began from.
* :class:`Neighbourhood`: L(x) less the mean of L over texts next to it (Mattern et al. 2023, "Membership Inference Attacks
  against Language Models via Neighbourhood Comparison"). The paper has a masked model propose words; here single tokens at
  random places are replaced by tokens drawn as often as they stand in the examples.
* :class:`MinK`: the mean of the k % lowest ℓ_i (Shi et al. 2024, "Detecting Pretraining Data from Large Language Models")
* :class:`MinKPlusPlus`: the mean of the k % lowest (ℓ_i − μ_i) / σ_i, where μ_i and σ_i are mean and standard deviation of
  log p(token) for a token drawn from what the target expects at place i (Zhang et al. 2025, "Min-K%++: Improved Baseline for
  Detecting Pre-Training Data from Large Language Models")

k is 20, as in Shi et al.; it is not chosen on the examples that are scored. L itself is
:class:`~evaluation.membership.threshold.LossThreshold`; attacks with shadow models take L for their signal.
"""

import zlib

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack, NotApplicable
from evaluation.target import Target, kind_of

LOWEST_SHARE = 0.2
"""k % of Min-K% and Min-K%++."""
NEIGHBOURS = 20
CHANGED = 0.05
"""Share of the places in which a neighbour differs; one at least."""
LEAST_DEVIATION = 1e-6
"""Where a model expects one token alone, of which there is nothing to be surprised by."""


def require_language(targets: Tensor) -> None:
    """Raises NotApplicable where a model does not say what comes next in a text."""
    if kind_of(targets) != "language":
        raise NotApplicable("it needs a language model, and this one gives one answer an example; use membership.threshold")


class Zlib(MembershipAttack):
    """The better a text that is hard to compress is expected, the more a member."""

    access = Access.SCORES
    paper = "Carlini et al. 2021"

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        require_language(examples.targets)
        return target.log_likelihoods(examples.inputs, examples.targets).mean(1) / compressed(examples.targets, target.classes)


class Reference(MembershipAttack):
    """The better a text is expected than by a public model, the more a member."""

    access = Access.SCORES
    paper = "Mireshghallah et al. 2022"
    needs = frozenset({"reference"})

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        reference = knowledge.public_model()
        require_language(examples.targets)
        own, public = (model.log_likelihoods(examples.inputs, examples.targets).mean(1) for model in (target, reference))
        return own - public


class Neighbourhood(MembershipAttack):
    """The better a text is expected than those next to it, the more a member."""

    access = Access.SCORES
    paper = "Mattern et al. 2023"

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        require_language(examples.targets)
        generator = torch.Generator().manual_seed(0)
        beside = np.zeros(len(examples.targets))
        for _ in range(NEIGHBOURS):
            inputs, targets = neighbour(examples.inputs, examples.targets, generator)
            beside += target.log_likelihoods(inputs, targets).mean(1) / NEIGHBOURS
        return target.log_likelihoods(examples.inputs, examples.targets).mean(1) - beside


class MinK(MembershipAttack):
    """The better the least expected fifth of a text is expected, the more a member."""

    access = Access.SCORES
    paper = "Shi et al. 2024"

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        require_language(examples.targets)
        return mean_of_lowest(target.log_likelihoods(examples.inputs, examples.targets))


class MinKPlusPlus(MembershipAttack):
    """The same, where each place is measured in standard deviations of what the model expects there."""

    access = Access.SCORES
    paper = "Zhang et al. 2025"

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        require_language(examples.targets)
        mean, deviation = target.surprise(examples.inputs)
        found = target.log_likelihoods(examples.inputs, examples.targets)
        return mean_of_lowest((found - mean) / np.maximum(deviation, LEAST_DEVIATION))


def compressed(targets: Int[Tensor, "examples length"], classes: int) -> Float[np.ndarray, " examples"]:
    """Bytes of each sequence of tokens after zlib."""
    tokens = targets.numpy().astype(np.uint8 if classes <= 256 else np.uint32)
    return np.array([len(zlib.compress(row.tobytes(), 9)) for row in tokens], dtype=float)


def mean_of_lowest(values: Float[np.ndarray, "examples length"]) -> Float[np.ndarray, " examples"]:
    """Over the lowest fifth of the places, one at least."""
    count = max(1, int(LOWEST_SHARE * values.shape[1]))
    return np.sort(values, axis=1)[:, :count].mean(1)


def neighbour(
    inputs: Int[Tensor, "examples length"], targets: Int[Tensor, "examples length"], generator: torch.Generator
) -> tuple[Int[Tensor, "examples length"], Int[Tensor, "examples length"]]:
    """One text next to each: some tokens replaced by others, at places drawn anew for each.

    Inputs are the targets moved on by one, behind what each began with.
    """
    examples, length = targets.shape
    count = max(1, round(CHANGED * length))
    places = torch.rand(examples, length, generator=generator).topk(count, dim=1).indices
    pool = targets.flatten()
    drawn = pool[torch.randint(len(pool), (examples, count), generator=generator)]
    changed = targets.scatter(1, places, drawn)
    return torch.cat([inputs[:, :1], changed[:, :-1]], 1), changed
