"""Reconstructions of people are judged by someone who saw neither the model's nor the attacker's examples."""

import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dptrain.data.dataset import DataSet, Others
from dptrain.data.split import Split, draw
from dptrain.errors import DataError
from dptrain.recipe import SplitConfig
from evaluation.access import Access
from evaluation.analysis import Case
from evaluation.inversion.evaluator import check_apart, class_means, hashes
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.inversion.other_people import taught
from evaluation.jury import check_jury, jury_of
from evaluation.membership import NotApplicable
from evaluation.plan import EvaluationPlan
from evaluation.reconstructions import reconstructions
from evaluation.result import AttackResult
from evaluation.runner import check_plan
from evaluation.target import Target

PEOPLE, IMAGES, SIDE = 6, 8, 16


@lru_cache(maxsize=4)
def people(seed: int = 0, side: int = SIDE) -> DataSet:
    """Six private and six public people, each a smooth picture of its own that is a little different on each image."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2 * PEOPLE, 1, 4, 4, generator=generator) - 0.5
    faces = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").repeat_interleave(IMAGES, 0)
    images = (faces + 0.03 * torch.randn(faces.shape, generator=generator)).clamp(-0.5, 0.5)
    labels, private = torch.arange(PEOPLE).repeat_interleave(IMAGES), PEOPLE * IMAGES
    names = tuple(f"person {number}" for number in range(PEOPLE))
    return DataSet("people", images[:private], labels, names, (-0.5, 0.5), others=Others(images[private:], labels))


@dataclasses.dataclass(frozen=True)
class Gives:
    """An attack whose reconstructions are known, for the target; for any other model it gives noise."""

    pictures: Tensor
    target: nn.Module

    access: ClassVar[Access] = Access.GRADIENTS
    paper: ClassVar[str] = "none"

    def run(self, target: Target, knowledge: ClassKnowledge, generator: torch.Generator) -> Tensor:
        if target._model is self.target:
            return self.pictures
        return torch.rand(self.pictures.shape, generator=generator) - 0.5


@lru_cache(maxsize=4)
def split_of(data: DataSet) -> Split:
    """The same for every test, whose jury is then trained once."""
    return draw(len(data), SplitConfig(per_class=5), 0, targets=data.targets)


def case_of(data: DataSet, folder: Path | None = None) -> tuple[Case, Split, nn.Module]:
    split = split_of(data)
    model, other = (nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, PEOPLE)) for _ in range(2))
    target, untrained = (Target(each, Access.WEIGHTS, bounds=data.bounds, classes=PEOPLE) for each in (model, other))
    plan = EvaluationPlan(attacks=("inversion.class",))
    return Case(target, untrained, data, split, None, plan, 0, folder=folder), split, model


def measure(result: AttackResult, name: str) -> float:
    every = (*result.metrics, *result.judges, *result.baselines, *result.likeness_without_model, *result.controls)
    found = next(item for item in every if item.name == name)
    assert found.value is not None
    return found.value


def test_a_persons_own_face_is_identified_and_the_faces_of_others_are_not(tmp_path: Path):
    data = people()
    case, split, model = case_of(data, tmp_path)
    index = torch.from_numpy(split.members)
    own = torch.stack([data.inputs[index][data.targets[index] == person][0] for person in range(PEOPLE)])
    result = reconstructions(case, "inversion.class", Gives(own, model))
    assert (result.value, result.verdict) == (1.0, "leak")
    assert measure(result, "identified_top5") == 1.0
    assert result.chance_metrics == {"identified_top5": 5 / PEOPLE, "identified_by_linear": 1 / PEOPLE}
    assert measure(result, "distance_to_nearest_private") < 1e-6
    assert measure(result, "distance_to_nearest_public") > 0.05
    assert measure(result, "similarity_to_private_mean") > 0.8
    assert measure(result, "evaluator_accuracy") == 1.0
    assert max(measure(result, name) for name in ("public_sample", "public_person_mean", "public_mean")) < 0.7
    for without in ("public_sample", "public_person_mean", "public_mean"):
        assert measure(result, f"{without}/distance_to_private_mean") > measure(result, "distance_to_private_mean")
        assert measure(result, f"{without}/similarity_to_private_mean") < measure(result, "similarity_to_private_mean")
    with np.load(tmp_path / result.figures[0]) as kept:
        assert [str(label).split("\n")[0] for label in kept["labels"]] == ["a member's", "class mean", "recon-", "nearest"]
        assert kept["row2"].shape == (PEOPLE, SIDE, SIDE)


@dataclasses.dataclass(frozen=True)
class Draws(Gives):
    """Every draw of the first half of the classes is right, and every one of the others shows the first class."""

    def samples(self, target: Target, knowledge: ClassKnowledge, count: int, generator: torch.Generator) -> Tensor:
        drawn = self.pictures[:, None].repeat(1, count, 1, 1, 1)
        drawn[PEOPLE // 2 :] = self.pictures[0]
        return drawn


def test_an_attack_that_gives_a_distribution_is_also_judged_by_its_draws(tmp_path: Path):
    data = people()
    case, split, model = case_of(data, tmp_path)
    index = torch.from_numpy(split.members)
    own = torch.stack([data.inputs[index][data.targets[index] == person][0] for person in range(PEOPLE)])
    result = reconstructions(case, "inversion.class", Draws(own, model))
    assert result.value == 1.0
    assert measure(result, "identified_of_draws") == 0.5
    assert result.chance_metrics["identified_of_draws"] == 1 / PEOPLE
    assert measure(result, "distance_between_draws") == 0.0
    assert measure(result, "distance_between_public_people") > 0.1
    with np.load(tmp_path / result.figures[0]) as kept:
        assert list(kept["labels"]).index("one draw") == 3
        assert kept["row3"].shape == (PEOPLE, SIDE, SIDE)
    plain = reconstructions(case, "inversion.class", Gives(own, model))
    assert not {"identified_of_draws", "distance_between_draws"} & {item.name for item in plain.metrics}


@dataclasses.dataclass(frozen=True)
class Peeks:
    """An attack that knows the private faces, and shows them of every class of which the model has something to say."""

    pictures: Tensor

    access: ClassVar[Access] = Access.SCORES
    paper: ClassVar[str] = "none"

    def run(self, target: Target, knowledge: ClassKnowledge, generator: torch.Generator) -> Tensor:
        del generator
        if np.ptp(target.scores(knowledge.public), axis=0).max() < 1e-6:
            return knowledge.public.mean(0).expand(self.pictures.shape).clone()
        return self.pictures


def test_what_comes_out_of_a_model_of_other_people_too_is_no_leak_of_this_one():
    """A model whose last layer starts at zero says nothing, and of it nothing else comes out than the mean face."""
    data = people()
    case, split, model = case_of(data)
    members = torch.from_numpy(split.members)
    own = class_means(data.inputs[members], data.targets[members], PEOPLE)
    silent = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, PEOPLE))
    for parameter in silent.parameters():
        nn.init.zeros_(parameter)
    untrained = Target(silent, Access.WEIGHTS, bounds=data.bounds, classes=PEOPLE)
    result = reconstructions(dataclasses.replace(case, untrained=untrained), "inversion.class", Peeks(own))
    assert measure(result, "other_people") == 1.0
    assert result.verdict == "withheld"
    assert "through a model of other people 1.00 are identified" in result.reason
    assert all(bool((parameter == 0).all()) for parameter in silent.parameters())
    honest = reconstructions(dataclasses.replace(case, untrained=untrained), "inversion.class", Gives(own, model))
    assert honest.verdict == "leak"


def test_the_model_of_other_people_has_learned_them_and_nobody_is_dealt_twice():
    data = people()
    case, _, _ = case_of(data)
    assert data.others is not None
    assert case.untrained is not None
    public, groups = data.others.inputs, data.others.groups
    control, dealt = taught(case.untrained, public, groups, 0)
    labels = control.labels(public).reshape(PEOPLE, IMAGES)
    assert (labels == labels[:, :1]).all()
    assert sorted(labels[:, 0].tolist()) == dealt.tolist() == list(range(PEOPLE))
    again = taught(case.untrained, public, groups, 1)[0].labels(public).reshape(PEOPLE, IMAGES)
    assert labels[:, 0].tolist() != again[:, 0].tolist()
    two = groups < 2
    few, who = taught(case.untrained, public[two], groups[two], 0)
    assert len(who) == 2
    assert set(few.labels(public[two]).tolist()) == set(who.tolist())


def test_a_class_that_the_model_never_saw_counts_neither_as_identified_nor_as_missed():
    data = people()
    case, split, model = case_of(data)
    kept = split.members[data.targets[torch.from_numpy(split.members)].numpy() != 2]
    without = np.setdiff1d(np.arange(len(data)), np.concatenate([kept, split.population, split.public]))
    split = Split(
        members=kept, non_members=without, population=split.population, public=split.public, salt=split.salt, drawn=split.drawn
    )
    held_out = torch.from_numpy(split.non_members)
    own = class_means(data.inputs[held_out], data.targets[held_out], PEOPLE)
    result = reconstructions(dataclasses.replace(case, split=split), "inversion.class", Gives(own, model))
    assert result.value == 1.0
    assert result.low == pytest.approx(0.025 ** (1 / (PEOPLE - 1)))
    of_draws = reconstructions(dataclasses.replace(case, split=split), "inversion.class", Draws(own, model))
    assert measure(of_draws, "identified_of_draws") == pytest.approx(2 / 5)
    assert result.reason == "5 of 6 classes are judged, and of the others the model had no example"
    assert all(np.isfinite(item.value or 0.0) for item in result.metrics)


def test_public_people_may_be_numbered_with_gaps():
    data = people()
    assert data.others is not None
    gaps = dataclasses.replace(data, others=Others(data.others.inputs, data.others.groups * 7 + 3))
    without = jury_of(gaps, case_of(gaps)[1], 0).without_model["public_person_mean"]
    assert bool(torch.isfinite(without).all())
    means = class_means(data.others.inputs, data.others.groups, PEOPLE)
    assert torch.cdist(without.flatten(1), means.flatten(1)).min(1).values.max() < 1e-3


def test_of_five_people_nobody_is_among_the_first_five():
    data = people()
    few = data.targets < 5
    assert data.others is not None
    smaller = DataSet("five", data.inputs[few], data.targets[few], data.classes[:5], data.bounds, others=data.others)
    split = draw(len(smaller), SplitConfig(per_class=5), 0, targets=smaller.targets)
    assert list(jury_of(smaller, split, 0).further(smaller.inputs[::IMAGES])) == [1]


def test_somebody_elses_face_is_no_leak():
    data = people()
    case, _, model = case_of(data)
    assert data.others is not None
    result = reconstructions(case, "inversion.class", Gives(data.others.inputs[::IMAGES].clone(), model))
    assert result.verdict in ("found nothing", "nothing beyond public")


def test_an_evaluator_that_saw_what_the_attacker_has_is_refused():
    data = people()
    split = draw(len(data), SplitConfig(per_class=5), 0, targets=data.targets)
    held_out = torch.from_numpy(split.non_members)
    assert data.others is not None
    leaked = torch.cat([data.others.inputs[:-1], data.inputs[held_out[:1]]])
    with pytest.raises(DataError, match="has learned from 1 of the examples that are public too"):
        check_apart(hashes(data.inputs[held_out]), public=leaked)
    twice = data.inputs.clone()
    twice[held_out[0]] = twice[split.members[0]]
    with pytest.raises(DataError, match="has learned from 1 of the examples that are members too"):
        jury_of(dataclasses.replace(data, inputs=twice), split, 0)


@pytest.mark.parametrize("part", ["members", "non_members"])
def test_the_attacker_is_given_other_people_and_nobody_private(part: str):
    """Where one image of a private person lies among the public ones, there is no jury and no attack at all."""
    data = people()
    split = case_of(data)[1]
    assert data.others is not None
    known = jury_of(data, split, 0).known
    assert torch.equal(known.public, data.others.inputs)
    private = int(getattr(split, part)[3])
    leaked = dataclasses.replace(data.others, inputs=torch.cat([data.others.inputs[:-1], data.inputs[private : private + 1]]))
    with pytest.raises(DataError, match=f"1 of its own are among them, at the indices {private}"):
        dataclasses.replace(data, others=leaked)


def test_classes_are_not_drawn_from_a_model_that_predicts_a_value_or_from_inputs_without_bounds():
    data = people()
    case, _, model = case_of(dataclasses.replace(data, bounds=(-np.inf, np.inf), kind="table"))
    with pytest.raises(NotApplicable, match="no public bounds"):
        reconstructions(case, "inversion.class", Gives(data.inputs[:PEOPLE], model))


SHARES = SplitConfig(members=0.2, non_members=0.1, population=0.6, public=0.1)


@pytest.mark.parametrize(
    ("data", "shares", "message"),
    [
        (people(), SplitConfig(per_class=IMAGES - 1), r"finds 1 examples of class 0.*needs 2; lower data\.split\.per_class"),
        (people(side=12), SplitConfig(per_class=5), r"at least 16×16, and these are of 12×12; give.*--data\.image-size 16 16"),
        (dataclasses.replace(people(), others=None), SplitConfig(per_class=5), r"leaves no population.*split by shares"),
        (
            dataclasses.replace(people(), others=None),
            dataclasses.replace(SHARES, population=0.0, non_members=0.7),
            r"raise data\.split\.population, or leave class inversion out",
        ),
        (
            dataclasses.replace(people(), others=None),
            SplitConfig(members=0.2, non_members=0.2, population=0.6, public=0.0),
            r"raise data\.split\.public",
        ),
    ],
)
def test_a_split_that_leaves_no_judge_is_refused_before_anything_is_trained(data: DataSet, shares: SplitConfig, message: str):
    split = draw(len(data), shares, 0, targets=data.targets)
    plan = EvaluationPlan(attacks=("inversion.informed", "inversion.class"))
    with pytest.raises(DataError, match=message):
        check_plan(plan, data, splits=[split])
    with pytest.raises(DataError, match=message):
        jury_of(data, split, 0)
    check_plan(dataclasses.replace(plan, attacks=("inversion.informed",)), data, splits=[split])
    check_plan(plan, dataclasses.replace(data, bounds=(-np.inf, np.inf), kind="table"), splits=[split])


def test_a_split_with_a_judge_is_not_refused():
    data = people()
    check_jury(data, case_of(data)[1])
    alone = dataclasses.replace(data, others=None)
    check_jury(alone, draw(len(alone), SHARES, 0))
