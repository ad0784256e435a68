"""A value to predict in place of a class: its unit, its public bounds, and the scale on which a model predicts it.

    dose = Values("dose", "mg a week", (2.0, 320.0), scale="square_root")
    dose.encode(np.array([35.0]))        # what the model learns, between -0.5 and 0.5
    dose.decode(model(inputs)[:, 0])     # in mg a week again

With s the scale (the value itself, or its square root) and [a, b] the public bounds, a value v is encoded as

    (s(v) − s(a)) / (s(b) − s(a)) − ½

so that a model's output needs neither a mean nor a deviation that would be computed from private examples. Decoding is the
inverse; an output below the scale's own end (a negative square root) decodes to that end.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Float

from dptrain.errors import DataError, unknown_name
from dptrain.recipe import Scale


@dataclass(frozen=True)
class Values:
    """What is publicly known of the value.

    Raises:
        DataError: the bounds are not two finite numbers, the lower first, or have no square root.
    """

    name: str
    """Such as ``dose``."""
    unit: str
    """Such as ``mg a week``."""
    bounds: tuple[float, float]
    """Lowest and highest value, in that unit, known without looking at the data."""
    scale: Scale = "linear"
    """On which the model predicts."""

    def __post_init__(self) -> None:
        low, high = self.bounds
        if self.scale not in get_args(Scale):
            raise unknown_name("the scale of a value", self.scale, get_args(Scale), DataError)
        if not (np.isfinite(high - low) and low < high):
            raise DataError(f"the bounds of {self.name!r} are {self.bounds}; give two finite numbers, the lower first")
        if self.scale == "square_root" and low < 0:
            raise DataError(
                f"the bounds of {self.name!r} are {self.bounds}, and below 0 there is no square root; give scale 'linear'"
            )

    @property
    def has_origin(self) -> bool:
        """Whether 0 is the least there can be, so that an error may be stated as a share of the value."""
        return self.bounds[0] >= 0

    def encode(self, values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Values in their unit as a model's outputs.

        Raises:
            DataError: a value lies outside the bounds, or is not finite.
        """
        given = np.asarray(values, dtype=np.float64)
        low, high = self.bounds
        inside = (given >= low) & (given <= high)
        if not inside.all():
            bad = given[~inside].flat[0]
            raise DataError(
                f"{self.name!r} is {bad:g} and lies outside its public bounds [{low:g}, {high:g}] in {int((~inside).sum())} "
                "examples; state wider bounds, or leave such examples out"
            )
        start, length = self._range()
        return (self._scaled(given) - start) / length - 0.5

    def decode(self, outputs: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """A model's outputs as values in their unit."""
        start, length = self._range()
        scaled = start + length * (np.asarray(outputs, dtype=np.float64) + 0.5)
        return np.maximum(scaled, 0.0) ** 2 if self.scale == "square_root" else scaled

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        return np.sqrt(values) if self.scale == "square_root" else values

    def _range(self) -> tuple[float, float]:
        low, high = self._scaled(np.array(self.bounds, dtype=np.float64))
        return float(low), float(high - low)
