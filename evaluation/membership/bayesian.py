"""One reference model and the uncertainty of its last layer (Liu, Jiang, Zhou, Wei 2025, "Efficient Membership Inference
Attacks by Bayesian Neural Network", at ICML 2026 as "How Does Bayesian Sampling Help Membership Inference Attacks?"; BMIA).

A Laplace approximation turns the last layer of one reference model into a Gaussian over its weights, W ~ N(Ŵ, P⁻¹), so that
M draws of it say what M reference models would: the distribution of a non-member's signal. The target's signal φ₀ is held
against the draws' mean and standard deviation s by a one-sided t-test, and the score is its statistic,

    t = (φ₀ − mean φ) / (s √(1 + 1/M)),

which is in the order of 1 − p of the test and does not round to 1. With features h (bias included) and logits Wh,
P ≈ n A ⊗ G + λI, with A the mean of hhᵀ and G the mean of the loss' second derivative in the logits (Kronecker factors; of
softmax diag(p) − ppᵀ). λ has the highest evidence of a grid. The logits of x are Gaussian with covariance

    Σ(x) = U diag(Σ_j (v_j·h)² / (n a_j g_k + λ)) Uᵀ,        a, V and g, U the eigenpairs of A and G,

from which each example's logits are drawn by themselves; draws of all of W would give the same distribution of each.

The paper's are the last layer, its Kronecker factors, λ by evidence, and the test. Two things differ:

* The signal is the rescaled logit, as everywhere here, not the margin over the next class.
* The paper's reference model is trained on other data. One of a fleet had seen some of the examples, and says of them what
  a member's model says. Taking an example out of the layer by a Newton step, which is exact for least squares, makes the
  attack weaker and is not done.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack, NotApplicable
from evaluation.membership.signal import NO_CLASSES, log_likelihood, log_softmax, outputs_of, residual_scale, signal
from evaluation.target import Target, kind_of

PRECISIONS = 10.0 ** np.arange(-4.0, 5.0, 0.5)
"""λ is chosen from these."""
DRAWS = 128
"""M: draws of the logits from which the signal's mean and variance are taken."""
CHUNK = 4096


class LastLayerBayes(MembershipAttack):
    """The target's signal against what the uncertainty of one reference model allows."""

    access = Access.SCORES
    paper = "Liu et al. 2025"
    needs = frozenset({"fleet", "weights"})

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        knowledge.check(self.needs)
        if kind_of(examples.targets) == "language":
            raise NotApplicable(NO_CLASSES["language"])
        fleet = knowledge.models()
        features, logits, weight = last_layer(fleet.model(0), examples.inputs)
        had = fleet.membership[0, examples.indices]
        if had.sum() < 2:
            raise NotApplicable("the reference model had seen none of the examples, so that its last layer cannot be judged")
        layer = Laplace.fit(features[had], logits[had], weight, examples.targets[torch.from_numpy(had)])
        values, vectors = np.linalg.eigh(layer.covariance(features))
        root = vectors * np.sqrt(np.clip(values, 0, None))[:, None]
        generator = np.random.default_rng(0)
        drawn = np.stack([_draw(logits, root, generator, examples.targets) for _ in range(DRAWS)])
        observed = signal(outputs_of(target, examples.inputs, examples.targets), examples.targets)
        spread = np.maximum(drawn.std(0, ddof=1), 1e-12)
        return (observed - drawn.mean(0)) / (spread * np.sqrt(1 + 1 / DRAWS))


def _draw(mean: np.ndarray, root: np.ndarray, generator: np.random.Generator, targets: Tensor) -> np.ndarray:
    return signal(mean + np.einsum("nij,nj->ni", root, generator.standard_normal(mean.shape)), targets)


def last_layer(
    model: nn.Module, inputs: Tensor
) -> tuple[Float[np.ndarray, "examples given"], Float[np.ndarray, "examples outputs"], Float[np.ndarray, "outputs given"]]:
    """Inputs (with a 1 for the bias), outputs and weights of the linear layer that a model ends with.

    Raises:
        NotApplicable: it does not end with one.
    """
    linear = next((module for module in reversed(list(model.modules())) if isinstance(module, nn.Linear)), None)
    if linear is None:
        raise NotApplicable("it needs a model that ends with a linear layer, and this one has none")
    seen: list[Tensor] = []
    handle = linear.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    with torch.no_grad():
        outputs = torch.cat([model(inputs[start : start + CHUNK]) for start in range(0, len(inputs), CHUNK)])
        handle.remove()
        features = torch.cat(seen)
        if features.dim() != 2 or not torch.equal(linear(features), outputs):
            raise NotApplicable("it needs a model that ends with a linear layer, and this one goes on after its last")
    weight = linear.weight.detach()
    if linear.bias is not None:
        features = torch.cat([features, torch.ones(len(features), 1)], dim=1)
        weight = torch.cat([weight, linear.bias.detach()[:, None]], dim=1)
    return features.double().numpy(), outputs.double().numpy(), weight.double().numpy()


@dataclass(frozen=True, eq=False)
class Laplace:
    """A Gaussian over the weights of a linear layer, in the eigenbases of its Kronecker factors."""

    inner: Float[np.ndarray, "features features"]
    """V: eigenvectors of A."""
    outer: Float[np.ndarray, "outputs outputs"]
    """U: eigenvectors of G."""
    precision: Float[np.ndarray, "features outputs"]
    """n a_j g_k + λ."""
    scale: float
    """Of the residuals of values."""

    @classmethod
    def fit(cls, features: np.ndarray, logits: np.ndarray, weight: np.ndarray, targets: Tensor) -> "Laplace":
        """From the examples that the layer was trained on."""
        scale = residual_scale(logits, targets, np.ones(len(logits), dtype=bool))
        a, inner = np.linalg.eigh(features.T @ features / len(features))
        g, outer = np.linalg.eigh(_curvature(logits, targets, scale).mean(0))
        data = len(features) * np.clip(a, 0, None)[:, None] * np.clip(g, 0, None)[None]
        fit = float(log_likelihood(logits, targets, scale).sum())
        evidence = [
            fit - 0.5 * value * (weight**2).sum() + 0.5 * (np.log(value) - np.log(data + value)).sum() for value in PRECISIONS
        ]
        return cls(inner, outer, data + PRECISIONS[int(np.argmax(evidence))], scale)

    def covariance(self, features: Float[np.ndarray, "examples features"]) -> Float[np.ndarray, "examples outputs outputs"]:
        """Σ(x) of the logits."""
        spread = (features @ self.inner) ** 2 @ (1 / self.precision)
        return np.einsum("ik,nk,jk->nij", self.outer, spread, self.outer)


def _curvature(logits: np.ndarray, targets: Tensor, scale: float) -> Float[np.ndarray, "examples outputs outputs"]:
    """Second derivative of the loss in the logits."""
    if kind_of(targets) == "regression":
        return np.full((len(logits), 1, 1), 1 / scale**2)
    scores = np.exp(log_softmax(logits))
    return np.eye(logits.shape[1]) * scores[:, None] - scores[:, :, None] * scores[:, None]
