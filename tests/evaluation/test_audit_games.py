"""Audits of the project's own engine: sound, it passes; broken on purpose, it is caught."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dptrain.data
from dptrain.clipping import clipped
from dptrain.data.dataset import DataSet
from dptrain.distillation import released_model
from dptrain.errors import ConfigError, UserError
from dptrain.noise import BandedNoise, NoiseMechanism
from dptrain.optimizers import learning_rate
from dptrain.plan import PrivacyPlan
from dptrain.private import PrivateTraining
from dptrain.recipe import DataConfig, ModelConfig, OptimizerConfig, PrivacyConfig, Recipe, RegularizationConfig, TrainingConfig
from evaluation.audit import black_box, canaries, mechanism, white_box
from evaluation.metrics import area_under_roc

pytestmark = [pytest.mark.filterwarnings("ignore:delta is"), pytest.mark.usefixtures("same_keys")]


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return dptrain.data.load(DataConfig(name="digits"))


def recipe(rate: float = 1.0, steps: int = 40, epsilon: float | None = 4.0, **changes: Any) -> Recipe:
    privacy = PrivacyConfig(epsilon=epsilon, delta=1e-5, sampling_rate=rate, clipping_norm=0.1, expected_batch_size=900 * rate)
    return Recipe(
        model=ModelConfig(name="linear"),
        optimizer=OptimizerConfig(learning_rate=1.0),
        privacy=dataclasses.replace(privacy, **changes),
        training=TrainingConfig(steps=steps),
    )


SURE = 0.9999
"""Of an interval that is held against a plan: these games come within a little of what it permits."""


def failed(found: white_box.WhiteBox) -> set[str]:
    return {check.name for check in found.checks if not check.ok}


@pytest.mark.parametrize("rate", [1.0, 0.2])
@pytest.mark.parametrize("clipping", ["flat", "automatic"])
def test_a_sound_engine_keeps_its_word(digits: DataSet, rate: float, clipping: str):
    found = white_box.play(recipe(rate, clipping=clipping), digits, np.arange(900), canaries=400)
    assert failed(found) == set()
    assert len(found.checks) == 3
    game = found.game
    area = area_under_roc(game.scores, game.included, confidence=SURE)
    assert area.low is not None
    assert (area.value or 0.0) > 0.6  # the canaries are seen at all
    assert area.low <= game.plan.permitted_auc()
    assert game.access == "weights"


def halved(training: PrivateTraining) -> None:
    noise = training._noise
    assert isinstance(noise, NoiseMechanism)
    draw = noise._unit_noise
    noise._unit_noise = lambda *given: (draw(*given)[0] * 0.5, 1.0)  # pyright: ignore[reportAttributeAccessIssue]


def unclipped(training: PrivateTraining) -> None:
    """The first example of each chunk goes into the sum as it is."""
    original = clipped.Clipping.factors

    def factors(self: clipped.Clipping, *given: Any) -> Any:
        found, finite, long = original(self, *given)
        found[:, 0] = 1.0 / training.plan.expected_batch_size
        return found, finite, long

    rule = training._clipper.clipping
    object.__setattr__(rule, "factors", lambda *given: factors(rule, *given))


def twice_as_often(training: PrivateTraining) -> None:
    """Batches are drawn at 2 q, and q is counted."""
    units = training._examples.units

    def drawn() -> Any:
        generator = np.random.default_rng(0)
        while True:
            yield np.flatnonzero(generator.random(units) < 2 * training.plan.sampling_rate), None

    training._stream = drawn()


@pytest.mark.parametrize(
    ("broken", "rate", "check"), [(halved, 1.0, "noise"), (unclipped, 1.0, "contribution"), (twice_as_often, 0.2, "draws")]
)
def test_a_planted_fault_is_caught(digits: DataSet, broken: Callable[[PrivateTraining], None], rate: float, check: str):
    found = white_box.play(recipe(rate), digits, np.arange(900), canaries=400, prepare=broken)
    assert check in failed(found)


BANDED: dict[str, Any] = {"rate": 0.1, "epsilon": 8.0, "sampling": "cyclic_poisson", "bands": 4, "noise": "banded"}


def test_sound_banded_noise_keeps_its_word(digits: DataSet):
    for _ in range(3):
        found = white_box.play(recipe(**BANDED), digits, np.arange(900), canaries=2000)
        assert [check.name for check in found.checks] == ["noise", "contribution", "draws"]
        assert failed(found) == set()


@pytest.mark.parametrize(("broken", "check"), [(halved, "noise"), (unclipped, "contribution"), (twice_as_often, "draws")])
def test_a_planted_fault_is_caught_under_banded_noise(digits: DataSet, broken: Callable[[PrivateTraining], None], check: str):
    found = white_box.play(recipe(**BANDED), digits, np.arange(900), canaries=2000, prepare=broken)
    assert check in failed(found)


@pytest.mark.parametrize("bands", [2, 4, 9])
def test_the_correlation_that_a_plan_states_is_that_of_its_noise(bands: int):
    plan = PrivacyPlan.from_config(recipe(**BANDED | {"bands": bands, "rate": 1 / bands}).privacy, 7)
    correlation = mechanism.Correlation.of(plan)
    drawn = BandedNoise.over(7, bands, 1.0)
    deviations = [drawn._unit_noise(3, torch.float64, torch.device("cpu"))[1] for _ in range(7)]
    assert correlation.bands == pytest.approx(drawn.coefficients)
    whole = sum(np.diag(np.full(7 - j, c), -j) for j, c in enumerate(correlation.bands))
    inverse = np.linalg.inv(whole)
    assert deviations == pytest.approx(np.linalg.norm(inverse, axis=1))
    assert correlation.of_sums == pytest.approx([float((inverse[:t].sum(0) ** 2).sum()) for t in range(1, 8)])


def test_independent_noise_is_the_case_of_no_correlation():
    correlation = mechanism.Correlation.of(PrivacyPlan.from_config(recipe(steps=5).privacy, 5))
    assert correlation.bands.tolist() == [1.0]
    assert correlation.of_sums.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_whitening_gives_the_fresh_noise_back():
    plan = PrivacyPlan.from_config(recipe(**BANDED).privacy, 40)
    observer = mechanism.Observer(torch.zeros(6, 1), np.zeros(5, dtype=bool), plan)
    fresh = torch.randn(40, 5, dtype=torch.float64)
    whole = sum(np.diag(np.full(40 - j, c), -j) for j, c in enumerate(observer.correlation.bands))
    for released in torch.linalg.solve(torch.as_tensor(whole), fresh):
        observer.see(released)
    assert observer.squares == pytest.approx(float(fresh.square().sum()))
    assert len(observer._latest) == plan.bands


def test_an_early_checkpoint_of_banded_noise_claims_what_its_steps_cost(digits: DataSet):
    kept = recipe(**BANDED)
    kept = dataclasses.replace(kept, training=dataclasses.replace(kept.training, checkpoint_every=13))
    spent: list[tuple[int, float]] = []

    def watch(training: PrivateTraining) -> None:
        training.optimizer.register_step_post_hook(lambda *_: spent.append((training.steps_taken, training.epsilon())))

    found = white_box.play(kept, digits, np.arange(900), canaries=50, prepare=watch)
    assert [game.plan.steps for game in found.games] == [13, 26, 39, 40]
    for game in found.games:
        assert game.plan.guarantee().epsilon == pytest.approx(dict(spent)[game.plan.steps])


def test_the_white_box_training_is_the_recipes_own(digits: DataSet):
    made = dataclasses.replace(
        recipe(),
        optimizer=OptimizerConfig(learning_rate=1.0, schedule="cosine", warmup=3),
        training=TrainingConfig(steps=40, average=0.9),
        regularization=RegularizationConfig(relax=0.3, weight_decay=0.01),
    )
    prepared: list[PrivateTraining] = []
    assert failed(white_box.play(made, digits, np.arange(900), canaries=50, prepare=prepared.append)) == set()
    (training,) = prepared
    assert training.optimizer.param_groups[0]["lr"] == learning_rate(made.optimizer, 39, 40)
    assert training.optimizer.param_groups[0]["weight_decay"] == 0.01
    assert training.card()["average"] == 0.9


def regularized(steps: int = 20, rate: float = 1.0, **given: Any) -> Recipe:
    made = recipe(steps=steps)
    return dataclasses.replace(
        made, optimizer=OptimizerConfig(learning_rate=rate), regularization=RegularizationConfig(**given)
    )


MEMBERS, PUBLIC, SPARE = np.arange(900), np.arange(900, 1000), np.arange(900, 1797)


def test_what_a_recipe_cannot_do_under_its_plan_no_game_does(digits: DataSet):
    mixed, stopped = regularized(mixup=0.3), regularized(early_stopping=5)
    with pytest.raises(ConfigError, match=r"regularization\.mixup is 0\.3"):
        white_box.play(mixed, digits, MEMBERS)
    with pytest.raises(ConfigError, match=r"regularization\.early_stopping is 5 and needs public examples"):
        white_box.play(stopped, digits, MEMBERS)
    with pytest.raises(ConfigError, match=r"regularization\.mixup is 0\.3"):
        black_box.many_runs(mixed, digits, MEMBERS, SPARE)
    with pytest.raises(ConfigError, match=r"regularization\.early_stopping is 5 and needs public examples"):
        black_box.one_run(stopped, digits, MEMBERS, SPARE, canaries=50)


STUCK = 1e-30
"""A learning rate by which no weight moves, so that the public loss of the first step is never passed."""


def test_early_stopping_ends_every_game_where_it_ends_the_recipe(digits: DataSet):
    made = regularized(early_stopping=5, rate=STUCK)
    made = dataclasses.replace(made, training=TrainingConfig(steps=20, checkpoint_every=4))
    prepared: list[PrivateTraining] = []
    found = white_box.play(made, digits, MEMBERS, public=PUBLIC, canaries=100, prepare=prepared.append)
    assert prepared[0].steps_taken == 6
    assert failed(found) == set()
    one = black_box.one_run(made, digits, MEMBERS, SPARE, public=PUBLIC, canaries=100)
    for games in (found.games, one):
        assert [game.plan.steps for game in games] == [4, 8, 12, 16, 20]
        assert np.array_equal(games[1].scores, games[4].scores)
        assert games[-1].about.endswith("; early stopping ended it after 6 updates")
    assert not np.array_equal(found.games[0].scores, found.games[1].scores)
    many = black_box.many_runs(made, digits, MEMBERS, SPARE, public=PUBLIC, trainings=20, progress=False)
    assert np.array_equal(many[1].scores, many[4].scores)


def test_a_student_is_asked_where_the_recipe_releases_one(digits: DataSet, monkeypatch: pytest.MonkeyPatch):
    students: list[torch.nn.Module] = []

    def released(*given: Any) -> torch.nn.Module:
        students.append(released_model(*given))
        return students[-1]

    monkeypatch.setattr(black_box, "released_model", released)
    asked: list[torch.nn.Module] = []
    ask = black_box.log_odds
    monkeypatch.setattr(black_box, "log_odds", lambda model, *given: ask(asked.append(model) or model, *given))
    (game,) = black_box.one_run(regularized(distillation=30), digits, MEMBERS, SPARE, public=PUBLIC, canaries=50)
    assert asked == students
    assert len(students) == 1
    assert np.isfinite(game.scores).all()
    (game,) = black_box.many_runs(
        regularized(distillation=5), digits, MEMBERS, SPARE, public=PUBLIC, trainings=20, progress=False
    )
    assert len(set(map(id, asked))) == 21


def test_public_examples_that_a_recipe_learns_from_are_no_canaries(digits: DataSet):
    spare = np.arange(900, 1030)
    with pytest.raises(UserError, match="only 30 examples are outside"):
        black_box.one_run(regularized(distillation=5), digits, MEMBERS, spare, public=PUBLIC, canaries=31)
    black_box.one_run(regularized(), digits, MEMBERS, spare, public=PUBLIC, canaries=130)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"sampling": "balls_in_bins"}, "add_or_remove_one$"),
        ({"sampling": "fixed_size", "max_examples": 900}, "add_or_remove_one --privacy.sampling poisson"),
    ],
)
def test_a_promise_about_replacing_is_not_held_against_adding(digits: DataSet, changes: dict[str, Any], advice: str):
    made = recipe(0.5, relation="replace_one", **changes)
    with pytest.raises(UserError, match=advice):
        white_box.play(made, digits, MEMBERS)
    with pytest.raises(UserError, match=advice):
        black_box.one_run(made, digits, MEMBERS, SPARE)
    with pytest.raises(UserError, match=advice):
        black_box.many_runs(made, digits, MEMBERS, SPARE)


def test_a_promise_to_users_is_not_held_against_one_example(digits: DataSet):
    with pytest.raises(UserError, match=r"a canary is one example.*give --privacy\.unit example"):
        white_box.play(recipe(unit="user", max_examples_per_unit=2), digits, MEMBERS)


def test_a_plan_that_promises_nothing_is_not_audited(digits: DataSet):
    with pytest.raises(UserError, match="give a budget"):
        white_box.play(recipe(mechanism="clip_only", epsilon=None), digits, np.arange(900))
    with pytest.raises(UserError, match="at least 10"):
        white_box.play(recipe(), digits, np.arange(900), canaries=3)


def test_worst_case_weights_show_the_observer_of_outputs_nearly_everything(digits: DataSet):
    """The plan permits an AUC of .87; a real example under ordinary weights shows much less of it."""
    plan = recipe(steps=5, epsilon=8.0)
    (game,) = black_box.many_runs(plan, digits, np.arange(900), np.arange(900, 1797), trainings=120, progress=False)
    area = area_under_roc(game.scores, game.included, confidence=SURE)
    assert area.low is not None
    assert (area.value or 0.0) > 0.75
    assert area.low <= game.plan.permitted_auc()


@pytest.mark.parametrize("kind", ["natural", "mislabelled", "noise"])
def test_one_run_scores_each_canary_once(digits: DataSet, kind: Any):
    (game,) = black_box.one_run(
        recipe(steps=20, epsilon=1000.0), digits, np.arange(900), np.arange(900, 1797), kind=kind, canaries=200
    )
    assert game.scores.shape == game.included.shape == (200,)
    assert np.isfinite(game.scores).all()
    assert 60 < game.included.sum() < 140


def test_canaries_are_what_their_name_says(digits: DataSet):
    generator = np.random.default_rng(0)
    spare = np.arange(1000, 1200)
    inputs, labels = canaries.make("mislabelled", digits, spare, 200, generator)
    for given, label in zip(inputs, labels, strict=True):
        at = [i for i in spare.tolist() if torch.equal(digits.inputs[i], given)]
        assert all(label != digits.targets[i] for i in at)
    noise, _ = canaries.make("noise", digits, spare, 50, generator)
    assert digits.bounds[0] <= float(noise.min())
    assert float(noise.max()) <= digits.bounds[1]
    with pytest.raises(UserError, match="only 200 examples"):
        canaries.make("natural", digits, spare, 201, generator)
    with pytest.raises(ConfigError, match="did you mean 'natural'"):
        canaries.make("naturel", digits, spare, 5, generator)  # pyright: ignore[reportArgumentType]


def test_each_checkpoint_is_a_game_of_its_own_against_what_is_claimed_until_then(digits: DataSet):
    kept = recipe(steps=30)
    kept = dataclasses.replace(kept, training=dataclasses.replace(kept.training, checkpoint_every=12))
    found = white_box.play(kept, digits, np.arange(900), canaries=200)
    assert [game.plan.steps for game in found.games] == [12, 24, 30]
    claims = [game.plan.guarantee().epsilon for game in found.games]
    assert claims == sorted(claims)
    assert claims[-1] <= 4.0
    early, _, late = (game.scores for game in found.games)
    assert not np.array_equal(early, late)
    assert np.corrcoef(early, late)[0, 1] > 0.3  # sums of the same releases
    one = black_box.one_run(kept, digits, np.arange(900), np.arange(900, 1797), canaries=40)
    many = black_box.many_runs(kept, digits, np.arange(200), np.arange(900, 1797), trainings=20, progress=False)
    for games in (one, many):
        assert [game.plan.steps for game in games] == [12, 24, 30]
        assert not np.array_equal(games[0].scores, games[2].scores)
        assert np.array_equal(games[0].included, games[2].included)
