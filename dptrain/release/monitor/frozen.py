"""Thresholds as JSON: dataclasses by their fields, arrays as base64 of their little-endian bytes."""

import base64
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dptrain.errors import DataError
from dptrain.release.monitor.density import Density
from dptrain.release.monitor.detectors import Watch
from dptrain.release.monitor.statistics import Surprise

FORMAT = 2

if TYPE_CHECKING:
    from dptrain.release.monitor.thresholds import Thresholds


def written(value: Any) -> Any:
    """As JSON takes it."""
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        return {"dtype": data.dtype.str, "shape": list(data.shape), "base64": base64.b64encode(data.tobytes()).decode()}
    if is_dataclass(value):
        return {entry.name: written(getattr(value, entry.name)) for entry in fields(value)}
    return value


def thawed(content: dict[str, Any]) -> "Thresholds":
    """The thresholds again.

    Raises:
        DataError: a field is missing, or the format is another version's.
    """
    from dptrain.release.monitor.thresholds import LeftOut, Thresholds

    try:
        if content["format"] != FORMAT:
            raise DataError(
                f"the thresholds have the format {content['format']!r} and this version reads {FORMAT}; calibrate again"
            )
        watch = dict(content["watch"])
        density = watch.pop("density")
        watch["density"] = None if density is None else Density(**{name: _array(value) for name, value in density.items()})
        watch |= {name: Surprise(_array(watch[name]["benign"])) for name in ("margins", "far")}
        watch["drifts"] = _array(watch["drifts"])
        rest = {name: value for name, value in content.items() if name not in ("format", "watch", "lengths")}
        rest["left_out"] = None if content["left_out"] is None else LeftOut(**content["left_out"])
        fewest, median, most = content["lengths"]
        return Thresholds(watch=Watch(**watch), lengths=(fewest, median, most), **rest)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"these are no thresholds of a monitor ({error}); give what dptrain.release.monitor.calibrate wrote"
        ) from None


def _array(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    data = np.frombuffer(base64.b64decode(value["base64"]), dtype=np.dtype(value["dtype"]))
    return data.reshape(value["shape"]).astype(data.dtype.newbyteorder("="))
