"""The one result schema: what an evaluation found, as versioned JSON.

Everything that is shown (terminal, TensorBoard, HTML, a user's own code) is a view of these records; no view computes a
figure. A figure is a :class:`Measure`: a value with its interval. Infinity is written as the text ``"inf"``.

    {"schema": "dptrain.result/1",
     "runs": [{"label": "eps=08.00/seed=0", "variant": "dp", "epsilon": 8.0, "delta": 1e-4, "seed": 0,
               "utility": {"test_accuracy": 0.93, ...}, "attacks": [{"name": "membership.lira", "status": "ok", ...}]}],
     "summary": [...]}
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from dptrain.errors import CheckpointError
from dptrain.files import write_file
from dptrain.plain import as_plain, from_plain
from dptrain.plan import Guarantee
from evaluation import wellformed

SCHEMA = "dptrain.result/1"
T = TypeVar("T")

Variant = Literal["dp", "non_private", "clip_only", "regularized"]
Kind = tuple[Variant, float, str]
"""What the seeds of a comparison's row share: variant, ε, and the regularizer where each is alone."""
Cost = Literal["costs accuracy", "gains accuracy", "costs no accuracy that was shown"]
GuardChange = Literal[
    "costs more than the label",
    "costs less than the label",
    "not shown to cost more than the label",
    "is the label",
    "not compared",
]
LeakChange = Literal["lowers the leak", "raises the leak", "changes no leak that was shown"]
Status = Literal["ok", "failed", "not_applicable"]
Verdict = Literal[
    "leak",
    "found nothing",
    "within the plan",
    "above the plan",
    "withheld",
    "nothing beyond public",
    "of the population",
    "no signal",
    "none",
]

