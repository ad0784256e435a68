"""From an inversion's reconstructions to its result: who recognises them, and what public data alone give.

Two kinds of classes are judged.

* *The same for everyone*, such as a digit. Public examples of the classes are known. The judge is trained on the population
  part, and the class's public mean stands beside the reconstruction: what that gives away is knowledge about digits.
* *People*, where ``DataSet.others`` shows other people. The attacker has those; of the classes nothing is public. The judge is
  a recogniser trained on the private people's held-out images, which neither target nor attacker saw
  (:func:`~evaluation.inversion.evaluator.check_apart` holds it to that); a second, linear one stands beside it, since a single
  judge has many false positives. Beside the reconstructions stand a public image drawn at random, a public person's mean, and
  the mean of all public images, which are what someone without the model has.

An attack that gives a distribution a class is also judged by draws of it (:mod:`~evaluation.inversion.distribution`).
Distances are to private and to public examples: root mean squares of inputs, and for people also in the recogniser's embedding.
Nothing here takes part in making a reconstruction.
"""

import dataclasses
import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dptrain.data.dataset import DataSet
from dptrain.data.split import Split
from dptrain.errors import DataError
from dptrain.files import write_file
from evaluation import metrics
from evaluation.analysis import Case
from evaluation.inversion.class_ import ClassInversion
from evaluation.inversion.distribution import COUNT, Distributional, distribution
from evaluation.inversion.evaluator import Judge, check_apart, check_enough, class_means, nearest_distance
from evaluation.inversion.knowledge import ClassKnowledge, InversionAttack
from evaluation.inversion.recogniser import Recogniser, check_size
from evaluation.membership import NotApplicable
from evaluation.result import AttackResult, Measure, Verdict
from evaluation.similarity import WINDOW, structural_similarity
from evaluation.target import Target

DRAWN = ("public_sample", "public_person_mean")
"""Of those without a model: dealt to the classes at random, so that each is right once in as many times as there are classes on
average, whatever the judge; one deal's figure is shown, and decides nothing."""
INPUT_UNITS = "root mean square, input units"
IN_EMBEDDING = "root mean square in the recogniser's embedding"


@dataclass(frozen=True, eq=False)
class Jury:
    """Who judges reconstructions of one split, and what they are held against: the same for every model and attack."""

    judge: Judge | Recogniser
    second: Recogniser | None
    """A linear one."""
    accuracy: tuple[Measure, ...]
    """Of the judges, on examples that they were not trained on."""
    members: Tensor
    member_targets: Tensor
    known: ClassKnowledge
    """The attacker's."""
    without_model: dict[str, Tensor]
    """One input a class from public data alone, by its name."""
    compared: Tensor
    """Public examples that stand beside the nearest private ones, as many."""

    def identified(self, pictures: Tensor, name: str, shift: int = 0) -> Measure:
        """Share of classes whose picture the judge takes for the class ``shift`` further on."""
        classes = len(pictures)
        right = int((self.judge.labels(pictures) == (np.arange(classes) + shift) % classes).sum())
        return metrics.proportion(right, classes, name)


def reconstructions(case: Case, name: str, attack: InversionAttack) -> AttackResult:
    """Runs one class inversion and judges it: how many classes the independent evaluator recognises.

    Raises:
        NotApplicable: the inputs have no public bounds to stay between, or the model predicts a value.
        DataError: a class has too few examples to judge by.
    """
    if case.data.value is not None:
        raise NotApplicable("the model predicts a value, and there is no class to draw")
    if not can_be_drawn(case.data):
        raise NotApplicable("the inputs have no public bounds")
    jury = jury_of(case.data, case.split, case.seed)
    found = _invert(case, attack, jury, case.target)
    drawn = _drawn(case, attack, jury)
    value = jury.identified(found, "identified_top1")
    controls = [jury.identified(found, "permuted", 1)]
    if case.untrained is not None:
        controls.append(jury.identified(_invert(case, attack, jury, case.untrained), "untrained"))
    result = AttackResult(
        name=name,
        status="ok",
        metric="identified_top1",
        value=value.value,
        low=value.low,
        high=value.high,
        chance=1 / len(case.data.classes),
        access=attack.access.word,
        paper=attack.paper,
        metrics=(
            *_further(found, jury),
            *_distances(found, jury, case.data),
            *(() if drawn is None else distribution(drawn, jury.judge.labels, jury.known)),
        ),
        baselines=(*jury.accuracy, *(jury.identified(made, named) for named, made in jury.without_model.items())),
        controls=tuple(controls),
        figures=_keep_picture(case, name, found, drawn, jury),
    )
    verdict, reason = _verdict(result, tuple(jury.without_model))
    return dataclasses.replace(result, verdict=verdict, reason=reason)


