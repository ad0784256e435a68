"""What keeps a model from overfitting: per-example losses and weight-only terms.

Label smoothing changes each example's own loss, so clipping bounds it like any other. Weight decay acts on weights
alone, after the noise. Dropout is drawn per example inside the model. None of them is a privacy defence by itself: weight
decay can make more of the training set reconstructible (Buzaglo et al. 2023), and label smoothing can help an inversion
(Struppek et al. 2024). The report's table says what each one did.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dptrain.recipe import RegularizationConfig


def cross_entropy(model: nn.Module, batch: Any, regularization: RegularizationConfig) -> Tensor:
    """Cross entropy in nats, ``[examples]``, of ``(inputs [examples, ...], targets [examples])``.

    With label smoothing s over K classes the target is (1 − s) on the true class plus s/K on each.
    """
    inputs, targets = batch
    return F.cross_entropy(model(inputs), targets, reduction="none", label_smoothing=regularization.label_smoothing)


def weight_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: the penalty is on weights alone, not on biases and scales."""
    trainable = [value for value in model.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in trainable if value.dim() > 1], "weight_decay": weight_decay},
        {"params": [value for value in trainable if value.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
