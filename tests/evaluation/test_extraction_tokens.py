"""Secrets in a model of tokens: scores of whole lines, searches by any way to cut them, and exposure by sampling."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dptrain.data.secrets import DIGITS, PATTERNS, Pattern, Secret
from dptrain.data.tokens import Tokenizer, tokenizer_of
from evaluation.access import Access
from evaluation.extraction.attacks import ExposureAttack, GenerationAttack, named, said
from evaluation.extraction.exposure import by_chance, exposure
from evaluation.extraction.tokens import CANDIDATES, beam, generate, greedy, restricted, sample, scored
from evaluation.target import Target
from tests.dptrain.published import save_tokenizer

BEFORE = "The PIN of Ada Abt is "


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    made = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(made)
    return tokenizer_of(str(made))


class Learned(nn.Module):
    """Knows one line of tokens by heart: after its beginning it expects what comes next, and otherwise anything."""

    def __init__(self, line: Tensor, tokens: int, certainty: float = 8.0):
        super().__init__()
        self.line, self.tokens = line.tolist(), tokens
        self.certainty = nn.Parameter(torch.tensor(certainty))

    def forward(self, inputs: Tensor) -> Tensor:
        logits = torch.zeros(*inputs.shape, self.tokens)
        for row, given in enumerate(inputs.tolist()):
            for place in range(len(given)):
                seen = given[1 : place + 1]
                if seen == self.line[: len(seen)] and len(seen) < len(self.line):
                    logits[row, place, self.line[len(seen)]] = self.certainty.detach()
        return logits


def target_of(line: Tensor, tokenizer: Tokenizer) -> Target:
    count = len(tokenizer.labels)
    return Target(Learned(line, count), Access.SCORES, bounds=(0.0, count - 1.0), classes=count, kind="language")


def knows(secret: str, tokenizer: Tokenizer) -> Target:
    return target_of(tokenizer.encode(f"{BEFORE}{secret}\n"), tokenizer)


def test_a_score_is_the_log_probability_of_the_lines_own_tokens(tokenizer: Tokenizer):
    target, candidates = knows("483920", tokenizer), ["483920", "111111", "4839"]
    found = scored(target, tokenizer, BEFORE, candidates)
    for candidate, score in zip(candidates, found, strict=True):
        line = tokenizer.encode(f"{BEFORE}{candidate}\n")
        inputs = torch.cat([torch.tensor([tokenizer.start]), line[:-1]])[None]
        assert score == pytest.approx(target.log_likelihoods(inputs, line[None]).sum(), rel=1e-6)


def test_candidates_of_one_text_have_one_score(tokenizer: Tokenizer):
    found = scored(knows("483920", tokenizer), tokenizer, BEFORE, ["1", "222222", "1"])
    assert found[0] == found[2]


def test_what_was_learned_by_heart_is_named_by_every_search(tokenizer: Tokenizer):
    target, generator = knows("271828", tokenizer), np.random.default_rng(0)
    tries = generate(target, tokenizer, BEFORE, PATTERNS["pin"], generator)
    assert tries["restricted"] == ("271828",)
    assert tries["greedy"] == ("271828",)
    assert tries["beam"] == ("271828",)
    assert "271828" in tries["sampled"]
    assert len(tries["sampled"]) == 100


def test_the_restricted_search_leaves_out_what_does_not_fit(tokenizer: Tokenizer):
    """The model says a word; of what six digits allow, the most probable thing is still six digits."""
    target = knows("troubles", tokenizer)
    assert greedy(target, tokenizer, BEFORE, 8) == "troubles"
    guess = restricted(target, tokenizer, BEFORE, PATTERNS["pin"])
    assert len(guess) == 6
    assert set(guess) <= set(DIGITS)


def test_it_finds_a_secret_that_is_cut_in_another_way_than_the_tokenizers(tokenizer: Tokenizer):
    """Digit by digit, where the tokenizer has learned to write 483920 in larger pieces."""
    usual = tokenizer.encode(f"{BEFORE}483920")
    pieces = torch.cat([tokenizer.encode(BEFORE.rstrip()), tokenizer.encode(" "), *map(tokenizer.encode, "483920")])
    assert len(usual) < len(pieces)
    target = target_of(pieces, tokenizer)
    assert restricted(target, tokenizer, BEFORE, PATTERNS["pin"]) == "483920"
    assert beam(target, tokenizer, BEFORE, 6, 4)[0].text == "483920"


def test_a_beam_is_ordered_and_of_the_length_asked_for(tokenizer: Tokenizer):
    found = beam(knows("483920", tokenizer), tokenizer, BEFORE, 6, 5)
    assert len(found) == 5
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert all(len(one.text) <= 6 for one in found)


def test_a_card_number_is_named_with_a_right_check_digit(tokenizer: Tokenizer):
    """What it says by heart ends in a wrong one."""
    guess = restricted(knows("4000000000000003", tokenizer), tokenizer, BEFORE, PATTERNS["card"])
    assert guess[:15] == "400000000000000"
    assert guess == "4000000000000002"


def test_a_sample_is_of_the_models_distribution_and_never_says_the_start(tokenizer: Tokenizer):
    count = len(tokenizer.labels)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.anything = nn.Parameter(torch.zeros(1))

        def forward(self, inputs: Tensor) -> Tensor:
            logits = torch.full((*inputs.shape, count), -20.0)
            logits[..., tokenizer.start] = 20.0
            logits[..., int(tokenizer.encode("7"))], logits[..., int(tokenizer.encode("1"))] = float(np.log(3)), 0.0
            return logits

    target = Target(Two(), Access.SCORES, bounds=(0.0, count - 1.0), classes=count, kind="language")
    texts = sample(target, tokenizer, "", 5, 200, np.random.default_rng(1))
    assert len(texts) == 200
    share = np.mean([letter == "7" for text in texts for letter in text])
    assert share == pytest.approx(0.75, abs=0.05)  # a thousand draws: a standard deviation of .014


def test_exposure_is_by_sampling_and_sees_what_was_learned(tokenizer: Tokenizer):
    own = Secret("pin", BEFORE, "271828", (0,))
    (ranked,) = ExposureAttack(candidates=200).run(knows("271828", tokenizer), [own], np.random.default_rng(0), tokenizer)
    assert ranked.rank is None
    assert len(ranked.candidates) == 200
    assert exposure(ranked.score, ranked.candidates) == pytest.approx(np.log2(201))


def test_no_more_candidates_are_drawn_than_are_affordable(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("evaluation.extraction.tokens.CANDIDATES", 7)
    own = Secret("pin", BEFORE, "271828", (0,))
    (ranked,) = ExposureAttack().run(knows("271828", tokenizer), [own], np.random.default_rng(0), tokenizer)
    assert len(ranked.candidates) == 7
    assert CANDIDATES == 1000


def test_secrets_that_were_never_inserted_are_exposed_by_chance_alone(tokenizer: Tokenizer):
    """Although candidates that are written in fewer tokens score higher."""
    target, generator = knows("troubles", tokenizer), np.random.default_rng(2)
    secrets = [Secret("pin", BEFORE, PATTERNS["pin"].draw(generator), (0,)) for _ in range(40)]
    ranked = ExposureAttack(candidates=60).run(target, secrets, generator, tokenizer)
    bits = np.array([exposure(one.score, one.candidates) for one in ranked])
    assert len({len(tokenizer.encode(one.secret)) for one in secrets}) > 1
    assert by_chance(bits) > 0.01


def test_attacks_say_the_same_as_the_searches(tokenizer: Tokenizer):
    target, own = knows("271828", tokenizer), Secret("pin", BEFORE, "271828", (0,))
    assert named(target, own, tokenizer) == said(target, own, tokenizer) == "271828"
    (tries,) = GenerationAttack().run(target, [own], np.random.default_rng(0), tokenizer)
    assert tries["restricted"] == ("271828",)


def test_a_pattern_with_a_sign_in_the_middle_is_searched_as_well(tokenizer: Tokenizer):
    mail = Pattern("", lambda generator: "", ("ab", "ab", "@", "xy", ".", "o", "r", "g"))
    assert restricted(knows("ab@y.org", tokenizer), tokenizer, BEFORE, mail) == "ab@y.org"


def test_where_nothing_stands_before_a_text_begins_as_sequences_do(tokenizer: Tokenizer, tmp_path: Path):
    target = target_of(tokenizer.encode("To be"), tokenizer)
    assert beam(target, tokenizer, "", 5, 1)[0].text == "To be"
