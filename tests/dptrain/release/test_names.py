"""What a user's own files are called is not published, and what no text can hold is found."""

from typing import Any

import pytest

from dptrain.release.names import as_published, in_no_text


def card(name: str, source: str) -> dict[str, Any]:
    return {"data": {"name": name, "source": source, "classes": ["ill", "well"], "commitment": "4f"}, "steps_taken": 3}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("ward 7, J. Doe", "ward 7, J. Doe, given by the user"),
        ("faces", "ward 7.npz, averaged down from 112×92 to 56×46 (given by the user)"),
        ("graph", "ward 7.npz (your own)"),
        ("doe`s.csv", "doe`s.csv, given by the user"),
    ],
)
def test_a_file_of_the_users_own_is_not_named(name: str, source: str):
    found = as_published(card(name, source))
    assert "ward" not in str(found)
    assert "doe" not in str(found)
    assert "given by the user" in found["data"]["source"]
    assert {**found["data"], "name": name, "source": source} == card(name, source)["data"]


def test_published_data_keep_their_name_and_their_terms():
    public = card("digits", "UCI Optical Recognition of Handwritten Digits; CC BY 4.0")
    assert as_published(public) == public
    assert as_published({"steps_taken": 3}) == {"steps_taken": 3}


def test_half_a_character_is_found_wherever_it_stands():
    garbled = {"classes": ["a", "caf\udce9"], "value": {"caf\udce9 name": 1.0}, "steps": 3}
    assert in_no_text(garbled) == ("caf\udce9", "caf\udce9 name")
    assert in_no_text({"classes": ["café", "日"], "ε": None}) == ()
