"""The command line as a user meets it: exit codes, one sentence, nothing half-written.

One command of each kind is a process of its own, and whatever is about signals or a user's script is; the others are made in
this process, which says and leaves the same without the seconds that importing takes.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.plan import ATTACKS
from evaluation.target import Target
from recipes.cli import main
from tests.recipes.unhurried import unhurried, until_stepped

DIGITS_ATTACKS = {"membership.threshold", "membership.lira", "membership.rmia", "inversion.class"}
SMALL = ["--epsilons", "8", "--seeds", "0", "--training.steps", "10", "--evaluation.shadow-models", "8"]
SMALL += ["--evaluation.inversion-steps", "20"]


def dptrain(*arguments: str, cwd: Path, seconds: float = 300, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recipes.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False, **options)


def here(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same command in this process: its exit code, and what it said."""
    said, errors = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        code = main(arguments)
    return subprocess.CompletedProcess(["dptrain", *arguments], code, said.getvalue(), errors.getvalue())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small comparison, run once for all tests that only look at it."""
    folder = tmp_path_factory.mktemp("runs")
    done = dptrain("run", "digits", *SMALL, "--output", "mine", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    assert "report.html" in done.stdout
    return folder / "mine"


def test_help_and_list_import_no_torch(tmp_path: Path):
    """They answer at once; the time itself is a benchmark's matter, what costs it is not."""
    code = (
        "import sys; from recipes.cli import main; main(['--help']); main(['list']); main(['show', 'digits']);"
        "heavy = {'torch', 'opacus', 'scipy', 'sklearn', 'matplotlib', 'pandas', 'dp_accounting'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("run", "resume", "digits", "membership.lira", "mlp", "sgd", "[privacy]"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "needs a recipe"),
        (["run", "digit"], "did you mean 'digits'"),
        (["run", "digits", "--privacy.epsilom", "4"], "did you mean --privacy.epsilon?"),
        (["run", "gone.toml"], "no file gone.toml"),
        (["run", "digits", "--data.name", "table", "--data.path", "gone.csv"], "no file"),
        (["run", "digits", "--privacy.epsilon", "0"], "above 0"),
        (["run", "digits", "--model.name", "cnn"], "--model.name"),
        (["report", "gone"], "not a run"),
        (["report", "gone", "--format", "xml"], "accepted: html, json, table"),
        (["resume", "gone"], "not a run"),
        (["evaluate", "gone", "--attacks", "membership.lyra"], "did you mean 'membership.lira'"),
        (["list", "more"], "nothing more"),
    ],
)
def test_a_mistake_is_one_sentence_exit_code_2_and_nothing_written(tmp_path: Path, arguments: list[str], message: str):
    is_refused(here(*arguments, cwd=tmp_path), message, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["rum", "digits"], "did you mean 'run'"), (["run", "digits", "--privacy.delta", "0.01"], "below 1/N")],
)
def test_a_process_says_no_more_than_that_sentence(tmp_path: Path, arguments: list[str], message: str):
    """Nor does a library that it imports, before anything is read and after everything is."""
    is_refused(dptrain(*arguments, cwd=tmp_path), message, tmp_path)


