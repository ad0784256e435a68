"""ε in words that need no mathematics, beside the exact statement of :mod:`dptrain.statement`.

    print(in_words(plan, epsilon=8.0))

**From ε to what can be known.** Bayes' rule bounds what anyone concludes: whoever thinks before that the unit is as likely in
as out has odds of at most e^ε after, and so is sure to at most e^ε / (1 + e^ε), δ aside (Wasserman & Zhou 2010, "A Statistical
Framework for Differential Privacy"; Kairouz, Oh, Viswanath 2015). The share of members that can be found while one
non-member in a hundred is accused is read off the plan's own trade-off curve (:mod:`dptrain.accounting`), which says more than
ε. What a small ε is called is Ponomareva et al. 2023 ("How to DP-fy ML"): strong up to 1, reasonable up to 10.
"""

import dataclasses
import math

from dptrain.plan import PrivacyPlan
from dptrain.rounding import up

UNITS = {
    "example": "one example of the training data",
    "user": "all that one user contributed to the training data",
    "node": "one node of the graph, with its features, its label and its edges",
    "edge": "one edge of the graph",
}
CHANGES = {
    "add_or_remove_one": "used or left out",
    "zero_out_one": "used, or blanked so that it contributes nothing",
    "replace_one": "used, or another used in its place",
}
STRONG, REASONABLE = 1.0, 10.0


def in_words(plan: PrivacyPlan, epsilon: float, *, steps: int | None = None) -> str:
    """What is promised to whom, in a paragraph.

    Args:
        epsilon: to be stated; infinity where nothing is promised.
        steps: updates that were taken, where the trade-off curve may be read off the plan; left out, it is not.
    """
    if not plan.is_private or math.isinf(epsilon):
        return (
            "Nothing is promised. The model was trained without differential privacy (ε = ∞), and it may hold single "
            f"training examples, word for word: {UNITS[plan.unit]} can show in it without limit."
        )
    parts = [
        f"Think of {UNITS[plan.unit]}, {CHANGES[plan.relation]}. Training adds random noise, so that the same models can come "
        f"out of it either way, and the promise is that no outcome is more than {_times(epsilon)} times as likely one way as "
        f"the other (that is e^ε, with ε = {up(epsilon)}), but for a probability of δ = {plan.delta:g}. It holds "
        "whatever else somebody knows, and whatever they compute.",
        f"So whoever thinks beforehand that it is as likely one as the other can be at most {_sure(epsilon)} sure after seeing "
        "the model, δ aside.",
    ]
    if steps:
        rate = dataclasses.replace(plan, steps=steps).permitted_true_positive_rate(0.01)
        of_it = {"example": "examples", "user": "users", "node": "nodes", "edge": "edges"}[plan.unit]
        parts.append(
            f"Counted more finely for this training: whoever wrongly accuses 1 of 100 {of_it} that were not used can find at "
            f"most {_of_hundred(rate)} of 100 that were."
        )
    parts.append(f"A smaller ε promises more: {_called(epsilon)}.")
    parts.append(
        "What holds of everyone is not hidden: a model that learned that smokers fall ill more often says so of a smoker who "
        "was not in the data."
    )
    return " ".join(parts)


def _times(epsilon: float) -> str:
    """e^ε, rounded up."""
    if epsilon > 30:
        return f"e^{up(epsilon, 0)}"
    factor = math.exp(epsilon)
    return f"{math.ceil(factor * 100 - 1e-9) / 100:.2f}" if factor < 20 else f"{math.ceil(factor):,}"


def _sure(epsilon: float) -> str:
    """e^ε / (1 + e^ε) in per cent, rounded up, and never as 100."""
    percent = 100 / (1 + math.exp(-epsilon))
    for digits in (0, 1, 2, 3):
        shown = math.ceil(percent * 10**digits) / 10**digits
        if shown < 100:
            return f"{shown:.{digits}f}%"
    return "more than 99.999%"


def _of_hundred(rate: float) -> str:
    return f"{min(100, math.ceil(100 * rate - 1e-9))}"


def _called(epsilon: float) -> str:
    scale = f"up to {STRONG:g} it is called strong, up to {REASONABLE:g} reasonable (Ponomareva et al. 2023)"
    if epsilon <= STRONG:
        return f"{scale}, so this one is strong"
    if epsilon <= REASONABLE:
        return f"{scale}, so this one is reasonable"
    return f"{scale}, and this one is neither: by itself it says little"
