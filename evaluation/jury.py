"""Who judges the reconstructions of a split's classes, and what stands beside them.

Two kinds of classes are judged.

* *The same for everyone*, such as a digit. Public examples of the classes are known. The judge is trained on the population
  part, and the class's public mean stands beside the reconstruction: what that gives away is knowledge about digits.
* *People*, where ``DataSet.others`` shows other people. The attacker has those; of the classes nothing is public. The judge is
  a recogniser trained on the private people's held-out images, which neither target nor attacker saw
  (:func:`~evaluation.inversion.evaluator.check_apart` holds it to that); a second, linear one stands beside it, since a single
  judge has many false positives. Beside the reconstructions stand a public image drawn at random, a public person's mean, and
  the mean of all public images, which are what someone without the model has.

A class of which the split has no member is not judged: no model has learned it.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dptrain.data.dataset import DataSet, contents
from dptrain.data.split import Split
from dptrain.errors import DataError
from evaluation import metrics
from evaluation.inversion.evaluator import Judge, check_apart, check_enough, class_means, hashes
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.inversion.recogniser import Recogniser, check_size
from evaluation.likeness import Labelled, Originals, likeness, originals_of
from evaluation.membership import NotApplicable
from evaluation.result import Measure

DEALT = ("public_sample", "public_person_mean", "public_mean")
"""Of those without a model: dealt to the classes at random, or one for all. On average over deals, or exactly, one is then
right, whatever the judge. That is chance, and it decides no verdict: of people whom nothing public shows there is nothing
better without the model."""
FIRST = 5
KEPT = 4
"""Juries that are remembered, with the data set of each."""


@dataclass(frozen=True, eq=False)
class Jury:
    """Who judges reconstructions of one split, and what they are held against: the same for every model and attack."""

    judge: Judge | Recogniser
    second: Recogniser | None
    """A linear one."""
    accuracy: tuple[Measure, ...]
    """Of the judges, on examples that they were not trained on."""
    members: Labelled
    originals: Originals
    known: ClassKnowledge
    """The attacker's."""
    without_model: dict[str, Tensor]
    """One input a class from public data alone, by its name."""

    @property
    def judged(self) -> Int[np.ndarray, " judged"]:
        """Classes that the split has members of."""
        return np.flatnonzero(self.originals.known.numpy())

    def right(self, pictures: Tensor) -> Bool[np.ndarray, " judged"]:
        """For each judged class, whether the judge takes its picture for it."""
        return self.judge.labels(pictures)[self.judged] == self.judged

    def further(self, pictures: Tensor) -> dict[int, Measure]:
        """Of people: the share that the linear judge takes for themselves, and that among the judge's first five where there
        are more; each by how many of the judge's answers count."""
        if not isinstance(self.judge, Recogniser) or self.second is None:
            return {}
        by_linear = self.second.labels(pictures)[self.judged] == self.judged
        found = {1: share(by_linear, "identified_by_linear")}
        if len(pictures) > FIRST:
            first = self.judge.ranked(pictures)[self.judged, :FIRST]
            found = {FIRST: share((first == self.judged[:, None]).any(1), f"identified_top{FIRST}"), **found}
        return found

    @cached_property
    def likeness_without_model(self) -> tuple[Measure, ...]:
        """The same measures as of reconstructions, named ``public_mean/distance_to_private_mean`` and so on."""
        return tuple(
            dataclasses.replace(measure, name=f"{who}/{measure.name}")
            for who, pictures in self.without_model.items()
            for measure in likeness(pictures, self.originals)
        )


def share(right: Bool[np.ndarray, " judged"], name: str) -> Measure:
    """With its Clopper–Pearson interval."""
    return metrics.proportion(int(right.sum()), len(right), name)


@lru_cache(maxsize=KEPT)
def jury_of(data: DataSet, split: Split, seed: int) -> Jury:
    """The jury of a split.

    Raises:
        DataError: there is none, see :func:`check_jury`; or the judge has seen what attacker or target used.
    """
    check_jury(data, split)
    return _of_classes(data, split, seed) if data.others is None else _of_people(data, split, seed)


def can_be_drawn(data: DataSet) -> bool:
    """Whether models of these data have classes, and inputs public bounds to stay between."""
    return data.value is None and (data.kind == "image" or bool(np.isfinite(data.bounds).all()))


