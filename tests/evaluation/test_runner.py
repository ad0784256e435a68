"""Every checkpoint is attacked; what breaks is FAILED and stops nothing; controls stand beside each figure."""

import dataclasses
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dptrain.data
from dptrain import PrivacyPlan, make_private, per_example
from dptrain.checkpoint import save_release
from dptrain.data.dataset import DataSet
from dptrain.data.examples import Examples
from dptrain.data.split import SHARED, Split, draw
from dptrain.errors import CheckpointError, ConfigError
from dptrain.fleet import draw_membership, fleet_digest, recipe_trainer
from dptrain.recipe import DataConfig, OptimizerConfig, PrivacyConfig, Recipe, SplitConfig, TrainingConfig
from dptrain.trainer import Trainer
from evaluation import EvaluationPlan, analysis, evaluate, metrics
from evaluation.access import Access
from evaluation.membership import Knowledge, MembershipAttack, gallery
from evaluation.membership.lira import Lira
from evaluation.plan import ATTACKS
from evaluation.result import AttackResult, RunResult, read_run
from evaluation.runner import callback
from evaluation.target import Target

SHARES = SplitConfig(members=0.5, non_members=0.35, population=0.1, public=0.05)
FEW = EvaluationPlan(shadow_models=8, inversion_steps=40, inversion_restarts=1)
FAST = Recipe(
    data=DataConfig(split=SHARES),
    optimizer=OptimizerConfig(learning_rate=1.0),
    privacy=PrivacyConfig(mechanism="none"),
    training=TrainingConfig(steps=20),
)


class _Broken(MembershipAttack):
    access = Access.LABEL
    paper = "none"


@ATTACKS.register("membership.test_raises")
class Raises(_Broken):
    def run(self, target, examples, knowledge):
        raise RuntimeError("it broke")


@ATTACKS.register("membership.test_nan")
class GivesNaN(_Broken):
    def run(self, target, examples, knowledge):
        return np.full(len(examples.indices), np.nan)


@ATTACKS.register("membership.test_constant")
class GivesConstant(_Broken):
    def run(self, target, examples, knowledge):
        return np.ones(len(examples.indices))


@ATTACKS.register("membership.test_greedy")
class AsksForMore(_Broken):
    def run(self, target, examples, knowledge):
        return target.scores(examples.inputs).max(1)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return dptrain.data.load(DataConfig())


@pytest.fixture(scope="module")
def split(digits: DataSet) -> Split:
    return draw(len(digits), SHARES, 0)


@pytest.fixture
def run_folder(tmp_path: Path, digits: DataSet, split: Split) -> Path:
    Trainer(FAST, digits, split, seed=0, folder=tmp_path / "run", progress=False).run()
    return tmp_path / "run"


def attack_of(result: RunResult, name: str):
    return next(attack for attack in result.attacks if attack.name == name)


def test_every_checkpoint_is_attacked_the_moment_it_exists(tmp_path: Path, digits: DataSet, split: Split):
    recipe = dataclasses.replace(FAST, training=TrainingConfig(steps=20, checkpoint_every=8))
    plan = dataclasses.replace(FEW, attacks=("membership.threshold",))
    Trainer(
        recipe,
        digits,
        split,
        seed=0,
        folder=tmp_path,
        callbacks=(callback(plan, tmp_path / "fleet", progress=False),),
        progress=False,
    ).run()
    found = sorted(path.parent.name for path in tmp_path.glob("evaluation/step=*/result.json"))
    assert found == ["step=000008", "step=000016", "step=000020"]
    assert read_run(tmp_path / "evaluation" / "step=000016" / "result.json").step == 16


