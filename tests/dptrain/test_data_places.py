"""A folder that was named and lacks the data is refused with what to put there, and nothing is downloaded into it."""

from pathlib import Path

import pytest

from dptrain.data import load
from dptrain.errors import DataError
from dptrain.recipe import DataConfig

WANTED = {
    "mnist": ("MNIST", r"train-images-idx3-ubyte.*MNIST/raw"),
    "cifar10": ("CIFAR-10", r"cifar10_jpeg\.zip.*data_batch_1\.bin"),
}


@pytest.mark.parametrize("folder", ["empty", "nowhere"])
@pytest.mark.parametrize("name", WANTED)
def test_a_path_without_the_data_is_refused_and_nothing_is_downloaded_into_it(tmp_path: Path, name: str, folder: str):
    (tmp_path / "empty").mkdir()
    title, files = WANTED[name]
    message = f"lacks {title}" if folder == "empty" else "no folder"
    with pytest.raises(DataError, match=rf"{message}.*{files}.*--data\.path.*to download them"):
        load(DataConfig(name=name, path=str(tmp_path / folder)))
    assert not list((tmp_path / "empty").iterdir())
