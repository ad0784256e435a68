"""Every candidate has the score of a whole forward pass, ranks are those of brute force, and the best one is the best one."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dptrain.data.alphabet import LABELS, START, encode
from dptrain.models.lstm import CharacterLSTM
from evaluation.access import Access, AccessError
from evaluation.extraction import space
from evaluation.extraction.space import at_least, beam, best, scored
from evaluation.target import Target

BEFORE, PLACES = "The PIN of Odo is ", ("0123", "ab-", "7", "xyz0")
EVERY = ["".join(letters) for letters in itertools.product(*PLACES)]


class Plain(nn.Module):
    """The same model without a state that could be shared."""

    def __init__(self, model: CharacterLSTM):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens)


def lstm() -> CharacterLSTM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = CharacterLSTM(len(LABELS), 16)
    with torch.no_grad():
        model.head.weight.mul_(4.0)
    return model


def behind(model: nn.Module, access: Access = Access.SCORES) -> Target:
    return Target(model, access, bounds=(0.0, 97.0), classes=len(LABELS), kind="language")


def by_brute_force(target: Target) -> np.ndarray:
    texts = torch.stack([encode(BEFORE + text) for text in EVERY])
    inputs = torch.cat([torch.full((len(EVERY), 1), START), texts[:, :-1]], 1)
    return target.log_likelihoods(inputs, texts)[:, len(BEFORE) :].sum(1)


@pytest.fixture(params=[lambda model: model, Plain], ids=["shared state", "whole passes"])
def target(request: pytest.FixtureRequest) -> Target:
    return behind(request.param(lstm()))


@pytest.fixture(params=[3, 4096])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(space, "CHUNK", request.param)
    return request.param


@pytest.mark.usefixtures("chunk")
def test_scores_are_those_of_whole_forward_passes(target: Target):
    expected = by_brute_force(target)
    shuffled = np.random.default_rng(0).permutation(len(EVERY))
    assert scored(target, BEFORE, [EVERY[at] for at in shuffled]) == pytest.approx(expected[shuffled], abs=1e-5)
    assert scored(target, BEFORE, [EVERY[5], EVERY[5]]) == pytest.approx(expected[[5, 5]], abs=1e-5)


@pytest.mark.usefixtures("chunk")
def test_every_rank_is_that_of_brute_force(target: Target):
    expected = by_brute_force(target)
    ranks = [at_least(target, BEFORE, PLACES, float(score)) for score in expected]
    assert ranks == [int((expected >= score).sum()) for score in expected]
    assert min(ranks) == 1
    assert max(ranks) == len(EVERY)


@pytest.mark.usefixtures("chunk")
def test_the_best_candidate_is_found_even_where_a_beam_of_one_misses_it(target: Target):
    expected = by_brute_force(target)
    found = best(target, BEFORE, PLACES, width=1)
    assert found.text == EVERY[int(expected.argmax())]
    assert found.score == pytest.approx(expected.max(), abs=1e-5)


def test_a_beam_as_wide_as_the_space_is_the_whole_order(target: Target):
    expected = by_brute_force(target)
    found = beam(target, BEFORE, PLACES, width=len(EVERY))
    assert [one.text for one in found] == [EVERY[at] for at in np.argsort(-expected)]


def test_an_unrestricted_beam_may_say_any_character_but_the_start(target: Target):
    found = beam(target, BEFORE, 2, width=len(LABELS) ** 2)
    assert len(found) == (len(LABELS) - 1) ** 2
    assert {len(one.text) for one in found} == {2}
    assert np.exp([one.score for one in found]).sum() <= 1 + 1e-6


def test_a_model_that_says_nothing_ranks_everything_last():
    silent = lstm()
    nn.init.zeros_(silent.head.weight)
    nn.init.zeros_(silent.head.bias)
    target = behind(silent)
    score = float(scored(target, BEFORE, EVERY[:1])[0])
    assert at_least(target, BEFORE, PLACES, score) == len(EVERY)


def test_what_is_asked_is_counted_and_hopeless_beginnings_are_not_asked_about():
    certain = lstm()
    with torch.no_grad():
        certain.head.weight.mul_(20.0)
    target = behind(certain)
    at_least(target, BEFORE, PLACES, -np.inf)
    assert target.queries == 1 + 4 + 12 + 12  # the beginning, then every beginning but the last character
    before = target.queries
    assert at_least(target, BEFORE, PLACES, best(behind(certain), BEFORE, PLACES).score) == 1
    assert target.queries - before <= 12


def test_who_sees_labels_alone_cannot_read():
    with pytest.raises(AccessError, match="scores"):
        scored(behind(lstm(), Access.LABEL), BEFORE, EVERY[:1])
