"""What a data set has spent, over all runs, outside of their folders."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from dptrain import accounting, make_private, per_example
from dptrain.checkpoint import pack_json, write_folder
from dptrain.data.examples import Examples
from dptrain.errors import LedgerError, PlanError, ProtocolError
from dptrain.ledger import Account, Books, Ledger, Total, accounts, folder, named
from dptrain.ledger.training import announced
from dptrain.plan import PrivacyPlan
from dptrain.private import PrivateTraining

ROOT = Path(__file__).parents[2]
PLAN = PrivacyPlan(sampling_rate=0.5, expected_batch_size=20, steps=6, clipping_norm=0.5, delta=1e-4, noise_multiplier=2.0)
OPEN = PrivacyPlan(sampling_rate=0.5, expected_batch_size=20, steps=6, clipping_norm=math.inf, delta=1e-4)


@pytest.fixture
def account(ledgers: Path) -> Account:
    return Account("abc", "patients", ledgers)


def data(shift: float = 0.0) -> TensorDataset:
    return TensorDataset(torch.arange(80.0).reshape(40, 2) / 80 + shift, torch.arange(40) % 3)


def training(dataset: object = None, plan: PrivacyPlan = PLAN, **options: object) -> PrivateTraining:
    torch.manual_seed(0)
    model = nn.Linear(2, 3)
    optimizer, loss = torch.optim.SGD(model.parameters(), 0.1), per_example(F.cross_entropy)
    given: dict[str, object] = {"loss": loss, **options}
    return make_private(model, optimizer, data() if dataset is None else dataset, plan, **given)  # pyright: ignore


def run(private: PrivateTraining, until: int | None = None) -> PrivateTraining:
    for batch in private.batches(until):
        private.step(batch)
    return private


def only() -> Account:
    (found,) = accounts()
    return found


# -- what a statement says --------------------------------------------------------------------------------------------


def test_runs_of_one_data_set_are_composed(account: Account):
    for status in ("done", "failed"):
        name = account.open({"label": status})
        account.reserve(name, PLAN, 0, 6)
        account.close(name, status, "broken" if status == "failed" else "")
    unfinished = account.open({"label": "killed"})
    account.reserve(unfinished, PLAN, 0, 6)
    public = account.open({"label": "non_private", "guarantee": "none"})
    account.reserve(public, OPEN, 0, 6)
    account.close(public, "done")
    said = account.statement()
    assert (said.runs, said.without_guarantee, said.failed, said.unfinished) == (4, 1, 1, 1)
    (spent,) = said.spent
    assert (spent.runs, spent.steps, spent.unit, spent.relation) == (3, 18, "example", "add_or_remove_one")
    three = dataclasses.replace(PLAN, steps=18)
    assert spent.epsilon == pytest.approx(accounting.epsilon_pld(three.event(), 1e-4), abs=0.02)
    assert spent.largest == pytest.approx(PLAN.guarantee().epsilon)


def test_a_run_that_was_killed_counts_all_its_announced_steps_and_a_settled_one_those_that_it_took(account: Account):
    name = account.open({})
    block = account.reserve(name, PLAN, 0, 6)
    assert account.runs()[0].steps == 6
    account.settle(name, block, 2)
    account.close(name, "stopped")
    assert (account.runs()[0].steps, account.runs()[0].status) == (2, "stopped")


def test_units_and_relations_are_never_added_up(account: Account):
    other = dataclasses.replace(PLAN, relation="zero_out_one")
    for plan in (PLAN, other):
        account.reserve(account.open({}), plan, 0, 6)
    assert [(line.relation, line.runs) for line in account.statement().spent] == [("add_or_remove_one", 1), ("zero_out_one", 1)]


def test_the_statements_delta_is_the_smallest_of_its_runs_and_the_totals_where_there_is_one(account: Account):
    for delta in (1e-4, 1e-5, 1e-3):
        account.reserve(account.open({}), dataclasses.replace(PLAN, delta=delta), 0, 6)
    assert account.statement().spent[0].delta == 1e-5
    assert account.statement(1e-6).spent[0].delta == 1e-6
    account.limit(50.0, 1e-3)
    assert account.statement().spent[0].delta == 1e-3


def test_an_epsilon_of_no_interest_is_an_upper_bound_and_takes_no_minutes(account: Account):
    name = account.open({"label": "audit"})
    account.reserve(name, dataclasses.replace(PLAN, noise_multiplier=0.7), 0, 6, times=1000)
    (spent,) = account.statement().spent
    assert spent.steps == 6000
    assert 50 < spent.epsilon < math.inf


BLOCKS = st.lists(
    st.tuples(
        st.sampled_from([1.0, 2.0]),
        st.sampled_from([1e-5, 1e-4]),
        st.integers(0, 1),
        st.integers(1, 2),
        st.sampled_from(["add_or_remove_one", "zero_out_one"]),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=6, deadline=None)
@given(BLOCKS)
def test_a_statement_is_never_below_any_of_its_parts(blocks: list[tuple[float, float, int, int, str]]):
    entries, singles = [], []
    for index, (noise, delta, first, count, relation) in enumerate(blocks):
        plan = PrivacyPlan(
            sampling_rate=0.1,
            expected_batch_size=20,
            steps=12,
            clipping_norm=1.0,
            delta=delta,
            noise_multiplier=noise,
            relation=relation,  # pyright: ignore[reportArgumentType]
        )
        entry = {**announced(plan, first, first + count), "run": str(index), "time": "2024-01-01T00:00:00+00:00"}
        entries.append(entry)
        singles.append((relation, plan.event(first + count, first), delta))
    lines = {line.relation: line for line in Books(entries).statement().spent}
    assert sum(line.runs for line in lines.values()) == len(blocks)
    for relation, event, delta in singles:
        line = lines[relation]
        assert line.delta <= delta
        assert line.epsilon >= line.largest >= accounting.epsilon(event, delta, relation) - 1e-9


def test_a_selection_stands_in_place_of_its_runs_where_the_chosen_one_alone_is_released(account: Account):
    names = [account.open({}) for _ in range(4)]
    for name in names:
        account.reserve(name, PLAN, 0, 6)
    account.select("rate", names[:3], "poisson", 10.0, 2.5, 1e-5, chosen=names[1])
    said = account.statement()
    assert said.selected[0].runs == 3
    (only_chosen,) = said.only_selected
    assert only_chosen.epsilon == pytest.approx(2.5 + PLAN.guarantee().epsilon)
    assert only_chosen.delta == pytest.approx(1e-4 + 1e-5)
    assert only_chosen.runs == 4
    with pytest.raises(LedgerError, match="there is no run of this data set"):
        account.select("rate", ["unknown"], "poisson", 10.0, 2.5, 1e-5)


def test_a_run_gets_past_no_total_by_saying_that_it_is_of_a_selection(account: Account):
    """Neither by another plan than was announced, nor when the choice is over, nor by going on."""
    account.limit(5.0, 3e-4)
    account.announce_selection("s", "rate", [PLAN], "geometric", 3.0, 3.0, 1e-4)
    loud = dataclasses.replace(PLAN, noise_multiplier=0.3)
    one, other = account.open({"selection": "s"}), account.open({"selection": "s"})
    for run in (one, other):
        account.reserve(run, PLAN, 0, 6)
        with pytest.raises(PlanError, match="would be passed"):
            account.reserve(run, loud, 0, 6)
    assert account.statement().only_selected[0].epsilon == 3.0
    account.select("rate", [one, other], "geometric", 3.0, 3.0, 1e-4, chosen=one, identity="s")
    assert account.statement().only_selected[0].epsilon == 3.0
    quiet = dataclasses.replace(PLAN, noise_multiplier=5.0)
    alone = accounting.epsilon_pld(quiet.event(), 2e-4)  # δ of the choice and of the rest add up to that of the total
    late = account.open({"selection": "s"})
    account.reserve(late, quiet, 0, 6)
    assert account.statement().only_selected[0].epsilon == pytest.approx(3 + alone, abs=0.02)
    with pytest.raises(PlanError, match="would be passed"):  # all of a run that goes on counts beside the choice
        account.reserve(one, PLAN, 0, 1)
    assert account.statement().only_selected[0].epsilon < 5


def test_a_selection_that_drew_no_training_or_trained_elsewhere_is_over_too(account: Account):
    account.announce_selection("s", "rate", [PLAN], "poisson", 3.0, 3.0, 1e-4)
    account.select("rate", [], "poisson", 3.0, 3.0, 1e-4, identity="s")
    account.limit(3.5, 3e-4)
    with pytest.raises(PlanError, match="would be passed"):
        account.reserve(account.open({"selection": "s"}), PLAN, 0, 6)
    (held,) = account.statement().only_selected
    assert (held.unit, held.epsilon, held.runs) == ("example", 3.0, 0)


# -- totals -----------------------------------------------------------------------------------------------------------


def test_a_run_that_would_pass_a_stated_total_is_refused_before_its_first_step(account: Account):
    one = accounting.epsilon_pld(PLAN.event(), 1e-4)
    account.limit(1.2 * one, 1e-4)
    account.reserve(account.open({}), PLAN, 0, 6)
    before = len(account.entries())
    late = account.open({})
    with pytest.raises(PlanError, match=r"total of ε = .* would be passed: ε = .* was spent before"):
        account.reserve(late, PLAN, 0, 6)
    assert len(account.entries()) == before + 1
    account.reserve(late, PLAN, 0, 1)  # what still fits
    with pytest.raises(PlanError, match="would be passed"):
        account.check([PLAN])
    account.check([(PLAN, 6)])


def test_a_total_is_lowered_freely_and_raised_in_words_alone(account: Account):
    account.limit(10.0, 1e-5)
    account.limit(8.0, 1e-5)
    for epsilon, delta in ((9.0, 1e-5), (8.0, 1e-4), (math.inf, 1e-5)):
        with pytest.raises(PlanError, match="--why"):
            account.limit(epsilon, delta)
    account.limit(9.0, 1e-5, why="consented to a second study")
    assert account.statement().limit_epsilon == 9.0
    assert [entry.get("why") for entry in account.entries()] == ["", "", "consented to a second study"]


def test_a_run_that_promises_nothing_passes_any_total_unless_it_is_allowed_in_words(account: Account):
    account.limit(100.0, 1e-4)
    name = account.open({"guarantee": "none"})
    with pytest.raises(PlanError, match="passed by any run without a guarantee"):
        account.reserve(name, OPEN, 0, 6)
    account.reserve(account.open({}), PLAN, 0, 6)  # the refused one took no step, and stands in nobody's way
    account.limit(100.0, 1e-4, unprotected="allowed", why="the baseline stays here")
    account.reserve(name, OPEN, 0, 6)
    with pytest.raises(PlanError, match="1 runs without a guarantee have read"):
        account.limit(50.0, 1e-4)
    with pytest.raises(PlanError, match="was passed by 1 earlier runs"):
        account.check([PLAN], Total(epsilon=20.0, delta=1e-4, how="--total-epsilon"))


def test_under_a_total_promises_of_another_kind_are_refused(account: Account):
    account.limit(100.0, 1e-4)
    account.reserve(account.open({}), PLAN, 0, 6)
    with pytest.raises(PlanError, match="nobody can add up"):
        account.check([dataclasses.replace(PLAN, relation="zero_out_one")])


RESERVES = """
import sys
from dptrain.errors import PlanError
from dptrain.ledger import Account
from dptrain.plan import PrivacyPlan
plan = PrivacyPlan(sampling_rate=0.5, expected_batch_size=20, steps=6, clipping_norm=0.5, delta=1e-4, noise_multiplier=2.0)
account = Account("abc")
run = account.open({})
print("ready", flush=True)
sys.stdin.readline()
try:
    account.reserve(run, plan, 0, 6)
    print("passed")
