"""Guards under attack: by who does not know of them, by who does, and by who sees labels alone."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import dptrain.data
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, draw
from dptrain.fleet import Fleet, Views, draw_membership
from dptrain.recipe import DataConfig, OptimizerConfig, PrivacyConfig, Recipe, ReleaseConfig, SplitConfig, TrainingConfig
from dptrain.trainer import Trainer
from evaluation import EvaluationPlan, evaluate
from evaluation.access import Access
from evaluation.guarded import Bench
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.membership.shadow import ShadowClassifier
from evaluation.membership.threshold import LossThreshold
from evaluation.metrics import area_under_roc
from evaluation.target import Target
from tests.evaluation.worlds import target_of

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


SHARES = SplitConfig(members=0.5, non_members=0.35, population=0.1, public=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("guard", ["memguard", "label_only"])
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
