"""What a guard leaves to attackers, beyond what the label alone would give them.

    costs = guard_costs(runs)           # one a row, family of attacks, and guard
    costs[0].beyond_label               # a Measure: value, low, high

"What does showing the five best classes with scores cost beyond the label?" Through each guard an attacker takes the attack
that is strongest there, and through ``label_only`` the one that is strongest there; for the seeds s of a row,

    beyond the label  =  mean over s of  A(guard, s) − A(label_only, s)

with A the figure that the family is judged by (AUC of membership, the share of classes recognised of inversion), on the same
model and the same members. Behind no guard there are two attackers: one who sees scores, and one who holds the model itself and
can do what the other one does.

*Which attack.* The one with the largest mean on the non-private models, where there are any, and otherwise on the row itself.
No private row has a part in the choice that its figures rest on. On the row that chooses, and where there are no others, the
luckiest of several equal attacks is taken, and its figure is a little too large, through every guard alike.

*Intervals.* Those of :func:`~evaluation.metrics.over_seeds` over the seeds' differences. Of inversion, a seed's difference is
taken class by class (:func:`~evaluation.metrics.paired_difference`). Of other figures it has the interval that the two allow as
if they were independent (:func:`~evaluation.metrics.difference`): they are of the same model and the same examples and mostly
err together, so that it is too wide rather than too narrow. *Not shown* does not mean equal.
Each interval is a row's own, at 95%.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.access import Access
from evaluation.metrics import difference, over_seeds, paired_difference
from evaluation.result import AttackResult, GuardChange, GuardCost, Kind, Measure, RunResult, Summary
from evaluation.summary import by_kind, headline, subjects_of, summarize

LABEL = "label_only"
BY_SCORES, BY_MODEL = "scores", "the model itself"
"""What attackers see where nothing stands before the model."""
UP_TO_SCORES = frozenset(level.word for level in Access if level <= Access.SCORES)


@dataclass(frozen=True)
class _Seen:
    """Attackers of one kind: what stands before them, and what they see."""

    guard: str
    access: str

    def attacks(self, run: RunResult) -> tuple[AttackResult, ...]:
        """On one model, those that gave a figure."""
        if self.guard and self.guard != run.release_guard:
            found = next((item.attacks for item in run.guarded if item.guard == self.guard), ())
        elif self.access == BY_MODEL:
            more = any(attack.access not in UP_TO_SCORES for attack in run.attacks if attack.status == "ok")
            found = run.attacks if more else ()
        else:
            found = tuple(attack for attack in run.attacks if attack.access in UP_TO_SCORES)
        return tuple(attack for attack in found if attack.status == "ok" and attack.value is not None)


def guard_costs(runs: Sequence[RunResult]) -> tuple[GuardCost, ...]:
    """For every row, family and guard what the strongest attack gets; none where no guard was compared."""
    groups = by_kind(runs)
    if not any(run.guarded for run in runs):
        return ()
    non_private = next((members for kind, members in groups.items() if kind[0] == "non_private"), None)
    verdicts = {summary.kind: _verdicts(summary) for summary in summarize(tuple(runs))}
    costs: list[GuardCost] = []
    for kind, members in groups.items():
        for family in _families(members):
            costs += _of_family(kind, members, non_private or members, family, verdicts[kind])
    return tuple(costs)


def _verdicts(summary: Summary) -> dict[str, dict[str, str]]:
    """Guard, empty for none, to attack to verdict."""
    return {"": summary.verdicts, **{item.guard: item.verdicts for item in summary.guarded}}


def _families(runs: Iterable[RunResult]) -> list[str]:
    """Of attacks that ran through some guard."""
    ran = (attack for run in runs for item in run.guarded for attack in item.attacks if attack.status == "ok")
    return list(dict.fromkeys(attack.name.split(".")[0] for attack in ran))


def _of_family(
    kind: Kind, runs: list[RunResult], choosing: list[RunResult], family: str, verdicts: dict[str, dict[str, str]]
) -> list[GuardCost]:
    seen = _everyone(runs)
    label = _strongest(_Seen(LABEL, "label"), choosing, family) or _strongest(_Seen(LABEL, "label"), runs, family)
    costs = []
    for who in seen:
        attack = _strongest(who, choosing, family) or _strongest(who, runs, family)
        if attack:
            costs.append(_cost(kind, runs, family, who, attack, label, verdicts))
    return costs


def _everyone(runs: list[RunResult]) -> list[_Seen]:
    """From who sees most to who sees least, guards in the order in which they were asked for."""
    own = runs[0].release_guard
    guards = dict.fromkeys((item.guard, item.access) for run in runs for item in run.guarded if not item.reason)
    return [_Seen(own, BY_MODEL), _Seen(own, BY_SCORES), *(_Seen(guard, access) for guard, access in guards if guard != own)]


def _strongest(who: _Seen, runs: list[RunResult], family: str) -> str:
    """The attack with the largest mean figure; empty where none ran."""
    found: dict[str, list[float]] = {}
    for attack in (attack for run in runs for attack in who.attacks(run)):
        if attack.name.startswith(f"{family}.") and attack.metric == _metric(who, runs, family):
            found.setdefault(attack.name, []).append(attack.value or 0.0)
    return max(found, key=lambda name: sum(found[name]) / len(found[name]), default="")


def _metric(who: _Seen, runs: list[RunResult], family: str) -> str:
    return next((a.metric for run in runs for a in who.attacks(run) if a.name.startswith(f"{family}.")), "")


def _figure(who: _Seen, run: RunResult, attack: str) -> AttackResult | None:
    return next((item for item in who.attacks(run) if item.name == attack), None)


def _cost(
    kind: Kind,
    runs: list[RunResult],
    family: str,
    who: _Seen,
    attack: str,
    label: str,
    verdicts: dict[str, dict[str, str]],
) -> GuardCost:
    found = {run.seed: item for run in runs if (item := _figure(who, run, attack)) is not None}
    some = next(iter(found.values()), None)
    name = f"{attack}/{some.metric if some is not None else ''}"
    subjects = subjects_of(name)
    beyond = Measure(name="beyond_label", value=None, note=f"evaluation.guards does not name {LABEL}")
    if label and found:
        pairs = [
            (found[run.seed], other)
            for run in runs
            if run.seed in found and (other := _figure(_Seen(LABEL, "label"), run, label)) is not None
        ]
        apart = [_apart(one, other) for one, other in pairs]
        beyond = over_seeds(apart, "beyond_label", least=-1.0, subjects=subjects)
    return GuardCost(
        variant=kind[0],
        epsilon=kind[1],
        regularizer=kind[2],
        seeds=tuple(found),
        family=family,
        guard=who.guard,
        access=who.access,
        attack=attack,
        metric=some.metric if some is not None else "",
        value=over_seeds([headline(item) for item in found.values()], name, subjects=subjects),
        permitted=None if some is None else some.permitted,
        verdict=verdicts.get("" if who.guard == runs[0].release_guard else who.guard, {}).get(attack, "none"),
        label_attack=label,
        beyond_label=beyond,
        change=_change(who, beyond),
    )


def _apart(one: AttackResult, other: AttackResult) -> Measure:
    """On one model: class by class where both say which they recognise."""
    if one.recognised and len(one.recognised) == len(other.recognised):
        return paired_difference(np.array(one.recognised), np.array(other.recognised), "beyond_label")
    return difference(headline(one), headline(other), "beyond_label")


def _change(who: _Seen, beyond: Measure) -> GuardChange:
    if who.guard == LABEL:
        return "is the label"
    if beyond.value is None or beyond.low is None or beyond.high is None:
        return "not compared"
    if beyond.low > 0:
        return "costs more than the label"
    return "costs less than the label" if beyond.high < 0 else "not shown to cost more than the label"
