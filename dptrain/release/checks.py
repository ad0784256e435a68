"""What a model must stand before it is published, as far as its own folder tells: whole, unchanged, and accounted for.

    run = Released.read(Path("runs/digits/eps=08.00/seed=0"))
    checks = [*of_release(run), *of_account(run, policy)]
    [check for check in checks if check.verdict != "met"]

A check says what was found, what is required, and what to do where the two do not fit. One that cannot be judged is no better
than one that failed.

**The account.** ε is counted anew from every update that the training's ledger reserved, by two accountants, also of updates
that were never reached, and must not lie above what the card states. A ledger that ends early says less than was spent, and no
hash tells: so its blocks must cover every update that the card counts, and be of the data to which the card commits
(:func:`dptrain.trainer.commitment_of`). A card that a script saved commits to none: of its ledger it is known only that all
blocks are of the same data. Other trainings on the same data have ledgers of their own, and nothing here composes them. Of a
model that was chosen out of several (:mod:`dptrain.selected`) ε is that of the choice, in which its own ledger stands for each
of them where it counts more than their plans do.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from dptrain.checkpoint import MANIFEST, read_folder, unpack_json, unpack_tensors
from dptrain.data.split import load as load_split
from dptrain.errors import CheckpointError, UserError
from dptrain.ledger import Ledger
from dptrain.plain import from_plain
from dptrain.plan import PrivacyPlan
from dptrain.release.names import as_published, in_no_text
from dptrain.release.policy import Policy
from dptrain.rounding import up
from dptrain.selected import selection_of
from dptrain.selection import count

Outcome = Literal["met", "not met", "cannot be judged"]
WEIGHTS, CARD = "model.safetensors", "card.json"
ROUNDING = 1e-9
"""By which two counts of the same updates may differ."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition of a release."""

    name: str
    """Such as ``ledger`` or ``maximum_tpr``."""
    verdict: Outcome
    found: str
    """For whoever owns the model: it may be a figure of private examples."""
    required: str
    to_do: str = ""
    """What to type or change; empty where it is met."""


@dataclass(frozen=True, eq=False)
class Released:
    """A run's ``release/``, read once: what is judged is what is published, to the bit."""

    run: Path
    content: bytes
    """Of the weights' file."""
    weights: dict[str, Tensor]
    card: dict[str, Any]
    digest: str
    """SHA-256 of its manifest, by which results name what they attacked."""
    plan: PrivacyPlan
    epsilon: float
    """That the card states; infinity where nothing is promised."""

    @classmethod
    def read(cls, run: Path) -> "Released":
        """The release below ``run``.

        Raises:
            CheckpointError: it is missing, incomplete or changed, holds what its manifest does not name, or is no release.
        """
        folder = run / "release"
        files = read_folder(folder)
        missing = [name for name in (WEIGHTS, CARD) if name not in files]
        if missing:
            raise CheckpointError(f"{folder} holds no {missing[0]}, so it is not a release; restore it from a copy")
        strangers = sorted(files.keys() - {WEIGHTS, CARD})
        if strangers:
            raise CheckpointError(
                f"{folder / strangers[0]} is named by the manifest and is no part of a release, which holds weights and card "
                "alone; restore the folder from a copy"
            )
        card = unpack_json(files[CARD], folder / CARD)
        try:
            plan = from_plain(PrivacyPlan, card["plan"], str(folder / CARD))
            epsilon, _ = float(card["guarantee"]["epsilon"]), int(card["steps_taken"])
            if not epsilon >= 0:
                raise ValueError(f"its ε is {epsilon}")
            digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise CheckpointError(f"{folder / CARD} is no release card: {error}; restore it from a copy") from None
        return cls(run, files[WEIGHTS], unpack_tensors(files[WEIGHTS], folder / WEIGHTS), card, digest, plan, epsilon)

    @property
    def steps(self) -> int:
        return int(self.card["steps_taken"])


def of_release(released: Released) -> Iterator[Check]:
    """Of the folder, which has been read: what it holds."""
    yield Check(
        name="manifest",
        verdict="met",
        found=f"{WEIGHTS} and {CARD}, unchanged, and nothing else",
        required="every file as it was saved, and no other",
    )
    broken = sorted(name for name, value in released.weights.items() if not bool(value.isfinite().all()))
    yield Check(
        name="weights",
        verdict="not met" if broken else "met",
        found=f"NaN or infinity in {broken[0]}" if broken else "finite numbers",
        required="finite numbers",
        to_do="lower optimizer.learning_rate and train into another folder" if broken else "",
    )
    insecure = bool(released.card.get("insecure_randomness", True))
    yield Check(
        name="randomness",
        verdict="not met" if insecure else "met",
        found="a fixed seed: whoever guesses it removes the noise" if insecure else "from the operating system",
        required="noise and batches that nobody can draw again",
        to_do="train without insecure_seed into another folder; never publish this model" if insecure else "",
    )
    garbled = ", ".join(map(ascii, in_no_text(as_published(released.card))))
    yield Check(
        name="names",
        verdict="not met" if garbled else "met",
        found=f"{garbled}, which is no UTF-8" if garbled else "UTF-8",
        required="names of classes and inputs that a server can answer with",
        to_do="rename the folders or the columns of the data in UTF-8, and train into another folder" if garbled else "",
    )


