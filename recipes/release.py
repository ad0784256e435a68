"""`dptrain release RUN`: publishes a trained model, or refuses with every reason.

    found = examine(Path("runs/digits/eps=08.00/seed=0"), Options(policy=Path("policy.toml")))
    if found.clearance.granted:
        publish(found)

Whatever is published lies in one folder, which is written whole or not at all; the run's own ``release/`` is never changed,
since results hang on it. Of ``private/`` the ledger is read, and which examples are public; nothing of it is published.
"""

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from dptrain.checkpoint import is_there, pack_json, read_folder, write_folder
from dptrain.errors import CheckpointError, ConfigError
from dptrain.plain import as_plain
from dptrain.release import policy as policies
from dptrain.release.checks import CARD, WEIGHTS, Check, Released
from dptrain.release.guard import Owner, fitted, needs_members, parse
from dptrain.release.model_card import Figure, ModelCard, StatedGuard, rounded
from dptrain.release.model_card_page import markdown
from dptrain.release.names import as_published, in_no_text
from dptrain.release.policy import Policy
from evaluation.access import Access
from evaluation.clearance import Clearance, Evidence, clear
from evaluation.report import wording
from evaluation.result import AttackResult, Measure
from evaluation.target import Target
from recipes import audits, runs
from recipes.comparison import Comparison
from recipes.release_monitor import of_public

PUBLISHED = "published"
MODEL_CARD, MODEL_CARD_PAGE, POLICY, MONITOR = "model_card.json", "MODEL_CARD.md", "policy.json", "monitor.json"
FILES = {WEIGHTS, CARD, MODEL_CARD, MODEL_CARD_PAGE, POLICY, MONITOR}

