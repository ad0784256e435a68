"""MemGuard: labels stay, distortion keeps to its budget, and the owner's classifier cannot read what is shown."""

import functools

import numpy as np
import pytest
import torch

from dptrain.errors import ConfigError, UserError
from dptrain.recipe import DataConfig, Recipe, ReleaseConfig, SplitConfig
from dptrain.release.guard import fitted
from dptrain.release.memguard import MemGuard
from evaluation.metrics import area_under_roc
from tests.dptrain.release.owners import ASKED, INPUTS, OTHERS, owner, softmax

IS_MEMBER = np.arange(240) < 120


@functools.cache
def memguard(distortion: float, key: bytes = b"secret") -> MemGuard:
    made = fitted(f"memguard{distortion}", owner(key))
    assert isinstance(made, MemGuard)
    return made


def auc(scores: np.ndarray) -> float:
    return float(area_under_roc(scores, IS_MEMBER).value or 0.0)


def test_memguard_keeps_labels_and_gives_probabilities():
    shown = memguard(2.0).answers(INPUTS, ASKED).scores
    assert np.array_equal(shown.argmax(1), ASKED.argmax(1))
    assert shown.sum(1) == pytest.approx(1.0)
    assert (shown >= 0).all()


@pytest.mark.parametrize("distortion", [0.0, 0.05, 0.3])
def test_memguard_keeps_to_its_budget_on_average_for_every_query(distortion: float):
    """The same outputs for 200 inputs: the standard error of a mean of draws of size at most 2 is below .08."""
    inputs = torch.randn(200, 3, generator=torch.Generator().manual_seed(5))
    guard = memguard(distortion)
    changed = [np.abs(guard.answers(inputs, np.tile(row, (200, 1))).scores - softmax(row[None])).sum(1) for row in ASKED[::60]]
    assert all(change.mean() <= distortion + 3 * 0.08 for change in changed)
    assert (np.max(changed) == 0) == (distortion == 0)
    shown = memguard(distortion).answers(INPUTS, ASKED).scores
    assert np.abs(shown - softmax(ASKED)).sum(1).mean() <= distortion + 0.02


def test_the_owner_s_classifier_cannot_read_what_is_shown():
    guard = memguard(2.0)
    before = guard.member_logit(torch.from_numpy(ASKED)).numpy()
    after = guard.member_logit(torch.from_numpy(np.log(guard.answers(INPUTS, ASKED).scores))).numpy()
    assert auc(before) > 0.85
    assert np.median(np.abs(after)) < 0.2 * np.median(np.abs(before))
    found = guard.disguised(torch.from_numpy(ASKED))
    moved = (found != torch.from_numpy(ASKED)).any(1)
    assert moved.double().mean() > 0.9
    crossed = (guard.member_logit(found) > 0) != (guard.member_logit(torch.from_numpy(ASKED)) > 0)
    assert bool(crossed[moved].all())


def test_the_same_query_gets_the_same_answer_in_whatever_company():
    guard = memguard(0.1)
    together = guard.answers(INPUTS, ASKED).scores
    order = np.random.default_rng(0).permutation(240)
    assert guard.answers(INPUTS[order], ASKED[order]).scores == pytest.approx(together[order])
    assert guard.answers(INPUTS[7:8], ASKED[7:8]).scores == pytest.approx(together[7:8])
    assert not np.allclose(memguard(0.1, b"another").answers(INPUTS, ASKED).scores, together)


def test_it_is_fitted_on_private_examples_alone_and_says_what_to_give():
    with pytest.raises(UserError, match=r"data\.split\.population"):
        fitted("memguard", owner(others=OTHERS[:0]))
    with pytest.raises(UserError, match=r"where the private data are.*top5-rounded"):
        fitted("memguard", owner(members=None))
    shares = SplitConfig(members=0.5, non_members=0.5, population=0.0, public=0.0)
    with pytest.raises(ConfigError, match=r"data\.split\.population is 0"):
        Recipe(data=DataConfig(split=shares), release=ReleaseConfig(guard="memguard"))
    Recipe(data=DataConfig(split=shares), release=ReleaseConfig(guard="top5"))
