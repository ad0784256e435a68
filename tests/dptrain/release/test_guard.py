"""Guards: their text, their order, and the same answer to the same query in whatever company."""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import dptrain.data
from dptrain.data.split import draw
from dptrain.errors import ConfigError, UserError
from dptrain.recipe import DataConfig, PrivacyConfig, Recipe, ReleaseConfig, TrainingConfig
from dptrain.registry import GUARDS
from dptrain.release.guard import Answers, Chain, Guard, Owner, fitted, needs_members, needs_model, parse, stated
from dptrain.release.parts import TERMS, Number, Part, Terms
from dptrain.release.shown import LabelOnly, Top
from dptrain.trainer import Trainer
from tests.dptrain.release.owners import ASKED, CLASSES, INPUTS, owner, said, softmax

CHAINS = ("top3-rounded", "memguard0.5-top3-rounded2", "reject0.6-top2", "hamp-labels3", "temperature4-reject0.3-label_only")
EVERY = (*(said(name) for name in TERMS), *CHAINS)


@functools.cache
def guard(text: str) -> Guard:
    return fitted(text, owner())


# -- its text -------------------------------------------------------------------------------------------------------


def test_a_text_says_parts_and_their_numbers():
    assert parse("top5-rounded") == (Part("top", 5.0), Part("rounded", 1.0))
    assert parse("memguard0.5-top3-rounded2") == (Part("memguard", 0.5), Part("top", 3.0), Part("rounded", 2.0))
    assert parse("label_only") == (Part("label_only"),)


@pytest.mark.parametrize("text", EVERY)
def test_a_text_is_said_again_by_its_parts(text: str):
    again = "-".join(part.text for part in parse(text))
    assert parse(again) == parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memgard", "did you mean 'memguard'"),
        ("top", r"has no number; glue a whole number from 1 .* such as top5"),
        ("top2.5", r"has the number 2\.5; glue a whole number"),
        ("top0", "has the number 0"),
        ("memguard3", "a number from 0 to 2"),
        ("noisy_max0", r"ε of each answer\), such as noisy_max8"),
        ("label_only3", "takes no number, and 'label_only3' has one; give label_only"),
        ("top5-", "a part '' without a name"),
        ("5-rounded", "a part '5' without a name"),
        ("top5--rounded", "without a name"),
        ("label_only-rounded", "rounded behind label_only, which leaves it no scores; put rounded before label_only"),
        ("labels5-top3", "leaves it no scores"),
        ("top5-temperature4", "leaves it no score of every class"),
        ("temperature4-memguard", "made for the model's own scores; put it first"),
        ("reject0.6-noisy_max8", "made for the model's own scores"),
        ("", "without a name"),
        ("rounded-top5\n", "there is no guard 'top5\\\\n'"),
    ],
)
def test_a_text_that_says_no_guard_is_refused_by_a_recipe_with_what_to_type(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        ReleaseConfig(guard=text)


def test_who_needs_members_or_the_model_is_known_from_the_text_and_from_the_guard():
    assert needs_members("memguard0.5-top3")
    assert not needs_members("top3-rounded")
    assert needs_model("hamp-labels3")
    assert not needs_model("memguard")
    for name in TERMS:
        assert GUARDS[name].needs_members == (TERMS[name].fitted_on == "members"), name
    assert guard("memguard0.5-top3-rounded2").needs_members
    assert not guard("top3-rounded").needs_members


def test_every_guard_that_came_along_has_terms_and_says_what_its_number_means():
    assert set(GUARDS.names()) >= set(TERMS)
    for name, about in GUARDS.about().items():
        if name in TERMS and TERMS[name].number is not None:
            assert about.startswith(f"{said(name)}:"), name


def test_a_recipe_s_guard_is_checked_without_torch():
    code = "import sys; from dptrain.recipe import ReleaseConfig as R; R(guard='top5-rounded'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# -- what goes through -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", EVERY)
def test_what_is_shown_keeps_to_what_answers_promise(text: str):
    answers = guard(text).answers(INPUTS, ASKED)
    assert answers.scores.shape == ASKED.shape
    assert ((answers.scores >= 0) & (answers.scores <= 1)).all()
    assert (answers.scores[answers.refused] == 0).all()
    assert (answers.labels[answers.refused] == -1).all()
    if answers.shown is not None:
        assert (answers.shown[answers.refused] == -1).all()
        kept = np.flatnonzero(~answers.refused)
        in_order = np.take_along_axis(answers.scores[kept], answers.shown[kept], axis=1)
        assert (np.diff(in_order, axis=1) <= 0).all()
        assert answers.scores[kept].sum(1) == pytest.approx(in_order.sum(1))
    if guard(text).keeps_labels:
        assert np.array_equal(answers.labels, ASKED.argmax(1))