def test_one_broken_attack_leaves_the_others_intact(run_folder: Path, digits: DataSet):
    """Rule 12: raising, NaN, constant scores, asking for more access; each by its name, none called safe."""
    broken = ("membership.test_raises", "membership.test_nan", "membership.test_constant", "membership.test_greedy")
    plan = dataclasses.replace(FEW, attacks=("membership.threshold", *broken, "inversion.class"))
    result = evaluate(run_folder, digits, plan=plan, progress=False)
    status = {attack.name: attack.status for attack in result.attacks}
    assert status["membership.threshold"] == status["inversion.class"] == "ok"
    assert [status[name] for name in broken] == ["failed", "failed", "ok", "failed"]
    assert "it broke" in attack_of(result, broken[0]).reason
    assert "NaN" in attack_of(result, broken[1]).reason
    assert attack_of(result, broken[2]).verdict == "no signal"
    assert "label" in attack_of(result, broken[3]).reason
    assert attack_of(result, broken[0]).verdict == "none"
    assert attack_of(result, broken[0]).value is None
    assert "RuntimeError: it broke" in (run_folder / "evaluation" / "step=000020" / f"{broken[0]}.failed.txt").read_text()


def test_membership_on_a_split_without_coins_is_not_judged_and_trains_no_shadow_model(tmp_path: Path, digits: DataSet):
    recipe = dataclasses.replace(FAST, data=DataConfig(split=SplitConfig(per_class=50)))
    split = draw(len(digits), recipe.data.split, 0, targets=digits.targets)
    Trainer(recipe, digits, split, seed=0, folder=tmp_path, progress=False).run()
    plan = dataclasses.replace(FEW, attacks=("membership.threshold", "membership.lira"))
    result = evaluate(tmp_path, digits, plan=plan, recipe=recipe, progress=False)
    for attack in result.attacks:
        assert attack.status == "not_applicable"
        assert "data.split.per_class" in attack.reason
    assert not (tmp_path / "private" / "fleet").exists()


def test_a_published_test_part_measures_utility_and_trains_no_shadow_model(tmp_path: Path, digits: DataSet):
    """Rule 6: shadow models have the target's set size, which is a share of what coins decide on, and come from there."""
    published = dataclasses.replace(digits, published_test=400)
    shares = dataclasses.replace(SHARES, test="published")
    recipe = dataclasses.replace(FAST, data=DataConfig(split=shares))
    split = draw(len(published), shares, 0, published.published_test)
    training = Trainer(recipe, published, split, seed=0, folder=tmp_path, progress=False).run()
    plan = dataclasses.replace(FEW, attacks=("membership.lira",))
    result = evaluate(tmp_path, published, plan=plan, recipe=recipe, progress=False)
    with torch.no_grad():
        right = training.model.eval()(published.inputs[-400:]).argmax(1) == published.targets[-400:]
    assert result.utility["test_accuracy"] == pytest.approx(float(right.float().mean()))
    assert attack_of(result, "membership.lira").status == "ok"
    (fleet,) = (tmp_path / "private" / "fleet").glob("*.npz")
    membership = np.load(fleet)["membership"]
    expected = shares.members * (len(published) - 400)
    assert abs(membership.sum(1).mean() - expected) < 40
    assert not membership[:, split.test].any()


def test_shadow_models_of_a_function_are_not_trained_on_the_test_part_either(tmp_path: Path, digits: DataSet):
    """Rule 6: without a recipe the rate is that of the split's own members; another test part makes other shadow models."""
    test = np.arange(0, len(digits), 3)
    drawn = draw(len(digits) - len(test), SHARES, 0)
    with_coins = np.setdiff1d(np.arange(len(digits)), test)
    members, non_members, population, public = (with_coins[getattr(drawn, part)] for part in SHARED)
    split = Split(members, non_members, population, public, salt=drawn.salt, test=test)
    Trainer(FAST, digits, split, seed=0, folder=tmp_path, progress=False).run()
    seen: list[np.ndarray] = []

    def retrain(members: np.ndarray, seed: int) -> nn.Module:
        seen.append(members)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    plan = dataclasses.replace(FEW, attacks=("membership.lira",))
    evaluate(tmp_path, digits, split=split, plan=plan, retrain=retrain, progress=False)
    assert len(seen) == FEW.shadow_models
    assert not np.isin(np.concatenate(seen), test).any()
    assert np.mean([len(members) for members in seen]) == pytest.approx(len(split.members), abs=30)
    assert fleet_digest("", digits, 8, 0.5, test) != fleet_digest("", digits, 8, 0.5, test + 1)


