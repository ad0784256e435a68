"""Many models of one recipe in one training: every parameter is ``[models, *shape]``.

    stack = Stack(recipe, data, membership, seeds)      # membership: [models, examples]
    while stack.taken < steps:
        stack.step()

Each model has the initial weights of its own seed, its own batches by the plan's sampler, its own noise, and the recipe's
optimizer, schedule and average, which act on each coordinate by itself and therefore on a stack as on one model. Clipping's
factors and the noise are those of a training under a plan, over all models at once. Where there is no noise, the weights are
those of :func:`~dptrain.trainer.build_training` but for rounding.

Nothing is accounted, and no ledger is charged: these models are trained on private examples and never released. The noise has
the plan's distribution, and that is all that an attack needs of it.

Two ways to compute the same: ``gathered`` looks at each model's own batch, filled up to the longest one; ``masked`` at all
examples, once for all of the models, and leaves out what is not in a model's batch. The second does more, in far larger
products; which is faster depends on how much of the data set is in a batch.
"""

import copy
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dptrain.averaging import WeightAverage
from dptrain.clipping import ClippedSum, Clipping, Counts
from dptrain.data.dataset import DataSet
from dptrain.fleet.answers import Answers, Views, chunks_of_inputs
from dptrain.fleet.layers import LOSS_GRADIENTS, Chain, Unstackable, layers_of
from dptrain.fleet.rows import GATHERED, LEAST_ROWS, VALUES, Gathered, Masked, Rows, rows_at_once
from dptrain.models import front
from dptrain.noise import noise_for, secret_generator
from dptrain.optimizers import NoiseAware, follow_schedule
from dptrain.plan import PrivacyPlan
from dptrain.recipe import Recipe
from dptrain.registry import OPTIMIZERS
from dptrain.sampling import sampler_for
from dptrain.trainer import build_model

Way = Literal["masked", "gathered"]

OPTIMIZERS_BY_COORDINATE = ("sgd", "adamw", "dp_adamw")
MOST_MODELS = 64
MOST_WEIGHTS = 2**24
"""Of all models in a stack together: 64 MB for each of weights, gradients, noise and momentum."""


