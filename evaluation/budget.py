"""What a budget is, before anything is trained: σ, ε or steps, which batch size, and what an attacker could gain at most.

    plan = with_noise_for(PrivacyPlan(sampling_rate=1024 / 60000, expected_batch_size=1024, steps=1172, ...), epsilon=3.0)
    outlook = look_ahead(plan, epsilon=3.0)
    print(outlook.gains[0])          # TPR at 0.1% FPR: what guessing gets, and the most that any attack gets

No data are read: all of it follows from the plan's public numbers. ``dptrain budget`` shows it.

**Which batch size.** One update adds noise of σ Δ / B to each coordinate of the mean gradient, Δ being the sensitivity and B
the expected batch size. In a direction in which all clipped gradients agree the signal is C, so that T updates together have a
signal-to-noise ratio of √T C B / (σ Δ). With batches of all N examples it is N μ C / Δ, with the μ for which μ-Gaussian
differential privacy is (ε, δ) (Dong, Roth, Su 2022, "Gaussian Differential Privacy"), whatever T is. What sampled batches have
of that,

    share = q √T / (σ μ),     q = B / N,

depends on neither C nor the number of weights. It falls where σ is far below 1, for there amplification by sampling is weak.
The table's noise multipliers keep to the budget; they spend 99% of it or more.

**What an attacker gains at most**: the plan's trade-off curve (:mod:`dptrain.accounting`) at fixed false positive rates, the
area under it, the membership advantage max (TPR − FPR) = δ(0) (Yeom et al. 2018), and the reconstruction bound
(:mod:`evaluation.inversion.bound`; Balle et al. 2022, Hayes et al. 2023).

**Several people together.** k people who are all there or all not: where each is in a batch by a coin of its own, one update is
the pair of N(0, σ²) and a mixture of N(j, σ²) whose weights are binomial (Ganesh 2024, "Tight Group-Level DP Guarantees for
DP-SGD with Sampling via Mixture of Gaussians Mechanisms"), counted by PLD in both directions.
"""

import dataclasses
import functools
import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom

from dptrain import accounting
from dptrain.errors import PlanError
from dptrain.plan import Guarantee, PrivacyPlan
from evaluation.inversion.bound import reconstruction_bound

FALSE_POSITIVE_RATES = (0.001, 0.01)
CANDIDATES = (10, 100, 1000)
STEP_FACTORS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
NOISE_FACTORS = (0.7, 0.85, 1.0, 1.25, 1.6, 2.5, 4.0)
TABLE_FACTORS = (1 / 4, 1, 4)
MOST_STEPS = 10_000_000
MUCH_THE_SAME, NOTICEABLE = 1.1, 0.05
"""Of costs, relative to the plan's; of shares of the signal-to-noise."""
COARSE = 1e-3
"""Width, in ε, of the losses of one update for several people; rounding is upward. At 1e-4 it takes ten times as long."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Of a curve: ε where one number of the plan is another."""

    at: float
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A batch size and a number of steps that spend the same ε."""

    expected_batch_size: float
    steps: int
    epochs: float
    """How often an example is read on average."""
    noise_multiplier: float
    noise_of_mean: float
    """σ Δ / (B C): the noise of one update in a coordinate of the mean gradient, in clipping norms."""
    signal_to_noise: float
    """√T C B / (σ Δ): of all updates together, where all clipped gradients agree."""
    share: float
    """Of what batches of all examples would have under the same ε."""
    cost: float
    """Examples read, relative to the plan's."""
    planned: str = ""
    """``this plan`` on the plan's own row."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What an attacker gets by guessing, and the most that any attack on one unit gets."""

    what: str
    guessing: float
    permitted: float


@dataclass(frozen=True, kw_only=True)
class Household:
    """ε, at the plan's δ, for so many people who are all there or all not."""

    people: int
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """All that follows from a plan."""

    plan: PrivacyPlan
    examples: float
    guarantee: Guarantee
    over_steps: tuple[Point, ...]
    """ε of the same plan with other numbers of steps."""
    over_noise: tuple[Point, ...]
    """ε of the same plan with other noise multipliers."""
    counted_by: str
    """The accountant of the curves and of the table."""
    choices: tuple[Choice, ...]
    advice: tuple[str, ...]
    gains: tuple[Gain, ...]
    curve: tuple[tuple[float, float], ...]
    """False positive rate, and the largest true positive rate that the plan permits."""
    households: tuple[Household, ...]
    notes: tuple[str, ...]