def of_account(released: Released, policy: Policy) -> tuple[tuple[Check, ...], float]:
    """Of ε and δ against card, ledger and policy; and the ε that is to be stated."""
    if not released.plan.is_private:
        return (_bounded(math.inf, policy), *_of_delta(None, policy)), math.inf
    kept = f"{released.run / 'private' / 'ledger.jsonl'} and split.npz beside it"
    restore = f"restore {kept} from a copy; without them, train into another folder"
    required = f"every update accounted for, and no more than the card's ε = {up(released.epsilon, 4)}"
    try:
        counted = _counted(released)
    except (UserError, KeyError, TypeError) as error:
        ledger = Check(name="ledger", verdict="cannot be judged", found=str(error), required=required, to_do=restore)
        unknown = Check(
            name="maximum_epsilon",
            verdict="cannot be judged",
            found="unknown without the ledger",
            required=_at_most("ε", policy.maximum_epsilon),
            to_do=restore,
        )
        bounded = () if policy.maximum_epsilon is None else (unknown,)
        return (ledger, *bounded, *_of_delta(released.plan.delta, policy)), math.inf
    above = not counted <= released.epsilon + ROUNDING
    refused = above and policy.ledger_above_card == "refuse"
    stated = max(counted, released.epsilon)
    ledger = Check(
        name="ledger",
        verdict="not met" if refused else "met",
        found=f"ε = {up(counted, 4)} for all that it counts{', stated in place of the card' if above and not refused else ''}",
        required=required,
        to_do="train into another folder; or, where a crash left updates behind that nobody has seen, give the policy "
        'ledger_above_card = "state", and the model card states this ε'
        if refused
        else "",
    )
    bounded = () if policy.maximum_epsilon is None else (_bounded(stated, policy),)
    return (ledger, *bounded, *_of_delta(released.plan.delta, policy)), stated


def _counted(released: Released) -> float:
    """ε of everything that the ledger counts.

    Raises:
        UserError: it is missing or changed, is of other data, or does not cover the card's updates; or the split is missing,
            without whose salt it is not known of which data it is.
    """
    from dptrain import accounting

    ledger = Ledger(released.run / "private" / "ledger.jsonl")
    if not ledger.path.exists():
        raise CheckpointError("there is no ledger")
    entries, blocks = ledger.entries(), ledger.blocks()
    if len({entry["data"] for entry in entries}) > 1:
        raise CheckpointError("the ledger counts trainings on several data sets")
    committed = released.card.get("data", {}).get("commitment")
    if committed is not None and entries:
        salt = load_split(released.run / "private" / "split.npz").salt
        if committed != hashlib.sha256(salt + entries[0]["data"].encode()).hexdigest():
            raise CheckpointError("the ledger, or the split beside it, is of other data than the card commits to")
    counted = {step for plan, first, last in blocks if plan == released.plan for step in range(first, last)}
    missing = released.steps - len(counted & set(range(released.steps)))
    if missing:
        raise CheckpointError(f"the ledger lacks {missing} of the card's {released.steps} updates under its plan")
    selection = selection_of(released.card, str(released.run / "release" / CARD))
    if selection is not None:
        events = [*selection.events(), selection.with_score(ledger.event())]
        return count(events, selection.runs, released.plan.delta, released.plan.relation).epsilon
    return accounting.count(ledger.event(), released.plan.delta, released.plan.relation).epsilon


def _bounded(epsilon: float, policy: Policy) -> Check:
    """Without a guarantee this stands also where the policy does not ask: it has to say that infinity is meant."""
    most = policy.maximum_epsilon
    met = most is not None and epsilon <= most
    return Check(
        name="maximum_epsilon",
        verdict="met" if met else "not met",
        found="no guarantee (ε = ∞)" if math.isinf(epsilon) else f"ε = {up(epsilon, 4)}",
        required=_at_most("ε", most) if most is not None else "a guarantee, or a policy with maximum_epsilon = inf",
        to_do="" if met else "train with a smaller budget, such as --epsilons 4, or give another policy",
    )


def _of_delta(delta: float | None, policy: Policy) -> Iterator[Check]:
    if policy.maximum_delta is None:
        return
    met = delta is not None and delta <= policy.maximum_delta
    yield Check(
        name="maximum_delta",
        verdict="met" if met else "not met",
        found="no guarantee" if delta is None else f"δ = {delta:g}",
        required=_at_most("δ", policy.maximum_delta),
        to_do="" if met else f"train with --privacy.delta {policy.maximum_delta:g}, or give another policy",
    )


def _at_most(symbol: str, most: float | None) -> str:
    return f"{symbol} ≤ {most:g}"
