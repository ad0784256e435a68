"""`dptrain release`: a model that was trained, accounted for and attacked is published; each reason against it is named."""

import dataclasses
import functools
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dptrain.data
from dptrain import accounting, make_private, per_example
from dptrain.checkpoint import MANIFEST, load_release
from dptrain.data.examples import Examples
from dptrain.data.split import draw
from dptrain.data.split import load as load_split
from dptrain.ledger import Ledger
from dptrain.plain import from_plain
from dptrain.plan import PrivacyPlan
from dptrain.recipe import DataConfig, SplitConfig
from dptrain.release.monitor import Thresholds, benign_sessions
from dptrain.release.monitor.thresholds import LeftOut
from evaluation import EvaluationPlan, evaluate
from evaluation.result import AuditBound, AuditResult
from recipes import audits, comparison
from recipes import thresholds as calibration
from recipes.cli import FAILED, USAGE_ERROR, main
from tests.conftest import leave_undrawn
from tests.dptrain.release.monitored import thresholds

SMALL = ["--seeds", "0", "--baselines", "--training.steps", "10", "--evaluation.inversion-steps", "10"]
SMALL += ["--evaluation.inversion-restarts", "1"]
ATTACKS = ["--evaluation.attacks", "membership.threshold", "inversion.class", "--evaluation.guards", "label_only"]
DP = "eps=08.00/seed=0"
SESSIONS = calibration.SESSIONS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small comparison: a private and a non-private model, attacked; without its page, which no release reads."""
    root = tmp_path_factory.mktemp("runs") / "mine"
    with pytest.MonkeyPatch.context() as patched:
        leave_undrawn(patched)
        assert main(["run", "digits", "--epsilons", "inf", "8", *SMALL, *ATTACKS, "--output", str(root)]) == 0
    return root


@pytest.fixture(scope="module", autouse=True)
def each_thing_once():
    """The same updates are counted once, and the same recipe is read once: most copies differ in neither."""
    count, parsed, counted = accounting.count, functools.cache(comparison.parse), {}

    def counted_once(*given: Any) -> accounting.Counted:
        said = repr(given)
        if said not in counted:
            counted[said] = count(*given)
        return counted[said]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(accounting, "count", counted_once)
        patched.setattr(comparison, "parse", lambda flags, default_output="": parsed(tuple(flags), default_output))
        yield


@pytest.fixture(autouse=True)
def too_few_sessions(monkeypatch: pytest.MonkeyPatch):
    """For a monitor, whose calibration takes seconds; tests of it ask for enough."""
    monkeypatch.setattr(calibration, "SESSIONS", 3)


@pytest.fixture
def enough_sessions(too_few_sessions: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(calibration, "SESSIONS", SESSIONS)


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    return Path(shutil.copytree(trained, tmp_path / "mine"))


@pytest.fixture
def run(root: Path) -> Path:
    return root / DP


def policy(folder: Path, text: str) -> list[str]:
    path = folder / "policy.toml"
    path.write_text(text)
    return ["--policy", str(path)]


def refusals(run: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, dict[str, str]]:
    """The checks that are not met, by name; nothing may have been written."""
    capsys.readouterr()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["release", str(run), *flags, "--format", "json"]) == FAILED
    found = json.loads(capsys.readouterr().out)
    assert not found["granted"]
    assert found["published"] is None
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    against = {check["name"]: check for check in found["checks"] if check["verdict"] != "met"}
    assert against
    assert all(check["to_do"] for check in against.values())
    return against


def mend_manifest(run: Path) -> None:
    """As someone does who edits a release and its manifest together."""
    release = run / "release"
    manifest = json.loads((release / MANIFEST).read_text())
    manifest["files"] = {name: hashlib.sha256((release / name).read_bytes()).hexdigest() for name in manifest["files"]}
    (release / MANIFEST).write_text(json.dumps(manifest))


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def attack_again(run: Path) -> None:
    """Attacks find the same on the same weights, whatever the card says."""
    digest = hashlib.sha256((run / "release" / MANIFEST).read_bytes()).hexdigest()
    edit(result_of(run), lambda result: result.update(release_digest=digest))


def result_of(run: Path) -> Path:
    return run / "evaluation" / "step=000010" / "result.json"


def card_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "release" / "card.json").read_text())


# -- what is published ----------------------------------------------------------------------------------------------


def test_a_sound_model_is_published_and_loads(run: Path, capsys: pytest.CaptureFixture[str]):
    before = (run / "release" / MANIFEST).read_bytes()
    assert main(["release", str(run)]) == 0
    said = capsys.readouterr().out
    assert "Published: " in said
    assert "other trainings on the same data" in said
    assert "No monitor.json" in said
    published = run / "published"
    weights, card = load_release(published)
    original, stated = load_release(run / "release")
    assert all(torch.equal(weights[name], value) for name, value in original.items())
    assert card == {**stated, "guard": None}
    assert (run / "release" / MANIFEST).read_bytes() == before
    names = {"model.safetensors", "card.json", "MODEL_CARD.md", "model_card.json", "policy.json", MANIFEST}
    assert {path.name for path in published.iterdir()} == names
    document = json.loads((published / "model_card.json").read_text())
    assert document["schema"] == "dptrain.model_card/1"
    assert document["epsilon"] == pytest.approx(8.0, abs=0.01)
    judged = json.loads((published / "policy.json").read_text())
    assert judged["policy"]["maximum_epsilon"] == 10.0
    assert {check["verdict"] for check in judged["checks"]} == {"met"}


def test_what_is_published_holds_no_private_fact(run: Path, root: Path):
    assert main(["release", str(run)]) == 0
    split = load_split(run / "private" / "split.npz")
    counts = [len(part) for part in (split.members, split.non_members, split.population, split.audited, split.held_out)]
    result = json.loads(result_of(run).read_text())
    for name in ("MODEL_CARD.md", "model_card.json", "policy.json"):
        said = (run / "published" / name).read_text()
        assert not [count for count in (*counts, split.size) if re.search(rf"(?<![\w.]){count}(?![\w.])", said)], name
        assert str(root) not in said
        assert "seed=" not in said
        assert split.digest not in said
        exact = [value for attack in result["attacks"] for value in (attack["value"], attack["low"], attack["high"])]
        exact += list(result["utility"].values())
        assert not [value for value in exact if len(str(value)) > 6 and str(value) in said], name
    assert "is not published, since it was computed from members" in (run / "published" / "MODEL_CARD.md").read_text()


def test_figures_are_published_where_they_are_asked_for_and_rounded_outwards(run: Path):
    assert main(["release", str(run), "--with-figures", "--intended-use", "To read postcodes."]) == 0
    document = json.loads((run / "published" / "model_card.json").read_text())
    (threshold,) = (attack for attack in json.loads(result_of(run).read_text())["attacks"] if attack["metric"] == "auc")
    (figure,) = (figure for figure in document["figures"] if figure["name"] == "auc")
    assert figure["low"] <= threshold["low"] <= threshold["high"] <= figure["high"]
    assert figure["high"] - threshold["high"] < 0.01
    page = (run / "published" / "MODEL_CARD.md").read_text()
    assert "from members, without noise" in page
    assert "To read postcodes." in page


def test_the_model_card_has_the_published_headings_in_their_order(run: Path):
    assert main(["release", str(run)]) == 0
    page = (run / "published" / "MODEL_CARD.md").read_text()
    headings = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    of_the_paper = ["Model Details", "Intended Use", "Factors", "Metrics", "Evaluation Data", "Training Data"]
    of_the_paper += ["Quantitative Analyses", "Ethical Considerations", "Caveats and Recommendations"]
    assert [heading for heading in headings if heading != "Privacy"] == of_the_paper
    assert card_of(run)["guarantee"]["statement"] in page
    assert "2,981 times as likely" in page
    assert "CC BY 4.0" in page


@pytest.fixture(scope="module")
def much_is_public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("public") / "mine"
    shares = ["--data.split.members", "0.3", "--data.split.non-members", "0.25", "--data.split.public", "0.4"]
    shares += ["--data.split.population", "0.05", "--privacy.expected-batch-size", "539"]
    with pytest.MonkeyPatch.context() as patched:
        leave_undrawn(patched)
        assert main(["run", "digits", "--epsilons", "8", *SMALL, *shares, *ATTACKS, "--output", str(root)]) == 0
    return root / DP


@pytest.mark.usefixtures("enough_sessions")
def test_thresholds_of_a_monitor_come_from_public_examples_alone_and_say_what_others_of_them_raise(
    much_is_public: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run, asked = much_is_public, list[np.ndarray]()

    def watched(inputs: np.ndarray, *given: Any, **named: Any):
        asked.append(inputs)
        return benign_sessions(inputs, *given, **named)

    monkeypatch.setattr(calibration, "benign_sessions", watched)
    assert main(["release", str(run)]) == 0
    split, data = load_split(run / "private" / "split.npz"), dptrain.data.load(DataConfig())
    public = {row.tobytes() for row in data.inputs[torch.from_numpy(split.public)].numpy()}
    calibrated, left_out = ({row.tobytes() for row in inputs} for inputs in asked)
    assert not calibrated & left_out
    assert calibrated | left_out == public
    found = Thresholds.from_json(json.loads((run / "published" / "monitor.json").read_text()))
    assert found.false_alarm_rate == 0.01
    assert found.left_out is not None
    assert found.left_out.examples == len(left_out)
    said = capsys.readouterr().out
    assert found.statement() in said
    assert f"{found.left_out.alarms} raised an alert" in said
    assert "confidence" not in found.statement()
    assert "monitor.json" in (run / "published" / "MODEL_CARD.md").read_text()


def test_there_is_no_monitor_of_few_public_examples_or_where_others_raise_more_alerts_than_aimed_at(
    run: Path, much_is_public: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(calibration, "calibrate", lambda *_, **__: thresholds())
    assert main(["release", str(run)]) == 0
    assert not (run / "published" / "monitor.json").exists()
    said = capsys.readouterr().out
    assert "at least 450 distinct examples" in said
    assert "thresholds = dptrain.release.monitor.calibrate(sessions)" in said
    assert "--thresholds monitor.json" in said
    for alarms, output in ((6, run / "as aimed at"), (7, run / "more")):
        left_out = LeftOut(examples=200, sessions=300, alarms=alarms)
        monkeypatch.setattr(calibration, "measured", lambda made, _, found=left_out: dataclasses.replace(made, left_out=found))
        assert main(["release", str(much_is_public), "--output", str(output)]) == 0
        assert (output / "monitor.json").exists() == (alarms == 6)  # of 2%


def test_publishing_again_takes_the_place_of_what_was_published(run: Path, capsys: pytest.CaptureFixture[str]):
    page = run / "published" / "MODEL_CARD.md"
    assert main(["release", str(run)]) == 0
    assert main(["release", str(run), "--intended-use", "To read postcodes."]) == 0
    assert "To read postcodes." in page.read_text()
    load_release(run / "published")
    page.write_text("edited")
    assert main(["release", str(run)]) == USAGE_ERROR
    assert f"{page} is not what was saved" in capsys.readouterr().err
    assert page.read_text() == "edited"


@pytest.mark.parametrize("stranger", ["thesis.txt", "chapters/one.txt"])
@pytest.mark.parametrize("listed", ["not listed", "listed"])
def test_a_published_folder_with_something_of_the_owners_own_is_left_alone(
    stranger: str, listed: str, run: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["release", str(run)]) == 0
    path = run / "published" / stranger
    path.parent.mkdir(exist_ok=True)
    path.write_text("precious")
    if listed == "listed" and path.parent == run / "published":
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        edit(run / "published" / MANIFEST, lambda manifest: manifest["files"].update({stranger: digest}))
    assert main(["release", str(run)]) == USAGE_ERROR
    assert Path(stranger).parts[0] in capsys.readouterr().err
    assert path.read_text() == "precious"


def test_what_the_users_own_data_are_called_is_not_published(run: Path):
    owned = {"name": "smith 7", "source": "smith 7, given by the user"}
    edit(run / "release" / "card.json", lambda card: card["data"].update(owned))
    mend_manifest(run)
    attack_again(run)
    assert main(["release", str(run)]) == 0
    assert not [path.name for path in (run / "published").iterdir() if b"smith" in path.read_bytes()]
    assert load_release(run / "published")[1]["data"]["commitment"] == card_of(run)["data"]["commitment"]


def test_a_folder_is_published_whole_or_not_at_all(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(*given: Any):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("dptrain.checkpoint.os.rename", full)
        assert main(["release", str(run)]) == USAGE_ERROR
    assert "No space left" in capsys.readouterr().err
    assert not (run / "published").exists()
    assert main(["release", str(run)]) == 0
    load_release(run / "published")


def test_a_model_that_a_script_trained_is_released_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = dptrain.data.load(DataConfig())
    split, shares = draw(len(data), SplitConfig(), 0), SplitConfig()
    plan = PrivacyPlan(
        sampling_rate=1.0, expected_batch_size=len(data) * shares.members, steps=3, clipping_norm=0.1, delta=1e-5,
        noise_multiplier=5.0,
    )  # fmt: skip
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    run, optimizer = tmp_path / "by_hand", torch.optim.SGD(model.parameters(), lr=1.0)
    members = Examples(data, split.members)
    loss = per_example(torch.nn.functional.cross_entropy)
    private = make_private(model, optimizer, members, plan, loss=loss, ledger=run / "private" / "ledger.jsonl")
    for batch in private.batches():
        private.step(batch)
    private.save(run, split=split)
    assert "no attack has been made" in refusals(run, capsys)["results"]["found"]
    evaluate(run, data, plan=EvaluationPlan(attacks=("membership.threshold",)), model=model, progress=False)
    assert main(["release", str(run)]) == 0
    assert "a model of the owner's own" in (run / "published" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("place", ["release", "private/out", "evaluation", ".", "thesis"])
def test_nothing_else_is_ever_written_over(place: str, run: Path, capsys: pytest.CaptureFixture[str]):
    (run / "thesis").mkdir()
    (run / "thesis" / "chapter.txt").write_text("precious")
    assert main(["release", str(run), "--output", str(run / place)]) == USAGE_ERROR
    assert "give a" in capsys.readouterr().err
    assert (run / "thesis" / "chapter.txt").read_text() == "precious"
    assert not (run / place / "model_card.json").exists()


# -- the folder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "card.json"])
def test_an_edited_file_is_refused_by_name(name: str, run: Path, capsys: pytest.CaptureFixture[str]):
    path = run / "release" / name
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    assert name in refusals(run, capsys)["manifest"]["found"]


def test_edited_weights_with_a_mended_manifest_were_not_attacked(run: Path, capsys: pytest.CaptureFixture[str]):
    path = run / "release" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    mend_manifest(run)
    assert "on other weights or another card" in refusals(run, capsys)["results"]["found"]


def test_a_card_that_claims_less_than_was_spent_is_refused_by_the_ledger(run: Path, capsys: pytest.CaptureFixture[str]):
    edit(run / "release" / "card.json", lambda card: card["guarantee"].update(epsilon=1.0))
    mend_manifest(run)
    against = refusals(run, capsys)
    assert "ε = 8.0" in against["ledger"]["found"] or "ε = 7.9" in against["ledger"]["found"]
    assert "results" in against


def test_a_file_that_no_manifest_names_is_refused(run: Path, capsys: pytest.CaptureFixture[str]):
    (run / "release" / "optimizer.pt").write_bytes(b"members")
    assert "optimizer.pt does not belong there" in refusals(run, capsys)["manifest"]["found"]


def test_a_stranger_that_the_manifest_names_is_refused_too(run: Path, capsys: pytest.CaptureFixture[str]):
    (run / "release" / "optimizer.pt").write_bytes(b"members")
    edit(run / "release" / MANIFEST, lambda manifest: manifest["files"].update({"optimizer.pt": ""}))
    mend_manifest(run)
    assert "is no part of a release" in refusals(run, capsys)["manifest"]["found"]


def test_noise_from_a_fixed_seed_is_never_published(run: Path, capsys: pytest.CaptureFixture[str]):
    edit(run / "release" / "card.json", lambda card: card.update(insecure_randomness=True))
    mend_manifest(run)
    attack_again(run)
    assert refusals(run, capsys).keys() == {"randomness"}


def test_a_class_whose_name_is_no_text_is_refused(run: Path, capsys: pytest.CaptureFixture[str]):
    edit(run / "release" / "card.json", lambda card: card["data"]["classes"].__setitem__(0, "caf\udce9"))
    mend_manifest(run)
    attack_again(run)
    against = refusals(run, capsys)
    assert against.keys() == {"names"}
    assert r"'caf\udce9'" in against["names"]["found"]


def test_a_card_without_a_finite_claim_is_no_card(run: Path, capsys: pytest.CaptureFixture[str]):
    edit(run / "release" / "card.json", lambda card: card["guarantee"].update(epsilon=float("nan")))
    mend_manifest(run)
    assert "its ε is nan" in refusals(run, capsys)["manifest"]["found"]


# -- the account ----------------------------------------------------------------------------------------------------


def test_a_ledger_that_was_cut_off_accounts_for_too_little(run: Path, capsys: pytest.CaptureFixture[str]):
    path = run / "private" / "ledger.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0][:-20])
    assert "line 1 was changed, it has lost its end" in refusals(run, capsys)["ledger"]["found"]
    path.with_name("ledger.jsonl.head").unlink()
    against = refusals(run, capsys)
    assert "lacks 10 of the card's 10 updates" in against["ledger"]["found"]
    assert against["maximum_epsilon"]["verdict"] == "cannot be judged"


def test_an_edited_ledger_is_refused(run: Path, capsys: pytest.CaptureFixture[str]):
    path = run / "private" / "ledger.jsonl"
    path.write_text(path.read_text().replace('"noise_multiplier": ', '"noise_multiplier": 9', 1))
    assert "line 1 was changed" in refusals(run, capsys)["ledger"]["found"]


def test_without_its_ledger_nothing_is_published(run: Path, capsys: pytest.CaptureFixture[str]):
    (run / "private" / "ledger.jsonl").unlink()
    assert "there is no ledger" in refusals(run, capsys)["ledger"]["found"]


def test_a_ledger_of_other_data_accounts_for_nothing(run: Path, capsys: pytest.CaptureFixture[str]):
    path, plan = run / "private" / "ledger.jsonl", from_plain(PrivacyPlan, card_of(run)["plan"], "card")
    path.unlink()
    path.with_name("ledger.jsonl.head").unlink()
    Ledger(path, data="another").reserve(plan, 0, plan.steps)
    found = refusals(run, capsys)["ledger"]
    assert found["verdict"] == "cannot be judged"
    assert "of other data than the card commits to" in found["found"]


def test_without_the_split_it_is_not_known_of_which_data_the_ledger_is(run: Path, capsys: pytest.CaptureFixture[str]):
    (run / "private" / "split.npz").unlink()
    found = refusals(run, capsys)["ledger"]
    assert found["verdict"] == "cannot be judged"
    assert "split.npz" in found["found"]


def test_updates_that_a_crash_left_behind_count_and_are_stated_where_the_policy_says_so(
    run: Path, capsys: pytest.CaptureFixture[str]
):
    ledger = Ledger(run / "private" / "ledger.jsonl", data=Ledger(run / "private" / "ledger.jsonl").entries()[0]["data"])
    plan = from_plain(PrivacyPlan, card_of(run)["plan"], "card")
    ledger.reserve(plan, 0, 2)
    against = refusals(run, capsys)
    assert "ledger_above_card" in against["ledger"]["to_do"]
    stated = policy(run.parent, 'maximum_epsilon = 12.0\nledger_above_card = "state"')
    assert main(["release", str(run), *stated]) == 0
    document = json.loads((run / "published" / "model_card.json").read_text())
    assert document["epsilon"] > card_of(run)["guarantee"]["epsilon"] + 0.5
    assert "more than the" in document["ledger"]
    assert load_release(run / "published")[1]["guarantee"]["epsilon"] == document["epsilon"]
    too_much = policy(run.parent, 'maximum_epsilon = 8.0\nledger_above_card = "state"')
    shutil.rmtree(run / "published")
    assert refusals(run, capsys, *too_much).keys() == {"maximum_epsilon"}


def test_epsilon_and_delta_are_held_against_the_policy(run: Path, capsys: pytest.CaptureFixture[str]):
    against = refusals(run, capsys, *policy(run.parent, "maximum_epsilon = 4.0\nmaximum_delta = 1e-6"))
    assert against.keys() == {"maximum_epsilon", "maximum_delta"}


def test_a_model_without_a_guarantee_is_published_where_the_policy_says_infinity_alone(
    root: Path, capsys: pytest.CaptureFixture[str]
):
    run = root / "non_private" / "seed=0"
    assert refusals(run, capsys).keys() == {"maximum_epsilon"}
    assert refusals(run, capsys, *policy(root, "maximum_auc = 1.0")).keys() == {"maximum_epsilon"}
    assert main(["release", str(run), *policy(root, "maximum_epsilon = inf")]) == 0
    assert "Nothing is promised" in (run / "published" / "MODEL_CARD.md").read_text()


# -- audits ---------------------------------------------------------------------------------------------------------


def bound(epsilon: float, holds_for: str = "any mechanism") -> AuditBound:
    return AuditBound(
        method="made up", epsilon=epsilon, ceiling=12.0, holds_for=holds_for, is_bound=True, canaries=100, guesses=10,
        correct=9, comparisons=1, confidence=0.95, text="",
    )  # fmt: skip


def audit(run: Path, **changes: Any) -> AuditResult:
    made = AuditResult(
        about="made up", access="white-box", epsilon=8.0, delta=1e-4, relation="add_or_remove_one", step=10, steps=10,
        bounds=(bound(2.0),), how="white-box", budget=8.0, recipe_digest=card_of(run)["recipe_digest"],
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def test_an_audit_that_contradicts_refuses_and_one_that_agrees_does_not(
    run: Path, root: Path, capsys: pytest.CaptureFixture[str]
):
    asked = policy(root, "require_audit = true\nmaximum_epsilon = 8.0")
    assert (
        f"dptrain audit {root / 'comparison.toml'} --epsilons 8 --output {root}"
        in refusals(run, capsys, *asked)["require_audit"]["to_do"]
    )
    audits.save(audit(run), root)
    assert main(["release", str(run), *asked]) == 0
    shutil.rmtree(run / "published")
    audits.save(audit(run, contradictions=("made up gives ε ≥ 9.000",)), root)
    assert "made up gives ε ≥ 9.000" in refusals(run, capsys, *asked)["audits"]["found"]


def test_a_bound_above_the_card_refuses_whatever_the_audit_concluded(run: Path, root: Path, capsys: pytest.CaptureFixture[str]):
    audits.save(audit(run, bounds=(bound(8.5),)), root)
    assert "ε ≥ 8.500" in refusals(run, capsys)["audits"]["found"]


def test_a_bound_that_holds_for_some_mechanisms_alone_refutes_nothing(run: Path, root: Path):
    audits.save(audit(run, bounds=(bound(8.5, "Gaussian trade-off curves"),)), root)
    assert main(["release", str(run)]) == 0


def test_an_audit_of_another_recipe_is_not_this_ones(run: Path, root: Path, capsys: pytest.CaptureFixture[str]):
    audits.save(audit(run, recipe_digest="another"), root)
    assert refusals(run, capsys, *policy(root, "require_audit = true")).keys() == {"require_audit"}


def test_a_damaged_audit_leaves_the_claim_unjudged(run: Path, root: Path, capsys: pytest.CaptureFixture[str]):
    path = audits.save(audit(run), root)
    path.write_text(path.read_text()[:50])
    assert refusals(run, capsys)["audits"]["verdict"] == "cannot be judged"


# -- attacks --------------------------------------------------------------------------------------------------------


def test_a_model_that_was_not_attacked_is_not_published(run: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(run / "evaluation")
    against = refusals(run, capsys, *policy(run.parent, "maximum_auc = 0.9"))
    assert against["results"]["verdict"] == against["maximum_auc"]["verdict"] == "cannot be judged"
    assert "dptrain evaluate" in against["results"]["to_do"]


CLASSES = "inversion.class"


def test_an_attack_that_is_missing_failed_or_above_the_plan_refuses(run: Path, capsys: pytest.CaptureFixture[str]):
    whole = result_of(run).read_text()
    edit(result_of(run), lambda result: result.update(attacks=[one for one in result["attacks"] if one["name"] != CLASSES]))
    assert CLASSES in refusals(run, capsys)["attacks_complete"]["found"]
    result_of(run).write_text(whole)
    edit(result_of(run), lambda result: result["attacks"][1].update(status="failed", reason="it broke"))
    assert "inversion.class (it broke)" in refusals(run, capsys)["attacks_failed"]["found"]
    result_of(run).write_text(whole)
    edit(result_of(run), lambda result: result["attacks"][0].update(verdict="above the plan", reason="AUC 0.99"))
    assert "membership.threshold at step 10 (AUC 0.99)" in refusals(run, capsys)["within_the_plan"]["found"]


def test_an_earlier_checkpoint_above_the_plan_refuses_the_last_one(run: Path, capsys: pytest.CaptureFixture[str]):
    earlier = result_of(run).parent.with_name("step=000005")
    shutil.copytree(result_of(run).parent, earlier)
    edit(earlier / "result.json", lambda result: result.update(step=5, release_digest="earlier"))
    edit(earlier / "result.json", lambda result: result["attacks"][0].update(verdict="above the plan"))
    assert "at step 5" in refusals(run, capsys)["within_the_plan"]["found"]


def test_an_earlier_checkpoint_whose_result_cannot_be_read_leaves_it_unjudged(run: Path, capsys: pytest.CaptureFixture[str]):
    earlier = run / "evaluation" / "step=000005" / "result.json"
    earlier.parent.mkdir()
    earlier.write_text(result_of(run).read_text()[:-20])
    against = refusals(run, capsys)
    assert against.keys() == {"within_the_plan"}
    assert against["within_the_plan"]["verdict"] == "cannot be judged"
    assert str(earlier) in against["within_the_plan"]["found"]


@pytest.mark.parametrize(
    ("asked", "name", "verdict"),
    [
        ("maximum_auc = 0.4", "maximum_auc", "not met"),
        ("maximum_tpr = 0.0001", "maximum_tpr", "not met"),
        ("maximum_identification = 0.05", "maximum_identification", "not met"),
        ("minimum_utility = 0.9999", "minimum_utility", "not met"),
        ("maximum_exposure = 5.0", "maximum_exposure", "cannot be judged"),
        ("maximum_link_auc = 0.6", "maximum_link_auc", "cannot be judged"),
        ("minimum_shadow_models = 4", "minimum_shadow_models", "cannot be judged"),
        ('required_attacks = ["membership.lira"]', "required_attacks", "not met"),
    ],
)
def test_a_bound_that_is_exceeded_or_cannot_be_judged_refuses(
    asked: str, name: str, verdict: str, run: Path, capsys: pytest.CaptureFixture[str]
):
    against = refusals(run, capsys, *policy(run.parent, f"maximum_epsilon = 8.0\n{asked}"))
    assert {key: check["verdict"] for key, check in against.items()} == {name: verdict}


def test_all_reasons_are_listed_at_once(run: Path, capsys: pytest.CaptureFixture[str]):
    asked = policy(run.parent, "maximum_epsilon = 1.0\nmaximum_auc = 0.1\nmaximum_exposure = 1.0")
    assert main(["release", str(run), *asked]) == FAILED
    said = capsys.readouterr().out
    assert "REFUSED: 3 of" in said
    assert "Nothing was written" in said
    assert said.count("to do") == 3


# -- guards ---------------------------------------------------------------------------------------------------------


def test_behind_a_guard_the_attacks_through_it_are_what_counts(run: Path, capsys: pytest.CaptureFixture[str]):
    bounds = policy(run.parent, "maximum_epsilon = 8.0\nmaximum_auc = 0.6")
    assert main(["release", str(run), "--guard", "label_only", *bounds]) == 0
    assert "do not hand it on" in capsys.readouterr().out
    _, card = load_release(run / "published")
    assert card["guard"]["text"] == "label_only"
    assert "Only the most probable class is shown" in card["guard"]["statement"]
    page = (run / "published" / "MODEL_CARD.md").read_text()
    assert "with the guard `label_only`" in page
    assert "before which no guard stands" in page
    edit(result_of(run), lambda result: result["guarded"][0]["attacks"][0].update(high=0.7))
    shutil.rmtree(run / "published")
    assert refusals(run, capsys, "--guard", "label_only", *bounds).keys() == {"maximum_auc"}
    edit(result_of(run), lambda result: result["guarded"][0].update(attacks=[]))
    assert refusals(run, capsys, "--guard", "label_only").keys() == {"guard"}


def test_a_guard_that_nobody_attacked_is_not_called_safe(run: Path, capsys: pytest.CaptureFixture[str]):
    against = refusals(run, capsys, "--guard", "top5-rounded", *policy(run.parent, "maximum_auc = 1.0\nmaximum_epsilon = 8"))
    assert {name: check["verdict"] for name, check in against.items()} == {
        "guard": "cannot be judged", "maximum_auc": "cannot be judged",
    }  # fmt: skip
    assert "--evaluation.guards top5-rounded" in against["guard"]["to_do"]


# -- what is typed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--guard", "top5-rouded"], "did you mean 'rounded'"),
        (["--guard", "memguard0.5"], "fitted on members"),
        (["--polcy", "p.toml"], "did you mean --policy?"),
        (["--policy", "gone.toml"], "there is no file gone.toml"),
        (["--format", "xml"], "accepted: json, text"),
        (["--output"], "--output needs a value"),
    ],
)
def test_a_typo_is_told_what_to_type(flags: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["release", str(run), *flags]) == USAGE_ERROR
    assert said in capsys.readouterr().err
    assert not (run / "published").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("maximum_epsilom = 8", "did you mean 'maximum_epsilon'"), ('required_attacks = ["membership.lyra"]', "membership.lira")],
)
def test_a_typo_in_the_policy_is_not_taken_for_no_bound(text: str, said: str, run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["release", str(run), *policy(run.parent, text)]) == USAGE_ERROR
    assert said in capsys.readouterr().err


def test_a_comparison_says_which_models_it_holds(root: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["release", str(root)]) == USAGE_ERROR
    said = capsys.readouterr().err
    assert f"dptrain release {root / DP}" in said
    assert f"dptrain release {root / 'non_private' / 'seed=0'}" in said


def test_a_folder_without_a_model_is_told_what_one_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["release", str(tmp_path)]) == USAGE_ERROR
    assert "which holds release/" in capsys.readouterr().err