# -- solving ----------------------------------------------------------------------------------------------------------


def steps_of_epochs(epochs: float, sampling_rate: float) -> int:
    """Whole updates in which an example is drawn so often on average, to the nearest: 90 epochs at q = 0.04 are 2250."""
    return max(1, round(epochs / sampling_rate))


def with_noise_for(plan: PrivacyPlan, epsilon: float) -> PrivacyPlan:
    """The plan with the least noise for exactly its steps.

    Raises:
        PlanError: ε is infinite or not above 0, or no noise reaches it.
    """
    if math.isinf(epsilon):
        raise PlanError("epsilon is inf, for which nothing is spent and nothing is planned; give a number, such as 8")
    return plan.calibrate(epsilon=epsilon)


def with_steps_for(plan: PrivacyPlan, epsilon: float) -> PrivacyPlan:
    """The plan with the most steps that its noise allows within ε; what its ``steps`` are is not read.

    Raises:
        PlanError: not even one step is within ε, or any number is.
    """
    if not plan.is_private:
        raise PlanError(
            f"noise_multiplier is {plan.noise_multiplier:g}, which spends any budget; give one above 0, such as 1.0"
        )

    def spent(steps: int) -> float:
        return _counted(dataclasses.replace(plan, steps=steps))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "delta is")
        if spent(1) > epsilon:
            raise PlanError(f"one step alone spends ε = {spent(1):.3g}, more than {epsilon:g}; give more noise or a larger ε")
        low, high = 1, 2
        while spent(high) <= epsilon:
            low, high = high, high * 2
            if high > MOST_STEPS:
                raise PlanError(f"more than {MOST_STEPS:,} steps are within ε = {epsilon:g}; give steps, or less noise")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if spent(middle) <= epsilon else (low, middle)
    return dataclasses.replace(plan, steps=low)


def _counted(plan: PrivacyPlan) -> float:
    """ε as it is reported, without its cross-check; a bound by RDP where that takes too long to draw a curve of."""
    event = plan.event()
    if accounting.is_pure(event) or accounting.prv_can_count(event):
        return accounting.epsilon(event, plan.delta, plan.relation)
    return accounting.epsilon_rdp(event, plan.delta)


# -- looking ahead ----------------------------------------------------------------------------------------------------


def look_ahead(plan: PrivacyPlan, people: tuple[int, ...] = ()) -> Outlook:
    """Everything about a plan that has its noise.

    Args:
        people: sizes of households for which ε is asked as well.

    Raises:
        PlanError: the plan promises nothing, or δ is not below 1/N.
    """
    if not plan.is_private:
        raise PlanError("this plan promises nothing: it needs noise_multiplier above 0 and a finite clipping_norm")
    guarantee = plan.guarantee()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "delta is")  # the plan itself has said it
        choices = table(plan, guarantee.epsilon)
        return Outlook(
            plan=plan,
            examples=plan.public_examples,
            guarantee=guarantee,
            over_steps=_over_steps(plan),
            over_noise=_over_noise(plan),
            counted_by=_counter(plan),
            choices=choices,
            advice=advice(choices, guarantee.epsilon),
            gains=gains(plan),
            curve=_curve(plan),
            households=tuple(Household(people=count, epsilon=household(plan, count)) for count in people),
            notes=_notes(plan),
        )


def _counter(plan: PrivacyPlan) -> str:
    event = plan.event()
    if accounting.is_pure(event):
        return "pure ε"
    return "PRV" if accounting.prv_can_count(event) else "RDP, an upper bound above the ε that is reported"


def _over_steps(plan: PrivacyPlan) -> tuple[Point, ...]:
    counts = sorted({max(1, round(plan.steps * factor)) for factor in STEP_FACTORS})
    return tuple(Point(at=count, epsilon=_counted(dataclasses.replace(plan, steps=count))) for count in counts)


def _over_noise(plan: PrivacyPlan) -> tuple[Point, ...]:
    noises = [plan.noise_multiplier * factor for factor in NOISE_FACTORS]
    return tuple(Point(at=noise, epsilon=_counted(dataclasses.replace(plan, noise_multiplier=noise))) for noise in noises)


