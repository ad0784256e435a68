"""CIFAR-10 is found where it is, says which of its two forms was read, and is never read damaged."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets.utils
from torchvision.io import encode_jpeg

from dptrain.data import cifar10
from dptrain.data.cifar10 import ARCHIVE, CLASSES, FILES, FOLDER, PIXELS, URL, load
from dptrain.errors import DataError
from dptrain.recipe import DataConfig

RECORDS = 10
"""In each file of the small data set."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without CIFAR-10, and no DPTRAIN_DATA."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DPTRAIN_DATA", raising=False)
    return tmp_path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, root: str, md5: str) -> None:
        raise OSError("<urlopen error\nno route to host>")

    monkeypatch.setattr(torchvision.datasets.utils, "download_and_extract_archive", download)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of 50 and 10 photographs, which is made in no time."""
    monkeypatch.setattr(cifar10, "RECORDS", RECORDS)
    monkeypatch.setattr(cifar10, "PARTS", {"train": 50, "test": 10})


def original(root: Path) -> Path:
    """Files in the published form: the label of record i is i, all of its pixels are 100 + i."""
    folder = root / FOLDER
    folder.mkdir(parents=True)
    number = np.arange(RECORDS)
    records = np.repeat((number + 100).astype(np.uint8)[:, None], 1 + PIXELS, axis=1)
    records[:, 0] = number
    records[0, 1 : 1 + 1024] = 255  # red comes first
    for name in FILES:
        (folder / name).write_bytes(records.tobytes())
    return folder


def jpeg(picture: torch.Tensor) -> bytes:
    encoded = encode_jpeg(picture)
    assert isinstance(encoded, torch.Tensor)
    return encoded.numpy().tobytes()


def archive(root: Path, per_class: dict[str, int], content: bytes | None = None) -> Path:
    """An archive of grey photographs, each of the shade of its class; or of what is given."""
    path = root / ARCHIVE
    with zipfile.ZipFile(path, "w") as stored:
        for part, count in reversed(per_class.items()):
            for label, name in enumerate(CLASSES):
                shade = torch.full((3, 32, 32), 20 * label, dtype=torch.uint8)
                for number in range(count):
                    made = jpeg(shade) if content is None else content
                    stored.writestr(f"{part}/{name}/{number:04d}.jpg", made)
    return path


@pytest.mark.slow
def test_all_sixty_thousand_jpeg_files_are_read_and_scaled_by_public_constants(shared_data: Path):
    data = load(DataConfig(name="cifar10", path=str(shared_data)))
    assert data.inputs.shape == (60_000, 3, 32, 32)
    assert data.bounds == (-0.4734, 1 - 0.4734)
    assert data.classes == CLASSES
    assert data.published_test == 10_000
    assert data.targets[:50_000].bincount().tolist() == [5000] * 10
    assert data.targets[50_000:].bincount().tolist() == [1000] * 10
    assert "JPEG" in data.source
    published = torch.tensor([0.4914, 0.4822, 0.4465])
    assert torch.allclose(data.inputs[:50_000].mean((0, 2, 3)) + 0.4734, published, atol=2e-3)


@pytest.mark.usefixtures("few")
def test_records_are_a_label_and_three_planes_of_pixels(tmp_path: Path):
    original(tmp_path)
    data = load(DataConfig(name="cifar10", path=str(tmp_path)))
    assert data.inputs.shape == (60, 3, 32, 32)
    assert data.targets.tolist() == [*range(10)] * 6
    assert torch.allclose(data.inputs[7] + 0.4734, torch.tensor(107 / 255))
    assert (data.inputs[0, 0] > 0.5).all()
    assert (data.inputs[0, 1:] < 0).all()
    assert "original pixels" in data.source
    assert "JPEG" not in data.source


@pytest.mark.usefixtures("few")
def test_jpeg_files_have_the_class_of_their_folder_and_the_training_part_comes_first(tmp_path: Path):
    archive(tmp_path, {"train": 5, "test": 1})
    data = load(DataConfig(name="cifar10", path=str(tmp_path)))
    assert data.targets.tolist() == [*np.repeat(range(10), 5), *range(10)]
    shades = (data.inputs + 0.4734).mean((1, 2, 3)) * 255
    assert torch.allclose(shades, 20.0 * data.targets, atol=1.5)
    assert data.published_test == 10
    assert "JPEG" in data.source


@pytest.mark.usefixtures("few")
def test_the_original_comes_before_the_archive_and_says_so(tmp_path: Path):
    archive(tmp_path, {"train": 5, "test": 1})
    original(tmp_path)
    assert "original pixels" in load(DataConfig(name="cifar10", path=str(tmp_path))).source


@pytest.mark.usefixtures("few", "no_network")
def test_the_shared_folder_comes_before_the_cache(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch):
    shared, cache = tmp_path / "shared", home / ".cache" / "dptrain"
    shared.mkdir()
    archive(shared, {"train": 5, "test": 1})
    original(cache)
    monkeypatch.setenv("DPTRAIN_DATA", str(shared))
    assert "JPEG" in load(DataConfig(name="cifar10")).source
    monkeypatch.setenv("DPTRAIN_DATA", str(tmp_path / "elsewhere"))
    assert "original pixels" in load(DataConfig(name="cifar10")).source


@pytest.mark.usefixtures("few")
def test_a_download_lands_in_the_cache(home: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def download(url: str, root: str, md5: str) -> None:
        asked.append((url, len(md5)))
        original(Path(root))

    monkeypatch.setattr(torchvision.datasets.utils, "download_and_extract_archive", download)
    assert "original pixels" in load(DataConfig(name="cifar10")).source
    assert asked == [(URL, 32)]
    assert (home / ".cache" / "dptrain" / FOLDER / FILES[0]).exists()


@pytest.mark.usefixtures("no_network")
def test_without_files_and_network_one_sentence_says_what_to_put_where(home: Path):
    with pytest.raises(DataError, match=r"cannot be downloaded.*no route.*http.*cifar-10-batches-bin.*--data\.path") as told:
        load(DataConfig(name="cifar10"))
    assert str(home / ".cache" / "dptrain") in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("damage", "message"), [("truncated", "bytes in place of"), ("labels", "labels outside its 10 classes")]
)
def test_damaged_records_are_refused(tmp_path: Path, damage: str, message: str):
    file = original(tmp_path) / "data_batch_3.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] if damage == "truncated" else bytes([10]) + whole[1:])
    with pytest.raises(DataError, match=message):
        load(DataConfig(name="cifar10", path=str(tmp_path)))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("damage", ["truncated", "a bit", "noise", "no picture", "too small", "a file short"])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: str):
    small = jpeg(torch.zeros((3, 16, 16), dtype=torch.uint8))
    content = {"no picture": b"hello, I am no picture", "too small": small}.get(damage)
    path = archive(tmp_path, {"train": 4 if damage == "a file short" else 5, "test": 1}, content)
    whole = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "a bit":
        path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    elif damage == "noise":
        path.write_bytes(b"hello, I am no archive")
    with pytest.raises(DataError, match=r"cifar10_jpeg\.zip is damaged or something else.*put a whole one there") as told:
        load(DataConfig(name="cifar10", path=str(tmp_path)))
    assert "\n" not in str(told.value)
