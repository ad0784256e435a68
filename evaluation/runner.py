"""Attacks a checkpoint, keeps going, and never calls a failure safe.

From a script, after ``private.save(path, split=split)``::

    from evaluation import evaluate
    result = evaluate("runs/mine", data, model=MyModel(), retrain=train_one)

``retrain(members, seed)`` trains one shadow model by the target's own recipe on those examples and gives the module;
without it (and without a recipe in the card) attacks that need shadow models are not applicable, and the result says so.
An attack that raises, or gives NaN, is FAILED with its reason; the others' results stand.
"""

import dataclasses
import hashlib
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dptrain.checkpoint import MANIFEST, load_release, unpack_json
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split
from dptrain.data.split import load as load_split
from dptrain.errors import CheckpointError, ConfigError, DiskError, UserError
from dptrain.files import write_file
from dptrain.fleet import Fleet, Views, named_views, retrain_fleet, train_fleet
from dptrain.ledger import Account, note_read
from dptrain.models.front import WithFront
from dptrain.models.frozen import frozen_weights
from dptrain.models.gcn import GraphNetwork
from dptrain.plain import from_plain
from dptrain.plan import Guarantee, PrivacyPlan
from dptrain.progress import say
from dptrain.recipe import Performance, Recipe
from dptrain.release.loading import model_of
from dptrain.release.parts import needs_model
from dptrain.selected import plan_of
from dptrain.trainer import IDENTITY, Callback, Checkpoint, build_model, commitment_of
from evaluation import analysis
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.attributes import attributes, check_hidden
from evaluation.final_model import final_model
from evaluation.guarded import Bench
from evaluation.inversion.reconstructor import Reconstructor
from evaluation.jury import can_be_drawn, check_jury
from evaluation.known_others import Informed, known_others
from evaluation.links import links
from evaluation.membership import MembershipAttack, NotApplicable, gallery
from evaluation.membership.lira import log_likelihood_ratio
from evaluation.membership.signal import outputs_of, signal
from evaluation.membership.vulnerability import FALSE_POSITIVE_RATE, by_chance, exposure, save, vulnerability
from evaluation.node_attributes import node_attributes
from evaluation.plan import ATTACKS, EvaluationPlan
from evaluation.reconstructions import reconstructions
from evaluation.result import AttackResult, Calibration, Exposure, Measure, RunResult, Variant, read_run, write
from evaluation.secrets import secrets
from evaluation.shadows import Fleets
from evaluation.target import Kind, Target, kind_of
from evaluation.through_guards import attacks_without, known, stand_before, through_guards
from evaluation.utility import as_numbers, by_statistics, calibration, utility
from evaluation.without_graph import GAINED, floor, without_graph
from evaluation.without_graph import worth as what_it_is_worth


