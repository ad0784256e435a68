"""What the entries of a data set's account amount to: its runs, and what they have spent together.

    books = Books(entries, name="digits")
    books.statement().spent[0].epsilon

Computes, and reads and writes no file.

**Composition.** All runs with a guarantee are composed as if each had read every unit: which of the data set's examples a run
was trained on hangs on its split, and who is in several splits is nobody's to know, so the worst case stands for all. ε is
PLD's (Doroshenko et al. 2022), over every block of steps that was announced and not settled; above :data:`COARSE` it is RDP's
upper bound, as there nobody asks for the digits and PLD takes minutes. It is never below the largest ε that one of the runs
states for itself, by whichever accountant.

**Units and relations** are never added up. An ε for one example says nothing of a user with fifty, and one under
``replace_one``, between data sets of the same size, says nothing of a data set with one example less: neither follows from the
other, so that no common neighbours are left for which a sum would hold. Each pair of unit and relation has a line of its own.

**δ.** ε is stated at one δ for all runs of a line: the stated total's where there is one, otherwise the smallest that one of
the runs states, at which every run's ε is at least its own.

**Selections.** The sum over all runs holds each training of a private selection. Beside it stands the sum in which the choice
is charged as a whole, in place of its trainings, by basic composition: ε and δ add. That one is true where the chosen run alone
is ever released, and it is what a stated total is held against. A run that goes on behind its selection counts by itself, and
so does one that says it is of a selection and comes after its end, or announces a plan that the selection did not.

**Without a guarantee** nothing is composed: whoever published something of such a run has published it without a bound. How
many there were is said beside the rest.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dptrain.errors import PlanError
from dptrain.ledger.chain import Entry
from dptrain.ledger.training import Block, blocks_of, joined
from dptrain.plain import from_plain
from dptrain.plan import PrivacyPlan

if TYPE_CHECKING:
    from dp_accounting import DpEvent

Status = Literal["done", "stopped", "failed", "unfinished"]
Unprotected = Literal["refused", "allowed"]
COARSE = 50.0
"""ε above which RDP's upper bound is precise enough."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What runs have spent together, of one unit and relation."""

    unit: str
    relation: str
    delta: float
    runs: int
    steps: int
    epsilon: float
    """Composed over all of them."""
    largest: float
    """ε of the single run that spent most."""


@dataclass(frozen=True, kw_only=True)
class Selected:
    """A private selection: a best run was chosen among several, and its choice was paid for (Papernot & Steinke 2022)."""

    name: str
    runs: int
    distribution: str
    mean: float
    epsilon: float
    delta: float
    chosen: str


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a data set has spent."""

    data: str
    """Its fingerprint, or the name by which its owner knows it."""
    name: str
    entries: int
    runs: int
    without_guarantee: int
    failed: int
    unfinished: int
    """Under way, or killed: all steps that they announced are counted."""
    spent: tuple[Spent, ...]
    """A line a unit and relation, over the runs with a guarantee."""
    selected: tuple[Selected, ...]
    only_selected: tuple[Spent, ...]
    """The same, where of each selection the chosen run alone is ever released: with the selection's ε and δ, which add up, in
    place of its runs'."""
    limit_epsilon: float | None
    limit_delta: float | None


@dataclass(frozen=True, kw_only=True)
class Total:
    """How much may be spent together."""

    epsilon: float
    delta: float
    unprotected: Unprotected = "refused"
    """Of runs without a guarantee, whose ε is infinite: `refused`, or `allowed` where nothing of them leaves the machine."""
    how: str = "dptrain ledger limit"
    """Where it was stated."""

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise PlanError(f"a total ε of {self.epsilon:g} was given; give a number above 0, such as 10")
        if not 0 < self.delta < 1:
            raise PlanError(f"a total δ of {self.delta:g} was given; give one below 1/N, such as 1e-5")


@dataclass(frozen=True)
class Charge:
    """A private selection as a whole: what its choice costs where the chosen run alone is released."""

    unit: str
    relation: str
    epsilon: float
    delta: float


@dataclass(frozen=True)
class Run:
    """One run, and what it announced."""

    name: str
    about: dict[str, Any]
    began: str
    blocks: tuple[Block, ...]
    status: Status = "unfinished"
    why: str = ""

    @property
    def has_guarantee(self) -> bool:
        """Also where no step was announced, or none of them was taken: nothing was released then."""
        return all(block.plan.is_private for block in self.blocks if block.last > block.first)

    @property
    def steps(self) -> int:
        return sum((block.last - block.first) * block.times for block in self.blocks)

    def epsilon(self, delta: float | None = None) -> float:
        """Of this run alone, at its own δ where none is given."""
        if not self.has_guarantee:
            return math.inf
        spent = _grouped([self], delta)
        return max((line.epsilon for line in spent), default=0.0)