VERDICTS: dict[str, str] = {
    "leak": "the interval lies above what an attack without any signal gets, and no guarantee of the model limits this attack",
    "found nothing": "the interval contains what an attack without any signal gets; read it beside its controls",
    "within the plan": "the attack finds something, and no more than the plan permits",
    "above the plan": "AUC or ROC, with intervals of 99.9%, lie above the plan: the guarantee or the measurement is broken",
    "withheld": "a baseline or control that knows nothing of the model succeeds as well, so the attack proves nothing",
    "nothing beyond public": "the attack succeeds, but no better than public data alone, without the model, do",
    "of the population": "the attack, which sees the outcome too, succeeds beyond imputation, and as often on people who were "
    "not trained on: the model gives away what holds of everyone like them",
    "no signal": "the attack gave the same score to every example",
    "none": "the attack gave no figure: it failed or does not apply",
}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A figure and its interval. ``value`` is None where it could not be measured; ``note`` then says why."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    note: str = ""
    degrees_of_freedom: int | None = None
    """Of a mean over few seeds, whose interval is Student's; None where it comes from many examples."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """An ROC, found or permitted: true positive rate (members taken for members) against false positive rate."""

    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Of a predicted value, in its unit: held-out examples in order of their prediction, in groups of equal size."""

    predicted: tuple[float, ...]
    """Mean prediction of each group."""
    true: tuple[float, ...]
    """Mean true value of each group, with the ends of its 95% interval."""
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class TextSample:
    """A made-up secret, and what a model of text says in its place. Nobody's secret: it may be shown."""

    before: str
    """What stands before it, which the model was given."""
    secret: str
    said: str
    """The most probable character after each other, as many as the secret has."""
    inserted: bool
    """Whether it was trained on."""
    insertions: int
    """In how many examples it stands, or would have stood."""
    exposure: float | None = None
    """In bits, exact; None where it was not ranked."""
    guess: str = ""
    """The most probable candidate, where it was searched for."""


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What one attack got from one checkpoint."""

    name: str
    """Family and attack, such as ``membership.lira``."""
    status: Status
    metric: str = ""
    """What ``value`` is, such as ``auc``, ``identified_top1`` or ``guessed``."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    """What ``value`` would be for an attack with no signal."""
    permitted: float | None = None
    """The most that the privacy plan permits ``value`` to be; None without a guarantee, or where none is known."""
    access: str = ""
    """What the attacker sees: label, top-k, scores, logits, gradients or weights."""
    paper: str = ""
    verdict: Verdict = "none"
    reason: str = ""
    """Why it failed, does not apply, or has its verdict."""
    metrics: tuple[Measure, ...] = ()
    """Further figures, such as the true positive rate at a fixed false positive rate."""
    permitted_metrics: dict[str, float] = field(default_factory=dict)
    """Further figure to the most that the plan permits it to be."""
    chance_metrics: dict[str, float] = field(default_factory=dict)
    """Further figure to what it would be for an attack with no signal."""
    judges: tuple[Measure, ...] = ()
    """Accuracy of whoever judges reconstructions, on examples that it was not trained on."""
    baselines: tuple[Measure, ...] = ()
    """The same metric for those who have no model: blind, class mean of public data, ..."""
    likeness_without_model: tuple[Measure, ...] = ()
    """Of reconstructions: their distances and similarities for what was to be had without the model, such as
    ``public_mean/distance_to_private_mean``."""
    controls: tuple[Measure, ...] = ()
    """The same metric where the answer is known: positive (non-private twin), negative (untrained, permuted,
    a model of other people)."""
    curve: Curve | None = None
    permitted_curve: Curve | None = None
    """The largest ROC that the privacy plan permits; None without a guarantee."""
    figures: tuple[str, ...] = ()
    """Pictures of this attack, as paths relative to the folder of the result."""
    recognised: tuple[bool, ...] = ()
    """Of an inversion: for each judged class whether the judge takes its picture for it, so that two can be held against each
    other class by class."""
    texts: tuple[TextSample, ...] = ()
    """Some made-up secrets and what the model says in their place, chosen before it was asked."""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """How the leak is spread over the audited examples, each attacked by itself over the shadow models that had it and those
    that had not (``evaluation.membership.vulnerability``). It names no example; a file in the run's ``private/`` does."""

    examples: int
    """Of which something can be said; those of all seeds together in a :class:`Summary`."""
    models: int
    """Shadow models."""
    false_positive_rate: float
    """At which an example's own true positive rate is stated."""
    false_discovery_rate: float
    """Expected share of false flags among the flagged, at most."""
    flagged: Measure
    """Share of examples that leak by a test at that rate."""
    striking: Measure
    """Share of examples whose own true positive rate is estimated above a tenth."""
    striking_by_chance: float
    """The same where the same answers are dealt to models at random."""
    levels: tuple[float, ...]
    """True positive rates."""
    share_above: tuple[float, ...]
    """Share of examples above each."""
    share_by_chance: tuple[float, ...]
    largest_by_chance: float
    """By chance, the largest true positive rate of any example lies below this in 95 of 100 cases."""
    permitted: float | None = None
    """The true positive rate that the privacy plan permits of any example."""


@dataclass(frozen=True, kw_only=True)
class GuardedResult:
    """One model behind one guard: what it shows, what that is worth, and what attacks get that know of the guard."""

    guard: str
    """As it is asked for, such as ``top5-rounded``."""
    access: str = ""
    """What it shows: label, top-k labels in order, top-k with scores, or scores."""
    statement: str = ""
    utility: tuple[Measure, ...] = ()
    """Of held-out examples: ``answered_right``, ``refused``, ``distance_of_scores``, ``brier_score``
    (:mod:`evaluation.through_guards`)."""
    attacks: tuple[AttackResult, ...] = ()
    """What the plan permits of them is what it permits without a guard, which only takes away; one that was fitted on members
    read them once more, and says so in its statement."""
    reason: str = ""
    """Why the guard could not be made; empty where it was."""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One trained model: what was paid in utility and what was bought in privacy."""

    label: str
    variant: Variant
    epsilon: float
    """The budget; infinity without a guarantee."""
    delta: float | None
    seed: int
    step: int
    steps: int
    utility: dict[str, float]
    """``test_accuracy``, ``test_accuracy_low``, ``test_accuracy_high``, or those of a predicted value
    (:mod:`evaluation.utility`); the first name is the headline's."""
    attacks: tuple[AttackResult, ...]
    guarantee: Guarantee | None = None
    plan: dict[str, Any] | None = None
    """The public fields of the privacy plan."""
    recipe_digest: str = ""
    split_digest: str = ""
    data_fingerprint: str = ""
    notes: tuple[str, ...] = ()
    """What a reader must know about this run, such as an insecure noise seed."""
    release_digest: str = ""
    """SHA-256 of the release's manifest: which weights were attacked."""
    exposure: Exposure | None = None
    """None where no shadow models were trained."""
    calibration: Calibration | None = None
    """Of a model that predicts a value."""
    seconds: float = 0.0
    regularizer: str = ""
    """Of the variant `regularized` where each option has a model of its own: which, such as ``label_smoothing=0.1``."""
    release_guard: str = ""
    """What stood before labels and scores in ``attacks``; empty where nothing did."""
    guarded: tuple[GuardedResult, ...] = ()
    """The same model behind each guard that the evaluation was asked to compare."""
    schema: str = SCHEMA

    @property
    def kind(self) -> Kind:
        return self.variant, self.epsilon, self.regularizer