def evaluate(
    run: str | Path,
    data: DataSet,
    *,
    split: Split | None = None,
    plan: EvaluationPlan | None = None,
    model: nn.Module | None = None,
    retrain: Callable[[np.ndarray, int], nn.Module] | None = None,
    recipe: Recipe | None = None,
    twin: Recipe | None = None,
    fleet_folder: Path | None = None,
    performance: Performance | None = None,
    keep_others: bool = False,
    progress: bool = True,
    insecure_seed: int | None = None,
) -> RunResult:
    """Runs every attack of the plan on the checkpoint in ``run`` and writes ``evaluation/step=…/result.json`` there.

    Args:
        run: a folder with ``release/`` and ``private/split.npz``.
        data: the data set from which the split was drawn.
        split: members, non-members, population, public; left out, the one that was saved with the run.
        model: the architecture, where the card names no registered one.
        retrain: trains one shadow model by the target's own recipe.
        recipe: trains shadow models by itself; takes the place of ``retrain``.
        twin: of the non-private model that this one is held against, where some attack looks at it half trained.
        fleet_folder: where shadow models of a ``recipe`` are cached; left out, ``private/fleet`` of the run. Those that
            ``retrain`` makes are not cached: nothing says which version of it made them.
        keep_others: results of other attacks on the same weights stay in the file.
        insecure_seed: of shadow models, for debugging alone: repeatable batches and noise.

    Raises:
        CheckpointError: the checkpoint is not whole, or the split it was trained with is missing.
    """
    run, plan = Path(run), plan or EvaluationPlan()
    check_plan(plan, data, None if recipe is None else recipe.release.guard)
    views = views_of(plan, data)
    weights, card = load_release(run / "release")
    split = _split_of(run, data, split, card)
    step = int(card["steps_taken"])
    folder = run / "evaluation" / f"step={step:06d}"
    target = Target.open(run / "release", Access.WEIGHTS, model)
    target.bounds, target.classes = data.bounds, len(data.classes)
    target.kind = kind_of(data.targets)
    untrained = _untrained(card, run, weights)
    if data.graph is not None:
        for model_of_nodes in (target, untrained):
            if model_of_nodes is not None:
                model_of_nodes.bind(data.graph)
    stated, identity = _plan_of(card, run), _identity_of(run)
    ended = bool((card.get("early_stopping") or {}).get("stopped"))
    until = int(card["plan"]["steps"]) if ended else step  # shadow models end by their own early stopping
    note_read(run, Account(data.fingerprint, data.name), f"attacks on step {step}: {', '.join(plan.attacks) or 'none'}")
    started = time.monotonic()
    case = Case(
        target=target,
        untrained=untrained,
        data=data,
        split=split,
        plan=dataclasses.replace(stated, steps=max(until, 1)),
        evaluation=plan,
        seed=int(identity.get("seed", 0)),
        views=views,
        folder=folder,
        recipe=recipe,
        without_graph=None if data.graph is None else without_graph(recipe, data, split, int(identity.get("seed", 0))),
        twin=twin,
    )
    worth = _utility(case)  # first: of a model that training lost no attack says anything
    without_coins, rate = _coins(split, recipe)
    users = data.users.numpy() if split.drawn == "users" and data.users is not None else None
    asked = {"models": plan.shadow_models, "rate": rate, "test": without_coins, "views": views, "progress": progress}
    asked["users"] = users
    train: Callable[[], Fleet] | None = None
    if recipe is not None:
        train = partial(
            train_fleet,
            recipe,
            data,
            steps=until,
            folder=fleet_folder or run / "private" / "fleet",
            performance=performance,
            keep_weights=_asked_for_weights(plan, recipe),
            public=split.public if recipe.regularization.needs_public else None,
            insecure_seed=insecure_seed,
            **asked,
        )
    elif retrain is not None:
        train = partial(retrain_fleet, retrain, data, **asked)
    bare = fleets = Fleets(train)
    if recipe is not None and recipe.release.guard is not None:
        bench = Bench(recipe.release.guard, data, split, views)
        case = stand_before(case, bench)
        fleets = bare.behind(bench)
    names = attacks_without(plan)
    attacks = tuple(run_attack(case, name, fleets) for name in names)
    guarded = through_guards(case, run_attack, bare)
    attacked = hashlib.sha256((run / "release" / MANIFEST).read_bytes()).hexdigest()
    exposed, unsaid = _exposed(case, fleets.trained, run / "private", step, attacked)
    if keep_others and (folder / "result.json").exists():
        before = read_run(folder / "result.json")
        if before.release_digest == attacked:
            attacks = (*attacks, *(attack for attack in before.attacks if attack.name not in names))
            guarded = known(guarded, before.guarded)
            exposed = before.exposure if fleets.trained is None else exposed
    result = RunResult(
        label=str(identity.get("label", run.name)),
        variant=_variant(identity, stated),
        regularizer=str(identity.get("regularizer", "")),
        epsilon=_budget(card, identity) if case.is_private else float("inf"),
        delta=stated.delta if stated.is_private else None,
        seed=case.seed,
        step=step,
        steps=step if ended else int(card["plan"]["steps"]),
        utility=as_numbers(worth),
        attacks=attacks,
        guarantee=from_plain(Guarantee, card["guarantee"], str(run / "release" / "card.json")),
        plan=card["plan"],
        recipe_digest=str(card.get("recipe_digest", "")),
        split_digest=split.digest,
        data_fingerprint=data.fingerprint,
        notes=(
            *_notes(card),
            *_of_units(case),
            *_of_graph(case, worth),
            *unsaid,
            *(() if case.target.guard is None else (case.target.guard.statement(),)),
        ),
        release_digest=attacked,
        exposure=exposed,
        calibration=_calibration(case),
        release_guard="" if recipe is None else recipe.release.guard or "",
        guarded=guarded,
        seconds=round(time.monotonic() - started, 3),
    )
    write(result, folder / "result.json")
    return result


def run_attack(case: Case, name: str, fleets: Callable[[], Fleet | None]) -> AttackResult:
    """One attack, whatever becomes of it; its traceback is kept beside the result."""
    say(name)
    started = time.monotonic()
    trace = None if case.folder is None else case.folder / f"{name}.failed.txt"
    if trace is not None:
        trace.unlink(missing_ok=True)
    result = _attempt(case, name, fleets)
    return dataclasses.replace(result, seconds=round(time.monotonic() - started, 3))