Figures = Literal["withheld", "published"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is released."""

    policy: Path | None = None
    """A TOML file; left out, :data:`dptrain.release.policy.DEFAULT`."""
    guard: str | None = None
    """That will stand before its answers."""
    output: Path | None = None
    """Left out, ``published/`` below the run."""
    figures: Figures = "withheld"
    """Whether the model card says what attacks found."""
    intended_use: str = ""
    """In the owner's words, for the model card."""


@dataclass(frozen=True, eq=False)
class Examined:
    """A model and every check of it; nothing has been written."""

    released: Released | None
    """None where its folder is not what was saved."""
    clearance: Clearance
    options: Options
    policy: Policy
    run: Path
    guard: StatedGuard | None = None
    notes: tuple[str, ...] = ()
    """What no check speaks of."""
    comparison: Comparison | None = None
    """That the model is of; None where a script trained it."""

    @property
    def output(self) -> Path:
        return self.options.output or self.run / PUBLISHED


def examine(run: Path, options: Options) -> Examined:
    """Every check of the model in ``run``.

    Raises:
        UserError: it is no run, the policy or the guard is none, or the output folder holds something else.
    """
    policy = policies.DEFAULT if options.policy is None else policies.read(options.policy)
    _check_names(policy)
    if in_no_text(options.intended_use):
        raise ConfigError(f"--intended-use is {options.intended_use!a}, which is no UTF-8; give a text")
    if options.guard is not None:
        _check_guard(options.guard)
    _check_run(run)
    _check_output(options.output or run / PUBLISHED, run)
    try:
        released = Released.read(run)
    except CheckpointError as error:
        damaged = Check(
            name="manifest",
            verdict="not met",
            found=str(error),
            required="every file as it was saved, and no other",
            to_do="restore the folder from a copy, or train again; never mend the manifest",
        )
        return Examined(None, Clearance(checks=(damaged,), epsilon=float("inf")), options, policy, run)
    guard = None if options.guard is None else _stated(options.guard, released)
    evidence, notes, comparison = _evidence(released)
    return Examined(released, clear(released, evidence, policy, options.guard), options, policy, run, guard, notes, comparison)


def publish(found: Examined, today: date | None = None) -> Path:
    """Writes the published folder, whole or not at all, and says where.

    Raises:
        UserError: a check is not met.
    """
    if found.released is None or not found.clearance.granted:
        raise CheckpointError(f"{found.run} is not cleared: {', '.join(check.name for check in found.clearance.refusals)}")
    released, thresholds = found.released, None if found.comparison is None else of_public(found.released, found.comparison)
    card = _model_card(found, today or datetime.now(UTC).date(), monitored=thresholds is not None)
    guarantee = dict(released.card["guarantee"])
    if card.ledger:
        guarantee |= {"epsilon": card.epsilon, "statement": f"{guarantee['statement']} {card.ledger}"}
    public = as_published(released.card)
    stated = {**public, "guarantee": guarantee, "guard": None if found.guard is None else as_plain(found.guard)}
    checks = [{"name": check.name, "required": check.required, "verdict": check.verdict} for check in found.clearance.checks]
    judged = {"schema": "dptrain.policy/1", "policy": as_plain(found.policy), "checks": checks}
    files = {
        WEIGHTS: released.content,
        CARD: pack_json(stated),
        MODEL_CARD: as_text(as_plain(card)).encode(),
        MODEL_CARD_PAGE: markdown(card).encode(),
        POLICY: as_text(judged).encode(),
        **({} if thresholds is None else {MONITOR: as_text(thresholds.to_json()).encode()}),
    }
    write_folder(found.output, files)
    return found.output


# -- what is given --------------------------------------------------------------------------------------------------


def _check_names(policy: Policy) -> None:
    from evaluation.plan import ATTACKS

    for name in policy.required_attacks:
        ATTACKS.check(name)


def _check_guard(guard: str) -> None:
    parse(guard)
    if needs_members(guard):
        raise ConfigError(
            f"the guard {guard!r} is fitted on members, whom no server that loads a published folder may hold; give another "
            "one, such as top5-rounded"
        )


def _check_run(run: Path) -> None:
    if is_there(run / "release"):
        return
    if (run / "comparison.toml").is_file():
        models = [job.label for job in runs.load_run(run).jobs() if is_there(run / job.label / "release")]
        if not models:
            raise CheckpointError(f"{run} holds no finished model yet; type `dptrain resume {run}`")
        typed = "\n".join(f"  dptrain release {run / label}" for label in models)
        raise ConfigError(f"{run} is a comparison; release one of its {len(models)} models:\n{typed}")
    raise CheckpointError(
        f"there is no trained model at {run}; name its folder, such as runs/digits/eps=08.00/seed=0, which holds release/"
    )


def _check_output(output: Path, run: Path) -> None:
    """Refuses to write over anything but what was published before, unchanged and with nothing beside it."""
    resolved, own = output.resolve(), run.resolve()
    taken = [own / name for name in ("release", "private", "evaluation")] + [parent / "private" for parent in own.parents]
    if own.is_relative_to(resolved) or any(resolved.is_relative_to(folder) for folder in taken):
        raise ConfigError(f"--output is {output}, which is the run's own or private; give a folder of its own")
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file; give another folder by --output")
    if not output.exists() or not any(output.iterdir()):
        return
    another = f"{output} would be replaced with all that it holds; give another folder by --output"
    if not (output / MODEL_CARD).is_file():
        raise ConfigError(f"{another}: this one holds something else than a published model")
    try:
        strangers = sorted(read_folder(output).keys() - FILES)
    except CheckpointError as error:
        raise ConfigError(f"{another}, or clear this one: {error}") from None
    if strangers:
        raise ConfigError(f"{another}, or clear this one: {output / strangers[0]} is no part of a published model")


def _stated(guard: str, released: Released) -> StatedGuard:
    data = released.card.get("data", {})
    classes = len(data.get("classes") or ())
    if not classes or data.get("value") or data.get("models") == "language":
        raise ConfigError(f"the guard {guard!r} stands before scores of classes, and this model gives none; leave --guard out")
    target = Target.open(released.run / "release", Access.LOGITS)
    unused = released.digest.encode()  # the guard is asked for its statement alone
    owner = Owner(target.logits, tuple(data["input_shape"]), tuple(data["bounds"]), classes, key=unused, model=released.digest)
    return StatedGuard(text=guard, statement=fitted(guard, owner).statement())


def _evidence(released: Released) -> tuple[Evidence, tuple[str, ...], Comparison | None]:
    """What lies beside the run, where it is a model of a comparison."""
    root = (released.run / ".." / "..").resolve()
    if not (root / "comparison.toml").is_file():
        again = "evaluate(run, data) in the script that trained it"
        return Evidence.of(released, evaluate=again, audit="dptrain audit RECIPE, and keep it beside the run"), (ALONE,), None
    comparison = runs.load_run(root)
    found, unread = audits.read(root)
    folders = {(root / job.label).resolve() for job in comparison.jobs() if job.variant == "dp"} - {released.run.resolve()}
    trained = [folder for folder in folders if (folder / "private" / "ledger.jsonl").exists()]
    alone = ALONE if released.card.get("selection") is None else CHOSEN
    note = alone if not trained else f"{alone} This comparison alone trained {len(trained)} others with privacy."
    epsilon = released.card.get("recipe", {}).get("privacy", {}).get("epsilon")
    budget = "" if epsilon is None else f" --epsilons {epsilon:g}"
    shown = _shortest(root)
    evidence = Evidence.of(
        released,
        planned=comparison.evaluation.attacks,
        audits=found,
        unread=unread,
        evaluate=f"dptrain evaluate {shown}",
        audit=f"dptrain audit {shown / 'comparison.toml'}{budget} --output {shown}",
    )
    return evidence, (note,), comparison


ALONE = (
    "ε is of this training alone: other trainings on the same data, and choosing among them, spend their own, and nothing here "
    "adds them up."
)
CHOSEN = (
    "ε is of this model as the one that was chosen, choosing included, as long as nobody sees the others or how many there "
    "were: private/ of the selection tells both. Other trainings on the same data spend their own, and nothing here adds them "
    "up."
)


def _shortest(path: Path) -> Path:
    """As it is typed from here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


# -- what is published ----------------------------------------------------------------------------------------------


def _model_card(found: Examined, today: date, *, monitored: bool) -> ModelCard:
    released, utility = found.released, found.clearance.utility
    assert released is not None
    return ModelCard.of(
        released.card,
        epsilon=found.clearance.epsilon,
        intended_use=found.options.intended_use,
        not_covered=(runs.SEVERAL_OF_ONE_PERSON[released.plan.unit],),
        published=today.isoformat(),
        utility=() if utility is None else (_figure(utility),),
        policy=found.policy,
        met=tuple(check.name for check in found.clearance.checks),
        attacks={attack.name: wording.attack_name(attack.name) for attack in found.clearance.judged if attack.status == "ok"},
        figures=_found(found.clearance.judged) if found.options.figures == "published" else (),
        guard=found.guard,
        monitor=monitored,
    )


def _found(attacks: tuple[AttackResult, ...]) -> tuple[Figure, ...]:
    return tuple(
        dataclasses.replace(_figure(measure), attack=wording.attack_name(attack.name), verdict=attack.verdict)
        for attack in attacks
        if attack.status == "ok"
        for measure in (
            Measure(name=attack.metric, value=attack.value, low=attack.low, high=attack.high),
            *(measure for measure in attack.metrics if measure.name.startswith("tpr_at_fpr_")),
        )
        if None not in (measure.value, measure.low, measure.high)
    )


def _figure(measure: Measure) -> Figure:
    ends: list[float] = [measure.value or 0.0, measure.low or 0.0, measure.high or 0.0]
    value, low, high = rounded(*ends, is_share=0 <= ends[1] <= ends[2] <= 1)
    return Figure(name=measure.name, words=wording.metric_name(measure.name), value=value, low=low, high=high)


def as_text(value: Any) -> str:
    """JSON, the same for the same value."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
