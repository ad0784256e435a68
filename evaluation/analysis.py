"""From an attack's scores or reconstructions to figures, baselines, controls and a verdict.

An attack never computes a figure, and the report computes none either: this is where they are made, one function a
family. A verdict is a word of ``evaluation.result.VERDICTS``.
"""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int

from dptrain.data.dataset import DataSet
from dptrain.data.split import Split
from dptrain.fleet import Fleet, Views
from dptrain.plan import PrivacyPlan
from dptrain.recipe import Recipe
from evaluation import metrics
from evaluation.baselines import GATE, blind_scores, of_owners, permuted
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.plan import EvaluationPlan
from evaluation.result import AttackResult, Curve, Measure, Verdict
from evaluation.target import Target
from evaluation.verdicts import above_plan

if TYPE_CHECKING:
    from dptrain.accounting import TradeoffCurve


@dataclass(frozen=True, eq=False)
class Case:
    """A checkpoint on the bench: the model, and what attackers and judges are given."""

    target: Target
    untrained: Target | None
    """The same architecture with fresh weights: the negative control."""
    data: DataSet
    split: Split
    plan: PrivacyPlan | None
    """Of the target; None where it is not known, and then nothing is said of what it permits."""
    evaluation: EvaluationPlan
    seed: int
    fleet: Fleet | None = None
    without_graph: Target | None = None
    """Of a model of nodes: one of the same members that never saw an edge (:mod:`evaluation.without_graph`)."""
    reference: Target | None = None
    """What the target began from: a model that has seen public examples alone."""
    views: Views | None = None
    """That the fleet answers beside the examples themselves."""
    folder: Path | None = None
    """Where pictures go; without it none are kept."""
    recipe: Recipe | None = None
    """Of the target; None where it was trained in a script."""
    twin: Recipe | None = None
    """Of the non-private model that the target is held against; None where there is none."""

    def examples(self, indices: np.ndarray) -> LabelledExamples:
        index = torch.from_numpy(indices)
        return LabelledExamples(self.data.inputs[index], self.data.targets[index], indices)

    @property
    def is_private(self) -> bool:
        return self.plan is not None and self.plan.is_private

    @property
    def covers_examples(self) -> bool:
        """Whether the plan promises anything to one example; where the unit is the edge, it says nothing of nodes."""
        return self.plan is not None and self.plan.is_private and self.plan.unit != "edge"

    @property
    def example_curve(self) -> "TradeoffCurve | None":
        """What the plan permits an attack on whether one example was trained on; None without a guarantee.

        Where the unit is the user and each example had a coin of its own, the example's user may be in the training set with
        others, see :meth:`~dptrain.plan.PrivacyPlan.example_curve`. Where the coin was the user's, an example comes and goes
        with its user, and what is permitted of a user is permitted of it.
        """
        if self.plan is None or not self.covers_examples:
            return None
        return self.plan.unit_curve() if self.split.drawn == "users" else self.plan.example_curve()


def owners_of(data: DataSet, split: Split) -> Int[np.ndarray, " audited"] | None:
    """Whose each audited example is, by numbers from 0 up, where members are users; None where they are examples."""
    if split.drawn != "users":
        return None
    assert data.users is not None
    return np.unique(data.users.numpy()[split.audited], return_inverse=True)[1]


# -- membership -----------------------------------------------------------------------------------------------------


def membership(case: Case, name: str, attack: MembershipAttack) -> AttackResult:
    """Runs one membership attack and judges it: AUC first, true positive rates at fixed false positive rates beside it.

    Where the split dealt out users, users are what is guessed at: a user's score is the mean of those of their examples, as in
    Kandpal, Pillutla, Oprea, Kairouz, Choquette-Choo, Xu 2024, "User Inference Attacks on Large Language Models". Their
    examples share one coin, and figures over examples would count it many times.
    """
    examples = case.examples(case.split.audited)
    population = case.examples(case.split.population)
    views = None if case.views is None else case.views.of
    knowledge = Knowledge(
        public=case.examples(case.split.public),
        population=population,
        fleet=case.fleet,
        reference=case.reference,
        views=views,
    )
    knowledge.check(attack.needs)
    owners = owners_of(case.data, case.split)

    def scored(target: Target) -> np.ndarray:
        scores = np.asarray(attack.run(target.behind(attack.access), examples, knowledge), dtype=float)
        metrics.check_scores(scores, case.split.is_member)
        return scores if owners is None else of_owners(scores, owners)

    scores = scored(case.target)
    is_member = case.split.is_member if owners is None else of_owners(case.split.is_member, owners) > 0.5
    area = metrics.area_under_roc(scores, is_member)
    blind = _blind(case.data, case.split, case.seed)
    controls = [_named(metrics.area_under_roc(scores, permuted(is_member, case.seed)), "permuted")]
    if case.untrained is not None:
        controls.append(_named(metrics.area_under_roc(scored(case.untrained), is_member), "untrained"))
    rates, allowed = case.evaluation.false_positive_rates, case.example_curve
    result = AttackResult(
        name=name,
        status="ok",
        metric="auc",
        value=area.value,
        low=area.low,
        high=area.high,
        chance=0.5,
        permitted=None if allowed is None else allowed.auc(),
        access=attack.access.word,
        paper=attack.paper,
        metrics=tuple(metrics.rate_at(scores, is_member, rate) for rate in rates),
        permitted_metrics={} if allowed is None else _permitted_rates(allowed, rates),
        baselines=(_named(blind, "blind"),),
        controls=tuple(controls),
        curve=metrics.roc(scores, is_member),
        permitted_curve=None if allowed is None else _permitted_curve(allowed),
    )
    if metrics.is_constant(scores):
        return _with(result, "no signal", f"every {'example' if owners is None else 'user'} got the same score")
    for measure in (blind, *controls):
        if (blind.low is not None and blind.low > 0.5) if measure is blind else not _holds_chance(measure, 0.5):
            what = "a classifier that sees no model" if measure is blind else f"the {measure.name} control"
            return _with(result, "withheld", f"{what} has an AUC of {measure.value:.3f}, which chance does not explain")
    looked_at = tuple(sorted({*metrics.CROSSING_RATES, *rates}))
    crossing = None if allowed is None else metrics.crossing(scores, is_member, allowed.true_positive_rates, looked_at, GATE)
    plan = case.plan if case.covers_examples else None
    return _with(result, *_membership_verdict(result, plan, int((~is_member).sum()), crossing))


