"""Reconstructions of one unknown example into figures: how near, beside what someone without the model has.

    judged = judge_unknown(found, secrets, side, plan=plan, bounds=data.bounds)
    print(judged.text)

Each secret is one of n, which were trained on one model each, and of each there is a reconstruction. Held against it stand

* the mean of the side examples, which is what someone says who sees no model
* the side example that is nearest to the secret: no one without the model finds it but by luck. A reconstruction that is nearer
  than this oracle shows something of the secret that no known example does (Balle, Cherubin, Hayes 2022, "Reconstructing
  Training Data with Informed Adversaries", take the distance to the nearest neighbour as the mark of success).

1,400 digits of MNIST at 14 × 14 pixels, 300 of them known, 200 secrets; 40 full-batch steps at clipping norm 0.1, δ = 1e-4:

    ============================  ======================  =================  ====================
    model, ε                      mean squared error      SSIM               nearer than any side
    ============================  ======================  =================  ====================
    mean side example             .053                    .16                .015
    nearest side example          .025                    .77                0
    softmax regression, no noise  .019                    .76                .82
    10 hidden units, no noise     .017                    .80                .91
    10 hidden units, ε = 100      .049                    .28                .01
    10 hidden units, ε = 8 or 1   .053                    .16                .015
    ============================  ======================  =================  ====================

(``tests/evaluation/test_final_model.py``, slow; without noise there is no clipping either.)

**Named.** Where all n secrets are equally likely beforehand, the one that is nearest to the reconstruction is a guess, right
once in n times without the model. That is a prior for which the reconstruction robustness bound is defined, at κ = 1/n
(:mod:`~evaluation.inversion.bound`).

For being nearer than any side example no such κ is known: it would be the chance of the best of all constant answers.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dptrain.plan import PrivacyPlan
from evaluation.inversion.bound import reconstruction_bound
from evaluation.metrics import mean, proportion
from evaluation.result import Measure
from evaluation.similarity import WINDOW, structural_similarity


@dataclass(frozen=True, kw_only=True)
class Unknowns:
    """How near the reconstructions of n secrets come."""

    secrets: int
    named: Measure
    """Share of secrets that are the nearest of all secrets to their own reconstruction."""
    nearer: Measure
    """Share of secrets to which the reconstruction is nearer than any side example."""
    nearer_by_mean: Measure
    """The same of the mean side example, without the model."""
    errors: tuple[Measure, Measure, Measure]
    """Mean squared error of the reconstruction, of the mean side example, and of the side example nearest to the secret."""
    similarities: tuple[Measure, ...]
    """SSIM of the same three; none where the inputs are no images of the window's size."""
    permitted_named: float
    """The most that the plan permits; 1 without a guarantee."""

    @property
    def chance(self) -> float:
        """Of naming a secret without the model."""
        return 1 / self.secrets

    @property
    def text(self) -> str:
        found, middle, nearest = (measure.value for measure in self.errors)
        alike = ""
        if self.similarities:
            values = [f"{measure.value:.2f}" for measure in self.similarities]
            alike = f" SSIM {values[0]}, {values[1]} and {values[2]}."
        return (
            f"Mean squared error {found:.4f}; of the mean side example {middle:.4f}, of the side example nearest to the secret "
            f"{nearest:.4f}.{alike} Nearer than any side example: {self.nearer.value:.1%} ({self.nearer.low:.1%} to "
            f"{self.nearer.high:.1%}) of {self.secrets} secrets, the mean side example {self.nearer_by_mean.value:.1%}. Named "
            f"among the secrets: {self.named.value:.1%} ({self.named.low:.1%} to {self.named.high:.1%}), at most "
            f"{self.permitted_named:.1%} by the plan; {self.chance:.1%} without the model."
        )


def judge_unknown(
    found: Float[Tensor, "secrets ..."],
    secrets: Float[Tensor, "secrets ..."],
    side: Float[Tensor, "side ..."],
    *,
    plan: PrivacyPlan | None = None,
    bounds: tuple[float, float] | None = None,
) -> Unknowns:
    """Reconstructions into figures.

    Args:
        found: one a secret, each from a model that was trained on it, in the order of the secrets.
        side: all examples that the adversary had, the known ones among them.
        plan: of those models.
        bounds: of a pixel; without them SSIM is not measured.
    """
    count, features = len(secrets), secrets[0].numel()
    apart = torch.cdist(secrets.flatten(1).double(), side.flatten(1).double())
    distance, nearest = apart.min(1)
    own, middle = ((made - secrets).flatten(1).double().norm(dim=1) for made in (found, side.mean(0)))
    others = torch.cdist(found.flatten(1).double(), secrets.flatten(1).double())
    three = {"reconstruction": found, "mean_example": side.mean(0).expand_as(secrets), "nearest_example": side[nearest]}
    errors = tuple(
        mean(((made - secrets).flatten(1).double().norm(dim=1).square() / features).numpy(), f"error_of_{name}")
        for name, made in three.items()
    )
    return Unknowns(
        secrets=count,
        named=proportion(int((others.argmin(1) == torch.arange(count)).sum()), count, "named"),
        nearer=proportion(int((own < distance).sum()), count, "nearer_than_known"),
        nearer_by_mean=proportion(int((middle < distance).sum()), count, "nearer_by_mean_example"),
        errors=(errors[0], errors[1], errors[2]),
        similarities=_similarities(three, secrets, bounds),
        permitted_named=reconstruction_bound(plan, 1 / count) if plan is not None and plan.is_private else 1.0,
    )


def named_by(found: Float[Tensor, "secrets ..."], secrets: Float[Tensor, "secrets ..."], shift: int, name: str) -> Measure:
    """Share of reconstructions that are nearest to the secret ``shift`` further on: with any shift but 0, by luck alone."""
    others = torch.cdist(found.flatten(1).double(), secrets.flatten(1).double()).argmin(1).numpy()
    count = len(secrets)
    return proportion(int((others == (np.arange(count) + shift) % count).sum()), count, name)


def _similarities(made: dict[str, Tensor], secrets: Tensor, bounds: tuple[float, float] | None) -> tuple[Measure, ...]:
    if bounds is None or secrets.ndim != 4 or min(secrets.shape[2:]) < WINDOW or not all(map(math.isfinite, bounds)):
        return ()
    low, high = bounds
    return tuple(
        mean(structural_similarity(own - low, secrets - low, value_range=high - low).numpy(), f"ssim_of_{name}")
        for name, own in made.items()
    )