@dataclass
class _Open:
    about: dict[str, Any] = field(default_factory=dict)
    began: str = ""
    entries: list[Entry] = field(default_factory=list)
    status: Status = "unfinished"
    why: str = ""


class Books:
    """Of one data set, from all entries of its account, in the order in which they were written."""

    def __init__(self, entries: Sequence[Entry], data: str = "", name: str = ""):
        self.data, self.entries, self.limit = data, len(entries), None
        self.selections: list[Entry] = []
        self._beyond: set[str] = set()
        """Runs that went on after their selection was over, or by another plan: no part of it, so that they count alone."""
        self.reads: list[Entry] = []
        self.name = name
        self.limit: Total | None = None
        opened: dict[str, _Open] = {}
        for entry in entries:
            kind, run = entry["kind"], str(entry.get("run", ""))
            if kind in ("run", "reserve", "settle", "close"):
                one = opened.setdefault(run, _Open())
                one.began = one.began or str(entry["time"])
                one.entries.append(entry)
            if kind == "run":
                self.name = self.name or str(entry.get("name", ""))
                opened[run].about = opened[run].about or dict(entry["about"])
            if kind == "reserve" and any(run in told["runs"] for told in self.selections):
                self._beyond.add(run)
            if kind in ("run", "reserve"):
                opened[run].status, opened[run].why = "unfinished", ""
            elif kind == "close":
                opened[run].status, opened[run].why = entry["status"], str(entry.get("why", ""))
            elif kind == "limit":
                self.name = self.name or str(entry.get("name", ""))
                self.limit = Total(
                    epsilon=float(entry["epsilon"]), delta=float(entry["delta"]), unprotected=entry["unprotected"]
                )
            elif kind == "select":
                known = str(entry.get("id", ""))
                self.selections = [one for one in self.selections if not known or one.get("id") != known]
                self.selections.append(entry)
            elif kind == "read":
                self.reads.append(entry)
        self.runs = [
            Run(name, one.about, one.began, tuple(joined(blocks_of(one.entries, data))), one.status, one.why)
            for name, one in opened.items()
        ]
        by_name = {run.name: run for run in self.runs}
        for entry in self.selections:
            self._beyond |= {name for name in self.members(entry) if not _keeps_to(entry, by_name[name].blocks)}

    @property
    def blocks(self) -> set[str]:
        """Names of all that were announced; of blocks that follow each other, of the last one."""
        return {block.name for run in self.runs for block in run.blocks}

    def statement(self, delta: float | None = None) -> Statement:
        """What was spent, at ``delta``; see the module's text for where it is left out."""
        runs, limit = self.runs, self.limit
        if delta is None and limit is not None:
            delta = limit.delta
        guaranteed = [run for run in runs if run.has_guarantee and run.steps]
        return Statement(
            data=self.data,
            name=self.name,
            entries=self.entries,
            runs=len(runs),
            without_guarantee=sum(not run.has_guarantee for run in runs),
            failed=sum(run.status == "failed" for run in runs),
            unfinished=sum(run.status == "unfinished" for run in runs),
            spent=_grouped(guaranteed, delta),
            selected=tuple(self._selected()),
            only_selected=self._only_selected(guaranteed, delta),
            limit_epsilon=None if limit is None else limit.epsilon,
            limit_delta=None if limit is None else limit.delta,
        )

    def is_of_a_selection(self, name: str, blocks: Sequence[Block]) -> bool:
        """Whether this run is one training of a selection that was announced and is under way, and these blocks are by a plan
        that it announced."""
        return name not in self._beyond and any(
            not _is_over(entry) and name in self.members(entry) and _keeps_to(entry, blocks) for entry in self.selections
        )

    def _chosen_among(self) -> set[str]:
        """Runs in whose place a selection is charged."""
        return {name for entry in self.selections for name in self.members(entry)} - self._beyond

    def members(self, entry: Entry) -> list[str]:
        """The runs of a selection, in their order: those that it names; while it is under way, those that say so."""
        known = "" if _is_over(entry) else str(entry.get("id", ""))
        of_it = {run.name for run in self.runs if known and run.about.get("selection") == known}
        return [run.name for run in self.runs if run.name in {*entry["runs"], *of_it}]

    def _charges(self) -> list[Charge]:
        """Of each selection, once for each unit and relation."""
        runs, found = {run.name: run for run in self.runs}, []
        for entry in self.selections:
            pairs = {(entry["unit"], entry["relation"])} if "unit" in entry else set()
            pairs |= {(block.plan.unit, block.plan.relation) for name in self.members(entry) for block in runs[name].blocks}
            found += [Charge(*pair, float(entry["epsilon"]), float(entry["delta"])) for pair in sorted(pairs)]
        return found

    def _selected(self) -> Iterable[Selected]:
        for entry in self.selections:
            yield Selected(
                name=entry["name"],
                runs=len(self.members(entry)),
                distribution=entry["distribution"],
                mean=float(entry["mean"]),
                epsilon=float(entry["epsilon"]),
                delta=float(entry["delta"]),
                chosen=entry["chosen"],
            )

    def _only_selected(self, runs: list[Run], delta: float | None) -> tuple[Spent, ...]:
        """A run that is in several selections is paid for in each."""
        if not self.selections:
            return ()
        among, charges = self._chosen_among(), self._charges()
        if self.limit is not None and delta is not None:  # the selections' δ are a part of what the total allows
            delta = max(delta - sum(charge.delta for charge in charges), delta / 1e3)
        lines = {(line.unit, line.relation): line for line in _grouped([run for run in runs if run.name not in among], delta)}
        for charge in charges:
            before = lines.get((charge.unit, charge.relation))
            lines[charge.unit, charge.relation] = Spent(
                unit=charge.unit,
                relation=charge.relation,
                delta=charge.delta + (before.delta if before else 0.0),
                runs=before.runs if before else 0,
                steps=before.steps if before else 0,
                epsilon=charge.epsilon + (before.epsilon if before else 0.0),
                largest=max(charge.epsilon, before.largest if before else 0.0),
            )
        for run in runs:
            for pair in {(block.plan.unit, block.plan.relation) for block in run.blocks} if run.name in among else ():
                lines[pair] = dataclasses.replace(lines[pair], runs=lines[pair].runs + 1, steps=lines[pair].steps + run.steps)
        return tuple(lines[pair] for pair in sorted(lines))

    def check(self, total: Total, more: Sequence[Block], charge: Charge | None = None, run: str = "") -> float:
        """Refuses blocks with which ``total`` would be passed, or a selection; gives the ε that is spent with them.

        Of selections that were announced the choice is charged in place of the trainings, by basic composition: ε and δ add.

        Args:
            run: whose blocks they are, where they are no part of a selection: if it was in one, it counts by itself with them.

        Raises:
            PlanError: it would be passed, something without a guarantee is not allowed, or units or relations differ.
        """
        if math.isinf(total.epsilon):
            return math.inf
        name = self.name or self.data[:12]
        stated = f"the total of ε = {total.epsilon:g} that `{total.how}` states for the data set {name}"
        if total.unprotected == "refused":
            self._check_unprotected(stated, more, charge)
        added = [block for block in more if block.plan.is_private]
        if not added and charge is None:
            return 0.0
        among = self._chosen_among() - {run}
        before = [block for run in self.runs if run.has_guarantee and run.name not in among for block in run.blocks]
        charges = self._charges()
        new = [*charges, charge] if charge else charges
        pairs = sorted(
            {(block.plan.unit, block.plan.relation) for block in (*before, *added)} | {(one.unit, one.relation) for one in new}
        )
        if len(pairs) > 1:
            promised = " and ".join(f"one {unit} ({relation})" for unit, relation in pairs)
            raise PlanError(
                f"{stated} would be shared by promises to {promised}, which nobody can add up; train under the unit and the "
                "relation of the earlier runs"
            )
        delta, chosen = total.delta - sum(one.delta for one in new), sum(one.epsilon for one in new)
        blocks = [*before, *added]
        if delta < -1e-9 * total.delta or (delta <= 1e-9 * total.delta and blocks):  # alone, a selection may use all of it
            raise PlanError(
                f"{stated} allows δ = {total.delta:g}, and the choices of {len(new)} private selections, whose δ "
                "add up, leave nothing of it; select with a smaller --privacy.delta, or state a total with a larger δ"
            )
        if (bound := (_bound(blocks, delta) if blocks else 0.0) + chosen) <= total.epsilon:
            return bound  # what holds for a bound holds, and takes no second under a lock
        spent = _composed(blocks, delta) + chosen
        if spent <= total.epsilon:
            return spent
        earlier = _composed(before, total.delta - sum(one.delta for one in charges)) + sum(one.epsilon for one in charges)
        raise PlanError(
            f"{stated} would be passed: ε = {earlier:.4g} was spent before, and {spent:.4g} would be "
            f"with this, at δ = {total.delta:g}; give smaller budgets, fewer seeds or fewer updates, and see what was spent "
            f"by `dptrain ledger {name}`"
        )

    def _check_unprotected(self, stated: str, more: Sequence[Block], charge: Charge | None) -> None:
        unprotected = sum(not run.has_guarantee for run in self.runs)
        if any(not block.plan.is_private for block in more):
            raise PlanError(
                f"{stated} is passed by any run without a guarantee, whose ε is infinite; leave out epsilon inf and baselines "
                "(--epsilons 4 2 --baselines), or say that nothing of such runs ever leaves this machine: --unprotected allowed"
            )
        if unprotected and (more or charge):
            raise PlanError(
                f"{stated} was passed by {unprotected} earlier runs without a guarantee, whose ε is infinite; where nothing of "
                "them ever leaves this machine, say so: --unprotected allowed"
            )