@dataclass(frozen=True, kw_only=True)
class AuditBound:
    """How much of a claimed ε an audit showed, by one estimator."""

    method: str
    epsilon: float
    """The lower bound, or the estimate."""
    ceiling: float | None
    """What a perfect attack on as many canaries would have shown; None for an estimate."""
    holds_for: str
    """The mechanisms for which it is a bound, such as ``any mechanism``."""
    is_bound: bool
    """False for an estimate, which refutes nothing."""
    canaries: int
    guesses: int
    correct: int
    comparisons: int
    """Bounds that share the permitted error."""
    confidence: float
    """That all of them hold together."""
    text: str
    """All of it in a sentence."""


@dataclass(frozen=True, kw_only=True)
class AuditCheck:
    """What a plan states of its mechanism, and what was seen of it."""

    name: str
    stated: float
    seen: Measure
    """In the stated figure's units."""
    ok: bool
    what: str
    """The check in a sentence."""


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What one game showed of the claim at one checkpoint."""

    about: str
    """The canaries, in a line."""
    access: str
    """``white-box`` or ``black-box``."""
    epsilon: float
    """Claimed for the updates up to ``step``, at ``delta``."""
    delta: float
    relation: str
    step: int
    bounds: tuple[AuditBound, ...]
    checks: tuple[AuditCheck, ...] = ()
    contradictions: tuple[str, ...] = ()
    """Why the claim is refuted; empty where it stands."""
    how: str = ""
    """The game as it is asked for, such as ``white-box`` or ``worst-case``."""
    budget: float | None = None
    """The ε that the recipe was asked to keep to."""
    steps: int = 0
    """Of the whole training."""
    recipe_digest: str = ""
    command: str = ""
    """What to type to play it again."""
    schema: str = SCHEMA

    @property
    def ok(self) -> bool:
        return not self.contradictions


@dataclass(frozen=True, kw_only=True)
class GuardedSummary:
    """All seeds of one budget or baseline behind one guard; fields as in :class:`Summary` and :class:`GuardedResult`."""

    guard: str
    access: str = ""
    statement: str = ""
    utility: tuple[Measure, ...] = ()
    measures: tuple[Measure, ...] = ()
    permitted: dict[str, float] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    beside: tuple[Measure, ...] = ()
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All seeds of one budget or baseline together."""

    variant: Variant
    epsilon: float
    seeds: tuple[int, ...]
    utility: Measure
    """Mean over the seeds of the headline of :mod:`evaluation.utility`: a share, of which more is better."""
    measures: tuple[Measure, ...]
    """Mean over the seeds of ``<attack>/<metric>``, such as ``membership.lira/auc``."""
    permitted: dict[str, float] = field(default_factory=dict)
    """``<attack>/<metric>`` to the most that the plan permits."""
    verdicts: dict[str, str] = field(default_factory=dict)
    """Attack to the verdict over all seeds."""
    exposure: Exposure | None = None
    """Means over the seeds."""
    beside: tuple[Measure, ...] = ()
    """Means over the seeds of every baseline and control, ``<attack>/<name>``."""
    further_utility: tuple[Measure, ...] = ()
    """Means of its other measures."""
    regularizer: str = ""
    guarded: tuple[GuardedSummary, ...] = ()

    @property
    def kind(self) -> Kind:
        return self.variant, self.epsilon, self.regularizer


