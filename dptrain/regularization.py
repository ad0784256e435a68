"""What keeps a model from overfitting: per-example losses and weight-only terms.

What changes each example's own loss is bounded by clipping like any other loss. Weight decay acts on weights alone, after the
noise. Dropout is drawn per example inside the model. None of them is a privacy defence by itself: weight decay can make more
of the training set reconstructible (Buzaglo et al. 2023), and label smoothing can help an inversion (Struppek et al. 2024).
The report's table says what each one did.

With ℓ = −log p_y the cross entropy of an example, p its output over K classes and y its label:

* **label smoothing** s: the target is (1 − s) on y plus s/K on each, so that the loss is (1 − s) ℓ − (s/K) Σ_j log p_j. With s
  below 0 it pushes other classes' scores down beyond what the label asks (Struppek, Hintersdorf, Kersting 2024, "Be Careful
  What You Smooth For", where it works against inversion); the loss then has no lowest value.
* **label entropy** γ: KL(t ‖ p), where t is q on y, the rest alike on the other classes, and q is such that H(t) = γ log K.
  **Output entropy** w: w H(p) is taken off the loss. Both by Chen and Pattabiraman 2024, "Overconfidence is a Dangerous Thing"
  (HAMP). Its third part, outputs that are changed when the model is asked, is no part of training.
* **mixup** α: the model sees λ x + (1 − λ) x′, and the loss is λ ℓ_y + (1 − λ) ℓ_y′, with λ from Beta(α, α) for each example
  and (x′, y′) another one of those computed together (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"). Where
  a model's front is fixed, what the front made of them is mixed. An example then appears in others' gradients, so that
  clipping does not bound it: under clipping it is refused. Mixing views of one example would keep to the bound, and recipes
  have no views.
* **relax** a (Chen, Yu, Fritz 2022, "RelaxLoss"). As published, by the mean loss m of a ``batch``: in even epochs |m − a|,
  which ascends below a; in odd ones, m where m > a, and otherwise the mean of [argmax p ≠ y] CE(t, p) − ℓ, with t = p_y on y
  and (1 − p_y)/(K − 1) on the others ("posterior flattening"). m is a function of all examples: under clipping it is refused.
  By ``example`` every m is the example's own ℓ, so that nothing is shared: another algorithm, of which the paper's figures
  say nothing. Its even epochs are iFlood (Xie et al. 2022, "iFlood: A Stable and Effective Regularizer").
* **information bottleneck** and **bilateral dependency** charge for what hidden layers say of inputs:
  :mod:`dptrain.representation`. **penalty** names regularizers of one's own: :mod:`dptrain.penalties`. **freeze** is of
  the model alone: :mod:`dptrain.models.frozen`.
"""

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dptrain import representation
from dptrain.clipping.fallback import ALONE
from dptrain.errors import ConfigError
from dptrain.penalties import penalty_of
from dptrain.recipe import RegularizationConfig


def cross_entropy(model: nn.Module, batch: Any, regularization: RegularizationConfig, epoch: int = 0) -> Tensor:
    """Cross entropy in nats, ``[examples]``, of ``(inputs [examples, ...], targets [examples])``, as regularized; of a language
    model, whose targets are ``[examples, length]``, the mean over the places of a sequence.

    Args:
        epoch: how often the data were gone through; of ``relax`` alone, which does one thing in even and one in odd epochs.

    Raises:
        ConfigError: two options that each decide what an example's output should be, or one that charges for hidden layers
            that the model does not have; or one that compares examples, where each is computed by itself to be clipped.
    """
    regularization.check_together()
    if ALONE.get():
        check_comparisons(regularization)
    inputs, targets = batch
    with representation.watching(model, regularization) as penalty:
        if regularization.mixup:
            logits, losses = _mixed(model, inputs, targets, regularization.mixup)
        else:
            logits = model(inputs)
            losses = _of_logits(logits, targets, regularization, epoch)
        losses = losses + penalty.of(inputs, targets)
    if regularization.penalty:
        losses = losses + penalty_of(regularization.penalty, logits, inputs, targets)
    if regularization.output_entropy:
        losses = losses - regularization.output_entropy * entropy(logits)
    return losses


def squared_error(model: nn.Module, batch: Any, regularization: RegularizationConfig) -> Tensor:
    """(output − target)², ``[examples]``, of ``(inputs [examples, ...], targets [examples])`` and a model of one output.

    Raises:
        ConfigError: label smoothing, which spreads a class.
    """
    if regularization.label_smoothing:
        raise ConfigError(
            f"regularization.label_smoothing is {regularization.label_smoothing:g} and there are no classes to spread it over; "
            "leave it out where a value is predicted"
        )
    inputs, targets = batch
    outputs = model(inputs)
    losses = (outputs[:, 0] - targets).square()
    return losses + penalty_of(regularization.penalty, outputs, inputs, targets) if regularization.penalty else losses


