"""One model behind one guard after the other: who attacks it, what is shown, and what becomes of a guard that breaks."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dptrain.data
from dptrain.data.split import draw
from dptrain.errors import ConfigError
from dptrain.fleet import Fleet
from dptrain.recipe import DataConfig, OptimizerConfig, PrivacyConfig, Recipe, ReleaseConfig, SplitConfig, TrainingConfig
from dptrain.release.guard import Answers
from dptrain.trainer import Trainer
from evaluation import EvaluationPlan, evaluate
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.guarded import Bench
from evaluation.result import AttackResult, GuardedResult, read_run, to_json
from evaluation.runner import check_plan, run_attack
from evaluation.shadows import Fleets
from evaluation.through_guards import attacks_through, attacks_without, in_words, known, stand_before, through_guards, worth
from tests.evaluation.test_guarded import CLASSES, Scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.made()


def case_of(scene: Scene, *guards: str, attacks: tuple[str, ...] = ("membership.lira",)) -> Case:
    plan = EvaluationPlan(attacks=attacks, guards=guards)
    return Case(target=scene.target, untrained=None, data=scene.data, split=scene.split, plan=None, evaluation=plan, seed=0)


def never() -> Fleet:
    raise AssertionError("nothing here asks for shadow models")


# -- who attacks ----------------------------------------------------------------------------------------------------


def test_through_a_guard_come_those_who_see_scores_at_most_and_those_who_adapt():
    plan = EvaluationPlan(attacks=("membership.lira", "membership.gradient_norm", "inversion.prior", "inversion.informed"))
    assert attacks_through(plan) == (
        "membership.lira",
        "membership.answers",
        "membership.ranks",
        "membership.repeated",
        "inversion.scores",
        "inversion.estimated_gradient",
        "inversion.labels",
    )
    assert attacks_through(EvaluationPlan(attacks=("membership.noise",))) == ("membership.noise",)


def test_whoever_adapts_to_a_guard_attacks_the_model_without_one_too():
    plan = EvaluationPlan(attacks=("membership.lira", "inversion.labels"))
    assert attacks_without(plan) == plan.attacks
    assert attacks_without(dataclasses.replace(plan, guards=("top5",))) == (
        *plan.attacks,
        "membership.answers",
        "membership.ranks",
        "membership.repeated",
        "inversion.scores",
        "inversion.estimated_gradient",
    )


def test_a_guard_that_there_is_not_or_that_is_named_twice_is_refused_when_it_is_read():
    with pytest.raises(ConfigError, match="label_only"):
        EvaluationPlan(guards=("label_onyl",))
    with pytest.raises(ConfigError, match="each guard once"):
        EvaluationPlan(guards=("top5", "top5"))


def test_a_guard_of_scores_is_refused_for_values_before_anything_is_trained():
    values = dptrain.data.load(DataConfig(name="digits"))
    values = dataclasses.replace(values, targets=values.targets.float())
    with pytest.raises(ConfigError, match=r"evaluation\.guards holds 'top5'"):
        check_plan(EvaluationPlan(attacks=("membership.threshold",), guards=("top5",)), values)


# -- what stands where ----------------------------------------------------------------------------------------------


def test_each_guard_stands_before_the_bare_model_and_the_case_stays_as_it_was(scene: Scene):
    """The recipe's own guard is taken away first: guards are compared, not chained."""
    case = stand_before(case_of(scene, "top3", "label_only"), Bench("rounded0", scene.data, scene.split))
    before = case.target.guard
    seen: list[np.ndarray] = []

    def look(given: Case, name: str, fleets: Callable[[], Fleet | None]) -> AttackResult:
        seen.append(given.target.behind(Access.SCORES).scores(scene.data.inputs[:5]))
        return AttackResult(name=name, status="ok")

    found = through_guards(case, look, Fleets(never))
    assert case.target.guard is before
    assert [item.guard for item in found] == ["top3", "label_only"]
    assert [item.access for item in found] == ["top-3 with scores", "label"]
    bare = scene.target.scores(scene.data.inputs[:5])
    assert np.allclose(np.sort(seen[0], 1)[:, -3:], np.sort(bare, 1)[:, -3:])
    assert np.array_equal(seen[-1], np.eye(CLASSES)[bare.argmax(1)])


def test_shadow_models_are_trained_once_and_each_stands_behind_its_own_guard(scene: Scene):
    trained: list[int] = []

    def train() -> Fleet:
        trained.append(1)
        return scene.fleet

    def look(given: Case, name: str, fleets: Callable[[], Fleet | None]) -> AttackResult:
        fleet = fleets()
        assert fleet is not None
        shown = np.exp(fleet.logits[:, scene.split.audited])
        return AttackResult(name=name, status="ok", value=float((shown > 0).sum(2).max()))

    found = through_guards(case_of(scene, "label_only", "top3", "rounded0"), look, Fleets(train))
    assert trained == [1]
    assert found[0].attacks[0].value == 1.0
    assert found[1].attacks[0].value == CLASSES  # what is missing is shared out


def test_a_guard_that_cannot_be_made_is_said_and_stops_no_other(scene: Scene):
    nobody = dataclasses.replace(scene.split, population=scene.split.population[:0])
    case = dataclasses.replace(case_of(scene, "memguard0.5", "label_only"), split=nobody)
    broken, fine = through_guards(case, lambda given, name, fleets: AttackResult(name=name, status="ok"), Fleets(never))
    assert "data.split.population" in broken.reason
    assert {attack.status for attack in broken.attacks} == {"not_applicable"}
    assert not fine.reason
    assert {attack.status for attack in fine.attacks} == {"ok"}


