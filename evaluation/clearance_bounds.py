"""A policy's bounds on what attacks found, on utility and on the effort: see :mod:`evaluation.clearance`.

A figure is held only where it can be one: a finite value inside of a finite interval, and both from 0 to 1 where it is a share.
NaN is neither above a bound nor below it, so that every comparison asks for what is required, and never for its contrary.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dptrain.release.checks import Check, Outcome
from dptrain.release.policy import SHARES, Policy
from evaluation.result import AttackResult, Measure, RunResult
from evaluation.verdicts import IN_GRAPH

RATE = "tpr_at_fpr_0.01"
ROUNDING = 1e-9
SAYS_NOTHING = ("withheld", "no signal", "none")
"""Verdicts under which a small figure shows nothing."""


@dataclass(frozen=True)
class Bounded:
    """Which figures a bound is on."""

    words: str
    is_of: Callable[[AttackResult], bool]
    figures: Callable[[AttackResult], list[Measure]]
    to_do: str
    """Where no attack gives the figure."""


def _headline(attack: AttackResult) -> list[Measure]:
    return [Measure(name=attack.metric, value=attack.value, low=attack.low, high=attack.high)]


def _named(name: str) -> Callable[[AttackResult], list[Measure]]:
    return lambda attack: [measure for measure in attack.metrics if measure.name == name]


def _exposures(attack: AttackResult) -> list[Measure]:
    return _headline(attack) + [measure for measure in attack.metrics if measure.name.startswith("exposure_inserted_")]


BOUNDS: dict[str, Bounded] = {
    "maximum_tpr": Bounded(
        "true positive rate at 1% false positives",
        lambda attack: attack.name.startswith("membership."),
        _named(RATE),
        "evaluate a membership attack with 0.01 in evaluation.false_positive_rates",
    ),
    "maximum_auc": Bounded(
        "AUC of membership",
        lambda attack: attack.name.startswith("membership."),
        _headline,
        "evaluate a membership attack, such as membership.lira",
    ),
    "maximum_identification": Bounded(
        "share of classes identified",
        lambda attack: attack.name.startswith("inversion.") and attack.metric == "identified_top1",
        _headline,
        "evaluate an inversion, such as inversion.class",
    ),
    "maximum_exposure": Bounded(
        "exposure in bits",
        lambda attack: attack.name == "extraction.exposure",
        _exposures,
        "evaluate extraction.exposure, with made-up secrets in the data (data.secrets.each)",
    ),
    "maximum_link_auc": Bounded(
        "AUC of edges in the graph",
        lambda attack: attack.name.startswith("link."),
        _named(IN_GRAPH),
        "evaluate an attack on links, with data.held_out_edges above 0",
    ),
}


def of_bounds(
    result: RunResult | None, attacks: tuple[AttackResult, ...], utility: Measure | None, policy: Policy, evaluate: str
) -> Iterator[Check]:
    """A check for each bound that the policy has.

    Args:
        attacks: that saw what is to be shown.
        utility: of what is to be shown.
        evaluate: what to type to attack the model again.
    """
    for name, bounded in BOUNDS.items():
        most = getattr(policy, name)
        if most is not None:
            yield _held(name, bounded, attacks, most, evaluate)
    if policy.minimum_utility is not None:
        yield _utility(utility, policy.minimum_utility, evaluate)
    if policy.minimum_shadow_models is not None:
        yield _shadow_models(result, policy.minimum_shadow_models)


def _held(name: str, bounded: Bounded, attacks: tuple[AttackResult, ...], most: float, evaluate: str) -> Check:
    ran = [attack for attack in attacks if attack.status == "ok" and bounded.is_of(attack)]
    found = [(attack, _upper_ends(bounded.figures(attack), is_share=name in SHARES)) for attack in ran]
    impossible = [attack.name for attack, ends in found if ends is None]
    lacking = [attack.name for attack, ends in found if ends == [] and attack.verdict != "no signal"]
    above = [f"{attack.name} up to {max(ends):.3f}" for attack, ends in found if ends and not max(ends) <= most]
    telling = [max(ends) for attack, ends in found if ends and attack.verdict not in SAYS_NOTHING]
    required = f"{bounded.words} ≤ {most:g}, by the upper end of its interval"
    if above:
        to_do = "train with a smaller budget, show less by a --guard, or give another policy"
        return Check(name=name, verdict="not met", found="; ".join(above), required=required, to_do=to_do)
    if impossible:
        said = f"an interval that no figure has, of {', '.join(impossible)}"
        to_do = f"restore the result from a copy, or attack again (`{evaluate}`)"
        return Check(name=name, verdict="cannot be judged", found=said, required=required, to_do=to_do)
    if lacking or not telling:
        said = f"no such figure of {', '.join(lacking)}" if lacking else _silence(ran)
        to_do = f"{bounded.to_do} (`{evaluate}`), or leave {name} out of the policy"
        return Check(name=name, verdict="cannot be judged", found=said, required=required, to_do=to_do)
    worst = f"up to {max(telling):.3f} in {len(telling)} attacks"
    return Check(name=name, verdict="met", found=worst, required=required)


def _upper_ends(figures: list[Measure], *, is_share: bool) -> list[float] | None:
    """Empty where one of them is not known: what lacks its interval cannot be held. None where one is no figure at all."""
    if not all(_is_possible(measure, is_share=is_share) for measure in figures):
        return None
    ends = [item.high for item in figures if None not in (item.value, item.low) and item.high is not None]
    return ends if len(ends) == len(figures) else []


def _is_possible(measure: Measure, *, is_share: bool) -> bool:
    """Of what is known of it: value and ends are finite and in their order, and those of a share lie from 0 to 1."""
    known = [float(number) for number in (measure.low, measure.value, measure.high) if number is not None]
    in_order = all(low <= high + ROUNDING for low, high in itertools.pairwise(known))
    in_range = not is_share or all(-ROUNDING <= number <= 1 + ROUNDING for number in known)
    return all(map(math.isfinite, known)) and in_order and in_range


def _silence(ran: list[AttackResult]) -> str:
    if not ran:
        return "no such attack ran"
    return "; ".join(f"{attack.name} is {attack.verdict}: {attack.reason}" for attack in ran)


def _utility(headline: Measure | None, least: float, evaluate: str) -> Check:
    required = f"utility ≥ {least:g}, by the lower end of its interval"
    if headline is None or headline.low is None or not _is_possible(headline, is_share=True):
        return Check(
            name="minimum_utility",
            verdict="cannot be judged",
            found="no figure with an interval that one can have",
            required=required,
            to_do=f"type `{evaluate}`",
        )
    verdict: Outcome = "met" if headline.low >= least else "not met"
    to_do = "" if verdict == "met" else "train with more examples, more updates or a larger budget, or give another policy"
    found = f"{headline.name} from {headline.low:.3f}"
    return Check(name="minimum_utility", verdict=verdict, found=found, required=required, to_do=to_do)


def _shadow_models(result: RunResult | None, least: int) -> Check:
    models = None if result is None or result.exposure is None else result.exposure.models
    verdict: Outcome = "cannot be judged" if models is None else "met" if models >= least else "not met"
    return Check(
        name="minimum_shadow_models",
        verdict=verdict,
        found="none are known of" if models is None else f"{models}",
        required=f"at least {least} shadow models",
        to_do="" if verdict == "met" else f"run the comparison with --evaluation.shadow-models {least} into another folder",
    )
