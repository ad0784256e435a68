"""Pictures are read as they are, or refused by file name; nothing in a file runs."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dptrain.data.dataset import DataSet
from dptrain.data.images import load
from dptrain.errors import DataError
from dptrain.recipe import DataConfig


def read(path: Path, **changes: Any) -> DataSet:
    stated = {"classes": ("0", "1")} if path.suffix == ".npz" else {}
    return load(DataConfig(**{"name": "images", "path": str(path), **stated, **changes}))


def draw(file: Path, mode: str = "L", size: tuple[int, int] = (6, 4), value: int = 100) -> Path:
    """A picture of one value; size is height and width."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, 3), value, np.uint8)
    Image.fromarray(pixels).convert(mode).save(file)
    return file


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    for name in ("ben", "ann"):
        for number in range(2):
            draw(tmp_path / "faces" / name / f"{number}.png", value=100 * number)
    return tmp_path / "faces"


# A folder a class


def test_classes_are_the_sorted_folders_and_grey_stays_grey(faces: Path):
    data = read(faces)
    assert data.classes == ("ann", "ben")
    assert data.inputs.shape == (4, 1, 6, 4)
    assert data.inputs.dtype == torch.float32
    assert data.targets.tolist() == [0, 0, 1, 1]
    assert data.bounds == (-0.5, 0.5)
    assert float(data.inputs[1, 0, 0, 0]) == pytest.approx(100 / 255 - 0.5)
    assert (data.kind, data.name) == ("image", "faces")


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("RGBA", 3), ("P", 3), ("L", 1), ("LA", 1), ("1", 1)])
def test_colour_is_read_as_three_channels_and_grey_as_one(tmp_path: Path, mode: str, channels: int):
    for name in "ab":
        draw(tmp_path / "x" / name / "0.png", mode)
    assert read(tmp_path / "x").input_shape == (channels, 6, 4)


@pytest.mark.parametrize("ending", ["png", "PNG", "jpg", "jpeg", "bmp", "pgm", "webp"])
def test_kinds_of_file(tmp_path: Path, ending: str):
    for name in "ab":
        draw(tmp_path / "x" / name / f"0.{ending}", "RGB" if ending == "webp" else "L")
    pixels = read(tmp_path / "x").inputs
    assert float(pixels.mean()) == pytest.approx(100 / 255 - 0.5, abs=0.02)


def test_what_desktops_leave_behind_is_no_picture_and_no_class(faces: Path):
    (faces / ".git").mkdir()
    (faces / "ann" / ".DS_Store").write_bytes(b"x")
    (faces / "ann" / "Thumbs.db").write_bytes(b"x")
    (faces / "README.txt").write_text("about")
    assert len(read(faces)) == 4


def test_a_picture_of_another_size_is_named(faces: Path):
    draw(faces / "ben" / "2.png", size=(5, 5))
    with pytest.raises(DataError, match=r"ben/2\.png is 5 5 and should be 6 4.*--data\.image-size"):
        read(faces)


def test_the_stated_size_is_the_one_that_counts(faces: Path):
    assert read(faces, image_size=(6, 4)).input_shape == (1, 6, 4)
    with pytest.raises(DataError, match=r"ann/0\.png is 6 4 and should be 4 6"):
        read(faces, image_size=(4, 6))


def test_colour_among_grey_is_named(faces: Path):
    draw(faces / "ben" / "2.png", "RGB")
    with pytest.raises(DataError, match=r"ben/2\.png is colour and the pictures before it are grey"):
        read(faces)


def test_sixteen_bits_are_refused_and_not_cut_off(faces: Path):
    Image.fromarray(np.full((6, 4), 40_000, np.uint16)).save(faces / "ben" / "2.png")
    with pytest.raises(DataError, match=r"ben/2\.png.*not 8 bits"):
        read(faces)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("2.png", b"not a picture"),
        ("2.png", b""),
        ("notes.txt", b"hello"),
        ("2.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 6\n"),
    ],
)
def test_a_file_that_is_no_picture_is_named(faces: Path, name: str, content: bytes):
    (faces / "ben" / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"ben/{name} cannot be read as a picture.*remove it"):
        read(faces)


