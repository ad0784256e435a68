"""MNIST, all 70,000 hand-written digits (training and test together; the split is drawn afterwards).

    data = load(DataConfig(name="mnist"))       # inputs [70000, 1, 28, 28]

The files are looked for at ``data.path``, under the environment variable ``DPTRAIN_DATA``, and in ``~/.cache/dptrain``,
each as ``MNIST/raw/…``; where none has them they are downloaded into the last one through torchvision. Pixels are divided
by 255 and shifted by 0.1307: the mean that torchvision's examples have printed for years, a public constant.
"""

import os
from pathlib import Path

import torch

from dptrain.data.dataset import DataSet
from dptrain.errors import DataError
from dptrain.recipe import DataConfig

SHIFT = 0.1307
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load(config: DataConfig) -> DataSet:
    """The 70,000 digits, training part first.

    Raises:
        DataError: the files are not there and cannot be downloaded, or are damaged.
    """
    from torchvision.datasets import MNIST

    root = _root(config.path)
    try:
        parts = [MNIST(str(root), train=train, download=not _is_there(root)) for train in (True, False)]
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"MNIST is not under {root} and could not be read or downloaded ({error}); put the four files "
            f"{', '.join(FILES)} into {root / 'MNIST' / 'raw'}, or name their folder with --data.path"
        ) from None
    pixels = torch.cat([part.data for part in parts]).unsqueeze(1)
    return DataSet(
        name="mnist",
        inputs=pixels.float() / 255 - SHIFT,
        targets=torch.cat([part.targets for part in parts]).long(),
        classes=tuple(str(digit) for digit in range(10)),
        bounds=(-SHIFT, 1 - SHIFT),
        source="MNIST (LeCun, Cortes, Burges 1998); commonly stated as CC BY-SA 3.0",
    )


def _root(path: str | None) -> Path:
    if path is not None:
        if not Path(path).is_dir():
            raise DataError(f"data.path is {path!r}, which is no folder; give the one that holds MNIST/raw")
        return Path(path)
    shared = os.environ.get("DPTRAIN_DATA")
    if shared and _is_there(Path(shared)):
        return Path(shared)
    return Path.home() / ".cache" / "dptrain"


def _is_there(root: Path) -> bool:
    return all((root / "MNIST" / "raw" / name).exists() for name in FILES)