def gains(plan: PrivacyPlan) -> tuple[Gain, ...]:
    """What an attacker gets at most, beside what guessing gets."""
    curve = plan.unit_curve()
    found = [
        Gain(what=f"TPR at {100 * rate:g}% FPR", guessing=rate, permitted=curve.true_positive_rate(rate))
        for rate in FALSE_POSITIVE_RATES
    ]
    found.append(Gain(what="AUC", guessing=0.5, permitted=curve.auc()))
    advantage = float(curve.deltas[0]) if len(curve.deltas) else 1.0  # δ(0), the total variation distance
    found.append(Gain(what="membership advantage, TPR − FPR", guessing=0.0, permitted=advantage))
    for count in CANDIDATES:
        named = Gain(
            what=f"reconstruction, one of {count:,} candidates",
            guessing=1 / count,
            permitted=reconstruction_bound(plan, 1 / count),
        )
        found.append(named)
    return tuple(found)


def _curve(plan: PrivacyPlan) -> tuple[tuple[float, float], ...]:
    rates = np.geomspace(1e-4, 1, 41)
    return tuple(zip(rates.tolist(), plan.permitted_true_positive_rates(rates).tolist(), strict=True))


def household(plan: PrivacyPlan, people: int) -> float:
    """ε, at the plan's δ, for so many people who are all there or all not, each of whom is one of the plan's units.

    Raises:
        PlanError: it is known here for Poisson batches with independent noise, where one unit is added or removed.
    """
    if people < 1:
        raise PlanError(f"household is {people}; give a whole number from 1 up")
    known = (plan.sampling, plan.noise, plan.relation) == ("poisson", "independent", "add_or_remove_one")
    if not known or plan.unit not in ("example", "user") or plan.occurrences:
        raise PlanError(
            "the ε of a household is known for Poisson batches of examples or users with independent noise, under "
            "add_or_remove_one; leave --household out, or give those"
        )
    from dp_accounting.pld.privacy_loss_distribution import from_mixture_gaussian_mechanism

    together = [float(count) for count in range(people + 1)]
    weights = [float(binom.pmf(count, people, plan.sampling_rate)) for count in range(people + 1)]
    kept = [(shift, weight) for shift, weight in zip(together, weights, strict=True) if weight > 0]
    losses = from_mixture_gaussian_mechanism(
        plan.noise_multiplier,
        [shift for shift, _ in kept],
        [weight for _, weight in kept],
        value_discretization_interval=COARSE,
    )
    return float(losses.self_compose(plan.steps).get_epsilon_for_delta(plan.delta))


# -- which batch size -------------------------------------------------------------------------------------------------


def table(plan: PrivacyPlan, epsilon: float) -> tuple[Choice, ...]:
    """Batch sizes and numbers of steps around the plan's under the same ε; none where batches are not free to choose."""
    if plan.unit not in ("example", "user") or plan.sampling not in ("poisson", "balls_in_bins"):
        return ()
    examples, own = plan.public_examples, plan.expected_batch_size
    largest = own * max(TABLE_FACTORS)
    shift = min(1.0, examples / largest)  # of large batches the table reaches down from all examples
    sizes = sorted({min(examples, own * factor * shift) for factor in TABLE_FACTORS} | {own})
    counts = sorted({max(1, round(plan.steps * factor)) for factor in TABLE_FACTORS})
    mu = full_batch_mu(epsilon, plan.delta)
    found = (_choice(plan, epsilon, mu, size, steps) for size in sizes for steps in counts)
    return tuple(choice for choice in found if choice is not None)


def _choice(plan: PrivacyPlan, epsilon: float, mu: float, size: float, steps: int) -> Choice | None:
    own = size == plan.expected_batch_size and steps == plan.steps
    rate = min(1.0, size / plan.public_examples)
    if plan.sampling == "balls_in_bins" and not own and abs(1 / rate - round(1 / rate)) > 1e-9:
        return None
    other = dataclasses.replace(plan, sampling_rate=rate, expected_batch_size=size, steps=steps)
    own_limit, limit = (_limit_noise(one.sampling_rate, one.steps, mu) for one in (plan, other))
    noise = plan.noise_multiplier if own else noise_near(other, epsilon, plan.noise_multiplier * limit / own_limit)
    spread = noise * plan.sensitivity / (size * plan.clipping_norm)
    return Choice(
        expected_batch_size=size,
        steps=steps,
        epochs=steps * rate,
        noise_multiplier=noise,
        noise_of_mean=spread,
        signal_to_noise=math.sqrt(steps) / spread,
        share=rate * math.sqrt(steps) / (noise * mu),
        cost=steps * size / (plan.steps * plan.expected_batch_size),
        planned="this plan" if own else "",
    )


