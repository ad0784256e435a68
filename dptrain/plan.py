"""The privacy plan: everything that decides ε, said once.

Sampler, clipper, noise and accountants are built *from* a :class:`PrivacyPlan`; none of them takes a sampling rate, a
clipping norm, a noise multiplier or a step count of its own. A plan holds public facts alone: N, indices and examples
reach it only as arguments of a method.

    >>> plan = PrivacyPlan(sampling_rate=0.04, expected_batch_size=2400, steps=2250, clipping_norm=1.0, delta=1e-6)
    >>> plan = plan.calibrate(epsilon=8.0)          # the least noise for exactly these steps
    >>> round(plan.guarantee().epsilon, 2)
    8.0

The mechanism is DP-SGD (Abadi et al. 2016, "Deep Learning with Differential Privacy"): each step releases

    (Σ_{i in batch} g_i · min(1, C / ‖g_i‖) + N(0, (σ Δ)² I)) / expected batch size

with C the clipping norm, σ the noise multiplier and Δ the sensitivity, the most by which neighbours' sums differ in L2 norm:
C, and 2 C where one example is replaced by another (``replace_one``). Dividing by the public *expected* batch size keeps the
divisor free of private facts. Where the unit is the user, i counts users, and g_i is one gradient made of a user's examples.

Of a graph the unit is a node or an edge, and the roster of nodes is public (``zero_out_one``): *blanking a node* takes its
features, its label and all its edges; *blanking an edge* removes it. What is released before the first update, sums over
neighbours or a perturbed graph (:mod:`dptrain.graph`), is part of the plan and of its ε:

    >>> nodes = PrivacyPlan(
    ...     unit="node", relation="zero_out_one", max_degree=10, aggregations=2, aggregation_noise=2.0,
    ...     sampling_rate=0.25, expected_batch_size=340, steps=100, clipping_norm=1.0, delta=1e-5, noise_multiplier=4.0,
    ... )
    >>> [type(part).__name__ for part in nodes.event().events]
    ['SelfComposedDpEvent', 'SelfComposedDpEvent']

Under ``edge`` updates read edges through that release alone: they are neither clipped nor noised, and cost nothing.
"""

