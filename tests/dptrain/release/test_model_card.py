"""What a model card says of private examples is rounded so that it claims no more than was measured."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dptrain.plain import as_plain, from_plain
from dptrain.plan import PrivacyPlan
from dptrain.release.model_card import Figure, ModelCard, StatedGuard, rounded
from dptrain.release.model_card_page import markdown
from dptrain.release.policy import Policy

PLAN = PrivacyPlan(sampling_rate=1.0, expected_batch_size=90, steps=6, clipping_norm=1, delta=1e-4, noise_multiplier=9)


def card(**data: Any) -> dict[str, Any]:
    guarantee = PLAN.guarantee()
    return {
        "plan": as_plain(PLAN),
        "guarantee": as_plain(guarantee),
        "steps_taken": 6,
        "data": {"name": "mine", "kind": "table", "classes": ["no", "yes"], "source": "mine.csv, given by the user", **data},
        "recipe": {"model": {"name": "linear"}},
        "versions": {"torch": "2.14.1"},
    }


def made(release: dict[str, Any], **known: Any) -> ModelCard:
    fields: dict[str, Any] = {"published": "2026-01-31", "utility": (), "policy": Policy(), "met": ("ledger",), "attacks": {}}
    epsilon = release["guarantee"]["epsilon"]
    return ModelCard.of(release, **{"epsilon": epsilon, **fields, **known})


@given(st.floats(0, 1), st.floats(0, 0.2), st.floats(0, 0.2))
def test_an_interval_of_a_share_is_never_narrower_than_it_was(value: float, below: float, above: float):
    low, high = max(0.0, value - below), min(1.0, value + above)
    shown, shown_low, shown_high = rounded(value, low, high)
    assert shown_low <= low + 1e-9
    assert high - 1e-9 <= shown_high
    assert shown_high - shown_low <= high - low + 0.0200001
    assert abs(shown - value) <= 0.0050001
    assert round(shown_low, 2) == shown_low


@pytest.mark.parametrize(
    ("given_", "shown"), [((8.437, 8.012, 8.891), (8.4, 8.0, 8.9)), ((1234.0, 1111.0, 1357.0), (1200.0, 1100.0, 1400.0))]
)
def test_other_figures_have_two_digits(given_: tuple[float, float, float], shown: tuple[float, float, float]):
    assert rounded(*given_, is_share=False) == shown


def test_both_forms_say_the_same_and_the_document_is_read_back():
    figure = Figure(name="test_accuracy", words="test accuracy", value=0.93, low=0.9, high=0.96)
    found = made(card(), utility=(figure,), guard=StatedGuard(text="label_only", statement="Only a label."))
    assert from_plain(ModelCard, as_plain(found), "model_card.json") == found
    page = markdown(found)
    for said in (found.in_words, found.statement, found.guard.statement if found.guard else "", *found.not_covered):
        assert said in page
    assert "| test accuracy | 0.93 | 0.9 to 0.96 |" in page


def test_names_that_come_from_data_are_text():
    page = markdown(made(card(classes=["a|b", "<script>", "x\n## Privacy"])))
    assert "<script>" not in page.replace("\\<", "")
    assert page.count("\n## Privacy\n") == 1
    assert "a\\|b" in page


def outside_of_code(page: str) -> str:
    """By CommonMark: code stands between two rows of as many backticks; before that, what a backslash escapes is none."""
    return re.sub(r"\\.|(`+)(.+?)(?<!`)\1(?!`)", "", page, flags=re.DOTALL)


HOSTILE = st.text(alphabet="`<>|*\\x \n", min_size=1, max_size=12).filter(str.strip)


@settings(deadline=None)  # each card counts a trade-off curve
@given(name=HOSTILE, kind=HOSTILE, model=HOSTILE)
def test_no_name_is_markup_whatever_backticks_it_holds(name: str, kind: str, model: str):
    release = card(name=f"{name}<img src=x onerror=alert(1)>{name}", kind=kind, source="a journal")
    release["recipe"]["model"]["name"] = model
    page = markdown(made(release))
    assert "alert" in page
    assert not re.search("[<>|*`]", outside_of_code(page).replace("**It is", ""))


@pytest.mark.parametrize("address", ["http://phish.example", "WWW.phish.example", "mail@phish.example", "a://b`c"])
def test_no_name_becomes_a_link(address: str):
    page = markdown(made(card(source=f"see {address} for more", classes=["no", address])))
    assert address in page
    assert address not in outside_of_code(page)


def test_what_the_users_own_file_is_called_is_in_neither_form():
    found = made(card(name="smith.csv", source="smith.csv, given by the user"))
    assert "smith" not in markdown(found) + str(as_plain(found))
    assert "Name: `data given by the user`" in markdown(found)


def test_epsilon_is_never_rounded_down():
    found = made(card(), epsilon=8.001)
    assert "ε = 8.01" in found.name
    assert "more than the" in found.ledger
    assert "8.0010" in markdown(found)