def noise_near(plan: PrivacyPlan, epsilon: float, guess: float) -> float:
    """A noise multiplier that keeps to ε and spends 99% of it or more: in fewer calls of the accountant than a plan's own
    calibration takes, which goes to one part in ten thousand."""

    def excess(logarithm: float) -> float:
        return math.log(max(_counted(dataclasses.replace(plan, noise_multiplier=math.exp(logarithm))), 1e-9) / epsilon)

    at, slope = math.log(guess), -1.3  # of the logarithm of ε over that of σ; later what was seen of it
    found = excess(at)
    for _ in range(12):
        if -0.01 <= found <= 0:
            return math.exp(at)
        step = min(max((-0.005 - found) / slope, -0.7), 0.7)
        after = excess(at + step)
        seen = (after - found) / step
        at, found, slope = at + step, after, seen if -10 < seen < -0.1 else slope
    return plan.calibrate(epsilon=epsilon).noise_multiplier


def _limit_noise(rate: float, steps: int, mu: float) -> float:
    """Where to begin to look for σ: the limit for many small steps, μ² = q² T (exp(1/σ²) − 1) (Bu et al. 2020, "Deep Learning
    with Gaussian Differential Privacy"). It understates ε and is no guarantee; the accountant has the last word."""
    return 1 / math.sqrt(math.log1p(mu**2 / (rate**2 * steps)))


@functools.lru_cache(maxsize=64)
def full_batch_mu(epsilon: float, delta: float) -> float:
    """The μ for which μ-Gaussian differential privacy is (ε, δ)."""
    root = brentq(lambda mu: accounting.gdp_mu_to_epsilon(mu, delta) - epsilon, 1e-6, 1e3, xtol=1e-10)
    return float(root)  # pyright: ignore[reportArgumentType]


def advice(choices: tuple[Choice, ...], epsilon: float) -> tuple[str, ...]:
    """Two sentences: what this plan's batch size is worth, and which of the table's is worth more."""
    own = next((choice for choice in choices if choice.planned), None)
    if own is None:
        return ()
    said = (
        f"Batches of {own.expected_batch_size:,.6g} in {own.steps:,} steps have {100 * own.share:.0f}% of the signal-to-noise "
        f"that batches of all examples would have under ε = {epsilon:.3g}."
    )
    free = [choice for choice in choices if choice.cost <= MUCH_THE_SAME]
    best, most = max(free, key=lambda choice: choice.share), max(choice.share for choice in choices)
    if best.share > own.share + NOTICEABLE:
        better = (
            f"For much the same computation {best.expected_batch_size:,.6g} × {best.steps:,} steps have "
            f"{100 * best.share:.0f}%, where so few steps are enough to learn, which training without noise shows."
        )
    elif most > own.share + NOTICEABLE:
        near = min((choice for choice in choices if choice.share >= most - NOTICEABLE), key=lambda choice: choice.cost)
        better = (
            f"More is had for more computation alone: {near.expected_batch_size:,.6g} × {near.steps:,} steps have "
            f"{100 * near.share:.0f}% for {near.cost:.3g} times the cost."
        )
    else:
        better = "Nothing in the table has noticeably more: what is left to gain is in examples, in ε and in the model."
    return said, better


def _notes(plan: PrivacyPlan) -> tuple[str, ...]:
    """What a reader must know of the figures."""
    size = f"{plan.public_examples:,.6g}"
    notes = [
        f"N = {size} was taken as public: sampling rate and expected batch size go into the plan, which is published with the "
        "model. Where the number of examples is itself private, give a public figure near it, never the count."
    ]
    if plan.unit == "user":
        notes.append(f"The unit is the user: N = {size} and the batch size are numbers of users, not of examples.")
    notes.append(
        "Bounds hold for whoever knows every example but one and sees the weights after every step; they say nothing of what "
        "is learned about everyone alike."
    )
    return tuple(notes)