import dataclasses
import functools
import hashlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from dptrain.errors import PlanError, unknown_name
from dptrain.plain import as_plain
from dptrain.recipe import Clipping, EdgeRelease, Noise, PrivacyConfig, Relation, Sampling, Unit
from dptrain.statement import RELATIONS, statement

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from dptrain.accounting import TradeoffCurve


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """The ε of a plan, as two independent accountants count it."""

    epsilon: float
    """Reported, by ``accountant``: PRV's upper end, or PLD where PRV cannot count. Infinity where nothing is promised."""
    cross_check: float
    """The same plan by ``cross_check_accountant``: PLD, which must agree, or RDP, which must lie above."""
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
    """C, the most that one example can contribute, in L2 norm. Infinity clips nothing, and then nothing is promised, except
    to an ``edge``, under which updates are never clipped."""
    delta: float
    noise_multiplier: float = 0.0
    """σ, the noise's standard deviation over the sensitivity: C, or 2 C under ``replace_one``. 0 adds no noise, and then
    nothing is promised."""
    unit: Unit = "example"
    """Whose presence is hidden."""
    max_examples_per_unit: int | None = None
    """Of ``user``: the most examples of one user that are used each time they are drawn."""
    relation: Relation = "add_or_remove_one"
    """What makes two data sets neighbours."""
    sampling: Sampling = "poisson"
    max_batch_size: int | None = None
    """Of ``truncated_poisson``: the most examples in a batch."""
    max_examples: int | None = None
    """Public. Of ``truncated_poisson``, an upper bound on N; of ``fixed_size``, N itself."""
    clipping: Clipping = "flat"
    """How one unit's gradient is brought to a norm of at most C; the sensitivity is the same for each."""
    automatic_stability: float = 0.01
    """γ of ``automatic`` clipping, g · C / (‖g‖ + γ) (Bu et al. 2023, "Automatic Clipping")."""
    noise: Noise = "independent"
    """Whether steps have noise of their own, or share it over ``bands`` steps."""
    bands: int = 1
    """Of ``cyclic_poisson``: the number of groups that take turns, and the bands of ``banded`` noise."""
    max_degree: int | None = None
    """Of ``node``: D, the most edges of a node in the graph that is trained on. Others are left out beforehand."""
    aggregations: int = 0
    """Of ``node`` and ``edge``: noised sums over neighbours, one a hop, that are released before the first update."""
    aggregation_noise: float = 1.0
    """Their noise multiplier over that of the updates: σ_a = aggregation_noise · noise_multiplier."""
    occurrences: int = 0
    """Of ``node``: in how many examples of other nodes one node's features and edges are read, at most. One hop is proved, a
    node's neighbours reading it, so that it is at most ``max_degree``."""
    edge_release: EdgeRelease = "none"
    """Of ``edge``: how the graph is perturbed, once, before the first update. Its ε is 1 / noise_multiplier."""

    def __post_init__(self) -> None:
        for name in ("sampling_rate", "expected_batch_size", "clipping_norm", "delta", "noise_multiplier"):
            value = getattr(self, name)
            _require(isinstance(value, Real) and not isinstance(value, bool), name, value, "a number")
        _require(0 < self.sampling_rate <= 1, "sampling_rate", self.sampling_rate, "a probability above 0, at most 1")
        positive = math.isfinite(self.expected_batch_size) and self.expected_batch_size > 0
        _require(positive, "expected_batch_size", self.expected_batch_size, "a finite number above 0")
        _require(_is_whole(self.steps), "steps", self.steps, "a whole number from 1 up")
        _require(self.clipping_norm > 0, "clipping_norm", self.clipping_norm, "a number above 0, such as 1.0")
        noise = math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0
        _require(noise, "noise_multiplier", self.noise_multiplier, "a finite number from 0 up")
        _require(0 < self.delta < 1, "delta", self.delta, "a number above 0 and below 1/N, such as 1e-5")
        _require(self.relation in RELATIONS, "relation", self.relation, " or ".join(RELATIONS))
        _check_choices(self)
        if self.noise_multiplier > 0 and math.isinf(self.clipping_norm) and self.unit != "edge":
            raise PlanError(
                f"noise_multiplier is {self.noise_multiplier} and clipping_norm is infinite: noise hides nothing that is "
                "unbounded; give a finite clipping_norm, such as 1.0"
            )
        from dptrain.sampling import sampler_for

        sampler_for(self)  # a plan is known by its sampler; the sampler refuses what it cannot do
        if self.is_private and self.unit not in ("node", "edge"):  # how many there are only the graph can say
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
            if item.name not in ("steps", "noise_multiplier", "clipping_norm")
        }
        norm = math.inf if config.mechanism == "none" or config.unit == "edge" else config.clipping_norm
        plan = cls(steps=steps, clipping_norm=norm, **shared)
        if config.mechanism != "gaussian":
            return plan
        if config.epsilon is None:
            raise PlanError("privacy.epsilon is not given; type a budget, such as --privacy.epsilon 8")
        return plan.calibrate(epsilon=config.epsilon)

    @property
    def public_examples(self) -> float:
        """The publicly stated number of examples (of units) that the plan implies. Not the private N. Under ``edge``, nodes."""
        return self.expected_batch_size / self.sampling_rate

    @property
    def sensitivity(self) -> float:
        """The most, in L2 norm, that neighbours can differ in one sum: what σ multiplies."""
        return 2 * self.clipping_norm if self.relation == "replace_one" else self.clipping_norm

    @property
    def is_private(self) -> bool:
        """Whether the plan promises anything: both clipping and noise; or under ``edge``, noise in what is released first."""
        if self.unit == "edge":
            return self.noise_multiplier > 0 and (self.aggregations > 0 or self.edge_release != "none")
        return self.noise_multiplier > 0 and self.clips

    @property
    def clips(self) -> bool:
        """Whether what one unit adds to an update is clipped."""
        return math.isfinite(self.clipping_norm)

    @property
    def noises_updates(self) -> bool:
        """Whether updates are noised: in every private plan, except one for an ``edge``."""
        return self.is_private and self.unit != "edge"

    def check_delta(self, examples: float) -> None:
        """Refuses δ ≥ 1/N, for which publishing one random example whole would count as private; warns above 1/(10 N).

        Args:
            examples: the number of units. Under ``node`` and ``edge``, of all nodes or edges, labelled or not: whoever has
                the graph calls this, as no plan knows it.
        """
        if self.delta >= 1 / examples:
            raise PlanError(
                f"delta is {self.delta:g}, not below 1/N = {1 / examples:.3g}: such a δ would allow whole examples to be "
                f"published; give one below {1 / (10 * examples):.1e}"
            )
        if self.delta > 1 / (10 * examples):
            message = f"delta is {self.delta:g}, above 1/(10 N) = {1 / (10 * examples):.2g}; a smaller one is customary"
            warnings.warn(message, stacklevel=3)

    def check_batch_size(self, units: int) -> None:
        """Warns where the expected batch size is not what is drawn: noise and step size would be off by as much.

        It costs no privacy, as what sums are divided by is public, and so it is no error.

        Args:
            units: the private number of users; the warning is for whoever trains, and part of no release.
        """
        drawn = self.sampling_rate * units
        if self.unit not in ("user", "example") or drawn / 2 <= self.expected_batch_size <= 2 * drawn:
            return
        if self.unit == "user":
            message = (
                f"expected_batch_size is {self.expected_batch_size:g} and unit is 'user', of whom {drawn:.4g} are drawn on "
                "average: sums over users are divided by it, so give the number of users in a batch, not of examples"
            )
        else:
            message = (
                f"expected_batch_size is {self.expected_batch_size:g} and {drawn:.4g} examples are drawn on average, "
                f"sampling_rate {self.sampling_rate:g} of {units}: sums are divided by it, so that every step is "
                f"{drawn / self.expected_batch_size:.2g} times as long as it should be; give a public, round number near "
                f"what is drawn, such as {float(f'{drawn:.1g}'):g}"
            )
        warnings.warn(message, stacklevel=3)

    def check_examples(self, examples: int) -> None:
        """Refuses a data set of another size than the plan states, where ε rests on it.

        Args:
            examples: the private number of units.
        """
        if self.sampling == "fixed_size" and examples != self.max_examples:
            raise PlanError(
                f"max_examples is {self.max_examples} with fixed_size, and the data set holds {examples} examples; ε holds for "
                "exactly the number stated, so give the public number of examples, or sampling 'poisson' where it is private"
            )
        if self.sampling == "truncated_poisson" and examples > (self.max_examples or 0):
            raise PlanError(
                f"max_examples is {self.max_examples}, and the data set holds {examples} examples; give a public upper bound "
                "that the data set cannot exceed"
            )

    def event(self, steps: int | None = None, first: int = 0) -> "DpEvent":
        """What the updates ``first`` to ``steps - 1`` (all, if not given) release, and what was released before the first one.

        That is released once and kept with the model's state: a training that is resumed later has it already.
        """
        from dp_accounting import ComposedDpEvent, NoOpDpEvent

        updates = self.update_event(steps, first)
        before = self._release_event() if first == 0 and (self.steps if steps is None else steps) > 0 else NoOpDpEvent()
        return updates if isinstance(before, NoOpDpEvent) else ComposedDpEvent([before, updates])

    def update_event(self, steps: int | None = None, first: int = 0) -> "DpEvent":
        """What the updates alone release, as the sampler states it. Under ``edge`` that is nothing."""
        from dp_accounting import GaussianDpEvent, NonPrivateDpEvent, NoOpDpEvent

        from dptrain.sampling import sampler_for

        steps = self.steps if steps is None else steps
        if not 0 <= first <= steps:
            raise PlanError(f"the steps {first} to {steps} are no range; give whole numbers, the smaller first")
        if not self.is_private:
            return NonPrivateDpEvent()
        if not self.noises_updates:
            return NoOpDpEvent()
        return sampler_for(self).event(GaussianDpEvent(self.noise_multiplier), steps, first)

    def _release_event(self) -> "DpEvent":
        """What is released before the first update."""
        from dp_accounting import GaussianDpEvent, NoOpDpEvent, SelfComposedDpEvent

        from dptrain.dominating import PureDpEvent

        if not self.is_private:
            return NoOpDpEvent()  # the updates say already that nothing is promised
        if self.edge_release != "none":
            return PureDpEvent(1 / self.noise_multiplier)
        if self.aggregations:
            return SelfComposedDpEvent(GaussianDpEvent(self.aggregation_noise * self.noise_multiplier), self.aggregations)
        return NoOpDpEvent()

    def guarantee(self, steps: int | None = None, drawn: tuple[tuple[int, int], ...] | None = None) -> Guarantee:
        """ε after ``steps`` updates (all, if not given), by two accountants; see ``accounting.count``.

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
        if self.unit != "edge" and not self.clips:
            raise PlanError(f"epsilon is {epsilon:g} and clipping_norm is infinite; give a finite one, such as 1.0")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "delta is")  # each noise that is tried is a plan; the one returned speaks
            noise_multiplier = _calibrated(self, epsilon)
        return dataclasses.replace(self, noise_multiplier=noise_multiplier)

    def permitted_true_positive_rate(self, false_positive_rate: float) -> float:
        """The most that any attack on one unit's membership can reach at this false positive rate; see ``accounting``."""
        return float(self.permitted_true_positive_rates(np.array([float(false_positive_rate)]))[0])

    def permitted_true_positive_rates(self, false_positive_rates: np.ndarray) -> np.ndarray:
        """The same at several false positive rates, ``[rates]`` to ``[rates]``."""
        return self.unit_curve().true_positive_rates(false_positive_rates)

    def permitted_auc(self) -> float:
        """The largest area under the ROC that any attack on one unit's membership can reach."""
        return self.unit_curve().auc()

    def unit_curve(self) -> "TradeoffCurve":
        """The most that any attack on one unit's membership can reach, at every false positive rate."""
        return _tradeoff(self)

    def example_curve(self) -> "TradeoffCurve":
        """The most that any attack on the membership of one *example* can reach.

        Where the unit is the example, that is what the methods above say. Where it is the user, they say it of a user who is
        there or is not, and an example that is taken away leaves its user behind with all others: the user's one gradient, of
        norm at most C, is exchanged for another one, up to 2 C away, and the curve is a higher one. It is needless only for a
        user who has no other example and so leaves with this one. ``max_examples_per_unit = 1`` is no such case: which one of a
        user's examples is used is drawn, and the others take its place.

        Where the unit is the node, an example is a node's own, and goes with it. Where it is the edge, examples are not
        protected, and everything is permitted.
        """
        if self.unit == "edge":
            return _permits_everything()
        return _example_tradeoff(self) if self.unit == "user" else _tradeoff(self)

    def edge_curve(self) -> "TradeoffCurve":
        """The most that any attack on the presence of one *edge* can reach.

        Where the unit is the edge, that is the plan's own. Where it is the node, what an edge can move is counted by itself:
        blanking a node is another change, and does not bound it. A noised sum has noise for the sensitivity √(2 D) of a
        node; an edge moves two of its rows by at most 1 each, so that to an edge it is a Gaussian with noise σ_a √D. The
        updates read edges through these sums alone, and add nothing, unless ``occurrences`` are given: a model whose examples
        read neighbours also reads them, exactly, when it predicts, and then everything is permitted, as under the other units.
        """
        if self.unit == "edge":
            return _tradeoff(self)
        if self.unit != "node" or self.occurrences or not self.is_private:
            return _permits_everything()
        return _edge_tradeoff(self)


