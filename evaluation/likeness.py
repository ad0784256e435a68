"""How near a class's picture comes to the class: distances and structural similarity, of a reconstruction as of what was to be
had without the model.

    originals = originals_of(data, members, held_out, public, embedding)     # of one split, the same for every picture
    likeness(pictures, originals)                                            # one picture a class; measures with intervals

To the class's private mean; to the nearest of its members and of the public examples; and to the nearest of its members and of
its held-out examples. The two groups of a pair are equally large, so that neither is nearer by its number alone: members and
held-out ones of each class (the mean over several draws), members and public ones of each class too where the classes are
public. Read them so:

* Nearer to private than to public examples: the picture shows the class. Of people it shows the person, whoever's photograph
  it was drawn from: means of held-out images do so too.
* Nearer to members than to held-out examples: the picture shows what was trained on. This difference alone is a leak of
  training, and it has a measure of its own.

Intervals are Student's over the classes. In the recogniser's embedding held-out examples have no part: it learned from them.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dptrain.data.dataset import DataSet
from evaluation import metrics
from evaluation.inversion.evaluator import class_means, nearest_distance
from evaluation.result import Measure
from evaluation.similarity import WINDOW, structural_similarity

INPUT_UNITS = "root mean square, input units"
IN_EMBEDDING = "root mean square in the recogniser's embedding"
Labelled = tuple[Tensor, Tensor]
"""Inputs and their classes, or the people whom they show."""
Embedding = Callable[[Tensor], Tensor]


DRAWS = 16
"""Of a pair of members and held-out examples."""
NEARER_TO_MEMBERS = "distance_held_out_less_member"
"""Above 0 where a picture is nearer to examples that were trained on than to others of the same class."""


@dataclass(frozen=True, eq=False)
class Originals:
    """What pictures are held against."""

    means: Float[Tensor, "classes ..."]
    """Of each class's members; NaN for a class without any."""
    private: Tensor
    public: Tensor
    """As many."""
    members: Tensor
    held_out: Tensor
    drawn: tuple[tuple[Tensor, Tensor], ...]
    """Draws of as many members as held-out examples: the places of both."""
    bounds: tuple[float, float]
    is_picture: bool
    embedding: Embedding | None = None

    @property
    def known(self) -> Tensor:
        """Which classes have members."""
        return torch.isfinite(self.means.flatten(1)).all(1)


def originals_of(
    data: DataSet, members: Labelled, held_out: Labelled, public: Labelled, embedding: Embedding | None = None
) -> Originals:
    """Of one split, the same for every picture.

    Args:
        public: with their classes, or the people whom they show where ``data.others`` are people.
        embedding: of a recogniser that has seen neither members nor public examples.
    """
    generator, classes = np.random.default_rng(np.random.SeedSequence([0, *b"distances"])), len(data.classes)
    if data.others is None:
        private, known = _alike(members[1], public[1], classes, generator)
    else:
        count = min(len(members[0]), len(public[0]))
        private, known = (torch.from_numpy(generator.permutation(len(part[0]))[:count]) for part in (members, public))
    return Originals(
        means=class_means(*members, classes),
        private=members[0][private],
        public=public[0][known],
        members=members[0],
        held_out=held_out[0],
        drawn=tuple(_alike(members[1], held_out[1], classes, generator) for _ in range(DRAWS)),
        bounds=data.bounds,
        is_picture=data.kind == "image",
        embedding=embedding,
    )


def _alike(first: Tensor, second: Tensor, classes: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Places of as many examples of each class in both, drawn at random."""
    found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for label in range(classes):
        own = [np.flatnonzero(part.numpy() == label) for part in (first, second)]
        for places, one in zip(found, own, strict=True):
            places.append(generator.permutation(one)[: min(map(len, own))])
    return torch.from_numpy(np.concatenate(found[0])), torch.from_numpy(np.concatenate(found[1]))


def likeness(pictures: Float[Tensor, "classes ..."], originals: Originals) -> tuple[Measure, ...]:
    """Means over the classes that have members."""
    known = originals.known
    pictures, means = pictures[known], originals.means[known]
    apart = (pictures - means).flatten(1).square().mean(1).sqrt()
    measures = [_mean(apart.double().numpy(), "distance_to_private_mean", INPUT_UNITS)]
    groups = {"private": originals.private, "public": originals.public}
    for name, group in groups.items() if len(originals.private) else ():
        measures.append(_mean(nearest_distance(pictures, group), f"distance_to_nearest_{name}", INPUT_UNITS))
        if originals.embedding is not None:
            values = nearest_distance(originals.embedding(pictures), originals.embedding(group))
            measures.append(_mean(values, f"distance_to_nearest_{name}_embedded", IN_EMBEDDING))
    if len(originals.drawn[0][0]):
        member, held_out = _nearest_alike(pictures, originals)
        measures.append(_mean(member, "distance_to_nearest_member", INPUT_UNITS))
        measures.append(_mean(held_out, "distance_to_nearest_held_out", INPUT_UNITS))
        measures.append(_mean(held_out - member, NEARER_TO_MEMBERS, INPUT_UNITS))
    if originals.is_picture and min(pictures.shape[2:]) >= WINDOW:
        low, high = originals.bounds
        shifted = ((some - low).clamp(0, high - low) for some in (pictures, means))
        values = structural_similarity(*shifted, value_range=high - low).numpy()
        measures.append(_mean(values, "similarity_to_private_mean", "SSIM, 1 for equal pictures"))
    return tuple(measures)


def _nearest_alike(pictures: Tensor, originals: Originals) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each picture to the nearest of as many members as held-out examples, the mean over draws."""
    found: list[np.ndarray] = []
    for place, examples in enumerate((originals.members, originals.held_out)):
        apart = torch.cdist(pictures.flatten(1).double(), examples.flatten(1).double()) / pictures[0].numel() ** 0.5
        found.append(torch.stack([apart[:, draw[place]].min(1).values for draw in originals.drawn]).mean(0).numpy())
    return found[0], found[1]


def _mean(values: np.ndarray, name: str, note: str) -> Measure:
    return dataclasses.replace(metrics.mean(values, name), note=note)
