"""What is shown is what the guard shows, in an order that tells no more."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dptrain.errors import ConfigError
from dptrain.registry import GUARDS
from dptrain.release.guard import Answers, Guard, Owner, draws, softmax
from dptrain.release.loading import Served
from dptrain.release.predictor import Predictor
from tests.dptrain.release import served

KEY = bytes(range(32))


def predictor(folder: Path, guard: str | None) -> Predictor:
    return Predictor.of(Served.load(folder), guard, KEY, most=64)


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 8, 8, generator=torch.Generator().manual_seed(0))


class Coin(Guard):
    """Shows one of the two best classes, drawn from the key and the input."""

    def __init__(self, key: bytes):
        self.key = key

    @classmethod
    def fit(cls, number: float | None, owner: Owner) -> "Coin":
        return cls(owner.key)

    def through(self, inputs: torch.Tensor, answers: Answers) -> Answers:
        side = (draws(inputs, self.key, "coin")[:, 0] < 0.5).astype(int)
        best = np.take_along_axis(answers.best(2), side[:, None], 1)
        return Answers.ranked(best, answers.scores.shape[1], "label")

    def statement(self) -> str:
        return "One of two."


@pytest.fixture
def coin(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a guard that draws."""
    monkeypatch.setattr(GUARDS, "_added", {})
    GUARDS.register("coin")(Coin)
    return "coin"


