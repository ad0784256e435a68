"""A regression tree as a target, and what someone who sees its counts learns of a hidden column.

    target = Target(TreeModel(DecisionTreeRegressor().fit(rows, outcomes)), Access.WEIGHTS, ..., kind="regression")
    posterior = TreeCounts().run(target, knowledge, people, generator)

A fully grown tree keeps its training rows, one a leaf: the positive control of attribute inference, on which an attack must
find its members. The attack is the white-box one with counts of Fredrikson, Jha, Ristenpart 2015 ("Model Inversion Attacks that
Exploit Confidence Information and Basic Countermeasures"). The person with the value v comes to the leaf l(v), which holds n
of the N training examples and says the outcome m with deviation s:

    P(v | x_K, y)  ∝  P(v | x_K) · n(l(v)) / N · N(y; m(l(v)), s(l(v))²)

averaged over draws of the unknown columns. For a classification tree the paper has P(y | l) in place of the density.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import logsumexp
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor, nn

from evaluation.access import Access
from evaluation.inversion.attribute import DRAWS, normalised
from evaluation.inversion.attribute_knowledge import AttributeKnowledge, People
from evaluation.inversion.error_model import LEAST_DEVIATION
from evaluation.inversion.prior_of_columns import Independent, Prior
from evaluation.target import Kind, Target


class TreeModel(nn.Module):
    """A fitted scikit-learn regression tree as a module: ``[examples, inputs]`` to ``[examples, 1]``."""

    def __init__(self, fitted: DecisionTreeRegressor):
        super().__init__()
        tree = fitted.tree_
        self.depth = int(tree.max_depth)
        numbers = {"feature": tree.feature, "left": tree.children_left, "right": tree.children_right}
        for name, values in (numbers | {"counts": tree.n_node_samples}).items():
            self.register_buffer(name, torch.from_numpy(np.asarray(values, dtype=np.int64).copy()))
        for name, values in {"threshold": tree.threshold, "value": tree.value[:, 0, 0], "impurity": tree.impurity}.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(values, dtype=np.float64).copy()))

    def forward(self, inputs: Tensor) -> Tensor:
        tree = dict(self.named_buffers())
        return tree["value"][torch.from_numpy(leaves(tree, inputs))][:, None]


def leaves(tree: dict[str, Tensor], inputs: Float[Tensor, "examples inputs"]) -> Int[np.ndarray, " examples"]:
    """The leaf that each row comes to."""
    rows = inputs.float().double().numpy()
    feature, left, right = (tree[name].numpy() for name in ("feature", "left", "right"))
    threshold = tree["threshold"].numpy()
    at = np.zeros(len(rows), dtype=np.int64)
    while (inner := left[at] >= 0).any():
        goes_left = rows[np.arange(len(rows)), np.maximum(feature[at], 0)] <= threshold[at]
        at = np.where(inner, np.where(goes_left, left[at], right[at]), at)
    return at


@dataclass(frozen=True, kw_only=True)
class TreeCounts:
    """Through a tree's leaves: how many training examples each holds, and how far they were apart."""

    access: ClassVar[Access] = Access.WEIGHTS
    paper: ClassVar[str] = "Fredrikson et al. 2015"
    kinds: ClassVar[tuple[Kind, ...]] = ("regression",)

    prior: Prior = field(default_factory=Independent)
    draws: int = DRAWS

    def run(
        self, target: Target, knowledge: AttributeKnowledge, people: People, generator: np.random.Generator
    ) -> Float[np.ndarray, "people values"]:
        tree = target.weights()
        prior = self.prior.fit(knowledge)
        draws = knowledge.rounds(self.draws)
        truth = people.targets.double().numpy()
        columns = []
        for block in knowledge.layout.values(knowledge.hidden):
            filled = knowledge.layout.put(people.inputs, knowledge.hidden, block)
            logs = [_log_weight(tree, prior.fill(filled, generator), truth) for _ in range(draws)]
            columns.append(logsumexp(logs, axis=0) - np.log(draws))
        return normalised(np.log(prior.of_hidden(people.inputs)) + np.column_stack(columns))


def _log_weight(tree: dict[str, Tensor], inputs: Tensor, truth: np.ndarray) -> Float[np.ndarray, " people"]:
    at = leaves(tree, inputs)
    deviation = np.sqrt(np.maximum(tree["impurity"].numpy()[at], LEAST_DEVIATION**2))  # rounding leaves some below 0
    density = -0.5 * ((truth - tree["value"].numpy()[at]) / deviation) ** 2 - np.log(deviation)
    return np.log(tree["counts"].numpy()[at]) + density
