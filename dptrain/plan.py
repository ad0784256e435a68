"""The privacy plan: everything that decides ε, said once.

Sampler, clipper, noise and accountants are built *from* a :class:`PrivacyPlan`; none of them takes a sampling rate, a
clipping norm, a noise multiplier or a step count of its own. A plan holds public facts alone: N, indices and examples
reach it only as arguments of a method.

    >>> plan = PrivacyPlan(sampling_rate=0.04, expected_batch_size=2400, steps=2250, clipping_norm=1.0, delta=1e-6)
    >>> plan = plan.calibrate(epsilon=8.0)          # the least noise for exactly these steps
    >>> round(plan.guarantee().epsilon, 2)
    8.0

The mechanism is DP-SGD (Abadi et al. 2016, "Deep Learning with Differential Privacy"): each step releases

    (Σ_{i in batch} g_i · min(1, C / ‖g_i‖) + N(0, (σ C)² I)) / expected batch size

with σ the noise multiplier and C the clipping norm. Dividing by the public *expected* batch size keeps the divisor free
of private facts.
"""

import dataclasses
import functools
import math
import warnings
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from dptrain.errors import PlanError
from dptrain.recipe import PrivacyConfig, Relation, Sampling

if TYPE_CHECKING:
    from dp_accounting import DpEvent

