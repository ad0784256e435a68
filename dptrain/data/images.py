"""Your own pictures: a folder a class, or an ``.npz`` with ``images`` and ``labels``.

    dptrain run my.toml --data.name images --data.path faces/            # faces/ann/1.png, faces/ben/1.png, …
    dptrain run my.toml --data.name images --data.path att_faces.npz     # images [n, h, w] or [n, h, w, c], labels [n]

All pictures must have one size (``data.image_size`` states it; otherwise the first one's) and all be grey or all colour.
Pixels lie in [0, 1] by construction and are shifted by 0.5. Names and number of the classes, and the size, count as public:
they are the shape of the problem. ``data.classes`` states them for ``.npz``. Nothing is unpickled.
"""

import zipfile
from pathlib import Path

import numpy as np
import torch

from dptrain.data.dataset import DataSet
from dptrain.errors import DataError
from dptrain.recipe import DataConfig

SHIFT = 0.5
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".webp")


def load(config: DataConfig) -> DataSet:
    """The pictures at ``config.path`` as ``[examples, channels, height, width]``.

    Raises:
        DataError: nothing there, a file that is no picture, or pictures of different sizes; it names the file.
    """
    if config.path is None:
        raise DataError("data.path is not given; name a folder with a folder a class, or an .npz file, with --data.path")
    path = Path(config.path)
    if path.is_dir():
        pixels, labels, classes = _folder(path, config.image_size)
    elif path.suffix == ".npz" and path.exists():
        pixels, labels, classes = _archive(path, config)
    elif path.exists():
        raise DataError(f"data.path is {path}; pictures come as a folder with a folder a class, or as an .npz file")
    else:
        raise DataError(f"there is no {path}; name a folder with a folder a class, or an .npz file, with --data.path")
    if config.image_size is not None and pixels.shape[1:3] != config.image_size:
        given, stated = _size(pixels.shape[1:3]), _size(config.image_size)
        raise DataError(f"the pictures of {path} are {given} and data.image_size is {stated}; give --data.image-size {given}")
    return DataSet(
        name=path.name,
        inputs=torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous() - SHIFT,
        targets=torch.from_numpy(labels),
        classes=classes,
        bounds=(-SHIFT, 1 - SHIFT),
        source=f"{path.name}, given by the user",
    )


def _size(size: tuple[int, ...]) -> str:
    return " ".join(str(side) for side in size)


def _folder(path: Path, size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(folders) < 2:
        raise DataError(f"{path} holds {len(folders)} class folders, and a classifier needs at least 2: one folder a class")
    pictures: list[np.ndarray] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        files = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in ENDINGS)
        if not files:
            raise DataError(f"{folder} holds no picture; put some in ({', '.join(ENDINGS)}) or remove the folder")
        for file in files:
            picture = _picture(file)
            expected = size if size is not None else pictures[0].shape[:2] if pictures else picture.shape[:2]
            if picture.shape[:2] != tuple(expected):
                raise DataError(f"{file} is {_size(picture.shape[:2])} and should be {_size(tuple(expected))}; resize it")
            if pictures and picture.shape[2] != pictures[0].shape[2]:
                raise DataError(f"{file} is {_tone(picture)} and the pictures before it are {_tone(pictures[0])}; convert it")
            pictures.append(picture)
            labels.append(label)
    return np.stack(pictures), np.array(labels, dtype=np.int64), tuple(folder.name for folder in folders)


def _tone(picture: np.ndarray) -> str:
    return "grey" if picture.shape[2] == 1 else "colour"


def _picture(file: Path) -> np.ndarray:
    """One picture as ``[height, width, channels]`` in [0, 1]."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            grey = image.mode in ("1", "L", "I;16", "LA")
            pixels = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.float32) / 255
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} cannot be read as a picture ({error}); replace or remove it") from None
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _archive(path: Path, config: DataConfig) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = [name for name in ("images", "labels") if name not in stored.files]
            if missing:
                raise DataError(f"{path} has no array {missing[0]!r}; it needs images and labels, and has {stored.files}")
            images, labels = stored["images"], stored["labels"]
    except DataError:
        raise
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({error}); write it again with numpy.savez, plain arrays only") from None
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise DataError(f"{path} has images of shape {images.shape}; give [n, h, w], or [n, h, w, c] with 1 or 3 channels")
    if labels.ndim != 1 or len(labels) != len(images) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path} has labels of shape {labels.shape}, {labels.dtype}; give whole numbers, one a picture")
    if len(labels) == 0:
        raise DataError(f"{path} is empty: it has 0 pictures, and training needs at least 1")
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / 255
    elif not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{path} has images of type {images.dtype}; give bytes (0 to 255) or floats (0 to 1)")
    elif np.isnan(images).any() or images.min() < 0 or images.max() > 1:
        raise DataError(f"{path} has float images that are NaN or outside 0 to 1; scale them by a public constant")
    classes = config.classes or tuple(str(label) for label in range(int(labels.max()) + 1))
    if labels.min() < 0 or labels.max() >= len(classes):
        raise DataError(f"{path} has labels from {labels.min()} to {labels.max()} and there are {len(classes)} classes")
    images = images.astype(np.float32)
    return images if images.ndim == 4 else images[..., None], labels.astype(np.int64), classes