def _require(holds: bool, name: str, given: object, accepted: str) -> None:
    if not holds:
        raise PlanError(f"{name} is {given!r}; give {accepted}")


def _check_choices(plan: PrivacyPlan) -> None:
    """Each choice is known, each has the numbers that it needs and no others, and they go together."""
    for name, kinds in (
        ("unit", Unit),
        ("sampling", Sampling),
        ("clipping", Clipping),
        ("noise", Noise),
        ("edge_release", EdgeRelease),
    ):
        if getattr(plan, name) not in get_args(kinds):
            raise unknown_name(name, getattr(plan, name), get_args(kinds), PlanError)
    stability = plan.automatic_stability
    _require(isinstance(stability, Real) and math.isfinite(stability) and stability > 0, "automatic_stability", stability,
             "a finite number above 0, such as 0.01")  # fmt: skip
    if plan.clipping != "automatic" and stability != 0.01:
        raise PlanError(
            f"automatic_stability is {stability} and clipping is {plan.clipping!r}; leave it out, or give 'automatic'"
        )
    user, truncated, fixed = plan.unit == "user", plan.sampling == "truncated_poisson", plan.sampling == "fixed_size"
    cyclic = plan.sampling == "cyclic_poisson"
    _check_number(plan, "max_examples_per_unit", user, "unit is 'user'")
    _check_number(plan, "max_batch_size", truncated, "sampling is 'truncated_poisson'")
    _check_number(plan, "max_examples", truncated or fixed, "sampling is 'truncated_poisson' or 'fixed_size'")
    _require(_is_whole(plan.bands), "bands", plan.bands, "a whole number from 1 up")
    if cyclic != (plan.bands > 1):
        raise PlanError(
            f"bands is {plan.bands} and sampling is {plan.sampling!r}; give 2 or more bands with 'cyclic_poisson', and leave "
            "bands out otherwise"
        )
    if plan.noise == "banded" and not cyclic:
        raise PlanError(
            f"noise is 'banded' and sampling is {plan.sampling!r}, under which an example can come back within the bands; give "
            "sampling 'cyclic_poisson' with 2 or more bands"
        )
    if user and plan.sampling != "poisson":
        raise PlanError(f"unit is 'user' and sampling is {plan.sampling!r}; users are drawn by 'poisson' alone, so give that")
    _check_graph(plan)
    proved = {
        "truncated_poisson": ("add_or_remove_one",),
        "fixed_size": ("replace_one",),
        "balls_in_bins": tuple(RELATIONS),
    }.get(plan.sampling, ("add_or_remove_one", "zero_out_one"))
    if plan.relation not in proved:
        raise PlanError(
            f"relation is {plan.relation!r} and sampling is {plan.sampling!r}, which is proved under {' or '.join(proved)}; "
            "give that, or another sampling"
        )
    if (truncated or fixed) and plan.max_examples is not None:
        _check_sizes(plan, plan.max_examples, fixed=fixed)