def test_without_a_test_part_every_example_has_the_coin_that_it_always_had():
    """Rule 6: the fleets of earlier runs stay what they are."""
    generator = np.random.default_rng(np.random.SeedSequence([0, *b"fleet"]))
    assert np.array_equal(draw_membership(5, 300, 0.5), generator.random((5, 300)) < 0.5)


def test_controls_and_baselines_stand_beside_each_figure(run_folder: Path, digits: DataSet):
    """Rules 2, 3 and 8."""
    result = evaluate(run_folder, digits, plan=FEW, recipe=FAST, progress=False)
    for name in ("membership.threshold", "membership.lira"):
        attack = attack_of(result, name)
        assert attack.status == "ok", attack.reason
        beside = {measure.name: measure for measure in (*attack.baselines, *attack.controls)}
        assert set(beside) == {"blind", "permuted", "untrained"}
        for measure in beside.values():
            assert measure.value == pytest.approx(0.5, abs=0.07)
        assert (attack.low or 1.0) < (attack.value or 0.0) < (attack.high or 0.0)
    inversion = attack_of(result, "inversion.class")
    beside = {measure.name: measure.value or 0.0 for measure in (*inversion.baselines, *inversion.controls)}
    assert [judge.name for judge in inversion.judges] == ["evaluator_accuracy"]
    assert (inversion.judges[0].value or 0.0) > 0.85
    assert beside["untrained"] <= 0.1
    assert beside["public_class_mean"] >= 0.8
    assert (inversion.value or 0.0) >= 0.7
    assert (run_folder / "evaluation" / "step=000020" / "inversion.class.npz").exists()


def test_without_a_recipe_lira_does_not_apply_and_says_what_to_pass(run_folder: Path, digits: DataSet):
    attack = attack_of(evaluate(run_folder, digits, plan=FEW, progress=False), "membership.lira")
    assert attack.status == "not_applicable"
    assert "retrain=" in attack.reason


def test_an_attack_that_lacks_knowledge_does_not_apply_and_says_what_to_do(tmp_path: Path, digits: DataSet):
    """Rule 12: not FAILED, and the others' results stand. Population and weights as much as shadow models."""
    shares = SplitConfig(members=0.55, non_members=0.4, population=0.0, public=0.05)
    recipe = dataclasses.replace(FAST, data=DataConfig(split=shares))
    Trainer(recipe, digits, draw(len(digits), shares, 0), seed=0, folder=tmp_path, progress=False).run()
    attacks = ("membership.quantile", "membership.rmia", "membership.bayesian", "membership.gradient_norm", "membership.lira")
    result = evaluate(tmp_path, digits, plan=dataclasses.replace(FEW, attacks=attacks), recipe=recipe, progress=False)
    status = {attack.name: attack.status for attack in result.attacks}
    assert list(status.values()) == ["not_applicable"] * 2 + ["ok"] * 3
    assert "data.split.population" in attack_of(result, "membership.quantile").reason
    assert "data.split.population" in attack_of(result, "membership.rmia").reason
    assert not list(tmp_path.glob("evaluation/*/*.failed.txt"))


def test_weights_of_anyone_s_own_shadow_models_are_not_kept(run_folder: Path, digits: DataSet):
    plan = dataclasses.replace(FEW, attacks=("membership.bayesian",))
    result = evaluate(run_folder, digits, plan=plan, retrain=recipe_trainer(FAST, digits), progress=False)
    attack = attack_of(result, "membership.bayesian")
    assert attack.status == "not_applicable"
    assert "weights" in attack.reason