except PlanError:
    print("refused")
"""


def test_of_two_processes_that_would_pass_a_total_together_one_is_refused(account: Account):
    account.limit(1.2 * accounting.epsilon_pld(PLAN.event(), 1e-4), 1e-4)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RESERVES], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
    said = sorted(process.communicate(timeout=120)[0].strip() for process in processes)
    assert said == ["passed", "refused"]
    assert account.statement().spent[0].steps == 6


# -- in somebody's own script -----------------------------------------------------------------------------------------


def test_a_script_stands_in_the_account_of_its_datas_content(ledgers: Path):
    run(training())
    run(training(Subset(data(), list(range(30)))))
    run(training(data(1.0)))
    by_content = {account.data: account.statement() for account in accounts()}
    assert len(by_content) == 2
    said = by_content[Examples(data()).content]
    assert (said.runs, said.unfinished, said.spent[0].steps) == (2, 0, 12)
    assert folder() == ledgers
    assert ledgers.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in ledgers.iterdir())


class Unknown(Dataset[tuple[torch.Tensor, int]]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((2,), index / 40), index % 3


def test_data_of_unknown_content_are_named_by_their_owner_or_a_warning_says_that_no_account_is_kept():
    with pytest.warns(UserWarning, match="stands in no account.*account='patients-2026'"):
        run(training(Unknown()))
    assert accounts() == []
    run(training(Unknown(), account="patients-2026"))
    assert (only().data, only().name) == (named("patients-2026"), "patients-2026")
    with pytest.raises(LedgerError, match="letters, digits"):
        training(Unknown(), account="../patients")
    run(training(Unknown(), account="none"))
    assert only().statement().runs == 1


def test_runs_without_a_guarantee_are_in_the_account_as_well():
    run(training(plan=OPEN))
    said = only().statement()
    assert (said.runs, said.without_guarantee, said.spent) == (1, 1, ())


def test_the_account_is_written_before_the_runs_own_ledger_and_both_before_any_step(tmp_path: Path):
    private = training(ledger=tmp_path / "ledger.jsonl")
    batches = private.batches()
    assert accounts() == []
    next(batches)
    assert private.steps_taken == 0
    (block,) = only().runs()[0].blocks
    assert block.name == Ledger(tmp_path / "ledger.jsonl").entries()[0]["block"]


def test_where_the_account_cannot_be_written_no_step_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DPTRAIN_LEDGER", str(tmp_path / "file"))
    private = training(ledger=tmp_path / "ledger.jsonl")
    with pytest.raises(LedgerError, match="DPTRAIN_LEDGER"):
        next(private.batches())
    assert private.steps_taken == 0
    assert not (tmp_path / "ledger.jsonl").exists()


def test_a_script_that_breaks_off_is_charged_what_it_took():
    private = training()
    for batch in private.batches():
        private.step(batch)
        if private.steps_taken == 2:
            break
    run(private)
    (found,) = only().runs()
    assert (found.steps, found.status) == (6, "done")


def test_sharp_edge_15_every_run_of_a_search_is_composed_also_those_that_nobody_kept():
    """The best of k runs costs what k runs cost, unless a private selection was made."""
    for _ in range(5):
        run(training())
    (spent,) = only().statement().spent
    assert spent.runs == 5
    assert spent.epsilon > 1.5 * spent.largest
    assert spent.epsilon == pytest.approx(accounting.epsilon_pld(dataclasses.replace(PLAN, steps=30).event(), 1e-4), abs=0.02)


def test_sharp_edge_17_two_resumes_from_one_checkpoint_spend_twice_and_count_twice(tmp_path: Path):
    """Also where the run's folder, with its own ledger, is gone afterwards."""
    run(training(ledger=tmp_path / "mine" / "ledger.jsonl"), until=4).save(tmp_path / "mine")
    for _ in range(2):
        branch = training(ledger=tmp_path / "mine" / "ledger.jsonl")
        branch.resume(tmp_path / "mine")
        run(branch)
    for path in sorted((tmp_path / "mine").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (found,) = only().runs()
    assert [(block.first, block.last) for block in found.blocks] == [(0, 4), (4, 6), (4, 6)]
    assert only().statement().spent[0].steps == 8


@pytest.mark.parametrize("with_ledger", [True, False])
def test_a_run_that_is_resumed_on_another_machine_brings_what_it_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_ledger: bool
):
    ledger = tmp_path / "mine" / "ledger.jsonl" if with_ledger else None
    run(training(ledger=ledger), until=4).save(tmp_path / "mine")
    here = only().runs()[0].name
    for machine in ("second", "second", "third"):
        monkeypatch.setenv("DPTRAIN_LEDGER", str(tmp_path / machine))
        branch = training(ledger=ledger)
        branch.resume(tmp_path / "mine")
        run(branch)
        (found,) = only().runs()
        assert found.name == here
        assert {block.first for block in found.blocks} == {0, 4}
    counted = {True: 4 + 2 + 2 + 2, False: 4 + 2}[with_ledger]  # without a ledger of its own a branch elsewhere is not known
    assert only().runs()[0].steps == counted


