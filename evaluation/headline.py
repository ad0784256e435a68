"""The answer of a comparison: of which budget it speaks, what that keeps, and what the strongest attack still gets there.

    found = headline(runs, summary, baselines, audits)
    found.chosen.kept                   # a Measure: the share of the non-private accuracy, with an interval
    found.chosen.strongest              # which attack, its figure, chance, what the plan permits, its verdict

*Which budget.* The smallest ε whose mean accuracy (or what stands in its place, :mod:`evaluation.utility`) is at least
:data:`ENOUGH` of the non-private models' and shown to lie above what needs no model; where there is none, the budget that is
worth most. It is a rule for a sentence and no advice: all rows stand below it, and choosing a budget by looking at results is
a look at private data that no ε of a single run counts.

*Which attack.* Of those that gave a figure on that row, by verdict first (above the plan, then those that found something,
then those that found nothing, and last those whose success says nothing of members: withheld, nothing beyond public, of the
population) and within a verdict by how far beyond chance it gets; of those that found nothing, by how far the lower end of its
interval gets, so that two classes out of two, [0.16, 1], do not stand before an AUC of 0.54, [0.48, 0.60]. The strongest
of many is a little too large by the luck of the draw; that errs on the side of caution, and the number of attacks is said
beside it.

*Beyond chance.* Of a share v with chance c, (v − c) / (1 − c): of an AUC it is 2 v − 1. Of an exposure of v bits, where c is
that of a secret which was never seen, 1 − 2^−(v − c): a secret with v bits ranks among the first 2^−v of all that it might be
(Carlini et al. 2019, "The Secret Sharer"), so that 1 − 2^−v is the AUC of telling it from others. Figures of different metrics
are ordered by it and shown as they are.

*Kept.* The quotient of two means with Fieller's interval (:func:`evaluation.exchange.ratio`), taken as uncorrelated; models of
the same seeds are tested on the same examples and tend to err together, so that it is too wide rather than too narrow.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from evaluation.exchange import RATE, ratio
from evaluation.metrics import difference
from evaluation.result import AttackResult, AuditResult, Choice, Headline, Measure, RunResult, Standing, Strongest, Summary
from evaluation.summary import in_bits
from evaluation.verdicts import IN_GRAPH

ENOUGH = 0.95
LEAKED = "train_minus_held_out"
"""Of an attribute inference: the part of its success that is about who was trained on."""
MOST_BITS = 1000.0
"""Below chance, so that the power of two is a number."""
ORDER = ("above the plan", "leak", "within the plan", "found nothing", "no signal")
"""Verdicts, the gravest first; the second and the third are equally grave, and others come last."""


def headline(
    runs: Sequence[RunResult],
    summary: Sequence[Summary],
    baselines: Sequence[Measure] = (),
    audits: Iterable[AuditResult] = (),
) -> Headline:
    """The answer of a comparison whose rows are ``summary``."""
    refuted = sum(not found.ok for found in audits)
    above = tuple(run.label for run in runs if any(attack.verdict == "above the plan" for attack in _attacks(run)))
    if not summary:
        return Headline(choice="nothing trained", enough=ENOUGH, chosen=None, non_private=None, smallest=None, refuted=refuted)
    twin = next((item for item in summary if item.variant == "non_private"), None)
    no_model = next((item for item in baselines if item.value is not None), None)
    every = {item.kind: _standing(item, twin, no_model, runs) for item in summary}
    budgets = sorted((item for item in summary if item.variant == "dp"), key=lambda item: item.epsilon)
    choice, chosen = _choose([every[item.kind] for item in budgets], every[(twin or summary[0]).kind], twin is not None)
    smallest = every[budgets[0].kind] if budgets and budgets[0].kind != chosen.kind else None
    return Headline(
        choice=choice,
        enough=ENOUGH,
        chosen=chosen,
        non_private=None if twin is None else every[twin.kind],
        smallest=smallest,
        above_plan=above,
        refuted=refuted,
        failed=_failed(runs, chosen),
    )


def _choose(budgets: list[Standing], without: Standing, has_twin: bool) -> tuple[Choice, Standing]:
    if not budgets:
        return "no budget", without
    if len(budgets) == 1:
        return "the only budget", budgets[0]
    if not has_twin:
        return "no twin, the smallest", budgets[0]
    good = [item for item in budgets if _keeps_enough(item)]
    if good:
        return "the smallest that keeps enough", good[0]
    return "keeps most", max(budgets, key=lambda item: (item.utility.value or 0.0, -item.epsilon))


def _keeps_enough(item: Standing) -> bool:
    kept = item.kept is not None and item.kept.value is not None and item.kept.value >= ENOUGH
    return kept and is_above_no_model(item)


def is_above_no_model(item: Standing) -> bool:
    """Whether a row is shown to be worth more than the best answer without a model, as far as one is known."""
    beside = item.above_no_model
    return beside is None or (beside.low is not None and beside.low > 0)


def _standing(item: Summary, twin: Summary | None, no_model: Measure | None, runs: Sequence[RunResult]) -> Standing:
    kept = None if twin is None or item is twin else _kept(item.utility, twin.utility)
    return Standing(
        variant=item.variant,
        epsilon=item.epsilon,
        regularizer=item.regularizer,
        utility=item.utility,
        kept=kept,
        above_no_model=None if no_model is None else difference(item.utility, no_model, "above_no_model"),
        no_model="" if no_model is None else no_model.name,
        strongest=strongest(item, runs, twin),
        unit=_unit(item, runs),
    )


def _unit(item: Summary, runs: Sequence[RunResult]) -> str:
    found = (run.guarantee for run in runs if run.kind == item.kind and run.variant == "dp")
    return next((guarantee.unit for guarantee in found if guarantee is not None), "")


def _kept(own: Measure, other: Measure) -> Measure | None:
    if own.value is None or other.value is None or other.value <= 0:
        return None
    found = ratio(own, other, "kept")
    return found if found.value is not None else Measure(name="kept", value=own.value / other.value)


# -- attacks on a row ---------------------------------------------------------------------------------------------------


def strongest(item: Summary, runs: Sequence[RunResult], twin: Summary | None = None) -> Strongest | None:
    """The attack that gets most from a row.

    Args:
        twin: the non-private row, for the same attack's figure there.
    """
    found = rated(item, runs)
    if not found:
        return None
    best = max(found, key=_strength)
    beside = None if twin is None or twin is item else _measure(twin, f"{best.attack}/{best.metric}")
    there = "" if beside is None or twin is None else twin.verdicts.get(best.attack, "")
    rate = _with_rate(best, item)
    return dataclasses.replace(rate, of=len(found), on_non_private=beside, verdict_on_non_private=there)


def _strength(one: Strongest) -> tuple[float, float, float]:
    """By which attacks are ordered: the verdict, of those that found nothing the interval's lower end, the figure."""
    gravity, shown = _gravity(one.verdict), 0.0
    if gravity == _gravity("found nothing") and one.chance is not None:
        low = -math.inf if one.value.low is None else one.value.low
        shown = _unclipped(low, one.chance, one.metric)
    return gravity, shown, one.beyond_chance or 0.0


