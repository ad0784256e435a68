"""Calibrated loss (Watson, Guo, Cormode, Sablayrolles 2022, "On the Importance of Difficulty Calibration in Membership
Inference Attacks").

score = s(target) − mean of s over reference models that were not trained on the example,

with s the log-likelihood: an easy example has a small loss in every model, and only what is left says "member".
"""

import numpy as np

from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.membership.reference import group_means
from evaluation.membership.signal import log_likelihood, outputs_of
from evaluation.target import Target


class CalibratedLoss(MembershipAttack):
    """The target's log-likelihood less the mean one of models without the example."""

    access = Access.SCORES
    paper = "Watson et al. 2022"
    needs = frozenset({"fleet"})

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        fleet = knowledge.models()
        references = log_likelihood(fleet.logits[:, examples.indices], examples.targets)
        without = group_means(references, fleet.membership[:, examples.indices]).outside
        return log_likelihood(outputs_of(target, examples.inputs, examples.targets), examples.targets) - without
