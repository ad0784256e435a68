"""Attribute inference through the model's form: one derivative a person in place of one query a value.

    posterior = FirstOrder().run(target, knowledge, people, generator)

Wu, Fredrikson, Jha, Naughton 2016, "A Methodology for Formalizing Model-Inversion Attacks", measure how much an attribute gives
itself away by its *influence*, how far the output moves with it. Here the output is taken to first order around the person's
known columns, with hidden and unknown ones at their means in the population:

    f(x) ≈ f(x̄) + g_h · (v − v̄) + g_u · (u − ū),        g = ∂f/∂x at x̄

With the Gaussian error model (mean m, deviation s), and the unknown columns' part g_u · u normal with variance g_uᵀ Σ_u g_u
(Σ_u their covariance in the population), the average over the unknown columns is in closed form:

    log P(y | x_K, v) = −½ (y − m − f(x̄) − g_h · (v − v̄))² / (s² + g_uᵀ Σ_u g_u) + constant

For a linear model the first order is the model: with nothing unknown, the posterior equals that of the black-box attack.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from evaluation.access import Access
from evaluation.inversion.attribute import normalised
from evaluation.inversion.attribute_knowledge import AttributeKnowledge, People
from evaluation.inversion.error_model import Gaussian
from evaluation.inversion.prior_of_columns import Independent, Prior
from evaluation.target import Kind, Target


@dataclass(frozen=True, kw_only=True)
class FirstOrder:
    """Of a regression: the posterior from the output and its derivative at one point a person."""

    access: ClassVar[Access] = Access.GRADIENTS
    paper: ClassVar[str] = "Wu et al. 2016"
    kinds: ClassVar[tuple[Kind, ...]] = ("regression",)

    prior: Prior = field(default_factory=Independent)
    error: Gaussian = field(default_factory=Gaussian)

    def run(
        self, target: Target, knowledge: AttributeKnowledge, people: People, generator: np.random.Generator
    ) -> Float[np.ndarray, "people values"]:
        error = self.error.fit(target, knowledge)
        layout, population = knowledge.layout, knowledge.population.double().numpy()
        centre, hidden = people.inputs.clone(), layout.place(knowledge.hidden)
        for name in (knowledge.hidden, *knowledge.unknown):
            centre = layout.put(centre, name, population[:, layout.place(name)].mean(0))
        gradient, output = target.gradient(centre, _only_output)
        slopes = gradient.double().numpy()
        left_over = people.targets.double().numpy() - error.mean - output.double().numpy()
        moves = layout.values(knowledge.hidden) - population[:, hidden].mean(0)
        variance = error.deviation**2 + _spread(slopes, knowledge)
        apart = left_over[:, None] - slopes[:, hidden] @ moves.T
        return normalised(np.log(self.prior.fit(knowledge).of_hidden(people.inputs)) - 0.5 * apart**2 / variance[:, None])


def _only_output(outputs: Tensor) -> Tensor:
    return outputs.reshape(len(outputs), -1)[:, 0]


def _spread(slopes: np.ndarray, knowledge: AttributeKnowledge) -> Float[np.ndarray, " people"]:
    """Variance of the unknown columns' part in each person's output."""
    places = [np.arange(knowledge.layout.width)[knowledge.layout.place(name)] for name in knowledge.unknown]
    if not places:
        return np.zeros(len(slopes))
    at = np.concatenate(places)
    covariance = np.atleast_2d(np.cov(knowledge.population[:, torch.from_numpy(at)].double().numpy(), rowvar=False))
    return np.einsum("pi,ij,pj->p", slopes[:, at], covariance, slopes[:, at])
