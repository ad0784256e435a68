"""What a training under a plan releases, step by step, and what one example adds to it.

    releases = watch(training)                      # before the first step
    for batch in training.batches():
        training.step(batch)
    contributions = Contributions(model, loss, plan)
    contributions(releases[0].weights, inputs, targets)      # [examples, parameters]: what each would add to that step's sum

The guarantee covers an observer who sees every noised gradient, hence every model on the way. With C the clipping norm, σ
the noise multiplier, Δ the sensitivity and B the expected batch size, step t releases

    g̃_t = (Σ_i c_i(w_t) + σ Δ z) / B,      c_i(w) = ∇ loss_i(w) · min(1, C / ‖∇ loss_i(w)‖)

and whoever knows all examples but one subtracts the others' part: B g̃_t − Σ_known c_i(w_t) is c(w_t) of the one, plus
noise (Abadi et al. 2016, "Deep Learning with Differential Privacy"; Balle, Cherubin, Hayes 2022, "Reconstructing Training
Data with Informed Adversaries").

Contributions are computed here by ``torch.func``, apart from the engine, whose sums they are held against in a test. They
can be differentiated with respect to the inputs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dptrain.clipping.fallback import LossFunction, PerExampleGradients
from dptrain.errors import UserError
from dptrain.plan import PrivacyPlan
from dptrain.private import PrivateTraining
from dptrain.sampling import sampler_for

Labelled = tuple[Tensor, Tensor]
"""Inputs ``[examples, ...]`` and targets ``[examples]``."""


@dataclass(frozen=True, eq=False)
class Release:
    """One step, as all trainable parameters in one vector."""

    weights: Float[Tensor, " parameters"]
    """Before the step."""
    gradient: Float[Tensor, " parameters"]
    """Noised, and over the expected batch size."""


def watch(training: PrivateTraining) -> list[Release]:
    """A list that grows by one release with each step that the training takes from here on."""
    releases: list[Release] = []
    parameters = [value for value in training.model.parameters() if value.requires_grad]

    def see(*_: Any) -> None:
        gradients = [torch.zeros_like(value) if value.grad is None else value.grad for value in parameters]
        releases.append(Release(flattened(parameters), flattened(gradients)))

    training.optimizer.register_step_pre_hook(see)
    return releases


def flattened(tensors: Sequence[Tensor]) -> Float[Tensor, " parameters"]:
    """A copy, in one vector."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


class Contributions:
    """What each of some examples adds to the clipped sum of a step, at given weights.

    Args:
        model: its trainable parameters are replaced by the weights that are asked about; the model itself is left alone.

    Raises:
        UserError: the plan clips per layer, or by user.
    """

    def __init__(self, model: nn.Module, loss: LossFunction, plan: PrivacyPlan):
        if plan.clipping == "per_layer" or plan.unit != "example":
            raise UserError(
                f"clipping is {plan.clipping!r} and unit is {plan.unit!r}; what one example adds is known here for 'flat' or "
                "'automatic' clipping and the unit 'example'"
            )
        self.plan = plan
        self._shapes = {name: value.shape for name, value in model.named_parameters() if value.requires_grad}
        self._gradients = PerExampleGradients(model, loss)

    @property
    def parameters(self) -> int:
        return sum(shape.numel() for shape in self._shapes.values())

    def gradients(
        self, weights: Float[Tensor, " parameters"], inputs: Float[Tensor, "examples ..."], targets: Tensor
    ) -> Float[Tensor, "examples parameters"]:
        """Before clipping."""
        parts = weights.split([shape.numel() for shape in self._shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}
        found, _ = self._gradients(named, (inputs, targets))
        return torch.cat([found[name].flatten(1) for name in self._shapes], 1)

    def __call__(
        self, weights: Float[Tensor, " parameters"], inputs: Float[Tensor, "examples ..."], targets: Tensor
    ) -> Float[Tensor, "examples parameters"]:
        return self.clipped(self.gradients(weights, inputs, targets))

    def clipped(self, gradients: Float[Tensor, "examples parameters"]) -> Float[Tensor, "examples parameters"]:
        """By the plan's rule; see :mod:`dptrain.clipping.clipped`."""
        if math.isinf(self.plan.clipping_norm):
            return gradients
        norms = gradients.norm(dim=1, keepdim=True)
        if self.plan.clipping == "automatic":
            return gradients * (self.plan.clipping_norm / (norms + self.plan.automatic_stability))
        return gradients * (self.plan.clipping_norm / norms.clamp_min(self.plan.clipping_norm))


def known_sum(
    contributions: Contributions, weights: Float[Tensor, " parameters"], known: Labelled
) -> Float[Tensor, " parameters"]:
    """What the known examples add together; 0 where there are none."""
    if len(known[0]) == 0:
        return torch.zeros_like(weights)
    return contributions(weights, *known).sum(0)


def rests(releases: list[Release], contributions: Contributions, known: Labelled) -> Float[Tensor, "steps parameters"]:
    """B g̃_t − Σ_known c_i(w_t): what is left of each step's sum for the one who is not known, and the noise.

    Raises:
        UserError: not every example is in every batch, so that who was in which is not known.
    """
    plan = contributions.plan
    if not sampler_for(plan).takes_all:
        raise UserError(
            f"sampling_rate is {plan.sampling_rate:g} and sampling is {plan.sampling!r}, and the known examples can be "
            "subtracted where all are in each batch; give sampling_rate=1.0 and sampling='poisson'"
        )
    parts = [
        release.gradient * plan.expected_batch_size - known_sum(contributions, release.weights, known) for release in releases
    ]
    return torch.stack(parts)
