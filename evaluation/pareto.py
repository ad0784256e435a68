"""Which rows of a comparison are worth more and give away less than others, as far as their intervals show it.

    for front in fronts(runs, summary):                        # one a family of attacks, each with one metric
        [point for point in front.points if point.place == "on the front"]

Each row (a budget, a regularizer, clipping alone, no privacy at all) is a point: what the model is worth, and what the
strongest attack of the family gets from it. Row A is *shown to be better* than row B where both differences are shown:

    worth(A) − worth(B) > 0   and   leak(B) − leak(A) > 0,   each with its 95% interval above 0

over the seeds that both rows have, and otherwise of the two means. Models of one seed share members and test examples, so that
a difference is taken seed by seed (:func:`evaluation.metrics.over_seeds`). That is stricter than dominance as it is usually
defined, where being equal in one of the two is enough: no experiment shows that two figures are equal. Both hold together at
90% at least, for one pair of rows; of many pairs, a few are expected to be told apart by chance.

A row that is not shown to be worse than any other is *on the front*, unless another has both a better mean worth and a lower
mean leak: it then lies *behind it by the means alone*, which intervals do not settle.

The strongest attack is chosen on each row for itself, since who attacks a defence takes the attack that suits it
(:mod:`evaluation.headline`); all figures of a family have one metric, that of most of its attacks.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from evaluation.headline import rated
from evaluation.metrics import difference, over_seeds
from evaluation.result import AttackResult, Front, FrontPoint, Kind, Measure, Place, RunResult, Strongest, Summary
from evaluation.summary import headline as figure_of
from evaluation.summary import subjects_of, utility_of


def fronts(runs: Sequence[RunResult], summary: Sequence[Summary], first: Strongest | None = None) -> tuple[Front, ...]:
    """A front of each family of which attacks gave figures on at least two rows.

    Args:
        first: an attack whose family comes first.
    """
    families = list(dict.fromkeys(one.attack.split(".")[0] for item in summary for one in rated(item, runs)))
    if first is not None:
        families.sort(key=lambda family: family != first.attack.split(".")[0])
    found = [_front(family, runs, summary) for family in families]
    return tuple(front for front in found if len(front.points) > 1)


def _front(family: str, runs: Sequence[RunResult], summary: Sequence[Summary]) -> Front:
    every = {item.kind: [one for one in rated(item, runs) if one.attack.startswith(f"{family}.")] for item in summary}
    metric = Counter(one.metric for ones in every.values() for one in ones).most_common(1)[0][0]
    points: list[FrontPoint] = []
    chance: float | None = None
    for item in summary:
        own = [one for one in every[item.kind] if one.metric == metric]
        if not own or item.utility.value is None:
            continue
        best = max(own, key=lambda one: one.value.value or 0.0)
        chance = best.chance if chance is None else chance
        points.append(
            FrontPoint(
                variant=item.variant,
                epsilon=item.epsilon,
                regularizer=item.regularizer,
                attack=best.attack,
                utility=item.utility,
                leak=best.value,
                permitted=best.permitted,
                place="on the front",
            )
        )
    return Front(family=family, metric=metric, chance=chance, points=tuple(_placed(points, metric, runs)))


def _placed(points: list[FrontPoint], metric: str, runs: Sequence[RunResult]) -> list[FrontPoint]:
    placed = []
    for point in points:
        better = [at for at, other in enumerate(points) if other is not point and is_better(other, point, metric, runs)]
        beaten = any(_has_better_means(other, point) for other in points if other is not point)
        place: Place = "shown to be worse" if better else "behind it by the means alone" if beaten else "on the front"
        placed.append(dataclasses.replace(point, place=place, worse_than=tuple(better)))
    return placed


def is_better(first: FrontPoint, second: FrontPoint, metric: str, runs: Sequence[RunResult]) -> bool:
    """Whether the first row is shown to be worth more than the second one, and to give away less."""
    worth, leak = differences(first, second, metric, runs)
    return _is_above_zero(worth) and _is_above_zero(leak)


def differences(first: FrontPoint, second: FrontPoint, metric: str, runs: Sequence[RunResult]) -> tuple[Measure, Measure]:
    """By how much the first row is worth more, and by how much it gives away less."""
    own, other = _by_seed(first.kind, runs), _by_seed(second.kind, runs)
    shared = [seed for seed in own if seed in other]
    worth = [difference(utility_of(own[seed]), utility_of(other[seed]), "worth") for seed in shared]
    pairs = [(_figure(own[seed], first.attack, metric), _figure(other[seed], second.attack, metric)) for seed in shared]
    leak = [difference(there, here, "leak") for here, there in pairs if here is not None and there is not None]
    return (
        over_seeds(worth, "worth", least=-1.0, subjects="the same")
        if worth
        else difference(first.utility, second.utility, "worth"),
        over_seeds(leak, "leak", least=-float("inf"), most=float("inf"), subjects=subjects_of(f"{first.attack}/{metric}"))
        if leak
        else difference(second.leak, first.leak, "leak"),
    )


def _by_seed(kind: Kind, runs: Sequence[RunResult]) -> dict[int, RunResult]:
    return {run.seed: run for run in runs if run.kind == kind}


def _figure(run: RunResult, attack: str, metric: str) -> Measure | None:
    found: AttackResult | None = next((one for one in run.attacks if one.name == attack and one.status == "ok"), None)
    if found is None:
        return None
    every = (figure_of(found), *found.metrics)
    return next((measure for measure in every if measure.name == metric and measure.value is not None), None)


def _is_above_zero(measure: Measure) -> bool:
    return measure.low is not None and measure.low > 0


def _has_better_means(first: FrontPoint, second: FrontPoint) -> bool:
    return (first.utility.value or 0.0) > (second.utility.value or 0.0) and (first.leak.value or 0.0) < (
        second.leak.value or 0.0
    )
