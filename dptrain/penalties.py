"""Regularizers of one's own: what an example's loss is charged for beyond its label.

    @REGULARIZERS.register("logit_norm", "the squared length of the outputs")
    def logit_norm(outputs, inputs, targets):          # one value an example, of this example alone
        return outputs.square().sum(1)

    dptrain run digits --regularized.penalty logit_norm0.01

A recipe says them as one text: each is a registered name, and glued to it the number that it is multiplied by, joined by ``-``
where there are several. Under clipping a penalty is bounded with the loss that it is added to. One that compares examples is
each example's own there, since each is then computed by itself. Imports no torch.
"""

import math
import re
from typing import TYPE_CHECKING, Any

from dptrain.errors import ConfigError
from dptrain.registry import REGULARIZERS

if TYPE_CHECKING:
    from torch import Tensor

_STRENGTH = re.compile(r"^(.*?)(\d+(?:\.\d+)?(?:e-?\d+)?)$")


def parse(text: str) -> tuple[tuple[str, float], ...]:
    """Names and strengths.

    Raises:
        ConfigError: a name is not registered, or has no strength.
    """
    return tuple(_parsed(part) for part in re.split(r"(?<!e)-", text)) if text else ()


def _parsed(part: str) -> tuple[str, float]:
    known = max((name for name in REGULARIZERS.names() if part.startswith(name)), key=len, default="")
    said = _STRENGTH.match(part)
    name, strength = (known, part[len(known) :]) if known else (said.group(1), said.group(2)) if said else (part, "")
    if not REGULARIZERS.names():
        raise ConfigError(
            f"regularization.penalty is {part!r}, and no regularizer is registered; register yours with "
            "@dptrain.REGULARIZERS.register(...) in a script that calls recipes.cli.main()"
        )
    REGULARIZERS.check(name)
    try:
        value = float(strength)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(
            f"the regularizer {name!r} has the strength {strength!r}; glue a number above 0 to it, such as {name}0.1"
        )
    return name, value


def penalty_of(text: str, outputs: "Tensor", inputs: Any, targets: "Tensor") -> "Tensor":
    """What the penalties of a recipe charge each example, ``[examples]``.

    Raises:
        ConfigError: one of them does not give one value an example.
    """
    total = outputs.new_zeros(len(outputs))
    for name, strength in parse(text):
        charged = REGULARIZERS[name](outputs, inputs, targets)
        if tuple(getattr(charged, "shape", ())) != (len(outputs),):
            raise ConfigError(
                f"the regularizer {name!r} gave {_what(charged)} for {len(outputs)} examples; give one value an example, such "
                "as outputs.square().sum(1)"
            )
        total = total + strength * charged
    return total


def _what(given: Any) -> str:
    shape = getattr(given, "shape", None)
    return f"a {type(given).__name__}" if shape is None else f"values of shape {tuple(shape)}"
