"""What can be told without the model: the figures that an attack must beat to mean anything.

The **blind** baseline sees the examples and their labels and no model (Das, Zhang, Tramèr 2024, "Blind Baselines Beat
Membership Inference Attacks for Foundation Models"). Where it tells members from non-members, the two groups differ by
themselves, and no membership attack on that split proves anything.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from dptrain.errors import DataError

GATE = 0.999
"""Confidence at which the untrained and the permuted control count as different from chance. It is tighter than the 95%
intervals that are shown, since a comparison looks at dozens of them and one false alarm withholds a verdict. The blind
baseline, one a split, withholds as soon as its 95% interval lies above chance."""


MOST_SEEN = 5000
"""Examples that a blind classifier learns from, at most: a shift between the groups shows in far fewer, and a forest on
all of MNIST would take longer than the attack that it stands beside."""


def blind_scores(
    inputs: Tensor,
    targets: Tensor,
    is_member: Bool[np.ndarray, " subjects"],
    classes: int,
    seed: int,
    owners: Int[np.ndarray, " examples"] | None = None,
) -> tuple[Float[np.ndarray, " scored"], Bool[np.ndarray, " scored"]]:
    """Membership scores from a random forest that sees no model, and the membership of those that were scored.

    The forest learns from about half of the examples, drawn by independent coins, and scores the others. Scoring each half
    by a forest from the other one would use all examples, but the two sets of scores would depend on each other: on
    digits the AUC then varies 1.3 times as much as its interval says (24 splits, standard deviation .0194 against .0150).

    Args:
        owners: whose each example is, by numbers from 0 up, where members are users: a user is then seen as the mean of what is
            seen of their examples. With examples of one user in both halves the forest would know the user, not a difference
            between the groups.
    """
    from sklearn.ensemble import RandomForestClassifier  # most commands never need it, and it takes a second

    features = _seen(inputs, targets, classes)
    features = features if owners is None else of_owners(features, owners)
    generator = _generator(seed, b"blind")
    scored = generator.random(len(features)) < 0.5
    seen = generator.permutation(np.flatnonzero(~scored))[:MOST_SEEN]
    if len(np.unique(is_member[seen])) < 2:
        raise DataError(f"the blind baseline needs members and non-members to learn from and has {len(seen)} of one kind")
    forest = RandomForestClassifier(n_estimators=100, min_samples_leaf=LEAST_SEEN, random_state=seed, n_jobs=1)
    forest.fit(features[seen], is_member[seen])
    return np.asarray(forest.predict_proba(features[scored]))[:, 1], is_member[scored]


def _seen(inputs: Tensor, targets: Tensor, classes: int) -> np.ndarray:
    """What of an example a blind classifier sees: inputs and label; of a text how often each token stands in it (of many kinds
    by :data:`MOST_KINDS` hashes), and of characters each pair of neighbours (by :data:`PAIRS` hashes)."""
    if targets.dim() == 2:
        tokens = targets.numpy()
        if classes > MOST_KINDS:
            return counted(tokens % MOST_KINDS, MOST_KINDS)
        pairs = (tokens[:, :-1] * 31 + tokens[:, 1:] * 17) % PAIRS
        return np.hstack([counted(tokens, classes), counted(pairs, PAIRS)])
    known = np.eye(classes, dtype=np.float32)[targets.numpy()] if classes else targets.numpy()[:, None]
    if inputs.is_floating_point():
        return np.hstack([inputs.flatten(1).numpy(), known])
    bag = counted(inputs.numpy(), int(inputs.max()) + 1)
    return np.hstack([bag[:, (bag > 0).sum(0) >= LEAST_SEEN], known])


def of_owners(values: Shaped[np.ndarray, "examples *rest"], owners: Int[np.ndarray, " examples"]) -> np.ndarray:
    """The mean over each owner's examples, in the order of the owners' numbers, which count from 0."""
    total = np.zeros((int(owners.max()) + 1, *values.shape[1:]))
    np.add.at(total, owners, values)
    return (total.T / np.bincount(owners)).T


PAIRS = 256
MOST_KINDS = 512
"""Above which what is counted are tokens of a published model, not characters."""
LEAST_SEEN = 5
"""Examples that a token must stand in for a leaf of the forest to be about it."""


def counted(tokens: Int[np.ndarray, "examples length"], kinds: int) -> Float[np.ndarray, "examples kinds"]:
    """How often each token stands in each example: the numbers of tokens mean nothing by their size."""
    found = np.zeros((len(tokens), kinds), dtype=np.float32)
    np.add.at(found, (np.arange(len(tokens))[:, None], tokens), 1.0)
    return found


def permuted(is_member: Bool[np.ndarray, " examples"], seed: int) -> Bool[np.ndarray, " examples"]:
    """Membership dealt out again at random: against it every attack must be at chance."""
    return _generator(seed, b"permuted").permutation(is_member)


def _generator(seed: int, purpose: bytes) -> np.random.Generator:
    """Of a stream of its own: with the plain seed, halves could be the very coins that drew somebody's split."""
    return np.random.default_rng(np.random.SeedSequence([seed, *purpose]))