@dataclass(frozen=True, kw_only=True)
class Bought:
    """What one row gives up in accuracy and takes from one attack, against the non-private models of the same seeds; see
    :mod:`evaluation.exchange`."""

    variant: Variant
    epsilon: float
    regularizer: str
    seeds: tuple[int, ...]
    accuracy: Measure
    """Mean test accuracy of the row, a share."""
    auc: Measure
    """Mean AUC of the attack on the row."""
    accuracy_given_up: Measure
    """In points (per cent); below 0 where the row is more accurate."""
    auc_taken: Measure
    """Below 0 where the attack gets more from the row."""
    rate_taken: Measure
    """The same of the true positive rate at the lowest false positive rate that was resolved."""
    auc_per_point: Measure
    """AUC taken per point of accuracy given up; None, with a note, where that is not shown to be above 0."""
    cost: Cost
    leak: LeakChange
    dp_at_equal_accuracy: Measure | None = None
    """The attack's AUC under DP at the row's accuracy, or a note why there is none; None for a budget itself."""
    stronger: str = ""
    """Another attack of the comparison that is shown to get more from the row."""

    @property
    def kind(self) -> Kind:
        return self.variant, self.epsilon, self.regularizer


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What every row buys under one attack."""

    attack: str
    rate: str
    """Name of the metric behind ``rate_taken``, such as ``tpr_at_fpr_0.001``; empty where none was resolved."""
    accuracy: Measure
    """Mean test accuracy of the non-private models."""
    auc: Measure
    """Mean AUC of the attack on them."""
    rows: tuple[Bought, ...]


@dataclass(frozen=True, kw_only=True)
class GuardCost:
    """What the strongest attack of one family gets through one guard, and how much of that the label alone does not give; see
    :mod:`evaluation.guard_costs`."""

    variant: Variant
    epsilon: float
    regularizer: str
    seeds: tuple[int, ...]
    family: str
    """``membership``, ``inversion``, ..."""
    guard: str
    """Empty where none stands before the model."""
    access: str
    """What the attacker sees."""
    attack: str
    """The strongest through this guard."""
    behind: str = ""
    """Another guard behind which that attack ran, whose answers this attacker can make of what it sees; empty where it ran on
    just what it sees."""
    metric: str
    value: Measure
    """Mean over seeds."""
    permitted: float | None
    verdict: str
    """Of that attack over all seeds."""
    label_attack: str
    """The strongest through the guard ``label_only``; empty where that was not asked for."""
    beyond_label: Measure
    """Mean over seeds of this attack's figure less that of ``label_attack`` on the same model."""
    change: GuardChange

    @property
    def kind(self) -> Kind:
        return self.variant, self.epsilon, self.regularizer


@dataclass(frozen=True, kw_only=True)
class Strongest:
    """The attack that gets most from one row, in what it says about members; see :mod:`evaluation.headline`."""

    attack: str
    metric: str
    value: Measure
    """Mean over seeds."""
    chance: float | None
    """What an attack without any signal gets."""
    permitted: float | None
    """The most that the plan permits."""
    verdict: str
    of: int
    """Of how many attacks that gave a figure it is the strongest."""
    on_non_private: Measure | None = None
    """The same figure on the non-private models."""
    verdict_on_non_private: str = ""
    """Of the same attack there: it may be shown by another of its figures."""
    beyond_chance: float | None = None
    """From 0, no better than an attack without signal, to 1; by it attacks of different metrics are ordered."""
    rate: float | None = None
    """The lowest false positive rate at which its true positive rate was resolved."""
    at_rate: Measure | None = None
    """That true positive rate."""
    rate_permitted: float | None = None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One row in the answer: what it keeps, and what is got from it."""

    variant: Variant
    epsilon: float
    regularizer: str
    utility: Measure
    kept: Measure | None
    """Utility over that of the non-private models, with Fieller's interval; None where there are none, or for themselves."""
    above_no_model: Measure | None
    """Utility less that of the best who has no model; None where no such figure is known."""
    no_model: str
    """Who that is, such as ``majority_class``."""
    strongest: Strongest | None
    """None where no attack gave a figure."""
    unit: str = ""
    """What is hidden one of, where something is promised: an ``example``, ``user``, ``node`` or ``edge``."""

    @property
    def kind(self) -> Kind:
        return self.variant, self.epsilon, self.regularizer


