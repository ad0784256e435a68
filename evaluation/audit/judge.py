"""From a game to what an audit says: bounds, each with its ceiling, and whether the claim stands.

    audit = judge(game, comparisons=3)
    audit.contradictions        # empty, or sentences: the claim is refuted

The claim is refuted where

* a bound that holds for any mechanism lies above the claimed ε,
* the right guesses of one run are more than the plan's own trade-off curve permits (Mahloujifar, Melis, Chaudhuri 2025), or
  the ROC over many runs crosses that curve beyond its interval,
* the mechanism does otherwise than it says (:mod:`~evaluation.audit.white_box`).

Nothing is chosen on the scores that are judged, unless it is paid for. The number of guesses follows from the claim alone.
Over many runs the threshold of μ comes from other runs, and that of ε may be any, since the rates are bounded at all of them
together (:mod:`~evaluation.audit.band`). The two bounds of a game, and those of every budget and checkpoint, share one
permitted error; who names one of the two beforehand (``bound="steinke"``) gives it the whole. The comparison with the plan's
curve has an error of its own, a fifth of that.
"""

from collections.abc import Callable
from typing import Literal

from dptrain.rounding import down
from evaluation import metrics
from evaluation.audit import fdp, one_run
from evaluation.audit.bound import AuditError, LowerBound, Terms
from evaluation.audit.clopper_pearson import clopper_pearson_bound
from evaluation.audit.game import Game
from evaluation.audit.gdp import epsilon_to_mu, gdp_bound
from evaluation.audit.guesses import correct_guesses, planned_guesses
from evaluation.audit.shift import shift_estimate
from evaluation.audit.thresholds import Everywhere, Split
from evaluation.result import AuditBound, AuditCheck, AuditResult

Bound = Literal["steinke", "f-dp", "clopper-pearson", "gdp"]
OF_ONE_RUN: tuple[Bound, ...] = ("steinke", "f-dp")
OF_MANY_RUNS: tuple[Bound, ...] = ("clopper-pearson", "gdp")
"""The bounds of a game; the largest of them may be quoted."""
OF_THE_CURVE = 0.2
"""The error that the comparison with the plan's curve may have, as a share of that of the bounds."""
HELD_OUT = 0.3
"""Of many runs, the share on which the threshold of μ is chosen."""


def judge(
    game: Game,
    checks: tuple[AuditCheck, ...] = (),
    *,
    comparisons: int = 1,
    confidence: float = 0.95,
    bound: Bound | None = None,
) -> AuditResult:
    """The audit of a game.

    Args:
        comparisons: games of which the worst may be quoted, such as one a budget and checkpoint.
        bound: the only one that is computed, named before the game was played; left out, both of the game.

    Raises:
        AuditError: that bound is none of this game.
    """
    plan, accepted = game.plan, OF_MANY_RUNS if game.many_runs else OF_ONE_RUN
    if bound is not None and bound not in accepted:
        raise AuditError(f"bound is {bound!r}; this game has {' and '.join(accepted)}")
    names = accepted if bound is None else (bound,)
    claimed = plan.guarantee().epsilon
    terms = Terms(
        access="white-box" if game.access == "weights" else "black-box",
        relation=plan.relation,
        delta=plan.delta,
        confidence=confidence,
        comparisons=len(names) * comparisons,
    )
    error = OF_THE_CURVE * (1 - confidence) / comparisons
    bounds, against = _many_runs(game, terms, error, names) if game.many_runs else _one_run(game, terms, error, claimed, names)
    found = [f"{one.method} gives ε ≥ {down(one.epsilon)}" for one in bounds if one.contradicts(claimed)]
    found += against
    found += [f"the {check.name} is not what the plan states: {check.what}, and it is" for check in checks if not check.ok]
    return AuditResult(
        about=game.about,
        access=terms.access,
        epsilon=claimed,
        delta=plan.delta,
        relation=plan.relation,
        step=plan.steps,
        bounds=tuple(_record(one) for one in bounds),
        checks=checks,
        contradictions=tuple(found),
    )


def _record(bound: LowerBound) -> AuditBound:
    return AuditBound(
        method=bound.method,
        epsilon=bound.epsilon,
        ceiling=bound.ceiling,
        holds_for=bound.holds_for,
        is_bound=bound.is_bound,
        canaries=bound.canaries,
        guesses=bound.guesses,
        correct=bound.correct,
        comparisons=bound.terms.comparisons,
        confidence=bound.terms.confidence,
        text=str(bound),
    )


def _one_run(
    game: Game, terms: Terms, error: float, claimed: float, names: tuple[Bound, ...]
) -> tuple[tuple[LowerBound, ...], list[str]]:
    scores, included, plan, canaries = game.scores, game.included, game.plan, len(game.scores)
    mu, each = epsilon_to_mu(claimed, plan.delta), terms.significance
    steinke = planned_guesses(
        canaries, mu, lambda total, right: one_run.epsilon_lower_bound(canaries, total, right, plan.delta, each)
    )
    curve = planned_guesses(canaries, mu, lambda total, right: fdp.mu_lower_bound(canaries, total, right, each))
    computed: dict[Bound, Callable[[], LowerBound]] = {
        "steinke": lambda: one_run.one_run_bound(scores, included, steinke, terms),
        "f-dp": lambda: fdp.fdp_bound(scores, included, curve, terms, curves="gaussian"),
    }
    bounds = (*(computed[name]() for name in names), shift_estimate(scores, included, terms))
    right = correct_guesses(scores, included, curve)
    if fdp.refutes(canaries, curve.total, right, fdp.of_roc(plan.permitted_true_positive_rate), error):
        return bounds, [f"{right} of {curve.total} guesses were right, more than the plan's own trade-off curve permits"]
    return bounds, []


def _many_runs(game: Game, terms: Terms, error: float, names: tuple[Bound, ...]) -> tuple[tuple[LowerBound, ...], list[str]]:
    computed: dict[Bound, Callable[[], LowerBound]] = {
        "clopper-pearson": lambda: clopper_pearson_bound(game.scores, game.included, Everywhere(), terms),
        "gdp": lambda: gdp_bound(game.scores, game.included, Split(HELD_OUT), terms),
    }
    bounds = tuple(computed[name]() for name in names)
    found = metrics.crossing(game.scores, game.included, game.plan.permitted_true_positive_rates, confidence=1 - error)
    if found is None:
        return bounds, []
    return bounds, [
        f"at a false positive rate of {found.false_positive_rate:g} the true positive rate over the runs is "
        f"{found.true_positive_rate.value:.3f}, and the plan permits {found.permitted:.3f}"
    ]
