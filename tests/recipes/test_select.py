"""`dptrain select`: what was drawn stays drawn, the best alone is kept, and its card states what choosing it cost."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dptrain.checkpoint import MANIFEST, load_release, save_release
from dptrain.errors import CheckpointError, ConfigError, PlanError
from dptrain.ledger import Account, accounts
from dptrain.plan import PrivacyPlan
from dptrain.selected import SelectedPlan, plan_of
from dptrain.selection import Runs
from dptrain.trainer import Trainer
from evaluation.report import html, tensorboard
from recipes import selecting, selection
from recipes.cli import INTERRUPTED, USAGE_ERROR, main
from recipes.selection import Asked

FEW = ["--training.steps", "5", "--evaluation.attacks", "membership.threshold"]
CANDIDATES = ["--candidates", "optimizer.learning_rate=1,5.6", "privacy.clipping_norm=0.05,0.1"]
EACH = ["--each-epsilon", "3", *CANDIDATES, *FEW]


@pytest.fixture(scope="module", autouse=True)
def no_pages():
    """What other tests look at."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(html, "write", lambda *given: None)
        patched.setattr(tensorboard, "write", lambda *given: None)
        yield


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch):
    """K is 3."""
    monkeypatch.setattr(Runs, "draw", lambda self, generator: 3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "chosen"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Runs, "draw", lambda self, generator: 3)
        given = ["--epsilon", "4", *CANDIDATES, *FEW, "--mean", "4"]
        assert main(["select", "digits", *given, "--output", str(root)]) == 0
    return root


@pytest.fixture
def chosen(finished: Path, tmp_path: Path) -> Path:
    """The chosen model, of a copy."""
    shutil.copytree(finished, tmp_path / "chosen")
    (folder,) = (tmp_path / "chosen").glob("eps=*/seed=0")
    return folder


def card_of(run: Path) -> dict[str, Any]:
    return load_release(run / "release")[1]


def drawn_in(root: Path) -> dict[str, Any]:
    return json.loads((root / "private" / "selection.json").read_text())


# -- what comes of it -------------------------------------------------------------------------------------------------


def test_the_choice_keeps_to_the_budget_and_each_training_has_less(chosen: Path):
    card = card_of(chosen)
    assert 3.9 < card["guarantee"]["epsilon"] <= 4.0
    alone = PrivacyPlan.guarantee(SelectedPlan.alone(plan_of(card, "card")))  # pyright: ignore[reportArgumentType]
    assert 1.5 < alone.epsilon < 3.5
    assert card["guarantee"]["cross_check"] > card["guarantee"]["epsilon"]
    (result,) = json.loads((chosen.parents[1] / "results.json").read_text())["runs"]
    assert result["epsilon"] == card["guarantee"]["epsilon"]


def test_the_statement_names_theorem_distribution_candidates_and_what_must_stay_unseen(chosen: Path):
    said = card_of(chosen)["guarantee"]["statement"]
    for words in (
        "theorem 2 of Papernot & Steinke 2022",
        "geometric with mean 4",
        "4 candidates",
        "nobody sees what the others",
    ):
        assert words in said
    assert "optimizer.learning_rate=5.6 privacy.clipping_norm=0.1" in said
    assert "standard deviation 6.3" in said


def test_how_many_there_were_and_what_they_gave_is_kept_from_everyone(finished: Path):
    stored = drawn_in(finished)
    assert len(stored["candidates"]) == 3
    assert stored["scores"] == [None] * 3
    others = finished / "private" / "trainings"
    assert not list(others.rglob("*.safetensors"))
    assert len(list(others.rglob("ledger.jsonl"))) == 2
    assert {path.name.removesuffix(".head") for path in others.rglob("*") if path.is_file()} == {"ledger.jsonl"}
    assert (finished / "private").stat().st_mode & 0o077 == 0
    assert (finished / "private" / "selection.json").stat().st_mode & 0o077 == 0
    shown = [path for path in finished.rglob("*") if path.is_file() and "private" not in path.relative_to(finished).parts]
    assert shown
    for path in shown:
        assert b"trainings/000" not in path.read_bytes()


