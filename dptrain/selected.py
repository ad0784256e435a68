"""A model that was chosen out of several: what its card says of the choice, and what it permits an attacker.

    selection = Selection(runs=Runs(distribution="geometric", mean=6), plans=(plan,), score_noise=6.3, ...)
    guarantee = selection.guarantee(plan)                 # of the chosen model, with a paragraph
    plan_of(card, "card.json")                            # its plan; a SelectedPlan, where the card tells of a selection

Everything here is public: which candidates there were, how K is distributed, how noisy the scores are. K itself, what the other
trainings gave and their scores are in no card; the guarantee is worth nothing to whoever knows them.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dptrain.errors import PlanError
from dptrain.plain import as_plain, from_plain
from dptrain.plan import Guarantee, PrivacyPlan
from dptrain.rounding import up
from dptrain.selection import CountedSelection, Runs, count

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from dptrain.accounting import TradeoffCurve

Scorer = Literal["held_out", "public"]
PROFILES, RENYI = (
    "Privacy profiles of private selection (after Koskela et al. 2024), pessimistic",
    "RDP of private selection (Papernot & Steinke 2022)",
)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How a model was chosen.

    Raises:
        PlanError: scores of private examples without noise, or plans that do not promise the same thing.
    """

    runs: Runs
    plans: tuple[PrivacyPlan, ...]
    """Of the candidates, each once."""
    candidates: tuple[str, ...]
    """What each changes of the recipe, such as ``optimizer.learning_rate=2``; each is drawn with the same probability."""
    scorer: Scorer
    score_noise: float
    """Standard deviation of the noise in a score, a count of which one unit changes at most 1; 0 where examples are public."""

    def __post_init__(self) -> None:
        if not self.plans or not self.candidates:
            raise PlanError("a selection is among no candidates; give at least one")
        if len({(plan.delta, plan.unit, plan.relation) for plan in self.plans}) > 1:
            raise PlanError("the candidates' plans differ in delta, unit or relation, and what is chosen could promise neither")
        noisy = math.isfinite(self.score_noise) and self.score_noise > 0
        if noisy != (self.scorer == "held_out"):
            raise PlanError(
                f"score_noise is {self.score_noise:g} and scores are taken on {self.scorer!r} examples; held-out examples are "
                "private, and their score needs noise; public ones need none"
            )

    def events(self, plans: tuple[PrivacyPlan, ...] | None = None) -> list["DpEvent"]:
        """What one training with its score releases, by candidates' plan.

        Both are charged by composition. A unit is trained on or held out by its own coin, and touches one of the two; charging
        the larger alone would do for it. But where classes are users, whose examples have coins of their own, a user touches
        both, and with a score's noise of a few examples the difference is small.
        """
        return [self.with_score(plan.event()) for plan in (self.plans if plans is None else plans)]

    def with_score(self, event: "DpEvent") -> "DpEvent":
        """A training's event and its score's."""
        from dp_accounting import ComposedDpEvent, GaussianDpEvent

        return ComposedDpEvent([event, GaussianDpEvent(self.score_noise)]) if self.score_noise else event

    def counted(self) -> CountedSelection:
        """ε of the chosen one."""
        plan = self.plans[0]
        return count(self.events(), self.runs, plan.delta, plan.relation)

    def curve(self) -> "TradeoffCurve":
        """What any test of one unit's presence can reach."""
        from dptrain.selection_profiles import profiles_of

        return profiles_of(self.events(), self.runs, self.plans[0].relation).curve()

    def guarantee(self, each: Guarantee) -> Guarantee:
        """Of the chosen model, from what one training of it promises."""
        counted = self.counted()
        by = (PROFILES, RENYI) if counted.by_profiles <= counted.by_renyi else (RENYI, PROFILES)
        return dataclasses.replace(
            each,
            epsilon=counted.epsilon,
            cross_check=max(counted.by_profiles, counted.by_renyi),
            accountant=by[0],
            cross_check_accountant=f"{by[1]}, upper bound",
            statement=self.statement(counted, each),
        )

    def statement(self, counted: CountedSelection, each: Guarantee) -> str:
        """ε as a paragraph, with what it assumes."""
        mean, shape = f"{self.runs.mean:g}", "" if self.runs.shape is None else f", shape {self.runs.shape:g}"
        how = f"{self.runs.distribution.replace('_', ' ')} with mean {mean}{shape}"
        scored = (
            f"the number of right answers on held-out private examples, of which one {each.unit} changes at most 1, plus "
            f"Gaussian noise of standard deviation {self.score_noise:g}, charged with each training by composition"
            if self.scorer == "held_out"
            else "the number of right answers on public examples, which costs nothing"
        )
        return (
            f"({up(counted.epsilon)}, {each.delta:g})-differential privacy for one {each.unit}, of a model that was chosen "
            f"out of several. A random number of trainings ({how}) was drawn without looking at the data; each drew one of "
            f"{len(self.candidates)} candidate{'s' if len(self.candidates) != 1 else ''} that were fixed beforehand, each as "
            f"likely as any other: {'; '.join(self.candidates)}. The one with the best score alone is released; its score is "
            f"{scored}. By {self.runs.theorem} of Papernot & Steinke 2022 (Hyperparameter Tuning with Rényi Differential "
            f"Privacy) the best of them has ε = {up(counted.by_renyi)}, and by its privacy profile, a proof that loses less, "
            f"{up(counted.by_profiles)}: the smaller one is stated. It holds as long as nobody sees what the others gave: "
            f"neither how many there were, nor their weights, scores or curves. Of a single training: {each.statement}"
        )