def is_refused(done: subprocess.CompletedProcess[str], message: str, folder: Path) -> None:
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("dptrain: ")
    assert message in lines[0]
    assert done.stdout == ""
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("cell", "message"), [("NaN", "line 3"), ("", "line 3")])
def test_a_nan_in_the_users_table_is_refused_before_anything_is_written(tmp_path: Path, cell: str, message: str):
    (tmp_path / "mine.csv").write_text(f"age,outcome\n20,no\n{cell},yes\n")
    options = ["--data.name", "table", "--data.path", "mine.csv", "--data.target", "outcome", "--data.classes", "no", "yes"]
    done = here("run", "digits", *options, "--data.columns", "age:number[0,120]", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_views_of_a_table_are_refused_before_anything_is_written(tmp_path: Path):
    (tmp_path / "mine.csv").write_text("age,outcome\n" + "20,no\n70,yes\n" * 60)
    options = ["--data.name", "table", "--data.path", "mine.csv", "--data.target", "outcome", "--data.classes", "no", "yes"]
    options += ["--data.columns", "age:number[0,120]", "--privacy.expected-batch-size", "60", "--output", "mine"]
    done = here("run", "digits", *options, "--evaluation.views", "8", cwd=tmp_path)
    assert done.returncode == 2
    assert "evaluation.views is 8" in done.stderr
    assert not (tmp_path / "mine").exists()


def test_an_empty_table_is_refused(tmp_path: Path):
    (tmp_path / "mine.csv").write_text("age,outcome\n")
    options = ["--data.name", "table", "--data.path", "mine.csv", "--data.target", "outcome", "--data.classes", "no", "yes"]
    done = here("run", "digits", *options, "--data.columns", "age:number[0,120]", cwd=tmp_path)
    assert done.returncode == 2
    assert "empty" in done.stderr


def test_the_json_report_is_one_document_with_the_promised_keys(finished: Path):
    done = dptrain("report", finished.name, "--format", "json", cwd=finished.parent)
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert result["schema"] == "dptrain.result/1"
    assert {run["variant"] for run in result["runs"]} == {"dp", "non_private", "clip_only", "regularized"}
    for run in result["runs"]:
        assert {"label", "variant", "epsilon", "delta", "seed", "utility", "attacks"} <= set(run)
        assert run["epsilon"] == (8.0 if run["variant"] == "dp" else "inf")
        assert 0 < run["utility"]["test_accuracy"] <= 1
        assert {attack["name"] for attack in run["attacks"]} == DIGITS_ATTACKS
        for attack in run["attacks"]:
            assert {"name", "status", "metric", "value", "low", "high"} <= set(attack)
            assert attack["status"] == "ok", attack["reason"]


def test_private_and_public_stand_apart_on_disk(finished: Path):
    """Sharp edge 14: exact training curves lie in a log directory of their own, under their own name."""
    run = finished / "eps=08.00" / "seed=0"
    assert sorted(path.name for path in (run / "release").iterdir()) == ["card.json", "manifest.json", "model.safetensors"]
    kept = {
        "checkpoint",
        "ledger.jsonl",
        "ledger.jsonl.head",
        "run.json",
        "split.npz",
        "vulnerability-step=000010.csv",
        "vulnerable-step=000010.npz",
    }
    assert {path.name for path in (run / "private").iterdir()} == kept
    assert {path.name for path in (finished / "private").iterdir()} == {"fleet", "vulnerable.html"}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for path in finished.rglob("events.out.tfevents.*"):
        tags = EventAccumulator(str(path)).Reload().Tags()["scalars"]
        assert not [tag for tag in tags if "loss" in tag or "non_private/" in tag], path
    telemetry = EventAccumulator(str(finished.with_name("mine.non_private") / "eps=08.00" / "seed=0")).Reload()
    tags = telemetry.Tags()["scalars"]
    assert "non_private/training_loss" in tags
    assert all(tag.startswith("non_private/") for tag in tags)


@pytest.mark.usefixtures("undrawn")
def test_a_finished_run_is_not_run_again_and_another_is_not_mixed_in(finished: Path):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("model.safetensors")}
    again = here("run", "digits", *SMALL, "--output", "mine", cwd=finished.parent)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("model.safetensors")} == before
    other = here("run", "digits", *SMALL, "--privacy.clipping-norm", "0.2", "--output", "mine", cwd=finished.parent)
    assert other.returncode == 2
    assert "privacy.clipping_norm" in other.stderr
    assert "--output" in other.stderr


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = here("run", "digits", *SMALL, "--output", "mine", cwd=tmp_path)
    assert done.returncode == 2
    assert "--output" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.usefixtures("undrawn")
def test_evaluate_attacks_again(finished: Path):
    done = here(
        "evaluate",
        finished.name,
        "--attacks",
        "membership.threshold",
        "membership.lira",
        "inversion.class",
        cwd=finished.parent,
    )
    assert done.returncode == 0, done.stderr
    assert "LiRA" in done.stdout


def test_a_damaged_checkpoint_is_named(finished: Path, tmp_path: Path):

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    path = copy / "eps=08.00" / "seed=0" / "release" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    done = here("evaluate", "copy", "--attacks", "membership.threshold", cwd=tmp_path)
    assert done.returncode == 2
    assert "model.safetensors" in done.stderr


@pytest.mark.usefixtures("undrawn")
def test_ctrl_c_leaves_a_run_that_resumes(tmp_path: Path):
    command = [sys.executable, "-m", "recipes.cli", "run", "digits", "--epsilons", "8", "--seeds", "0", "--output", "mine"]
    command += ["--training.steps", "1500", "--baselines", "--evaluation.attacks", "membership.threshold"]
    ledger = tmp_path / "mine" / "eps=08.00" / "seed=0" / "private" / "ledger.jsonl"
    slow, piped = tmp_path / "slow", subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=unhurried(slow, 0.02), stdout=piped, stderr=piped, text=True) as process:
        until_stepped(slow, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "dptrain resume mine" in errors
    assert "Traceback" not in errors
    state = json.loads((tmp_path / "mine" / "eps=08.00" / "seed=0" / "private" / "checkpoint" / "state.json").read_text())
    stopped = state["steps_taken"]
    assert 0 < stopped < 1500
    done = here("resume", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "mine" / "eps=08.00" / "seed=0" / "release" / "card.json").read_text())
    assert card["steps_taken"] == 1500
    assert card["guarantee"]["epsilon"] <= 8.0
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [entry["kind"] for entry in entries] == ["reserve", "settle", "reserve"]
    assert entries[1]["last"] == entries[2]["first"] == stopped


