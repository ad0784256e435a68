"""One model behind one guard after the other, each attacked by those who know it.

    evaluation.guards = ["label_only", "top5-rounded"]           # in a recipe; or --evaluation.guards label_only top5-rounded

Through each guard runs every attack of the plan that sees scores at most, and so does whoever adapts (:data:`ADAPTED`): attacks
on discrete answers, on ranks, and by repeated queries beside any attack with shadow models; searches by labels, by scores, and
by estimated gradients beside any class inversion. All of these run on the model without a guard as well: whoever sees more has
them too. Shadow models stand behind guards of their own (:mod:`evaluation.guarded`); they are trained once, and each guard only
changes what is shown of them. Controls stand behind the same kind of guard. Where no attack of the plan has shadow models, no
membership attack adapts, and the report says so.

A guard reads a model's outputs and nothing else, so what the plan permits of an attack on the model it permits through the
guard as well (post-processing: Dwork and Roth 2014, "The Algorithmic Foundations of Differential Privacy", proposition 2.1). A
guard that was fitted on members is the exception: it read them once more, and its statement says so.

What a guard costs whoever asks honestly, on held-out examples:

* ``answered_right``: the share that is answered, and right
* ``refused``: the share that is not answered
* ``distance_of_scores``: Σ_j |shown_j − s_j| with the model's own scores s, from 0 to 2, where what is withheld counts as 0
* ``brier_score``: Σ_j (p_j − 1{j = y})² (Brier 1950), p being what is shown, completed to scores of all classes
"""

import dataclasses
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from dptrain.errors import UserError
from dptrain.fleet import Fleet
from dptrain.release.guard import Answers, needs_members, softmax
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.completed import completed
from evaluation.guarded import Bench
from evaluation.inversion.reconstructor import Reconstructor
from evaluation.known_others import Informed
from evaluation.membership import NotApplicable
from evaluation.metrics import mean, proportion
from evaluation.plan import ATTACKS, EvaluationPlan
from evaluation.result import AttackResult, GuardedResult, Measure
from evaluation.shadows import Fleets
from evaluation.target import Target

Attack = Callable[[Case, str, Callable[[], Fleet | None]], AttackResult]

ADAPTED: dict[str, tuple[str, ...]] = {
    "membership": ("membership.answers", "membership.ranks", "membership.repeated"),
    "inversion": ("inversion.scores", "inversion.estimated_gradient", "inversion.labels"),
}
FAMILIES = ("membership", "inversion", "attribute", "link", "node")
"""Whose attacks ask about inputs of which a guard answers."""


def through_guards(case: Case, attack: Attack, fleets: Fleets) -> tuple[GuardedResult, ...]:
    """The model of the case behind each guard of its plan, whatever becomes of any of them.

    Args:
        attack: runs one attack, such as :func:`evaluation.runner.run_attack`.
        fleets: of bare shadow models.
    """
    return tuple(_through(case, guard, attack, fleets) for guard in case.evaluation.guards)


def attacks_through(plan: EvaluationPlan) -> tuple[str, ...]:
    """The attacks that run through each guard: those of the plan that see scores at most, then those that adapt."""
    made = {name: ATTACKS[name]() for name in plan.attacks if name.split(".")[0] in FAMILIES}
    seen = [name for name, attack in made.items() if getattr(attack, "access", Access.WEIGHTS) <= Access.SCORES]
    return tuple(dict.fromkeys([*seen, *_adapted(plan)]))


def attacks_without(plan: EvaluationPlan) -> tuple[str, ...]:
    """The attacks that run on the model itself: those of the plan and, where it compares guards, those that adapt to one, since
    whoever sees more has them too."""
    return tuple(dict.fromkeys([*plan.attacks, *(_adapted(plan) if plan.guards else ())]))


def _adapted(plan: EvaluationPlan) -> list[str]:
    """Of :data:`ADAPTED`, those of a family of which the plan has an attack that they add to at no great cost."""
    made = {name: ATTACKS[name]() for name in plan.attacks}
    found: list[str] = []
    if any(name.startswith("membership.") and "fleet" in getattr(attack, "needs", ()) for name, attack in made.items()):
        found += ADAPTED["membership"]
    if any(
        name.startswith("inversion.") and not isinstance(attack, (Informed, Reconstructor)) for name, attack in made.items()
    ):
        found += ADAPTED["inversion"]
    return found


