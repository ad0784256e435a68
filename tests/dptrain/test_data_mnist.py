"""MNIST is found where it is, downloaded where it is not, and never read damaged."""

import shutil
from pathlib import Path

import pytest
import torch
from torchvision.datasets import MNIST

from dptrain.data.mnist import FILES, load
from dptrain.errors import DataError
from dptrain.recipe import DataConfig


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without MNIST, and no DPTRAIN_DATA."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DPTRAIN_DATA", raising=False)
    return tmp_path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: MNIST) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nno route to host")

    monkeypatch.setattr(MNIST, "download", download)


def raw(root: Path) -> Path:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    return folder


def linked(shared_data: Path, root: Path) -> Path:
    """The shared files under another root; a test may replace a link by a file of its own."""
    folder = raw(root)
    for name in FILES:
        (folder / name).symlink_to(shared_data / "MNIST" / "raw" / name)
    return folder


def test_all_seventy_thousand_are_read_and_scaled_by_public_constants(shared_data: Path):
    mnist = load(DataConfig(name="mnist", path=str(shared_data)))
    assert mnist.inputs.shape == (70_000, 1, 28, 28)
    assert mnist.inputs.dtype == torch.float32
    assert mnist.bounds == (-0.1307, 1 - 0.1307)
    assert float(mnist.inputs.min()) == pytest.approx(-0.1307)
    assert float(mnist.inputs.max()) == pytest.approx(1 - 0.1307)
    assert mnist.classes == tuple("0123456789")
    assert mnist.targets[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.published_test == 10_000
    published_test_counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert mnist.targets[60_000:].bincount().tolist() == published_test_counts


@pytest.mark.usefixtures("no_network")
def test_the_shared_folder_comes_before_the_cache(shared_data: Path, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DPTRAIN_DATA", str(shared_data))
    assert len(load(DataConfig(name="mnist"))) == 70_000
    assert not (home / ".cache").exists()


@pytest.mark.usefixtures("no_network")
def test_the_cache_is_read_without_a_network(shared_data: Path, home: Path):
    linked(shared_data, home / ".cache" / "dptrain")
    assert len(load(DataConfig(name="mnist"))) == 70_000


def test_a_download_lands_in_the_cache(shared_data: Path, home: Path, monkeypatch: pytest.MonkeyPatch):
    def download(self: MNIST) -> None:
        linked(shared_data, Path(self.root))

    monkeypatch.setattr(MNIST, "download", download)
    assert len(load(DataConfig(name="mnist"))) == 70_000
    assert (home / ".cache" / "dptrain" / "MNIST" / "raw" / FILES[0]).exists()


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("shared", [None, "nowhere"])
def test_without_files_and_network_one_sentence_says_what_to_put_where(
    home: Path, monkeypatch: pytest.MonkeyPatch, shared: str | None
):
    if shared is not None:
        monkeypatch.setenv("DPTRAIN_DATA", str(home / shared))
    with pytest.raises(DataError, match=r"cannot be downloaded.*t10k-labels-idx1-ubyte.*http.*MNIST/raw.*--data\.path") as told:
        load(DataConfig(name="mnist"))
    assert str(home / ".cache" / "dptrain") in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("damage", ["truncated", "empty", "noise", "labels", "test part"])
def test_damaged_files_are_named(shared_data: Path, tmp_path: Path, damage: str):
    folder = linked(shared_data, tmp_path)
    labels = folder / "train-labels-idx1-ubyte"
    whole = labels.read_bytes()
    labels.unlink()
    if damage == "test part":  # a whole file, and the wrong one
        shutil.copy(folder / "t10k-labels-idx1-ubyte", labels)
    elif damage == "labels":
        labels.write_bytes(whole[:8] + bytes([200]) + whole[9:])
    else:
        labels.write_bytes({"truncated": whole[:-7], "empty": b"", "noise": b"hello, I am no idx file"}[damage])
    message = "labels outside its 10 classes" if damage == "labels" else "damaged or something else.*delete them"
    with pytest.raises(DataError, match=message):
        load(DataConfig(name="mnist", path=str(tmp_path)))