def test_who_knows_of_the_guard_gets_through_labels_alone_less_than_through_scores(scene: Scene):
    """The models are right about every example: their labels tell nothing, and their scores nearly everything."""
    case = case_of(scene, "label_only", "top3", attacks=("membership.lira",))
    results = through_guards(case, run_attack, Fleets(lambda: scene.fleet))
    found = {item.guard: {attack.name: attack for attack in item.attacks} for item in results}
    for through in found.values():  # but for repeated queries: the scene's inputs are numbers of examples, and have no copies
        assert [through[f"membership.{name}"].status for name in ("lira", "answers", "ranks")] == ["ok"] * 3
    assert (found["label_only"]["membership.answers"].value or 0) < 0.6
    assert (found["top3"]["membership.answers"].value or 0) > 0.75


# -- what answers are worth -----------------------------------------------------------------------------------------


def test_what_answers_are_worth_has_known_values():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]]))
    label = Answers.ranked(logits.argmax(1)[:, None], 3, "label")
    found = {measure.name: measure.value for measure in worth(label, logits, np.array([0, 1]))}
    assert found["answered_right"] == 0.5
    assert found["refused"] == 0.0
    assert found["distance_of_scores"] == pytest.approx((0.6 + 1.0) / 2)
    assert found["brier_score"] == pytest.approx((0 + 2) / 2)
    everything = Answers.of(np.exp(logits))
    assert {m.name: m.value for m in worth(everything, logits, np.array([0, 1]))}["distance_of_scores"] == pytest.approx(0)
    refused = everything.refusing(np.array([True, False]))
    found = {measure.name: measure.value for measure in worth(refused, logits, np.array([0, 1]))}
    assert (found["refused"], found["answered_right"]) == (0.5, 0.0)


def test_what_is_shown_is_said_in_words():
    scores = np.full((2, 4), 0.25)
    best = np.array([[0, 1], [1, 0]])
    nobody = np.zeros(2, dtype=bool)
    assert in_words(Answers.of(scores)) == "scores"
    assert in_words(Answers(scores, best, "scores", nobody)) == "top-2 with scores"
    assert in_words(Answers.ranked(best, 4, "ranks")) == "top-2 labels in order"
    assert in_words(Answers.ranked(best[:, :1], 4, "label")) == "label"


# -- results --------------------------------------------------------------------------------------------------------


def test_new_results_keep_those_of_other_guards_and_other_attacks():
    def result(guard: str, *names: str, value: float) -> GuardedResult:
        attacks = tuple(AttackResult(name=name, status="ok", value=value) for name in names)
        return GuardedResult(guard=guard, attacks=attacks)

    before = (result("top5", "a.x", "a.y", value=1.0), result("rounded", "a.x", value=2.0))
    merged = known((result("top5", "a.x", value=3.0), result("label_only", "a.x", value=4.0)), before)
    assert [(item.guard, [(a.name, a.value) for a in item.attacks]) for item in merged] == [
        ("top5", [("a.x", 3.0), ("a.y", 1.0)]),
        ("label_only", [("a.x", 4.0)]),
        ("rounded", [("a.x", 2.0)]),
    ]


SHARES = SplitConfig(members=0.5, non_members=0.35, population=0.1, public=0.05)


@pytest.mark.slow
def test_guards_are_compared_from_the_checkpoint_to_the_file(tmp_path: Path):
    """Without a guard the figures are those of a plan that names none; a file of before there were any still reads."""
    recipe = Recipe(
        data=DataConfig(split=SHARES),
        optimizer=OptimizerConfig(learning_rate=1.0),
        privacy=PrivacyConfig(mechanism="none"),
        training=TrainingConfig(steps=20),
    )
    digits = dptrain.data.load(recipe.data)
    Trainer(recipe, digits, draw(len(digits), SHARES, 0), seed=0, folder=tmp_path, progress=False).run()
    plan = EvaluationPlan(attacks=("membership.lira", "inversion.class"), shadow_models=8)
    bare = evaluate(tmp_path, digits, plan=plan, recipe=recipe, progress=False)
    asked = dataclasses.replace(plan, guards=("top5-rounded", "label_only"))
    found = evaluate(tmp_path, digits, plan=asked, recipe=recipe, progress=False)
    assert [attack.value for attack in found.attacks][:2] == [attack.value for attack in bare.attacks]
    assert [item.guard for item in found.guarded] == ["top5-rounded", "label_only"]
    assert all(attack.status == "ok" for item in found.guarded for attack in item.attacks)
    assert found.guarded[1].utility[0].value == found.utility["test_accuracy"]
    assert len(list((tmp_path / "private" / "fleet").glob("*.npz"))) == 1
    (path,) = (tmp_path / "evaluation").glob("step=*/result.json")
    assert read_run(path) == found
    pictures = [name for attack in found.guarded[1].attacks for name in attack.figures]
    assert pictures
    assert all((path.parent / name).exists() for name in pictures)
    older = json.loads(to_json(found))
    del older["guarded"], older["release_guard"]
    path.write_text(json.dumps(older))
    assert read_run(path).guarded == ()
    through = dataclasses.replace(recipe, release=ReleaseConfig(guard="label_only"))
    assert evaluate(tmp_path, digits, plan=plan, recipe=through, progress=False).release_guard == "label_only"
