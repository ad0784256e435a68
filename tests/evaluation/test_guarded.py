"""Guards under attack: by who does not know of them, by who does, and by who sees labels alone."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dptrain.data
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, draw
from dptrain.errors import ConfigError, UserError
from dptrain.fleet import Fleet, Views, draw_membership
from dptrain.recipe import DataConfig, OptimizerConfig, PrivacyConfig, Recipe, ReleaseConfig, SplitConfig, TrainingConfig
from dptrain.release.guard import softmax
from dptrain.trainer import Trainer
from evaluation import EvaluationPlan, evaluate
from evaluation.access import Access
from evaluation.guarded import Bench
from evaluation.inversion.attribute_knowledge import AttributeKnowledge
from evaluation.inversion.columns import Layout
from evaluation.inversion.error_model import Confusion
from evaluation.inversion.labels import LabelInversion
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.membership.shadow import ShadowClassifier
from evaluation.membership.threshold import LossThreshold
from evaluation.metrics import area_under_roc
from evaluation.runner import check_plan
from evaluation.target import Target
from tests.evaluation.worlds import Table, target_of

CLASSES, EXAMPLES, POPULATION, MODELS = 5, 300, 150, 7
DISTORTION = 1.0
MEMGUARD = f"memguard{DISTORTION:g}"


@dataclass(frozen=True, eq=False)
class Scene:
    """Models that are right about every example, and surer of their members; the first of them is the target."""

    logits: np.ndarray
    membership: np.ndarray
    data: DataSet
    split: Split

    @classmethod
    def made(cls, gap: float = 2.5) -> "Scene":
        generator = np.random.default_rng(0)
        count = EXAMPLES + POPULATION
        labels = generator.integers(0, CLASSES, count)
        membership = draw_membership(MODELS, count, 0.5, test=np.arange(EXAMPLES, count))
        logits = generator.normal(size=(MODELS, count, CLASSES)).clip(-2, 2)
        logits[:, np.arange(count), labels] = 4.5 + gap * membership + generator.normal(size=membership.shape).clip(-2, 2)
        inputs = torch.arange(count, dtype=torch.float32)[:, None]
        names = tuple("abcde")
        data = DataSet("scene", inputs, torch.from_numpy(labels), names, (0.0, float(count)), kind="table")
        audited, nothing = np.arange(EXAMPLES), np.empty(0, dtype=np.int64)
        members = audited[membership[0, :EXAMPLES]]
        split = Split(members, np.setdiff1d(audited, members), np.arange(EXAMPLES, count), nothing, salt=bytes(32))
        return cls(logits, membership, data, split)

    @property
    def target(self) -> Target:
        return target_of(self.logits[0], Access.WEIGHTS)

    @property
    def fleet(self) -> Fleet:
        return Fleet(self.logits[1:], self.membership[1:], "digest")

    def guarded(self, text: str = MEMGUARD) -> tuple[Target, Fleet]:
        bench, target = Bench(text, self.data, self.split), self.target
        target.guard = bench.guard(target, "target")
        return target, bench.behind(self.fleet)

    def area(self, attack: MembershipAttack, target: Target, fleet: Fleet) -> float:
        index = self.split.audited
        examples = LabelledExamples(self.data.inputs[index], self.data.targets[index], index)
        scores = attack.run(target.behind(attack.access), examples, Knowledge(fleet=fleet))
        return float(area_under_roc(scores, self.split.is_member).value or 0.0)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.made()


@pytest.fixture(scope="module")
def guarded(scene: Scene) -> tuple[Target, Fleet]:
    return scene.guarded()


def test_memguard_misleads_who_does_not_know_of_it_and_not_who_does(scene: Scene, guarded: tuple[Target, Fleet]):
    """A classifier that learned from bare shadow models finds little; one that learned from guarded ones finds much of it."""
    target, fleet = guarded
    attack = ShadowClassifier()
    assert scene.area(attack, scene.target, scene.fleet) > 0.85
    unaware = scene.area(attack, target, scene.fleet)
    aware = scene.area(attack, target, fleet)
    assert unaware < 0.7
    assert aware > unaware + 0.1


def test_memguard_turns_a_threshold_round(scene: Scene, guarded: tuple[Target, Fleet]):
    """It stops right behind the other side of its classifier's threshold: the members are now those of lower confidence."""
    target, _ = guarded
    assert scene.area(LossThreshold(), scene.target, scene.fleet) > 0.85
    assert scene.area(LossThreshold(), target, scene.fleet) < 0.3