def _attempt(case: Case, name: str, fleets: Callable[[], Fleet | None]) -> AttackResult:
    try:
        attack: Any = ATTACKS[name]()
        if isinstance(attack, MembershipAttack) or name.startswith("membership."):
            if case.split.drawn not in ("coins", "users"):
                how = {
                    "per_class": "has as many members of each class (data.split.per_class)",
                    "published": "is the published one (data.split.members_are)",
                }[case.split.drawn]
                raise NotApplicable(
                    f"the split {how}, so membership was not decided by a coin for each example, and such a figure could be "
                    "held against neither chance nor the plan's bound; split by shares to have membership attacks"
                )
            if attack.needs & {"fleet", "weights"}:
                case = dataclasses.replace(case, fleet=fleets())
            if "reference" in attack.needs:
                case = dataclasses.replace(case, reference=_reference(case))
            return analysis.membership(case, name, attack)
        if name.startswith("attribute."):
            return attributes(case, name, attack)
        if name.startswith("extraction."):
            return secrets(dataclasses.replace(case, reference=_reference(case)), name, attack)
        if name.startswith("link."):
            return links(case, name, attack)
        if name.startswith("node."):
            return node_attributes(case, name, attack)
        if isinstance(attack, Informed):
            return known_others(case, name, attack)
        if not case.data.inputs.is_floating_point():
            what = "words or characters" if case.data.graph is None else "numbers of nodes"
            raise NotApplicable(f"it looks for inputs that are measured, and these are {what}")
        if isinstance(attack, Reconstructor):
            return final_model(case, name, attack)
        return reconstructions(case, name, attack)
    except NotApplicable as missing:
        return AttackResult(name=name, status="not_applicable", reason=str(missing))
    except DiskError:  # no fault of the attack, and of no other one either
        raise
    except Exception as error:  # an attack is anyone's code: whatever it raises must not stop the others
        if case.folder is not None:
            write_file(case.folder / f"{name}.failed.txt", traceback.format_exc().encode())
        return AttackResult(name=name, status="failed", reason=f"{type(error).__name__}: {error}")


def _asked_for_weights(plan: EvaluationPlan, recipe: Recipe) -> bool:
    """Of shadow models: by an attack, or by a guard that is fitted on answers to inputs of its own."""
    guards = [guard for guard in (recipe.release.guard, *plan.guards) if guard is not None]
    return any("weights" in getattr(ATTACKS[name], "needs", ()) for name in plan.attacks) or any(map(needs_model, guards))


def callback(
    plan: EvaluationPlan,
    fleet_folder: Path,
    performance: Performance | None = None,
    progress: bool = True,
    twin: Recipe | None = None,
    insecure_seed: int | None = None,
) -> Callback:
    """A callback for :class:`~dptrain.trainer.Trainer`: every checkpoint is attacked the moment it exists.

    Args:
        twin: of the non-private model that the one in training is held against.
    """

    def attack(checkpoint: Checkpoint) -> None:
        evaluate(
            checkpoint.folder,
            checkpoint.data,
            split=checkpoint.split,
            plan=plan,
            recipe=checkpoint.recipe,
            twin=twin,
            fleet_folder=fleet_folder,
            performance=performance,
            progress=progress,
            insecure_seed=insecure_seed,
        )

    return attack


def check_plan(plan: EvaluationPlan, data: DataSet, guard: str | None = None, splits: Iterable[Split] = ()) -> None:
    """Refuses, before anything is trained, what no attack of the plan could do with this data set.

    Args:
        guard: that the recipe names.
        splits: of which models will be trained. Left out, an attack that a split does not serve says so when it runs.

    Raises:
        ConfigError: views of what is no picture, a hidden column that there is not, or a guard of scores that there are not
            or of random inputs that cannot be drawn.
        DataError: classes are to be inverted, and a split leaves nobody who could judge what comes out.
    """
    views_of(plan, data)
    check_hidden(plan, data)
    named = [f"release.guard is {guard!r}"] if guard is not None else []
    named += [f"evaluation.guards holds {text!r}" for text in plan.guards]
    if named and kind_of(data.targets) != "classification":
        what = "predicts a value" if data.value is not None else "says what comes next at each place of a sequence"
        raise ConfigError(
            f"{named[0]}, which stands before labels and scores of one class an example, and a model of {data.name} {what}; "
            "leave it out"
        )
    if guard is not None and needs_model(guard) and not data.inputs.is_floating_point():
        raise ConfigError(
            f"release.guard is {guard!r}, of which a part asks the model about random inputs, and those of {data.name} are "
            "words, or numbers of nodes; give another guard, such as labels5"
        )
    if any(name.startswith("inversion.") and not isinstance(ATTACKS[name](), Informed) for name in plan.attacks):
        for split in splits if can_be_drawn(data) else ():
            check_jury(data, split)