def test_what_a_run_spent_elsewhere_is_taken_up_when_it_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sharp edge 17: from here to there and back, by its checkpoint alone; what was known here is not counted again."""
    run(training(), until=2).save(tmp_path / "mine")
    for machine, until in (("there", 4), ("here", 5), ("here", 6)):
        if machine == "there":
            here = os.environ["DPTRAIN_LEDGER"]
            monkeypatch.setenv("DPTRAIN_LEDGER", str(tmp_path / "there"))
        else:
            monkeypatch.setenv("DPTRAIN_LEDGER", here)  # pyright: ignore[reportPossiblyUnboundVariable]
        private = training()
        private.resume(tmp_path / "mine")
        run(private, until).save(tmp_path / "mine")
        (found,) = only().runs()
        assert found.steps == until


def test_of_a_block_that_was_copied_in_its_middle_the_rest_is_taken_up_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two copies of one run, of which the second had gone on under the same announcement."""
    private = training()
    for batch in private.batches():
        private.step(batch)
        if private.steps_taken in (2, 4):
            private.save(tmp_path / f"at {private.steps_taken}")
    monkeypatch.setenv("DPTRAIN_LEDGER", str(tmp_path / "there"))
    for copied in (2, 4, 2):
        branch = training()
        branch.resume(tmp_path / f"at {copied}")
        run(branch, copied + 1)
    (found,) = only().runs()
    assert found.steps == 4 + 3