def test_a_folder_inside_a_class_is_named(faces: Path):
    (faces / "ben" / "more").mkdir()
    with pytest.raises(DataError, match="ben/more cannot be read"):
        read(faces)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_truncated_picture_is_refused_at_every_length(faces: Path, tmp_path: Path, ending: str):
    noise = np.random.default_rng(0).integers(0, 256, (6, 4), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{ending}")
    whole = (tmp_path / f"whole.{ending}").read_bytes()
    file = faces / "ben" / f"2.{ending}"
    refused = 0
    for length in range(0, len(whole), 5):
        file.write_bytes(whole[:length])
        try:
            assert read(faces).input_shape == (1, 6, 4)  # only the end mark is missing: all pixels are there
        except DataError as error:
            refused += f"ben/2.{ending}" in str(error)
    assert refused >= len(range(0, len(whole), 5)) - 5


def test_an_empty_class_is_named(faces: Path):
    (faces / "carl").mkdir()
    with pytest.raises(DataError, match=r"carl holds no picture.*remove the folder"):
        read(faces)


def test_loose_pictures_are_named(faces: Path):
    draw(faces / "9.png")
    with pytest.raises(DataError, match=r"9\.png lies beside the class folders"):
        read(faces)


@pytest.mark.parametrize("classes", [0, 1])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, classes: int):
    folder = tmp_path / "x"
    folder.mkdir()
    for number in range(classes):
        draw(folder / str(number) / "0.png")
    with pytest.raises(DataError, match=f"{classes} class folders.*at least 2"):
        read(folder)


def test_classes_that_are_not_the_folders_are_refused(faces: Path):
    assert read(faces, classes=("ben", "ann")).classes == ("ann", "ben")
    with pytest.raises(DataError, match=r"ann, ben.*--data\.classes"):
        read(faces, classes=("ann", "carl"))


@pytest.mark.parametrize(
    ("name", "message"), [("gone", "does not exist"), ("gone.npz", "does not exist"), ("x.zip", "neither")]
)
def test_a_path_that_is_not_there_or_something_else_is_refused(tmp_path: Path, name: str, message: str):
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(DataError, match=rf"{message}.*--data\.path"):
        read(tmp_path / name)


def test_a_path_is_asked_for():
    with pytest.raises(DataError, match=r"data\.path is not given.*--data\.path"):
        load(DataConfig(name="images"))


# One .npz file

GREY = np.zeros((3, 6, 4), np.uint8)
LABELS = np.array([0, 1, 1])


def archive(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (GREY, (1, 6, 4)),
        (GREY[..., None], (1, 6, 4)),
        (np.full((3, 6, 4, 3), 255, np.uint8), (3, 6, 4)),
        (np.full((3, 6, 4), 0.25), (1, 6, 4)),
        (np.full((3, 6, 4, 3), 1, np.float16), (3, 6, 4)),
    ],
)
def test_bytes_and_floats_are_scaled_by_public_constants(tmp_path: Path, images: np.ndarray, shape: tuple[int, ...]):
    data = read(archive(tmp_path, images=images, labels=LABELS))
    assert data.input_shape == shape
    assert data.targets.tolist() == [0, 1, 1]
    assert data.classes == ("0", "1")
    value = float(images.flat[0]) / (255 if images.dtype == np.uint8 else 1)
    assert bool(torch.all(data.inputs == value - 0.5))


def test_channels_come_first(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 4, 3), dtype=np.uint8)
    data = read(archive(tmp_path, images=images, labels=LABELS))
    assert float(data.inputs[2, 1, 5, 3]) == pytest.approx(int(images[2, 5, 3, 1]) / 255 - 0.5)


def test_classes_are_stated_and_never_counted_from_private_labels(tmp_path: Path):
    path = archive(tmp_path, images=GREY, labels=LABELS)
    with pytest.raises(DataError, match=r"data\.classes is not given.*--data\.classes \$\(seq 0 9\)"):
        read(path, classes=())
    with pytest.raises(DataError, match="at least 2"):
        read(archive(tmp_path, images=GREY, labels=LABELS * 0), classes=("ann",))
    path = archive(tmp_path, images=GREY, labels=LABELS)
    assert read(path, classes=("ann", "ben", "carl")).classes == ("ann", "ben", "carl")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (GREY[0], LABELS, "shape"),
        (np.zeros((3, 6, 4, 2), np.uint8), LABELS, "1 or 3 channels"),
        (np.zeros((3, 0, 4), np.uint8), LABELS, "shape"),
        (GREY, LABELS[:2], "3 images, and labels of shape"),
        (GREY, LABELS[:, None], "labels of shape"),
        (GREY, LABELS.astype(float), "whole numbers"),
        (GREY, np.array(["a", "b", "c"]), "whole numbers"),
        (GREY[:0], LABELS[:0], "empty: it has 0 pictures"),
        (GREY.astype(np.int64), LABELS, r"bytes \(0 to 255\) or floats"),
        (GREY + 255.0, LABELS, "outside 0 to 1"),
        (GREY - 0.1, LABELS, "outside 0 to 1"),
        (np.full((3, 6, 4), np.nan), LABELS, "NaN"),
        (np.full((3, 6, 4), np.inf), LABELS, "outside 0 to 1"),
        (GREY, LABELS - 1, r"labels from -1 to 0.*--data\.classes"),
        (GREY, LABELS * 10**12, r"labels from 0 to 10+, .*--data\.classes"),
    ],
)
def test_arrays_that_are_no_labelled_pictures_are_refused(tmp_path: Path, images: np.ndarray, labels: np.ndarray, message: str):
    with pytest.raises(DataError, match=message):
        read(archive(tmp_path, images=images, labels=labels))