Choice = Literal[
    "the smallest that keeps enough", "keeps most", "the only budget", "no twin, the smallest", "no budget", "nothing trained"
]


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The answer: of which budget it speaks, and why; see :mod:`evaluation.headline`."""

    choice: Choice
    enough: float
    """The share of the non-private utility that is called enough."""
    chosen: Standing | None
    """None where nothing was trained."""
    non_private: Standing | None
    smallest: Standing | None
    """The smallest budget, where it is not the chosen one."""
    above_plan: tuple[str, ...] = ()
    """Labels of models from which an attack gets more than their plan permits."""
    refuted: int = 0
    """Audits that refute a claim."""
    failed: tuple[str, ...] = ()
    """Attacks that gave a figure on no model of the chosen row because they failed."""


Place = Literal["on the front", "behind it by the means alone", "shown to be worse"]


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """One row between what it is worth and what is got from it."""

    variant: Variant
    epsilon: float
    regularizer: str
    attack: str
    """The strongest of the family on this row."""
    utility: Measure
    leak: Measure
    permitted: float | None
    place: Place
    worse_than: tuple[int, ...] = ()
    """Places in ``points`` of the rows that are shown to be worth more and to give away less."""

    @property
    def kind(self) -> Kind:
        return self.variant, self.epsilon, self.regularizer


@dataclass(frozen=True, kw_only=True)
class Front:
    """All rows under the strongest attack of one family; see :mod:`evaluation.pareto`."""

    family: str
    metric: str
    chance: float | None
    points: tuple[FrontPoint, ...]


Guarding = Literal["none stood before the models", "compared", "one stood before every answer"]


@dataclass(frozen=True, kw_only=True)
class Untested:
    """What an evaluation left out; see :mod:`evaluation.untested`."""

    attacks: dict[str, str] = field(default_factory=dict)
    """Registered attacks on this kind of data that did not run, to a line about each."""
    unfinished: tuple[str, ...] = ()
    """Attacks that gave a figure on no model though they ran or were asked for."""
    access: tuple[str, ...] = ()
    """Levels of access at which no attack gave a figure."""
    guards: Literal["none stood before the models", "compared", "one stood before every answer"] = (
        "none stood before the models"
    )
    shadow_models: int | None = None
    """None where no attack had any."""
    seeds: int = 0
    """Of the row with the fewest."""
    rows_without_twin: tuple[str, ...] = ()
    """Labels of private models without a non-private one of the same seed."""
    budgets_without_audit: tuple[float, ...] = ()
    unresolved: tuple[str, ...] = ()
    """Further figures that no model had enough examples for."""
    checkpoints: int = 0
    """Earlier checkpoints that were attacked."""


@dataclass(frozen=True, kw_only=True)
class SpentShown:
    """What a data set has spent on one unit of privacy, over several runs composed."""

    unit: str
    relation: str
    delta: float
    runs: int
    steps: int
    epsilon: float
    largest: float
    """Of a single run."""


@dataclass(frozen=True, kw_only=True)
class SelectedShown:
    """A private selection among runs (Papernot & Steinke 2022). How many there were is told nowhere: ε holds for whoever does
    not know it."""

    name: str
    distribution: str
    mean: float
    epsilon: float
    delta: float
    chosen: str


@dataclass(frozen=True, kw_only=True)
class LedgerShown:
    """What the ledger of a data set says of everything that has read it, on the machine where the result was gathered.

    Where a private selection was made on the data, numbers of entries and runs are 0 and ``spent`` is empty: they would tell
    how many trainings it had.
    """

    data: str
    """The fingerprint of its content."""
    name: str
    entries: int
    runs: int
    without_guarantee: int
    """Runs that read the data and promise nothing; no ε speaks of them."""
    failed: int
    unfinished: int
    spent: tuple[SpentShown, ...] = ()
    selected: tuple[SelectedShown, ...] = ()
    only_selected: tuple[SpentShown, ...] = ()
    """Where of each selection the chosen model alone is ever released."""
    limit_epsilon: float | None = None
    limit_delta: float | None = None


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """All runs of one comparison."""

    name: str
    title: str
    runs: tuple[RunResult, ...]
    """The last checkpoint of every model."""
    summary: tuple[Summary, ...]
    command: str
    """What to type to get this again."""
    data: dict[str, Any]
    """Public facts of the data set: name, kind, classes, input_shape, source, fingerprint."""
    recipe: dict[str, Any]
    versions: dict[str, str]
    not_covered: tuple[str, ...]
    """What the guarantee does not speak of, one sentence each."""
    baselines: tuple[Measure, ...] = ()
    """Figures that need no trained model and hold for all runs, such as ``majority_class`` accuracy."""
    checkpoints: tuple[RunResult, ...] = ()
    """Earlier checkpoints of the same models, where the recipe keeps any."""
    exchanges: tuple[Exchange, ...] = ()
    """What regularizers and budgets buy, one an attack; the one that gets most from the non-private models first."""
    failures: tuple[str, ...] = ()
    """Models that could not be trained, or are not finished, and audits that cannot be read, one sentence each."""
    audits: tuple[AuditResult, ...] = ()
    """Every audit that is kept beside the comparison, of other recipes too."""
    guard_costs: tuple[GuardCost, ...] = ()
    """One a row, family and guard, in the order of the summary and of the guards."""
    headline: Headline | None = None
    """None in a file of before there was one."""
    fronts: tuple[Front, ...] = ()
    """What is worth more and gives away less; one a family of attacks, that of the headline's attack first."""
    untested: Untested | None = None
    evaluation: dict[str, Any] = field(default_factory=dict)
    """The evaluation as it was asked for."""
    ledger: tuple[LedgerShown, ...] = ()
    """Empty where no ledger of the data was found."""
    schema: str = SCHEMA


