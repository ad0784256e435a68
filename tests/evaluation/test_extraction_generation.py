"""A model that learned a secret by heart says it by every method, one that did not says it by none, and near is near."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dptrain.data.alphabet import LABELS, START, encode
from dptrain.data.secrets import PATTERNS, Pattern
from dptrain.models.lstm import CharacterLSTM
from evaluation.access import Access
from evaluation.extraction import patterns
from evaluation.extraction.generation import METHODS, edit_distance, generate, nearly, recovered, restricted, sample
from evaluation.extraction.patterns import from_training, is_card, scan
from evaluation.extraction.space import at_least, scored
from evaluation.target import Target

BEFORE = "The PIN of Odo Fenn is "


class ByHeart(nn.Module):
    """Says one text after its beginning, with the given certainty, whatever came before."""

    def __init__(self, text: str, certainty: float):
        super().__init__()
        self.register_buffer("text", encode(text))
        self.certainty = certainty

    def forward(self, tokens: Tensor) -> Tensor:
        logits = torch.zeros(*tokens.shape, len(LABELS))
        places = min(tokens.shape[1], len(self.text))  # pyright: ignore[reportArgumentType]
        logits[:, range(places), self.text[:places]] = self.certainty  # pyright: ignore[reportIndexIssue]
        return logits


def behind(text: str, certainty: float = 12.0) -> Target:
    bounds = (0.0, float(len(LABELS) - 1))
    return Target(ByHeart(text, certainty), Access.SCORES, bounds=bounds, classes=len(LABELS), kind="language")


@pytest.mark.parametrize("kind", ["card", "email", "password", "pin"])
def test_what_was_learned_by_heart_is_said_by_every_method(kind: str):
    pattern, generator = PATTERNS[kind], np.random.default_rng(0)
    secret = pattern.draw(generator)
    tries = generate(behind(BEFORE + secret), BEFORE, pattern, generator)
    assert {method for method in METHODS if recovered(secret, tries[method])} == set(METHODS)
    assert {len(tries[method]) for method in ("restricted", "greedy", "beam")} == {1}
    other = pattern.draw(generator)
    assert not any(recovered(other, tries[method]) for method in METHODS)


def test_a_card_number_of_the_restricted_search_has_its_check_digit():
    wrong = "4000000000000000"
    assert not is_card(wrong)
    (said,) = generate(behind(BEFORE + wrong, 4.0), BEFORE, PATTERNS["card"], np.random.default_rng(0))["restricted"]
    assert is_card(said)
    assert edit_distance(said, wrong) == 1


def test_a_letter_in_the_way_stops_greedy_and_not_the_restricted_search():
    tries = generate(behind(BEFORE + "x83920"), BEFORE, PATTERNS["pin"], np.random.default_rng(0))
    assert tries["greedy"] == ("x83920",)
    assert tries["restricted"][0].isdigit()
    assert nearly("483920", tries["greedy"])


def test_samples_follow_the_model_s_probabilities():
    target = behind("0", certainty=np.log(32.0))  # 32 against 95 others of weight 1, the start left out: 32 / 128 of all 97
    drawn = sample(target, "", 1, 20_000, np.random.default_rng(0), top_k=len(LABELS))
    assert np.mean([text == "0" for text in drawn]) == pytest.approx(32 / (32 + len(LABELS) - 2), abs=0.01)
    colder = sample(target, "", 1, 20_000, np.random.default_rng(0), temperature=0.5, top_k=len(LABELS))
    assert np.mean([text == "0" for text in colder]) == pytest.approx(1024 / (1024 + len(LABELS) - 2), abs=0.01)
    assert set(sample(target, "", 1, 100, np.random.default_rng(0), top_k=1)) == {"0"}
    assert START == 0
    assert all(len(text) == 1 for text in drawn)  # the sign for the start is never said: it would be no text


@pytest.mark.parametrize(
    ("first", "second", "distance"), [("", "", 0), ("abc", "abc", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
)
def test_edit_distances(first: str, second: str, distance: int):
    assert edit_distance(first, second) == edit_distance(second, first) == distance


def test_near_is_a_tenth_of_the_length_and_at_least_one():
    assert nearly("483920", ("483921",))
    assert not nearly("483920", ("483911",))
    assert nearly("a" * 20, ("a" * 18 + "bb",))
    assert not nearly("a" * 20, ("a" * 17 + "bbb",))


def test_a_scan_finds_each_kind_and_no_lookalikes():
    found = scan(
        "Write to odo.fenn@mail.example.org or call +49 30 1234567, 030-123-4567. Card 4111 1111 1111 1111, not "
        "4111111111111112. The PIN of Odo Fenn is 483920. password: hunter22, The password is of no use; a pin is small"
    )
    assert found["email"] == {"odo.fenn@mail.example.org"}
    assert found["phone"] >= {"030-123-4567"}
    assert found["card"] == {"4111111111111111"}
    assert {"483920", "hunter22"} <= found["pin_or_password"]
    assert "small" not in found["pin_or_password"]
    assert set(found) == set(patterns.KINDS)


@pytest.mark.parametrize("kind", ["card", "email", "password", "pin"])
def test_every_made_up_secret_is_found_where_it_stands(kind: str):
    pattern, where = PATTERNS[kind], {"card": "card", "email": "email"}.get(kind, "pin_or_password")
    generator = np.random.default_rng(0)
    for _ in range(20):
        secret = pattern.draw(generator)
        assert secret in scan(f"before\n{pattern.before.format('Odo Fenn')}{secret}\nafter")[where]  # pyright: ignore[reportArgumentType]


def test_only_what_was_trained_on_and_is_not_public_counts():
    said = "a@b.org c@d.org e@f.org"
    found = from_training(said, training="a@b.org c@d.org", public="see c@d.org")
    assert found["email"] == {"a@b.org"}
    assert not found["card"]


@pytest.mark.parametrize(("digits", "holds"), [("4111111111111111", True), ("4111111111111112", False), ("0", False)])
def test_check_digits(digits: str, holds: bool):
    assert is_card(digits) is holds


def test_the_restricted_search_names_a_secret_exactly_where_its_rank_is_one():
    """The search goes through all candidates: a secret that is known well and is not the first one is not named."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = CharacterLSTM(len(LABELS), 8)
    with torch.no_grad():
        model.head.weight.mul_(4.0)
    target = Target(model, Access.SCORES, bounds=(0.0, 97.0), classes=len(LABELS), kind="language")
    places, before = ("0123456789",) * 3, "The PIN of Odo is "
    pattern = Pattern("", lambda generator: "".join(map(str, generator.integers(10, size=3))), places)
    said = restricted(target, before, pattern)
    every = ["".join(digits) for digits in itertools.product(*places)]
    scores = scored(target, before, every)
    ranks = [at_least(target, before, places, float(score)) for score in np.sort(scores)[::-1][:5]]
    assert ranks == [1, 2, 3, 4, 5]
    assert said == every[int(scores.argmax())]
