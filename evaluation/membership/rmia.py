"""Robust membership inference (Zarifzadeh, Liu, Shokri 2024, "Low-Cost High-Power Membership Inference Attacks").

    ratio(x) = p(x | target) / p(x),        LR(x, z) = ratio(x) / ratio(z),
    score(x) = share of the population z with LR(x, z) ≥ 1

p(x | model) is the model's probability of the example's label, and p(x) its mean over reference models:

* online: the mean of the mean over models with x and the mean over models without it
* offline: only models without x are used, and p(x) = ½ ((1 + a) p_out(x) + 1 − a), since models with x would say more

Behind the offline form is the relation p_in = a p_out + 1 − a. The offline a is found on shadow models in the role of the
target, whose members are known: of 0, 0.1, …, 1 the one with the highest mean AUC. Nothing of the target is used for it. One
model alone cannot be target and reference; there a is what the relation says of means over examples, E(1 − p_in) / E(1 − p_out)
of those that the model had and of those that it had not. Where few models leave an example with only one of the two means, the
other one follows from the relation as well.

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
from evaluation.membership.signal import LOWEST, log_likelihood, outputs_of, residual_scale
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
        observed = np.concatenate([log_likelihood(outputs_of(target, p.inputs, p.targets), p.targets, scale) for p in parts])
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
    """log p(x): half the models with x, half those without. Of an example that all models had, or none, such as one of the
    population, the missing half follows from the other one by the relation."""
    with_it, without = _log_mean(references, inside), _log_mean(references, ~inside)
    if np.isnan(with_it).any() or np.isnan(without).any():
        a = relation(references, inside)
        with_it = np.where(np.isnan(with_it), _inside_from(without, a), with_it)
        without = np.where(np.isnan(without), _outside_from(with_it, a), without)
    return np.logaddexp(with_it, without) - np.log(2)


def offline(
    references: Float[np.ndarray, "models examples"], inside: Bool[np.ndarray, "models examples"], a: float
) -> Float[np.ndarray, " examples"]:
    """log p(x) from models without x alone; where every model had x, from what these say by the relation."""
    without = _log_mean(references, ~inside)
    without = np.where(np.isnan(without), _outside_from(_log_mean(references, inside), a), without)
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log((1 + a) / 2) + without, np.log((1 - a) / 2))


def relation(references: Float[np.ndarray, "models examples"], inside: Bool[np.ndarray, "models examples"]) -> float:
    """a of p_in = a p_out + 1 − a by means over examples; between 0 (what was trained on is certain) and 1 (no difference).

    Raises:
        UserError: no model had any of the examples, or every model had all of them.
    """
    if inside.all() or not inside.any():
        raise UserError("the shadow models are too few to compare with and without; raise evaluation.shadow_models")
    missing = -np.expm1(references)
    return float(np.clip(missing[inside].mean() / max(missing[~inside].mean(), np.finfo(float).tiny), 0.0, 1.0))


def _inside_from(without: Float[np.ndarray, " examples"], a: float) -> Float[np.ndarray, " examples"]:
    """log p_in = log (a p_out + 1 − a); NaN of NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.logaddexp(np.log(a) + without, np.log(1 - a))


def _outside_from(with_it: Float[np.ndarray, " examples"], a: float) -> Float[np.ndarray, " examples"]:
    """log p_out = log (1 − (1 − p_in) / a), and the lowest that there is where p_in is below 1 − a."""
    missing = -np.expm1(with_it) / max(a, np.finfo(float).tiny)
    with np.errstate(divide="ignore"):
        return np.maximum(np.log1p(-np.minimum(missing, 1.0)), LOWEST)


def _log_mean(
    references: Float[np.ndarray, "models examples"], chosen: Bool[np.ndarray, "models examples"]
) -> Float[np.ndarray, " examples"]:
    """Logarithm of the chosen models' mean likelihood; NaN where none is chosen."""
    count = chosen.sum(0)
    total = logsumexp(np.where(chosen, references, -np.inf), axis=0)
    return np.where(count > 0, total - np.log(np.maximum(count, 1)), np.nan)


def correction(references: Float[np.ndarray, "models examples"], inside: Bool[np.ndarray, "models examples"]) -> float:
    """The offline a with which shadow models in the role of the target are attacked best; of one model, :func:`relation`'s."""
    if len(references) == 1:
        return relation(references, inside)
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