def views_of(plan: EvaluationPlan, data: DataSet) -> Views | None:
    """The views that the plan asks about beside the examples themselves.

    Raises:
        ConfigError: the examples are no pictures.
    """
    if plan.views > 1 and (data.kind != "image" or len(data.input_shape) != 3):
        raise ConfigError(
            f"evaluation.views is {plan.views}, and {data.name} holds no pictures, which alone can be moved or mirrored; leave "
            "it out, or give 1"
        )
    return named_views(plan.augment, plan.views)


def _split_of(run: Path, data: DataSet, given: Split | None, card: dict[str, Any]) -> Split:
    path = run / "private" / "split.npz"
    split = given
    if split is None:
        if not path.exists():
            raise CheckpointError(
                f"{path} is missing, and without the split it was trained with no attack on the checkpoint means anything; "
                "save with private.save(path, split=split), or pass split="
            )
        split = load_split(path)
    promised = card.get("split_commitment")
    if promised is not None and promised != split.digest:
        raise CheckpointError(f"the split given is not the one that {run} was trained with; pass the run's own split")
    if split.size != len(data):
        raise CheckpointError(f"the split is of {split.size} examples and the data set has {len(data)}; pass the same data")
    committed = card.get("data", {}).get("commitment")
    if committed is not None and committed != commitment_of(data, split):
        raise CheckpointError(
            f"the data set given is not the one that {run} was trained on, so who was in it is not known; pass the same data"
        )
    return split


def _coins(split: Split, recipe: Recipe | None) -> tuple[np.ndarray, float]:
    """Which examples are in no shadow model, and the rate of the others' coins, so that sets are as large as the target's.

    Those that are audited have coins: each is then in as many models as the set size allows. The others stay out of all
    models, as they stayed out of the target: population and public examples, and a test part.
    """
    without = np.setdiff1d(np.arange(split.size), split.audited)
    if recipe is None:
        return without, len(split.members) / len(split.audited)
    shares = recipe.data.split
    return without, shares.members / (shares.members + shares.non_members)


def _exposed(
    case: Case, fleet: Fleet | None, private: Path, step: int, release_digest: str
) -> tuple[Exposure | None, tuple[str, ...]]:
    """What :func:`_keep_vulnerability` finds; where it breaks, nothing but a note, and its traceback beside the result."""
    trace = None if case.folder is None else case.folder / "vulnerability.failed.txt"
    if trace is not None:
        trace.unlink(missing_ok=True)
    try:
        return _keep_vulnerability(case, fleet, private, step, release_digest), ()
    except DiskError:
        raise
    except Exception as error:  # as with an attack: it must not cost the attacks' results
        if trace is not None:
            write_file(trace, traceback.format_exc().encode())
        return None, (f"Which examples leak was not found out: {type(error).__name__}: {error}",)


def _keep_vulnerability(case: Case, fleet: Fleet | None, private: Path, step: int, release_digest: str) -> Exposure | None:
    """Which examples leak, where shadow models were trained: their list and the page's examples go to the private folder, how
    the leak is spread comes back."""
    if fleet is None:
        return None
    examples = case.examples(case.split.audited)
    signals, inside = signal(fleet.logits[:, examples.indices], examples.targets), fleet.membership[:, examples.indices]
    observed = signal(outputs_of(case.target.behind(Access.SCORES), examples.inputs, examples.targets), examples.targets)
    try:
        score = log_likelihood_ratio(observed, signals, inside)
        found = vulnerability(signals, inside, examples.indices, case.split.is_member, score)
    except UserError:  # too few models: the attacks say so
        return None
    save(found, private / f"vulnerability-step={step:06d}.csv")
    chosen = gallery.choose(found, case.data, release_digest=release_digest, seed=case.seed)
    gallery.save(chosen, private / gallery.name_of(step))
    allowed = case.example_curve
    permitted = None if allowed is None else allowed.true_positive_rate(FALSE_POSITIVE_RATE)
    return exposure(found, by_chance(signals, inside), permitted)


