"""Your own pictures: a folder a class, or an ``.npz`` with ``images`` and ``labels``.

    dptrain run my.toml --data.name images --data.path faces/            # faces/ann/1.png, faces/ben/1.png, …
    dptrain run my.toml --data.name images --data.path faces.npz --data.classes ann ben     # images, labels

with ``images`` as ``[n, h, w]`` or ``[n, h, w, c]`` and ``labels`` as ``[n]``.

All pictures must have one size (``data.image_size`` states it; otherwise the first one's) and all be grey or all colour.
Pixels lie in [0, 1] by construction and are shifted by 0.5. Size, colour and classes count as public schema: the classes
are the sorted names of the folders, or ``data.classes`` for an ``.npz``, whose labels count from 0: they are stated, since
the highest label is one private example's. Where who is in the data is secret, a folder named after a person is no public
fact.
Nothing is unpickled.
"""

from pathlib import Path

import numpy as np
import torch

from dptrain.data.dataset import DataSet
from dptrain.errors import DataError
from dptrain.recipe import DataConfig

SHIFT = 0.5
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
"""The decoders that may run, whatever a file's ending says: Pillow's one for EPS would start Ghostscript."""
GREY = ("1", "L", "LA")
COLOUR = ("P", "RGB", "RGBA", "CMYK", "YCbCr")
IGNORED = ("thumbs.db", "desktop.ini")
WHAT = "name a folder that holds a folder of pictures a class, or an .npz file, with --data.path"


def load(config: DataConfig) -> DataSet:
    """The pictures at ``config.path`` as ``[examples, channels, height, width]``.

    Raises:
        DataError: nothing there, a file that is no picture, or pictures of different sizes; it names the file.
    """
    if config.path is None:
        raise DataError(f"data.path is not given; {WHAT}")
    path = Path(config.path)
    if path.is_dir():
        pixels, labels, classes = _folder(path, config)
    elif path.suffix.lower() == ".npz" and path.exists():
        pixels, labels, classes = _archive(path, config)
    else:
        raise DataError(f"data.path is {path}, which {'is neither' if path.exists() else 'does not exist'}; {WHAT}")
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise DataError(f"{path} has the classes {list(classes)}, and a classifier needs at least 2 different ones")
    scaled = pixels.astype(np.float32) / 255 if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    return DataSet(
        name=path.name,
        inputs=torch.from_numpy(scaled).permute(0, 3, 1, 2).contiguous() - SHIFT,
        targets=torch.from_numpy(labels),
        classes=classes,
        bounds=(-SHIFT, 1 - SHIFT),
        source=f"{path.name}, given by the user",
    )


def _size(size: tuple[int, ...]) -> str:
    """A size as it is typed: height, then width."""
    return " ".join(str(side) for side in size)


# A folder a class


