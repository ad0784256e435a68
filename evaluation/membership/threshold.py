"""Loss threshold (Yeom, Giacomelli, Fredrikson, Jha 2018, "Privacy Risk in Machine Learning").

score = log p_y, the target's log-probability of the true label: members tend to have smaller losses. It knows nothing of
how hard an example is, which is what shadow models add.
"""

import numpy as np

from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.target import Target


class LossThreshold(MembershipAttack):
    """The smaller the loss, the more a member."""

    access = Access.SCORES
    paper = "Yeom et al. 2018"

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        scores = target.scores(examples.inputs)
        truth = scores[np.arange(len(scores)), examples.targets.numpy()]
        return np.log(np.maximum(truth, np.finfo(float).tiny))