def _check_graph(plan: PrivacyPlan) -> None:
    """What is of a node or of an edge is given there alone, and there under the one relation that is proved."""
    node, edge = plan.unit == "node", plan.unit == "edge"
    _check_number(plan, "max_degree", node, "unit is 'node'")
    for name in ("aggregations", "occurrences"):
        _require(_is_whole(getattr(plan, name), 0), name, getattr(plan, name), "a whole number from 0 up")
    share = plan.aggregation_noise
    _require(isinstance(share, Real) and not isinstance(share, bool) and math.isfinite(share) and share > 0,
             "aggregation_noise", share, "a finite number above 0, such as 1.0")  # fmt: skip
    if plan.aggregation_noise != 1.0 and not plan.aggregations:
        raise PlanError(f"aggregation_noise is {share} and aggregations is 0; leave it out, or give aggregations from 1 up")
    for name, holds, where in (
        ("aggregations", node or edge, "unit is 'node' or 'edge'"),
        ("occurrences", node, "unit is 'node'"),
        ("edge_release", edge, "unit is 'edge'"),
    ):
        if getattr(plan, name) not in (0, "none") and not holds:
            given = getattr(plan, name)
            raise PlanError(f"{name} is {given!r} and has a meaning only where {where}; leave it out, or give that")
    if not (node or edge):
        return
    if plan.relation != "zero_out_one":
        raise PlanError(
            f"unit is {plan.unit!r} and relation is {plan.relation!r}; the roster of nodes is public, and what is proved is "
            "the blanking of one of them or of an edge, so give 'zero_out_one'"
        )
    if node:
        _check_node(plan)
    else:
        _check_edge(plan)


