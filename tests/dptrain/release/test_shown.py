"""What guards leave out, by hand."""

import numpy as np
import pytest
import torch

from dptrain.release.guard import Answers, fitted, stated
from tests.dptrain.release.owners import owner

SCORES = np.array([[0.06, 0.52, 0.04, 0.02, 0.36], [0.25, 0.24, 0.17, 0.17, 0.17]])
INPUTS = torch.zeros(2, 3)


def shown(text: str, scores: np.ndarray = SCORES) -> Answers:
    return fitted(text, owner()).answers(INPUTS[: len(scores)], np.log(scores))


def test_label_only_shows_the_label():
    answers = shown("label_only")
    assert answers.scores.tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert answers.labels.tolist() == [1, 0]
    assert answers.shows == "label"
    assert answers.shown is not None
    assert answers.shown.tolist() == [[1], [0]]


def test_top_shows_the_best_classes_with_their_scores():
    answers = shown("top2")
    assert answers.scores == pytest.approx(np.array([[0, 0.52, 0, 0, 0.36], [0.25, 0.24, 0, 0, 0]]))
    assert answers.shown is not None
    assert answers.shown.tolist() == [[1, 4], [0, 1]]
    assert answers.shows == "scores"


def test_labels_show_the_order_and_nothing_else_of_the_scores():
    answers = shown("labels3")
    assert answers.shown is not None
    assert answers.shown.tolist() == [[1, 4, 0], [0, 1, 2]]
    assert answers.scores == pytest.approx(np.array([[1 / 6, 1 / 2, 0, 0, 1 / 3], [1 / 2, 1 / 3, 1 / 6, 0, 0]]))
    assert answers.shows == "ranks"
    surer = np.array([[0.02, 0.9, 0.012, 0.008, 0.06]])
    assert np.array_equal(shown("labels3", surer).scores, answers.scores[:1])


def test_rounding_hides_what_is_beyond_its_decimals():
    assert shown("rounded").scores == pytest.approx(np.array([[0.1, 0.5, 0, 0, 0.4], [0.2, 0.2, 0.2, 0.2, 0.2]]))
    assert shown("rounded2").scores == pytest.approx(SCORES)
    near = SCORES[:1] + np.array([[0.004, -0.01, 0.002, 0.002, 0.002]])
    assert np.array_equal(shown("rounded", near).scores, shown("rounded").scores[:1])


def test_rounded_scores_tell_no_order_but_their_own_and_which_class_is_best():
    """Of .23, .27, … both count as .2 and .3; of .25 and .24 both are .2, and the first class is as good as any."""
    scores = np.array([[0.18, 0.21, 0.24, 0.19, 0.18]])
    assert shown("rounded", scores).labels.tolist() == [0]
    behind = shown("top2-rounded", scores)
    assert behind.shown is not None
    assert behind.shown.tolist() == [[2, 1]]
    assert behind.labels.tolist() == [2]
    equal = np.array([[0.21, 0.19, 0.23, 0.17, 0.2]])
    for text in ("top4-rounded", "top4-rounded-labels4"):
        answers = shown(text, equal)
        assert answers.shown is not None
        assert answers.shown.tolist() == [[2, 0, 1, 4]], text
    one_lower = shown("top4-rounded", np.array([[0.3, 0.01, 0.06, 0.3, 0.33]])).shown
    assert one_lower is not None
    assert one_lower.tolist() == [[4, 0, 3, 2]]


def test_temperature_is_the_softmax_of_divided_logits():
    logits = np.array([[3.0, -1.0, 0.5, 300.0, -300.0], [0.1, 0.2, 0.3, 0.4, 0.5]])
    for number in (0.25, 1.0, 4.0, 1000.0):
        wanted = torch.from_numpy(logits / number).softmax(1).numpy()
        assert fitted(f"temperature{number:g}", owner()).answers(INPUTS, logits).scores == pytest.approx(wanted, abs=1e-12)


def test_what_is_stated_of_the_best_classes_holds_whatever_else_is_said():
    """Of fewer classes than the number, and of a part that shows fewer before it."""
    assert stated("top9").startswith("No more than the 9 most probable classes")
    assert stated("labels9").startswith("No more than the 9 most probable classes")


def test_rejection_refuses_what_is_no_number():
    scores = np.array([[np.nan, 0.9, 0.1, 0.0, 0.0], [0.9, 0.1, 0.0, 0.0, 0.0]])
    assert fitted("reject0.52", owner()).through(INPUTS, Answers.of(scores)).refused.tolist() == [True, False]


def test_rejection_refuses_below_its_threshold_and_answers_at_it():
    scores = np.array([[0.1, 0.52, 0.03, 0.05, 0.3], [0.1, 0.519, 0.031, 0.05, 0.3]])
    answers = fitted("reject0.52", owner()).through(INPUTS, Answers.of(scores))
    assert answers.refused.tolist() == [False, True]
    assert answers.labels.tolist() == [1, -1]
    assert answers.scores[1].tolist() == [0.0] * 5
