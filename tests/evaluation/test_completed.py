"""What an attacker makes of answers that withhold something, by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dptrain.release.guard import Answers, Owner, fitted
from evaluation.completed import completed
from evaluation.membership.ranks import ranks

SCORES = np.array([[0.06, 0.52, 0.04, 0.02, 0.36]])
OWNER = Owner(lambda inputs: np.zeros((len(inputs), 5)), (1,), (0.0, 1.0), 5, b"key", "the model")


def of(text: str, scores: np.ndarray = SCORES) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return completed(fitted(text, OWNER).answers(torch.zeros(len(scores), 1), np.log(scores)))


def test_of_the_best_classes_what_is_missing_is_spread_evenly():
    assert of("top2") == pytest.approx(np.array([[0.04, 0.52, 0.04, 0.04, 0.36]]))
    assert of("top5") == pytest.approx(SCORES)
    assert of("top9") == pytest.approx(SCORES)


def test_of_an_order_weights_fall_with_the_rank_and_what_is_withheld_stands_below():
    assert of("labels2") == pytest.approx(np.array([[2, 5, 2, 2, 4]]) / 15)
    assert of("labels5") == pytest.approx(np.array([[3, 5, 2, 1, 4]]) / 15)


def test_a_label_is_certain_and_a_refusal_says_nothing():
    assert of("label_only").tolist() == [[0, 1, 0, 0, 0]]
    assert of("reject0.6") == pytest.approx(0.2)
    assert of("reject0.6-top2") == pytest.approx(0.2)
    assert of("reject0.6-labels2") == pytest.approx(0.2)
    assert of("reject0.6-label_only") == pytest.approx(0.2)


def test_rounded_scores_are_divided_by_their_sum():
    assert of("rounded") == pytest.approx(np.array([[0.1, 0.5, 0, 0, 0.4]]))
    assert of("rounded", np.array([[0.26, 0.26, 0.16, 0.16, 0.16]])) == pytest.approx(
        np.array([[0.25, 0.25, 1 / 6, 1 / 6, 1 / 6]])
    )
    assert of("rounded0", np.full((1, 5), 0.2)) == pytest.approx(0.2)
    assert of("top2-rounded", SCORES) == pytest.approx(np.array([[0.1 / 3, 0.5, 0.1 / 3, 0.1 / 3, 0.4]]))


def test_a_class_that_is_shown_stands_above_every_one_that_is_withheld_however_it_was_rounded():
    """Of .53, .34, .03 and seven of .0143, .2 are missing to 1 and poured over eight classes; a third of .08 stays."""
    owner = dataclasses.replace(OWNER, classes=10)

    def first(third: float, text: str) -> np.ndarray:
        scores = np.array([[0.53, 0.34, third, *[(0.13 - third) / 7] * 7]])
        return completed(fitted(text, owner).answers(torch.zeros(1, 1), np.log(scores)))[0]

    found = first(0.03, "top3-rounded")
    assert found == pytest.approx(np.array([0.5, 0.3, *[0.025] * 8]))
    assert ranks(found).tolist() == [0, 1, 2, *[6.0] * 7]
    assert first(0.08, "top3-rounded") == pytest.approx(np.array([0.5, 0.3, 0.1, *[0.1 / 7] * 7]))
    nought = first(0.03, "top1-rounded0")
    assert ranks(nought).tolist() == [0, *[5.0] * 9]
    certain = first(0.03, "top3-rounded0")
    assert certain == pytest.approx(np.array([1.0, *[0.0] * 9]), abs=1e-11)
    assert ranks(certain).tolist() == [0, 1, 2, *[6.0] * 7]


@given(arrays(float, (4, 6), elements=st.floats(1e-6, 1)), st.integers(1, 7), st.integers(0, 3))
def test_the_order_that_is_shown_is_that_of_the_numbers(raw: np.ndarray, count: int, decimals: int):
    scores = raw / raw.sum(1, keepdims=True)
    guard = fitted(f"top{count}-rounded{decimals}", dataclasses.replace(OWNER, classes=6))
    answers = guard.answers(torch.zeros(4, 1), np.log(scores))
    assert answers.shown is not None
    found = completed(answers)
    in_order = np.take_along_axis(found, answers.shown, 1)
    assert (np.diff(in_order, axis=1) < 0).all()
    for row, shown in enumerate(answers.shown):
        assert (np.delete(found[row], shown) < in_order[row, -1]).all()
    assert found.sum(1) == pytest.approx(1.0)


@given(
    arrays(float, (3, 5), elements=st.floats(1e-6, 1)),
    st.integers(1, 6),
    st.sampled_from(["top{}", "labels{}", "top{}-rounded2"]),
)
def test_they_are_probabilities_whose_best_class_is_the_one_that_is_shown(raw: np.ndarray, count: int, text: str):
    scores = raw / raw.sum(1, keepdims=True)
    answers = fitted(text.format(count), OWNER).answers(torch.zeros(3, 1), np.log(scores))
    found = completed(answers)
    assert found.sum(1) == pytest.approx(1.0)
    assert (found >= 0).all()
    assert np.array_equal(found.argmax(1), answers.labels)


def test_everything_that_is_shown_stays_as_it_is():
    assert np.array_equal(completed(Answers.of(SCORES)), SCORES / SCORES.sum())
