"""Report noisy max: of each query one class, drawn so that the answers themselves have an ε.

With scores s_c of C classes, none of which one training example changes by more than Δ, what is shown is

    argmax over c of  s_c + (2 Δ / ε) G_c,       G_c standard Gumbel, which is c with probability ∝ exp(ε s_c / (2 Δ))

the exponential mechanism (McSherry, Talwar 2007, "Mechanism Design via Differential Privacy"), (ε, 0)-differentially private
for each answer. Δ is 1 for a softmax of which nothing is known, so that ε has to be large before the answer is of use: a score
of 1 among zeros is drawn with odds of exp(ε/2) against each other class. Vote shares of an ensemble of disjoint teachers
(:mod:`dptrain.release.teachers`) have Δ = 1/teachers, and the same ε draws exp(ε · teachers / 2).

The noise comes from a secret key and the input. A query that is asked again gets the same answer and costs nothing; every other
one costs ε, one that differs in its last bit like any. So does the same query before another release or behind another text of
a guard, whose keys are others (:meth:`~dptrain.release.guard.Owner.key_of`). An input for which the model gives no numbers is
answered like one of even scores, since a refusal would tell of it without noise.

**What T distinct answers cost**, whoever asks for them and however each depends on those before, is the smallest of three upper
bounds:

* T ε (δ = 0)
* the composition of T mechanisms of pure ε by their privacy loss distribution (Kairouz, Oh, Viswanath 2015, "The Composition
  Theorem for Differential Privacy"; computed by ``dp_accounting.pld`` on a grid of width ε, on which all losses lie)
* ρ = T ε²/8 of zero-concentrated privacy, since the exponential mechanism's losses lie within a range of ε (Cesar, Rogers 2021,
  "Bounding, Concentrating, and Truncating"), turned into (ε, δ)

The guard answers whatever it is asked: how many distinct queries may be answered in all is for whoever keeps an account over
restarts to limit. The account takes the key to be secret and the draws to be as good as random; numbers of finite precision
(uniform ones of 52 bits) are not in it. What is published beside the answers, such as the model's weights, it does not cover.
"""

import math
from dataclasses import dataclass

import numpy as np
from dp_accounting.pld.common import DifferentialPrivacyParameters
from dp_accounting.pld.privacy_loss_distribution import from_privacy_parameters
from dp_accounting.rdp import compute_epsilon
from torch import Tensor

from dptrain.errors import ConfigError
from dptrain.release.guard import Answers, Guard, Owner, draws
from dptrain.rounding import up

ORDERS = tuple(1 + 10 ** (power / 20) for power in range(-60, 101))
"""Of Rényi divergences, from 1.001 to 100,001."""
STATED = (1, 100, 10_000)
"""Numbers of answers whose cost is stated."""
STATED_DELTA = 1e-5
LARGEST = 700.0
"""ε of one answer whose privacy loss distribution is computed: exp(ε) is a number up to 709."""


@dataclass(frozen=True)
class NoisyMax(Guard):
    """One class, by report noisy max."""

    epsilon: float
    """Of each answer."""
    sensitivity: float
    """Δ."""
    key: bytes
    """Of this guard before this model alone, as :func:`~dptrain.release.guard.fitted` makes it."""

    answers_all = True

    @classmethod
    def fit(cls, number: float | None, owner: Owner) -> "NoisyMax":
        if number is None:
            raise ConfigError("noisy_max has no ε; glue it to the name, such as noisy_max8")
        return cls(number, owner.sensitivity, owner.key)

    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        classes = answers.scores.shape[1]
        gumbel = -np.log(-np.log(draws(inputs, self.key, "noisy_max", classes)))
        noised = answers.scores + 2 * self.sensitivity / self.epsilon * gumbel
        return Answers.ranked(noised.argmax(1)[:, None], classes, "label")

    def spent(self, answers: int, delta: float) -> float:
        """ε that holds, at this δ, of so many answers to distinct queries."""
        return spent(self.epsilon, answers, delta)

    @classmethod
    def says(cls, number: float | None) -> str:
        return _says(math.nan if number is None else number, 1.0)

    def statement(self) -> str:
        return _says(self.epsilon, self.sensitivity)


def _says(epsilon: float, sensitivity: float) -> str:
    costs = ", ".join(f"{count:,} cost {up(spent(epsilon, count, STATED_DELTA), 3, grouped=',')}" for count in STATED)
    return (
        f"One class is shown, drawn by report noisy max: each answer has ε = {epsilon:g} for any one training example that "
        f"changes no score by more than {sensitivity:g}. Distinct queries add up: {costs} (ε at δ = {STATED_DELTA:g}); a "
        "repeated query costs nothing. That holds of the answers alone and as long as the key is secret. How many are answered "
        "is not limited here, and without a limit this is no privacy guarantee."
    )


def spent(epsilon: float, answers: int, delta: float) -> float:
    """ε of so many mechanisms, each of this ε by the exponential mechanism."""
    if answers <= 0:
        return 0.0
    summed = answers * epsilon
    if delta <= 0 or answers == 1:
        return summed
    concentrated = compute_epsilon(ORDERS, [answers * epsilon**2 / 8 * order for order in ORDERS], delta)[0]
    bounds = [summed, concentrated] if epsilon > LARGEST else [summed, concentrated, composed(epsilon, answers, delta)]
    return float(min(bounds))


def composed(epsilon: float, answers: int, delta: float) -> float:
    """By the privacy loss distribution of any mechanisms of pure ε."""
    one = from_privacy_parameters(DifferentialPrivacyParameters(epsilon, 0.0), value_discretization_interval=epsilon)
    return float(one.self_compose(answers).get_epsilon_for_delta(delta))
