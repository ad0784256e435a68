"""Training examples from the weights of a small network alone.

    found = WeightReconstruction().run(model, change, (64,), (0.0, 1.0), generator)
    judged = closeness(found, members, non_members)

**Converged.** A homogeneous network (f(αθ; x) = α^L f(θ; x), biases in the first layer alone) that is trained with a
logistic or exponential loss and small initial weights goes in the direction of a point at which the margin is largest, and
there

    θ = Σ_i λ_i y_i ∇_θ f(θ; x_i),      λ_i ≥ 0,      y_i = ±1

over training examples: the conditions of Karush, Kuhn and Tucker. Inputs and λ for which this holds are looked for by gradient
descent (Haim, Vardi, Yehudai, Shamir, Irani 2022, "Reconstructing Training Data from Trained Neural Networks").

**From public initial weights.** Gradient flow on any such loss gives θ_T − θ_0 = Σ_i y_i ∫ λ_i(t) ∇_θ f(θ_t; x_i) dt,
exactly. Where weights move little relative to their length, as in a wide network, the gradients hardly turn on the way, and

    θ_T − θ_0 ≈ Σ_i λ_i y_i ∇_θ f(θ_T; x_i)

(Loo, Hasani, Lechner, Rus 2023, "Dataset Distillation Fixes Dataset Reconstruction Attacks"). No convergence is needed, and
whoever knows the seed of the initial weights knows θ_0.

The first needs a convergence that few trainings reach; the second needs wide layers, or initial weights that are long for the
examples at hand. A failure of either search on a model in between shows little.

Both are one search: ``change`` is θ_T in the first case and θ_T − θ_0 in the second. The sum is ∇_θ Σ_i λ_i y_i f(θ; x_i),
one backward pass. The derivative of a ReLU is a step, which tells the search nothing of where to go; a sigmoid of
``sharpness`` times the input stands for it, forwards the network stays as it is.

The search is judged by nearest distances, members beside non-members of the same distribution: a blurry mean is near to
everything, so only the difference is a leak of training. Of images, structural similarity stands beside the distance.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from evaluation.access import Access
from evaluation.inversion.evaluator import nearest_distance
from evaluation.metrics import area_under_roc, mean, proportion
from evaluation.result import Measure
from evaluation.similarity import WINDOW, structural_similarity


class SmoothReLU(torch.autograd.Function):
    """max(0, h) with the derivative sigmoid(sharpness · h), which can itself be differentiated."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, sharpness: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.sharpness = sharpness
        return values.clamp_min(0)

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None]:
        (values,) = ctx.saved_tensors
        return above[0] * torch.sigmoid(ctx.sharpness * values), None