def test_which_examples_leak_is_kept_where_it_is_private(run_folder: Path, digits: DataSet, split: Split):
    lira = dataclasses.replace(FEW, attacks=("membership.lira",))
    result = evaluate(run_folder, digits, plan=lira, recipe=FAST, progress=False)
    (path,) = (run_folder / "private").glob("vulnerability-step=*.csv")
    rows = path.read_text().splitlines()
    assert rows[0].startswith("index,is_member,auc")
    assert {int(row.split(",")[0]) for row in rows[1:]} == set(split.audited.tolist())
    assert not list((run_folder / "release").glob("*.csv"))
    kept = gallery.load(run_folder / "private" / gallery.name_of(20))
    assert kept.release_digest == result.release_digest
    assert set(kept.index.tolist()) <= set(split.members.tolist())
    assert kept.pictures is not None
    assert (kept.pictures[0, :, :, 0] == np.rint(digits.inputs[int(kept.index[0]), 0].numpy() * 255 + 0.3 * 255)).all()
    assert result.exposure is not None
    assert result.exposure.examples == sum(row.split(",")[2] != "" for row in rows[1:])
    loss = dataclasses.replace(FEW, attacks=("membership.threshold",))
    again = evaluate(run_folder, digits, plan=loss, recipe=FAST, keep_others=True, progress=False)
    assert again.exposure == result.exposure


def test_what_breaks_the_list_of_who_leaks_costs_no_attack_its_result(
    run_folder: Path, digits: DataSet, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_, **__):
        raise IndexError("it broke as well")

    lira = dataclasses.replace(FEW, attacks=("membership.lira",))
    monkeypatch.setattr(gallery, "choose", broken)
    result = evaluate(run_folder, digits, plan=lira, recipe=FAST, progress=False)
    folder = run_folder / "evaluation" / "step=000020"
    assert read_run(folder / "result.json") == result
    assert attack_of(result, "membership.lira").status == "ok"
    assert result.exposure is None
    assert any("IndexError: it broke as well" in note for note in result.notes)
    assert "it broke as well" in (folder / "vulnerability.failed.txt").read_text()
    monkeypatch.undo()
    again = evaluate(run_folder, digits, plan=lira, recipe=FAST, progress=False)
    assert again.exposure is not None
    assert not again.notes
    assert not (folder / "vulnerability.failed.txt").exists()


def test_who_interrupts_the_list_of_who_leaks_is_heard(run_folder: Path, digits: DataSet, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(gallery, "choose", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run_folder, digits, plan=dataclasses.replace(FEW, attacks=("membership.lira",)), recipe=FAST, progress=False)


def test_shadow_models_of_another_width_fail_their_attacks_and_no_other(run_folder: Path, digits: DataSet):
    def retrain(members: np.ndarray, seed: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))

    result = evaluate(run_folder, digits, plan=FEW, retrain=retrain, progress=False)
    assert read_run(run_folder / "evaluation" / "step=000020" / "result.json") == result
    assert attack_of(result, "membership.threshold").status == "ok"
    lira = attack_of(result, "membership.lira")
    assert lira.status == "failed"
    assert "7 outputs" in lira.reason
    assert "10 classes" in lira.reason


def test_a_fleet_that_fails_is_not_tried_again_for_each_attack(run_folder: Path, digits: DataSet):
    calls: list[int] = []

    def retrain(members: np.ndarray, seed: int) -> nn.Module:
        calls.append(seed)
        raise RuntimeError("no memory left")

    asking = ("membership.lira", "membership.rmia", "membership.shadow_classifier")
    plan = dataclasses.replace(FEW, attacks=("membership.threshold", *asking))
    result = evaluate(run_folder, digits, plan=plan, retrain=retrain, progress=False)
    assert len(calls) == 1
    for name in asking:
        assert attack_of(result, name).status == "failed"
        assert "no memory left" in attack_of(result, name).reason
        assert "retrain" in (run_folder / "evaluation" / "step=000020" / f"{name}.failed.txt").read_text()
    assert attack_of(result, "membership.threshold").status == "ok"


def test_where_no_shadow_models_are_trained_nothing_is_said_of_single_examples(run_folder: Path, digits: DataSet):
    loss = dataclasses.replace(FEW, attacks=("membership.threshold",))
    assert evaluate(run_folder, digits, plan=loss, progress=False).exposure is None
    assert not list((run_folder / "private").glob("vulnerab*"))