def models_in_a_stack(recipe: Recipe, data: DataSet, way: Way) -> int:
    """How many models of this recipe are trained in one stack.

    Raises:
        Unstackable: none; the model, the loss or the optimizer is not one that a stack computes.
    """
    if recipe.training.loss not in LOSS_GRADIENTS or recipe.optimizer.name not in OPTIMIZERS_BY_COORDINATE:
        raise Unstackable(f"the loss {recipe.training.loss} or the optimizer {recipe.optimizer.name} is not stacked")
    if not recipe.regularization.is_plain:
        raise Unstackable("the regularization is more than dropout, weight decay and label smoothing")
    if recipe.privacy.unit != "example":
        raise Unstackable("what is clipped as one is more than one example")
    model = build_model(recipe, data, 0)
    layers = layers_of(model)
    _check_same(model, data)
    weights = sum(value.numel() for value in model.parameters())
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    widest = max(max(layer.in_features, layer.out_features) for layer in linears)
    most = min(MOST_MODELS, MOST_WEIGHTS // weights, VALUES // (LEAST_ROWS * widest))
    if way == "gathered":
        most = min(most, int(GATHERED // (recipe.privacy.expected_batch_size * linears[0].in_features)))
    return max(1, most)


class Stack:
    """Some models of a recipe, in training.

    Args:
        membership: which examples are each model's.
        seeds: of the initial weights, one a model.
        way: see the module's text.
        insecure_seed: repeatable batches and noise, for tests: every model then draws the same batch positions.

    Raises:
        Unstackable: the recipe is not one that a stack computes.
        PlanError: the plan does not fit a set of this size.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: DataSet,
        membership: Bool[np.ndarray, "models examples"],
        seeds: list[int],
        *,
        way: Way = "masked",
        insecure_seed: int | None = None,
    ):
        self.models, self.taken, self.ended = len(membership), 0, False
        self._recipe, self._data = recipe, data
        self._plan = plan = PrivacyPlan.from_config(recipe.privacy, recipe.training.steps)
        self._members = [np.flatnonzero(row) for row in membership]
        for members in self._members:
            plan.check_examples(len(members))
        self._clipping = Clipping.of(plan)
        self._noise = noise_for(plan, insecure_seed)
        sampler = sampler_for(plan)
        self._batches: list[Iterator[np.ndarray]] = [
            sampler.batches(len(members), 0, plan.steps, secret_generator(insecure_seed, "batches from 0"))
            for members in self._members
        ]
        self._build(seeds)
        self._inputs = _inputs(self._model, data)
        own = 0 if way == "masked" else self._chain.linears[0].weight.shape[2]
        size = rows_at_once(self.models, self._chain.width(), own)
        masked = Masked(self._inputs, data.targets, membership, size) if way == "masked" else None
        self._rows = masked or Gathered(self._inputs, data.targets, size)
        everyone = plan.sampling == "poisson" and plan.sampling_rate == 1
        self._whole = masked if everyone else None

    def _build(self, seeds: list[int]) -> None:
        built = {seed: build_model(self._recipe, self._data, seed) for seed in dict.fromkeys(seeds)}
        models = [built[seed] for seed in seeds]
        self._model = models[0]
        optimizer = OPTIMIZERS[self._recipe.optimizer.name](self._model, self._recipe.optimizer, self._recipe.regularization)
        follow_schedule(optimizer, self._recipe.optimizer, self._plan.steps, lambda: self.taken)
        names = {value: name for name, value in self._model.named_parameters()}
        held = [dict(model.named_parameters()) for model in models]
        self._stacked = copy.deepcopy(self._model)
        for name in names.values():
            owner, _, leaf = name.rpartition(".")
            stack = torch.stack([each[name].detach() for each in held])
            setattr(self._stacked.get_submodule(owner), leaf, nn.Parameter(stack))
        self._weights = dict(self._stacked.named_parameters())
        for group in optimizer.param_groups:  # of one model, so that weight decay finds the weights among the parameters
            group["params"] = [self._weights[names[value]] for value in group["params"]]
        self._optimizer = optimizer
        decay = self._recipe.training.average
        self._average = None if decay is None else WeightAverage(self._stacked, decay)
        self._chain = Chain(self._model, {name: value.detach() for name, value in self._weights.items()})
        self._dtype = next(iter(self._weights.values())).dtype

    @torch.no_grad()
    def step(self) -> None:
        """One update of every model."""
        total: dict[str, Tensor] = {}
        for rows in self._drawn():
            self._add(rows, total)
        if not total:
            total = {name: torch.zeros_like(value) for name, value in self._weights.items()}
        divisor = self._plan.expected_batch_size
        noised = self._noise.add(ClippedSum(total, self._clipping.sensitivity / divisor, Counts(), divisor))
        told: Any = self._optimizer
        if isinstance(told, NoiseAware):
            told.noise_deviation = noised.standard_deviation
        for name, value in self._weights.items():
            value.grad = noised.gradients[name]
        self._optimizer.step()
        for value in self._weights.values():
            value.grad = None
        if self._average is not None:
            self._average.update()
        self.taken += 1

    def _drawn(self) -> Iterator[Rows]:
        """The next batch of every model."""
        if self._whole is not None:
            return self._whole.everything()
        return self._rows.of([members[next(drawn)] for members, drawn in zip(self._members, self._batches, strict=True)])

    def _add(self, rows: Rows, total: dict[str, Tensor]) -> None:
        divisor, smoothing = self._plan.expected_batch_size, self._recipe.regularization.label_smoothing
        logits = self._chain.forward(rows.inputs, training=True)
        gradients = LOSS_GRADIENTS[self._recipe.training.loss](logits, rows.targets, smoothing)
        if not np.isfinite(self._plan.clipping_norm):
            whole = bool(torch.isfinite(gradients.sum()))
            self._chain.backward(gradients.mul_((rows.present / divisor).to(self._dtype)[:, None]))
            for layer in self._chain.linears:
                if not whole:  # an example that is not in the batch would count: 0 · NaN is NaN
                    layer.keep(rows.present)
                layer.sum_into(total, None)
            return
        self._chain.backward(gradients)
        found = self._chain.squares(rows.squares)
        factors, finite, _ = self._clipping.factors(found.flatten(1), self._dtype, divisor)
        factors = (factors.to(self._dtype) * rows.present.flatten()).unflatten(1, (self.models, -1))
        whole = bool(finite.all())
        for index, layer in enumerate(self._chain.linears):
            if not whole:
                layer.keep(finite.view(self.models, -1))
            layer.sum_into(total, factors[index if len(factors) > 1 else 0])

    # -- what is kept -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def answers(self, numbers: Int[np.ndarray, " models"], views: Views | None = None, keep_weights: bool = False) -> Answers:
        """Of the models as the recipe releases them, with averaged weights where it averages.

        Args:
            numbers: of these models in the fleet.
        """
        if self._average is not None:
            self._average.show()
        try:
            logits = self._logits(self._inputs)
            seen = None
            if views is not None:
                seen = np.concatenate([self._of_views(part) for part in chunks_of_inputs(views, self._data)], 2)
            state = self._state() if keep_weights else None
        finally:
            if self._average is not None:
                self._average.hide()
        return Answers(numbers, logits.float().numpy(), seen, state)

    def _logits(self, inputs: Float[Tensor, "rows features"]) -> Float[Tensor, "models rows classes"]:
        size = rows_at_once(self.models, self._chain.width())
        return torch.cat([self._chain.forward(part.t()).transpose(1, 2) for part in inputs.split(size)], 1)

    def _of_views(self, views: Tensor) -> np.ndarray:
        """``[models, views, rows, classes]`` of augmented inputs ``[views, rows, ...]``."""
        flat = views.flatten(0, 1)
        if isinstance(self._model, front.WithFront):
            flat = self._model.front(flat)
        return self._logits(flat.flatten(1)).unflatten(1, tuple(views.shape[:2])).float().numpy()

    def _state(self) -> dict[str, np.ndarray]:
        """Every tensor of the models' state; what is no parameter is the same in all."""
        kept: dict[str, Any] = {}
        for name, value in self._stacked.state_dict().items():
            whole = value if name in self._weights else value.expand(self.models, *value.shape)
            kept[name] = whole.detach().clone().numpy()
        return kept


def _inputs(model: nn.Module, data: DataSet) -> Float[Tensor, "examples features"]:
    return (front.made(model.front, data) if isinstance(model, front.WithFront) else data.inputs).flatten(1)


@torch.no_grad()
def _check_same(model: nn.Module, data: DataSet) -> None:
    """Raises Unstackable where a chain of the model's layers does not compute what the model does."""
    inputs = data.inputs[:4]
    there = model.front(inputs) if isinstance(model, front.WithFront) else inputs
    chain = Chain(model, {name: value.detach()[None] for name, value in model.named_parameters()})
    model.eval()
    expected, found = model(inputs), chain.forward(there.flatten(1).t())[0].t()
    if expected.shape != found.shape or not torch.allclose(expected, found, rtol=1e-3, atol=1e-4):
        raise Unstackable("the model is not the chain of its layers")
