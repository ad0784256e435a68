"""What must be known beside a guarantee and follows from the recipe, its model and its data, in sentences of the card.

    training.qualify(*qualifications(recipe, plan, model, data))

All of it is public: the recipe is part of the card, and of the data only what is stated of them is used. How many examples one
person has is a fact of private data. It is said where the recipe states it (``data.split.per_class``, where each class is one
user); else that it is not known is said, and nothing is counted.

**Several examples of one person, and the example as the unit.** k examples together move a sum by up to k times what one does.
With full batches and independent noise the T sums are a Gaussian mechanism of μ = √T / σ for one example, and so of k √T / σ
for k of them (Dong, Roth, Su 2022, "Gaussian Differential Privacy"); its ε at the plan's δ is exact. For sampled batches no
such figure is given.
"""

import math
from collections.abc import Iterator

from torch import nn

from dptrain.data.alphabet import LABELS
from dptrain.data.dataset import DataSet
from dptrain.models import front, frozen
from dptrain.models.hugging_face import LowRank
from dptrain.plan import PrivacyPlan
from dptrain.recipe import Recipe
from dptrain.rounding import up
from dptrain.sampling import sampler_for


def qualifications(recipe: Recipe, plan: PrivacyPlan, model: nn.Module, data: DataSet) -> Iterator[str]:
    """What a private plan's statement does not say by itself."""
    yield from _of_people(recipe, plan, data)
    yield from _of_public_examples(recipe, model, data)
    yield from _of_text(recipe, plan, data)
    yield from _of_secrets(plan, data)
    if isinstance(model, LowRank):
        yield (
            f"The model is what was learned beside {model.pretrained!r}, a published one, with its tokenizer: no private "
            "example has moved those, ε is of what was learned here alone, and it promises nothing of an example that also "
            "stood in the text which the published one was made of."
        )
    if recipe.regularization.early_stopping:
        yield (
            f"When training ended was decided by the loss of its weights on public examples: ε is what had been spent by then, "
            f"and what is promised beforehand is ε for all {plan.steps} updates of the plan, {up(plan.guarantee().epsilon, 4)}."
        )
    if recipe.regularization.distillation:
        yield (
            "What is released is a student of the trained model, made of public examples and that model's answers to them "
            "alone: post-processing, for which the same holds."
        )


def _of_people(recipe: Recipe, plan: PrivacyPlan, data: DataSet) -> Iterator[str]:
    if plan.unit == "example" and data.users is not None:
        each = recipe.data.split.per_class if data.classes_are == "users" else None
        if each is None:
            yield (
                "One person can have several examples here; how many at most is not public, and the promise to a person "
                "weakens with each."
            )
        elif each > 1:
            together = epsilon_of_group(plan, each)
            known = "" if together is None else f": of all {each} the promise is ({together:.2f}, {plan.delta:g})"
            yield f"One person has {each} examples here, as the recipe states, and the promise to a person is weaker{known}."
    if data.classes_are == "users":
        hidden = "all that one of them contributed" if plan.unit == "user" else "one example of one of them"
        yield (
            "Each class is one person, and the list of classes is public, as is each class's place in the model's answer: that "
            f"somebody is one of them is not hidden, and {hidden} is."
        )


def _of_text(recipe: Recipe, plan: PrivacyPlan, data: DataSet) -> Iterator[str]:
    if data.is_language:
        of_what = "characters" if data.classes == LABELS else "tokens"
        yield (
            f"An example is one sequence of {data.targets.shape[1]} {of_what}, and what is said in several sequences is in "
            "several examples."
        )
    if data.is_language and plan.unit == "user" and recipe.data.user_column is not None:
        yield (
            f"A user is who is named in the column {recipe.data.user_column!r}; no sequence is of two users, and at most "
            f"{plan.max_examples_per_unit} sequences of one user, drawn anew each time, are clipped together as one gradient."
        )


def _of_secrets(plan: PrivacyPlan, data: DataSet) -> Iterator[str]:
    if data.planted and plan.unit == "user":
        yield (
            "Made-up secrets stand among the examples, each with all of its repetitions under a made-up user of its own: the "
            "promise to one user is made to each of them, however often it is repeated."
        )
    elif data.planted:
        most = max(secret.insertions for secret in data.planted)
        yield (
            f"Made-up secrets stand among the examples, each in up to {most} of them: to such a secret the promise is that of "
            "a group of as many, which is weaker."
        )


def _of_public_examples(recipe: Recipe, model: nn.Module, data: DataSet) -> Iterator[str]:
    if data.others is None:
        return
    count = len(data.others.inputs)
    if isinstance(model, front.WithFront) and isinstance(model.front, front.Fitted):
        yield (
            f"The model's front was made from {count} public examples of other classes: no private example has moved it, it "
            "is no part of what ε was spent on, and ε assumes that those examples are public."
        )
    if recipe.pretraining.steps:
        yield (
            f"The weights that training began from are made of {count} public sequences in {recipe.pretraining.steps} updates: "
            "no private example has moved them, they are no part of what ε was spent on, and ε assumes that those are public."
        )
    if recipe.regularization.freeze:
        layers = frozen.layers_of(model)
        yield (
            f"The first {frozen.frozen_layers(layers, recipe.regularization.freeze)} of {len(layers)} layers learned from "
            f"{count} public examples of other classes in {recipe.regularization.freeze_steps} updates and were then frozen: "
            "no private example has moved them, and they are no part of what ε was spent on."
        )


def epsilon_of_group(plan: PrivacyPlan, size: int) -> float | None:
    """ε of ``size`` units together at the plan's δ, for all its updates; None where the mechanism is not Gaussian."""
    from dptrain.accounting import gdp_mu_to_epsilon

    if not sampler_for(plan).takes_all or plan.noise != "independent":
        return None
    return gdp_mu_to_epsilon(size * math.sqrt(plan.steps) / plan.noise_multiplier, plan.delta)
