"""Links from the weights: a graph under which the model gives the labels that it gives.

Zhang, Liu, Huang, Wang, Lu, Liu, Chen 2021, "GraphMI: Extracting Private Graph Data from Graph Neural Networks". The attacker
holds the weights, the features of all nodes and their labels (here those that the model gives), and looks for a symmetric
matrix A ∈ [0, 1]ⁿˣⁿ without self-loops that makes

    CE(model(X, A), labels) + (α/n) Σ a_uv (1 − cos(x_u, x_v)) + (β/n) Σ a_uv

small, sums over unordered pairs: the labels, smooth features, few edges. The middle term is the paper's tr(Xᵀ L X) for
features of length 1, up to a factor. It is minimised by projected gradient steps in their lazy form (dual averaging; Nesterov
2009, "Primal-dual subgradient methods for convex problems"): what is kept is the sum of all steps, and A is its projection on
[0, 1]. By plain projection nearly all pairs end at exactly 0, where they are tied; the lazy sum orders them too, and the score
of a pair is its entry. The paper's two further stages are left out: an autoencoder that
smooths the result, and the drawing of single graphs by the relaxed values, which an order of all pairs does not need.

On a large graph the attack is made on a random part of its nodes, as if there were no others.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from dptrain.errors import UserError
from evaluation.access import Access, AccessError
from evaluation.graph import GraphTarget, LinkAttack, LinkKnowledge
from evaluation.graph.features import FeatureCosine
from evaluation.graph.pairs import Coverage, PairScores, Table
from evaluation.membership import NotApplicable

MOST_NODES = 3000
"""The matrix holds their square."""
STEPS = 40
NEIGHBOURS = 3.0
"""That a node has at the start, spread evenly over all others. Without any the model is one without a graph, and the first
step is far too long."""
SMOOTHNESS = 0.1
"""α."""
SPARSITY = 0.01
"""β."""


class Optimised(LinkAttack):
    """A graph that explains the labels, found through the weights."""

    access: ClassVar[Access] = Access.WEIGHTS
    paper: ClassVar[str] = "Zhang et al. 2021"

    def run(self, target: GraphTarget, knowledge: LinkKnowledge, generator: np.random.Generator) -> PairScores:
        part = np.sort(generator.permutation(knowledge.nodes)[:MOST_NODES])
        index, count = torch.from_numpy(part), len(part)
        features = knowledge.features[index]
        labels = torch.from_numpy(np.asarray(target.labels(knowledge.inputs[index])))
        everyone = np.arange(count)
        cosines = FeatureCosine.of_features(features, Coverage.among(everyone >= 0)).block(everyone, everyone)
        pull = SMOOTHNESS * (1 - torch.from_numpy(cosines)) + SPARSITY
        start = NEIGHBOURS / count
        reached = torch.full((count, count), start)
        for _ in range(STEPS):
            adjacency = reached.clamp(0, 1).fill_diagonal_(0).requires_grad_(True)
            loss = nn.functional.cross_entropy(_over(target, features, adjacency), labels)
            (gradient,) = torch.autograd.grad(loss, adjacency)
            reached = reached - start * ((gradient + gradient.T) * (count / 2) + pull)
        is_part = np.zeros(knowledge.nodes, dtype=bool)
        is_part[part] = True
        scores = np.zeros((count, knowledge.nodes), dtype=np.float32)
        scores[:, part] = reached.numpy()
        return Table(Coverage.among(is_part), scores)


def _over(target: GraphTarget, features: Tensor, adjacency: Tensor) -> Tensor:
    """Logits over this adjacency.

    Raises:
        NotApplicable: the model reads no adjacency.
    """
    try:
        return target.on_adjacency(features, adjacency)
    except AccessError:
        raise
    except UserError as reason:
        raise NotApplicable(f"it puts an adjacency into the model: {reason}") from None