def test_parts_work_from_left_to_right():
    both = guard("top3-rounded").answers(INPUTS, ASKED)
    assert both.shown is not None
    best = np.argsort(-ASKED, axis=1)[:, :3]
    assert np.array_equal(np.sort(both.shown), np.sort(best))
    assert np.array_equal(both.labels, best[:, 0])
    assert np.take_along_axis(both.scores, both.shown, 1) == pytest.approx(
        np.round(np.take_along_axis(softmax(ASKED), both.shown, 1), 1)
    )


def test_a_refused_query_goes_through_none_of_the_rest():
    answers = guard("reject0.6-top2").answers(INPUTS, ASKED)
    highest = softmax(ASKED).max(1)
    assert 0 < answers.refused.sum() < len(ASKED)
    assert np.array_equal(answers.refused, highest < 0.6)
    sure = highest >= 0.6
    alone = guard("top2").answers(INPUTS[sure], ASKED[sure])
    assert np.array_equal(answers.scores[sure], alone.scores)
    twice = fitted("reject0.6-rounded0-reject1-labels2", owner()).answers(INPUTS, ASKED)
    assert np.array_equal(twice.refused, highest < 0.6)


def test_a_chain_without_parts_shows_everything():
    answers = Chain().answers(INPUTS, ASKED)
    assert np.array_equal(answers.scores, softmax(ASKED))
    assert answers.shown is None


# -- the same query --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", EVERY)
@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.integers(0, len(ASKED) - 1), min_size=1, max_size=40))
def test_the_same_query_gets_the_same_answer_in_a_batch_of_any_order_and_size(text: str, rows: list[int]):
    """Asked with whatever else, or twice in a batch. The scores agree to the digits in which sums in another order differ."""
    together, some = guard(text).answers(INPUTS, ASKED), guard(text).answers(INPUTS[rows], ASKED[rows])
    assert some.scores == pytest.approx(together.scores[rows], abs=1e-12)
    assert np.array_equal(some.labels, together.labels[rows])
    assert np.array_equal(some.refused, together.refused[rows])
    if together.shown is not None:
        assert some.shown is not None
        assert np.array_equal(some.shown, together.shown[rows])


# -- the key ---------------------------------------------------------------------------------------------------------


class Keyed(Guard):
    """Shows what it would draw with."""

    terms = Terms(Number("a number", 0.0, 10.0, example=1.0))

    def __init__(self, key: bytes):
        self.key = key

    @classmethod
    def fit(cls, number: float | None, owner: Owner) -> "Keyed":
        return cls(owner.key)

    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        return answers

    def statement(self) -> str:
        return self.says(None)


def test_no_two_models_guards_secrets_or_sensitivities_draw_with_one_key(monkeypatch: pytest.MonkeyPatch):
    """A server's secret outlives a release and its guard."""
    monkeypatch.setattr(GUARDS, "_added", {})
    GUARDS.register("keyed", "shows its key")(Keyed)

    def key(text: str, of: Owner) -> bytes:
        made = fitted(text, of)
        first = made.parts[0] if isinstance(made, Chain) else made
        assert isinstance(first, Keyed)
        return first.key

    made = [
        key(text, owner(secret, sensitivity=sensitivity, model=model))
        for text in (
            "keyed1",
            "keyed8",
            "keyed1.0000000000000002",
            "keyed1-top3",
            "keyed1-top3-rounded",
            "keyed1-top3-rounded2",
        )
        for secret in (b"secret", b"other")
        for sensitivity in (1.0, 0.5)
        for model in ("the model", "the next")
    ]
    assert len(set(made)) == len(made) == 48
    assert key("keyed1-top3-rounded", owner()) == key("keyed1.0-top3-rounded1", owner()) != owner().key


@pytest.mark.parametrize(("change", "says"), [({"text": "noisy_max1"}, "guard"), ({"model": "the next"}, "model")])
def test_whether_two_guards_agree_says_no_more_than_their_noise_allows(change: dict[str, str], says: str):
    """Of a query that both answer with ε = 8 and even scores, they agree half the time: with one noise they always would, and
    would not with other scores, which tells the scores apart for certain."""
    inputs, even = torch.arange(4000.0)[:, None], np.zeros((4000, 2))
    here = fitted("noisy_max8", owner()).answers(inputs, even).labels
    there = fitted(change.get("text", "noisy_max8"), owner(model=change.get("model", "the model"))).answers(inputs, even).labels
    assert (here == there).mean() == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5), says


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sensitivity": 0.0}, "the sensitivity is 0.0, .* above 0 and at most 1"),
        ({"sensitivity": 2.0}, "the sensitivity is 2.0"),
        ({"sensitivity": float("nan")}, "the sensitivity is nan"),
        ({"sensitivity": float("inf")}, "the sensitivity is inf"),
        ({"key": b""}, "the guard's key is empty"),
        ({"model": ""}, "the model has no name"),
    ],
)
def test_an_owner_of_whom_nothing_would_hold_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        owner(**change)