def test_the_target_and_its_shadows_are_asked_in_the_same_views(run_folder: Path, digits: DataSet):
    """A fleet is kept for the views it answered; shadow models answer the views that the attack makes of the pictures."""
    seen: dict[str, Knowledge] = {}
    asked: list[int] = []

    class Recorded(Lira):
        def run(self, target, examples, knowledge):
            seen["knowledge"], before = knowledge, target.queries
            scores = super().run(target, examples, knowledge)
            asked.append((target.queries - before) // len(examples.indices))
            return scores

    ATTACKS.register("membership.test_views")(Recorded)
    plan = dataclasses.replace(FEW, attacks=("membership.test_views", "membership.bayesian"), views=4, augment="shift_flip")
    several = evaluate(run_folder, digits, plan=plan, recipe=FAST, progress=False)
    assert [attack.status for attack in several.attacks] == ["ok", "ok"]
    assert asked == [4, 4]  # the target, and the untrained control
    knowledge = seen["knowledge"]
    fleet, views = knowledge.models(), knowledge.views
    assert views is not None
    assert fleet.views is not None
    made = views(digits.inputs[:20])
    assert torch.equal(made[0], digits.inputs[:20].flip(3))
    with torch.no_grad():
        expected = torch.stack([fleet.model(0)(view) for view in made]).numpy()
    assert np.allclose(fleet.views[0][:, :20], expected, atol=1e-4)

    once = evaluate(run_folder, digits, plan=dataclasses.replace(plan, views=1), recipe=FAST, progress=False)
    assert asked == [4, 4, 1, 1]
    assert attack_of(once, "membership.test_views").value != attack_of(several, "membership.test_views").value
    assert len(list((run_folder / "private" / "fleet").glob("*.npz"))) == 2


def test_views_of_a_table_are_refused(run_folder: Path, digits: DataSet):
    table = dataclasses.replace(digits, inputs=digits.inputs.flatten(1), kind="table")
    with pytest.raises(ConfigError, match="holds no pictures"):
        evaluate(run_folder, table, plan=dataclasses.replace(FEW, views=8), progress=False)
    with pytest.raises(ConfigError, match="1 to 25"):
        dataclasses.replace(FEW, views=26)
    with pytest.raises(ConfigError, match="did you mean 'flip'"):
        EvaluationPlan(augment="flipp")  # type: ignore[arg-type]


def test_a_checkpoint_without_its_split_is_not_attacked(run_folder: Path, digits: DataSet, split: Split):
    """Rule 1."""
    with pytest.raises(CheckpointError, match="not the one"):
        evaluate(run_folder, digits, split=draw(len(digits), SHARES, 1), plan=FEW, progress=False)
    (run_folder / "private" / "split.npz").unlink()
    with pytest.raises(CheckpointError, match="split"):
        evaluate(run_folder, digits, plan=FEW, progress=False)


def test_groups_that_differ_by_themselves_withhold_the_verdict(tmp_path: Path):
    """Rule 2: members and non-members of another distribution; a perfect attack proves nothing."""
    generator = torch.Generator().manual_seed(0)
    split = draw(1500, SHARES, 0)
    inputs = torch.rand(1500, 6, generator=generator)
    inputs[split.members] = inputs[split.members] * 0.5
    data = DataSet("shifted", inputs, torch.randint(3, (1500,), generator=generator), ("a", "b", "c"), (0.0, 1.0), "table")
    Trainer(FAST, data, split, seed=0, folder=tmp_path, progress=False).run()
    result = evaluate(tmp_path, data, plan=dataclasses.replace(FEW, attacks=("membership.threshold",)), progress=False)
    attack = attack_of(result, "membership.threshold")
    assert attack.verdict == "withheld"
    assert "no model" in attack.reason


@pytest.mark.usefixtures("same_keys")  # one control of 1,000 withholds a verdict by chance
def test_the_plan_permits_what_is_found_under_it(tmp_path: Path, digits: DataSet, split: Split):
    """Rule 15: the permitted AUC is in the result, and the ordinary attack stays below it."""
    private = dataclasses.replace(
        FAST,
        optimizer=OptimizerConfig(learning_rate=5.6),
        privacy=PrivacyConfig(epsilon=1.0, expected_batch_size=898.0),
    )
    Trainer(private, digits, split, seed=0, folder=tmp_path, progress=False).run()
    result = evaluate(
        tmp_path, digits, plan=dataclasses.replace(FEW, attacks=("membership.lira",)), recipe=private, progress=False
    )
    attack = attack_of(result, "membership.lira")
    assert result.variant == "dp"
    assert result.epsilon == 1.0
    assert attack.permitted == pytest.approx(0.587, abs=0.005)
    assert attack.permitted_metrics["tpr_at_fpr_0.01"] == pytest.approx(0.022, abs=0.002)
    assert attack.permitted_curve is not None
    bound = np.array([attack.permitted_curve.false_positive_rate, attack.permitted_curve.true_positive_rate])
    assert np.interp(0.01, *bound) == pytest.approx(attack.permitted_metrics["tpr_at_fpr_0.01"], abs=1e-3)
    assert attack.verdict in ("found nothing", "within the plan")


def test_anyones_own_model_can_be_evaluated_from_a_script(tmp_path: Path, digits: DataSet, split: Split):
    """Tier 2: make_private, save with the split, evaluate with retrain."""
    plan = PrivacyPlan(
        sampling_rate=0.25, expected_batch_size=225, steps=10, clipping_norm=0.5, delta=1e-4, noise_multiplier=1.0
    )

    def architecture() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))

    def train(members: np.ndarray, seed: int):
        torch.manual_seed(seed)
        model = architecture()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        private = make_private(model, optimizer, Examples(digits, members), plan, loss=per_example(F.cross_entropy))
        for batch in private.batches():
            private.step(batch)
        return private

    train(split.members, 0).save(tmp_path, split=split)
    result = evaluate(
        tmp_path,
        digits,
        plan=FEW,
        model=architecture(),
        retrain=lambda members, seed: train(members, seed).model,
        progress=False,
    )
    assert {attack.name: attack.status for attack in result.attacks} == dict.fromkeys(FEW.attacks, "ok")
    assert result.variant == "dp"
    assert result.epsilon == pytest.approx(plan.guarantee().epsilon)
    assert read_run(tmp_path / "evaluation" / "step=000010" / "result.json") == result