def to_json(result: Any) -> str:
    """The record as JSON text; the same record always gives the same text."""
    return json.dumps(as_plain(result), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def write(result: Any, path: Path) -> None:
    """Writes the record so that a reader sees the old file or the new one, never a part."""
    write_file(path, to_json(result).encode())


def read_run(path: Path) -> RunResult:
    """The result of one run from its file.

    Raises:
        CheckpointError: no such file, not JSON, not of this schema, or a field with what it may not hold.
    """
    return _read(RunResult, path)


def read_audit(path: Path) -> AuditResult:
    """The result of one audit from its file; errors as in :func:`read_run`."""
    return _read(AuditResult, path)


def read_comparison(path: Path) -> ComparisonResult:
    """The result of a comparison from its file; errors as in :func:`read_run`."""
    return _read(ComparisonResult, path)


def _read(kind: type[T], path: Path) -> T:
    record = from_plain(kind, _of_this_schema(path), str(path))
    wellformed.check(record, str(path))
    return record


def _of_this_schema(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"), parse_constant=wellformed.no_constant)
    except FileNotFoundError:
        raise CheckpointError(f"there is no result at {path}; type `dptrain evaluate RUN` to make one") from None
    except ValueError as error:  # of JSON or of UTF-8
        raise CheckpointError(f"{path} is not a result: {error}") from None
    if not isinstance(plain, dict):
        raise CheckpointError(f"{path} is not a result: it holds a {type(plain).__name__}, not an object")
    if plain.get("schema") != SCHEMA:
        raise CheckpointError(f"{path} has the schema {plain.get('schema')!r}, and this version reads {SCHEMA!r}")
    return plain