def test_the_display_tells_neither_scores_nor_how_many(three: None, tmp_path: Path, capfd: pytest.CaptureFixture[str],
                                                       monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    monkeypatch.setattr(selecting, "_score", lambda *given: 123.456)
    monkeypatch.setattr(selecting.runner, "evaluate", lambda *given, **more: None)
    monkeypatch.setattr(selecting.runs, "report", lambda root: None)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    selecting.select(Asked.of(["digits", *EACH, "--output", str(tmp_path / "a")]), "dptrain select")
    said = capfd.readouterr()
    assert "123" not in said.out + said.err
    assert "/3" not in said.err
    assert not re.search(r"\b[123] trained", said.err)


def test_attacks_are_held_against_what_the_choice_permits(chosen: Path):
    plan = plan_of(card_of(chosen), "card")
    assert isinstance(plan, SelectedPlan)
    rates = np.array([0.001, 0.01, 0.1, 0.5])
    assert (plan.permitted_true_positive_rates(rates) > plan.alone().permitted_true_positive_rates(rates)).all()
    (result,) = json.loads((chosen.parents[1] / "results.json").read_text())["runs"]
    assert result["attacks"][0]["permitted"] == pytest.approx(plan.permitted_auc())


# -- releasing it -------------------------------------------------------------------------------------------------------


def test_the_chosen_model_is_released_by_its_card(chosen: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["release", str(chosen)]) == 0
    published = json.loads((chosen / "published" / "model_card.json").read_text())
    assert published["epsilon"] == card_of(chosen)["guarantee"]["epsilon"]
    assert "chosen out of several" in published["statement"]
    assert "choosing included, as long as nobody sees the others" in capsys.readouterr().out


@pytest.mark.parametrize("claimed", ["each", "less"])
def test_a_card_that_claims_less_than_the_choice_cost_is_refused(
    claimed: str, chosen: Path, capsys: pytest.CaptureFixture[str]
):
    epsilon = PrivacyPlan.guarantee(plan_of(card_of(chosen), "").alone()).epsilon if claimed == "each" else 3.9  # pyright: ignore
    edited = {**card_of(chosen), "guarantee": {**card_of(chosen)["guarantee"], "epsilon": epsilon}}
    save_release(chosen / "release", load_release(chosen / "release")[0], edited)
    assert (chosen / "release" / MANIFEST).exists()
    assert main(["release", str(chosen), "--format", "json"]) == 1
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert found["ledger"]["verdict"] == "not met"
    assert "ε = 3.9" in found["ledger"]["found"] or "ε = 4.0" in found["ledger"]["found"]


def test_the_chosen_model_is_trained_and_saved_no_further(chosen: Path, capsys: pytest.CaptureFixture[str]):
    """Saved again, its card would state the ε of one training."""
    root, before = chosen.parents[1], card_of(chosen)
    assert main(["resume", str(root)]) == 0
    shutil.rmtree(chosen / "evaluation")
    assert main(["run", str(root / "comparison.toml"), "--output", str(root)]) == 1
    assert "chosen out of several, and trains no further" in capsys.readouterr().err
    assert card_of(chosen) == before


# -- stopping, breaking, and nothing ------------------------------------------------------------------------------------


def interrupted_at(number: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> list[int]:
    """The ``number``-th training from here on raises."""
    train, count = Trainer.run, [0]

    def run(self: Trainer) -> Any:
        count[0] += 1
        if count[0] == number:
            raise error
        return train(self)

    monkeypatch.setattr(Trainer, "run", run)
    return count


def test_a_resume_goes_on_with_what_was_drawn(three: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]):  # fmt: skip
    root, scores = tmp_path / "chosen", iter([3.0, 2.0, 1.0])  # the best one was trained before the stop
    monkeypatch.setattr(selecting, "_score", lambda *given: next(scores))
    with pytest.MonkeyPatch.context() as patched:
        interrupted_at(2, patched, KeyboardInterrupt())
        assert main(["select", "digits", *EACH, "--output", str(root)]) == INTERRUPTED
    assert f"dptrain resume {root}" in capsys.readouterr().err
    before = drawn_in(root)
    assert before["scores"][0] is not None
    assert before["scores"][1:] == [None, None]

    def never(self: Runs, generator: Any) -> int:
        raise AssertionError("K was drawn again")

    monkeypatch.setattr(Runs, "draw", never)
    changed = ["--each-epsilon", "3", "--candidates", "optimizer.learning_rate=1,2", *FEW]
    assert main(["select", "digits", *changed, "--output", str(root)]) == USAGE_ERROR
    assert "holds another selection" in capsys.readouterr().err
    count = interrupted_at(99, monkeypatch, KeyboardInterrupt())
    assert main(["resume", str(root)]) == 0
    assert count == [2]
    assert drawn_in(root)["chosen"] == 0
    assert drawn_in(root)["candidates"] == before["candidates"]


def test_a_training_that_breaks_counts_with_the_lowest_score(three: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture[str]):  # fmt: skip
    interrupted_at(1, monkeypatch, RuntimeError("example 17"))
    scores: list[float | None] = []
    finish = selecting._finish

    def seen(drawn: selection.Drawn, *given: Any) -> Any:
        scores.extend(drawn.scores)
        return finish(drawn, *given)

    monkeypatch.setattr(selecting, "_finish", seen)
    assert main(["select", "digits", *EACH, "--output", str(tmp_path / "a")]) == 0
    said = capsys.readouterr()
    assert scores[0] == -math.inf
    assert len(scores) == 3
    assert drawn_in(tmp_path / "a")["chosen"] in (1, 2)
    assert "example 17" not in said.out + said.err


@pytest.mark.parametrize("why", ["none drawn", "all broke"])
def test_where_nothing_comes_of_it_nothing_is_released_and_that_is_said(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken(self: Trainer) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(Runs, "draw", lambda self, generator: 0 if why == "none drawn" else 2)
    monkeypatch.setattr(Trainer, "run", broken)
    assert main(["select", "digits", *EACH, "--runs", "poisson", "--output", str(tmp_path / "a")]) == 1
    assert "Nothing is released" in capsys.readouterr().out
    assert not list((tmp_path / "a").rglob("model.safetensors"))
    assert main(["resume", str(tmp_path / "a")]) == 1


def test_what_the_machine_does_is_no_output_of_a_training(three: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    interrupted_at(1, monkeypatch, OSError(28, "No space left on device"))
    assert main(["select", "digits", *EACH, "--output", str(tmp_path / "a")]) == USAGE_ERROR
    assert drawn_in(tmp_path / "a")["scores"] == [None] * 3


def test_a_lost_list_is_not_drawn_again_beside_models_that_were_trained(finished: Path, tmp_path: Path):
    shutil.copytree(finished, tmp_path / "a")
    (tmp_path / "a" / "private" / "selection.json").unlink()
    with pytest.raises(ConfigError, match="holds no selection"):
        selecting.select(Asked.of(["digits", *EACH, "--output", str(tmp_path / "a")]), "")
    with pytest.raises(CheckpointError, match="holds no selection"):
        selecting.resume(tmp_path / "a")


def test_memory_that_runs_out_is_no_output_of_a_training(three: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    interrupted_at(1, monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        selecting.select(Asked.of(["digits", *EACH, "--output", str(tmp_path / "a")]), "", progress=False)
    assert drawn_in(tmp_path / "a")["scores"] == [None] * 3


# -- the data set's account ---------------------------------------------------------------------------------------------


def account() -> Account:
    (found,) = accounts()
    return found


def test_a_total_is_held_against_the_choice_before_anything_is_drawn(
    three: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """What all trainings cost together passes the total, and what the choice costs does not: none of them is refused."""
    monkeypatch.setattr(selecting.runner, "evaluate", lambda *given, **more: None)
    monkeypatch.setattr(selecting.runs, "report", lambda root: None)
    given = ["digits", "--epsilon", "4", *CANDIDATES, *FEW, "--mean", "4"]
    alone = [*given, "--total-epsilon", "5", "--output", str(tmp_path / "a")]
    outcome = selecting.select(Asked.of(alone), "", progress=False)
    assert outcome.epsilon <= 4
    (spent,), (held,) = account().statement().spent, account().statement().only_selected
    assert spent.epsilon > 5 > held.epsilon == outcome.epsilon
    assert held.runs == 3
    assert not account().books()._beyond  # each kept to the plans that were announced
    assert {run.status for run in account().runs()} == {"done"}
    entries = len(account().entries())

    def never(self: Runs, generator: Any) -> int:
        raise AssertionError("K was drawn")

    monkeypatch.setattr(Runs, "draw", never)
    assert main(["select", *given, "--total-epsilon", "5", "--output", str(tmp_path / "b")]) == USAGE_ERROR
    assert "2 private selections, whose δ add up, leave nothing of it" in capsys.readouterr().err
    account().limit(5.0, 3e-4)
    assert main(["select", *given, "--output", str(tmp_path / "b")]) == USAGE_ERROR
    said = capsys.readouterr().err
    assert f"ε = {outcome.epsilon:.4g} was spent before" in said
    assert f"{2 * outcome.epsilon:.4g} would be with this" in said
    assert len(account().entries()) == entries + 1  # the limit
    assert not (tmp_path / "b" / "private" / "selection.json").exists()


def test_a_total_that_is_stated_later_changes_no_number_of_trainings(
    three: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It would be passed by the second training alone, and all three are trained."""
    root = tmp_path / "chosen"
    with pytest.MonkeyPatch.context() as patched:
        interrupted_at(2, patched, KeyboardInterrupt())
        assert main(["select", "digits", *EACH, "--output", str(root)]) == INTERRUPTED
    account().limit(0.5, 3e-4)
    count = interrupted_at(99, monkeypatch, KeyboardInterrupt())
    monkeypatch.setattr(selecting.runner, "evaluate", lambda *given, **more: None)
    monkeypatch.setattr(selecting.runs, "report", lambda root: None)
    outcome = selecting.resume(root, progress=False)
    assert count == [2]
    assert outcome.folder is not None
    plan = plan_of(card_of(outcome.folder), "").alone()  # pyright: ignore
    (chosen,) = (one.chosen for one in account().statement().selected)
    for run in (account().open({}), chosen):  # the choice is over, also for the chosen one
        with pytest.raises(PlanError, match="would be passed"):
            account().reserve(run, plan, 0, 1)


def test_a_selection_ends_on_another_machine_also_where_the_best_was_trained_on_the_first(
    three: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(selecting.runner, "evaluate", lambda *given, **more: None)
    monkeypatch.setattr(selecting.runs, "report", lambda root: None)
    scores = iter([3.0, 2.0, 1.0])
    monkeypatch.setattr(selecting, "score", lambda *given, **more: next(scores))
    root = tmp_path / "chosen"
    with pytest.MonkeyPatch.context() as patched:
        interrupted_at(2, patched, KeyboardInterrupt())
        assert main(["select", "digits", *EACH, "--output", str(root)]) == INTERRUPTED
    monkeypatch.setenv("DPTRAIN_LEDGER", str(tmp_path / "another"))
    outcome = selecting.resume(root, progress=False)
    assert outcome.folder is not None
    (told,) = account().statement().selected
    assert (told.runs, told.chosen, told.epsilon) == (2, "", outcome.epsilon)


def test_two_selections_in_one_folder_are_told_apart(three: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first one was abandoned, and its folder removed; its choice stays charged, and its trainings are its own."""
    monkeypatch.setattr(selecting.runner, "evaluate", lambda *given, **more: None)
    monkeypatch.setattr(selecting.runs, "report", lambda root: None)
    root = tmp_path / "chosen"
    with pytest.MonkeyPatch.context() as patched:
        interrupted_at(2, patched, KeyboardInterrupt())
        assert main(["select", "digits", *EACH, "--output", str(root)]) == INTERRUPTED
    shutil.rmtree(root)
    outcome = selecting.select(Asked.of(["digits", *EACH, "--output", str(root)]), "", progress=False)
    first, second = account().statement().selected
    assert (first.runs, first.chosen, second.runs) == (1, "", 3)
    assert second.chosen
    (held,) = account().statement().only_selected
    assert held.epsilon == pytest.approx(2 * outcome.epsilon)


# -- scores on public examples ------------------------------------------------------------------------------------------


def test_public_scores_cost_nothing(three: None, tmp_path: Path):
    asked = Asked.of(["digits", *EACH, "--score", "public", "--output", str(tmp_path / "a")])
    assert asked.score_noise is None
    outcome = selecting.select(asked, "", progress=False)
    assert outcome.selection.score_noise == 0
    (plan,) = outcome.selection.plans
    assert outcome.selection.events() == [plan.event()]
    assert outcome.folder is not None
    assert "on public examples, which costs nothing" in card_of(outcome.folder)["guarantee"]["statement"]


# -- flags --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "said"), [
    (["--epsilon", "4"], "--candidates is not given"),
    (["--epsilon", "4", "--candidates", "optimizer.learning_rat=1,2"], "did you mean 'optimizer.learning_rate'"),
    (["--epsilon", "4", "--candidates", "optimizer.learning_rate"], "is not KEY=VALUE"),
    (["--epsilon", "4", "--candidates", "optimizer.learning_rate=1,,2"], "is not KEY=VALUE"),
    (["--epsilon", "4", "--candidates", "optimizer.learning_rate=1,fast"], "is 'fast'; give a number"),
    (["--epsilon", "4", "--candidates", "optimizer.learning_rate=1,1"], "twice"),
    (["--epsilon", "4", "--candidates", "privacy.delta=1e-4,1e-5"], "privacy.delta cannot differ"),
    (["--epsilon", "4", "--candidates", "data.name=digits,mnist"], "data.name cannot differ"),
    (["--epsilon", "4", *CANDIDATES, "--mean", "0.5"], "mean is 0.5"),
    (["--epsilon", "4", *CANDIDATES, "--runs", "geometrc"], "did you mean 'geometric'"),
    (["--epsilon", "4", *CANDIDATES, "--score", "heldout"], "did you mean 'held-out'"),
    (["--epsilon", "4", *CANDIDATES, "--score", "public", "--score-noise", "3"], "with held-out alone"),
    (["--epsilon", "four", *CANDIDATES], "--epsilon is 'four'"),
    (["--epsilon", "inf", *CANDIDATES], "give a finite budget"),
    (["--epsilon", "4", "--each-epsilon", "2", *CANDIDATES], "give one budget"),
    (CANDIDATES, "give one budget"),
    (["--epsilon", "4", *CANDIDATES, "--epsilons", "2"], "a selection has one budget"),
    (["--epsilon", "4", *CANDIDATES, "--seeds", "0", "1"], "so give one"),
    (["--epsilon", "4", *CANDIDATES, "--privacy.delta", "0.1"], "not below 1/N"),
    (["--epsilon", "0.05", *CANDIDATES, "--score-noise", "0.5"], "choosing alone costs"),
    (["--epsilon", "4", *CANDIDATES, "--trainng.steps", "3"], "trainng.steps"),
])  # fmt: skip
def test_what_cannot_be_is_told_before_anything_is_drawn(
    given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["select", "digits", *given, "--output", str(tmp_path / "a")]) == USAGE_ERROR
    assert said in capsys.readouterr().err
    assert not (tmp_path / "a" / "private" / "selection.json").exists()


def test_a_graph_has_no_score_of_bounded_sensitivity(shared_data: Path, capsys: pytest.CaptureFixture[str]):
    given = ["--epsilon", "4", "--candidates", "optimizer.learning_rate=0.1,1"]
    assert main(["select", "cora", *given]) == USAGE_ERROR
    assert "is a graph" in capsys.readouterr().err


def test_help_says_what_it_does(capsys: pytest.CaptureFixture[str]):
    assert main(["select", "--help"]) == 0
    assert "--candidates" in capsys.readouterr().out