def test_an_insecure_seed_is_said_in_the_result(tmp_path: Path, digits: DataSet, split: Split):
    """Sharp edge 24: opt-in, recorded."""
    Trainer(FAST, digits, split, seed=0, folder=tmp_path, insecure_seed=5, progress=False).run()
    result = evaluate(tmp_path, digits, plan=dataclasses.replace(FEW, attacks=()), progress=False)
    assert any("Not a guarantee" in note for note in result.notes)


def test_a_fleet_is_cached_under_everything_that_defines_it(run_folder: Path, digits: DataSet):
    """Rule 6: another recipe never meets the wrong shadow models, and a damaged cache is made again."""
    plan = dataclasses.replace(FEW, attacks=("membership.lira",))

    def fleets() -> set[str]:
        return {path.name for path in (run_folder / "private" / "fleet").glob("*.npz")}

    first = evaluate(run_folder, digits, plan=plan, recipe=FAST, progress=False)
    (only,) = fleets()
    again = evaluate(run_folder, digits, plan=plan, recipe=FAST, progress=False)
    assert fleets() == {only}
    assert attack_of(again, "membership.lira").value == attack_of(first, "membership.lira").value
    evaluate(run_folder, digits, plan=plan, recipe=dataclasses.replace(FAST, training=TrainingConfig(steps=21)), progress=False)
    assert len(fleets()) == 2
    path = run_folder / "private" / "fleet" / only
    path.write_bytes(path.read_bytes()[:1000])
    result = evaluate(run_folder, digits, plan=plan, recipe=FAST, progress=False)
    assert attack_of(result, "membership.lira").status == "ok"


