"""One example from what it adds to a step: from its gradient, or from the noised part of it that a private training releases.

    analytic(weight_gradient, bias_gradient)                        # exact, where the first layer is linear with a bias
    GradientMatching().run(seen, ...)                               # any model, by optimisation
    most_probable(seen, ..., prior=PublicPrior.of(public, 100))     # knows what examples look like, and the noise

**Linear first layer.** With h = W x + b and e = ∂L/∂h, ∂L/∂W = e xᵀ and ∂L/∂b = e, so that each row is a multiple of x: x =
∂L/∂W_i / ∂L/∂b_i (Geiping, Bauermeister, Dröge, Moeller 2020, "Inverting Gradients"; Phong et al. 2017). All rows together,
by least squares, give

    x = Σ_i ∂L/∂b_i ∂L/∂W_i / Σ_i (∂L/∂b_i)²

Clipping multiplies both by one factor, which cancels: it hides nothing.

**Any model.** Look for the x whose own gradient is the one that was seen: by squared distance (Zhu, Liu, Han 2019, "Deep
Leakage from Gradients"), or by one minus the cosine plus a weight times the total variation of the image, by the signs of
the gradient and within bounds (Geiping et al. 2020). What was seen is clipped, so a candidate's gradient is clipped before it
is compared: by distance, one that is not has the wrong length; by cosine it makes no difference. A gradient that was not
clipped goes with a plan whose ``clipping_norm`` is infinite. Both are *naive*: they take noise for signal.

**Informed.** Public examples give a mean m and principal directions L, of one standard deviation each: x = m + L z with z
standard normal. With r_t = c(x; w_t) + σ Δ · noise (:mod:`~evaluation.inversion.released`), the most probable z is the
minimum of

    Σ_t ‖r_t − c(m + L z; w_t)‖² / (2 σ² Δ²) + ‖z‖² / 2

C, σ and B come from the plan. Where c is linear in x this is the Wiener filter, m + Σ A^T (A Σ A^T + σ² Δ² I)⁻¹ (r − A m).
With noise that outweighs the signal it falls back to m, so the mean image is what it must be held against.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from dptrain.errors import DataError, UserError, unknown_name
from evaluation.access import Access
from evaluation.inversion.released import Contributions

Distance = Literal["cosine", "euclidean"]


def analytic(
    weight_gradient: Float[Tensor, "units features"], bias_gradient: Float[Tensor, " units"]
) -> Float[Tensor, " features"]:
    """The input of a linear layer, from the derivatives of one example's loss.

    Raises:
        DataError: no unit's bias has a gradient, so that the layer saw nothing of the input.
    """
    squares = bias_gradient.square().sum()
    if not squares > 0:
        raise DataError(
            "the gradient of every bias is 0, so it holds nothing of the input; give that of another step or example"
        )
    return bias_gradient @ weight_gradient / squares


def label_of(last_bias_gradient: Float[Tensor, " classes"]) -> int:
    """The label of one example under cross-entropy: its derivative by the logits is p − e_y, negative at y alone (Zhao, Mopuri,
    Bilen 2020, "iDLG"). With noise, the most negative is the best guess."""
    return int(last_bias_gradient.argmin())


def total_variation(images: Float[Tensor, "*batch height width"]) -> Tensor:
    """Mean absolute difference of neighbouring pixels."""
    return images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()


@dataclass(frozen=True, kw_only=True)
class GradientMatching:
    """The input whose contribution is closest to the one that was seen.

    Raises:
        ConfigError: the distance is none of those that there are.
    """

    access: ClassVar[Access] = Access.WEIGHTS
    paper: ClassVar[str] = "Geiping et al. 2020"

    distance: Distance = "cosine"
    total_variation: float = 0.0
    """Weight of the image's total variation; only for inputs that are images."""
    steps: int = 400
    step_size: float = 0.1
    """Of Adam, on the sign of the gradient, as a share of the input's range; of ``euclidean`` not used, which is by L-BFGS."""

    def __post_init__(self) -> None:
        if self.distance not in get_args(Distance):
            raise unknown_name("distance", self.distance, get_args(Distance))

    def run(
        self,
        seen: Float[Tensor, " parameters"],
        contributions: Contributions,
        weights: Float[Tensor, " parameters"],
        label: int,
        input_shape: tuple[int, ...],
        bounds: tuple[float, float],
        generator: torch.Generator,
    ) -> Tensor:
        """One input, ``[*input_shape]``, within bounds.

        Args:
            seen: what the example adds to a sum, clipped by the plan of ``contributions``; what is left of a released one.
            weights: at which it was taken.
            label: of the example; see :func:`label_of`.
            generator: draws the starting point.
        """
        low, high = bounds
        targets = torch.tensor([label])
        start = low + (high - low) * torch.rand(1, *input_shape, generator=generator, dtype=seen.dtype)

        def cost(inputs: Tensor) -> Tensor:
            own = contributions(weights, inputs, targets)[0]
            squared = self.distance == "euclidean"
            apart = (own - seen).square().sum() if squared else 1 - torch.cosine_similarity(own, seen, dim=0)
            return apart + self.total_variation * total_variation(inputs) if self.total_variation else apart

        found = _by_signs(cost, start, self, bounds) if self.distance == "cosine" else _by_lbfgs(cost, start, self.steps)
        return found.clamp(low, high)[0]


