"""What a data set has spent, over all runs, for good: outside of run folders, so that no run's end takes it along.

    account = Account(data.fingerprint, data.name)
    run = account.open({"label": "eps=08.00/seed=0", "guarantee": "gaussian"})
    block = account.reserve(run, plan, 0, plan.steps)      # before any step
    account.close(run, "done")
    account.statement().spent                              # composed over all runs

One file a data set, ``<folder>/<fingerprint>.jsonl``, its owner's alone, added to by all processes of this machine (or of
all that share the folder). The fingerprint is of the content: the same data under another name or path is the same data. A
data set that is changed by one example is another one, whose account begins empty; where that is not meant, as with data
that grow, its owner names the account instead. Whoever has a copy of the data and another folder has another account: no file
on one machine can know what was done on the next. A run whose folder is copied there brings its own blocks along.

Entries, besides what :mod:`dptrain.ledger.training` writes: ``run`` (it will read the data), ``reserve`` and ``settle`` with
the run's name, ``close``, ``read`` (without training: attacks), ``limit``, ``select``.
"""

import hashlib
import math
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from dptrain.errors import LedgerError, PlanError, unknown_name
from dptrain.ledger.books import Books, Charge, Run, Statement, Total, Unprotected, blocks_to_come
from dptrain.ledger.chain import Chain, Entry, Held
from dptrain.ledger.training import Block, Ledger, announced, blocks_of
from dptrain.plain import as_plain
from dptrain.plan import PrivacyPlan

Ended = Literal["done", "stopped", "failed"]
WAY_OUT = "free some space, or give another folder by the environment variable DPTRAIN_LEDGER"
PART = "@"
"""Between a block's name and the step up to which a checkpoint knew of it."""
NAMED = "name="
"""Before the name that an owner gave, where a fingerprint would stand."""


def folder() -> Path:
    """Where accounts are kept: ``DPTRAIN_LEDGER``, else ``$XDG_STATE_HOME/dptrain/ledger``, else below ``~/.local/state``."""
    given = os.environ.get("DPTRAIN_LEDGER", "")
    if given:
        return Path(given).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME", "")
    if state and Path(state).is_absolute():
        return Path(state) / "dptrain" / "ledger"
    try:
        return Path.home() / ".local" / "state" / "dptrain" / "ledger"
    except RuntimeError:
        raise LedgerError(
            "there is no home folder to keep ledgers in; name one by the environment variable DPTRAIN_LEDGER"
        ) from None


