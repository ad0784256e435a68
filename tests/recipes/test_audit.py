"""`dptrain audit`: a sound recipe passes, a broken one ends with an exit code of its own, and a typo is told what to type."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from dptrain.noise import GaussianNoise
from recipes import audit, audits
from recipes.cli import CONTRADICTED, INTERRUPTED, USAGE_ERROR, main
from tests.conftest import leave_undrawn


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_keys: None):
    """Audits are kept below the folder that a command is given in; by chance one of 1,000 accuses what is sound."""
    monkeypatch.chdir(tmp_path)


QUICK = ["--epsilons", "4", "--training.steps", "20", "--privacy.delta", "1e-5", "--canaries", "300"]


def test_a_sound_recipe_is_not_accused(capsys: pytest.CaptureFixture[str]):
    assert main(["audit", "digits", *QUICK]) == 0
    said = capsys.readouterr().out
    assert "claimed ε = 4.000 at δ = 1e-05" in said
    assert "a perfect attack on as many canaries gives" in said
    assert said.count(": holds") == 3
    assert "Nothing here contradicts" in said


def test_the_document_holds_what_the_text_says(capsys: pytest.CaptureFixture[str]):
    assert main(["audit", "digits", *QUICK, "--format", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["contradictions"] == []
    assert found["epsilon"] == pytest.approx(4.0, abs=0.01)
    assert [check["name"] for check in found["checks"]] == ["noise", "contribution", "draws"]
    bounds = found["bounds"]
    assert [bound["holds_for"] for bound in bounds] == [
        "any mechanism", "Gaussian trade-off curves", "independent Gaussian scores",
    ]  # fmt: skip
    assert all(bound["comparisons"] == 2 for bound in bounds)


def test_a_bound_that_is_named_beforehand_has_the_whole_error(capsys: pytest.CaptureFixture[str]):
    assert main(["audit", "digits", *QUICK, "--bound", "f-dp", "--format", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    bound, estimate = found["bounds"]
    assert (bound["holds_for"], bound["comparisons"]) == ("Gaussian trade-off curves", 1)
    assert not estimate["is_bound"]


def test_half_of_the_noise_ends_with_its_own_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    draw = GaussianNoise._unit_noise

    def halved(self: GaussianNoise, *given: Any) -> Any:
        noise, deviation = draw(self, *given)
        return noise * 0.5, deviation

    monkeypatch.setattr(GaussianNoise, "_unit_noise", halved)
    assert main(["audit", "digits", *QUICK]) == CONTRADICTED
    said = capsys.readouterr().out
    assert "BROKEN" in said
    assert "This audit contradicts the claim of ε = 4.000" in said
    assert "Do not release" in said


@pytest.mark.parametrize(
    ("how", "many"), [("one-run", "--canaries=60"), ("many-runs", "--trainings=24"), ("worst-case", "--trainings=24")]
)
def test_the_other_games_are_played(how: str, many: str, capsys: pytest.CaptureFixture[str]):
    few = ["--epsilons", "4", "--training.steps", "5", "--how", how, many]
    assert main(["audit", "digits", *few, "--records", "300", "--privacy.expected-batch-size", "300"]) == 0
    assert "black-box" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("how", "many"), [("white-box", "--canaries=60"), ("one-run", "--canaries=60"), ("worst-case", "--trainings=20")]
)
@pytest.mark.parametrize("given", [["--regularization.early_stopping", "2"], ["--regularization.distillation", "3"]])
def test_recipes_that_look_at_public_examples_are_audited(
    how: str, many: str, given: list[str], capsys: pytest.CaptureFixture[str]
):
    few = ["--epsilons", "4", "--training.steps", "5", "--how", how, many]
    assert main(["audit", "digits", *few, *given, "--records", "300", "--privacy.expected-batch-size", "300"]) == 0
    assert "claimed ε = 4.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--how", "blackbox"], "accepted: many-runs, one-run, white-box, worst-case"),
        (["--canary", "noisy", "--how", "one-run"], "did you mean 'noise'"),
        (["--canaries", "many"], "--canaries is 'many'; give a whole number"),
        (["--canaries"], "--canaries needs a value"),
        (["--trainings", "3", "--how", "many-runs"], "give a whole number from 20 up"),
        (
            ["--trainings", "50"],
            "says nothing to --how white-box; leave it out, or give --how many-runs or worst-case",
        ),
        (["--canary", "noise", "--how", "worst-case"], "--canary says nothing to --how worst-case"),
        (["--bound", "stienke"], "did you mean 'steinke'"),
        (["--bound", "gdp"], "accepted: f-dp, steinke"),
        (["--records", "5000"], "members; give at most as many"),
        (["--epsilons", "inf"], "such as --epsilons 4"),
        (["--canaris", "5"], "canaris"),
        (["--regularization.mixup", "0.3"], "regularization.mixup is 0.3, and under clipping"),
        (
            ["--data.split.public", "0", "--data.split.population", "0.15", "--regularization.early_stopping", "5"],
            "give data.split.public a share above 0",
        ),
    ],
)
def test_what_cannot_be_audited_is_told_what_to_type(given: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["audit", "digits", *given]) == USAGE_ERROR
    assert said in capsys.readouterr().err


def test_audits_of_all_checkpoints_share_the_error_and_stand_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("evaluation.report.tensorboard.write", lambda *given: None)  # whose own tests look at it
    root = tmp_path / "audited"
    small = [*QUICK[:-2], "--training.checkpoint-every", "10", "--output", str(root)]
    assert main(["audit", "digits", *small, "--canaries", "100"]) == 0
    assert "step 10 of 20" in capsys.readouterr().out
    attacks = ["--baselines", "--seeds", "0", "--evaluation.attacks", "membership.threshold"]
    with monkeypatch.context() as patched:
        leave_undrawn(patched)
        assert main(["run", "digits", *small, *attacks]) == 0  # the folder holds an audit and no comparison yet
    capsys.readouterr()
    assert main(["audit", "digits", *small, "--canaries", "100"]) == 0  # another one, which replaces none
    document = json.loads((root / "results.json").read_text())
    assert [(one["step"], one["how"]) for one in document["audits"]] == [(10, "white-box")] * 2 + [(20, "white-box")] * 2
    assert {bound["comparisons"] for one in document["audits"] for bound in one["bounds"]} == {4}
    assert "What audits could show of it" in (root / "report.html").read_text()
    assert main(["audit", "digits", *small, "--canaries", "100", "--optimizer.learning-rate", "1"]) == 0
    assert len(json.loads((root / "results.json").read_text())["audits"]) == 6
    assert (root / "report.html").read_text().count("of a recipe that did not run here") >= 2


def test_a_damaged_audit_is_named_and_the_others_are_read(tmp_path: Path):
    root = tmp_path / "audited"
    for _ in range(2):
        assert main(["audit", "digits", *QUICK, "--output", str(root)]) == 0
    path, _ = sorted((root / "audit").glob("*/*.json"))
    path.write_text(path.read_text()[:100])
    found, (trouble,) = audits.read(root)
    assert len(found) == 1
    assert "001.json is not a result" in trouble
    assert "restore it from a copy, or remove it" in trouble


def test_a_contradiction_keeps_its_exit_code_where_the_report_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    root = tmp_path / "damaged"
    root.mkdir()
    (root / "comparison.toml").write_text("not TOML")
    judge = audit.judge
    monkeypatch.setattr(audit, "judge", lambda *a, **k: dataclasses.replace(judge(*a, **k), contradictions=("planted",)))
    assert main(["audit", "digits", *QUICK, "--output", str(root)]) == CONTRADICTED
    said = capsys.readouterr()
    assert "This audit contradicts the claim" in said.out
    assert "was not made again" in said.err
    assert len(audits.read(root)[0]) == 1


def test_an_audit_that_is_cut_keeps_what_was_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root, play, played = tmp_path / "cut", audit._play, []

    def cut(*given: Any):
        if played:
            raise KeyboardInterrupt
        played.append(given)
        return play(*given)

    monkeypatch.setattr(audit, "_play", cut)
    two = [*QUICK[2:], "--epsilons", "8", "4", "--output", str(root)]
    assert main(["audit", "digits", *two]) == INTERRUPTED
    ((kept,), troubles) = audits.read(root)
    assert (kept.budget, troubles) == (8.0, ())
    assert kept.bounds[0].comparisons == 4  # of two bounds and two budgets, whether or not the second came


@pytest.mark.parametrize("what", ["a file", "a folder of something else"])
def test_a_place_that_cannot_be_used_is_refused_before_anything_is_trained(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    place = tmp_path / "place"
    if what == "a file":
        place.write_text("precious")
    else:
        place.mkdir()
        (place / "thesis.txt").write_text("precious")
    monkeypatch.setattr(audit, "audit", lambda *given: pytest.fail("trained"))
    assert main(["audit", "digits", *QUICK, "--output", str(place)]) == USAGE_ERROR
    assert "type another folder with --output" in capsys.readouterr().err
    assert what == "a file" or [entry.name for entry in place.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("recipe", ["cora", "cora_nodes"])
def test_an_audit_of_a_graph_is_refused_in_a_sentence(recipe: str, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["audit", recipe, "--epsilons", "4", "--output", str(tmp_path / "run")]) == USAGE_ERROR
    assert "plays its games with examples that are added and left out" in capsys.readouterr().err
