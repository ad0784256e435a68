"""What an evaluation left out, computed from the registry of attacks and from the result, so that no reader takes silence for
safety.

    found = untested(result)
    found.attacks                       # registered, for data of this kind, and not run: name to a line about each

An attack that was not asked for and one that could not be made both leave a question open. What is said here is what could
still be asked of the same models: other attacks of the registry, other levels of access, more shadow models, more seeds, an
audit. That an attack is named does not mean that it would find something; some need what these models or data do not have, and
say so when they run.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from evaluation.access import Access
from evaluation.plan import ATTACKS
from evaluation.result import AttackResult, AuditResult, Exposure, RunResult, Summary, Untested

KINDS = {"graph: ": "graph", "text: ": "language"}
"""How the registry's lines about attacks on data of one kind begin."""
OF_GRAPHS, OF_LANGUAGE = ("link.", "node."), ("extraction.",)
DRAWN = "inversion."
OF_MODELS = ("inversion.informed", "inversion.reconstructor")
"""Inversions of one unknown example, whatever the data are."""
LANGUAGE = ("next_character", "next_token")
BEHIND_GUARDS = ("membership.answers", "membership.ranks")
"""Of use where a guard stands before the model."""


def untested(
    runs: Sequence[RunResult],
    summary: Sequence[Summary],
    data: dict[str, Any],
    evaluation: dict[str, Any],
    recipe: dict[str, Any],
    audits: Iterable[AuditResult] = (),
    checkpoints: int = 0,
) -> Untested:
    """What was left out of a comparison.

    Args:
        data: public facts of the data set.
        evaluation: the evaluation as it was asked for; empty where that is not known.
        recipe: what was trained; empty where that is not known.
    """
    every = [attack for run in runs for attack in _attacks(run)]
    done = {attack.name for attack in every if attack.status == "ok"}
    tried = {attack.name for attack in every}
    about = ATTACKS.about()
    language = any(item.utility.name in LANGUAGE for item in summary)
    kind = "language" if language else str(data.get("kind", ""))
    guarded = any(run.guarded for run in runs)
    before = any(run.release_guard for run in runs)
    names = [name for name in about if name not in tried and applies(name, about[name], kind, data, evaluation, recipe)]
    names = [name for name in names if guarded or before or name not in BEHIND_GUARDS]
    used = {word for attack in every if attack.status == "ok" for word in _levels(attack)}
    audited = {found.budget for found in audits}
    twins = {run.seed for run in runs if run.variant == "non_private"}
    private = [run for run in runs if run.variant == "dp"]
    models = [run.exposure.models for run in runs if isinstance(run.exposure, Exposure)]
    return Untested(
        attacks={name: about[name] for name in sorted(names)},
        unfinished=tuple(sorted(tried - done)),
        access=tuple(level.word for level in Access if level.word not in used),
        guards="one stood before every answer" if before else "compared" if guarded else "none stood before the models",
        shadow_models=min(models, default=None),
        seeds=min((len(item.seeds) for item in summary), default=0),
        rows_without_twin=tuple(run.label for run in private if run.seed not in twins),
        budgets_without_audit=tuple(sorted({run.epsilon for run in private} - {found for found in audited if found})),
        unresolved=_unresolved(summary),
        checkpoints=checkpoints,
    )


def applies(name: str, about: str, kind: str, data: dict[str, Any], evaluation: dict[str, Any], recipe: dict[str, Any]) -> bool:
    """Whether an attack is one on data of this kind, as far as that can be said without running it.

    Args:
        kind: of the data, such as ``image``; ``language`` where the model says what comes next.
    """
    prefix = next((wanted for start, wanted in KINDS.items() if about.startswith(start)), None)
    if prefix is not None and prefix != kind:
        return False
    if name.startswith(OF_GRAPHS):
        return kind == "graph"
    if name.startswith(OF_LANGUAGE):
        return kind == "language"
    if name.startswith("attribute."):
        return kind == "table" and bool(evaluation.get("hidden"))
    if name.startswith(OF_MODELS):
        return True
    if name.startswith(DRAWN):
        return kind == "image"
    return _coins(recipe)  # membership


def _coins(recipe: dict[str, Any]) -> bool:
    """Whether a coin decided of each example whether it is a member, which membership attacks need."""
    split = recipe.get("data", {}).get("split", {})
    return split.get("per_class") is None and split.get("members_are", "drawn") == "drawn"


def _levels(attack: AttackResult) -> list[str]:
    return [attack.access] if attack.access in {level.word for level in Access} else []


def _unresolved(summary: Sequence[Summary]) -> tuple[str, ...]:
    """``<attack>/<metric>`` of what was asked for and has a value on no row."""
    every = [measure for item in summary for measure in item.measures]
    known = {measure.name for measure in every if measure.value is not None}
    return tuple(dict.fromkeys(measure.name for measure in every if measure.name not in known))


def _attacks(run: RunResult) -> list[AttackResult]:
    return [*run.attacks, *(attack for item in run.guarded for attack in item.attacks)]