def test_labels_are_the_model_s_own_and_who_sees_more_than_scores_is_behind_the_guard(
    scene: Scene, guarded: tuple[Target, Fleet]
):
    target, _ = guarded
    inputs = scene.data.inputs
    assert np.array_equal(target.behind(Access.LABEL).labels(inputs), scene.target.labels(inputs))
    shown, bare = target.behind(Access.SCORES).scores(inputs), scene.target.scores(inputs)
    changed = np.abs(shown - bare).sum(1)
    assert 0 < changed.mean() <= DISTORTION
    assert np.array_equal(shown.argmax(1), bare.argmax(1))
    for access in (Access.LOGITS, Access.WEIGHTS):
        assert np.array_equal(target.behind(access).scores(inputs), bare)


def test_no_shadow_model_answers_outside_of_what_is_asked_and_views_are_guarded_too(scene: Scene):
    public = np.arange(EXAMPLES + POPULATION - 20, EXAMPLES + POPULATION)
    split = dataclasses.replace(scene.split, population=scene.split.population[:-20], public=public)
    views = Views("twice", lambda inputs: torch.stack([inputs, inputs]))
    fleet = dataclasses.replace(scene.fleet, views=np.stack([scene.fleet.logits] * 2, axis=1))
    shown = Bench("label_only", scene.data, split, views).behind(fleet)
    assert shown.views is not None
    assert np.isnan(shown.logits[:, public]).all()
    asked = np.arange(EXAMPLES + POPULATION - 20)
    assert set(np.unique(np.exp(shown.logits[:, asked]))) == {0.0, 1.0}
    assert np.array_equal(shown.views[:, 1, asked], shown.logits[:, asked])
    assert np.array_equal(shown.logits[:, asked].argmax(2), fleet.logits[:, asked].argmax(2))


def test_every_shadow_model_behind_hamp_answers_with_its_own_scores_for_random_inputs(scene: Scene):
    """Which takes its weights: a fleet that kept none cannot be put behind it."""
    fleet = dataclasses.replace(
        scene.fleet,
        weights={"logits": scene.logits[1:].astype(np.float32)},
        build=lambda: Table(torch.zeros(EXAMPLES + POPULATION, CLASSES)),
    )
    bench = Bench("hamp", scene.data, scene.split)
    shown = np.exp(bench.behind(fleet).logits)
    in_order = np.take_along_axis(shown, np.argsort(-fleet.logits, axis=2), axis=2)
    assert (np.diff(in_order, axis=2) <= 0).all()
    own = [softmax(logits).max(1) for logits in fleet.logits]
    for number, answers in enumerate(shown):
        apart, next_apart = (np.abs(answers.max(1)[:, None] - own[other]).min(1) for other in (number, (number + 1) % len(own)))
        assert apart.max() < 1e-6
        assert np.mean(next_apart > 1e-6) > 0.5
    with pytest.raises(UserError, match="kept its models' answers and not their weights"):
        bench.behind(scene.fleet)


def test_behind_hamp_a_threshold_on_confidence_finds_nobody(scene: Scene):
    """Every model of the scene is right about every example, so the order of the classes says nothing of who is a member."""
    target = scene.target
    target.guard = Bench("hamp", scene.data, scene.split).guard(target, "target")
    assert scene.area(LossThreshold(), target, scene.fleet) == pytest.approx(0.5, abs=0.1)


def test_an_attacker_of_scores_is_handed_what_is_shown_completed_and_one_of_labels_is_told_of_refusals(scene: Scene):
    target, inputs = scene.target, scene.data.inputs
    bare = target.scores(inputs)
    target.guard = Bench("top2", scene.data, scene.split).guard(target, "target")
    shown = target.behind(Access.SCORES).scores(inputs)
    best = np.argsort(-bare, axis=1)[:, :2]
    assert np.take_along_axis(shown, best, 1) == pytest.approx(np.take_along_axis(bare, best, 1))
    withheld = np.argsort(-bare, axis=1)[:, 2:]
    missing = 1 - np.take_along_axis(bare, best, 1).sum(1, keepdims=True)
    assert np.take_along_axis(shown, withheld, 1) == pytest.approx(np.tile(missing / 3, 3))
    target.guard = Bench("reject0.99", scene.data, scene.split).guard(target, "target")
    refused = bare.max(1) < 0.99
    assert 0 < refused.sum() < len(bare)
    assert target.behind(Access.SCORES).scores(inputs)[refused] == pytest.approx(1 / CLASSES)
    assert np.array_equal(target.behind(Access.LABEL).labels(inputs) == -1, refused)