def _with_rate(best: Strongest, item: Summary) -> Strongest:
    start = f"{best.attack}/{RATE}"
    rates = {float(one.name.removeprefix(start)): one for one in item.measures if one.name.startswith(start)}
    rates = {rate: one for rate, one in rates.items() if one.value is not None}
    if not rates:
        return best
    rate = min(rates)
    return dataclasses.replace(best, rate=rate, at_rate=rates[rate], rate_permitted=item.permitted.get(rates[rate].name))


def rated(item: Summary, runs: Sequence[RunResult]) -> list[Strongest]:
    """Every attack that gave a figure on a row, by what it says of members."""
    found = []
    for attack in (one for one in of_row(item, runs) if one.status == "ok"):
        metric, chance = speaks_of_members(attack)
        value = _measure(item, f"{attack.name}/{metric}")
        if value is None or value.value is None or any(known.attack == attack.name for known in found):
            continue
        found.append(
            Strongest(
                attack=attack.name,
                metric=metric,
                value=value,
                chance=chance,
                permitted=item.permitted.get(f"{attack.name}/{metric}"),
                verdict=item.verdicts.get(attack.name, "none"),
                of=1,
                beyond_chance=beyond_chance(value.value, chance, metric),
            )
        )
    return found


def of_row(item: Summary, runs: Sequence[RunResult]) -> list[AttackResult]:
    """What attacks gave on each seed's model of a row."""
    return [attack for run in runs if run.kind == item.kind for attack in run.attacks]


def speaks_of_members(attack: AttackResult) -> tuple[str, float | None]:
    """The figure of an attack that says how much it gets of those who were trained on, and what chance gives of it.

    That is what the attack is judged by, but for two: of attribute inference how much more often members are guessed than those
    who were not trained on; of links, edges of the graph against edges that were held out, of which a plan speaks (linked nodes
    are alike, and who has no model tells many of them from others).
    """
    if attack.name.startswith("attribute."):
        return LEAKED, 0.0
    if attack.name.startswith("link.") and any(one.name == IN_GRAPH and one.value is not None for one in attack.metrics):
        return IN_GRAPH, attack.chance_metrics.get(IN_GRAPH, 0.5)
    return attack.metric, attack.chance


def beyond_chance(value: float, chance: float | None, metric: str) -> float | None:
    """How far a figure lies beyond chance, from 0 to 1; see the module. None where chance is not known."""
    if chance is None:
        return None
    return max(0.0, _unclipped(value, chance, metric))


def _unclipped(value: float, chance: float, metric: str) -> float:
    """The same, and below 0 where a figure lies below chance."""
    if in_bits(metric):
        return 1 - 2.0 ** min(chance - value, MOST_BITS)
    return 0.0 if chance >= 1 else (value - chance) / (1 - chance)


def _gravity(verdict: str) -> int:
    word = next((word for word in ORDER if verdict.startswith(word)), "")
    return {"above the plan": 4, "leak": 3, "within the plan": 3, "found nothing": 2, "no signal": 1}.get(word, 0)


def _measure(item: Summary, name: str) -> Measure | None:
    return next((measure for measure in item.measures if measure.name == name), None)


def _failed(runs: Sequence[RunResult], chosen: Standing) -> tuple[str, ...]:
    of_row = [attack for run in runs if run.kind == chosen.kind for attack in run.attacks]
    fine = {attack.name for attack in of_row if attack.status == "ok"}
    return tuple(dict.fromkeys(one.name for one in of_row if one.status == "failed" and one.name not in fine))


def _attacks(run: RunResult) -> list[AttackResult]:
    return [*run.attacks, *(attack for item in run.guarded for attack in item.attacks)]