def test_the_release_holds_no_private_fact(run_folder: Path, digits: DataSet, split: Split):
    """Sharp edges 2 and 18: neither the private N, nor the content's own hash, nor who is a member."""
    text = (run_folder / "release" / "card.json").read_text()
    card = json.loads(text)
    assert digits.fingerprint not in text
    assert not re.search(rf"\b{len(split.members)}\b", text)  # as a number: a hash may hold its digits
    assert card["data"]["commitment"] != digits.fingerprint
    assert "seed" not in card  # the split is drawn from it
    assert card["recipe"]["data"]["path"] is None


def test_warnings_do_not_hide_behind_a_result(run_folder: Path, digits: DataSet):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(
            run_folder,
            digits,
            plan=dataclasses.replace(FEW, attacks=("membership.threshold", "inversion.class")),
            progress=False,
        )


def test_changed_data_are_not_attacked(run_folder: Path, digits: DataSet):
    """Rule 1: with its rows in another order, the stored split names other examples, and a leak looks like chance."""
    turned = dataclasses.replace(digits, inputs=digits.inputs.flip(0), targets=digits.targets.flip(0))
    with pytest.raises(CheckpointError, match="not the one that"):
        evaluate(run_folder, turned, plan=FEW, progress=False)


def test_shadow_models_stop_where_their_target_stopped(tmp_path: Path, digits: DataSet, split: Split):
    """Rule 6: an early checkpoint is attacked as a model of as many steps is; under the account of those steps."""
    private = dataclasses.replace(FAST, privacy=PrivacyConfig(epsilon=4.0, expected_batch_size=898.0))
    recipe = dataclasses.replace(private, training=TrainingConfig(steps=20, checkpoint_every=5))
    plan = dataclasses.replace(FEW, attacks=("membership.lira",))
    attack = callback(plan, tmp_path / "fleet", progress=False)
    Trainer(recipe, digits, split, seed=0, folder=tmp_path, callbacks=(attack,), progress=False).run()
    assert len(list((tmp_path / "fleet").glob("*.npz"))) == 4
    early, last = (
        attack_of(read_run(tmp_path / "evaluation" / f"step={step:06d}" / "result.json"), "membership.lira") for step in (5, 20)
    )
    assert early.permitted is not None
    assert last.permitted is not None
    assert early.permitted < last.permitted - 0.05