def _check_node(plan: PrivacyPlan) -> None:
    if plan.sampling != "poisson":
        raise PlanError(f"unit is 'node' and sampling is {plan.sampling!r}; nodes are drawn by 'poisson' alone, so give that")
    if plan.occurrences > (plan.max_degree or 0):
        raise PlanError(
            f"occurrences is {plan.occurrences} and max_degree is {plan.max_degree}; one hop is proved, and over one hop a "
            f"node is read in the examples of its neighbours alone: give at most {plan.max_degree}"
        )


def _check_edge(plan: PrivacyPlan) -> None:
    if plan.clips:
        raise PlanError(
            f"unit is 'edge' and clipping_norm is {plan.clipping_norm}; updates read edges only through what was released "
            "before, and are not clipped: give math.inf"
        )
    for name, plain in (("clipping", "flat"), ("noise", "independent")):
        if getattr(plan, name) != plain:
            raise PlanError(
                f"unit is 'edge' and {name} is {getattr(plan, name)!r}; updates are neither clipped nor noised: leave it out"
            )
    if plan.aggregations and plan.edge_release != "none":
        raise PlanError(
            f"aggregations is {plan.aggregations} and edge_release is {plan.edge_release!r}, and each is a way of its own to "
            "release edges; give one of them"
        )
    if plan.noise_multiplier > 0 and not plan.is_private:
        raise PlanError(
            f"unit is 'edge' and noise_multiplier is {plan.noise_multiplier}, with nothing to add the noise to; give "
            "aggregations from 1 up, or edge_release 'randomised_response' or 'laplace'"
        )