def _folder(path: Path, config: DataConfig) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Pixels ``[examples, height, width, channels]`` as bytes, labels, and the names of the classes."""
    entries = _entries(path)
    loose = [entry for entry in entries if entry.is_file() and entry.suffix.lower() in ENDINGS]
    folders = [entry for entry in entries if entry.is_dir()]
    if loose:
        raise DataError(f"{loose[0]} lies beside the class folders; move it into one of them: a folder a class")
    if len(folders) < 2:
        raise DataError(f"{path} holds {len(folders)} class folders, and a classifier needs at least 2: a folder a class")
    names = tuple(folder.name for folder in folders)
    if config.classes and tuple(sorted(config.classes)) != names:
        raise DataError(f"{path} holds the class folders {', '.join(names)}, and --data.classes differs; leave it out")
    size, pictures, labels = config.image_size, [], []
    for label, folder in enumerate(folders):
        files = _entries(folder)
        if not files:
            raise DataError(f"{folder} holds no picture; put some in ({', '.join(ENDINGS)}), or remove the folder")
        for file in files:
            picture = _picture(file)
            size = picture.shape[:2] if size is None else tuple(size)
            if picture.shape[:2] != size:
                raise DataError(
                    f"{file} is {_size(picture.shape[:2])} and should be {_size(size)} (height, width); resize it, or state "
                    "the size of all with --data.image-size HEIGHT WIDTH"
                )
            if pictures and picture.shape[2] != pictures[0].shape[2]:
                raise DataError(f"{file} is {_tone(picture)} and the pictures before it are {_tone(pictures[0])}; convert it")
            pictures.append(picture)
            labels.append(label)
    return np.stack(pictures), np.array(labels, dtype=np.int64), names


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, by name, without the files that desktops leave there."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); allow it, or remove the folder") from None
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in IGNORED]


def _tone(picture: np.ndarray) -> str:
    return "grey" if picture.shape[2] == 1 else "colour"


def _picture(file: Path) -> np.ndarray:
    """One picture as bytes ``[height, width, channels]``; transparency is dropped."""
    from PIL import Image

    try:
        with Image.open(file, formats=FORMATS) as image:
            mode = image.mode
            if mode in GREY + COLOUR:
                pixels = np.array(image.convert("L" if mode in GREY else "RGB"))
                return pixels.reshape(*pixels.shape[:2], -1)
    except Exception as error:  # a damaged picture raises nearly anything: OSError, SyntaxError, struct.error, …
        raise DataError(
            f"{file} cannot be read as a picture ({type(error).__name__}); accepted: {', '.join(ENDINGS)}; replace or remove it"
        ) from None
    raise DataError(f"{file} has pixels of the kind {mode}, which is not 8 bits a channel; convert it to grey or RGB")


# One .npz file


def _archive(path: Path, config: DataConfig) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Pixels ``[examples, height, width, channels]`` as bytes or floats in [0, 1], labels, and the names of the classes."""
    images, labels = _arrays(path)
    if images.ndim not in (3, 4) or 0 in images.shape[1:] or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise DataError(f"{path} has images of shape {images.shape}; give [n, h, w], or [n, h, w, c] with 1 or 3 channels")
    if labels.ndim != 1 or len(labels) != len(images) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{path} has {len(images)} images, and labels of shape {labels.shape}, type {labels.dtype}; give whole "
            "numbers, one a picture"
        )
    if len(images) == 0:
        raise DataError(f"{path} is empty: it has 0 pictures, and training needs at least 1")
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{path} has images of type {images.dtype}; give bytes (0 to 255) or floats (0 to 1)")
    if images.dtype != np.uint8 and not (images.min() >= 0 and images.max() <= 1):  # a NaN fails this too
        raise DataError(f"{path} has float images that are NaN or outside 0 to 1; scale them by a public constant")
    if config.image_size is not None and images.shape[1:3] != tuple(config.image_size):
        given, stated = _size(images.shape[1:3]), _size(tuple(config.image_size))
        raise DataError(f"the pictures of {path} are {given} and data.image_size is {stated}; give --data.image-size {given}")
    if not config.classes:
        raise DataError(
            f"data.classes is not given for {path}, and the highest label is a private example's; name all classes that can "
            "be, label 0 first, such as --data.classes cat dog, or --data.classes $(seq 0 9)"
        )
    lowest, highest, limit = int(labels.min()), int(labels.max()), len(config.classes)
    if lowest < 0 or highest >= limit:
        raise DataError(
            f"{path} has labels from {lowest} to {highest}, where 0 to {limit - 1} can be; number the classes from 0, or "
            "name all of them with --data.classes"
        )
    return images if images.ndim == 4 else images[..., None], labels.astype(np.int64), config.classes


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """``images`` and ``labels`` as they are stored."""
    try:
        with path.open("rb") as handle, np.lib.npyio.NpzFile(handle, allow_pickle=False) as stored:
            names = list(stored.files)
            arrays = {name: stored[name] for name in ("images", "labels") if name in names}
    except Exception as error:  # a damaged file raises nearly anything: BadZipFile, ValueError, zlib.error, EOFError, …
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}); write it again with numpy.savez, plain arrays only") from None
    for name in ("images", "labels"):
        if not isinstance(arrays.get(name), np.ndarray):
            raise DataError(f"{path} has no array {name!r}; it needs images and labels, and has {', '.join(names) or 'none'}")
    return arrays["images"], arrays["labels"]
