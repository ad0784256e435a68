"""What a model's hidden layers may say of its inputs: parts of the loss that hold it down.

* **information bottleneck** β (MID: Wang, Zhang, Jia 2021, "Improving Robustness to Model Inversion Attacks via Mutual
  Information Regularization"): β times an upper bound of the mutual information between input and last hidden layer is added
  to the loss. The layer is z ~ N(m, diag s²), with m and s of each example (:mod:`dptrain.models.bottleneck`), and the bound is
  the mean over examples of

      KL(N(m, diag s²) ‖ N(0, I)) = ½ Σ_i (m_i² + s_i² − 1 − log s_i²)

  Each example has its own divergence and its own draw, so it remains a loss of one example, which clipping bounds. Its part
  β m²/2 has the curvature β (‖h‖² + 1) in the layer's weights: gradient descent without clipping, of learning rate η and
  momentum μ, leaves every bound where η β (‖h‖² + 1) > 2 (1 + μ), and sooner where the rest of the loss is curved too. With
  100 hidden units of tanh, η = 0.1 and μ = 0.9 the recipe ``faces_defences`` trains at β = 0.1 and ends in NaN at 0.3
  (``--regularized.information-bottleneck 0.3``): lower η with a larger β.

* **bilateral dependency** λ and r (BiDO: Peng, Liu, Zhang et al. 2022, "Bilateral Dependency Optimization: Defending Against
  Model-inversion Attacks"): over the hidden layers Z_j, with X the inputs and Y the labels,

      λ Σ_j ( HSIC(X, Z_j) − r HSIC(Z_j, Y) )

  is added to the mean loss. HSIC is the Hilbert–Schmidt independence criterion by its biased estimate tr(K H L H) / (n − 1)²
  of n examples, with K and L their kernels and H = I − 1/n (Gretton, Bousquet, Smola, Schölkopf 2005, "Measuring Statistical
  Dependence with Hilbert-Schmidt Norms"). The kernel of X and Z is exp(−d²/(2σ²)), with σ² the median of the squared
  distances d² between those examples, a constant of the step; that of labels is 1 where they agree, else 0. With such a width
  a layer is not made independent by being made small. It compares each example with those computed together, so that clipping
  does not bound it: under clipping it is refused, by a recipe before it trains and in a script at the first step. Where a
  model's front is fixed, X is what the front made.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dptrain.errors import ConfigError
from dptrain.models.bottleneck import GaussianDraw
from dptrain.models.mlp import ACTIVATIONS
from dptrain.recipe import RegularizationConfig


class Penalty:
    """What the hidden layers cost, of the latest forward pass inside of :func:`watching`."""

    def __init__(self, regularization: RegularizationConfig):
        self._regularization = regularization
        self._moments: list[tuple[Tensor, Tensor]] = []
        self._hidden: list[Tensor] = []

    def of(self, inputs: Tensor, targets: Tensor) -> Tensor | float:
        """Added to each example's loss: ``[examples]``, or one number for all."""
        options, total = self._regularization, 0.0
        for mean, log_variance in self._moments:
            total = total + options.information_bottleneck * divergence(mean, log_variance)
        if options.bilateral_dependency:
            given, labels = gaussian_kernel(inputs), (targets[:, None] == targets).to(inputs.dtype)
            for layer in self._hidden:
                kernel = gaussian_kernel(layer)
                apart = hsic(given, kernel) - options.bilateral_ratio * hsic(kernel, labels)
                total = total + options.bilateral_dependency * apart
        return total

    def keep_moments(self, module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        self._moments.append((given[0], given[1]))

    def keep_hidden(self, module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        self._hidden.append(made)


@contextmanager
def watching(model: nn.Module, regularization: RegularizationConfig) -> Iterator[Penalty]:
    """Inside, what the options charge for is kept as the model computes it; one forward pass.

    Raises:
        ConfigError: the model has no such layer.
    """
    penalty, handles = Penalty(regularization), []
    try:
        if regularization.information_bottleneck:
            found = _of_kind(model, (GaussianDraw,), "information_bottleneck", "a dptrain.models.bottleneck.Bottleneck")
            handles += [module.register_forward_hook(penalty.keep_moments) for module in found]
        if regularization.bilateral_dependency:
            kinds = tuple(ACTIVATIONS.values())
            found = _of_kind(model, kinds, "bilateral_dependency", "a hidden layer that ends in nn.Tanh or nn.ReLU")
            handles += [module.register_forward_hook(penalty.keep_hidden) for module in found]
        yield penalty
    finally:
        for handle in handles:
            handle.remove()


def _of_kind(model: nn.Module, kinds: tuple[type[nn.Module], ...], option: str, what: str) -> Iterable[nn.Module]:
    found = [module for module in model.modules() if isinstance(module, kinds)]
    if not found:
        raise ConfigError(
            f"regularization.{option} is set and the model {type(model).__name__} has no hidden layer for it; choose "
            f"--model.name mlp or cnn with hidden layers, or give your own model {what}"
        )
    return found


def divergence(
    mean: Float[Tensor, "examples width"], log_variance: Float[Tensor, "examples width"]
) -> Float[Tensor, " examples"]:
    """KL(N(mean, exp(log variance)) ‖ N(0, I)) of each example, in nats."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1) / 2


def gaussian_kernel(values: Float[Tensor, "examples ..."]) -> Float[Tensor, "examples examples"]:
    """exp(−d²/(2σ²)) of all pairs, with σ² the median of d² over pairs of two examples; 1 where that median is 0."""
    flat = values.flatten(1)
    lengths = flat.square().sum(1)
    squares = (lengths[:, None] + lengths - 2 * flat @ flat.T).clamp_min(0)
    count = len(flat)
    if count < 2:
        return torch.ones_like(squares)
    pairs = torch.triu_indices(count, count, 1, device=flat.device)
    width = squares.detach()[pairs[0], pairs[1]].median()
    return torch.where(width > 0, (-squares / (2 * width.clamp_min(torch.finfo(width.dtype).tiny))).exp(), 1.0)


def hsic(one: Float[Tensor, "examples examples"], other: Float[Tensor, "examples examples"]) -> Float[Tensor, ""]:
    """tr(K H L H) / (n − 1)² of two kernels of the same n examples; 0 for fewer than two."""
    count = len(one)
    if count < 2:
        return one.new_zeros(())
    centred = one - one.mean(0) - one.mean(1, keepdim=True) + one.mean()
    return (centred * other).sum() / (count - 1) ** 2
