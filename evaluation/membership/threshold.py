"""One number from the target's scores, and a threshold.

* :class:`LossThreshold`: log p_y (Yeom, Giacomelli, Fredrikson, Jha 2018, "Privacy Risk in Machine Learning"); of a value,
  minus the squared error
* :class:`Confidence`: max_j p_j, whatever the label (Salem et al. 2019, "ML-Leaks")
* :class:`Entropy`: Σ_j p_j log p_j (Shokri et al. 2017; Song and Mittal 2021)
* :class:`ModifiedEntropy`: (1 − p_y) log p_y + Σ_{j≠y} p_j log(1 − p_j), which also knows whether the label is right (Song,
  Mittal 2021, "Systematic Evaluation of Privacy Risks of Machine Learning Models")

Scores are in the order of these and on another scale: log-odds for the first two, minus the logarithm of the entropies, so
that confident answers are told apart and one tail does not rule mean and spread.

None knows how hard an example is, which is what other models add. Song and Mittal give each class a threshold of its own.
As one ranking that means: a score is measured against non-members of the same class, those of the population, in the
target itself. A threshold on (score − mean) / standard deviation of the class is one on the score within each class, at
about the same false positive rate in all. No member's label is used, and no other model.
"""

from abc import abstractmethod

import numpy as np
from jaxtyping import Float
from torch import Tensor

from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.membership.signal import log_softmax, outputs_of, require_classes, rescaled, signal
from evaluation.target import Target

LEAST_A_CLASS = 5
"""Non-members of a class that its mean and standard deviation need; a class with fewer is measured against all."""


class Threshold(MembershipAttack):
    """A threshold on :meth:`score`, the same for all classes."""

    access = Access.SCORES

    @abstractmethod
    def score(self, outputs: Float[np.ndarray, "examples outputs"], targets: Tensor) -> Float[np.ndarray, " examples"]:
        """From the outputs of a model; higher means member."""

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        return self.score(outputs_of(target, examples.inputs, examples.targets), examples.targets)


class LossThreshold(Threshold):
    """The smaller the loss, the more a member."""

    paper = "Yeom et al. 2018"

    def score(self, outputs: np.ndarray, targets: Tensor) -> np.ndarray:
        return signal(outputs, targets)


class Confidence(Threshold):
    """The higher the highest score, the more a member."""

    paper = "Salem et al. 2019"

    def score(self, outputs: np.ndarray, targets: Tensor) -> np.ndarray:
        return _log_odds(outputs, targets).max(1)


class Entropy(Threshold):
    """The smaller the entropy of the scores, the more a member."""

    paper = "Song & Mittal 2021"

    def score(self, outputs: np.ndarray, targets: Tensor) -> np.ndarray:
        surprise = np.logaddexp(0, -_log_odds(outputs, targets))  # −log p_j, also where p_j rounds to 1
        return -_log((np.exp(-surprise) * surprise).sum(1))


class ModifiedEntropy(Threshold):
    """The smaller the entropy of the scores about the true label, the more a member."""

    paper = "Song & Mittal 2021"

    def score(self, outputs: np.ndarray, targets: Tensor) -> np.ndarray:
        odds = _log_odds(outputs, targets)
        rows, labels = np.arange(len(outputs)), targets.numpy()
        odds[rows, labels] *= -1  # of 1 − p_y in place of p_y: then every term is p log(1 − p)
        return -_log((np.exp(-np.logaddexp(0, -odds)) * np.logaddexp(0, odds)).sum(1))


class PerClass(Threshold):
    """A threshold for each class, from non-members of the class."""

    needs = frozenset({"population"})

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        others = knowledge.held_out()
        require_classes(examples.targets)
        outputs = outputs_of(target, examples.inputs, examples.targets)
        known = self.score(outputs_of(target, others.inputs, others.targets), others.targets)
        return by_class(
            self.score(outputs, examples.targets), examples.targets.numpy(), known, others.targets.numpy(), outputs.shape[1]
        )


class LossPerClass(PerClass, LossThreshold):
    """The loss against non-members of the same class."""


class ConfidencePerClass(PerClass, Confidence):
    """The highest score against non-members of the same class."""


class EntropyPerClass(PerClass, Entropy):
    """The entropy against non-members of the same class."""


class ModifiedEntropyPerClass(PerClass, ModifiedEntropy):
    """The modified entropy against non-members of the same class."""


def by_class(
    scores: Float[np.ndarray, " examples"],
    labels: np.ndarray,
    known: Float[np.ndarray, " known"],
    known_labels: np.ndarray,
    classes: int,
) -> Float[np.ndarray, " examples"]:
    """Standard deviations above the mean of the known non-members of the same class."""
    found = np.empty(len(scores))
    for label in range(classes):
        own = known[known_labels == label]
        own = own if len(own) >= LEAST_A_CLASS else known
        found[labels == label] = (scores[labels == label] - own.mean()) / max(float(own.std()), 1e-12)
    return found


def _log_odds(outputs: Float[np.ndarray, "examples classes"], targets: Tensor) -> Float[np.ndarray, "examples classes"]:
    """log p_j − log(1 − p_j) of each class."""
    require_classes(targets)
    log_scores = log_softmax(outputs)
    return np.stack([rescaled(log_scores, np.full(len(outputs), label)) for label in range(outputs.shape[1])], axis=1)


def _log(entropy: Float[np.ndarray, " examples"]) -> Float[np.ndarray, " examples"]:
    return np.log(np.maximum(entropy, np.finfo(float).tiny))
