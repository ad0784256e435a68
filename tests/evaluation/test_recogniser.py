"""The judge of pictures of people: it knows poor pictures, is apart from target and attacker, and says how good it is."""

import math

import pytest
import torch
from torch import Tensor

from dptrain.errors import DataError
from evaluation.inversion import recogniser
from evaluation.inversion.evaluator import Judge, check_apart, nearest_distance
from evaluation.inversion.pictures import blurred
from evaluation.inversion.recogniser import Recogniser, standardised, varied

CLASSES = 4


def people(each: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures of four blobs at different places, each picture a little different."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(18.0), indexing="ij")
    targets = torch.arange(CLASSES).repeat(each)
    width = torch.tensor([2.0, 3.0, 4.0, 6.0])[targets].view(-1, 1, 1)
    shape = torch.exp(-((rows - 10) ** 2 + (columns - 9) ** 2) / (2 * width**2)) - 0.5
    return (shape.unsqueeze(1) + 0.05 * torch.randn(len(targets), 1, 20, 18, generator=generator)), targets


@pytest.fixture(scope="module")
def judge() -> Recogniser:
    return Recogniser.train(*people(3, 0), CLASSES)


def test_it_recognises_sharp_and_blurred_and_brighter_pictures_that_it_never_saw(judge: Recogniser):
    unseen, targets = people(10, 1)
    for pictures in (unseen, blurred(unseen, 1.0), 0.7 * unseen + 0.2, unseen.flip(3)):
        accuracy = judge.accuracy(pictures, targets)
        assert accuracy.value is not None
        assert accuracy.value >= 0.9
        assert accuracy.name == "evaluator_accuracy"


def test_a_linear_form_learns_by_the_same_loop_and_is_another_model(judge: Recogniser):
    linear = Recogniser.train(*people(3, 0), CLASSES, form="linear")
    assert not list(linear.body.parameters())
    accuracy = linear.accuracy(*people(10, 1)).value
    assert accuracy is not None
    assert accuracy >= 0.9
    assert len(list(judge.body.parameters())) == 10


def test_identification_counts_the_first_most_classes(judge: Recogniser):
    pictures = people(1, 2)[0]
    assert judge.identified(pictures).value == 1.0
    assert judge.identified(pictures.roll(1, 0)).value == 0.0
    assert judge.identified(pictures.roll(1, 0), most=CLASSES).value == 1.0
    assert judge.identified(pictures, most=CLASSES).name == "identified_top4"


def test_pictures_of_one_person_are_nearer_in_its_embedding_than_another_persons(judge: Recogniser):
    first, second = (judge.embedding(people(5, seed)[0]) for seed in (3, 4))
    assert torch.allclose(first.norm(dim=1), torch.ones(len(first)))
    own = nearest_distance(first[:1], second[0::CLASSES])
    other = nearest_distance(first[:1], second[2::CLASSES])
    assert own[0] < other[0]


def test_the_same_seed_trains_the_same_judge_and_leaves_the_global_generator_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recogniser, "STEPS", 5)
    before = torch.get_rng_state()
    first, again = (Recogniser.train(*people(2, 0), CLASSES, seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.head.weight, again.head.weight)


def test_what_the_evaluator_saw_must_not_be_what_target_or_attacker_used(judge: Recogniser):
    seen, _ = people(3, 0)
    members, public = people(3, 1)[0], people(3, 2)[0]
    check_apart(judge.seen, members=members, public=public)
    with pytest.raises(DataError, match="learned from 1 of the examples that are public too"):
        check_apart(judge.seen, members=members, public=torch.cat([public, seen[4:5]]))
    with pytest.raises(DataError, match="learned from 12 of the examples that are members"):
        check_apart(judge.seen, members=seen, public=public)
    support = Judge.train(*people(3, 0), CLASSES)
    with pytest.raises(DataError, match="members too"):
        check_apart(support.seen, members=seen)


def test_a_class_with_one_picture_and_pictures_too_small_are_refused():
    inputs, targets = people(2, 0)
    with pytest.raises(DataError, match=r"finds 1 examples of class 3.*needs 2; give it more"):
        Recogniser.train(inputs[:-1], targets[:-1], CLASSES)
    with pytest.raises(DataError, match=r"at least 16×16, and these are of 8×8"):
        Recogniser.train(inputs[..., :8, :8], targets, CLASSES)


def test_a_blur_is_the_gaussian_of_its_deviation():
    point = torch.zeros(1, 1, 31, 31)
    point[..., 15, 15] = 1.0
    found = blurred(point, 2.0)
    assert float(found.sum()) == pytest.approx(1.0)
    assert float(found[0, 0, 15, 17] / found[0, 0, 15, 15]) == pytest.approx(math.exp(-0.5))
    assert float(found[0, 0, 17, 17] / found[0, 0, 15, 15]) == pytest.approx(math.exp(-1.0))
    flat = torch.full((2, 3, 9, 7), 0.4)
    assert torch.allclose(blurred(flat, 1.5), flat)
    assert blurred(flat, 0.0) is flat


def test_variations_stay_pictures_of_their_own_and_standardising_forgets_contrast_and_brightness():
    pictures = people(2, 0)[0]
    found = varied(pictures, torch.Generator().manual_seed(0))
    assert found.shape == pictures.shape
    assert not torch.isclose(found, pictures).all((1, 2, 3)).any()
    assert torch.allclose(standardised(3 * pictures + 1), standardised(pictures), atol=0.02)
