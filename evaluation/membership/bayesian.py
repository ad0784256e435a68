"""One reference model and the uncertainty of its last layer (Liu, Jiang, Zhou, Wei 2025, "Efficient Membership Inference
Attacks by Bayesian Neural Network", BMIA).

A Laplace approximation turns the last layer of one reference model into a Gaussian over its weights, W ~ N(Ŵ, P⁻¹), so that
one model says what many reference models would: the distribution of a non-member's signal. The score is how many standard
deviations of it the target's signal lies above its mean.

With features h (bias included) and logits Wh, P ≈ n A ⊗ G + λI, with A the mean of hhᵀ and G the mean of the loss' second
derivative in the logits (Kronecker factors; of softmax diag(p) − ppᵀ). λ has the highest evidence of a grid. The logits of
x are Gaussian with covariance

    Σ(x) = U diag(Σ_j (v_j·h)² / (n a_j g_k + λ)) Uᵀ,        a, V and g, U the eigenpairs of A and G.

A reference model of a fleet had seen about half of the examples, and its answers on those are a member's. They are taken
out by one Newton step: with H = G at x and residual e = p − onehot(y), removing x gives

    Σ₋ = (Σ⁻¹ − H)⁻¹ = R (I − RᵀHR)⁻¹ Rᵀ with Σ = RRᵀ,        logits₋ = logits + Σ₋ e.

This step is not in the paper, whose reference model is trained on other data. It is exact for least squares; with Kronecker
factors an eigenvalue of RᵀHR, the example's share in what is known of its own logits, can pass 1, and is held at
``MOST_LEVERAGE``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack, NotApplicable
from evaluation.membership.signal import kind_of, log_likelihood, log_softmax, outputs_of, residual_scale, signal
from evaluation.target import Target

PRECISIONS = 10.0 ** np.arange(-4.0, 5.0, 0.5)
"""λ is chosen from these."""
DRAWS = 128
"""Draws of the logits from which the signal's mean and variance are taken."""
MOST_LEVERAGE = 0.9
CHUNK = 4096


class LastLayerBayes(MembershipAttack):
    """The target's signal against what the uncertainty of one reference model allows."""

    access = Access.SCORES
    paper = "Liu et al. 2025"
    needs = frozenset({"fleet", "weights"})

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        knowledge.check(self.needs)
        fleet = knowledge.models()
        features, logits, weight = last_layer(fleet.model(0), examples.inputs)
        had = fleet.membership[0, examples.indices]
        if had.sum() < 2:
            raise NotApplicable("the reference model had seen none of the examples, so that its last layer cannot be judged")
        layer = Laplace.fit(features[had], logits[had], weight, examples.targets[torch.from_numpy(had)])
        mean, covariance = layer.without_own(features, logits, examples.targets, had)
        generator = np.random.default_rng(0)
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.clip(values, 0, None))[:, None]
        drawn = np.stack([_draw(mean, root, generator, examples.targets) for _ in range(DRAWS)])
        observed = signal(outputs_of(target, examples.inputs), examples.targets)
        return (observed - drawn.mean(0)) / np.maximum(drawn.std(0), 1e-12)


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

    def without_own(
        self, features: np.ndarray, logits: np.ndarray, targets: Tensor, had: Bool[np.ndarray, " examples"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the logits; of the examples that it was trained on, as if it had not been."""
        mean, covariance = logits.copy(), self.covariance(features)
        own = np.flatnonzero(had)
        part = targets[torch.from_numpy(own)]
        values, vectors = np.linalg.eigh(covariance[own])
        root = vectors * np.sqrt(np.clip(values, 0, None))[:, None]  # Σ = R Rᵀ
        share, axes = np.linalg.eigh(root.swapaxes(1, 2) @ _curvature(logits[own], part, self.scale) @ root)
        turned = root @ axes
        kept = 1 - np.clip(share, 0, MOST_LEVERAGE)
        covariance[own] = (turned / kept[:, None]) @ turned.swapaxes(1, 2)
        mean[own] += np.einsum("nij,nj->ni", covariance[own], _slope(logits[own], part, self.scale))
        return mean, covariance


def _curvature(logits: np.ndarray, targets: Tensor, scale: float) -> Float[np.ndarray, "examples outputs outputs"]:
    """Second derivative of the loss in the logits."""
    if kind_of(targets) == "regression":
        return np.full((len(logits), 1, 1), 1 / scale**2)
    scores = np.exp(log_softmax(logits))
    return np.eye(logits.shape[1]) * scores[:, None] - scores[:, :, None] * scores[:, None]


def _slope(logits: np.ndarray, targets: Tensor, scale: float) -> Float[np.ndarray, "examples outputs"]:
    """First derivative of the loss in the logits."""
    if kind_of(targets) == "regression":
        return (logits - targets.double().numpy().reshape(-1, 1)) / scale**2
    return np.exp(log_softmax(logits)) - np.eye(logits.shape[1])[targets.numpy()]
