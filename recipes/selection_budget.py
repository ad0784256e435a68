"""How private each training must be for the chosen one to keep to its budget.

    selection, each = planned(asked, data, split)       # what is stated of the choice, and ε of one training by candidate

What the best of K costs falls as the trainings' noise grows, so the least noise that suffices is found by bisection; once for
candidates whose batches and steps are the same, since a clipping norm or a step size changes no ε. Candidates that differ in
these are charged together, as the worst of them at every point, and all get a little less where that is more than each alone.
Each training's ε is rounded down to a thousandth, so that it can be said in a recipe.
"""

import dataclasses
import math

from dp_accounting import GaussianDpEvent

from dptrain.data.dataset import DataSet
from dptrain.data.split import Split
from dptrain.errors import ConfigError, PlanError
from dptrain.plan import PrivacyPlan
from dptrain.recipe import Recipe
from dptrain.selected import Selection
from dptrain.selection import count
from recipes.selection import Asked, candidates_of

SHARE = 0.01
"""Of the held-out units, the standard deviation of a score's noise where none is given."""
CLOSE = 1 + 1e-3


def planned(asked: Asked, data: DataSet, split: Split) -> tuple[Selection, tuple[float, ...]]:
    """The selection, and ε of one training, by candidate.

    Raises:
        ConfigError: there is nothing to score on, or the recipe trains without noise.
        PlanError: no noise keeps to the budget.
    """
    recipes = candidates_of(asked)
    shapes = [_shape(recipe) for recipe in recipes]
    scored = split.public if asked.scorer == "public" else split.held_out
    if not len(scored):
        raise ConfigError(
            f"there are no {asked.scorer.replace('_', '-')} examples to score on; give data.split a share for them"
        )
    noise = 0.0 if asked.scorer == "public" else asked.score_noise or _default_noise(shapes[0], recipes[0], data)
    total = asked.epsilon
    if asked.each_epsilon is not None:
        each = dict.fromkeys(shapes, asked.each_epsilon)
        return _selection(asked, recipes, [each[shape] for shape in shapes], noise)
    assert total is not None
    found = {shape: _single(asked, shape, noise, total) for shape in dict.fromkeys(shapes)}
    lowered = 1.0
    while True:
        each = [_floor(found[shape] * lowered) for shape in shapes]
        if min(each) <= 0:
            raise PlanError(
                f"no training is private enough for ε = {total:g} in all: the score alone costs too much; give a larger "
                "--score-noise, fewer runs (--mean), or a larger --epsilon"
            )
        selection, each = _selection(asked, recipes, each, noise)
        if selection.counted().epsilon <= total:
            return selection, each
        lowered *= 0.995


def _shape(recipe: Recipe) -> PrivacyPlan:
    """The plan before its noise, without what changes no ε."""
    without = dataclasses.replace(recipe.privacy, mechanism="clip_only", clipping_norm=1.0)
    plan = PrivacyPlan.from_config(without, recipe.training.steps)
    return dataclasses.replace(plan, clipping="flat", automatic_stability=0.01)


def _default_noise(plan: PrivacyPlan, recipe: Recipe, data: DataSet) -> float:
    """By numbers that are public: those of the plan and of the split's shares, or of the published test part."""
    split = recipe.data.split
    if split.test == "published":
        expected = float(data.published_test)
    elif split.per_class is not None:
        raise ConfigError("how many held-out examples to expect is not stated with data.split.per_class; give --score-noise")
    else:
        expected = plan.public_examples * split.non_members / split.members
    return max(1.0, float(f"{SHARE * expected:.2g}"))


def _single(asked: Asked, shape: PrivacyPlan, noise: float, total: float) -> float:
    """The largest ε of one training of this plan whose choice keeps to the budget."""

    def spent(sigma: float) -> float:
        plan = dataclasses.replace(shape, noise_multiplier=sigma)
        return _stated(asked, (plan,), noise).counted().epsilon

    cheapest = count(GaussianDpEvent(noise), asked.runs, shape.delta).epsilon if noise else 0.0
    if cheapest >= total:
        raise PlanError(
            f"choosing alone costs ε = {cheapest:.3g} of {total:g}, whatever is trained; give a larger --score-noise than "
            f"{noise:g}, fewer runs (--mean), or a larger --epsilon"
        )
    high = shape.calibrate(epsilon=total).noise_multiplier  # a choice costs no less than one training
    low = high
    while spent(high) > total:
        low, high = high, high * 1.5
    while high / low > CLOSE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spent(middle) <= total else (middle, high)
    return dataclasses.replace(shape, noise_multiplier=high).guarantee().epsilon


def _floor(epsilon: float) -> float:
    return math.floor(epsilon * 1000 + 1e-9) / 1000


def _stated(asked: Asked, plans: tuple[PrivacyPlan, ...], noise: float) -> Selection:
    scorer = "public" if asked.scorer == "public" else "held_out"
    return Selection(runs=asked.runs, plans=plans, candidates=asked.names, scorer=scorer, score_noise=noise)


def _selection(asked: Asked, recipes: list[Recipe], each: list[float], noise: float) -> tuple[Selection, tuple[float, ...]]:
    """With the plans by which trainings will run."""
    calibrated: dict[PrivacyPlan, PrivacyPlan] = {}
    for recipe, epsilon in zip(recipes, each, strict=True):
        shape = _shape(recipe)
        calibrated[shape] = calibrated.get(shape) or shape.calibrate(epsilon=epsilon)
    return _stated(asked, tuple(calibrated.values()), noise), tuple(each)
