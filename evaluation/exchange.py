"""What each regularizer and each budget buys: the leak it takes away, against the accuracy that it gives up.

    exchanges = exchanged(runs)        # one an attack, the one that gets most from the non-private models first
    exchanges[0].rows[0].auc_taken     # a Measure: value, low, high

Every row (a regularizer, clipping alone, a budget) is held against the non-private models of the same seeds, which have the
same split: members and test examples are the same on both sides. With A the test accuracy in per cent (of a predicted value,
the share within 20% of it) and U the AUC of one
attack, over the seeds s on which the attack ran on both:

    accuracy given up   a = mean over s of A(non-private, s) − A(row, s)        in points
    AUC taken           u = mean over s of U(non-private, s) − U(row, s)        and likewise the TPR at a low FPR
    AUC per point       u / a                                                   only where a is shown to be above 0

*Intervals.* Of a and u that of :func:`~evaluation.metrics.over_seeds`: the wider of Student's t over the seeds' differences,
and of what the single figures' own intervals allow; for a, all seeds count as tested on the same examples, which of a
published test part they are. The difference x − y of two figures has the interval whose ends lie √(distance² + distance²)
away, with the distances of x and y to their own ends (Zou and Donner 2008, as in :mod:`evaluation.metrics`). That takes them
as independent. Two models that are tested on the same examples tend to err on the same ones, and then it is too wide rather
than too narrow. Of u / a Fieller's (Fieller 1954, "Some Problems in Interval
Estimation"): all r for which u − r a is not further from 0 than √(h_u² + r² h_a²), h being half the width of an interval; u
and a are taken as uncorrelated. It is bounded exactly where the interval of a excludes 0, and there is no ratio elsewhere: a
leak that is lowered for free has no price, and dividing by an accuracy given up that may be 0 would make one up. Each interval
is a row's own, at 95%: of twenty rows that change nothing, one is expected to be said to change something.

*Which attack.* All of the comparison that have an AUC, each by itself. The first one is that with the largest mean AUC on the
non-private models. No other row has a part in this choice, but u is computed from the figures that it looks at: where two
attacks are about equally strong, the luckier one is taken, and u of every row alike is a little too large. A defence against
this one attack alone would look too good: so a row names another attack where one is shown to get more from it.

*DP at equal accuracy.* The budgets' points (A, U), ordered by accuracy, joined by straight lines, and read at the accuracy of
the row. A line between two points is no guess: who releases the more accurate model with probability w, and else the other
one, has on average the accuracy w A₁ + (1 − w) A₂ and the leak w U₁ + (1 − w) U₂. Its interval reaches from the mixture of
the lower ends to that of the upper ones, the widest that two figures can have, however correlated. Accuracies are taken as
they were measured, without their intervals.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

from evaluation.metrics import Subjects, difference, over_seeds
from evaluation.result import AttackResult, Bought, Cost, Exchange, Kind, LeakChange, Measure, RunResult
from evaluation.summary import by_kind, headline, utility_of

RATE = "tpr_at_fpr_"
NONE_AS_ACCURATE = "no budget of this comparison is as accurate"
NO_BUDGET = "no budget was run"

Pair = tuple[RunResult, RunResult]
"""A run and the non-private one of its seed."""
Of = Callable[[RunResult], Measure]


def exchanged(runs: Sequence[RunResult]) -> tuple[Exchange, ...]:
    """What the rows buy under each attack; none without a non-private run, or without another row."""
    twins = {run.seed: run for run in runs if run.variant == "non_private"}
    kinds = {kind: members for kind, members in by_kind(runs).items() if kind[0] != "non_private"}
    names = dict.fromkeys(attack.name for run in twins.values() for attack in run.attacks if _is_rated(attack))
    found = [exchange for name in names if (exchange := _exchange(name, list(names), twins, kinds)) is not None]
    return tuple(sorted(found, key=lambda item: -(item.auc.value or 0.0)))


def _is_rated(attack: AttackResult) -> bool:
    return attack.status == "ok" and attack.metric == "auc" and attack.value is not None


def _exchange(name: str, others: list[str], twins: dict[int, RunResult], kinds: dict[Kind, list[RunResult]]) -> Exchange | None:
    rated = {seed: run for seed, run in twins.items() if _attack(run, name) is not None}
    pairs = {
        kind: [(run, rated[run.seed]) for run in members if run.seed in rated and _attack(run, name) is not None]
        for kind, members in kinds.items()
    }
    pairs = {kind: members for kind, members in pairs.items() if members}
    if not pairs:
        return None
    rate = _lowest_rate(name, [run for members in pairs.values() for pair in members for run in pair])
    rows = [_bought(kind, name, rate, others, members) for kind, members in pairs.items()]
    budgets = [row for row in rows if row.variant == "dp"]
    return Exchange(
        attack=name,
        rate=rate,
        accuracy=_accuracy(list(rated.values())),
        auc=over_seeds([_auc(name)(run) for run in rated.values()], "auc"),
        rows=tuple(row if row.variant == "dp" else _beside_budgets(row, budgets) for row in rows),
    )


def _bought(kind: Kind, name: str, rate: str, others: list[str], pairs: list[Pair]) -> Bought:
    variant, epsilon, regularizer = kind
    runs = [run for run, _ in pairs]
    given_up = _in_points(_given_up(pairs, utility_of, "accuracy_given_up", "the same"))
    taken = _given_up(pairs, _auc(name), "auc_taken")
    cost, leak = cost_of(given_up), leak_of(taken)
    return Bought(
        variant=variant,
        epsilon=epsilon,
        regularizer=regularizer,
        seeds=tuple(run.seed for run in runs),
        accuracy=_accuracy(runs),
        auc=over_seeds([_auc(name)(run) for run in runs], "auc"),
        accuracy_given_up=given_up,
        auc_taken=taken,
        rate_taken=_given_up(pairs, _rate(name, rate), f"{rate}_taken") if rate else Measure(name="rate_taken", value=None),
        auc_per_point=_per_point(taken, given_up, cost, leak),
        cost=cost,
        leak=leak,
        stronger=_stronger(name, others, runs),
    )


def _accuracy(runs: Sequence[RunResult]) -> Measure:
    found = [utility_of(run) for run in runs]
    return over_seeds(found, found[0].name, subjects="the same")


def cost_of(given_up: Measure) -> Cost:
    """In words, what an interval shows of an accuracy given up."""
    if given_up.low is not None and given_up.low > 0:
        return "costs accuracy"
    return "gains accuracy" if given_up.high is not None and given_up.high < 0 else "costs no accuracy that was shown"


def leak_of(taken: Measure) -> LeakChange:
    """In words, what an interval shows of an AUC taken."""
    if taken.low is not None and taken.low > 0:
        return "lowers the leak"
    return "raises the leak" if taken.high is not None and taken.high < 0 else "changes no leak that was shown"


def _per_point(taken: Measure, given_up: Measure, cost: Cost, leak: LeakChange) -> Measure:
    if leak == "raises the leak" or cost != "costs accuracy":
        return Measure(name="auc_per_point", value=None, note=leak if leak == "raises the leak" else cost)
    return ratio(taken, given_up, "auc_per_point")


def _stronger(name: str, others: list[str], runs: list[RunResult]) -> str:
    """Another attack that is shown to get more from these models; the one that gets most, or none."""
    found: dict[str, float] = {}
    for other in others:
        both = [run for run in runs if _attack(run, other) is not None]
        if other == name or not both:
            continue
        more = over_seeds([difference(_auc(other)(run), _auc(name)(run), "more") for run in both], "more", least=-1.0)
        if more.low is not None and more.value is not None and more.low > 0:
            found[other] = more.value
    return max(found, key=lambda other: found[other], default="")


def _beside_budgets(row: Bought, budgets: list[Bought]) -> Bought:
    return dataclasses.replace(row, dp_at_equal_accuracy=at_equal_accuracy(row.accuracy.value or 0.0, budgets))


def at_equal_accuracy(accuracy: float, budgets: Sequence[Bought]) -> Measure:
    """The AUC under DP at this accuracy: between the two budgets around it, or why there is none."""
    ordered = sorted(budgets, key=lambda row: (row.accuracy.value or 0.0, -row.epsilon))
    if not ordered:
        return Measure(name="auc", value=None, note=NO_BUDGET)
    points = [(row.accuracy.value or 0.0, row) for row in ordered]
    if accuracy <= points[0][0]:
        least = points[0][1]
        note = f"ε = {least.epsilon:g}, which is more accurate"
        return Measure(name="auc", value=least.auc.value, low=least.auc.low, high=least.auc.high, note=note)
    for (below, first), (above, second) in itertools.pairwise(points):
        if below < accuracy <= above:
            return _between(first, second, (accuracy - below) / (above - below))
    return Measure(name="auc", value=None, note=NONE_AS_ACCURATE)


def _between(first: Bought, second: Bought, share: float) -> Measure:
    """(1 − share) of the first and share of the second."""

    def mean(of: Callable[[Measure], float | None]) -> float | None:
        ends = of(first.auc), of(second.auc)
        return None if ends[0] is None or ends[1] is None else (1 - share) * ends[0] + share * ends[1]

    note = f"between ε = {first.epsilon:g} and ε = {second.epsilon:g}"
    value, low, high = mean(lambda auc: auc.value), mean(lambda auc: auc.low), mean(lambda auc: auc.high)
    return Measure(name="auc", value=value, low=low, high=high, note=note)


# -- figures of a run, and of two ---------------------------------------------------------------------------------------


def ratio(above: Measure, below: Measure, name: str) -> Measure:
    """above / below with Fieller's interval, where that of ``below`` lies above 0."""
    if above.value is None or below.value is None or below.low is None or not below.low > 0:
        return Measure(name=name, value=None, note="the denominator is not shown to be above 0")
    value = above.value / below.value
    wide, narrow = _half(above), below.value - below.low
    root = math.sqrt(above.value**2 * narrow**2 + wide**2 * (below.value**2 - narrow**2))
    scale = below.value**2 - narrow**2
    middle = above.value * below.value
    return Measure(name=name, value=value, low=(middle - root) / scale, high=(middle + root) / scale)


