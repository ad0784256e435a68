"""Shadow classifier (Shokri, Stronati, Song, Shmatikov 2017, "Membership Inference Attacks Against Machine Learning
Models").

Every shadow model answers every example; whether it had seen it is known. From these pairs one classifier a class learns to
tell answers on members from answers on others, and is then shown the target's answers. It sees an answer (the signal and
the three highest log-probabilities, or the prediction), not which example it belongs to.
"""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from dptrain.errors import UserError
from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.membership.signal import features, outputs_of
from evaluation.target import Target, kind_of

MOST_SEEN = 20_000
"""Answers that the classifier of one class learns from, at most."""


class ShadowClassifier(MembershipAttack):
    """A classifier of answers, one a class, that learned from shadow models."""

    access = Access.SCORES
    paper = "Shokri et al. 2017"
    needs = frozenset({"fleet"})

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        fleet = knowledge.models()
        shown = features(fleet.logits[:, examples.indices], examples.targets)
        inside = fleet.membership[:, examples.indices]
        asked = features(outputs_of(target, examples.inputs, examples.targets), examples.targets)
        group = examples.targets.numpy() if kind_of(examples.targets) == "classification" else np.zeros(len(asked), dtype=int)
        generator = np.random.default_rng(0)
        scores = np.empty(len(asked))
        for label in np.unique(group):
            of_class = group == label
            answers, was_in = shown[:, of_class].reshape(-1, shown.shape[-1]), inside[:, of_class].reshape(-1)
            chosen = generator.permutation(len(answers))[:MOST_SEEN]
            if len(np.unique(was_in[chosen])) < 2:
                raise UserError(f"all or none of {len(inside)} shadow models had class {label}; raise evaluation.shadow_models")
            classifier = HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=8, min_samples_leaf=50, random_state=0)
            classifier.fit(answers[chosen], was_in[chosen])
            scores[of_class] = classifier.decision_function(asked[of_class])
        return scores
