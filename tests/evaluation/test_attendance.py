"""Whoever attends to a training attacks each checkpoint that it saves, and changes nothing of it."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Subset, TensorDataset

import dptrain.data
from dptrain import DataSet, PrivacyPlan, draw, make_private, per_example
from dptrain.checkpoint import load_release
from dptrain.data.split import Split
from dptrain.data.split import load as load_split
from dptrain.errors import CheckpointError, ConfigError, DataError, ProtocolError
from dptrain.private import PrivateTraining, Saved
from dptrain.recipe import DataConfig
from evaluation import EvaluationPlan, attend, scripted
from evaluation.attendance import REPLAYED
from evaluation.result import read_run
from recipes import runs

PLAN = PrivacyPlan(
    sampling_rate=0.2, expected_batch_size=180, steps=6, clipping_norm=1.0, delta=1e-4, noise_multiplier=2.0
)  # fmt: skip
QUICK = {"attacks": ("membership.threshold",), "progress": False}


@pytest.fixture(scope="module")
def data() -> DataSet:
    return dptrain.data.load(DataConfig())


@pytest.fixture(scope="module")
def split(data: DataSet) -> Split:
    return draw(len(data), seed=3)


@pytest.fixture
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at results alone: drawing a report takes longer than all else here."""
    monkeypatch.setattr(scripted, "report", scripted.gather)


def training(data: DataSet, split: Split, plan: PrivacyPlan = PLAN, rate: float = 0.5, **options) -> PrivateTraining:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.1), nn.Linear(16, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.5)
    return make_private(model, optimizer, data[split.members], plan, loss=per_example(cross_entropy), **options)


def steps(private: PrivateTraining, until: int | None = None) -> None:
    for batch in private.batches(until):
        private.step(batch)


@pytest.mark.usefixtures("no_pages")
def test_each_save_is_attacked_and_keeps_the_split(data: DataSet, split: Split, tmp_path: Path):
    private = training(data, split)
    attend(private, data, split, **QUICK)
    for until in (3, 6):
        steps(private, until)
        private.save(tmp_path)
    assert load_split(tmp_path / "private" / "split.npz").is_same(split)
    assert [path.parent.name for path in sorted(tmp_path.glob("evaluation/*/result.json"))] == ["step=000003", "step=000006"]
    result = scripted.gather(tmp_path)
    assert [run.step for run in result.runs] == [6]
    assert [run.step for run in result.checkpoints] == [3]
    assert result.runs[0].epsilon == result.checkpoints[0].epsilon == pytest.approx(PLAN.guarantee().epsilon, rel=5e-3)
    assert result.runs[0].seed == 3
    assert REPLAYED in result.runs[0].notes
    assert load_release(tmp_path / "release")[1]["data"]["bounds"] == list(data.bounds)