def named(name: str) -> str:
    """What stands for a fingerprint where an owner names the data set.

    Raises:
        LedgerError: it cannot be the name of a file.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        raise LedgerError(f"account is {name!r}; give letters, digits, dots and dashes, such as patients-2026")
    return NAMED + name


@dataclass(frozen=True)
class Account:
    """One data set's."""

    data: str
    """Fingerprint of its content, or what :func:`named` gives."""
    name: str = ""
    place: Path | None = None
    """The folder; left out, :func:`folder`."""

    @property
    def path(self) -> Path:
        fits = re.fullmatch(r"[A-Za-z0-9=][A-Za-z0-9._=-]{0,99}", self.data)
        stem = self.data if fits else hashlib.sha256(self.data.encode()).hexdigest()
        return (self.place or folder()) / f"{stem}.jsonl"

    @property
    def _chain(self) -> Chain:
        return Chain(self.path, WAY_OUT, 0o700)

    def _append(self, entry: Entry) -> None:
        self._chain.append({**entry, "data": self.data})

    def _write(self, held: Held, entry: Entry) -> None:
        held.append({**entry, "data": self.data})

    # -- what a run does ----------------------------------------------------------------------------------------------

    def open(self, about: dict[str, Any]) -> str:
        """Says that a run will read the data, before it does; gives the run's name.

        Args:
            about: what is to be known of it, such as label, variant, folder; ``run`` where it goes on under its old name, and
                ``guarantee`` ``"none"`` where it promises nothing.

        Raises:
            LedgerError: the account was changed, or cannot be written.
        """
        rest = {key: as_plain(value) for key, value in about.items() if key != "run"}
        run = str(about.get("run") or secrets.token_hex(6))
        with self._chain.held() as held:
            held.entries()  # an account that was changed is found before it is added to
            self._write(held, {"kind": "run", "run": run, "name": self.name, "about": rest})
        return run

    def reserve(
        self,
        run: str,
        plan: PrivacyPlan,
        first: int,
        last: int,
        draw: str = "",
        *,
        times: int = 1,
        total: Total | None = None,
    ) -> str:
        """Announces the steps ``first`` to ``last - 1`` of a run, before they are taken; gives the block's name.

        Args:
            times: how many trainings take them, each for itself.
            total: held besides the one that is stated for the data set. Trainings of a selection that was announced, by the
                plans that it announced, are held against none: it was, as a whole.

        Raises:
            PlanError: a total would be passed; nothing was announced.
            LedgerError: it could not be written.
        """
        entry = announced(plan, first, last, draw)
        block = Block(entry["block"], entry["draw"], plan, first, last, times)
        with self._chain.held() as held:
            self._check_all(held.entries(), [block], total, run)
            self._write(held, {**entry, "run": run, **({} if times == 1 else {"times": times})})
        return entry["block"]

    def settle(self, run: str, block: str, last: int) -> None:
        """Says that of this block no step from ``last`` on was taken."""
        self._append({"kind": "settle", "run": run, "block": block, "last": last})

    def close(self, run: str, status: Ended, why: str = "") -> None:
        """Says how a run ended. One that is never closed counts with all that it announced."""
        if status not in get_args(Ended):
            raise unknown_name("status", status, get_args(Ended))
        self._append({"kind": "close", "run": run, "status": status, "why": why[:300]})

    def read(self, run_or_about: str | dict[str, Any], what: str) -> None:
        """Says that the data are read without a training: by attacks on a run's model, or by whoever ``about`` says."""
        by = {"run": run_or_about} if isinstance(run_or_about, str) else {"about": as_plain(run_or_about)}
        self._append({"kind": "read", **by, "what": what})

    def take_up(self, ledger: Ledger, run: str) -> int:
        """Adds the blocks of a run's own ledger that are not known here: it was begun on another machine. How many there were.

        Raises:
            LedgerError: one of the two was changed.
        """
        own = [entry for entry in ledger.entries() if entry.get("data", ledger.data) == ledger.data]
        if not own:
            return 0
        with self._chain.held() as held:
            here = held.entries()
            known = {(entry["kind"], str(entry["block"])) for entry in here if entry["kind"] in ("reserve", "settle")}
            new = [entry for entry in own if (entry["kind"], str(entry.get("block"))) not in known]
            new = [entry for entry in new if entry["kind"] in ("reserve", "settle")]
            for entry in new:
                kept = {key: entry[key] for key in ("kind", "block", "draw", "first", "last", "plan") if key in entry}
                self._write(held, {**kept, "run": run, "taken_up": "from the run's own ledger"})
        return sum(entry["kind"] == "reserve" for entry in new)

    def take_up_blocks(self, blocks: Sequence[Block], run: str) -> None:
        """Adds what a run's checkpoint says was announced and is not known here. It was taken elsewhere, so that no total can
        refuse it any more.

        Steps of one block that were known here up to some step are added from there on.
        """
        if not blocks:
            return
        with self._chain.held() as held:
            here: dict[str, int] = {}
            for block in blocks_of(held.entries(), str(self.path)):
                whole = block.name.split(PART)[0]
                here[whole] = max(block.last, here.get(whole, block.last))
            for block in blocks:
                first = max(block.first, here.get(block.name, block.first))
                if first < block.last:
                    entry = announced(block.plan, first, block.last, block.draw, f"{block.name}{PART}{block.last}")
                    self._write(held, {**entry, "run": run, "taken_up": "from the run's checkpoint"})

    # -- totals -------------------------------------------------------------------------------------------------------

    def limit(self, epsilon: float, delta: float, *, unprotected: Unprotected = "refused", why: str = "") -> None:
        """States how much may be spent in all. Infinity takes a stated total back.

        Args:
            unprotected: of runs without a guarantee, `refused` or `allowed`.
            why: in words, where a total that was stated before is raised.

        Raises:
            PlanError: it is more than was stated before, and nothing is said for it; or runs without a guarantee have read the
                data already.
        """
        if unprotected not in get_args(Unprotected):
            raise unknown_name("value of unprotected", unprotected, get_args(Unprotected))
        new = Total(epsilon=epsilon, delta=delta, unprotected=unprotected)
        with self._chain.held() as held:
            books = Books(held.entries(), self.data, self.name)
            old = books.limit
            if old is not None and not why and _is_more(new, old):
                raise PlanError(
                    f"ε = {old.epsilon:g} at δ = {old.delta:g} (unprotected runs {old.unprotected}) is stated for "
                    f"{self.name or self.data}, and this allows more; give a smaller total, or say why: --why 'a second study'"
                )
            runs = sum(not run.has_guarantee for run in books.runs)
            if runs and unprotected == "refused" and math.isfinite(epsilon):
                raise PlanError(
                    f"{runs} runs without a guarantee have read {self.name or self.data}, and pass any total; where nothing of "
                    "them ever leaves this machine, a total of the others can be stated: --unprotected allowed"
                )
            stated = {"epsilon": as_plain(float(epsilon)), "delta": delta, "unprotected": unprotected, "why": why}
            self._write(held, {"kind": "limit", "name": self.name, **stated})

    def check(self, plans: Sequence[PrivacyPlan | tuple[PrivacyPlan, int]], total: Total | None = None) -> None:
        """Refuses plans with which a total would be passed.

        Args:
            plans: each by itself, or with the first step that it has yet to take.
            total: held besides the one that is stated for the data set.

        Raises:
            PlanError: it would be.
        """
        self._check_all(self.entries(), blocks_to_come(plans), total)

    def stated(self, total: Total | None = None) -> bool:
        """Whether any total holds: one that is stated for the data set, or ``total``."""
        return bool(_totals(self.entries(), total))

    def _check_all(self, entries: list[Entry], blocks: list[Block], total: Total | None, run: str = "") -> None:
        if totals := _totals(entries, total):
            books = Books(entries, self.data, self.name)
            if not (run and books.is_of_a_selection(run, blocks)):
                for one in totals:
                    books.check(one, blocks, run=run)

    # -- private selections -------------------------------------------------------------------------------------------

    def announce_selection(
        self,
        identity: str,
        name: str,
        plans: Sequence[PrivacyPlan],
        distribution: str,
        mean: float,
        epsilon: float,
        delta: float,
        total: Total | None = None,
    ) -> None:
        """Charges a selection as a whole, before the number of its trainings is drawn: one that a total cut off in its middle
        would have another number of them than was drawn. Nothing, where it stands here already.

        Its trainings are the runs whose ``about`` has this ``selection``, as long as it is under way, and which announce none
        but these plans; a sum in which the chosen one alone is released holds its ε in place of theirs.

        Args:
            identity: a name that no other selection has.
            plans: all by which its trainings and their scores may be made, of one unit and relation.
            epsilon, delta: of the choice.
            total: held besides the one that is stated for the data set.

        Raises:
            PlanError: a total would be passed; nothing was announced.
        """
        with self._chain.held() as held:
            entries = held.entries()
            books = Books(entries, self.data, self.name)
            if any(entry.get("id") == identity for entry in books.selections):
                return
            charge = Charge(plans[0].unit, plans[0].relation, epsilon, delta)
            for one in _totals(entries, total):
                books.check(one, [], charge)
            stated = {"epsilon": as_plain(float(epsilon)), "delta": delta, "unit": charge.unit, "relation": charge.relation}
            entry = {"kind": "select", "id": identity, "name": name, "runs": [], "distribution": distribution, "mean": mean}
            self._write(held, {**entry, **stated, "plans": [as_plain(plan) for plan in plans], "over": False, "chosen": ""})

    def select(
        self,
        name: str,
        runs: Sequence[str],
        distribution: str,
        mean: float,
        epsilon: float,
        delta: float,
        chosen: str = "",
        *,
        identity: str = "",
    ) -> None:
        """Says that one of these runs was chosen by a private selection, and what that costs where it alone is released.

        Args:
            runs: its trainings; none where a selection that was announced drew none, or they were all made elsewhere.
            identity: of the selection, where it was announced.

        Raises:
            LedgerError: a run is not in this account, or promises nothing; or they are of several units or relations.
        """
        with self._chain.held() as held:
            books = Books(held.entries(), self.data, self.name)
            known = {run.name: run for run in books.runs}
            before = next((entry for entry in books.selections if identity and entry.get("id") == identity), {})
            for run in runs:
                if run not in known:
                    raise unknown_name("run of this data set", run, known, LedgerError)
                if not known[run].has_guarantee:
                    raise LedgerError(f"the run {run} promises nothing, and no selection among such runs can; leave it out")
            if chosen and chosen not in runs:
                raise unknown_name("run of the selection", chosen, runs, LedgerError)
            pairs = {(block.plan.unit, block.plan.relation) for run in runs for block in known[run].blocks}
            if len(pairs) > 1:
                raise LedgerError("the runs of a selection are of several units or relations; select among runs of one")
            entry = {"kind": "select", "id": identity, "name": name, "runs": list(runs)}
            entry |= {"distribution": distribution, "mean": mean, "over": True}
            entry |= {key: before[key] for key in ("unit", "relation", "plans") if key in before}
            for unit, relation in pairs:
                entry |= {"unit": unit, "relation": relation}
            self._write(held, {**entry, "epsilon": as_plain(float(epsilon)), "delta": delta, "chosen": chosen})

    # -- what there is ------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All of them, checked.

        Raises:
            LedgerError: a line was changed or removed; it says which.
        """
        return self._chain.entries()

    def books(self) -> Books:
        """All runs and what they announced."""
        return Books(self.entries(), self.data, self.name)

    def runs(self) -> list[Run]:
        return self.books().runs

    def statement(self, delta: float | None = None) -> Statement:
        """What was spent; see :mod:`dptrain.ledger.books`."""
        return self.books().statement(delta)


def _totals(entries: list[Entry], total: Total | None) -> list[Total]:
    stated = Books([entry for entry in entries if entry["kind"] == "limit"]).limit
    return [one for one in (stated, total) if one is not None and math.isfinite(one.epsilon)]


def _is_more(new: Total, old: Total) -> bool:
    allowed = (new.unprotected, old.unprotected) == ("allowed", "refused")
    return new.epsilon > old.epsilon or new.delta > old.delta or (allowed and math.isfinite(old.epsilon))


def accounts(place: Path | None = None) -> list[Account]:
    """All that are kept here, the name from their entries; one whose file was changed has none."""
    found = []
    for path in sorted((place or folder()).glob("*.jsonl")):
        try:
            entries = Chain(path).entries()
        except LedgerError:
            entries = []
        data = next((str(entry["data"]) for entry in entries), path.stem)
        found.append(Account(data, Books(entries).name, place))
    return found