def own_scores(made: Predictor, inputs: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return softmax(made.served.model(inputs).double().numpy())


def test_without_a_guard_every_class_is_shown_best_first(tmp_path: Path):
    made, inputs = predictor(served.digits(tmp_path / "release"), None), pictures(5)
    scores = own_scores(made, inputs)
    for row, answer in enumerate(made.answer([inputs]).answers):
        shown = [(one["label"], one["score"]) for one in answer["top"]]
        expected = sorted(((str(label), float(score)) for label, score in enumerate(scores[row])), key=lambda one: -one[1])
        assert [name for name, _ in shown] == [name for name, _ in expected]
        assert [score for _, score in shown] == pytest.approx([score for _, score in expected])
        assert answer["label"] == shown[0][0]


def test_top_five_rounded_shows_five_and_a_decimal(tmp_path: Path):
    made, inputs = predictor(served.digits(tmp_path / "release"), "top5-rounded"), pictures(20)
    for answer in made.answer([inputs]).answers:
        assert len(answer["top"]) == 5
        assert all(round(one["score"], 1) == one["score"] for one in answer["top"])


def test_equal_scores_stand_in_the_order_of_classes_so_that_rounding_is_not_undone(tmp_path: Path):
    made, inputs = predictor(served.digits(tmp_path / "release"), "top5-rounded"), pictures(40)
    ties = 0
    for answer in made.answer([inputs]).answers:
        for one, after in zip(answer["top"], answer["top"][1:], strict=False):
            assert one["score"] >= after["score"]
            if one["score"] == after["score"]:
                ties += 1
                assert int(one["label"]) < int(after["label"])
    assert ties > 20


@pytest.mark.parametrize(("guard", "shown"), [("label_only", 1), ("labels3", 3)])
def test_what_shows_no_scores_sends_none(tmp_path: Path, guard: str, shown: int):
    made, inputs = predictor(served.digits(tmp_path / "release"), guard), pictures(6)
    best = np.argsort(-own_scores(made, inputs), 1)
    for row, answer in enumerate(made.answer([inputs]).answers):
        assert answer["top"] == [{"label": str(label)} for label in best[row, :shown]]
        assert answer["label"] == str(best[row, 0])


def test_a_refused_example_says_nothing(tmp_path: Path):
    made = predictor(served.digits(tmp_path / "release"), "reject0.999")
    assert made.answer([pictures(2)]).answers == [{"label": None, "top": [], "refused": True}] * 2


def test_a_degraded_answer_shows_less_than_the_guard_and_never_more(tmp_path: Path, coin: str):
    folder, inputs = served.digits(tmp_path / "release"), pictures(30)
    open_one = predictor(folder, "top5")
    for full, less in zip(open_one.answer([inputs]).answers, open_one.answer([inputs], degrade=True).answers, strict=True):
        assert less == {"label": full["label"], "top": [{"label": full["label"]}], "refused": False}
    drawn = predictor(folder, coin)
    assert drawn.answer([inputs]).answers == drawn.answer([inputs], degrade=True).answers
    rejecting = predictor(folder, "reject0.999")
    assert all(answer["refused"] for answer in rejecting.answer([inputs], degrade=True).answers)


def test_the_same_query_gets_the_same_answer_whatever_else_is_asked(tmp_path: Path, coin: str):
    made, inputs = predictor(served.digits(tmp_path / "release"), coin), pictures(12)
    alone = [made.answer([inputs[row : row + 1]]).answers[0] for row in range(12)]
    assert made.answer([inputs]).answers == alone
    other = Predictor.of(made.served, coin, bytes(32), most=64)
    assert other.answer([inputs]).answers != alone


def test_a_monitor_is_told_the_models_own_labels_and_margins(tmp_path: Path):
    made, inputs = predictor(served.digits(tmp_path / "release"), "label_only"), pictures(7)
    found, scores = made.answer([inputs[:3], inputs[3:]]), own_scores(made, inputs)
    best = np.sort(scores, 1)
    np.testing.assert_array_equal(found.labels, scores.argmax(1))
    np.testing.assert_allclose(found.margins, best[:, -1] - best[:, -2], atol=1e-6)


def test_answers_that_are_no_numbers_are_refused(tmp_path: Path):
    made = predictor(served.digits(tmp_path / "release"), "rounded")
    with torch.no_grad():
        list(made.served.model.parameters())[-1].fill_(torch.inf)
    found = made.answer([pictures(1)])
    assert found.answers == [{"label": None, "top": [], "refused": True}]
    assert np.isfinite(found.margins).all()


def test_behind_noise_an_answer_that_is_no_number_is_no_refusal(tmp_path: Path):
    """Which would tell, without noise, what training made of the model."""
    made = predictor(served.digits(tmp_path / "release"), "noisy_max8")
    with torch.no_grad():
        list(made.served.model.parameters())[-1].fill_(torch.nan)
    found = made.answer([pictures(60)])
    assert not any(answer["refused"] for answer in found.answers)
    assert len({answer["label"] for answer in found.answers}) > 5
    assert np.isfinite(found.margins).all()


def test_another_release_draws_afresh_under_the_same_secret(tmp_path: Path):
    """Even scores, so that one answer in ten is the same by chance; with one noise all would be."""
    first, inputs = predictor(served.digits(tmp_path / "release"), "noisy_max8"), pictures(400)
    with torch.no_grad():
        list(first.served.model.parameters())[-1].fill_(torch.nan)
    again = Predictor.of(first.served, "noisy_max8", KEY, most=64)
    second = Predictor.of(dataclasses.replace(first.served, digest="another"), "noisy_max8", KEY, most=64)
    labels = [[answer["label"] for answer in made.answer([inputs]).answers] for made in (first, again, second)]
    assert labels[0] == labels[1]
    assert np.mean(np.array(labels[0]) == np.array(labels[2])) == pytest.approx(0.1, abs=4 * 0.3 / 20)


def test_a_value_comes_in_its_unit_and_is_rounded_by_its_guard(tmp_path: Path):
    folder, inputs = served.dose(tmp_path / "release"), torch.zeros(2, 5)
    plain = predictor(folder, None)
    with torch.no_grad():
        list(plain.served.model.parameters())[-1].fill_(0.1234)
    expected = 2.0 + 318.0 * (0.5 + 0.1234)
    assert plain.answer([inputs]).answers[0]["value"] == pytest.approx(expected, abs=1e-4)
    for guard, decimals in (("rounded", 1), ("rounded0", 0)):
        rounded = Predictor.of(plain.served, guard, KEY, most=64)
        assert rounded.answer([inputs]).answers == [{"value": round(expected, decimals), "refused": False}] * 2
        assert str(decimals) in rounded.statement


def test_of_a_text_it_is_said_what_comes_next_after_each(tmp_path: Path):
    made = predictor(served.text(tmp_path / "release"), "top3")
    batches = made.form.read(b'{"texts": ["To be", "or", "no"]}', "application/json")
    found = made.answer(batches)
    for row, text in enumerate(("To be", "or", "no")):
        (tokens,) = made.form.read(f'{{"texts": ["{text}"]}}'.encode(), "application/json")
        with torch.no_grad():
            best = made.served.model(tokens)[0, -1].topk(3).indices
        assert [one["label"] for one in found.answers[row]["top"]] == [made.served.classes[number] for number in best]


@pytest.mark.parametrize(
    ("make", "guard", "says"),
    [
        (served.digits, "memguard", "members"),
        (served.digits, "topp5", "topp"),
        (served.dose, "top5", "rounded alone"),
        (served.dose, "rounded-top5", "rounded alone"),
    ],
)
def test_guards_that_cannot_stand_here_are_refused(tmp_path: Path, make: Any, guard: str, says: str):
    with pytest.raises(ConfigError, match=says):
        predictor(make(tmp_path / "release"), guard)
