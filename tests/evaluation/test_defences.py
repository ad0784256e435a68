"""Defences on the faces: what lowers identification, and what stops one attack alone."""

import functools

import pytest
import torch

import dptrain.data
from dptrain.data.dataset import DataSet
from dptrain.data.split import Split, draw
from dptrain.recipe import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PrivacyConfig,
    Recipe,
    RegularizationConfig,
    SplitConfig,
    TrainingConfig,
)
from dptrain.trainer import build_training
from evaluation.access import Access
from evaluation.inversion.class_ import ClassInversion
from evaluation.inversion.knowledge import ClassKnowledge
from evaluation.inversion.logit import LogitInversion
from evaluation.inversion.recogniser import Recogniser
from evaluation.target import Target

DATA = DataConfig(name="faces", split=SplitConfig(per_class=7))
MEMBERS = 140


@functools.cache
def people() -> tuple[DataSet, Split, Recogniser]:
    """The faces, whose are members, and who judges: the same for every defence."""
    data = dptrain.data.load(DATA)
    split = draw(len(data), DATA.split, 0, targets=data.targets)
    held = torch.from_numpy(split.non_members)
    return data, split, Recogniser.train(data.inputs[held], data.targets[held], len(data.classes))


@functools.cache
def defended(regularization: RegularizationConfig) -> tuple[float, float, float]:
    """Accuracy on held-out images, and the share of 20 people identified by MI-Face and by the attack through logits."""
    data, split, judge = people()
    recipe = Recipe(
        data=DATA,
        model=ModelConfig(name="mlp", hidden=(100,)),
        optimizer=OptimizerConfig(learning_rate=0.1, momentum=0.9),
        privacy=PrivacyConfig(mechanism="none", expected_batch_size=float(MEMBERS)),
        regularization=regularization,
        training=TrainingConfig(steps=300),
    )
    torch.manual_seed(0)
    training = build_training(recipe, data, split.members, 0)
    for batch in training.batches():
        training.step(batch)
    held = torch.from_numpy(split.non_members)
    target = Target(training.model, Access.GRADIENTS, bounds=data.bounds, classes=len(data.classes))
    right = float((torch.from_numpy(target.labels(data.inputs[held])) == data.targets[held]).double().mean())
    assert data.others is not None
    knowledge = ClassKnowledge(data.input_shape, data.others.inputs, data.others.groups)
    found = []
    for attack in (ClassInversion(), LogitInversion()):
        share = judge.identified(attack.run(target, knowledge, torch.Generator().manual_seed(0))).value
        assert share is not None
        found.append(share)
    return right, found[0], found[1]


@pytest.mark.slow
@pytest.mark.usefixtures("shared_data")
@pytest.mark.parametrize(
    "regularization",
    [RegularizationConfig(information_bottleneck=0.03), RegularizationConfig(freeze=-1)],
    ids=["information bottleneck", "freeze"],
)
def test_fewer_people_are_identified_at_no_more_than_a_little_accuracy(regularization: RegularizationConfig):
    plain, behind = defended(RegularizationConfig()), defended(regularization)
    assert behind[0] >= plain[0] - 0.05
    assert behind[1] <= plain[1] - 0.1
    assert behind[2] <= plain[2] - 0.1


@pytest.mark.slow
@pytest.mark.usefixtures("shared_data")
def test_negative_smoothing_stops_mi_face_and_not_the_attack_through_logits():
    """Its scores reach 1 at once, where MI-Face stops: an attacker who knows of it asks for logits."""
    plain, behind = defended(RegularizationConfig()), defended(RegularizationConfig(label_smoothing=-0.2))
    assert behind[1] <= plain[1] - 0.2
    assert behind[2] >= plain[2] - 0.05
