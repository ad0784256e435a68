"""Only whole, checked, public releases are served."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dptrain.checkpoint import read_folder, save_release, write_folder
from dptrain.errors import CheckpointError
from dptrain.release.loading import Served, find
from tests.dptrain.release import served


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Served.load(folder)
    return str(caught.value)


def test_a_release_is_loaded_with_what_its_card_says(tmp_path: Path):
    found = Served.load(served.digits(tmp_path / "release"))
    assert (found.kind, found.input_shape, found.bounds, found.whole) == ("classification", (8, 8), (0.0, 1.0), False)
    assert found.classes == served.DIGITS
    assert found.model(torch.zeros(1, 8, 8)).shape == (1, 10)
    assert not found.model.training
    assert not any(value.requires_grad for value in found.model.parameters())


def test_the_digest_changes_with_the_weights(tmp_path: Path):
    one = Served.load(served.digits(tmp_path / "one", seed=0)).digest
    assert one == Served.load(served.digits(tmp_path / "same", seed=0)).digest
    assert one != Served.load(served.digits(tmp_path / "other", seed=1)).digest


@pytest.mark.parametrize("name", ["weights.pkl", "model.pt", ".hidden", "extra.json"])
def test_a_planted_file_is_refused_by_name_and_not_read(tmp_path: Path, name: str):
    folder = served.digits(tmp_path / "release")
    (folder / name).write_bytes(pickle.dumps({"a": 1}))
    assert name in refused(folder)


def test_a_pickle_in_the_place_of_the_weights_is_refused_even_where_the_manifest_was_made_to_fit(tmp_path: Path):
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(ran),))

    from dptrain.checkpoint import write_folder

    files = {"model.safetensors": pickle.dumps(Payload()), "card.json": json.dumps(served.card_of_digits()).encode()}
    write_folder(tmp_path / "release", files)
    assert "safetensors" in refused(tmp_path / "release")
    assert not ran.exists()


def test_a_changed_file_is_refused(tmp_path: Path):
    folder = served.digits(tmp_path / "release")
    card = folder / "card.json"
    card.write_text(card.read_text().replace("2.0", "1.0"))
    assert "card.json" in refused(folder)


@pytest.mark.parametrize("missing", ["manifest.json", "card.json", "model.safetensors"])
def test_a_missing_file_is_refused(tmp_path: Path, missing: str):
    folder = served.digits(tmp_path / "release")
    (folder / missing).unlink()
    assert missing in refused(folder)


def test_links_and_pipes_are_refused(tmp_path: Path):
    folder = served.digits(tmp_path / "release")
    weights = folder / "model.safetensors"
    shutil.move(weights, tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refused(folder)
    weights.unlink()
    os.mkfifo(weights)
    assert "plain files" in refused(folder)


def test_what_lies_below_private_is_refused_also_through_a_link(tmp_path: Path):
    folder = served.digits(tmp_path / "private" / "release")
    assert "never served" in refused(folder)
    (tmp_path / "public").symlink_to(folder)
    assert "never served" in refused(tmp_path / "public")


def test_a_run_is_served_by_what_was_published_of_it_or_else_by_its_release(tmp_path: Path):
    release = served.digits(tmp_path / "run" / "release")
    assert find(tmp_path / "run") == release
    assert find(release) == release
    published = served.digits(tmp_path / "run" / "published")
    assert find(tmp_path / "run") == published


def test_of_a_comparison_one_run_has_to_be_named(tmp_path: Path):
    served.digits(tmp_path / "digits" / "eps=02.00" / "seed=0" / "release")
    with pytest.raises(CheckpointError, match=r"name one of them: .*eps=02.00/seed=0"):
        find(tmp_path / "digits")
    for nothing in (tmp_path / "none", tmp_path):
        with pytest.raises(CheckpointError, match="no release"):
            find(nothing)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path):
    found = Served.load(served.digits(tmp_path / "release"))
    weights = {name: value.clone() for name, value in found.model.state_dict().items()}
    next(iter(weights.values()))[0] = float("nan")
    save_release(tmp_path / "broken", weights, found.card)
    assert "NaN" in refused(tmp_path / "broken")


@pytest.mark.parametrize(
    "change",
    [
        {"data": None},
        {"data": {"graph": {"features": 3}, "classes": []}},
        {"data": {"input_shape": [], "classes": ["a"], "bounds": [0, 1]}},
        {"data": {"input_shape": [8, 8], "classes": [], "bounds": [0, 1]}},
        {"data": {"input_shape": [8, 8], "classes": ["a"], "bounds": [0, "inf"]}},
        {"data": {"input_shape": [8, 8], "classes": ["a"], "bounds": [0, 1], "models": "pictures"}},
        {"recipe": {}},
        {"recipe": {"model": {"name": "mlp", "hidden": [16]}, "regularization": {"unknown": 1}}},
    ],
)
def test_cards_that_say_too_little_or_too_much_are_refused(tmp_path: Path, change: dict[str, Any]):
    found = Served.load(served.digits(tmp_path / "release"))
    save_release(tmp_path / "broken", found.model.state_dict(), found.card | change)
    assert str(tmp_path) in refused(tmp_path / "broken")


def test_weights_of_another_model_are_refused(tmp_path: Path):
    found = Served.load(served.digits(tmp_path / "release"))
    other = Served.load(served.dose(tmp_path / "dose"))
    save_release(tmp_path / "broken", other.model.state_dict(), found.card)
    assert "does not fit" in refused(tmp_path / "broken")


def test_a_card_that_cannot_be_sent_is_refused_at_once(tmp_path: Path):
    """A folder of images names a class, and its name may be any bytes."""
    folder = served.digits(tmp_path / "release", classes=["caf\udce9", *map(str, range(9))])
    assert "'caf\\udce9'" in refused(folder)
    files = read_folder(served.digits(folder, name="here"))
    write_folder(folder, files | {"card.json": files["card.json"].replace(b'"here"', b"NaN")})
    assert "NaN" in refused(folder)