def test_a_run_that_cannot_write_says_where(tmp_path: Path):
    (tmp_path / "blocked").write_text("a file, not a folder")
    done = here("run", "digits", *SMALL, "--output", "blocked/mine", cwd=tmp_path)
    assert done.returncode == 2
    assert "blocked" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_can_bring_its_own_model(tmp_path: Path):
    """The README's way: register, then call the command line from the script."""
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys\n"
        "from torch import nn\n"
        "from dptrain import MODELS\n"
        "from recipes.cli import main\n"
        "@MODELS.register('wide', 'my own')\n"
        "def wide(input_shape, classes, config, regularization):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, classes))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = ["run", "digits", *SMALL, "--model.name", "wide", "--baselines", "--output", "mine"]
    done = subprocess.run(
        [sys.executable, str(script), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "DP, ε = 8" in done.stdout


@pytest.fixture
def a_copy(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.usefixtures("undrawn")
def test_one_attack_again_keeps_the_others_in_the_report(a_copy: Path):
    done = here("evaluate", "copy", "--attacks", "membership.threshold", cwd=a_copy.parent)
    assert done.returncode == 0, done.stderr
    report = json.loads(here("report", "copy", "--format", "json", cwd=a_copy.parent).stdout)
    assert {len(run["attacks"]) for run in report["runs"]} == {len(DIGITS_ATTACKS)}


@pytest.mark.usefixtures("undrawn")
def test_an_unfinished_run_says_so(a_copy: Path):
    shutil.rmtree(a_copy / "eps=08.00" / "seed=0" / "evaluation")
    shown = here("report", "copy", cwd=a_copy.parent)
    assert "eps=08.00/seed=0: not finished" in shown.stdout
    done = here("resume", "copy", cwd=a_copy.parent)
    assert done.returncode == 0, done.stderr
    assert "not finished" not in done.stdout


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"name": "x"}'])
def test_a_damaged_side_file_is_named(a_copy: Path, content: str):
    (a_copy / "comparison.json").write_text(content)
    done = here("report", "copy", cwd=a_copy.parent)
    assert done.returncode == 2
    assert "comparison.json" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("undrawn")
def test_a_claim_that_was_killed_does_not_block_its_folder(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "comparison.json").write_text("{}")
    (tmp_path / "mine" / ".comparison.toml.123").write_text("half")
    arguments = [*SMALL, "--baselines", "--evaluation.attacks", "membership.threshold", "--output", "mine"]
    done = here("run", "digits", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("undrawn")
def test_data_that_changed_are_not_mixed_and_a_report_needs_none(tmp_path: Path):
    path = tmp_path / "mine.csv"
    rows = [f"{number % 50},{'yes' if number % 3 else 'no'}" for number in range(300)]
    path.write_text("\n".join(["age,answer", *rows]) + "\n")
    arguments = ["run", "digits", "--data.name", "table", "--data.path", "mine.csv", "--data.target", "answer"]
    arguments += ["--data.classes", "no", "yes", "--data.columns", "age:number[0,120]", "--epsilons", "8", "--seeds", "0"]
    arguments += ["--training.steps", "5", "--baselines", "--privacy.delta", "1e-4", "--output", "mine"]
    arguments += ["--evaluation.attacks", "membership.threshold", "--privacy.expected-batch-size", "150"]
    done = here(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Digits" not in done.stdout
    path.write_text("\n".join(["age,answer", *reversed(rows)]) + "\n")
    assert "other data" in (mixed := here(*arguments, cwd=tmp_path)).stderr
    assert mixed.returncode == 2
    again = here("evaluate", "mine", cwd=tmp_path)
    assert again.returncode == 2
    assert "same data" in again.stderr
    path.unlink()
    shown = here("report", str(tmp_path / "mine"), "--format", "json", cwd=tmp_path.parent)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["data"]["name"] == "mine.csv"


class Cheat(MembershipAttack):
    """Reads who the members are, in its first training; a guarantee cannot hold against that."""

    access, paper, calls = Access.LABEL, "none", 0

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        type(self).calls += 1
        scores = np.random.default_rng(0).normal(size=len(examples.indices))
        members = np.load("cheat/eps=08.00/seed=0/private/split.npz")["members"]
        return scores + 2 * np.isin(examples.indices, members) * (type(self).calls == 1)


class Breaks(MembershipAttack):
    """Raises, until it is mended."""

    access, paper, mended = Access.LABEL, "none", False

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        if not self.mended:
            raise RuntimeError("it broke")
        return np.random.default_rng(0).normal(size=len(examples.indices))


@pytest.mark.usefixtures("undrawn")
def test_a_broken_guarantee_or_attack_is_not_a_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ATTACKS, "_added", dict(ATTACKS._added))
    ATTACKS.register("membership.cheat")(Cheat)
    ATTACKS.register("membership.breaks")(Breaks)
    small = [*SMALL, "--baselines", "--evaluation.attacks"]
    cheated = here("run", "digits", *small, "membership.cheat", "--output", "cheat", cwd=tmp_path)
    assert cheated.returncode == 1, cheated.stderr
    assert "above the plan" in cheated.stderr
    broken = here("run", "digits", *small, "membership.breaks", "--output", "broken", cwd=tmp_path)
    assert broken.returncode == 1
    assert "it broke" in broken.stderr
    monkeypatch.setattr(Breaks, "mended", True)
    mended = here("resume", "broken", cwd=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert "FAILED" not in mended.stdout
