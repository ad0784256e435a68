"""MNIST, all 70,000 hand-written digits: 60,000 for training, then 10,000 for testing. The split is drawn afterwards.

    data = load(DataConfig(name="mnist"))       # inputs [70000, 1, 28, 28], classes "0" to "9"

The files are read from ``data.path`` where it is given; else from the folder that the environment variable
``DPTRAIN_DATA`` names, where it has them; else from ``~/.cache/dptrain``, into which torchvision downloads them when they
are not there. Each of these folders holds ``MNIST/raw/train-images-idx3-ubyte`` and so on. Pixels are divided by 255 and
shifted by 0.1307: the mean that PyTorch's MNIST example has printed for years, a public constant.

The published test part was written by other people than the training part, and it shows: a classifier that sees no model
tells the two apart (AUC .52 to .54, with a standard error of .004). It measures utility well (``data.split.test =
"published"``), and it cannot stand against the members in a membership attack.
"""

from pathlib import Path

import torch

from dptrain.data.dataset import DataSet
from dptrain.data.places import folder_of
from dptrain.errors import DataError
from dptrain.recipe import DataConfig

SHIFT = 0.1307
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load(config: DataConfig) -> DataSet:
    """The 70,000 digits, training part first.

    Raises:
        DataError: the files are not there and cannot be downloaded, or are damaged.
    """
    root = folder_of(
        config.path, "MNIST", _is_there, lambda root: f"put the files {', '.join(FILES)} into {root / 'MNIST' / 'raw'}"
    )
    if not _is_there(root):
        _download(root)
    pixels, labels = _read(root)
    return DataSet(
        name="mnist",
        inputs=pixels.unsqueeze(1).float().div_(255).sub_(SHIFT),
        targets=labels.long(),
        classes=tuple(str(digit) for digit in range(10)),
        bounds=(-SHIFT, 1 - SHIFT),
        source="MNIST (LeCun, Cortes, Burges 1998); commonly stated as CC BY-SA 3.0",
        published_test=10_000,
    )


def _is_there(root: Path) -> bool:
    return all((root / "MNIST" / "raw" / name).is_file() for name in FILES)


def _download(root: Path) -> None:
    from torchvision.datasets import MNIST

    try:
        MNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"MNIST is not on this computer and cannot be downloaded ({reason}); download and unpack the files "
            f"{', '.join(FILES)} (.gz at {MNIST.mirrors[0]}) elsewhere and put them into {root / 'MNIST' / 'raw'}, or name "
            "the folder that holds MNIST/raw with --data.path"
        ) from None


def _read(root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels ``[70000, 28, 28]`` and labels ``[70000]``, as bytes."""
    from torchvision.datasets import MNIST

    try:
        parts = [MNIST(str(root), train=train, download=False) for train in (True, False)]
        pixels, labels = torch.cat([part.data for part in parts]), torch.cat([part.targets for part in parts])
    except Exception as error:  # torchvision parses the files with bare asserts and look-ups, which raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _damaged(root, reason) from None
    if pixels.shape != (70_000, 28, 28) or labels.shape != (70_000,):
        raise _damaged(root, f"images {tuple(pixels.shape)}, labels {tuple(labels.shape)}")
    return pixels, labels


def _damaged(root: Path, reason: str) -> DataError:
    return DataError(
        f"the MNIST files in {root / 'MNIST' / 'raw'} are damaged or something else ({reason}); delete them, and they are "
        "downloaded again into ~/.cache/dptrain, or put whole ones there"
    )