def _check_number(plan: PrivacyPlan, name: str, needed: bool, where: str) -> None:
    value = getattr(plan, name)
    if needed:
        _require(_is_whole(value), name, value, f"a whole number from 1 up, since {where}")
    elif value is not None:
        raise PlanError(f"{name} is {value!r} and has a meaning only where {where}; leave it out, or give that")


def _check_sizes(plan: PrivacyPlan, examples: int, *, fixed: bool) -> None:
    batch = plan.expected_batch_size
    if not fixed:
        holds = plan.public_examples <= examples * (1 + 1e-9)
        _require(holds, "max_examples", examples, f"at least expected_batch_size / sampling_rate = {plan.public_examples:g}")
        return
    _require(batch == round(batch) and batch <= examples, "expected_batch_size", batch,
             f"a whole number up to max_examples = {examples}, since sampling is 'fixed_size'")  # fmt: skip
    exact = batch / examples
    if abs(plan.sampling_rate - exact) > 1e-9 * exact:
        raise PlanError(
            f"sampling_rate is {plan.sampling_rate:g}, and {batch:g} out of {examples} examples are drawn; give {exact!r}"
        )


def _is_whole(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@functools.lru_cache(maxsize=64)
def _tradeoff(plan: PrivacyPlan) -> "TradeoffCurve":
    from dptrain.accounting import tradeoff_curve

    return tradeoff_curve(plan.event(), plan.relation)


@functools.lru_cache(maxsize=64)
def _example_tradeoff(plan: PrivacyPlan) -> "TradeoffCurve":
    from dptrain.accounting import exchange_curve

    return exchange_curve(plan.event())


@functools.lru_cache(maxsize=64)
def _edge_tradeoff(plan: PrivacyPlan) -> "TradeoffCurve":
    from dp_accounting import GaussianDpEvent, SelfComposedDpEvent

    from dptrain.accounting import tradeoff_curve

    noise = plan.aggregation_noise * plan.noise_multiplier * math.sqrt(plan.max_degree or 0)
    return tradeoff_curve(SelfComposedDpEvent(GaussianDpEvent(noise), plan.aggregations), plan.relation)


def _permits_everything() -> "TradeoffCurve":
    from dp_accounting import NonPrivateDpEvent

    from dptrain.accounting import tradeoff_curve

    return tradeoff_curve(NonPrivateDpEvent())


@functools.lru_cache(maxsize=256)
def _guarantee(plan: PrivacyPlan, steps: int, drawn: tuple[tuple[int, int], ...]) -> Guarantee:
    from dp_accounting import ComposedDpEvent

    from dptrain import accounting

    counted = accounting.count(ComposedDpEvent([plan.event(last, first) for first, last in drawn]), plan.delta, plan.relation)
    return Guarantee(
        epsilon=counted.epsilon,
        cross_check=counted.cross_check,
        delta=plan.delta,
        accountant=counted.accountant,
        cross_check_accountant=counted.cross_check_accountant,
        unit=plan.unit,
        relation=plan.relation,
        statement=statement(plan, counted, steps),
    )


_found: dict[str, float] = {}
"""Noise multipliers that were calibrated in this process."""
_told: dict[str, float] = {}
"""Those that others say they found."""


def calibrations() -> dict[str, float]:
    """The noise multipliers that were calibrated here, for :func:`take_up_calibrations` in another process."""
    return dict(_found)


def take_up_calibrations(found: Mapping[str, float]) -> None:
    """Spares this process the search for these noise multipliers. Each is counted before it is used: one whose ε is above the
    budget is searched for anew, so that what is taken up can cost accuracy and never privacy."""
    _told.update(found)


@functools.lru_cache(maxsize=256)
def _calibrated(plan: PrivacyPlan, epsilon: float) -> float:
    """The smallest σ, to one part in ten thousand, whose reported ε is at most ``epsilon``; ε falls as σ grows."""
    key = hashlib.sha256(f"{as_plain(plan)} {epsilon!r}".encode()).hexdigest()
    told = _told.get(key)
    _found[key] = told if told is not None and _suffices(plan, told, epsilon) else _searched(plan, epsilon)
    return _found[key]


def _suffices(plan: PrivacyPlan, told: object, epsilon: float) -> bool:
    try:
        return isinstance(told, float) and 0 < told < math.inf and _spent(plan, told) <= epsilon
    except PlanError:  # nobody can count it
        return False


def _spent(plan: PrivacyPlan, noise_multiplier: float) -> float:
    from dptrain import accounting

    candidate = dataclasses.replace(plan, noise_multiplier=noise_multiplier)
    return accounting.epsilon(candidate.event(), plan.delta, plan.relation)


def _searched(plan: PrivacyPlan, epsilon: float) -> float:
    from dptrain import accounting

    def spent(noise_multiplier: float) -> float:
        return _spent(plan, noise_multiplier)

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
    narrow = _narrowed(spent, epsilon, low, high) if low > 1e-3 else (low, high)
    found = _halved(spent, epsilon, low, high, narrow)
    return found if spent(found) <= epsilon else _halved(spent, epsilon, low, high, (low, high))


NARROW = 1 + 1e-4
"""How near the two ends of a search come."""


def _halved(spent: Callable[[float], float], epsilon: float, low: float, high: float, narrow: tuple[float, float]) -> float:
    """By bisection between ``low``, which spends too much, and ``high``. What lies outside of ``narrow``, of which the same is
    known, is not counted."""
    while high / low > NARROW:
        middle = math.sqrt(low * high)
        enough = middle >= narrow[1] or (middle > narrow[0] and spent(middle) <= epsilon)
        low, high = (low, middle) if enough else (middle, high)
    return high


def _narrowed(spent: Callable[[float], float], epsilon: float, low: float, high: float) -> tuple[float, float]:
    """Two σ near each other, of which the first spends too much and the second does not: log ε is almost a line in log σ. Each
    guess is moved a little to the side of the end that is farther from it."""
    ends = {low: spent(low), high: spent(high)}
    for _ in range(6):
        if high / low <= NARROW or not all(0 < value < math.inf for value in ends.values()) or ends[low] <= ends[high]:
            break
        share = math.log(ends[low] / epsilon) / math.log(ends[low] / ends[high])
        guess = low * (high / low) ** min(max(share, 0.0), 1.0)
        guess *= 1 + 3e-5 if high / guess > guess / low else 1 - 3e-5
        if not low < guess < high:
            break
        ends[guess] = spent(guess)
        low, high = (low, guess) if ends[guess] <= epsilon else (guess, high)
    return low, high