@dataclass(frozen=True, kw_only=True)
class SelectedPlan(PrivacyPlan):
    """The plan of a training that was chosen: it permits what the choice does, which is more."""

    selection: Selection

    def unit_curve(self) -> "TradeoffCurve":
        """The most that an attack on one unit's presence can reach."""
        return _curve(self.selection)

    def example_curve(self) -> "TradeoffCurve":
        """The same of one example; where the unit is the user, what is permitted of an exchange was not computed: all is."""
        return _permits_everything() if self.unit in ("user", "edge") else self.unit_curve()

    def edge_curve(self) -> "TradeoffCurve":
        """Nothing is said of edges."""
        return _permits_everything()

    def guarantee(self, steps: int | None = None, drawn: tuple[tuple[int, int], ...] | None = None) -> Guarantee:
        """Of the chosen model; what it began as, half trained, is not released and has none of its own."""
        each = PrivacyPlan.guarantee(self.alone(), steps, drawn)
        return self.selection.guarantee(each)

    def alone(self) -> PrivacyPlan:
        """Of one training."""
        return PrivacyPlan(**{item.name: getattr(self, item.name) for item in dataclasses.fields(PrivacyPlan)})


def plan_of(card: dict[str, Any], where: str) -> PrivacyPlan:
    """The plan that a release card states.

    Raises:
        CheckpointError: it states none that can be read.
    """
    plan, selection = from_plain(PrivacyPlan, card["plan"], where), selection_of(card, where)
    if selection is None:
        return plan
    given = {item.name: getattr(plan, item.name) for item in dataclasses.fields(PrivacyPlan)}
    return SelectedPlan(**given, selection=selection)


def selection_of(card: dict[str, Any], where: str) -> Selection | None:
    """How the card's model was chosen; None where it was not chosen out of several."""
    stated = card.get("selection")
    return None if stated is None else from_plain(Selection, stated, where)


def as_selected(card: dict[str, Any], selection: Selection) -> dict[str, Any]:
    """The card of one training as that of the chosen one; the same, where it is that already."""
    if card.get("selection") is not None:
        return card
    each = from_plain(Guarantee, card["guarantee"], "the release card")
    return {**card, "selection": as_plain(selection), "guarantee": as_plain(selection.guarantee(each))}


@functools.lru_cache(maxsize=16)
def _curve(selection: Selection) -> "TradeoffCurve":
    return selection.curve()


def _permits_everything() -> "TradeoffCurve":
    from dp_accounting import NonPrivateDpEvent

    from dptrain.accounting import tradeoff_curve

    return tradeoff_curve(NonPrivateDpEvent())