def _is_over(entry: Entry) -> bool:
    """Whether a selection has said which runs it had."""
    return bool(entry.get("over", entry["runs"]))


def _keeps_to(entry: Entry, blocks: Iterable[Block]) -> bool:
    """Whether blocks are by plans that a selection announced; true of all where it announced none."""
    plans = entry.get("plans")
    if plans is None:
        return True
    known = {from_plain(PrivacyPlan, plan, "a selection's plan") for plan in plans}
    return all(block.plan in known for block in blocks if block.last > block.first)


def _grouped(runs: Iterable[Run], delta: float | None) -> tuple[Spent, ...]:
    groups: dict[tuple[str, str], list[tuple[Run, list[Block]]]] = {}
    for run in runs:
        for pair in {(block.plan.unit, block.plan.relation): None for block in run.blocks}:
            own = [block for block in run.blocks if (block.plan.unit, block.plan.relation) == pair]
            groups.setdefault(pair, []).append((run, own))
    return tuple(_spent(pair, groups[pair], delta) for pair in sorted(groups))


def _spent(pair: tuple[str, str], members: list[tuple[Run, list[Block]]], delta: float | None) -> Spent:
    blocks = [block for _, own in members for block in own]
    at = min(block.plan.delta for block in blocks) if delta is None else delta
    largest = max(_single(own, at) for _, own in members)
    return Spent(
        unit=pair[0],
        relation=pair[1],
        delta=at,
        runs=len(members),
        steps=sum((block.last - block.first) * block.times for block in blocks),
        epsilon=max(largest, _composed(blocks, at)) if len(members) > 1 else largest,
        largest=largest,
    )