def stand_before(case: Case, bench: Bench) -> Case:
    """The same case with a guard before the target, and one of its own before every control; the given one stays as it is.

    Raises:
        UserError: there is nothing to fit a guard on.
    """

    def behind(model: Target | None, name: str) -> Target | None:
        if model is None:
            return None
        door = model.behind(model.access)
        door.guard = bench.guard(model, f"{name} {case.seed}")
        return door

    target = behind(case.target, "target")
    assert target is not None
    without_graph = behind(case.without_graph, "without the graph")
    return dataclasses.replace(case, target=target, untrained=behind(case.untrained, "untrained"), without_graph=without_graph)


def _through(case: Case, text: str, attack: Attack, fleets: Fleets) -> GuardedResult:
    started = time.monotonic()
    names = attacks_through(case.evaluation)
    bench = Bench(text, case.data, case.split, case.views)
    try:
        _check_split(case, text)
        guarded = stand_before(_bare(case), bench)
        guard = guarded.target.guard
        assert guard is not None
        examples = case.examples(case.split.held_out)
        logits = case.target.behind(Access.LOGITS).logits(examples.inputs)
        answers = guard.answers(examples.inputs, logits)
    except Exception as error:  # a guard is anyone's code: whatever it raises must not stop the others
        status = "not_applicable" if isinstance(error, UserError) else "failed"
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        attacks = tuple(AttackResult(name=name, status=status, reason=f"behind {text}: {reason}") for name in names)
        return GuardedResult(guard=text, attacks=attacks, reason=reason)
    folder = None if case.folder is None else case.folder / f"guard={text}"
    guarded, shadows = dataclasses.replace(guarded, folder=folder), fleets.behind(bench)
    attacks = tuple(_placed(attack(guarded, name, shadows), text) for name in names)
    return GuardedResult(
        guard=text,
        access=in_words(answers),
        statement=guard.statement(),
        utility=worth(answers, logits, examples.targets.numpy()),
        attacks=attacks,
        seconds=round(time.monotonic() - started, 3),
    )


def _check_split(case: Case, text: str) -> None:
    if needs_members(text) and not len(case.split.population):
        raise NotApplicable(
            "it is fitted on members and on examples kept from the model, and of these there are none; raise "
            "data.split.population, such as to 0.1"
        )


def _bare(case: Case) -> Case:
    """Without the guard of the recipe."""

    def bare(model: Target | None) -> Target | None:
        if model is None:
            return None
        door = model.behind(model.access)
        door.guard = None
        return door

    target = bare(case.target)
    assert target is not None
    return dataclasses.replace(case, target=target, untrained=bare(case.untrained), without_graph=bare(case.without_graph))


def _placed(result: AttackResult, text: str) -> AttackResult:
    """Its pictures lie in the guard's own folder."""
    return dataclasses.replace(result, figures=tuple(f"guard={text}/{name}" for name in result.figures))


def in_words(answers: Answers) -> str:
    """What is shown of an answer."""
    count = 0 if answers.shown is None else answers.shown.shape[1]
    if answers.shows == "label":
        return "label"
    if answers.shows == "ranks":
        return f"top-{count} labels in order" if count > 1 else "label"
    return f"top-{count} with scores" if 0 < count < answers.scores.shape[1] else "scores"


def worth(answers: Answers, logits: Float[np.ndarray, "examples classes"], targets: np.ndarray) -> tuple[Measure, ...]:
    """What the answers are worth to whoever asks honestly; see the module."""
    truth, count = np.eye(logits.shape[1])[targets], len(targets)
    return (
        proportion(int((answers.labels == targets).sum()), count, "answered_right"),
        proportion(int(answers.refused.sum()), count, "refused"),
        _not_below_zero(mean(np.abs(answers.scores - softmax(logits)).sum(1), "distance_of_scores")),
        _not_below_zero(mean(np.square(completed(answers) - truth).sum(1), "brier_score")),
    )


def _not_below_zero(measure: Measure) -> Measure:
    return measure if measure.low is None else dataclasses.replace(measure, low=max(0.0, measure.low))


def known(results: tuple[GuardedResult, ...], before: tuple[GuardedResult, ...]) -> tuple[GuardedResult, ...]:
    """New results, with those of other guards and other attacks that were found before on the same weights."""
    earlier = {item.guard: item for item in before}
    merged = []
    for item in results:
        ran = {attack.name for attack in item.attacks}
        kept = earlier.pop(item.guard, GuardedResult(guard=item.guard)).attacks
        others = tuple(attack for attack in kept if attack.name not in ran)
        merged.append(dataclasses.replace(item, attacks=(*item.attacks, *others)))
    return (*merged, *earlier.values())
