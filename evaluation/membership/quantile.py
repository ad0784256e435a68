"""Quantile regression from one model, the target (Bertran, Tang, Kearns, Morgenstern, Roth, Wu 2023, "Scalable Membership
Inference Attacks via Quantile Regression").

On the population, whose examples are no members, quantiles of the target's signal are predicted from the input (and its
label). An example is scored by where its own signal lies between those of non-members like it:

    score = (φ − q.50(x)) / (q.84(x) − q.50(x)) above the median, / (q.50(x) − q.16(x)) below,

which for a Gaussian is the number of standard deviations. One model, no shadow models, no knowledge of the recipe. With few
examples in the population it learns little of how hard an input is, and comes close to a threshold on φ.
"""

import numpy as np
from jaxtyping import Float
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from evaluation.access import Access
from evaluation.baselines import counted
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack, NotApplicable
from evaluation.membership.signal import outputs_of, signal
from evaluation.target import Target, kind_of

LEVELS = (0.1587, 0.5, 0.8413)
"""The quantiles of a Gaussian at −1, 0 and 1 standard deviations."""
LEAST = 50
"""Examples of the population from which quantiles can be learned."""
MOST_SEEN = 20_000
WORDS = 256
"""Columns that hashed words share: with one for each of them trees would take minutes."""


class QuantileRegression(MembershipAttack):
    """The target's signal against the quantiles that non-members with this input have."""

    access = Access.SCORES
    paper = "Bertran et al. 2023"
    needs = frozenset({"population"})

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        others = knowledge.held_out()
        if len(others.indices) < LEAST:
            raise NotApplicable(
                f"it needs {LEAST} examples in the population and there are {len(others.indices)}; raise data.split.population"
            )
        classes = target.classes
        learned = signal(outputs_of(target, others.inputs, others.targets), others.targets)[:MOST_SEEN]
        described = _described(others.inputs, others.targets, classes)[:MOST_SEEN]
        asked = _described(examples.inputs, examples.targets, classes)
        low, middle, high = (_predicted(described, learned, asked, level) for level in LEVELS)
        narrowest = max(0.1 * float(learned.std()), 1e-12)
        observed = signal(outputs_of(target, examples.inputs, examples.targets), examples.targets)
        spread = np.where(observed > middle, high - middle, middle - low)
        return (observed - middle) / np.maximum(spread, narrowest)


def _described(inputs: Tensor, targets: Tensor, classes: int) -> Float[np.ndarray, "examples described"]:
    """Inputs with the label; of a text how often each token stands in it. A value is left out, since the signal is its
    residual."""
    kind = kind_of(targets)
    if kind == "language":
        return counted(targets.numpy(), classes).astype(float)
    if inputs.is_floating_point():
        flat = inputs.flatten(1).double().numpy()
    else:
        flat = counted(inputs.numpy() % WORDS, WORDS).astype(float)
    if kind == "regression":
        return flat
    return np.hstack([flat, np.eye(classes)[targets.numpy()]])


def _predicted(described: np.ndarray, learned: np.ndarray, asked: np.ndarray, level: float) -> Float[np.ndarray, " examples"]:
    """The predicted quantile, by boosted trees of few leaves."""
    trees = HistGradientBoostingRegressor(
        loss="quantile", quantile=level, max_iter=60, max_leaf_nodes=6, min_samples_leaf=10, learning_rate=0.1, random_state=0
    )
    return np.asarray(trees.fit(described, learned).predict(asked), dtype=float)