def _single(blocks: list[Block], delta: float) -> float:
    """ε of one run, by the accountant that its card states."""
    return _epsilon(_parts(blocks), delta, blocks[0].plan.relation, by="card")


def _composed(blocks: list[Block], delta: float) -> float:
    return _epsilon(_parts(blocks), delta, blocks[0].plan.relation, by="pld") if blocks else 0.0


def _bound(blocks: list[Block], delta: float) -> float:
    from dp_accounting import ComposedDpEvent

    from dptrain import accounting

    return accounting.epsilon_bound(ComposedDpEvent([block.event() for block in blocks]), delta)


def _parts(blocks: Iterable[Block]) -> "frozenset[tuple[DpEvent, int]]":
    """The mechanisms that blocks applied, and how often each."""
    from dp_accounting import ComposedDpEvent

    from dptrain import accounting

    return frozenset(accounting.merged(ComposedDpEvent([block.event() for block in blocks])))


@functools.lru_cache(maxsize=512)
def _epsilon(parts: "frozenset[tuple[DpEvent, int]]", delta: float, relation: str, by: Literal["card", "pld"]) -> float:
    """Remembered: it takes up to some seconds."""
    from dp_accounting import ComposedDpEvent, SelfComposedDpEvent

    from dptrain import accounting

    if not parts:
        return 0.0
    event = ComposedDpEvent([SelfComposedDpEvent(leaf, times) for leaf, times in sorted(parts, key=repr)])
    if not accounting.is_pure(event) and (bound := accounting.epsilon_bound(event, delta)) > COARSE:
        return bound
    if by == "card":
        return accounting.epsilon(event, delta, relation)
    return accounting.epsilon_pld(event, delta, relation)


def blocks_to_come(plans: Iterable["PrivacyPlan | tuple[PrivacyPlan, int]"]) -> list[Block]:
    """The blocks that plans would take, each from its first step, or from the given one."""
    found = []
    for index, item in enumerate(plans):
        plan, first = item if isinstance(item, tuple) else (item, 0)
        if first < plan.steps:
            found.append(Block(f"to come {index}", f"to come {index}", plan, first, plan.steps))
    return found
