"""What models that had seen an example, and models that had not, say of it.

Every attack with shadow or reference models compares the target with these two groups. Where no model had an example (or
all had it), the missing mean is the other one, moved by the mean gap between the groups. With one model no example has both
means: then the gap is that between the mean of the examples which the model had and the mean of those which it had not. Coins
decided which are which, so the two are alike but for having been trained on.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from dptrain.errors import UserError


@dataclass(frozen=True, eq=False)
class Groups:
    """Means over models with and without each example."""

    inside: Float[np.ndarray, " examples"]
    outside: Float[np.ndarray, " examples"]


def group_means(values: Float[np.ndarray, "models examples"], membership: Bool[np.ndarray, "models examples"]) -> Groups:
    """Both means of each example; UserError as in :func:`completed`."""
    means = []
    for chosen in (membership, ~membership):
        count = chosen.sum(0)
        means.append(np.where(count > 0, np.where(chosen, values, 0.0).sum(0) / np.maximum(count, 1), np.nan))
    return completed(means[0], means[1])


def completed(inside: Float[np.ndarray, " examples"], outside: Float[np.ndarray, " examples"]) -> Groups:
    """Both means, where NaN stands for one that no model gives.

    Raises:
        UserError: no model had any of the examples, or every model had all of them, so that the gap is not known.
    """
    if np.isnan(inside).all() or np.isnan(outside).all():
        raise UserError("the shadow models are too few to compare with and without; raise evaluation.shadow_models")
    gaps = inside - outside
    gap = float(np.nanmean(inside) - np.nanmean(outside) if np.isnan(gaps).all() else np.nanmean(gaps))
    return Groups(np.where(np.isnan(inside), outside + gap, inside), np.where(np.isnan(outside), inside - gap, outside))


def variances(
    values: Float[np.ndarray, "models examples"],
    chosen: Bool[np.ndarray, "models examples"],
    mean: Float[np.ndarray, " examples"],
    own_from: int,
    least: int,
) -> Float[np.ndarray, " examples"]:
    """Of the chosen models around their mean: one for all examples, or each example's own where there are models enough.

    One model alone tells no variance, and 1 stands in its place: scores keep their order, and lose their unit.

    Args:
        own_from: the number of models from which each example has a variance of its own.
        least: degrees of freedom that the one variance for all needs.

    Raises:
        UserError: there are fewer.
    """
    if len(values) == 1:
        return np.ones(values.shape[1])
    count = chosen.sum(0)
    free = (count - 1).clip(0)
    if free.sum() < least:
        raise UserError(f"{len(values)} shadow models are too few to compare with; raise evaluation.shadow_models")
    squares = np.where(chosen, (values - mean) ** 2, 0.0).sum(0)
    pooled = squares[count > 1].sum() / free.sum()
    has_own = (count > 1) & (len(values) >= own_from)
    return np.maximum(np.where(has_own, squares / np.maximum(free, 1), pooled), 1e-12)