@lru_cache(maxsize=16)
def jury_of(data: DataSet, split: Split, seed: int) -> Jury:
    """The jury of a split.

    Raises:
        DataError: there is none, see :func:`check_jury`; or it would have seen what target or attacker used.
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
    (population, of_population), (held_out, of_held_out), (public, of_public), (members, of_members) = (
        _part(data, part) for part in (split.population, split.non_members, split.public, split.members)
    )
    classes = len(data.classes)
    judge = Judge.train(population, of_population, classes)
    check_apart(judge.seen, members=members, public=public)
    means = class_means(public, of_public, classes)
    means[~torch.isfinite(means.flatten(1)).all(1)] = public.mean(0)  # no public example of the class: the mean of all is known
    drawn = torch.from_numpy(np.random.default_rng(seed).integers(len(public), size=classes))
    return Jury(
        judge=judge,
        second=None,
        accuracy=(judge.accuracy(held_out, of_held_out),),
        members=members,
        member_targets=of_members,
        known=ClassKnowledge(data.input_shape, public, of_public),
        without_model={"public_class_mean": means, "public_sample": public[drawn]},
        compared=public,
    )


def _of_people(data: DataSet, split: Split, seed: int) -> Jury:
    assert data.others is not None
    (held_out, of_held_out), (members, of_members) = (_part(data, part) for part in (split.non_members, split.members))
    public, groups, classes = data.others.inputs, data.others.groups, len(data.classes)
    judges = [Recogniser.train(held_out, of_held_out, classes, form=form, seed=seed) for form in ("convolutional", "linear")]
    for judge in judges:
        check_apart(judge.seen, members=members, public=public)
    generator = np.random.default_rng(np.random.SeedSequence([seed, *b"public people"]))
    people = class_means(public, groups, int(groups.max()) + 1)
    drawn = torch.from_numpy(generator.integers(len(people), size=classes))
    one_each = torch.from_numpy(generator.integers(len(public), size=classes))
    first, second = judges
    return Jury(
        judge=first,
        second=second,
        accuracy=(
            first.accuracy(members, of_members),
            dataclasses.replace(second.accuracy(members, of_members), name="linear_evaluator_accuracy"),
        ),
        members=members,
        member_targets=of_members,
        known=ClassKnowledge(data.input_shape, public, groups),
        without_model={
            "public_sample": public[one_each],
            "public_person_mean": people[drawn],
            "public_mean": public.mean(0, keepdim=True).expand(classes, *public.shape[1:]),
        },
        compared=public,
    )


def _part(data: DataSet, indices: np.ndarray) -> tuple[Tensor, Tensor]:
    index = torch.from_numpy(indices)
    return data.inputs[index], data.targets[index]


def _invert(case: Case, attack: InversionAttack, jury: Jury, target: Target) -> Tensor:
    generator = torch.Generator().manual_seed(case.seed)
    if isinstance(attack, ClassInversion):
        attack = dataclasses.replace(attack, steps=case.evaluation.inversion_steps, restarts=case.evaluation.inversion_restarts)
    found = attack.run(target.behind(attack.access), jury.known, generator)
    if not bool(torch.isfinite(found).all()):
        raise metrics.ScoreError("the reconstructions hold NaN or infinity")
    return found


def _drawn(case: Case, attack: InversionAttack, jury: Jury) -> Tensor | None:
    """Draws of each class, where the attack gives a distribution."""
    if not isinstance(attack, Distributional):
        return None
    return attack.samples(case.target.behind(attack.access), jury.known, COUNT, torch.Generator().manual_seed(case.seed))


def _further(found: Tensor, jury: Jury) -> tuple[Measure, ...]:
    """Of people: among the first five, and by the linear judge."""
    if not isinstance(jury.judge, Recogniser) or jury.second is None:
        return ()
    by_linear = dataclasses.replace(jury.second.identified(found), name="identified_by_linear")
    return jury.judge.identified(found, most=5), by_linear


def _distances(found: Tensor, jury: Jury, data: DataSet) -> tuple[Measure, ...]:
    """To the class's private mean, and to the nearest private and the nearest public example.

    Private closer than public, beyond what their numbers explain, would mean that examples themselves came out.
    """
    classes = len(found)
    centre = class_means(jury.members, jury.member_targets, classes)
    known = torch.isfinite(centre.flatten(1)).all(1)
    apart = (found - centre)[known].flatten(1).square().mean(1).sqrt()
    measures = [Measure(name="distance_to_private_mean", value=float(apart.mean()), note=INPUT_UNITS)]
    private, public = _alike(jury, data)
    for name, group in (("nearest_private", private), ("nearest_public", public)):
        if len(group):
            value = float(nearest_distance(found, group).mean())
            measures.append(Measure(name=f"distance_to_{name}", value=value, note=INPUT_UNITS))
            if isinstance(jury.judge, Recogniser):
                value = float(nearest_distance(jury.judge.embedding(found), jury.judge.embedding(group)).mean())
                measures.append(Measure(name=f"distance_to_{name}_embedded", value=value, note=IN_EMBEDDING))
    if data.kind == "image" and min(found.shape[2:]) >= WINDOW:
        low, high = data.bounds
        shifted = ((pictures[known] - low).clamp(0, high - low) for pictures in (found, centre))
        value = float(structural_similarity(*shifted, value_range=high - low).mean())
        measures.append(Measure(name="similarity_to_private_mean", value=value, note="SSIM, 1 for equal pictures"))
    return tuple(measures)


def _alike(jury: Jury, data: DataSet) -> tuple[Tensor, Tensor]:
    """As many private as public examples, drawn at random, of each class where the classes are public: neither group may be
    nearer by its make-up alone."""
    generator = np.random.default_rng(np.random.SeedSequence([0, *b"distances"]))
    if data.others is not None:
        count = min(len(jury.members), len(jury.compared))
        chosen = (torch.from_numpy(generator.permutation(len(group))[:count]) for group in (jury.members, jury.compared))
        return tuple(group[index] for group, index in zip((jury.members, jury.compared), chosen, strict=True))  # pyright: ignore[reportReturnType]  two of them
    private, public = [], []
    assert jury.known.public_groups is not None
    for label in range(len(data.classes)):
        own, known = (np.flatnonzero(part.numpy() == label) for part in (jury.member_targets, jury.known.public_groups))
        count = min(len(own), len(known))
        private.append(generator.permutation(own)[:count])
        public.append(generator.permutation(known)[:count])
    return jury.members[torch.from_numpy(np.concatenate(private))], jury.compared[torch.from_numpy(np.concatenate(public))]


def _keep_picture(case: Case, name: str, found: Tensor, drawn: Tensor | None, jury: Jury) -> tuple[str, ...]:
    """Private pictures, reconstructions and public ones as arrays in [0, 1], for the views to draw, with what each row is."""
    if case.folder is None or case.data.kind != "image":
        return ()
    low, high = case.data.bounds
    means = class_means(jury.members, jury.member_targets, len(found))
    rows = {"class mean\nof members": means, "recon-\nstruction": found}
    if drawn is not None:
        rows["one draw"] = drawn[:, 0]
    if isinstance(jury.judge, Recogniser):
        rows = {"a member's\nface": _nearest(means, jury.members, jury.member_targets), **rows}
        near = torch.cdist(jury.judge.embedding(found), jury.judge.embedding(jury.compared)).argmin(1)
        rows["nearest\npublic face"] = jury.compared[near]
    else:
        rows["public\nclass mean"] = jury.without_model["public_class_mean"]

    def picture(tensor: Tensor) -> np.ndarray:
        scaled = ((tensor - low) / (high - low)).clamp(0, 1).nan_to_num(0.5)
        return (scaled[:, 0] if scaled.shape[1] == 1 else scaled.permute(0, 2, 3, 1)).numpy()

    arrays = {"labels": np.array(list(rows))} | {f"row{at}": picture(row) for at, row in enumerate(rows.values())}
    file, content = f"{name}.npz", io.BytesIO()
    np.savez_compressed(content, **arrays)  # pyright: ignore[reportArgumentType]  no array is named allow_pickle
    write_file(case.folder / file, content.getvalue())
    return (file,)


def _nearest(means: Tensor, examples: Tensor, targets: Tensor) -> Tensor:
    """The example of each class that is nearest to the class's mean."""
    found = means.clone()
    for label in range(len(means)):
        own = examples[targets == label]
        if len(own):
            found[label] = own[(own - means[label]).flatten(1).norm(dim=1).argmin()]
    return found


def _verdict(result: AttackResult, without_model: tuple[str, ...]) -> tuple[Verdict, str]:
    if result.low is None or result.chance is None or result.low <= result.chance:
        return "found nothing", "the interval contains chance"
    untrained = next((item for item in result.controls if item.name == "untrained"), None)
    if untrained is not None and untrained.low is not None and untrained.low > result.chance:
        return "withheld", f"an untrained model is identified as often as {untrained.value:.2f}: the judge is fooled"
    beside = [item for item in result.baselines if item.name in without_model and item.name not in DRAWN]
    best = max(beside, key=lambda item: item.value or 0.0, default=None)
    if best is not None and best.value is not None and result.low <= best.value:
        return "nothing beyond public", f"{best.name.replace('_', ' ')}, without the model, is identified {best.value:.2f}"
    return "leak", ""
