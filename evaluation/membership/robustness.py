"""Labels alone: how often an altered example keeps its label (Choquette-Choo, Tramèr, Carlini, Papernot 2021, "Label-Only
Membership Inference Attacks").

* :class:`NoiseRobustness`: Gaussian noise of several sizes, as a share of the input's range (of its standard deviation in
  the examples where there is no public range)
* :class:`ShiftRobustness`: pictures moved by one or two pixels, edges repeated

The score is the share of answers that are the true label, the unaltered example's among them, which alone is the attack of
Yeom et al. 2018 that calls an example a member where it is classified correctly. The paper tunes the noise on shadow models;
here the sizes are spread over a range and averaged, so that there is nothing to tune. Queries an example: 1 + 6 × 16 for
noise, 25 for shifts.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dptrain.augmentation import moves
from dptrain.fleet.views import moved
from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack, NotApplicable
from evaluation.membership.signal import require_classes, require_numbers
from evaluation.target import Target

NOISE = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
COPIES = 16


class NoiseRobustness(MembershipAttack):
    """The more noise the label stands, the more a member."""

    access = Access.LABEL
    paper = "Choquette-Choo et al. 2021"

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        require_numbers(examples.inputs)
        return share_right(target, examples, self._altered(examples.inputs, target.bounds))

    def _altered(self, inputs: Tensor, bounds: tuple[float, float]) -> Iterator[Tensor]:
        low, high = bounds
        size = high - low if np.isfinite(high - low) else float(inputs.std())
        generator = torch.Generator().manual_seed(0)
        for share in NOISE:
            for _ in range(COPIES):
                yield (inputs + share * size * torch.randn(inputs.shape, generator=generator)).clamp(low, high)


class ShiftRobustness(MembershipAttack):
    """The more shifts the label stands, the more a member."""

    access = Access.LABEL
    paper = "Choquette-Choo et al. 2021"

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        if examples.inputs.dim() != 4:
            raise NotApplicable("it needs pictures [examples, channels, height, width], which can be shifted")
        return share_right(target, examples, (moved(examples.inputs, move) for move in moves("shift")[1:]))


def share_right(target: Target, examples: LabelledExamples, altered: Iterator[Tensor]) -> np.ndarray:
    """Share of the answers, on the examples and on their altered copies, that are the true label."""
    require_classes(examples.targets)
    truth = examples.targets.numpy()
    right, asked = (target.labels(examples.inputs) == truth).astype(float), 1
    for inputs in altered:
        right += target.labels(inputs) == truth
        asked += 1
    return right / asked