@pytest.mark.usefixtures("no_pages")
def test_attending_changes_no_weight(data: DataSet, split: Split, tmp_path: Path):
    """The loop draws the same dropout, batches and noise whether or not somebody looks: its weights are the same to the bit."""
    found = []
    for looks in (False, True):
        private = training(data, split, insecure_seed=1)
        if looks:
            attend(private, data, split, attacks=("membership.threshold", "membership.lira"), shadow_models=4, progress=False)
        for until in (3, 6):
            steps(private, until)
            private.save(tmp_path / str(looks))
        found.append({name: value.clone() for name, value in private.model.state_dict().items()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_other_examples_than_the_members_are_refused(data: DataSet, split: Split):
    others = dataclasses.replace(split, members=split.non_members, non_members=split.members)
    with pytest.raises(DataError, match=r"not the \d+ members .* give make_private\(\) data\[split.members\]"):
        attend(training(data, others), data, split, **QUICK)
    fewer = draw(len(data) - 1)
    with pytest.raises(DataError, match=r"give draw\(len\(data\)\)"):
        attend(training(data, split), data, fewer, **QUICK)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    of_its_own = TensorDataset(data.inputs[split.members], data.targets[split.members])  # by what index are its examples known?
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    private = make_private(model, optimizer, of_its_own, PLAN, loss=per_example(cross_entropy))
    with pytest.raises(DataError, match=r"Subset of your own data set by split\.members"):
        attend(private, data, split, **QUICK)


def test_who_begins_before_attending_or_says_the_plan_twice_is_refused(data: DataSet, split: Split):
    private = training(data, split)
    steps(private, 1)
    with pytest.raises(ProtocolError, match=r"right after make_private\(\)"):
        attend(private, data, split, **QUICK)
    with pytest.raises(ConfigError, match="say them in the EvaluationPlan"):
        attend(training(data, split), data, split, plan=EvaluationPlan(), attacks=("membership.lira",))
    with pytest.raises(ConfigError, match=r"did you mean 'membership\.lira'"):
        attend(training(data, split), data, split, attacks=("membership.lirra",))


@pytest.mark.usefixtures("no_pages")
def test_a_map_style_data_set_of_any_kind_is_attackable(data: DataSet, split: Split, tmp_path: Path):
    class Mine:
        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, index: int) -> dict:
            return {"picture": data.inputs[index], "digit": int(data.targets[index])}

    whole = DataSet.from_map_style(Mine(), inputs="picture", targets="digit", classes=data.classes, bounds=data.bounds)
    assert (whole.kind, whole.fingerprint) == ("image", data.fingerprint)
    mine: torch.utils.data.Dataset = Mine()  # pyright: ignore[reportAssignmentType]
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def loss(model: nn.Module, batch: dict) -> torch.Tensor:
        return cross_entropy(model(batch["picture"]), batch["digit"], reduction="none")

    private = make_private(model, optimizer, Subset(mine, split.members.tolist()), PLAN, loss=loss)
    attend(private, whole, split, attacks=("membership.lira",), shadow_models=4, progress=False)
    steps(private)
    private.save(tmp_path)
    assert scripted.gather(tmp_path).runs[0].attacks[0].status == "ok"
    with pytest.raises(DataError, match="say by inputs= and targets="):
        DataSet.from_map_style(Mine(), classes=10, bounds=(0.0, 1.0))
    with pytest.raises(DataError, match="cannot be read by index"):
        DataSet.from_map_style(iter([1]), classes=10, bounds=(0.0, 1.0))


def test_budgets_of_a_loop_stand_together_and_dptrain_report_shows_them(data: DataSet, split: Split, tmp_path: Path):
    plans = {"non_private": dataclasses.replace(PLAN, clipping_norm=math.inf, noise_multiplier=0.0), "private": PLAN}
    for name, plan in plans.items():
        private = training(data, split, plan)
        attend(private, data, split, report=tmp_path, **QUICK)
        steps(private)
        private.save(tmp_path / name)
    result = runs.gather(tmp_path)
    assert [(run.label, run.variant) for run in result.runs] == [("non_private", "non_private"), ("private", "dp")]
    assert "non_private_twin" in [control.name for control in result.runs[1].attacks[0].controls]
    assert (tmp_path / "report.html").exists()
    assert not (tmp_path / "private" / "report.html").exists()
    from recipes.cli import main

    assert main(["report", str(tmp_path)]) == 0
    other = DataSet.of(data.inputs, data.targets.flip(0), classes=10, bounds=data.bounds)
    with pytest.raises(ConfigError, match="holds runs on other data"):
        attend(training(other, split), other, split, report=tmp_path, **QUICK)


@pytest.mark.usefixtures("no_pages")
def test_results_of_a_training_that_was_replaced_are_gone(data: DataSet, split: Split, tmp_path: Path):
    for plan, until in ((PLAN, 6), (dataclasses.replace(PLAN, steps=4), 4)):
        private = training(data, split, plan)
        attend(private, data, split, **QUICK)
        steps(private, until)
        private.save(tmp_path)
    assert [run.step for run in scripted.gather(tmp_path).runs] == [4]
    assert not scripted.gather(tmp_path).checkpoints


@pytest.mark.usefixtures("no_pages")
def test_a_resumed_training_keeps_its_results_and_replays_its_first_steps(data: DataSet, split: Split, tmp_path: Path):
    asked = {"attacks": ("membership.lira",), "shadow_models": 4, "progress": False}
    first = training(data, split)
    attend(first, data, split, **asked)
    steps(first, 3)
    first.save(tmp_path)
    second = training(data, split)
    attend(second, data, split, **asked)
    second.resume(tmp_path)
    second.optimizer.param_groups[0]["lr"] = 0.1
    steps(second)
    second.save(tmp_path)
    result = scripted.gather(tmp_path)
    assert [run.step for run in (*result.checkpoints, *result.runs)] == [3, 6]
    assert [run.attacks[0].status for run in result.runs] == ["ok"]
    (tmp_path / "private" / "steps.json").unlink()
    third = training(data, split)
    attend(third, data, split, **asked)
    third.resume(tmp_path)
    third.save(tmp_path)
    failed = read_run(tmp_path / "evaluation" / "step=000006" / "result.json").attacks[0]
    assert (failed.status, "give retrain=" in failed.reason) == ("failed", True)


def test_what_a_callback_raises_save_raises_once_the_checkpoint_is_on_the_disk(data: DataSet, split: Split, tmp_path: Path):
    private = training(data, split)
    seen: list[Saved] = []
    private.on_save(seen.append)

    def breaks(saved: Saved) -> None:
        raise RuntimeError("it broke")

    private.on_save(breaks)
    steps(private, 2)
    with pytest.raises(RuntimeError, match="it broke"):
        private.save(tmp_path, split=split)
    assert seen == [Saved(tmp_path, 2)]
    assert load_release(tmp_path / "release")[1]["steps_taken"] == 2


def test_an_example_that_is_listed_twice_is_refused(data: DataSet, split: Split):
    """Oversampling a class by a Subset would let an example count as one and weigh as two."""
    twice = np.sort(np.concatenate([split.members, split.members[:1]]))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with pytest.raises(DataError, match="listed more than once"):
        make_private(model, optimizer, data[twice], PLAN, loss=per_example(cross_entropy))


def test_a_folder_without_a_script_says_so(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no script's runs were attended to there"):
        scripted.gather(tmp_path)
