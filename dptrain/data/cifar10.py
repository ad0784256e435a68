"""CIFAR-10: 50,000 small photographs of ten kinds of things for training, then 10,000 for testing. The split comes afterwards.

    data = load(DataConfig(name="cifar10"))     # inputs [60000, 3, 32, 32], classes "airplane" to "truck"

It is read from what lies in ``data.path`` where that is given; else in the folder that the environment variable
``DPTRAIN_DATA`` names; else in ``~/.cache/dptrain``, into which the published files are downloaded when they are not there.
Two forms are known, and ``source`` says which one was read, since figures on one are not figures on the other:

* ``cifar-10-batches-bin/data_batch_1.bin`` and so on, as published: the original pixels, in records without a pickle
* ``cifar10_jpeg.zip`` of ``train/airplane/0000.jpg``, ``test/truck/0999.jpg`` and so on: re-encoded, so not the original pixels

Where a folder has both, the original is read. Pixels are divided by 255 and shifted by 0.4734: the mean of the three
channels' means .4914, .4822, .4465, which are printed with the data set everywhere, public constants.
"""

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from dptrain.data.dataset import DataSet
from dptrain.data.places import folder_of
from dptrain.errors import DataError
from dptrain.recipe import DataConfig

SHIFT = 0.4734
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PARTS = {"train": 50_000, "test": 10_000}
"""Examples of each part, in the order in which they are kept."""
SIDE = 32
PIXELS = 3 * SIDE * SIDE

FOLDER = "cifar-10-batches-bin"
RECORDS = 10_000
"""In each of the published files."""
FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
"""Of the archive, as its page states it."""

ARCHIVE = "cifar10_jpeg.zip"
CHUNK = 1000
"""JPEG files that are decoded at once."""

CITED = "CIFAR-10 (Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images); no licence stated"


def load(config: DataConfig) -> DataSet:
    """The 60,000 photographs, training part first.

    Raises:
        DataError: nothing is there and it cannot be downloaded, or it is damaged.
    """
    put = f"put {ARCHIVE} into it, or the folder {FOLDER} with the files {', '.join(FILES)}"
    root = folder_of(config.path, "CIFAR-10", _is_there, lambda _: put)
    if not _is_there(root):
        _download(root)
    if _has_original(root):
        (pixels, labels), form = _original(root / FOLDER), "original pixels"
    else:
        (pixels, labels), form = _jpeg(root / ARCHIVE), "JPEG: re-encoded with loss, not the original pixels"
    return DataSet(
        name="cifar10",
        inputs=pixels.float().div_(255).sub_(SHIFT),
        targets=labels,
        classes=CLASSES,
        bounds=(-SHIFT, 1 - SHIFT),
        source=f"{CITED}; {form}",
        published_test=PARTS["test"],
    )


def _has_original(root: Path) -> bool:
    return all((root / FOLDER / name).is_file() for name in FILES)


def _is_there(root: Path) -> bool:
    return _has_original(root) or (root / ARCHIVE).is_file()


def _download(root: Path) -> None:
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        download_and_extract_archive(URL, str(root), md5=MD5)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"CIFAR-10 is not on this computer and cannot be downloaded ({reason}); download {URL} elsewhere and unpack it "
            f"into {root}, which makes {root / FOLDER}, or name the folder that holds {FOLDER} or {ARCHIVE} with --data.path"
        ) from None


def _original(folder: Path) -> tuple[Tensor, Tensor]:
    """Pixels ``[60000, 3, 32, 32]`` as bytes and labels: each record is a label and 3,072 pixels."""
    records = []
    for name in FILES:
        content = (folder / name).read_bytes()
        if len(content) != RECORDS * (1 + PIXELS):
            raise _damaged(folder / name, f"{len(content)} bytes in place of {RECORDS * (1 + PIXELS)}")
        records.append(torch.frombuffer(bytearray(content), dtype=torch.uint8).view(RECORDS, 1 + PIXELS))
    whole = torch.cat(records)
    return whole[:, 1:].reshape(-1, 3, SIDE, SIDE), whole[:, 0].long()


def _jpeg(path: Path) -> tuple[Tensor, Tensor]:
    """Pixels ``[60000, 3, 32, 32]`` as bytes and labels, class by class in each part."""
    from torchvision.io import ImageReadMode, decode_jpeg

    pixels, labels = torch.empty((sum(PARTS.values()), 3, SIDE, SIDE), dtype=torch.uint8), []
    try:
        with zipfile.ZipFile(path) as archive:
            found: dict[str, list[str]] = {}
            for file in sorted(archive.namelist()):
                if file.endswith(".jpg"):
                    found.setdefault(file.rpartition("/")[0], []).append(file)
            files = []
            for part, count in PARTS.items():
                for label, name in enumerate(CLASSES):
                    own = found.get(f"{part}/{name}", [])
                    if len(own) != count // len(CLASSES):
                        raise _damaged(path, f"{len(own)} files in place of {count // len(CLASSES)} in {part}/{name}")
                    files += own
                    labels += [label] * len(own)
            for start in range(0, len(files), CHUNK):
                stored = [torch.frombuffer(bytearray(archive.read(file)), dtype=torch.uint8) for file in files[start:][:CHUNK]]
                pixels[start : start + CHUNK] = torch.stack(list(decode_jpeg(stored, mode=ImageReadMode.RGB)))
    except DataError:
        raise
    except Exception as error:  # a damaged archive raises nearly anything: BadZipFile, zlib.error, RuntimeError of the decoder
        raise _damaged(path, " ".join(str(error).split())[:200] or type(error).__name__) from None
    return pixels, torch.tensor(labels)


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} is damaged or something else ({reason}); put a whole one there, or delete it, and what was published is "
        "downloaded into ~/.cache/dptrain"
    )