def _of_logits(logits: Tensor, targets: Tensor, regularization: RegularizationConfig, epoch: int) -> Tensor:
    if targets.dim() == 2:  # a sequence: the mean over its places
        each = _of_logits(logits.flatten(0, 1), targets.flatten(), regularization, epoch)
        return each.unflatten(0, tuple(targets.shape)).mean(1)
    if regularization.label_entropy:
        classes = logits.shape[-1]
        certainty = confidence_of(regularization.label_entropy, classes)
        return _soft_cross_entropy(logits, targets, certainty) - regularization.label_entropy * math.log(classes)
    if regularization.relax:
        return relaxed(logits, targets, regularization.relax, epoch, by_batch=regularization.relax_by == "batch")
    losses, smoothing = F.cross_entropy(logits, targets, reduction="none"), regularization.label_smoothing
    if not smoothing:
        return losses
    return (1 - smoothing) * losses - smoothing * F.log_softmax(logits, dim=-1).mean(
        -1
    )  # torch's own leaves out what is below 0


def entropy(logits: Float[Tensor, "examples classes"]) -> Float[Tensor, " examples"]:
    """H(p) of each output, in nats."""
    logs = F.log_softmax(logits, dim=-1)
    return -(logs.exp() * logs).sum(-1)


@functools.lru_cache(maxsize=64)
def confidence_of(share: float, classes: int) -> float:
    """q, for which q on one class and the rest alike on the others has an entropy of ``share`` · log K."""
    from scipy.optimize import brentq

    def excess(confidence: float) -> float:
        rest = 1 - confidence
        spread = rest * math.log(rest / (classes - 1)) if rest > 0 else 0.0
        return -confidence * math.log(confidence) - spread - share * math.log(classes)

    root: Any = brentq(excess, 1 / classes, 1.0, xtol=1e-14)
    return float(root)


def _soft_cross_entropy(logits: Tensor, targets: Tensor, confidence: Tensor | float) -> Tensor:
    """CE(t, p), where t is ``confidence`` on the label and the rest alike on the other classes."""
    logs = F.log_softmax(logits, dim=-1)
    own = logs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return -confidence * own - (1 - confidence) / (logits.shape[-1] - 1) * (logs.sum(-1) - own)


def relaxed(
    logits: Float[Tensor, "examples classes"], targets: Int[Tensor, " examples"], level: float, epoch: int, *, by_batch: bool
) -> Float[Tensor, " examples"]:
    """RelaxLoss of each example, or of all together, whose mean is then the published loss; see the module's text."""
    losses = F.cross_entropy(logits, targets, reduction="none")
    held = losses.mean() if by_batch else losses
    if epoch % 2 == 0:
        return (losses - level) * torch.sign(held.detach() - level)
    sure = losses.detach().neg().exp()
    wrong = (logits.argmax(-1) != targets).to(losses.dtype)
    flattened = wrong * _soft_cross_entropy(logits, targets, sure) - losses
    return torch.where(held.detach() > level, losses, flattened)


def _mixed(model: nn.Module, inputs: Tensor, targets: Tensor, concentration: float) -> tuple[Tensor, Tensor]:
    """Logits of mixed examples, and their losses."""
    other = torch.randperm(len(inputs), device=inputs.device)
    share = torch.distributions.Beta(concentration, concentration).sample((len(inputs),)).to(inputs)
    each = share.view(-1, *(1,) * (inputs.dim() - 1))
    logits = model(each * inputs + (1 - each) * inputs[other])
    own, others = (F.cross_entropy(logits, labels, reduction="none") for labels in (targets, targets[other]))
    return logits, share * own + (1 - share) * others


def check_regularization(regularization: RegularizationConfig, *, clipped: bool, public: int) -> None:
    """Refuses what a training cannot do as it is stated.

    Args:
        clipped: whether what one example contributes is bounded, so that its loss may not look at the others.
        public: how many public examples there are.

    Raises:
        ConfigError: it would mix examples under clipping, or needs public examples and has none.
    """
    if clipped:
        check_comparisons(regularization)
    if regularization.needs_public and not public:
        name = "early_stopping" if regularization.early_stopping else "distillation"
        raise ConfigError(
            f"regularization.{name} is {getattr(regularization, name)} and needs public examples, of which there are none; "
            "give data.split.public a share above 0, or pass public= in a script"
        )


def check_comparisons(regularization: RegularizationConfig) -> None:
    """Refuses what would let an example enter another one's loss, which clipping does not bound.

    Raises:
        ConfigError: mixed examples, or a loss that compares them.
    """
    if regularization.mixup:
        raise ConfigError(
            f"regularization.mixup is {regularization.mixup:g}, and under clipping an example may not enter another one's "
            "gradient: no ε would hold; leave it out, or give it to a baseline without clipping (--regularized.mixup)"
        )
    if regularization.bilateral_dependency:
        raise ConfigError(
            f"regularization.bilateral_dependency is {regularization.bilateral_dependency:g}, and under clipping an example's "
            "loss may not compare it with others: no ε would hold; leave it out, give it to a baseline without clipping "
            "(--regularized.bilateral-dependency), or give information_bottleneck, which is each example's own"
        )
    if regularization.relax and regularization.relax_by == "batch":
        raise ConfigError(
            "regularization.relax_by is 'batch', and under clipping an example's loss may not depend on the others' mean: no ε "
            "would hold; give 'example'"
        )


def weight_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: the penalty is on weights alone, not on biases and scales."""
    trainable = [value for value in model.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in trainable if value.dim() > 1], "weight_decay": weight_decay},
        {"params": [value for value in trainable if value.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
