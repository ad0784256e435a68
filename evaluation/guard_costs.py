"""What a guard leaves to attackers, beyond what the label alone would give them.

    costs = guard_costs(runs)           # one a row, family of attacks, and guard
    costs[0].beyond_label               # a Measure: value, low, high

"What does showing the five best classes with scores cost beyond the label?" Through each guard an attacker takes the attack
that is strongest there, and through ``label_only`` the one that is strongest there; for the seeds s of a row,

    beyond the label  =  mean over s of  A(guard, s) − A(label_only, s)

with A the figure that the family is judged by (AUC of membership, the share of classes recognised of inversion), on the same
model and the same members. Behind no guard there are two attackers: one who sees scores, and one who holds the model itself and
can do what the other one does.

*What an attacker has.* The attacks that ran on what it sees, and those that ran behind any guard whose answers it can make of
what it sees (:mod:`evaluation.simulated`): who is shown five classes is not kept from an attack on the label. A mean figure
below the label's is then left to guards that do not give the label away, and *less than the label* is said of those alone.

*Which attack.* The one with the largest mean on the non-private models, where there are any, and otherwise on the row itself.
No private row has a part in the choice that its figures rest on. On the row that chooses, and where there are no others, the
luckiest of several equal attacks is taken, and its figure is a little too large, through every guard alike. Means are compared
over the same seeds: an attack has a part in the choice if it gave a figure on every seed on which the guard's own attacks gave
one, or, where none did, on as many as any.

*One metric a family.* That of the attacks through ``label_only``, with which all others are compared. An attack with another
one, such as the share of examples reconstructed, is taken where there is no other, and compared with nothing.

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
from evaluation.simulated import simulates
from evaluation.summary import by_kind, headline, subjects_of, summarize

LABEL = "label_only"
BY_SCORES, BY_MODEL = "scores", "the model itself"
"""What attackers see where nothing stands before the model."""
UP_TO_SCORES = frozenset(level.word for level in Access if level <= Access.SCORES)


@dataclass(frozen=True)
class _Attack:
    """One that ran on a model."""

    guard: str
    """Behind which; empty where none stood."""
    name: str


@dataclass(frozen=True)
class _Seen:
    """Attackers of one kind: what stands before them, and what they see."""

    guard: str
    access: str

    def own(self, run: RunResult, family: str) -> dict[_Attack, AttackResult]:
        """On one model, the attacks on just what they see that gave a figure."""
        found = next((item.attacks for item in run.guarded if item.guard == self.guard), ())
        if self.guard == run.release_guard:
            others = run.attacks if self.access == BY_MODEL else (a for a in run.attacks if a.access in UP_TO_SCORES)
            found = (*found, *others)
        told = {_Attack(self.guard, a.name): a for a in found if _gave(a, family)}
        if self.access == BY_MODEL and all(attack.access in UP_TO_SCORES for attack in told.values()):
            return {}
        return told

    def attacks(self, run: RunResult, family: str) -> dict[_Attack, AttackResult]:
        """Those, and the ones on what they can make of what they see."""
        seen = "" if self.access == BY_MODEL else self.guard
        made = {
            _Attack(item.guard, attack.name): attack
            for item in run.guarded
            if item.guard != self.guard and simulates(seen, item.guard)
            for attack in item.attacks
            if _gave(attack, family)
        }
        return {**self.own(run, family), **made}


def _gave(attack: AttackResult, family: str) -> bool:
    return attack.status == "ok" and attack.value is not None and attack.name.startswith(f"{family}.")


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
    seen, metric = _everyone(runs), _metric([*choosing, *runs], family)
    labelled = next((who for who in seen if who.guard == LABEL and who.access != BY_MODEL), _Seen(LABEL, "label"))
    label = _strongest(labelled, choosing, family, metric) or _strongest(labelled, runs, family, metric)
    costs = []
    for who in seen:
        attack = _strongest(who, choosing, family, metric) or _strongest(who, runs, family, metric)
        if attack:
            costs.append(_cost(kind, runs, family, who, attack, labelled, label, verdicts))
    return costs


def _everyone(runs: list[RunResult]) -> list[_Seen]:
    """From who sees most to who sees least, guards in the order in which they were asked for."""
    own = runs[0].release_guard
    guards = dict.fromkeys((item.guard, item.access) for run in runs for item in run.guarded if not item.reason)
    shows = next((access for guard, access in guards if guard == own), BY_SCORES)
    return [_Seen(own, BY_MODEL), _Seen(own, shows), *(_Seen(guard, access) for guard, access in guards if guard != own)]


def _metric(runs: list[RunResult], family: str) -> str:
    """That figures of the family are compared by; empty where nothing ran through guards."""
    through = [
        (item.guard == LABEL, a.metric) for run in runs for item in run.guarded for a in item.attacks if _gave(a, family)
    ]
    return next((metric for label, metric in through if label), next((metric for _, metric in through), ""))


def _strongest(who: _Seen, runs: list[RunResult], family: str, metric: str) -> _Attack | None:
    """The attack with the largest mean figure over the same seeds; None where none ran."""
    each = {run.seed: who.attacks(run, family) for run in runs if who.own(run, family)}
    found: dict[_Attack, dict[int, AttackResult]] = {}
    for seed, attacks in each.items():
        for attack, result in attacks.items():
            found.setdefault(attack, {})[seed] = result
    alike = {attack: on for attack, on in found.items() if all(result.metric == metric for result in on.values())}
    found = alike or found
    most = max((len(on) for on in found.values()), default=0)
    found = {attack: on for attack, on in found.items() if len(on) == most}
    shared = [seed for seed in each if all(seed in on for on in found.values())]

    def mean(attack: _Attack) -> float:
        on = found[attack]
        return float(np.mean([on[seed].value or 0.0 for seed in shared or on]))

    return max(found, key=mean, default=None)


def _figures(who: _Seen, runs: list[RunResult], family: str, attack: _Attack) -> dict[int, AttackResult]:
    """By seed, on those on which the guard's own attacks gave some."""
    found = {run.seed: who.attacks(run, family).get(attack) for run in runs if who.own(run, family)}
    return {seed: result for seed, result in found.items() if result is not None}