@pytest.mark.parametrize("names", [("a", "b"), ("images", "b"), ("a", "labels")])
def test_a_missing_array_is_named_and_those_there_listed(tmp_path: Path, names: tuple[str, str]):
    missing = "images" if "images" not in names else "labels"
    with pytest.raises(DataError, match=rf"no array '{missing}'.*has {names[0]}, {names[1]}"):
        read(archive(tmp_path, **{names[0]: GREY, names[1]: LABELS}))


def test_sizes_and_labels_beyond_what_was_stated_are_refused(tmp_path: Path):
    path = archive(tmp_path, images=GREY, labels=LABELS + 1)
    with pytest.raises(DataError, match=r"6 4 and data\.image_size is 8 8; give --data\.image-size 6 4"):
        read(path, image_size=(8, 8))
    with pytest.raises(DataError, match="labels from 1 to 2, where 0 to 1 can be"):
        read(path, classes=("ann", "ben"))
    with pytest.raises(DataError, match="different ones"):
        read(path, classes=("ann", "ann", "ben"))


def test_a_truncated_archive_is_refused_at_every_length(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 6, 4), dtype=np.uint8)
    for save in (np.savez, np.savez_compressed):
        path = tmp_path / "x.npz"
        save(path, images=noise, labels=LABELS)
        whole = path.read_bytes()
        for length in range(0, len(whole), 31):
            path.write_bytes(whole[:length])
            with pytest.raises(DataError, match=r"x\.npz cannot be read"):
                read(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_with_a_flipped_bit_is_refused_or_reads_the_same(tmp_path: Path, save: Any):
    """Some bytes of a zip archive mean nothing, such as time stamps; a pixel never changes unseen."""
    path = tmp_path / "x.npz"
    save(path, images=GREY, labels=LABELS)
    fingerprint, whole = read(path).fingerprint, path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            assert read(path).fingerprint == fingerprint
        except DataError:
            continue


class Harmful:
    def __init__(self, trap: Path):
        self.trap = trap

    def __reduce__(self):
        return (os.system, (f"touch {self.trap}",))


@pytest.mark.parametrize("container", ["images", "labels", "npy", "pickle"])
def test_nothing_in_an_archive_is_unpickled(tmp_path: Path, container: str):
    """Sharp edge 18."""
    path, trap = tmp_path / "x.npz", tmp_path / "trap"
    payload = np.array([Harmful(trap)] * 3, dtype=object)
    if container == "npy":
        with path.open("wb") as handle:
            np.save(handle, payload)
    elif container == "pickle":
        path.write_bytes(pickle.dumps(Harmful(trap)))
    else:
        archive(tmp_path, **{"images": GREY, "labels": LABELS, container: payload})
    with pytest.raises(DataError, match=r"x\.npz cannot be read.*plain arrays only"):
        read(path)
    assert not trap.exists()


def test_a_member_that_is_no_array_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as stored:
        stored.writestr("images.npy", b"hello")
        stored.writestr("labels.npy", b"hello")
    with pytest.raises(DataError, match=r"x\.npz"):
        read(tmp_path / "x.npz")


def test_real_faces_are_read(shared_data: Path):
    people = tuple(str(number) for number in range(40))
    data = read(shared_data / "att_faces.npz", classes=people)
    assert data.inputs.shape == (400, 1, 112, 92)
    assert data.targets.bincount().tolist() == [10] * 40
    assert read(shared_data / "att_faces.npz", classes=people, image_size=(112, 92)).fingerprint == data.fingerprint
