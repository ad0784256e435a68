"""Rows of pictures beside a result, for the views to draw.

figures = keep_rows(folder, "inversion.prior", {"class mean": means, "reconstruction": found}, data.bounds)
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from dptrain.files import write_file


def keep_rows(folder: Path, name: str, rows: Mapping[str, Tensor], bounds: tuple[float, float]) -> tuple[str, ...]:
    """Writes pictures ``[classes, channels, height, width]`` as arrays from 0 to 1, with what each row is; grey where a class
    has none (NaN).

    Returns:
        The file's name.
    """
    arrays = {"labels": np.array(list(rows))} | {f"row{at}": _shown(row, bounds) for at, row in enumerate(rows.values())}
    file, content = f"{name}.npz", io.BytesIO()
    np.savez_compressed(content, **arrays)  # pyright: ignore[reportArgumentType]  no array is named allow_pickle
    write_file(folder / file, content.getvalue())
    return (file,)


def _shown(pictures: Tensor, bounds: tuple[float, float]) -> np.ndarray:
    low, high = bounds
    scaled = ((pictures - low) / (high - low)).clamp(0, 1).nan_to_num(0.5)
    return (scaled[:, 0] if scaled.shape[1] == 1 else scaled.permute(0, 2, 3, 1)).numpy()
