"""HAMP: the order of a query's classes is kept, and nothing else of its scores."""

import dataclasses

import numpy as np
import pytest
import torch

from dptrain.errors import UserError
from dptrain.release.guard import Owner, fitted
from dptrain.release.hamp import HAMP, POOL
from tests.dptrain.release.owners import ASKED, CLASSES, INPUTS, WEIGHTS, owner, softmax


def hamp(of: Owner | None = None) -> HAMP:
    made = fitted("hamp", of or owner())
    assert isinstance(made, HAMP)
    return made


def test_the_order_is_kept_and_the_values_are_those_of_one_random_input():
    guard = hamp()
    answers = guard.answers(INPUTS, ASKED)
    assert np.array_equal(np.argsort(-answers.scores, axis=1), np.argsort(-ASKED, axis=1))
    pool = {tuple(row) for row in guard.pool.round(12)}
    assert {tuple(row) for row in -np.sort(-answers.scores, axis=1).round(12)} <= pool
    assert answers.scores.sum(1) == pytest.approx(1.0)


def test_two_queries_of_one_order_differ_in_nothing_but_the_draw():
    """However sure the model is of one of them."""
    sure, unsure = np.array([[9.0, 1.0, 0.0, -1.0, -2.0]]), np.array([[0.5, 0.4, 0.3, 0.2, 0.1]])
    guard = hamp()
    for query in INPUTS[:20].split(1):
        assert np.array_equal(guard.answers(query, sure).scores, guard.answers(query, unsure).scores)


def test_the_pool_is_what_the_model_says_of_inputs_between_the_bounds():
    seen: list[torch.Tensor] = []

    def outputs(inputs: torch.Tensor) -> np.ndarray:
        seen.append(inputs)
        return (inputs.double() @ WEIGHTS).numpy()

    guard = hamp(dataclasses.replace(owner(), outputs=outputs, bounds=(-3.0, 5.0)))
    (inputs,) = seen
    assert inputs.shape == (POOL, 3)
    assert bool(((inputs >= -3) & (inputs <= 5)).all())
    assert inputs.double().mean(0).numpy() == pytest.approx(1.0, abs=4 * 8 / np.sqrt(12 * POOL))
    assert guard.pool == pytest.approx(-np.sort(-softmax((inputs.double() @ WEIGHTS).numpy()), axis=1))


def test_another_key_draws_another_pool_and_the_same_key_the_same():
    assert np.array_equal(hamp().pool, hamp().pool)
    assert not np.allclose(hamp(owner(b"other")).pool[:9], hamp().pool[:9])


def test_a_random_input_of_two_equal_highest_scores_is_not_used_since_the_label_would_be_lost():
    def outputs(inputs: torch.Tensor) -> np.ndarray:
        logits = np.zeros((len(inputs), CLASSES))
        logits[::2, :2] = 1.0
        logits[1::2, 2] = 1.0
        return logits

    answers = hamp(dataclasses.replace(owner(), outputs=outputs)).answers(INPUTS, ASKED)
    assert np.array_equal(answers.labels, ASKED.argmax(1))


@pytest.mark.parametrize("says", [0.0, np.nan])
def test_behind_it_a_model_that_says_the_same_of_every_random_input_keeps_its_labels(says: float):
    """Such as one before its first step."""
    constant = hamp(dataclasses.replace(owner(), outputs=lambda inputs: np.full((len(inputs), CLASSES), says)))
    answers = constant.answers(INPUTS, ASKED)
    assert answers.scores == pytest.approx(1 / CLASSES)
    assert np.array_equal(answers.labels, ASKED.argmax(1))


def test_where_no_random_input_can_be_drawn_another_guard_is_named():
    with pytest.raises(UserError, match="labels5"):
        hamp(dataclasses.replace(owner(), bounds=(-np.inf, np.inf)))
    with pytest.raises(UserError, match="the inputs are words"):
        hamp(dataclasses.replace(owner(), reads="words"))


def test_before_another_model_it_answers_with_that_one_s_scores_for_the_same_inputs():
    other = -3 * WEIGHTS

    def outputs(inputs: torch.Tensor) -> np.ndarray:
        return (inputs.double() @ other).numpy()

    moved = fitted("hamp-top3", owner()).before(outputs)
    afresh = fitted("hamp-top3", dataclasses.replace(owner(), outputs=outputs))
    assert np.array_equal(moved.answers(INPUTS, ASKED).scores, afresh.answers(INPUTS, ASKED).scores)
    assert not np.allclose(moved.answers(INPUTS, ASKED).scores, fitted("hamp-top3", owner()).answers(INPUTS, ASKED).scores)