def check_jury(data: DataSet, split: Split) -> None:
    """Refuses a split that leaves nobody who could judge reconstructions; quick, so that it can be asked before training.

    Raises:
        DataError: what is missing, and what to type.
    """
    classes, left_out = len(data.classes), "or leave class inversion out of evaluation.attacks"
    if data.others is not None:
        check_size(data.inputs)
        fewer = "lower data.split.per_class" if split.drawn == "per_class" else "raise data.split.non_members"
        check_enough(_part(data, split.non_members)[1], classes, f"{fewer}, {left_out}")
    elif split.drawn == "per_class":
        raise DataError(
            f"data.split.per_class leaves no population, from which a judge of {data.name}'s classes would learn, and no "
            "public examples to compare with; leave it out and split by shares, take data with public others, such as faces, "
            f"{left_out}"
        )
    else:
        check_enough(_part(data, split.population)[1], classes, f"raise data.split.population, {left_out}")
        if not len(split.public):
            raise DataError(
                f"no example is public, and reconstructions are compared with such; raise data.split.public, {left_out}"
            )


def _of_classes(data: DataSet, split: Split, seed: int) -> Jury:
    population, held_out, public, members = (
        _part(data, part) for part in (split.population, split.non_members, split.public, split.members)
    )
    classes = len(data.classes)
    judge = Judge.train(*_new_to(population, members[0], public[0], classes), classes)
    check_apart(judge.seen, members=members[0], public=public[0])
    means = class_means(*public, classes)
    means[~torch.isfinite(means.flatten(1)).all(1)] = public[0].mean(
        0
    )  # no public example of the class: the mean of all is known
    drawn = torch.from_numpy(np.random.default_rng(seed).integers(len(public[0]), size=classes))
    return Jury(
        judge=judge,
        second=None,
        accuracy=(judge.accuracy(*held_out),),
        members=members,
        originals=originals_of(data, members, held_out, public),
        known=ClassKnowledge(data.input_shape, *public),
        without_model={"public_class_mean": means, "public_sample": public[0][drawn]},
    )


def _new_to(population: Labelled, members: Tensor, public: Tensor, classes: int) -> Labelled:
    """Those of the population that are nobody else's repeats: rows of few columns often are.

    Raises:
        NotApplicable: too few are left to learn from.
    """
    known = hashes(members) | hashes(public)
    new = torch.tensor([content not in known for content in contents(population[0].float())])
    left = population[0][new], population[1][new]
    if not bool(new.all()):
        try:
            check_enough(left[1], classes)
        except DataError:
            raise NotApplicable(
                f"{int((~new).sum())} of the population's {len(new)} examples are also members or public ones, so that no "
                "independent judge can learn from the others; it is an attack on inputs that tell examples apart"
            ) from None
    return left


def _of_people(data: DataSet, split: Split, seed: int) -> Jury:
    assert data.others is not None
    held_out, members = (_part(data, part) for part in (split.non_members, split.members))
    public, classes = data.others.inputs, len(data.classes)
    judges = [Recogniser.train(*held_out, classes, form=form, seed=seed) for form in ("convolutional", "linear")]
    for judge in judges:
        check_apart(judge.seen, members=members[0], public=public)
    generator = np.random.default_rng(np.random.SeedSequence([seed, *b"public people"]))
    people, groups = data.others.groups.unique(return_inverse=True)
    drawn = torch.from_numpy(generator.integers(len(people), size=classes))
    one_each = torch.from_numpy(generator.integers(len(public), size=classes))
    first, second = judges
    return Jury(
        judge=first,
        second=second,
        accuracy=(
            first.accuracy(*members),
            dataclasses.replace(second.accuracy(*members), name="linear_evaluator_accuracy"),
        ),
        members=members,
        originals=originals_of(data, members, held_out, (public, groups), first.embedding),
        known=ClassKnowledge(data.input_shape, public, data.others.groups),
        without_model={
            "public_sample": public[one_each],
            "public_person_mean": class_means(public, groups, len(people))[drawn],
            "public_mean": public.mean(0, keepdim=True).expand(classes, *public.shape[1:]),
        },
    )


def _part(data: DataSet, indices: np.ndarray) -> Labelled:
    index = torch.from_numpy(indices)
    return data.inputs[index], data.targets[index]
