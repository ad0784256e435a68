"""Repeated queries: each example asked many times, so that what a guard draws at random is averaged away.

A guard draws from a key and the input: the same query gets the same answer, and asking it again tells nothing new. A copy of
the example that differs from it by less than the model can tell is another input with another draw. The score is the mean
signal over the copies, less what models without the example answer:

    score(x) = mean over copies of [φ(x + ε)] − mean over shadow models without x of [φ(x)],      ε ~ N(0, (size · range)²)

with φ cut to ±:data:`LIMIT` nats, so that a class that is not shown weighs as much as a label can. This is the calibrated loss
of Watson, Guo, Cormode, Sablayrolles 2022, "On the Importance of Difficulty Calibration in Membership Inference Attacks", with
an average in the place of one answer. That averages undo noise which is drawn anew for each answer is why PATE counts its
queries (Papernot, Song, Mironov, Raghunathan, Talwar, Erlingsson 2018, "Scalable Private Learning with PATE").
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float

from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack, Need
from evaluation.membership.reference import group_means
from evaluation.membership.signal import outputs_of, require_classes, require_numbers, signal
from evaluation.target import Target

LIMIT = 15.0
"""Of a signal, in nats: odds of three million to one."""


@dataclass(frozen=True)
class RepeatedQueries(MembershipAttack):
    """The mean answer to near-identical copies, against models without the example."""

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "after Watson et al. 2022"
    needs: ClassVar[frozenset[Need]] = frozenset({"fleet"})

    copies: int = 32
    """Queries an example, the example itself among them."""
    size: float = 1e-3
    """Of the difference between copies, in units of the input's range, or of its standard deviation where there is none."""

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        require_classes(examples.targets)
        require_numbers(examples.inputs)
        fleet = knowledge.models()
        shown = _cut(signal(fleet.logits[:, examples.indices], examples.targets))
        without = group_means(shown, fleet.membership[:, examples.indices]).outside
        return self.mean_signal(target, examples) - without

    def mean_signal(self, target: Target, examples: LabelledExamples) -> Float[np.ndarray, " examples"]:
        """Over the copies, in nats."""
        low, high = target.bounds
        size = self.size * (high - low if np.isfinite(high - low) else float(examples.inputs.std()))
        generator = torch.Generator().manual_seed(0)
        total = np.zeros(len(examples.targets))
        for number in range(self.copies):
            noise = torch.randn(examples.inputs.shape, generator=generator) if number else torch.zeros(())
            copies = (examples.inputs + size * noise).clamp(low, high).to(examples.inputs.dtype)
            total += _cut(signal(outputs_of(target, copies, examples.targets), examples.targets))
        return total / self.copies


def _cut(signals: Float[np.ndarray, "*lead examples"]) -> Float[np.ndarray, "*lead examples"]:
    return np.clip(signals, -LIMIT, LIMIT)