def _cost(
    kind: Kind,
    runs: list[RunResult],
    family: str,
    who: _Seen,
    attack: _Attack,
    labelled: _Seen,
    label: _Attack | None,
    verdicts: dict[str, dict[str, str]],
) -> GuardCost:
    found = _figures(who, runs, family, attack)
    some = next(iter(found.values()), None)
    name = f"{attack.name}/{some.metric if some is not None else ''}"
    subjects = subjects_of(name)
    beyond = Measure(name="beyond_label", value=None, note=f"evaluation.guards does not name {LABEL}")
    if label and found:
        others = _figures(labelled, runs, family, label)
        pairs = [(one, others[seed]) for seed, one in found.items() if seed in others]
        apart = [_apart(one, other) for one, other in pairs if one.metric == other.metric]
        beyond = over_seeds(apart, "beyond_label", least=-1.0, subjects=subjects)
        if pairs and not apart:
            note = f"its figure is {pairs[0][0].metric}, and the label's {pairs[0][1].metric}"
            beyond = Measure(name="beyond_label", value=None, note=note)
    ran_behind = "" if attack.guard == runs[0].release_guard else attack.guard
    return GuardCost(
        variant=kind[0],
        epsilon=kind[1],
        regularizer=kind[2],
        seeds=tuple(found),
        family=family,
        guard=who.guard,
        access=who.access,
        attack=attack.name,
        behind="" if attack.guard == who.guard else attack.guard,
        metric=some.metric if some is not None else "",
        value=over_seeds([headline(item) for item in found.values()], name, subjects=subjects),
        permitted=None if some is None else some.permitted,
        verdict=verdicts.get(ran_behind, {}).get(attack.name) or verdicts.get(attack.guard, {}).get(attack.name, "none"),
        label_attack="" if label is None else label.name,
        beyond_label=beyond,
        change=_change(who, beyond),
    )


def _apart(one: AttackResult, other: AttackResult) -> Measure:
    """On one model: class by class where both say which they recognise."""
    if one.recognised and len(one.recognised) == len(other.recognised):
        return paired_difference(np.array(one.recognised), np.array(other.recognised), "beyond_label")
    return difference(headline(one), headline(other), "beyond_label")


def _change(who: _Seen, beyond: Measure) -> GuardChange:
    if who.guard == LABEL and who.access != BY_MODEL:
        return "is the label"
    if beyond.value is None or beyond.low is None or beyond.high is None:
        return "not compared"
    if beyond.low > 0:
        return "costs more than the label"
    gives_it_away = who.access == BY_MODEL or simulates(who.guard, LABEL)
    return "costs less than the label" if beyond.high < 0 and not gives_it_away else "not shown to cost more than the label"
