"""Likelihood ratio of discrete answers: for models behind a guard that shows labels, ranks or rounded scores.

LiRA (:mod:`~evaluation.membership.lira`) takes the signal for Gaussian. Behind a guard it has a few values, or jumps where a
class is no longer shown, and a Gaussian says little of that. Here the distribution of what is shown is the one that was seen:
that of the shadow models' answers, which stand behind guards of their own. With s the symbol of an answer to the example x,

    score(x) = log P(s ∣ x, in) − log P(s ∣ x, out),        P(s ∣ x, in) = (c(s) + α q(s)) / (n + α)

where n shadow models had x and c(s) of them answered s. A few dozen answers over many symbols are mostly zeros, so that they
are smoothed by the pooled distribution q: that of the answers on examples about as hard, again of models that had them. This
is the posterior mean under a Dirichlet prior with mean q and weight α (the estimator of Good 1965, "The Estimation of
Probabilities"). α is the one of :data:`WEIGHTS` with which shadow models in the role of the target are attacked best, their
own answers left out; at the largest one each example counts by how hard it is alone. Nothing of the target has a part in
symbols, q or α.

A symbol is one value of the signal where there are at most :data:`MOST_SYMBOLS`. Where there are more, a value that is as
frequent as one part in so many has a symbol of its own, such as that of queries which are not answered, and the range of the
others is cut into parts with about as many answers each, however few they are. How hard an example is, is its mean symbol over
models with and without it, both groups weighing the same: :data:`GROUPS` groups of as many different means each, so that many
examples on which every model is right leave groups for those on which models differ.

Where only the label is shown there are two symbols, right and wrong, and with one group and α = ∞ this is the gap attack of
Yeom, Giacomelli, Fredrikson, Jha 2018, "Privacy Risk in Machine Learning".
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.membership.reference import group_means
from evaluation.membership.signal import outputs_of, signal
from evaluation.metrics import area_under_roc
from evaluation.target import Target

MOST_SYMBOLS = 32
FEWEST_PARTS = 8
"""Of the range of values that are not frequent."""
GROUPS = 10
MOST_TRIED = 16
"""Shadow models that take the role of the target while α is chosen."""
WEIGHTS = (1.0, 4.0, 16.0, 64.0, 256.0, 1e9)
"""Values of α, in answers."""
DECIMALS = 9
"""Of a signal; values that agree in them are one symbol."""

Symbols = Int[np.ndarray, "models examples"]


class AnswerRatio(MembershipAttack):
    """The empirical likelihood ratio of what is shown."""

    access = Access.SCORES
    paper = "after Carlini et al. 2022"
    needs = frozenset({"fleet"})

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        fleet = knowledge.models()
        inside = fleet.membership[:, examples.indices]
        shown = signal(fleet.logits[:, examples.indices], examples.targets)
        asked = signal(outputs_of(target, examples.inputs, examples.targets), examples.targets)
        return answer_ratio(asked, shown, inside)


def answer_ratio(
    observed: Float[np.ndarray, " examples"],
    shadows: Float[np.ndarray, "models examples"],
    inside: Bool[np.ndarray, "models examples"],
) -> Float[np.ndarray, " examples"]:
    """log P(s; in) − log P(s; out) for each example.

    Raises:
        UserError: no shadow model had any of the examples, or every one had all of them.
    """
    edges = _edges(shadows)
    symbols, asked = _symbols(shadows, edges), _symbols(observed[None], edges)[0]
    group = _groups(symbols, inside)
    sides = [_Side(symbols, chosen, group, len(edges) + 1) for chosen in (inside, ~inside)]
    weight = max(WEIGHTS, key=lambda tried: _found(sides, symbols, inside, tried))
    return sides[0].log_probability(asked, weight) - sides[1].log_probability(asked, weight)


def _found(sides: list["_Side"], symbols: Symbols, inside: Bool[np.ndarray, "models examples"], weight: float) -> float:
    """The summed AUC of the attack on shadow models, each without its own answers."""
    total = 0.0
    for said, member in zip(symbols[:MOST_TRIED], inside[:MOST_TRIED], strict=True):
        if member.any() and not member.all():
            ratio = sides[0].log_probability(said, weight, member) - sides[1].log_probability(said, weight, ~member)
            total += area_under_roc(ratio, member).value or 0.0
    return total


def _edges(shadows: Float[np.ndarray, "models examples"]) -> Float[np.ndarray, " edges"]:
    """Between two symbols each."""
    values, place, counts = np.unique(np.round(shadows, DECIMALS), return_inverse=True, return_counts=True)
    between = (values[1:] + values[:-1]) / 2
    if len(values) <= MOST_SYMBOLS:
        return between
    frequent = counts * MOST_SYMBOLS >= shadows.size
    others = shadows.reshape(-1)[~frequent[place.reshape(-1)]]
    parts = max(FEWEST_PARTS, MOST_SYMBOLS - int(frequent.sum()))
    cuts = np.unique(np.quantile(others, np.linspace(0, 1, parts + 1)[:-1]))[1:] if len(others) else np.empty(0)
    return np.unique(np.concatenate([between[frequent[1:] | frequent[:-1]], cuts]))


def _symbols(signals: Float[np.ndarray, "models examples"], edges: Float[np.ndarray, " edges"]) -> Symbols:
    return np.searchsorted(edges, signals, side="right")


def _groups(symbols: Symbols, inside: Bool[np.ndarray, "models examples"]) -> Int[np.ndarray, " examples"]:
    """Examples that are about as hard."""
    means = group_means(symbols.astype(float), inside)
    middle = (means.inside + means.outside) / 2
    ends = np.quantile(np.unique(middle), np.linspace(0, 1, GROUPS + 1)[1:-1])
    return np.searchsorted(ends, middle, side="left")


class _Side:
    """The answers of the models that had each example, or of those that had not."""

    def __init__(
        self,
        symbols: Symbols,
        chosen: Bool[np.ndarray, "models examples"],
        group: Int[np.ndarray, " examples"],
        count: int,
    ):
        examples = np.arange(symbols.shape[1])
        self._seen = np.zeros((symbols.shape[1], count))
        np.add.at(self._seen, (np.broadcast_to(examples, symbols.shape)[chosen], symbols[chosen]), 1.0)
        self._answers = self._seen.sum(1)
        pooled = np.zeros((int(group.max()) + 1, count))
        np.add.at(pooled, group, self._seen)
        everywhere = (pooled.sum(0) + 1) / (pooled.sum() + count)
        pooled = (pooled + count * everywhere) / (pooled.sum(1, keepdims=True) + count)
        self._pooled = pooled[group]

    def log_probability(
        self, asked: Int[np.ndarray, " examples"], weight: float, own: Bool[np.ndarray, " examples"] | None = None
    ) -> Float[np.ndarray, " examples"]:
        """Of one more answer to each example.

        Args:
            own: where the answer itself is among those of this side, and is left out.
        """
        rows = np.arange(len(asked))
        left_out = np.zeros(len(asked)) if own is None else own.astype(float)
        said = self._seen[rows, asked] - left_out + weight * self._pooled[rows, asked]
        return np.log(said) - np.log(self._answers - left_out + weight)