def test_a_confusion_that_an_attacker_learns_has_a_row_for_refusals(scene: Scene):
    target, inputs = scene.target, scene.data.inputs
    target.guard = Bench("reject0.99", scene.data, scene.split).guard(target, "target")
    seen = target.behind(Access.LABEL)
    layout = Layout.of(("number:number[0,450]",))
    fitted: Any = Confusion().fit(seen, AttributeKnowledge(layout, "number", (), inputs, scene.data.targets))
    said, counts = seen.labels(inputs), np.ones((CLASSES + 1, CLASSES))
    for label, truth in zip(said, scene.data.targets.tolist(), strict=True):
        counts[CLASSES if label == -1 else label, truth] += 1
    assert np.exp(fitted.logs) == pytest.approx(counts / counts.sum(1, keepdims=True))
    refused = np.flatnonzero(said == -1)
    likely = fitted.log_likelihood(inputs[refused.tolist()], scene.data.targets[refused.tolist()])
    assert np.exp(likely) == pytest.approx(
        (counts / counts.sum(1, keepdims=True))[CLASSES, scene.data.targets[refused.tolist()]]
    )


def test_an_inversion_by_labels_counts_a_refusal_as_no_class(scene: Scene):
    target, inputs = scene.target, scene.data.inputs
    label = target.labels(inputs)
    target.guard = Bench("reject0.99", scene.data, scene.split).guard(target, "target")
    found = LabelInversion()._answered(target.behind(Access.LABEL), inputs).numpy()
    refused = target.scores(inputs).max(1) < 0.99
    assert np.array_equal(found[~refused], np.eye(CLASSES)[label[~refused]])
    assert (found[refused] == 0).all()


def test_a_guard_that_asks_about_random_inputs_is_refused_where_inputs_are_words(scene: Scene):
    words = dataclasses.replace(scene.data, inputs=scene.data.inputs.long())
    check_plan(EvaluationPlan(attacks=()), words, "labels3")
    with pytest.raises(ConfigError, match=r"release\.guard is 'hamp-top3'.*such as labels5"):
        check_plan(EvaluationPlan(attacks=()), words, "hamp-top3")


SHARES = SplitConfig(members=0.5, non_members=0.35, population=0.1, public=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("guard", ["memguard", "label_only", "hamp-top3", "top3-rounded"])
def test_a_recipe_with_a_guard_is_attacked_through_it(tmp_path: Path, guard: str):
    """The models are those of the recipe without one; the result says what stood before them."""
    recipe = Recipe(
        data=DataConfig(split=SHARES),
        optimizer=OptimizerConfig(learning_rate=1.0),
        privacy=PrivacyConfig(mechanism="none"),
        training=TrainingConfig(steps=20),
        release=ReleaseConfig(guard=guard),
    )
    digits = dptrain.data.load(recipe.data)
    Trainer(recipe, digits, draw(len(digits), SHARES, 0), seed=0, folder=tmp_path, progress=False).run()
    plan = EvaluationPlan(attacks=("membership.threshold", "membership.lira", "membership.rmia"), shadow_models=8)
    behind = evaluate(tmp_path, digits, plan=plan, recipe=recipe, progress=False)
    bare = evaluate(tmp_path, digits, plan=plan, recipe=dataclasses.replace(recipe, release=ReleaseConfig()), progress=False)
    assert [attack.status for attack in behind.attacks] == ["ok"] * 3
    assert any("no privacy guarantee" in note for note in behind.notes)
    assert not any("no privacy guarantee" in note for note in bare.notes)
    assert behind.utility == bare.utility
    assert behind.attacks[0].value != bare.attacks[0].value
    assert len(list((tmp_path / "private" / "fleet").glob("*.npz"))) == 1