@pytest.mark.parametrize("steps", [2, 6])
def test_batches_that_are_stepped_behind_their_iterator_are_in_the_account(steps: int):
    private = training()
    for _ in range(steps):
        private.step(next(private.batches()))
    assert only().runs()[0].steps == steps
    assert only().statement().spent[0].epsilon == private.epsilon()


def test_checkpoints_of_an_earlier_version_that_stood_in_no_account_are_told_apart(tmp_path: Path):
    """They name no block and no run: what one of them spent is not taken for what the other did."""
    for name in ("a", "b"):
        run(training(account="none"), 3).save(tmp_path / name)
        path = tmp_path / name / "private" / "checkpoint"
        files = {part: (path / part).read_bytes() for part in ("state.json", "state.safetensors")}
        state = json.loads(files["state.json"])
        del state["blocks"]
        write_folder(path, {**files, "state.json": pack_json(state)})
        branch = training()
        branch.resume(tmp_path / name)
        run(branch, 4)
    assert [found.steps for found in only().runs()] == [4, 4]


def test_a_training_of_the_same_kind_that_stands_in_no_account_cannot_be_saved(tmp_path: Path):
    private = training()
    model = nn.Linear(2, 3)
    other = private.again(model, torch.optim.SGD(model.parameters(), 0.1), private.examples)
    run(other)
    with pytest.raises(ProtocolError, match="stands in no account"):
        other.save(tmp_path / "a")
    assert not (tmp_path / "a").exists()


# -- damage -----------------------------------------------------------------------------------------------------------


def test_an_account_that_was_changed_is_not_added_to_by_another_run(ledgers: Path):
    run(training())
    (path,) = ledgers.glob("*.jsonl")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].replace('"last": 6', '"last": 1'), *lines[2:]]) + "\n")
    private = training()
    with pytest.raises(LedgerError, match="line 2 was changed"):
        next(private.batches())
    assert private.steps_taken == 0


def test_the_file_says_who_where_and_what(ledgers: Path):
    run(training())
    (path,) = ledgers.glob("*.jsonl")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["kind"] for entry in entries] == ["run", "reserve", "close"]
    assert {"host", "process", "unit", "relation", "delta", "steps", "guarantee"} <= entries[0]["about"].keys()
