"""Forty people, ten photographs each: twenty are private, and their images are the examples; twenty are known to everyone.

    data = load(DataConfig(name="faces"))     # inputs [200, 1, 56, 46], 20 classes, one a person
    data.others.inputs                        # [200, 1, 56, 46]: images of twenty other people
    data.others.groups                        # [200]: which of them each one shows

The faces are those of AT&T Laboratories Cambridge, once Olivetti's (Samaria and Harter 1994, "Parameterisation of a stochastic
model for human face identification"), on which faces were first reconstructed from a model (Fredrikson, Jha, Ristenpart 2015).
They are read from ``data.path``, an ``.npz`` with ``images`` as bytes ``[n, height, width]`` and ``labels`` ``[n]``; else from
``att_faces.npz`` in the folder that ``DPTRAIN_DATA`` names; else from ``~/.cache/dptrain``, into which scikit-learn's copy
(64×64) is downloaded and converted when it is not there.

Each image is brought to ``data.image_size``, left out 56×46, by the mean of the pixels that fall into each new one: of the
original 112×92 that is each square of four. Pixels lie in [0, 1] by construction and are shifted by 0.5. Who is private is
drawn with a constant seed, so it is a public fact, and no private image decides it.
"""

import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from dptrain.data.dataset import DataSet, Others
from dptrain.data.places import shared_file
from dptrain.errors import DataError
from dptrain.files import write_file
from dptrain.recipe import DataConfig

PEOPLE = 20
"""Private ones, and as many public ones."""
SIZE = (56, 46)
SHIFT = 0.5
FILE = "att_faces.npz"
CONVERTED = "olivetti_faces.npz"
WHAT = "give an .npz with images, bytes [n, height, width], and labels [n], which person each shows"
TERMS = "AT&T Laboratories Cambridge; Samaria and Harter 1994; free for research with credit; pictures of real people"


def load(config: DataConfig) -> DataSet:
    """The faces, private ones as examples and public ones as ``others``.

    Raises:
        DataError: nothing there, arrays of another shape or kind, fewer than 40 people, one with a single image, or images
            smaller than ``data.image_size``.
    """
    path = _place(config.path)
    images, labels = _arrays(path)
    size = SIZE if config.image_size is None else config.image_size
    if min(size) < 1 or any(stored < side for stored, side in zip(images.shape[1:], size, strict=True)):
        raise DataError(
            f"the images of {path} are of another size: {_size(images.shape[1:])} (height, width), which cannot be averaged "
            f"down to {_size(size)}; give larger ones, or a smaller --data.image-size"
        )
    private, public = chosen_people(labels, path)
    inputs = adaptive_avg_pool2d(torch.from_numpy(images).float().unsqueeze(1) / 255, size) - SHIFT
    place_of = {int(person): place for places in (private, public) for place, person in enumerate(places)}
    places = torch.tensor([place_of.get(int(person), -1) for person in labels])
    own, other = (torch.from_numpy(np.isin(labels, people)) for people in (private, public))
    return DataSet(
        name="faces",
        inputs=inputs[own],
        targets=places[own],
        classes=tuple(f"person {person}" for person in private),
        bounds=(-SHIFT, 1 - SHIFT),
        source=_source(path, images.shape[1:], size),
        others=Others(inputs[other], places[other]),
        users=places[own],
        classes_are="users",
    )


def chosen_people(labels: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The labels of the private and of the public people, sorted.

    Raises:
        DataError: there are too few people, or somebody has a single image.
    """
    people, counts = np.unique(labels, return_counts=True)
    if len(people) < 2 * PEOPLE:
        raise DataError(
            f"{path} shows {len(people)} people, too few: {PEOPLE} are private and {PEOPLE} others public; give images of at "
            f"least {2 * PEOPLE} people"
        )
    if counts.min() < 2:
        raise DataError(
            f"{path} has a class with one image: person {people[counts.argmin()]}, who can be trained on or held out and not "
            "both; give at least 2 images a person"
        )
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([*b"faces"])))
    drawn = generator.permutation(people)
    return np.sort(drawn[:PEOPLE]), np.sort(drawn[PEOPLE : 2 * PEOPLE])


def _size(size: tuple[int, ...]) -> str:
    return " ".join(str(side) for side in size)


def _source(path: Path, stored: tuple[int, ...], size: tuple[int, ...]) -> str:
    known = {FILE: "AT&T faces", CONVERTED: "Olivetti faces, scikit-learn's copy, converted to bytes"}
    scaled = "" if tuple(stored) == tuple(size) else f", averaged down from {stored[0]}×{stored[1]} to {size[0]}×{size[1]}"
    return f"{known.get(path.name, path.name)}{scaled} ({TERMS if path.name in known else 'given by the user'})"


def _place(path: str | None) -> Path:
    if path is not None:
        given = Path(path) / FILE if Path(path).is_dir() else Path(path)
        if not given.is_file():
            raise DataError(
                f"data.path is {path!r}, and there is no file {given}; {WHAT}, or leave it out to download the faces"
            )
        return given
    shared = shared_file(FILE)
    if shared is not None:
        return shared
    cached = Path.home() / ".cache" / "dptrain" / CONVERTED
    if not cached.is_file():
        _download(cached)
    return cached


def _download(place: Path) -> None:
    """scikit-learn's copy, as bytes in an ``.npz``: what it keeps itself is a pickle, and is thrown away."""
    from sklearn.datasets import fetch_olivetti_faces

    try:
        with tempfile.TemporaryDirectory() as folder:
            pixels, labels = fetch_olivetti_faces(data_home=folder, return_X_y=True)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"the faces are not on this computer and cannot be downloaded ({reason}); {WHAT}, with --data.path, or put "
            f"{FILE} into a folder and name it in DPTRAIN_DATA"
        ) from None
    content = io.BytesIO()
    images = np.rint(np.asarray(pixels).reshape(-1, 64, 64) * 255).astype(np.uint8)
    np.savez_compressed(content, images=images, labels=np.asarray(labels, dtype=np.int64))
    write_file(place, content.getvalue())


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """``images`` as bytes ``[n, height, width]`` and ``labels`` ``[n]``."""
    try:
        with path.open("rb") as handle, np.lib.npyio.NpzFile(handle, allow_pickle=False) as stored:
            names = list(stored.files)
            arrays = {name: np.asarray(stored[name]) for name in ("images", "labels") if name in names}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}); {WHAT}, all images of one size") from None
    for name in ("images", "labels"):
        if name not in arrays:
            raise DataError(f"{path} has no array {name!r} and has {', '.join(names) or 'none'}; {WHAT}")
    images, labels = arrays["images"], arrays["labels"]
    if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape:
        raise DataError(f"{path} has images of shape {images.shape} and type {images.dtype}; {WHAT}")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{path} has {len(images)} images, and labels of shape {labels.shape} and type {labels.dtype}; {WHAT}, as "
            "whole numbers"
        )
    return images, labels


def bytes_of(inputs: Tensor) -> np.ndarray:
    """Pixels from 0 to 255, ``[examples, height, width]``, of faces as they are loaded or reconstructed."""
    return ((inputs[:, 0] + SHIFT).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
