"""Robust membership inference (Zarifzadeh, Liu, Shokri 2024, "Low-Cost High-Power Membership Inference Attacks").

    ratio(x) = p(x | target) / p(x),        LR(x, z) = ratio(x) / ratio(z),
    score(x) = share of the population z with LR(x, z) ≥ 1

p(x | model) is the model's probability of the example's label, and p(x) its mean over reference models:

* online: the mean of the mean over models with x and the mean over models without it
* offline: only models without x are used, and p(x) = ½ ((1 + a) p_out(x) + 1 − a), since models with x would say more

The offline a is found on shadow models in the role of the target, whose members are known: of 0, 0.1, …, 1 the one with the
highest mean AUC. Nothing of the target is used for it.

For one target the score grows with ratio(x) alone; the population makes it a share that means the same for every target.
Examples of the same share would tie, those above the whole population among them, so ties are broken by the ratio.
"""

from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import logsumexp

from dptrain.errors import UserError
from evaluation.access import Access
from evaluation.membership import Knowledge, LabelledExamples, MembershipAttack
from evaluation.membership.reference import completed
from evaluation.membership.signal import log_likelihood, outputs_of, residual_scale
from evaluation.metrics import area_under_roc
from evaluation.target import Target

CORRECTIONS = tuple(np.linspace(0, 1, 11))
"""Values that the offline a is chosen from."""
MOST_TRIED = 8
"""Shadow models that take the role of the target while a is chosen."""


class Rmia(MembershipAttack):
    """Online: reference models with and without each example."""

    access = Access.SCORES
    paper = "Zarifzadeh et al. 2024"
    needs = frozenset({"fleet", "population"})
    offline: ClassVar[bool] = False

    def run(self, target: Target, examples: LabelledExamples, knowledge: Knowledge) -> np.ndarray:
        fleet, others = knowledge.models(), knowledge.held_out()
        references, unseen = fleet.logits[:, examples.indices], ~fleet.membership[:, examples.indices]
        scale = residual_scale(references, examples.targets, unseen)
        parts = (examples, others)
        observed = np.concatenate([log_likelihood(outputs_of(target, p.inputs), p.targets, scale) for p in parts])
        references = np.concatenate([log_likelihood(fleet.logits[:, p.indices], p.targets, scale) for p in parts], 1)
        inside = np.concatenate([fleet.membership[:, p.indices] for p in parts], 1)
        count = len(examples.indices)
        if self.offline:
            marginal = offline(references, inside, correction(references[:, :count], inside[:, :count]))
        else:
            marginal = online(references, inside)
        ratios = observed - marginal
        return self.score(ratios[:count], ratios[count:])

    def score(
        self, ratios: Float[np.ndarray, " examples"], population: Float[np.ndarray, " population"]
    ) -> Float[np.ndarray, " examples"]:
        """What the log-ratios of the examples say beside those of the population."""
        return share_above(ratios, population)


class OfflineRmia(Rmia):
    """Offline: reference models without the example alone, from one on."""

    offline = True


def online(
    references: Float[np.ndarray, "models examples"], inside: Bool[np.ndarray, "models examples"]
) -> Float[np.ndarray, " examples"]:
    """log p(x): half the models with x, half those without. Of an example that no model had, such as one of the population,
    those with it are the others moved by the mean gap."""
    groups = completed(_log_mean(references, inside), _log_mean(references, ~inside))
    return np.logaddexp(groups.inside, groups.outside) - np.log(2)


def offline(
    references: Float[np.ndarray, "models examples"], inside: Bool[np.ndarray, "models examples"], a: float
) -> Float[np.ndarray, " examples"]:
    """log p(x) from models without x alone; where every model had x, from all of them."""
    used = ~inside | inside.all(0)
    without = _log_mean(references, used)
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log((1 + a) / 2) + without, np.log((1 - a) / 2))


def _log_mean(
    references: Float[np.ndarray, "models examples"], chosen: Bool[np.ndarray, "models examples"]
) -> Float[np.ndarray, " examples"]:
    """Logarithm of the chosen models' mean likelihood; NaN where none is chosen."""
    count = chosen.sum(0)
    total = logsumexp(np.where(chosen, references, -np.inf), axis=0)
    return np.where(count > 0, total - np.log(np.maximum(count, 1)), np.nan)


def correction(references: Float[np.ndarray, "models examples"], inside: Bool[np.ndarray, "models examples"]) -> float:
    """The offline a with which shadow models in the role of the target are attacked best.

    Raises:
        UserError: fewer than two models, so that none can take that role.
    """
    if len(references) < 2:
        raise UserError("offline RMIA needs two shadow models to choose its correction; raise evaluation.shadow_models")
    areas = np.zeros(len(CORRECTIONS))
    for number in range(min(MOST_TRIED, len(references))):
        others = np.arange(len(references)) != number
        for place, a in enumerate(CORRECTIONS):
            ratio = references[number] - offline(references[others], inside[others], a)
            areas[place] += area_under_roc(ratio, inside[number]).value or 0.0
    return float(CORRECTIONS[int(areas.argmax())])


def share_above(
    ratios: Float[np.ndarray, " examples"], population: Float[np.ndarray, " population"]
) -> Float[np.ndarray, " examples"]:
    """Share of the population with a log-ratio of at most the example's; equal shares in the order of the ratio."""
    share = np.searchsorted(np.sort(population), ratios, side="right") / len(population)
    order = (1 + ratios / (1 + np.abs(ratios))) / 2  # grows with the ratio, between 0 and 1
    return share + order / (len(population) + 1)