def test_shadow_models_of_a_function_are_made_anew(run_folder: Path, digits: DataSet):
    """Rule 6: nothing tells a mended ``retrain`` from the broken one before it."""
    plan = dataclasses.replace(FEW, attacks=("membership.lira",))
    calls: list[int] = []

    def retrain(members: np.ndarray, seed: int) -> nn.Module:
        calls.append(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    for times in (1, 2):
        evaluate(run_folder, digits, plan=plan, retrain=retrain, progress=False)
        assert len(calls) == times * FEW.shadow_models


def test_one_attack_again_keeps_the_others(run_folder: Path, digits: DataSet):
    evaluate(run_folder, digits, plan=FEW, recipe=FAST, progress=False)
    one = dataclasses.replace(FEW, attacks=("membership.threshold",))
    evaluate(run_folder, digits, plan=one, keep_others=True, progress=False)
    kept = read_run(run_folder / "evaluation" / "step=000020" / "result.json")
    assert {attack.name for attack in kept.attacks} == set(FEW.attacks)
    assert attack_of(kept, "membership.lira").status == "ok"


def test_the_callers_model_stays_as_it_is(run_folder: Path, digits: DataSet):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Target.open(_released(run_folder, model), Access.WEIGHTS, model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def _released(folder: Path, model: nn.Module) -> Path:
    other = {name: value + 1 for name, value in model.state_dict().items()}
    save_release(folder / "other", other, {"data": {}})
    return folder / "other"


def _audit(scores: np.ndarray, is_member: np.ndarray, permitted_auc: float | None = None) -> AttackResult:
    area = metrics.area_under_roc(scores, is_member)
    rates = tuple(metrics.rate_at(scores, is_member, rate) for rate in (0.01, 0.001))
    return AttackResult(
        name="membership.x", status="ok", metric="auc", value=area.value, low=area.low, high=area.high, metrics=rates,
        permitted=permitted_auc,
    )  # fmt: skip


def _few_leak(share: float) -> tuple[np.ndarray, np.ndarray]:
    """Members and non-members alike, but for a share of members that stands out entirely; the rest pays for it in AUC."""
    generator = np.random.default_rng(0)
    is_member = np.arange(4000) < 2000
    scores = generator.normal(size=4000)
    scores[:2000] -= 0.15
    scores[: int(2000 * share)] = 10 + np.arange(int(2000 * share))
    return scores, is_member


def test_a_leak_of_few_members_is_a_leak_whatever_the_auc_says():
    scores, is_member = _few_leak(0.06)
    result = _audit(scores, is_member)
    assert result.low is not None
    assert result.low <= 0.5
    verdict, reason = analysis._membership_verdict(result, None, 2000)
    assert verdict == "leak"
    assert "true positive rate" in reason


def test_a_low_false_positive_rate_can_break_the_plan_where_the_auc_does_not():
    plan = PrivacyPlan(
        sampling_rate=1.0, expected_batch_size=898, steps=60, clipping_norm=0.1, delta=1e-4, noise_multiplier=25.0
    )
    scores, is_member = _few_leak(0.12)
    crossing = metrics.crossing(scores, is_member, plan.permitted_true_positive_rates)
    verdict, reason = analysis._membership_verdict(_audit(scores, is_member, plan.permitted_auc()), plan, 2000, crossing)
    assert verdict == "above the plan"
    assert "true positive rate" in reason


def test_scores_without_signal_break_no_plan():
    """The threshold's own false positive rate is uncertain: a chance excess at it is not a broken guarantee."""
    plan = PrivacyPlan(
        sampling_rate=1.0, expected_batch_size=898, steps=60, clipping_norm=0.1, delta=1e-4, noise_multiplier=25.0
    )
    generator = np.random.default_rng(1)
    is_member = np.arange(1500) < 900
    found: list[str] = []
    for _ in range(200):
        scores = generator.normal(size=1500)
        crossing = metrics.crossing(scores, is_member, plan.permitted_true_positive_rates)
        found.append(analysis._membership_verdict(_audit(scores, is_member, plan.permitted_auc()), plan, 600, crossing)[0])
    assert "above the plan" not in found
    assert found.count("found nothing") >= 185


@ATTACKS.register("membership.test_marked")
class Marked(_Broken):
    """Knows a fifth of the members for certain, and holds the others for a little less than non-members."""

    members = np.empty(0, dtype=np.int64)

    def run(self, target, examples, knowledge):
        of_members = np.isin(examples.indices, self.members)
        scores = np.random.default_rng(0).normal(size=len(examples.indices)) - 0.3 * of_members
        return np.where(np.isin(examples.indices, self.members[::5]), 10.0, scores)


@pytest.mark.usefixtures("same_keys")
def test_a_roc_above_its_plans_curve_is_above_the_plan_in_the_whole_evaluation(
    tmp_path: Path, digits: DataSet, split: Split, monkeypatch: pytest.MonkeyPatch
):
    """The AUC is below what the plan permits; the curve is crossed at low false positive rates alone."""
    private = dataclasses.replace(FAST, privacy=PrivacyConfig(epsilon=1.0, expected_batch_size=898.0))
    Trainer(private, digits, split, seed=0, folder=tmp_path, progress=False).run()
    monkeypatch.setattr(Marked, "members", split.members)
    result = evaluate(tmp_path, digits, plan=dataclasses.replace(FEW, attacks=("membership.test_marked",)), progress=False)
    attack = attack_of(result, "membership.test_marked")
    assert attack.permitted is not None
    assert (attack.low or 1.0) < attack.permitted
    assert attack.verdict == "above the plan"
    assert "crosses the plan's curve" in attack.reason


def test_an_auc_below_chance_is_said_to_be_one():
    generator = np.random.default_rng(0)
    is_member = np.arange(1000) < 500
    scores = generator.normal(size=1000) - is_member
    verdict, reason = analysis._membership_verdict(_audit(scores, is_member), None, 500)
    assert verdict == "found nothing"
    assert "below 0.5" in reason
