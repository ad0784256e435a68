"""What an attacker sees of a model. Each level includes those below it.

label < top-k < scores < logits < gradients < weights
"""

from enum import IntEnum

from dptrain.errors import UserError


class Access(IntEnum):
    """A level of access; compare levels with ``<``."""

    LABEL = 1
    """The most probable class."""
    TOP_K = 2
    """The k most probable classes, in order."""
    SCORES = 3
    """The probability of every class."""
    LOGITS = 4
    """Outputs before the softmax."""
    GRADIENTS = 5
    """Derivatives of the scores with respect to the input."""
    WEIGHTS = 6
    """The model itself."""

    @property
    def word(self) -> str:
        """The level as it is written in results."""
        return {"TOP_K": "top-k"}.get(self.name, self.name.lower())


class AccessError(UserError):
    """An attack asked for more than its access level shows."""
