"""Faces: whose are private is a public fact, the public people's come along, and bad files are refused in a sentence."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch

from dptrain.data.dataset import DataSet, Others
from dptrain.data.faces import bytes_of, load
from dptrain.errors import DataError
from dptrain.recipe import DataConfig


def stored(path: Path, people: int = 40, each: int = 2, size: tuple[int, int] = (112, 92), **other: Any) -> str:
    """A file of faces in which a person's pixels all have the person's number."""
    labels = np.repeat(np.arange(people), each)
    images = np.broadcast_to(labels.astype(np.uint8)[:, None, None], (len(labels), *size)).copy()
    np.savez(path, **{"images": images, "labels": labels, **other})
    return str(path)


def of(path: str, size: tuple[int, int] | None = None) -> DataSet:
    return load(DataConfig(name="faces", path=path, image_size=size))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without faces, and no DPTRAIN_DATA."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DPTRAIN_DATA", raising=False)
    return tmp_path


def test_the_real_faces_are_found_and_averaged_down(shared_data: Path):
    faces = load(DataConfig(name="faces"))
    assert faces.inputs.shape == (200, 1, 56, 46)
    assert faces.targets.bincount().tolist() == [10] * 20
    assert faces.others is not None
    assert faces.others.inputs.shape == (200, 1, 56, 46)
    assert faces.others.groups.bincount().tolist() == [10] * 20
    assert faces.bounds == (-0.5, 0.5)
    assert "112×92 to 56×46" in faces.source
    with np.load(shared_data / "att_faces.npz") as file:
        first = file["images"][10].astype(float).reshape(56, 2, 46, 2).mean((1, 3)) / 255 - 0.5
    assert faces.inputs[0, 0].numpy() == pytest.approx(first, abs=1e-6)


def test_who_is_private_is_the_same_for_good_and_is_nobody_public(tmp_path: Path):
    faces = of(stored(tmp_path / "faces.npz"))
    private = [int(name.removeprefix("person ")) for name in faces.classes]
    assert private[:6] == [1, 5, 11, 12, 15, 16]
    assert faces.others is not None
    shown, known = (set(np.unique(bytes_of(part.inputs)).tolist()) for part in (faces, faces.others))
    assert shown == set(private)
    assert known == set(range(40)) - shown
    for person, target in zip(bytes_of(faces.inputs)[:, 0, 0].tolist(), faces.targets.tolist(), strict=True):
        assert private[target] == person


def test_the_size_can_be_stated(tmp_path: Path):
    assert of(stored(tmp_path / "faces.npz"), (28, 23)).input_shape == (1, 28, 23)
    assert of(stored(tmp_path / "faces.npz")).input_shape == (1, 56, 46)


def test_a_folder_may_be_named(tmp_path: Path):
    stored(tmp_path / "att_faces.npz")
    assert len(of(str(tmp_path))) == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (40, 40)}, r"of another size: 40 40 .*cannot be averaged down to 56 46"),
        ({"people": 39}, "39 people, too few"),
        ({"each": 1}, "a class with one image: person 0"),
        ({"labels": np.zeros(3, dtype=int)}, r"80 images, and labels of shape \(3,\)"),
        ({"labels": np.zeros(80)}, "type float64"),
        ({"images": np.zeros((80, 112, 92))}, "type float64; give an .npz with images, bytes"),
        ({"images": np.zeros((80, 112, 92, 3), np.uint8)}, r"shape \(80, 112, 92, 3\)"),
        ({"images": np.array([np.zeros((2, 3)), np.zeros((3, 3))], dtype=object)}, "cannot be read .*all images of one size"),
    ],
)
def test_a_bad_file_is_refused_with_what_is_wrong(tmp_path: Path, options: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        of(stored(tmp_path / "faces.npz", **options))


def test_missing_arrays_and_files_are_named(tmp_path: Path):
    np.savez(tmp_path / "faces.npz", pictures=np.zeros(3))
    with pytest.raises(DataError, match="no array 'images' and has pictures"):
        of(str(tmp_path / "faces.npz"))
    with pytest.raises(DataError, match="there is no file"):
        of(str(tmp_path / "nowhere.npz"))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match="cannot be read"):
        of(str(tmp_path / "broken.npz"))


def test_a_download_is_converted_once_and_no_pickle_is_kept(home: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def fetch(*, data_home: str, return_X_y: bool) -> tuple[np.ndarray, np.ndarray]:
        assert return_X_y
        calls.append(data_home)
        labels = np.repeat(np.arange(40), 10)
        return np.repeat((labels / 255).astype(np.float32)[:, None], 4096, 1), labels

    monkeypatch.setattr(sklearn.datasets, "fetch_olivetti_faces", fetch)
    first, again = load(DataConfig(name="faces")), load(DataConfig(name="faces"))
    assert len(calls) == 1
    assert not Path(calls[0]).exists()
    assert first.fingerprint == again.fingerprint
    assert first.input_shape == (1, 56, 46)
    assert "scikit-learn's copy, converted to bytes, averaged down from 64×64" in first.source
    assert [path.name for path in home.rglob("*") if path.is_file()] == ["olivetti_faces.npz"]


@pytest.mark.usefixtures("home")
def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    def fetch(**_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(sklearn.datasets, "fetch_olivetti_faces", fetch)
    with pytest.raises(DataError, match=r"no route to host.*--data\.path"):
        load(DataConfig(name="faces"))


def test_a_person_who_is_filed_twice_is_refused_and_not_taught_to_everyone(tmp_path: Path):
    """Three images of private person 1 lie in the folder of public person 0 as well."""
    path = stored(tmp_path / "faces.npz", each=4)
    with np.load(path) as file:
        images, labels = file["images"], file["labels"]
    images += np.arange(len(labels), dtype=np.uint8)[:, None, None]  # no two are alike
    images[:3] = images[4:7]
    np.savez(path, images=images, labels=labels)
    with pytest.raises(DataError, match=r"3 of its own are among them, at the indices 0, 1, 2 \(counted from 0\)"):
        of(path)


def small(others: Others | None = None) -> DataSet:
    return DataSet(
        name="two", inputs=torch.zeros(2, 3), targets=torch.tensor([0, 1]), classes=("a", "b"), bounds=(0, 1), others=others
    )


def test_public_others_are_part_of_the_fingerprint():
    others = Others(torch.ones(2, 3), torch.tensor([0, 1]))
    found = [small(), small(others), small(dataclasses.replace(others, groups=torch.tensor([0, 0])))]
    assert len({data.fingerprint for data in found}) == 3


@pytest.mark.parametrize(
    ("inputs", "groups", "message"),
    [
        (torch.zeros(2, 4), [0, 1], r"of shape \(4,\)"),
        (torch.zeros(2, 3, dtype=torch.float64), [0, 1], "float64"),
        (torch.full((2, 3), 2.0), [0, 1], "outside its public bounds"),
        (torch.full((2, 3), torch.nan), [0, 1], "NaN"),
        (torch.zeros(2, 3), [0], "2 inputs and 1 groups"),
        (torch.zeros(0, 3), [], "0 inputs"),
        (torch.zeros(2, 3), [0, -1], "groups below 0"),
        (torch.stack([torch.ones(3), -torch.zeros(3)]), [0, 1], "2 of its own are among them, at the indices 0, 1"),
    ],
)
def test_others_unlike_the_examples_are_refused(inputs: torch.Tensor, groups: list[int], message: str):
    with pytest.raises(DataError, match=message):
        small(Others(inputs, torch.tensor(groups, dtype=torch.int64)))