DRAWN_AT = np.concatenate([[0.0], np.geomspace(1e-4, 0.1, 31), np.linspace(0.125, 1.0, 36)])
"""False positive rates at which a permitted curve is kept: evenly on the logarithmic axis of an ROC, then on the plain one."""


def _permitted_curve(allowed: "TradeoffCurve") -> Curve:
    permitted = allowed.true_positive_rates(DRAWN_AT)
    return Curve(
        false_positive_rate=tuple(round(float(rate), 6) for rate in DRAWN_AT),
        true_positive_rate=tuple(round(float(rate), 6) for rate in permitted),
    )


def _permitted_rates(allowed: "TradeoffCurve", rates: tuple[float, ...]) -> dict[str, float]:
    return {f"tpr_at_fpr_{rate:g}": allowed.true_positive_rate(rate) for rate in rates}


@lru_cache(maxsize=32)
def _blind(data: DataSet, split: Split, seed: int) -> Measure:
    """The blind baseline of a split: the same for every attack on every model that was trained on it."""
    index, owners = torch.from_numpy(split.audited), owners_of(data, split)
    is_member = split.is_member if owners is None else of_owners(split.is_member, owners) > 0.5
    inputs = data.inputs if data.graph is None else data.graph.features
    seen = (inputs[index], data.targets[index], is_member, len(data.classes), seed, owners)
    scores, is_member = blind_scores(*seen)
    return metrics.area_under_roc(scores, is_member, "blind")


def _membership_verdict(
    result: AttackResult, plan: PrivacyPlan | None, non_members: int, crossing: metrics.Crossing | None = None
) -> tuple[Verdict, str]:
    """Every figure decides, not the AUC alone: a leak of few examples shows at low false positive rates only.

    A threshold's own false positive rate is known no better than its few false positives allow, so a true positive rate is
    held against chance at the upper end (95%) of that rate; against the plan the whole ROC is, see ``metrics.crossing``.
    """
    assert result.low is not None
    assert result.high is not None
    area = Measure(name="auc", value=result.value, low=result.low, high=result.high)
    if plan is not None and above_plan(area, result.permitted) is not None:
        return "above the plan", f"the plan permits an AUC of at most {result.permitted:.3f}"
    if crossing is not None:
        aimed, above = crossing.false_positive_rate, crossing.true_positive_rate
        return "above the plan", (
            f"the ROC crosses the plan's curve: where a false positive rate of {aimed:g} was aimed at, the true positive rate "
            f"is {above.value:.3f}, at least {above.low:.3f}, and the plan permits {crossing.permitted:.3f}"
        )
    found = ["the AUC"] if result.low > 0.5 else []
    for measure in result.metrics:
        rate = _rate_of(measure)
        if rate is None or measure.low is None or measure.value is None:
            continue
        highest = metrics.proportion(metrics.false_positives(non_members, rate), non_members).high or 1.0
        if measure.low > highest:
            found.append(f"the true positive rate at {rate:g}")
    if found:
        reason = "" if "the AUC" in found else f"{' and '.join(found)} is above chance, the AUC is not"
        return ("within the plan" if plan is not None else "leak"), reason
    if result.high < 0.5:
        return "found nothing", "the interval lies below 0.5: this attack's direction does not hold here, another's may"
    return "found nothing", "the interval contains 0.5"


def _rate_of(measure: Measure) -> float | None:
    """The false positive rate that a true positive rate belongs to; None for other figures."""
    head, _, rate = measure.name.partition("tpr_at_fpr_")
    return float(rate) if not head and rate else None


def _holds_chance(measure: Measure, chance: float) -> bool:
    """Whether chance is inside the interval, widened from 95% to the gate's confidence."""
    wide = metrics.widened(measure, GATE)
    return wide.low is None or wide.high is None or wide.low <= chance <= wide.high


def _named(measure: Measure, name: str) -> Measure:
    return dataclasses.replace(measure, name=name)


def _with(result: AttackResult, verdict: Verdict, reason: str) -> AttackResult:
    return dataclasses.replace(result, verdict=verdict, reason=reason)
