"""Which attacks saw no more than will be shown of a model: those on it, or those through its guard. See
:mod:`evaluation.clearance`.

A guard counts as attacked where somebody who knows it tried: at least one attack of :data:`evaluation.through_guards.ADAPTED`
gave a figure that says something. Attacks that take a guard's answers for the model's own find little behind any guard.
"""

from dataclasses import dataclass

from dptrain.release.checks import Check
from dptrain.release.parts import parse
from evaluation.clearance_bounds import SAYS_NOTHING
from evaluation.result import AttackResult, Measure, RunResult
from evaluation.through_guards import ADAPTED
from evaluation.utility import as_measures

ANSWERED = "answered_right"
"""Of :mod:`evaluation.through_guards`."""


@dataclass(frozen=True)
class Shown:
    """What whoever asks will see of the model, and the attacks that saw no more."""

    checks: tuple[Check, ...]
    attacks: tuple[AttackResult, ...]
    utility: Measure | None
    """The headline; through a guard, the share that is answered, and right."""


def shown(result: RunResult | None, before: str | None, guard: str | None) -> Shown:
    """What will be shown behind a guard.

    Args:
        before: the recipe's own guard, which stood before the attacked model.
        guard: that will stand before it; None where its weights or its plain scores are shown.
    """
    if guard is not None:
        return _behind(result, before, guard)
    attacks, utility = _on_the_model(result)
    if before is None or result is None:
        return Shown((), attacks, utility)
    check = Check(
        name="guard",
        verdict="cannot be judged",
        found=f"the attacks were made behind the recipe's guard {before}",
        required="attacks on what is to be shown, which is the model without a guard",
        to_do=f"give --guard {before}, or train and attack a recipe without release.guard",
    )
    return Shown((check,), attacks, utility)


def _on_the_model(result: RunResult | None) -> tuple[tuple[AttackResult, ...], Measure | None]:
    return ((), None) if result is None else (result.attacks, next(iter(as_measures(result.utility)), None))


def _behind(result: RunResult | None, before: str | None, guard: str) -> Shown:
    if before is not None and parse(before) == parse(guard):
        attacks, utility = _on_the_model(result)
        return Shown((_attacked(attacks, guard, "behind the recipe's own"),), attacks, utility)
    through = [one for one in (() if result is None else result.guarded) if parse(one.guard) == parse(guard)]
    if not through or through[-1].reason:
        return Shown((_unattacked(guard, f"none: {through[-1].reason}" if through else "none"),), (), None)
    answered = next((measure for measure in through[-1].utility if measure.name == ANSWERED), None)
    return Shown((_attacked(through[-1].attacks, guard, "through it"),), through[-1].attacks, answered)


def _attacked(attacks: tuple[AttackResult, ...], guard: str, where: str) -> Check:
    telling = [attack.name for attack in attacks if attack.status == "ok" and attack.verdict not in SAYS_NOTHING]
    adapted = sorted({name for names in ADAPTED.values() for name in names} & set(telling))
    if not adapted:
        return _unattacked(guard, f"{len(telling)} that say something, and none of them by who adapts to it")
    found = f"{len(telling)} attacks {where}, of which {', '.join(adapted)} adapt to it"
    return Check(name="guard", verdict="met", found=found, required=_required(guard))


def _unattacked(guard: str, found: str) -> Check:
    run = f"run the comparison with --evaluation.guards {guard} into another folder"
    which = "an attack with shadow models or an inversion among evaluation.attacks, such as membership.lira or inversion.class"
    return Check(name="guard", verdict="cannot be judged", found=found, required=_required(guard), to_do=f"{run}, with {which}")


def _required(guard: str) -> str:
    return f"attacks through {guard}, by attackers who know it"
