"""The weights: norms of the gradient of each example's loss (Nasr, Shokri, Houmansadr 2019, "Comprehensive Privacy Analysis
of Deep Learning"; Leemann, Pawelczyk, Kasneci 2023, "Gaussian Membership Inference Privacy").

Training drives the gradients of its own examples towards zero; a small gradient means member.

* :class:`GradientNorm`: −log‖∇ℓ(x, y)‖ over all weights
* :class:`LayerNorms`: the same layer by layer, each measured in standard deviations of the population's, then averaged; so
  that a layer with large gradients does not speak for all. A layer is a module's own weights and biases together.

Nasr et al. train a classifier on gradients of known members; here nothing is learned.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack, NotApplicable
from evaluation.membership.signal import NO_CLASSES
from evaluation.target import Target, kind_of


class GradientNorm(MembershipAttack):
    """The smaller the gradient, the more a member."""

    access = Access.WEIGHTS
    paper = "Nasr et al. 2019"

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        return -_log(np.sqrt(sum(norms**2 for norms in layer_norms(target, examples).values())))


class LayerNorms(MembershipAttack):
    """The smaller the gradient in each layer, against the population's, the more a member."""

    access = Access.WEIGHTS
    paper = "Nasr et al. 2019"
    needs = frozenset({"population"})

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        found, others = layer_norms(target, examples), layer_norms(target, knowledge.held_out())
        scores = []
        for name, norms in found.items():
            usual = _log(others[name])
            if usual.std() > 0:
                scores.append((usual.mean() - _log(norms)) / usual.std())
        return np.mean(scores, axis=0) if scores else np.zeros(len(examples.indices))


def layer_norms(target: Target, examples: LabelledExamples) -> dict[str, Float[np.ndarray, " examples"]]:
    """Of each layer, the norm of each example's gradient of the loss: cross-entropy, or half the squared error."""
    if kind_of(examples.targets) == "language":
        raise NotApplicable(NO_CLASSES["language"])

    def loss(outputs: Tensor, wanted: Tensor) -> Tensor:
        if kind_of(examples.targets) == "regression":
            return 0.5 * (outputs[:, 0] - wanted).square().sum()
        return F.cross_entropy(outputs, wanted)

    return target.gradient_norms(examples.inputs, examples.targets, loss)


def _log(norms: np.ndarray) -> Float[np.ndarray, " examples"]:
    return np.log(np.maximum(np.asarray(norms, dtype=float), float(torch.finfo(torch.float32).tiny)))