RELATIONS: dict[str, str] = {
    "add_or_remove_one": "adding or removing one {unit}",
    "zero_out_one": "blanking one {unit}, so that it contributes nothing",
}


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """The ε of a plan, as two independent accountants count it."""

    epsilon: float
    """Reported: the PRV accountant's upper end. Infinity where the plan promises nothing."""
    cross_check: float
    """The same plan by the PLD accountant."""
    delta: float
    accountant: str
    cross_check_accountant: str
    unit: str
    relation: str
    statement: str
    """ε as a paragraph, with its assumptions."""


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """How batches are drawn, what one example can contribute, how much noise is added, how often.

    Raises:
        PlanError: a number for which no ε could be stated, or δ not below 1/N.
    """

    sampling_rate: float
    """q, the probability that an example is in a batch. Public: never computed from the data."""
    expected_batch_size: float
    """What noisy sums are divided by. Public: q times a publicly known number of examples."""
    steps: int
    """Optimizer updates, whole."""
    clipping_norm: float
    """C, the most that one example can contribute, in L2 norm. Infinity clips nothing, and then nothing is promised."""
    delta: float
    noise_multiplier: float = 0.0
    """σ, the noise's standard deviation over C. 0 adds no noise, and then nothing is promised."""
    unit: str = "example"
    """Whose presence is hidden."""
    relation: Relation = "add_or_remove_one"
    """What makes two data sets neighbours."""
    sampling: Sampling = "poisson"
    noise: Literal["independent", "banded"] = "independent"
    """Fresh at each update, or correlated between updates so that it cancels in the weights."""
    bands: int = 1
    """Of banded noise: an example takes part at most once in so many updates."""

    def __post_init__(self) -> None:
        for name in ("sampling_rate", "expected_batch_size", "clipping_norm", "delta", "noise_multiplier"):
            value = getattr(self, name)
            _require(isinstance(value, Real) and not isinstance(value, bool), name, value, "a number")
        _require(0 < self.sampling_rate <= 1, "sampling_rate", self.sampling_rate, "a probability above 0, at most 1")
        positive = math.isfinite(self.expected_batch_size) and self.expected_batch_size > 0
        _require(positive, "expected_batch_size", self.expected_batch_size, "a finite number above 0")
        whole = isinstance(self.steps, int) and not isinstance(self.steps, bool) and self.steps >= 1
        _require(whole, "steps", self.steps, "a whole number from 1 up")
        _require(self.clipping_norm > 0, "clipping_norm", self.clipping_norm, "a number above 0, such as 1.0")
        noise = math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0
        _require(noise, "noise_multiplier", self.noise_multiplier, "a finite number from 0 up")
        _require(0 < self.delta < 1, "delta", self.delta, "a number above 0 and below 1/N, such as 1e-5")
        _require(self.relation in RELATIONS, "relation", self.relation, " or ".join(RELATIONS))
        _require(self.unit == "example", "unit", self.unit, "'example', the one unit that is built so far")
        if self.noise != "independent":
            raise PlanError(f"noise is {self.noise!r}; give 'independent', the one noise that a sampler accounts for so far")
        if self.noise_multiplier > 0 and math.isinf(self.clipping_norm):
            raise PlanError(
                f"noise_multiplier is {self.noise_multiplier} and clipping_norm is infinite: noise hides nothing that is "
                "unbounded; give a finite clipping_norm, such as 1.0"
            )
        from dptrain.sampling import (
            sampler_for,
        )  # a plan is known by its sampler; the sampler refuses what it cannot do

        sampler_for(self)
        if self.is_private:
            self.check_delta(self.public_examples)

    @classmethod
    def from_config(cls, config: PrivacyConfig, steps: int) -> "PrivacyPlan":
        """The plan that a recipe states, calibrated where it trains with noise.

        Raises:
            PlanError: a private recipe without a budget.
        """
        shared: dict[str, Any] = {
            item.name: getattr(config, item.name)
            for item in dataclasses.fields(cls)
            if item.name not in ("steps", "noise_multiplier", "clipping_norm", "noise", "bands")
        }
        norm = math.inf if config.mechanism == "none" else config.clipping_norm
        plan = cls(steps=steps, clipping_norm=norm, **shared)
        if config.mechanism != "gaussian":
            return plan
        if config.epsilon is None:
            raise PlanError("privacy.epsilon is not given; type a budget, such as --privacy.epsilon 8")
        return plan.calibrate(epsilon=config.epsilon)

    @property
    def public_examples(self) -> float:
        """The publicly stated number of examples that the plan implies. Not the private N."""
        return self.expected_batch_size / self.sampling_rate

    @property
    def is_private(self) -> bool:
        """Whether the plan promises anything: both clipping and noise."""
        return self.noise_multiplier > 0 and math.isfinite(self.clipping_norm)

    def check_delta(self, examples: float) -> None:
        """Refuses δ ≥ 1/N, for which publishing one random example whole would count as private; warns above 1/(10 N)."""
        if self.delta >= 1 / examples:
            raise PlanError(
                f"delta is {self.delta:g}, not below 1/N = {1 / examples:.3g}: such a δ would allow whole examples to be "
                f"published; give one below {1 / (10 * examples):.1e}"
            )
        if self.delta > 1 / (10 * examples):
            message = f"delta is {self.delta:g}, above 1/(10 N) = {1 / (10 * examples):.2g}; a smaller one is customary"
            warnings.warn(message, stacklevel=3)

    def event(self, steps: int | None = None, first: int = 0) -> "DpEvent":
        """What the updates ``first`` to ``steps - 1`` (all, if not given) release, as the sampler states it."""
        from dp_accounting import GaussianDpEvent, NonPrivateDpEvent

        from dptrain.sampling import sampler_for

        steps = self.steps if steps is None else steps
        if not 0 <= first <= steps:
            raise PlanError(f"the steps {first} to {steps} are no range; give whole numbers, the smaller first")
        if not self.is_private:
            return NonPrivateDpEvent()
        return sampler_for(self).event(GaussianDpEvent(self.noise_multiplier), steps, first)

    def guarantee(self, steps: int | None = None, drawn: tuple[tuple[int, int], ...] | None = None) -> Guarantee:
        """ε after ``steps`` updates (all, if not given), by PRV and cross-checked by PLD.

        Args:
            drawn: ranges of steps whose batches were drawn in one go, where a training was resumed.

        Raises:
            PlanError: the two accountants disagree.
        """
        steps = self.steps if steps is None else steps
        return _guarantee(self, steps, ((0, steps),) if drawn is None else drawn)

    def calibrate(self, *, epsilon: float) -> "PrivacyPlan":
        """This plan with the least noise for which exactly its steps spend at most ``epsilon``."""
        if not epsilon > 0:
            raise PlanError(f"epsilon is {epsilon}; give a number above 0, such as 8, or inf for no guarantee")
        if math.isinf(epsilon):
            return dataclasses.replace(self, noise_multiplier=0.0)
        if math.isinf(self.clipping_norm):
            raise PlanError(f"epsilon is {epsilon:g} and clipping_norm is infinite; give a finite one, such as 1.0")
        return dataclasses.replace(self, noise_multiplier=_calibrated(self, epsilon))

    def permitted_true_positive_rate(self, false_positive_rate: float) -> float:
        """The most that any membership attack can reach at this false positive rate; see ``accounting.permitted``."""
        from dptrain.accounting import tradeoff_curve

        return tradeoff_curve(self.event(), self.relation).true_positive_rate(false_positive_rate)

    def permitted_auc(self) -> float:
        """The largest area under the ROC that any membership attack can reach."""
        from dptrain.accounting import tradeoff_curve

        return tradeoff_curve(self.event(), self.relation).auc()