def _untrained(card: dict[str, Any], run: Path, weights: dict[str, Tensor]) -> Target | None:
    """Fresh weights of the same architecture, behind what public examples taught the target's front and its frozen layers; None
    where the card names no registered one."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2_000_003)
            model = model_of(card, run / "release")
    except CheckpointError:
        return None
    fixed = {name: value for name, value in weights.items() if name.startswith("front.") or name in ("released", "is_released")}
    if isinstance(model, (WithFront, GraphNetwork)):
        model.load_state_dict(fixed, strict=False)
    freeze = card["recipe"]["regularization"].get("freeze", 0)
    if freeze:
        model.load_state_dict({name: weights[name] for name in frozen_weights(model, freeze)}, strict=False)
    data = card["data"]
    kind: Kind = data.get("models", "classification" if data["classes"] else "regression")
    return Target(model, Access.WEIGHTS, bounds=tuple(data["bounds"]), classes=len(data["classes"]), kind=kind)


def _reference(case: Case) -> Target | None:
    """What every model of the recipe began from, where public text taught it, or it is a published one."""
    if case.recipe is None or not (case.recipe.pretraining.steps or case.recipe.model.name == "lora"):
        return None
    model = build_model(case.recipe, case.data, 0)  # a published one, before anything was learned beside it
    return Target(
        model, Access.WEIGHTS, bounds=case.data.bounds, classes=len(case.data.classes), kind=kind_of(case.data.targets)
    )


def _plan_of(card: dict[str, Any], run: Path) -> PrivacyPlan:
    return plan_of(card, str(run / "release" / "card.json"))


def _budget(card: dict[str, Any], identity: dict[str, Any]) -> float:
    """The budget that the recipe states, or the whole plan's of a script that is attended to; else it is what was spent. Of a
    model that was chosen out of several they state that of one training, and what was spent is more."""
    chosen = card.get("selection") is not None
    stated = None if chosen else card.get("recipe", {}).get("privacy", {}).get("epsilon", identity.get("epsilon"))
    return float(card["guarantee"]["epsilon"] if stated is None else stated)


def _identity_of(run: Path) -> dict[str, Any]:
    """Label, variant, regularizer and seed as the trainer kept them; a script keeps none."""
    path = run / "private" / IDENTITY
    return unpack_json(path.read_bytes(), path) if path.exists() else {}


def _variant(identity: dict[str, Any], plan: PrivacyPlan) -> Variant:
    if identity.get("variant") is not None:
        return identity["variant"]
    if plan.is_private:
        return "dp"
    return "non_private" if np.isinf(plan.clipping_norm) else "clip_only"


def _calibration(case: Case) -> Calibration | None:
    held_out = case.examples(case.split.held_out)
    return calibration(case.target, held_out.inputs, held_out.targets, case.data)


def _utility(case: Case) -> tuple[Measure, ...]:
    held_out = case.examples(case.split.held_out)
    found = utility(case.target, held_out.inputs, held_out.targets, case.data)
    if case.without_graph is not None:
        found = (*found, *floor(case.target, case.without_graph, held_out.inputs, held_out.targets))
    if case.plan is None or not case.is_private:
        return found
    members, others = (torch.from_numpy(part) for part in (case.split.members, case.split.held_out))
    beside = by_statistics(case.data, members, others, case.plan.guarantee().epsilon, case.plan.delta)
    return found if beside is None else (*found, beside)


def _of_units(case: Case) -> tuple[str, ...]:
    """Whom attacks guess at, where the unit is the user."""
    guessed = any(name.startswith(("membership.", "attribute.")) for name in case.evaluation.attacks)
    if case.plan is None or case.plan.unit != "user" or not guessed:
        return ()
    if case.split.drawn == "users":
        return (
            "The unit of privacy is the user, and one coin a user decided whether all of their examples were trained on: "
            "membership attacks guess at users, by the mean of the scores of a user's examples, and are held against what the "
            "plan permits of one user.",
        )
    if not case.is_private:
        return ()
    return (
        "The unit of privacy is the user, and membership and attribute attacks guess at single examples, whose user may be in "
        "the training set with others: what is permitted there is what the plan permits where a user's contribution is "
        "exchanged for another, which is more than where a user is added or removed.",
    )


def _of_graph(case: Case, worth: tuple[Measure, ...]) -> tuple[str, ...]:
    """Where the graph is not worth its noise."""
    said = [what_it_is_worth(measure, case.is_private) for measure in worth if measure.name == GAINED]
    return tuple(sentence for sentence in said if sentence is not None)


def _notes(card: dict[str, Any]) -> tuple[str, ...]:
    if not card.get("insecure_randomness"):
        return ()
    return ("Batches and noise came from a fixed seed: whoever knows it can remove the noise. Not a guarantee.",)