class TwoLayers(nn.Module):
    """f(x) = vᵀ relu(W x + b), homogeneous of degree 2 in its weights."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.first = nn.Linear(features, width)
        self.second = nn.Linear(width, 1, bias=False)
        self.sharpness: float | None = None
        """Of the smooth derivative; None for the step."""

    def forward(self, inputs: Tensor) -> Float[Tensor, " examples"]:
        hidden = self.first(inputs.flatten(1))
        active = hidden.clamp_min(0) if self.sharpness is None else SmoothReLU.apply(hidden, self.sharpness)
        return self.second(active)[:, 0]


def stationarity(
    model: TwoLayers, change: dict[str, Tensor], inputs: Tensor, multipliers: Tensor, signs: Tensor
) -> Float[Tensor, ""]:
    """‖change − Σ_i λ_i y_i ∇f(θ; x_i)‖² / ‖change‖²: 0 where the conditions hold; differentiable in inputs and multipliers."""
    parameters = dict(model.named_parameters())
    weighted = (multipliers * signs * model(inputs)).sum()
    found = torch.autograd.grad(weighted, list(parameters.values()), create_graph=True)
    left = sum(((change[name] - own).square().sum() for name, own in zip(parameters, found, strict=True)), torch.zeros(()))
    return left / torch.stack([value.square().sum() for value in change.values()]).sum()


@dataclass(frozen=True, kw_only=True)
class WeightReconstruction:
    """Inputs that explain a change of weights; half of them of each class."""

    access: ClassVar[Access] = Access.WEIGHTS
    paper: ClassVar[str] = "Haim et al. 2022"

    candidates: int = 40
    """Inputs that are looked for: about twice as many as there were examples."""
    steps: int = 3000
    step_size: float = 0.02
    """Of Adam, on inputs, and on multipliers in units of ``multiplier``; it falls to 0 along a cosine."""
    spread: float = 0.1
    """Standard deviation of the inputs at the start, about the middle of the range, in units of the range."""
    sharpness: float = 200.0

    def run(
        self,
        model: TwoLayers,
        change: dict[str, Tensor],
        input_shape: tuple[int, ...],
        bounds: tuple[float, float],
        generator: torch.Generator,
        middle: Tensor | float | None = None,
    ) -> Tensor:
        """Inputs ``[candidates, *input_shape]``, within bounds.

        Args:
            model: as trained, with weights that can be differentiated; they are left as they are.
            change: its weights, or their change since public initial ones; by the names of its parameters.
            middle: of the inputs at the start; left out, the middle of the range.
        """
        low, high = bounds
        dtype = next(model.parameters()).dtype
        begin = (low + high) / 2 if middle is None else middle
        noise = torch.randn(self.candidates, *input_shape, generator=generator, dtype=dtype)
        inputs = (begin + self.spread * (high - low) * noise).requires_grad_(True)
        raw = torch.rand(self.candidates, generator=generator, dtype=dtype).requires_grad_(True)
        signs = torch.ones(self.candidates, dtype=dtype)
        signs[self.candidates // 2 :] = -1
        model.sharpness = self.sharpness
        try:
            unit = _multiplier(model, change, inputs.detach(), raw.detach(), signs)
            adam = torch.optim.Adam([inputs, raw], lr=self.step_size)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.steps)
            for _ in range(self.steps):
                outside = ((inputs - high).clamp_min(0) + (low - inputs).clamp_min(0)).square().sum() / self.candidates
                left = stationarity(model, change, inputs, unit * raw.clamp_min(0), signs)
                cost = left + outside + (-raw).clamp_min(0).sum()
                inputs.grad, raw.grad = torch.autograd.grad(cost, [inputs, raw])
                adam.step()
                schedule.step()
        finally:
            model.sharpness = None
        return inputs.detach().clamp(low, high)


def _multiplier(model: TwoLayers, change: dict[str, Tensor], inputs: Tensor, multipliers: Tensor, signs: Tensor) -> float:
    """By how much multipliers must be larger for the sum to be as long as the change."""
    weighted = (multipliers * signs * model(inputs)).sum()
    found = torch.autograd.grad(weighted, list(model.parameters()))
    lengths = [torch.stack([part.square().sum() for part in parts]).sum() for parts in (change.values(), found)]
    return float((lengths[0] / lengths[1].clamp_min(1e-30)).sqrt())


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """How near reconstructions come to training examples, beside others of the same distribution."""

    members: Float[np.ndarray, " members"]
    """Root mean squared difference from each to the nearest reconstruction, in units of the inputs."""
    non_members: Float[np.ndarray, " non_members"]
    auc: Measure
    """How often a member is nearer to its reconstruction than a non-member to its own: 1/2 where nothing of training leaked."""
    similarity: tuple[Measure, Measure] | None = None
    """Mean SSIM of members, and of non-members, to the reconstruction that is nearest by distance; of images alone."""

    @property
    def recovered(self) -> Measure:
        """Share of members that are nearer than every non-member is."""
        return proportion(int((self.members < self.non_members.min()).sum()), len(self.members), "recovered")

    @property
    def text(self) -> str:
        alike = ""
        if self.similarity is not None:
            members, non_members = self.similarity
            alike = f" SSIM to the nearest reconstruction: {members.value:.3f}, of the others {non_members.value:.3f}."
        return (
            f"{self.recovered.value:.0%} of {len(self.members)} training examples have a reconstruction nearer than the "
            f"nearest of any of {len(self.non_members)} others; the best is {self.members.min():.3f} away, and "
            f"{self.non_members.min():.3f} from the others. AUC of nearness {self.auc.value:.3f} "
            f"({self.auc.low:.3f} to {self.auc.high:.3f}), .5 where nothing leaked.{alike}"
        )


def closeness(
    found: Float[Tensor, "candidates ..."],
    members: Float[Tensor, "members ..."],
    non_members: Float[Tensor, "others ..."],
    bounds: tuple[float, float] | None = None,
) -> Closeness:
    """Reconstructions into figures; nothing here went into the search.

    Args:
        bounds: of a pixel. With them, and inputs ``[..., channels, height, width]`` of at least the window's size, SSIM is
            measured as well.
    """
    near, far = nearest_distance(members, found), nearest_distance(non_members, found)
    scores = -np.concatenate([near, far])
    is_member = np.arange(len(scores)) < len(near)
    similarity = None
    if bounds is not None and found.ndim == 4 and min(found.shape[2:]) >= WINDOW:
        similarity = _similarity(found, members, bounds, "members"), _similarity(found, non_members, bounds, "non_members")
    return Closeness(members=near, non_members=far, auc=area_under_roc(scores, is_member), similarity=similarity)


def _similarity(found: Tensor, examples: Tensor, bounds: tuple[float, float], name: str) -> Measure:
    low, high = bounds
    nearest = found[torch.cdist(examples.flatten(1).double(), found.flatten(1).double()).argmin(1)]
    values = structural_similarity(nearest - low, examples - low, value_range=high - low)
    return mean(values.numpy(), f"ssim_of_{name}")