def _by_signs(
    cost: Callable[[Tensor], Tensor], start: Tensor, settings: GradientMatching, bounds: tuple[float, float]
) -> Tensor:
    """Adam on signs, its rate divided by ten after 3/8, 5/8 and 7/8 of the steps, as in the paper."""
    inputs = start.clone().requires_grad_(True)
    adam = torch.optim.Adam([inputs], lr=settings.step_size * (bounds[1] - bounds[0]))
    milestones = [settings.steps * eighths // 8 for eighths in (3, 5, 7)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(adam, milestones)
    for _ in range(settings.steps):
        (gradient,) = torch.autograd.grad(cost(inputs), inputs)
        inputs.grad = gradient.sign()
        adam.step()
        schedule.step()
        with torch.no_grad():
            inputs.clamp_(*bounds)
    return inputs.detach()


def _by_lbfgs(cost: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Tensor:
    inputs = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [inputs], max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-15, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        value = cost(inputs)
        (inputs.grad,) = torch.autograd.grad(value, inputs)
        return value.detach()

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]  a closure may give a tensor, which it turns into a float
    return inputs.detach()


@dataclass(frozen=True, eq=False)
class PublicPrior:
    """What examples look like to someone who has seen others: mean and principal directions."""

    mean: Float[Tensor, " features"]
    directions: Float[Tensor, "components features"]
    """Each as long as the standard deviation along it."""

    @classmethod
    def of(cls, public: Float[Tensor, "examples ..."], components: int) -> "PublicPrior":
        """From public examples, by their singular values.

        Raises:
            DataError: there are fewer than two.
        """
        if len(public) < 2 or components < 1:
            raise DataError(
                f"{len(public)} public examples and {components} components describe nothing; give at least 2 examples and 1 "
                "component"
            )
        flat = public.flatten(1)
        mean = flat.mean(0)
        _, values, rows = torch.linalg.svd(flat - mean, full_matrices=False)
        kept = min(components, len(public) - 1, flat.shape[1])
        return cls(mean, rows[:kept] * (values[:kept, None] / (len(public) - 1) ** 0.5))


def most_probable(
    rests: Float[Tensor, "steps parameters"],
    contributions: Contributions,
    weights: Float[Tensor, "steps parameters"],
    label: int,
    input_shape: tuple[int, ...],
    prior: PublicPrior,
    steps: int = 100,
) -> Tensor:
    """The most probable input, ``[*input_shape]``, given the noised contribution of each step.

    Args:
        rests: B g̃_t less what the known examples add; :func:`~evaluation.inversion.released.rests`.
        weights: at which each step was taken.
        label: of the example, which this adversary knows.
        steps: of L-BFGS, from the prior's mean.

    Raises:
        UserError: the plan adds no noise: there, take :func:`analytic` or :class:`GradientMatching`.
    """
    plan, targets = contributions.plan, torch.tensor([label])
    if not plan.is_private:
        raise UserError("the plan adds no noise, so there is nothing to weigh the prior against; take GradientMatching")
    variance = (plan.noise_multiplier * plan.sensitivity) ** 2

    def cost(place: Tensor) -> Tensor:
        inputs = (prior.mean + place @ prior.directions).view(1, *input_shape)
        apart = [(rest - contributions(at, inputs, targets)[0]).square().sum() for rest, at in zip(rests, weights, strict=True)]
        return torch.stack(apart).sum() / (2 * variance) + place.square().sum() / 2

    place = _by_lbfgs(cost, torch.zeros(len(prior.directions), dtype=rests.dtype), steps)
    return (prior.mean + place @ prior.directions).view(input_shape)