def _require(holds: bool, name: str, given: object, accepted: str) -> None:
    if not holds:
        raise PlanError(f"{name} is {given!r}; give {accepted}")


@functools.lru_cache(maxsize=256)
def _guarantee(plan: PrivacyPlan, steps: int, drawn: tuple[tuple[int, int], ...]) -> Guarantee:
    from dp_accounting import ComposedDpEvent

    from dptrain import accounting

    event = ComposedDpEvent([plan.event(last, first) for first, last in drawn])
    epsilon = accounting.epsilon_prv(event, plan.delta)
    cross_check = accounting.epsilon_pld(event, plan.delta, plan.relation)
    accounting.check_agreement(epsilon, cross_check)
    return Guarantee(
        epsilon=epsilon,
        cross_check=cross_check,
        delta=plan.delta,
        accountant="PRV (Gopi et al. 2021), upper end",
        cross_check_accountant="PLD (Doroshenko et al. 2022), pessimistic",
        unit=plan.unit,
        relation=plan.relation,
        statement=_statement(plan, epsilon, cross_check, steps),
    )


@functools.lru_cache(maxsize=256)
def _calibrated(plan: PrivacyPlan, epsilon: float) -> float:
    """The smallest σ, to one part in ten thousand, whose ε by PRV is at most ``epsilon``; ε falls as σ grows."""
    from dptrain import accounting

    def spent(noise_multiplier: float) -> float:
        candidate = dataclasses.replace(plan, noise_multiplier=noise_multiplier)
        return accounting.epsilon_prv(candidate.event(), plan.delta)

    high = 1.0
    # RDP leads to where PRV is at ease; its orders end before small budgets, so PRV takes over at 2.
    while accounting.epsilon_rdp(dataclasses.replace(plan, noise_multiplier=high).event(), plan.delta) > max(epsilon, 2.0):
        high *= 1.5
    while spent(high) > epsilon:
        high *= 1.25
        if high > 1e6:
            raise PlanError(f"no noise multiplier below a million reaches ε = {epsilon:g}; give a larger budget")
    low = high / 1.25
    while low > 1e-3 and spent(low) <= epsilon:
        high, low = low, low / 1.25
    while high / low > 1 + 1e-4:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spent(middle) <= epsilon else (middle, high)
    return high


def _statement(plan: PrivacyPlan, epsilon: float, cross_check: float, steps: int) -> str:
    if not plan.is_private:
        lacking = "gradients were not clipped" if math.isinf(plan.clipping_norm) else "no noise was added"
        return f"No differential privacy: {lacking}, so nothing is promised to any {plan.unit} (ε = ∞)."
    change = RELATIONS[plan.relation].format(unit=plan.unit)
    drawn = {
        "poisson": f"each batch holds each {plan.unit} with probability {plan.sampling_rate:g}, independently (Poisson)",
        "balls_in_bins": f"each epoch puts each {plan.unit} into one of {round(1 / plan.sampling_rate)} batches at random "
        "and claims no amplification for it",
    }[plan.sampling]
    return (
        f"({epsilon:.2f}, {plan.delta:g})-differential privacy for one {plan.unit}: {change} changes the probability of "
        f"any outcome by a factor of at most e^{epsilon:.2f}, except with probability {plan.delta:g}. It covers the "
        f"weights after each of {steps} updates together. Each update sums gradients clipped to an L2 norm of "
        f"{plan.clipping_norm:g} and adds Gaussian noise of {plan.noise_multiplier:.4g} times that norm; {drawn}; sums "
        f"are divided by the public expected batch size {plan.expected_batch_size:g}. Counted by the PRV accountant "
        f"({epsilon:.4f}) and cross-checked by PLD ({cross_check:.4f}). It assumes that one {plan.unit} is all that one "
        f"person contributed, that the batches drawn stay secret, and exact real arithmetic: rounding in floating point "
        f"is not part of the proof."
    )
