"""A card says what its promise is to a person, in numbers that the recipe states and in no others."""

import dataclasses
import math

import pytest
import torch
from scipy.stats import norm

from dptrain.data.dataset import DataSet, Others
from dptrain.errors import DataError
from dptrain.plan import PrivacyPlan
from dptrain.qualifications import epsilon_of_group
from dptrain.recipe import DataConfig, ModelConfig, PrivacyConfig, Recipe, SplitConfig, TrainingConfig
from dptrain.trainer import build_training

pytestmark = pytest.mark.filterwarnings("ignore:delta is")

PEOPLE, EACH = 5, 7
SEVEN_OF_EACH = DataConfig(split=SplitConfig(per_class=EACH))


def world(*, classes_are: str = "users", with_users: bool = True) -> DataSet:
    """Five people, seven images each, and public images of others."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(PEOPLE).repeat_interleave(EACH)
    return DataSet(
        name="people", inputs=torch.rand(len(labels), 1, 4, 3, generator=generator), targets=labels, classes=tuple("abcde"),
        bounds=(0, 1), users=labels if with_users else None, classes_are=classes_are,  # pyright: ignore[reportArgumentType]
        others=Others(torch.rand(30, 1, 4, 3, generator=generator), torch.arange(30) % 3),
    )  # fmt: skip


def statement(data: DataSet, *, unit: str = "example", config: DataConfig = SEVEN_OF_EACH, rate: float = 1.0) -> str:
    drawn = rate * (PEOPLE if unit == "user" else PEOPLE * EACH)
    recipe = Recipe(
        data=config,
        model=ModelConfig(name="public_pca", hidden=(), components=5),
        privacy=PrivacyConfig(
            epsilon=4.0, sampling_rate=rate, expected_batch_size=drawn, delta=1e-3,
            unit=unit, max_examples_per_unit=EACH if unit == "user" else None,  # pyright: ignore[reportArgumentType]
        ),
        training=TrainingConfig(steps=3),
    )  # fmt: skip
    return build_training(recipe, data, torch.arange(len(data)).numpy(), 0).guarantee().statement


def test_the_card_of_an_image_level_run_says_how_many_images_one_person_has_and_what_holds_of_all_of_them():
    """That one example is all of a person was assumed where the recipe itself says seven."""
    said = statement(world())
    assert "assumes that one example is all" not in said
    assert "a promise to one example, and to a person where one example is all that this person contributed" in said
    assert "One person has 7 examples here, as the recipe states" in said
    together = float(said.split("of all 7 the promise is (")[1].split(",")[0])
    assert 20 < together < 70  # ε = 4 at δ = 1e-3 is μ = 1.09 or so, and seven times that is an ε of about 50


def test_the_promise_to_seven_examples_is_that_of_seven_times_the_distance():
    plan = PrivacyPlan(sampling_rate=1.0, expected_batch_size=35, steps=4, clipping_norm=1.0, delta=1e-3, noise_multiplier=10.0)
    epsilon, mu = epsilon_of_group(plan, 7), 7 * 2 / 10.0
    assert epsilon is not None
    spent = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    assert spent == pytest.approx(1e-3, rel=1e-6)
    assert epsilon_of_group(plan, 1) == pytest.approx(plan.guarantee().cross_check, abs=0.02)
    assert epsilon_of_group(dataclasses.replace(plan, sampling_rate=0.5), 7) is None


def test_what_the_recipe_does_not_state_is_not_counted():
    """How many examples one person has is private, and the largest number among them is too."""
    for said in (statement(world(), config=DataConfig()), statement(world(classes_are="kinds"))):
        assert "how many at most is not public" in said
        assert "7 examples" not in said
    sampled = statement(world(), rate=0.5)
    assert "the promise to a person is weaker." in sampled
    assert "of all 7" not in sampled
    assert "several examples here" not in statement(world(classes_are="kinds", with_users=False))


@pytest.mark.parametrize(("unit", "hidden"), [("example", "one example of one of them"), ("user", "all that one of them")])
def test_who_is_a_class_is_public_and_the_card_says_so(unit: str, hidden: str):
    said = statement(world(), unit=unit)
    assert "somebody is one of them is not hidden" in said
    assert hidden in said
    assert ("One person has" in said) == (unit == "example")
    assert "list of classes is public" not in statement(world(classes_are="kinds"), unit=unit)


def test_the_card_says_that_the_front_was_made_from_examples_that_must_be_public():
    assert "front was made from 30 public examples of other classes" in statement(world())
    assert "ε assumes that those examples are public" in statement(world())


def test_classes_that_are_users_are_the_users():
    with pytest.raises(DataError, match="its users are not its labels"):
        world(with_users=False)
    data = world()
    with pytest.raises(DataError, match="its users are not its labels"):
        dataclasses.replace(data, users=data.targets.flip(0))