# -- answers that are no numbers -------------------------------------------------------------------------------------

UNSOUND = np.array([[np.nan] * 5, [0, 0, np.inf, 0, 0], [-np.inf] * 5, [np.nan, 9, 0, 0, 0]])


@pytest.mark.parametrize("text", EVERY)
def test_a_query_of_which_the_model_gives_no_numbers_is_refused_unless_a_refusal_would_be_without_noise(text: str):
    mixed = np.concatenate([UNSOUND, ASKED[:20]])
    answers = guard(text).answers(INPUTS[:24], mixed)
    assert np.isfinite(answers.scores).all()
    sound = guard(text).answers(INPUTS[4:24], ASKED[:20])
    assert answers.scores[4:] == pytest.approx(sound.scores, abs=1e-12)
    if guard(text).answers_all:
        assert not answers.refused.any()
        assert np.array_equal(answers.labels[:4], guard(text).answers(INPUTS[:4], np.zeros((4, CLASSES))).labels)
    else:
        assert answers.refused[:4].all()
    assert guard(text).answers_all == text.startswith("noisy_max")


def test_a_class_without_any_vote_is_no_fault():
    votes = np.log(np.array([[0.5, 0.5, 1e-300, 1e-300, 1e-300]]))
    votes[votes < -100] = -np.inf
    assert Chain().answers(INPUTS[:1], votes).scores.tolist() == [[0.5, 0.5, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("text", EVERY)
def test_nothing_asked_is_nothing_answered(text: str):
    answers = guard(text).answers(INPUTS[:0], ASKED[:0])
    assert (len(answers.scores), len(answers.labels), len(answers.refused)) == (0, 0, 0)


@pytest.mark.parametrize("text", EVERY)
def test_a_guard_that_says_that_it_draws_nothing_answers_by_the_scores_alone(text: str):
    """The others do not; of HAMP's order it is the scores alone that are drawn."""
    here, elsewhere = guard(text).answers(INPUTS, ASKED), guard(text).answers(INPUTS + 1, ASKED)
    assert np.array_equal(here.scores, elsewhere.scores) == (not guard(text).draws or text == "hamp-labels3")


# -- what is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", EVERY)
def test_every_guard_says_that_it_is_no_privacy_guarantee_before_it_is_fitted_as_after(text: str):
    assert "no privacy guarantee" in stated(text)
    assert guard(text).statement() == stated(text)


def test_the_card_of_a_run_states_the_guard(tmp_path: Path):
    recipe = Recipe(
        privacy=PrivacyConfig(mechanism="none"), training=TrainingConfig(steps=1), release=ReleaseConfig(guard="top5-rounded")
    )
    digits = dptrain.data.load(DataConfig())
    split = draw(len(digits), recipe.data.split, 0)
    about = Trainer(recipe, digits, split, seed=0, folder=tmp_path, progress=False).about()
    assert about["guard"] == {"text": "top5-rounded", "statement": stated("top5-rounded")}
    bare = Trainer(
        dataclasses.replace(recipe, release=ReleaseConfig()), digits, split, seed=0, folder=tmp_path, progress=False
    ).about()
    assert "guard" not in bare


class Halved(Guard):
    """Scores are halved."""

    terms = Terms(Number("a factor", 0.0, 1.0, example=0.5, default=0.5))

    def __init__(self, factor: float):
        self.factor = factor

    @classmethod
    def fit(cls, number: float | None, owner: object) -> "Halved":
        return cls(number or 0.0)

    def through(self, inputs: Tensor, answers: Answers) -> Answers:
        return Answers(answers.scores * self.factor, answers.shown, answers.shows, answers.refused)

    def statement(self) -> str:
        return self.says(self.factor)


def test_a_guard_of_a_user_s_own_is_said_like_any_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(GUARDS, "_added", {})
    GUARDS.register("halved2", "mine, with a digit in its name")(Halved)
    assert parse("halved2-top3") == (Part("halved2", 0.5), Part("top", 3.0))
    assert parse("halved20.25") == (Part("halved2", 0.25),)
    made = fitted("halved2-label_only", owner())
    assert isinstance(made, Chain)
    assert isinstance(made.parts[1], LabelOnly)
    assert fitted("halved20.25", owner()).answers(INPUTS, ASKED).scores == pytest.approx(softmax(ASKED) / 4)
    assert "no privacy guarantee" in stated("halved2")
    with pytest.raises(ConfigError, match="halved2 behind top3"):
        parse("top3-halved2")


def test_more_classes_than_there_are_is_all_of_them():
    answers = Top(9).answers(INPUTS, ASKED)
    assert answers.shown is not None
    assert answers.shown.shape == (len(ASKED), CLASSES)
    assert np.array_equal(answers.scores, softmax(ASKED))