def _half(measure: Measure) -> float:
    assert measure.value is not None
    ends = (measure.low, measure.high)
    return max((abs(end - measure.value) for end in ends if end is not None), default=0.0)


def _given_up(pairs: list[Pair], of: Of, name: str, subjects: Subjects = "dealt anew") -> Measure:
    return over_seeds([difference(of(twin), of(run), name) for run, twin in pairs], name, least=-1.0, subjects=subjects)


def _in_points(share: Measure) -> Measure:
    value, low, high = (None if end is None else 100 * end for end in (share.value, share.low, share.high))
    return Measure(name=share.name, value=value, low=low, high=high, note=share.note)


def _attack(run: RunResult, name: str) -> AttackResult | None:
    return next((attack for attack in run.attacks if attack.name == name and _is_rated(attack)), None)


def _auc(name: str) -> Of:
    def of(run: RunResult) -> Measure:
        found = _attack(run, name)
        assert found is not None  # pairs are of runs on which it is
        return headline(found)

    return of


def _rates(run: RunResult, name: str) -> dict[str, Measure]:
    found = _attack(run, name)
    measures = found.metrics if found is not None else ()
    return {item.name: item for item in measures if item.name.startswith(RATE) and item.value is not None}


def _rate(name: str, rate: str) -> Of:
    return lambda run: _rates(run, name)[rate]


def _lowest_rate(name: str, runs: list[RunResult]) -> str:
    """The true positive rate at the lowest false positive rate that was resolved on every run; empty where there is none."""
    shared = set.intersection(*(set(_rates(run, name)) for run in runs))
    return min(shared, key=lambda item: float(item.removeprefix(RATE)), default="")
