"""The ratio form of RMIA (Tao, Shokri 2025, "(Token-Level) InfoRMIA: Stronger Membership Inference and Memorization
Assessment for LLMs"; at ICLR 2026 as "Information-Theoretic Membership Inference for Granular Quantification of
Memorization").

RMIA counts the population that an example dominates; InfoRMIA averages by how much, in nats here and bits there:

    score(x) = E_z log LR(x, z) = log p(x | target) / p(x) + D(p(z) ‖ p(z | target)),     LR as in RMIA

The first term is what the target knows of x beyond what models know anyway. The second is the divergence of what models
know of the population from what the target knows of it, −E_z log p(z | target) / p(z), whose estimate is the mean over the
population at hand. The score has no ties, whatever the number of population examples.

The paper's are the statistic and its two terms. p(x), online and offline, and the offline correction are RMIA's as in
:mod:`~evaluation.membership.rmia`; the paper's second part, scores of the tokens of a text, is not here.

For one target the second term is one number, and ``rmia`` breaks its ties by the first: both put examples in the same order
and have the same ROC. (The paper reports InfoRMIA above RMIA; a count alone says nothing within its ties.) The two differ in
what a score means over several targets: the mean over the population is moved by its few hardest examples, and with it all
scores of a target, where a share is not. So under one threshold for several targets RMIA is to be preferred.
"""

import numpy as np
from jaxtyping import Float

from evaluation.membership.rmia import Rmia


class InfoRmia(Rmia):
    """Online: reference models with and without each example."""

    paper = "Tao & Shokri 2025"

    def score(
        self, ratios: Float[np.ndarray, " examples"], population: Float[np.ndarray, " population"]
    ) -> Float[np.ndarray, " examples"]:
        """The mean log-ratio of an example to the population, in nats."""
        return ratios - population.mean()


class OfflineInfoRmia(InfoRmia):
    """Offline: reference models without the example alone, from one on."""

    offline = True
